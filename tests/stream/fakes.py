"""Predictors with known answers, pictures that can be told apart, and sinks that remember."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from edgecnn.results import Classification, Detections, Result
from edgecnn.stream import Frame, Source, Summary
from edgecnn.stream.base import Image
from edgecnn.vision.opencv import cv2


def picture(value: int, size_hw: tuple[int, int] = (48, 64)) -> Image:
    """An even picture of one grey level."""
    return np.full((*size_hw, 3), value, np.uint8)


def pictures(count: int) -> Image:
    """Pictures that get brighter, (count, 48, 64, 3)."""
    return np.stack([picture(10 * i) for i in range(count)])


def write_picture(path: Path, value: int = 100, size_hw: tuple[int, int] = (48, 64)) -> Path:
    """A picture as a file of the kind of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ok, data = cv2.imencode(path.suffix, picture(value, size_hw))
    assert ok
    path.write_bytes(data.tobytes())
    return path


def write_video(path: Path, count: int = 8, fps: float = 10.0) -> Path:
    """A Motion JPEG video of `pictures`."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, (64, 48))
    for image in pictures(count):
        writer.write(image)
    writer.release()
    return path


def detections(count: int, score: float = 0.9) -> Detections:
    """Boxes of 10 px in a row."""
    boxes = [[10.0 * i, 5.0, 10.0 * i + 10, 15.0] for i in range(count)]
    return Detections(
        np.array(boxes, np.float32),
        np.full(count, score, np.float32),
        np.zeros(count, np.int64),
        ("thing",) * count,
        {"infer": 1.0},
    )


def classes(score: float) -> Classification:
    """One class."""
    return Classification(np.array([0]), np.array([score]), ("thing",))


def predicting(results: Sequence[Result]) -> Callable[[Image], Result]:
    """Gives the results in turn, whatever the frame."""
    left = iter(results)
    return lambda image: next(left)


class Frames(Source):
    """Pictures one after the other, 10 a second of their own time; a camera's, where that is wanted."""

    name, fps, ahead = "camera:0", 10.0, False

    def __init__(self, images: Sequence[Image], *, live: bool) -> None:
        super().__init__()
        self.live = live
        self._images = images

    def _read(self) -> Iterator[Frame]:
        for number, image in enumerate(self._images):
            yield Frame(number, image, number / 10, self.name)


class Memory:
    """A sink that keeps what it was given."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.results: list[Result] = []
        self.drawn: list[Image] = []
        self.summary: Summary | None = None

    def write(self, frame: Frame, result: Result, annotated: Callable[[], Image]) -> None:
        self.frames.append(frame)
        self.results.append(result)
        self.drawn.append(annotated())

    def close(self, summary: Summary) -> None:
        assert self.summary is None, "closed twice"
        self.summary = summary
