"""What flows through a stream: frames from a source, and the contract of what takes them."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from edgecnn.results import Result

__all__ = ["EndOfStream", "Frame", "Image", "Sink", "Source", "SourceEvent", "Summary"]

log = logging.getLogger(__name__)

CLOSE_S = 2.0

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source.

    Attributes:
        index: 0-based number in the order of the source; skipped pictures are not counted, those of a
            camera that were dropped are.
        image: uint8 (H, W, 3) BGR.
        time_s: For a video the media time, ``index / fps``; for a camera the seconds since it was
            opened; 0 for pictures that have no clock (images, arrays, iterables).
        source: Where it came from: a file's path, ``camera:0``, ``frames``.
    """

    index: int
    image: Image
    time_s: float
    source: str


@dataclass(frozen=True)
class SourceEvent:
    """A change of a live source.

    Attributes:
        source: Its name.
        state: What it is from now on.
        reason: Why it was lost; how long it was away, once it is back.
        time: Seconds since 1970.
    """

    source: str
    state: Literal["lost", "back"]
    reason: str
    time: float

    def to_json(self) -> dict[str, Any]:
        """Plain values by the names above."""
        return dict(vars(self))


class Source(ABC):
    """An iterator of frames, and a context manager that releases what it holds.

    Attributes:
        name: The file, folder or device, for messages.
        fps: Frames per second of media time; None where pictures have no clock.
        live: Frames come when they come (a camera) and are lost when nobody takes them.
        ahead: Frames may be read before somebody asks for them, and in another thread.
        frames_announced: How many frames the source claims to have. Containers lie: for display only.
        root: The folder that the pictures lie under (a folder source), else None.
        paths: The files it reads, which no output may overwrite.
        skipped: Pictures that could not be read so far (a folder source).
        dropped: Frames that came and were passed over for newer ones before anybody could have them.
        reconnects: How often it was back after it had been lost.
    """

    name: str
    fps: float | None = None
    live: bool = False
    ahead: bool = True
    frames_announced: int | None = None
    root: Path | None = None
    paths: tuple[Path, ...] = ()
    skipped: int = 0
    dropped: int = 0
    reconnects: int = 0

    def __init__(self) -> None:
        self._listeners: list[Callable[[SourceEvent], None]] = []
        self._frames = self._read()
        self._reading = threading.Lock()
        self._closed = False

    @property
    def members(self) -> tuple[Source, ...]:
        """The sources it is made of: itself, where it is one."""
        return (self,)

    def listen(self, listener: Callable[[SourceEvent], None]) -> None:
        """Have a function called when it is lost and when it is back, in the thread that reads."""
        for member in self.members:
            member._listeners.append(listener)

    @abstractmethod
    def _read(self) -> Iterator[Frame]:
        """Give the frames, one after the other."""

    def _release(self) -> None:  # noqa: B027 (most sources hold nothing)
        """Let go of the file or device; called once, while nothing is read."""

    def close(self) -> None:
        """Release the file or device; no frame comes afterwards.

        What another thread is reading for longer than some seconds is left as it is: releasing a device
        under a driver that hangs would end the process.
        """
        if not self._reading.acquire(timeout=CLOSE_S):
            log.warning("%s does not answer, and is left open", self.name)
            return
        try:
            if not self._closed:
                self._closed = True
                self._release()
        finally:
            self._reading.release()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        """Give the next frame.

        Raises:
            MediaError: Nothing in the source can be read.
            DeviceUnavailable: A camera stopped answering.
        """
        with self._reading:
            if self._closed:
                raise StopIteration
            return next(self._frames)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@dataclass(frozen=True)
class Summary:
    """What came of a stream.

    Attributes:
        frames: Frames that were processed.
        dropped: Frames of a live source that came while those before were worked on, and were given up
            for newer ones. What a camera's driver discards is not counted.
        fps: Frames per second of wall time, reading and outputs included.
        p50_ms, p95_ms: Percentiles of a frame's prediction time (not reading, not outputs) over the
            latest 10,000 frames; None when there was no frame.
        reconnects: How often a source was opened again.
        seconds: Wall time.
        skipped: Pictures of a folder that could not be used.
        failed: Frames without a result, because the engine failed over them.
        restarts: How often an engine was replaced.
    """

    frames: int
    dropped: int
    fps: float
    p50_ms: float | None
    p95_ms: float | None
    reconnects: int
    seconds: float
    skipped: int = 0
    failed: int = 0
    restarts: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain numbers by the names above."""
        return dict(vars(self))


class Sink(Protocol):
    """Takes frames with their results, in order."""

    def write(self, frame: Frame, result: Result, annotated: Callable[[], Image]) -> None:
        """Take one frame.

        Args:
            frame: The frame; its image must not be changed.
            result: What was predicted on it.
            annotated: Gives the frame with the result drawn on it; drawn once a frame, shared between
                sinks, not to be changed. May be called later, and in another thread.

        Raises:
            EndOfStream: The user asked this sink to stop.
        """

    def close(self, summary: Summary) -> None:
        """Finish the output so that it is valid; called once, also after an error or an interrupt."""


class EndOfStream(Exception):
    """A sink wants the stream to end as if the source had ended."""
