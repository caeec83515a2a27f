"""Timing side by side, on a clock that the calls themselves move."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from edgecnn.timing import SpeedComparison, compare_speed, interleaved_ms, race, seconds_each


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


# races


def turns(machine: Machine, **ms: float) -> dict[str, Callable[[], float]]:
    """Turns that take these ms of the machine's clock."""

    def turn(call: Callable[[], None]) -> float:
        start = machine.now
        call()
        return (machine.now - start) * 1e3

    return {name: partial(turn, machine.call(name, value)) for name, value in ms.items()}


def test_race_drops_what_is_clearly_slower_and_goes_on_with_the_others() -> None:
    machine = Machine()
    found = race(turns(machine, a=10, b=10.4, c=20), drop=1.05, seconds=0.5, clock=machine.clock)
    assert (found.leader, found.left) == ("a", ("a", "b"))
    assert found.leader_ms == pytest.approx(10)
    assert found.ratios == pytest.approx({"a": 1, "b": 1.04, "c": 2})
    assert machine.made.count("c") == 4
    assert machine.made.count("a") == machine.made.count("b") > 15


def test_noise_drops_nothing() -> None:
    """Every other turn of the faster one is disturbed: it is not clearly slower, and wins in the end."""
    machine, calls = Machine(), iter(range(10**6))
    disturbed = [30.0, 30.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0]
    noisy = turns(machine, a=10)
    noisy["b"] = lambda: disturbed[next(calls)]
    found = race(noisy, drop=1.05, min_rounds=8, clock=machine.clock)
    assert (found.leader, set(found.left)) == ("b", {"b"})
    calls = iter(range(10**6))
    assert set(race(noisy, drop=1.05, min_rounds=4, clock=machine.clock).left) == {"a", "b"}


def test_race_of_which_one_is_left_is_over() -> None:
    machine = Machine()
    assert race(turns(machine, a=10, b=20), drop=1.05, seconds=60, clock=machine.clock).left == ("a",)
    assert len(machine.made) == 8


def test_machine_that_slows_down_does_not_change_the_ratios() -> None:
    machine = Machine(lambda made: 1 + made / 10)
    found = race(turns(machine, a=10, b=15), drop=2.0, min_rounds=20, clock=machine.clock)
    assert found.leader == "a"
    assert found.ratios["b"] == pytest.approx(1.5, rel=0.1)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_so_many_are_under_way_at_all_times(depth: int) -> None:
    """Each waits until as many have begun: with one less they would wait for ever."""
    together = threading.Barrier(depth)
    with ThreadPoolExecutor(8) as pool:
        each = seconds_each(lambda: pool.submit(together.wait, 30), depth, seconds=0.0)
    assert 0 < each < 30


def test_time_of_each_of_those_under_way() -> None:
    """They take 10 ms one after the other and end at once."""
    machine = Machine()
    call = machine.call("a", 10.0)

    def submit() -> Future[Any]:
        future: Future[Any] = Future()
        call()
        future.set_result(None)
        return future

    assert seconds_each(submit, 2, seconds=0.055, clock=machine.clock) == pytest.approx(0.01)
    assert len(machine.made) == 2 + 6


def test_failure_under_way_is_told() -> None:
    def fail() -> None:
        raise ValueError("broken")

    with ThreadPoolExecutor(2) as pool, pytest.raises(ValueError, match="broken"):
        seconds_each(lambda: pool.submit(fail), 2, seconds=0.0)
