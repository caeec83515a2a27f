"""A folder whose pictures are taken as they come."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

from edgecnn.errors import MediaError
from edgecnn.stream.base import Frame, Source

__all__ = ["WatchedFolder"]

log = logging.getLogger(__name__)

POLL_S = 0.2
# what changed within so many looks is still being written
SETTLED_LOOKS = 2

# modification time in ns and bytes: what tells a new picture from one of the same name
_State = tuple[int, int]


class WatchedFolder(Source):
    """Pictures that are put into a folder, and those that are there already, by age; it has no end.

    A picture is taken once it has been the same for two looks, 0.2 s apart, and again when it is replaced.
    Those in folders below, and hidden ones, are left.
    """

    def __init__(self, folder: Path) -> None:
        """Begin to watch.

        Raises:
            MediaError: It is no folder that can be read.
        """
        self.name = f"watch://{folder}"
        self._folder = folder
        self._ending = threading.Event()
        self._taken: dict[Path, _State] = {}
        self._seen: dict[Path, tuple[_State, int]] = {}
        self._look()
        super().__init__()

    def _read(self) -> Iterator[Frame]:
        from edgecnn.vision.images import read_image

        index = 0
        while not self._ending.is_set():
            for path in self._look():
                try:
                    image = read_image(path)
                except MediaError as error:
                    self.skipped += 1
                    log.warning("skipped: %s", error)
                    continue
                yield Frame(index, image, 0.0, str(path))
                index += 1
                if self._ending.is_set():
                    return
            self._ending.wait(POLL_S)

    def _look(self) -> list[Path]:
        """Pictures that are whole and new, oldest first; they count as taken."""
        from edgecnn.vision.images import IMAGE_SUFFIXES

        found: dict[Path, _State] = {}
        try:
            for path in self._folder.iterdir():
                if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
                    try:
                        status = path.stat()
                    except OSError:  # it has gone again
                        continue
                    found[path] = status.st_mtime_ns, status.st_size
        except OSError as error:
            raise MediaError(f"{self._folder}: cannot be watched ({error.strerror})") from error
        # what has gone need not be remembered
        self._taken = {path: state for path, state in self._taken.items() if path in found}
        looks = {
            path: (state, self._seen[path][1] + 1 if self._seen.get(path, (None, 0))[0] == state else 1)
            for path, state in found.items()
            if self._taken.get(path) != state
        }
        whole = [path for path, (_, count) in looks.items() if count >= SETTLED_LOOKS]
        self._taken |= {path: found[path] for path in whole}
        self._seen = {path: look for path, look in looks.items() if path not in whole}
        return sorted(whole, key=lambda path: (found[path][0], path))

    def close(self) -> None:
        """Watch no longer."""
        self._ending.set()
        super().close()
