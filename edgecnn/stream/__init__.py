"""Frames in, results out: sources, sinks and the loop that ties them together."""

from __future__ import annotations

from edgecnn.stream.base import EndOfStream, Frame, Sink, Source, Summary
from edgecnn.stream.engine import Interrupted, run_stream
from edgecnn.stream.jsonl import JsonlSink
from edgecnn.stream.pipeline import open_pipeline
from edgecnn.stream.sinks import open_json, open_save
from edgecnn.stream.sources import open_source, open_sources
from edgecnn.stream.stills import FolderSink, StillSink
from edgecnn.stream.supervision import Supervised
from edgecnn.stream.video import VideoSink
from edgecnn.stream.window import WindowSink

__all__ = [
    "EndOfStream",
    "FolderSink",
    "Frame",
    "Interrupted",
    "JsonlSink",
    "Sink",
    "Source",
    "StillSink",
    "Summary",
    "Supervised",
    "VideoSink",
    "WindowSink",
    "open_json",
    "open_pipeline",
    "open_save",
    "open_source",
    "open_sources",
    "run_stream",
]
