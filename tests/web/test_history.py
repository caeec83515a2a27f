from __future__ import annotations

from edgecnn.web.history import SECONDS_KEPT, History


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_seconds_by_hand() -> None:
    clock = Clock()
    history = History(clock)
    assert history.to_json() == {
        "fps": None, "p50_ms": None, "p95_ms": None, "seconds": {"frames": [], "p50_ms": [], "p95_ms": [], "lost": []}
    }  # fmt: skip
    for latency_ms in (1.0, 2.0, 3.0):
        history.add(latency_ms)
    clock.now = 101.5
    history.mark(True)
    clock.now = 103.0
    history.mark(False)
    history.add(4.0)
    clock.now = 104.0
    found = history.to_json()
    assert found["seconds"] == {
        "frames": [3, 0, 0, 1],
        "p50_ms": [2.0, None, None, 4.0],
        "p95_ms": [2.9, None, None, 4.0],
        "lost": [False, True, True, True],
    }
    assert (found["fps"], found["p50_ms"]) == (0.3, 4.0)


def test_no_more_than_two_minutes_are_kept() -> None:
    clock = Clock()
    history = History(clock)
    for _ in range(2 * SECONDS_KEPT):
        history.add(1.0)
        clock.now += 1
    assert history.to_json()["seconds"]["frames"] == [1] * SECONDS_KEPT
    clock.now += 1e6
    found = history.to_json()
    assert found["seconds"]["frames"] == [0] * SECONDS_KEPT
    assert found["fps"] == 0.0
