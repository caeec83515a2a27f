from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edgecnn.stream.base import Image
from edgecnn.vision.opencv import cv2
from edgecnn.web.picture import Newest
from tests.stream.fakes import picture


class Drawn:
    """A frame that counts how often it is drawn."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.count = 0

    def __call__(self) -> Image:
        self.count += 1
        return picture(self.value)


def grey(jpeg: bytes) -> float:
    return float(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).mean())


def test_nothing_is_drawn_while_nobody_looks() -> None:
    newest, frame = Newest(), Drawn(50)
    newest.put(frame)
    assert frame.count == 0
    got = newest.get(0, 0)
    assert got is not None
    assert (got.number, frame.count) == (1, 1)
    assert grey(got.jpeg) == pytest.approx(50, abs=1)


def test_all_who_ask_get_the_picture_that_was_made_once() -> None:
    newest, frame = Newest(), Drawn(50)
    newest.put(frame)
    with ThreadPoolExecutor(16) as pool:
        got = [each.result() for each in [pool.submit(newest.get, 0, 5) for _ in range(16)]]
    assert frame.count == 1
    assert {each.number for each in got if each} == {1}


def test_who_comes_late_gets_the_newest_one() -> None:
    newest, frames = Newest(), [Drawn(20), Drawn(120), Drawn(220)]
    newest.put(frames[0])
    assert newest.get(0, 0) is not None
    for frame in frames[1:]:
        newest.put(frame)
    time.sleep(0.3)  # longer than the rest between two pictures
    got = newest.get(1, 0)
    assert got is not None
    assert got.number == 3
    assert grey(got.jpeg) == pytest.approx(220, abs=1)
    assert [frame.count for frame in frames] == [1, 0, 1]


def test_waits_for_the_next_one_and_not_for_ever() -> None:
    newest = Newest()
    assert newest.get(0, 0.01) is None
    threading.Timer(0.05, newest.put, [Drawn(50)]).start()
    got = newest.get(0, 20)
    assert got is not None
    assert newest.get(got.number, 0.01) is None


def test_closing_wakes_those_who_wait() -> None:
    newest = Newest()
    newest.put(Drawn(50))
    assert newest.get(0, 0) is not None
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(newest.get, 1, 60)
        newest.close()
        assert waiting.result(20) is None


def test_drawing_that_fails_is_tried_again_with_the_next_frame() -> None:
    def broken() -> Image:
        raise ValueError("cannot be drawn")

    newest = Newest()
    newest.put(broken)
    with pytest.raises(ValueError, match="cannot be drawn"):
        newest.get(0, 0)
    newest.put(Drawn(50))
    got = newest.get(0, 0)
    assert got is not None
    assert got.number == 2
