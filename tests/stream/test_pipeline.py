from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from edgecnn.errors import DeviceUnavailable, InputError
from edgecnn.results import Result
from edgecnn.stream import Frame, base, open_pipeline, open_source, run_stream
from edgecnn.stream.base import Image, Source
from edgecnn.stream.capture import Capture
from tests.stream.fakes import Memory, detections, picture, pictures

PATIENCE_S = 10


class Camera(Source):
    """Gives numbered pictures, each when it is told to; then it fails as a camera whose cable was pulled."""

    live = True
    name = "camera"

    def __init__(self, count: int) -> None:
        self.count = count
        self.come = threading.Semaphore(0)
        self.given = 0
        super().__init__()

    def _read(self) -> Iterator[Frame]:
        for index in range(self.count):
            assert self.come.acquire(timeout=PATIENCE_S)
            self.given += 1
            yield Frame(index, picture(index), 0.0, self.name)
        raise DeviceUnavailable("camera: the cable was pulled")

    def give(self, count: int) -> None:
        """Let so many pictures come, and wait until they have."""
        for _ in range(count):
            self.come.release()
        until(lambda: self.given == self.count or self.come._value == 0)  # type: ignore[attr-defined]


def until(condition: object) -> None:
    """Wait for what other threads do."""
    end = time.monotonic() + PATIENCE_S
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.001)


def number(image: Image) -> int:
    return int(image[0, 0, 0])


def test_an_interrupt_at_any_step_leaves_nothing_that_cannot_be_closed() -> None:
    """Ctrl-C comes between any two steps of what Python does."""
    step, reached = 0, True
    while reached:
        step, reached = step + 1, False
        pipeline = open_pipeline(open_source(pictures(5)), lambda image: detections(1), workers=2)
        assert pipeline.take() is not None
        left = step

        def interrupt(*_: object) -> Any:
            nonlocal left, reached
            left -= 1
            if left == 0:
                reached = True
                raise KeyboardInterrupt
            return interrupt

        with suppress(KeyboardInterrupt):
            sys.settrace(interrupt)
            try:
                pipeline.take()
            finally:
                sys.settrace(None)
        closing = threading.Thread(target=pipeline.close, daemon=True)
        closing.start()
        closing.join(PATIENCE_S)
        assert not closing.is_alive(), f"interrupted at step {step}"
    assert step > 10


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_order_is_kept_however_long_a_frame_takes(workers: int) -> None:
    rng = np.random.default_rng(0)
    pauses = rng.uniform(0, 0.004, 40)

    def uneven(image: Image) -> Result:
        time.sleep(pauses[number(image) // 10])
        return detections(number(image) // 10)

    sink = Memory()
    summary = run_stream(uneven, open_source(pictures(25)), [sink], workers=workers)
    assert [len(result) for result in sink.results] == list(range(25))  # type: ignore[arg-type]
    assert [frame.index for frame in sink.frames] == list(range(25))
    assert (summary.frames, summary.dropped) == (25, 0)


def test_frames_are_predicted_side_by_side() -> None:
    together = threading.Barrier(3)

    def meet(image: Image) -> Result:
        together.wait(PATIENCE_S)  # breaks unless three are here at the same time
        return detections(1)

    assert run_stream(meet, open_source(pictures(6)), workers=3).frames == 6


def test_the_next_frame_is_predicted_while_one_is_written() -> None:
    begun = [threading.Event() for _ in range(3)]

    class Slow(Memory):
        def write(self, frame: Frame, result: Result, annotated: object) -> None:  # type: ignore[override]
            if frame.index < 2:
                assert begun[frame.index + 1].wait(PATIENCE_S)

    def predict(image: Image) -> Result:
        begun[number(image) // 10].set()
        return detections(1)

    assert run_stream(predict, open_source(pictures(3)), [Slow()]).frames == 3


def test_no_more_frames_are_held_than_promised_while_the_caller_is_slow() -> None:
    class Endless(Camera):
        live = False

    source, workers = Endless(1000), 2
    for _ in range(1000):
        source.come.release()
    with source, open_pipeline(source, lambda image: detections(1), workers) as pipeline:
        for taken in range(1, 6):
            prediction = pipeline.take()
            assert prediction is not None
            time.sleep(0.02)  # time enough to read more
            assert source.given <= taken - 1 + 2 * workers + 3


def test_of_a_camera_the_newest_frame_is_taken_and_the_others_are_counted() -> None:
    source = Camera(20)
    go_on = threading.Event()
    seen = []

    def slow(image: Image) -> Result:
        seen.append(number(image))
        assert go_on.wait(PATIENCE_S)
        return detections(1)

    with source, open_pipeline(source, slow) as pipeline:
        source.give(1)
        until(lambda: seen == [0])
        source.give(10)
        until(lambda: pipeline.dropped == 9)
        go_on.set()
        frames = [pipeline.take(), pipeline.take()]
    assert seen[:2] == [0, 10]
    assert [each.frame.index for each in frames if each] == [0, 10]


def test_camera_that_fails_gives_its_last_frames_first() -> None:
    source = Camera(2)
    source.come.release()
    with source, open_pipeline(source, lambda image: detections(1)) as pipeline:
        first = pipeline.take()
        source.come.release()
        second = pipeline.take()
        assert first is not None
        assert second is not None
        assert [first.frame.index, second.frame.index] == [0, 1]
        with pytest.raises(DeviceUnavailable, match="cable"):
            pipeline.take()
        assert pipeline.take() is None


def test_deadline_passes_while_a_camera_is_silent() -> None:
    source = Camera(1)
    summary = run_stream(lambda image: detections(1), source, duration_s=0.05)
    assert summary.frames == 0
    assert 0.05 <= summary.seconds < PATIENCE_S
    source.come.release()


@pytest.mark.parametrize("workers", [1, 3])
def test_frame_that_fails_comes_in_its_place(workers: int) -> None:
    def picky(image: Image) -> Result:
        if number(image) == 20:
            raise InputError("too dark")
        return detections(1)

    with (
        open_source(pictures(4)) as source,
        open_pipeline(source, picky, workers) as pipeline,
    ):
        found = [pipeline.take() for _ in range(4)]
        assert pipeline.take() is None
    errors = [each.future.exception() for each in found if each]
    assert [str(error) for error in errors] == ["None", "None", "too dark", "None"]


def test_iterable_is_not_read_ahead_nor_elsewhere() -> None:
    taken: list[threading.Thread] = []

    def generate() -> Iterator[Image]:
        for i in range(9):
            taken.append(threading.current_thread())
            yield picture(i)

    with open_source(generate()) as source, open_pipeline(source, lambda i: detections(1), 3) as pipeline:
        assert pipeline.take() is not None
        assert taken == [threading.current_thread()]
        assert pipeline.take() is not None
        assert len(taken) == 2


def test_threads_end_with_the_stream() -> None:
    before = threading.active_count()
    run_stream(lambda image: detections(1), open_source(pictures(9)), workers=3, max_frames=2)
    assert threading.active_count() == before


def test_source_that_hangs_is_left_open(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = []

    class Hanging(Camera):
        def _release(self) -> None:
            released.append(self)

    monkeypatch.setattr(base, "CLOSE_S", 0.02)
    monkeypatch.setattr("edgecnn.stream.capture.JOIN_S", 0.02)
    source = Hanging(1)
    capture = Capture(source, 1)
    until(source._reading.locked)
    capture.close()
    assert capture.take() is None
    source.close()
    assert released == []
    assert [record.getMessage() for record in caplog.records] == ["camera does not answer, and is left open"]
    source.come.release()
    until(lambda: not source._reading.locked())
    source.close()
    source.close()
    assert released == [source]
    assert list(source) == []
