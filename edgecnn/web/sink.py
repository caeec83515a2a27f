"""The sink of ``--web``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from edgecnn.results import Result
from edgecnn.stream.base import Frame, Image, Source, SourceEvent, Summary
from edgecnn.web.access import open_access, parse_place
from edgecnn.web.channel import Channel
from edgecnn.web.pages import Pages, View
from edgecnn.web.server import Server

__all__ = ["WebSink"]


class WebSink:
    """Serves a page with the annotated stream and its figures, while it runs.

    Viewers take from it what they need, in threads of their own; `write` waits for none of them.

    Attributes:
        url: Where the page is, with the token where one was made up.
    """

    def __init__(self, where: str, source: Source, about: str) -> None:
        """Begin to serve.

        Args:
            where: ``[HOST:]PORT``. Other hosts than this machine's loopback ask for a token: that of
                ``$EDGECNN_WEB_TOKEN``, else one that is made up.
            source: Where the frames will come from.
            about: The model and what runs it, for the page.

        Raises:
            InputError: No such place, or it cannot be listened on.
            Unavailable: The port is taken.
        """
        place = parse_place(where)
        access = open_access(place)
        members = source.members
        self._channels = {member.name: Channel(member) for member in members}
        self._only = self._channels[members[0].name]
        view = View(about, tuple(self._channels.values()))
        self._server = Server(place, partial(Pages, view=view, access=access))
        token = f"?token={access.token}" if access.printed else ""
        self.url = replace(place, port=self._server.port).url + token
        source.listen(self.note)

    def write(self, frame: Frame, result: Result, annotated: Callable[[], Image]) -> None:
        """Take one frame; it is drawn and encoded when somebody looks."""
        # the frames of a folder have the names of their files
        self._channels.get(frame.source, self._only).add(frame, result, annotated)

    def note(self, event: SourceEvent) -> None:
        """Take what happened to a live source."""
        self._channels[event.source].note(event)

    def close(self, summary: Summary) -> None:
        """Cut all connections; the page says that the stream is gone."""
        for channel in self._channels.values():
            channel.newest.close()
        self._server.close()
