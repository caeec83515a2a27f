"""What is at which address: the page, the figures, the picture."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from importlib import resources
from typing import Any
from urllib.parse import parse_qs

from edgecnn.stream.outputs import json_text
from edgecnn.web.access import Access
from edgecnn.web.channel import Channel
from edgecnn.web.server import Handler

__all__ = ["Pages", "View"]

PICTURE_WAIT_S = 1.0
NUMBER_HEADER = "X-Edgecnn-Number"


@dataclass(frozen=True)
class View:
    """All there is to see.

    Attributes:
        about: The model and what runs it.
        channels: One for each source.
    """

    about: str
    channels: Sequence[Channel]

    def to_json(self, chosen: Channel) -> dict[str, Any]:
        """The state of all sources, and everything of one of them."""
        return {
            "about": self.about,
            "sources": [channel.brief() for channel in self.channels],
            "source": chosen.to_json(),
        }

    @cached_property
    def page(self) -> bytes:
        """The page: the same for everybody, with its style and its program in it."""
        text = _resource("page.html")
        for name in ("page.css", "page.js"):
            text = text.replace(f"{{{name}}}", _resource(name))
        return text.encode()

    @cached_property
    def headers(self) -> dict[str, str]:
        """Of every answer: nothing is run, shown or asked for but what is on the page, and nothing kept."""
        policy = {
            "default-src": "'none'",
            "script-src": _hashed("page.js"),
            "style-src": _hashed("page.css"),
            "img-src": "blob: data:",
            "connect-src": "'self'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
            "require-trusted-types-for": "'script'",
        }
        return {
            "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }


class Pages(Handler):
    """Answers GET and HEAD of those who are let in."""

    def __init__(self, *connection: Any, view: View, access: Access) -> None:
        self._view = view
        self._access = access
        self._more: dict[str, str] = {}
        super().__init__(*connection)

    def answer(self) -> None:
        """Find out what is asked for, and whether it may be."""
        self._more = {}
        if self.command not in ("GET", "HEAD"):
            self._more["Allow"] = "GET, HEAD"
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)
            return
        path, _, query = self.path.partition("?")
        self._query = {name: values[-1] for name, values in parse_qs(query).items()}
        token = self._query.get("token")
        refusal = self._access.refusal(self.headers, token)
        if refusal is not None:
            self.send_error(HTTPStatus.FORBIDDEN, refusal)
            return
        if self._access.knows(token):
            self._more["Set-Cookie"] = self._access.set_cookie()
        pages = {"/": self._page, "/state.json": self._state, "/picture.jpg": self._picture}
        if path in pages:
            pages[path]()
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def error_headers(self) -> dict[str, str]:
        """The same as those of answers."""
        return {**self._view.headers, **self._more}

    def _page(self) -> None:
        self._send("text/html; charset=utf-8", self._view.page)

    def _state(self) -> None:
        self._send("application/json", json_text(self._view.to_json(self._channel())).encode())

    def _picture(self) -> None:
        picture = self._channel().newest.get(self._number("after"), PICTURE_WAIT_S)
        if picture is None:
            self._send("", b"", HTTPStatus.NO_CONTENT)
            return
        self._more[NUMBER_HEADER] = str(picture.number)
        self._send("image/jpeg", picture.jpeg)

    def _channel(self) -> Channel:
        return self._view.channels[min(self._number("source"), len(self._view.channels) - 1)]

    def _number(self, name: str) -> int:
        text = self._query.get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0

    def _send(self, kind: str, body: bytes, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send(status, kind, body, {**self._view.headers, **self._more})


def _resource(name: str) -> str:
    return resources.files("edgecnn.web").joinpath(name).read_text(encoding="utf-8")


def _hashed(name: str) -> str:
    digest = hashlib.sha256(_resource(name).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
