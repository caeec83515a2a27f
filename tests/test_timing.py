"""Timing side by side, on a clock that the calls themselves move."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgecnn.timing import SpeedComparison, compare_speed, interleaved_ms


class Machine:
    """A clock in seconds, and calls that take some ms of it, times the slowness at the n-th call made."""

    def __init__(self, slowness: Callable[[int], float] = lambda made: 1.0) -> None:
        self.now = 0.0
        self.slowness = slowness
        self.made: list[str] = []

    def clock(self) -> float:
        return self.now

    def call(self, name: str, ms: float) -> Callable[[], None]:
        def run() -> None:
            self.made.append(name)
            self.now += ms / 1e3 * self.slowness(len(self.made))

        return run


def test_medians_in_ms_by_name() -> None:
    machine = Machine()
    calls = {"int8": machine.call("int8", 2.0), "fp32": machine.call("fp32", 5.0)}
    assert interleaved_ms(calls, seconds=0.1, clock=machine.clock) == pytest.approx({"int8": 2, "fp32": 5})


def test_each_round_begins_with_the_next_call() -> None:
    machine = Machine()
    calls = {name: machine.call(name, 1.0) for name in "abc"}
    interleaved_ms(calls, seconds=0, min_rounds=4, warmup=1, clock=machine.clock)
    assert "".join(machine.made) == "abc" + "abc" + "bca" + "cab" + "abc"


@pytest.mark.parametrize(("seconds", "min_rounds", "rounds"), [(0.0, 7, 7), (0.995, 7, 100), (0.015, 1, 2)])
def test_goes_on_for_the_time_and_the_rounds(seconds: float, min_rounds: int, rounds: int) -> None:
    machine = Machine()
    found = compare_speed(
        machine.call("a", 4.0),
        machine.call("b", 6.0),
        seconds=seconds,
        min_rounds=min_rounds,
        warmup=0,
        clock=machine.clock,
    )
    assert found.rounds == rounds
    assert machine.made.count("a") == machine.made.count("b") == rounds


def test_warm_up_does_not_count() -> None:
    machine = Machine(lambda made: 1000.0 if made <= 3 else 1.0)
    calls = {"a": machine.call("a", 1.0)}
    assert interleaved_ms(calls, seconds=0, min_rounds=1, warmup=3, clock=machine.clock)[
        "a"
    ] == pytest.approx(1.0)


def test_speed_of_a_pair() -> None:
    machine = Machine()
    found = compare_speed(machine.call("a", 3.0), machine.call("b", 4.0), seconds=0, clock=machine.clock)
    assert found.candidate_ms == pytest.approx(3.0)
    assert found.reference_ms == pytest.approx(4.0)
    assert found.ratio == pytest.approx(0.75)
    assert found.faster


@pytest.mark.parametrize(("ratio", "faster"), [(0.99, True), (1.0, False), (1.2, False)])
def test_faster_is_less_time(ratio: float, faster: bool) -> None:
    assert SpeedComparison(candidate_ms=1.0, reference_ms=1.0, ratio=ratio, rounds=10).faster is faster


def test_a_machine_that_turns_slow_does_not_turn_the_result() -> None:
    """Between the two calls of the sixth round of eleven: the medians are of another speed each."""
    machine = Machine(lambda made: 3.0 if made > 11 else 1.0)
    candidate, reference = machine.call("a", 0.95), machine.call("b", 1.0)
    found = compare_speed(candidate, reference, seconds=0, min_rounds=11, warmup=0, clock=machine.clock)
    assert found.candidate_ms == pytest.approx(2.85)
    assert found.reference_ms == pytest.approx(1.0)
    assert found.ratio == pytest.approx(0.95)
    assert found.faster
