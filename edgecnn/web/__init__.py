"""What a running stream shows to browsers: one page, a picture at a time, and figures."""

from __future__ import annotations

from edgecnn.web.sink import WebSink

__all__ = ["WebSink"]
