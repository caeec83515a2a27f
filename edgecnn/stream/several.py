"""Several sources as one: for one model that looks at all of them in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from edgecnn.stream.base import Frame, Source, SourceEvent

__all__ = ["SeveralSources"]


class SeveralSources(Source):
    """The frames of several sources in turn; each frame says where it came from.

    It ends when all of them have ended.
    """

    def __init__(self, members: Sequence[Source]) -> None:
        """Take sources that are open; they are closed with this one."""
        self._members = tuple(members)
        self.name = f"{len(members)} sources"
        self.live = any(member.live for member in members)
        self.ahead = all(member.ahead for member in members)
        self.paths = tuple(path for member in members for path in member.paths)
        announced = [member.frames_announced for member in members]
        self.frames_announced = None if None in announced else sum(count or 0 for count in announced)
        super().__init__()

    @property
    def members(self) -> tuple[Source, ...]:
        """Those it was made of."""
        return self._members

    @property
    def skipped(self) -> int:  # type: ignore[override]
        """Of all of them."""
        return sum(member.skipped for member in self._members)

    @property
    def dropped(self) -> int:  # type: ignore[override]
        """Of all of them."""
        return sum(member.dropped for member in self._members)

    @property
    def reconnects(self) -> int:  # type: ignore[override]
        """Of all of them."""
        return sum(member.reconnects for member in self._members)

    def listen(self, listener: Callable[[SourceEvent], None]) -> None:
        """Have a function told of each of them."""
        for member in self._members:
            member.listen(listener)

    def _read(self) -> Iterator[Frame]:
        waiting = deque(self._members)
        while waiting:
            member = waiting.popleft()
            frame = next(member, None)
            if frame is not None:
                waiting.append(member)
                yield frame

    def close(self) -> None:
        """Close all of them."""
        for member in self._members:
            member.close()
