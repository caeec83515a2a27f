"""The search for the fastest setting.

It begins with each artifact on each engine, drops what is far behind, tries the neighbours of what is left
until there are no new ones, and times longest what is close to the best.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from edgecnn.auto import usual_call, usual_feeds
from edgecnn.bundle import Bundle
from edgecnn.candidates import Candidate, options_for
from edgecnn.devices import DeviceProfile
from edgecnn.devices.system import has_room
from edgecnn.errors import EdgeCnnError, Unavailable
from edgecnn.loading import open_artifact
from edgecnn.progress import OnWork
from edgecnn.runtimes import Runtime
from edgecnn.timing import Race, Turn, race, seconds_each
from edgecnn.tuning.settings import Grid, Setting

__all__ = ["Search"]

TURN_S = 0.02
# threads pay in a picture of the size of real ones only
WINDOWS_A_SIDE = 40
# times as slow as the fastest: an artifact that no other setting will bring back; a setting whose neighbours
# are not worth trying; one that is not the fastest
FAR, APART, BEHIND = 1.4, 1.15, 1.05

Submit = Callable[[], Future[Any]]


class Search:
    """Opens settings side by side and times them in turns; closes what is behind.

    Attributes:
        tried: Settings that were timed, by their words.
        refused: Settings that could not be run, and why.
    """

    def __init__(
        self, bundle: Bundle, profile: DeviceProfile | None, grid: Grid, closing: ExitStack, on_work: OnWork
    ) -> None:
        """Take what is to be run.

        Args:
            bundle: The bundle.
            profile: Its device, where that is not the processor.
            grid: Which settings there are.
            closing: Closes what is open in the end.
            on_work: Told what goes on.
        """
        self.tried: dict[str, Setting] = {}
        self.refused: dict[str, EdgeCnnError] = {}
        self._bundle, self._profile, self._grid, self._on_work = bundle, profile, grid, on_work
        self._opened: dict[tuple[str, int | None, int], _Opened] = {}
        closing.callback(self._close_all_but, ())

    def fastest(self, candidates: Sequence[Candidate], seconds: float) -> list[tuple[Setting, float]]:
        """Settings that were tried, each with its ms for one input, the fastest first.

        Args:
            candidates: What to try.
            seconds: How long to time what is close to the fastest.

        Raises:
            EdgeCnnError: None of them runs here.
        """
        new = [setting for each in candidates for setting in self._starts(each)]
        asked: set[str] = set()
        left: list[Setting] = []
        races: list[Race] = []
        drop = FAR
        while new:
            asked |= {str(setting) for setting in new}
            races.append(race(self.turns([*left, *new]), drop=drop, on_work=self._on_work))
            left = [self.tried[name] for name in races[-1].left]
            self._close_all_but(left)
            near = {str(each): each for setting in left for each in self._grid.neighbours(setting)}
            known, drop = asked | self.tried.keys(), APART
            new = [each for name, each in near.items() if name not in known]
        last = race(self.turns(left), drop=BEHIND, seconds=seconds, min_rounds=8, on_work=self._on_work)
        times = _times_ms([*races, last])
        return sorted(((self.tried[name], ms) for name, ms in times.items()), key=lambda pair: pair[1])

    def _starts(self, candidate: Candidate) -> list[Setting]:
        device = options_for(candidate, None, self._profile).device
        on_processor = device in ("auto", "cpu") and not candidate.runtime.builds_from
        return self._grid.starts(candidate, on_processor=on_processor)

    def turns(self, settings: Sequence[Setting]) -> dict[str, Turn]:
        """Open settings: a turn of each that runs here as it is meant, which gives its ms for one input.

        Raises:
            EdgeCnnError: None of them runs here.
        """
        turns: dict[str, Turn] = {}
        for number, setting in enumerate(settings):
            self._on_work(f"opening {setting}", number, len(settings))
            try:
                found, turn = self._turn(setting)
            except EdgeCnnError as error:
                self.refused[str(setting)] = error
                continue
            if found == setting or str(found) not in self.tried:
                self.tried[str(found)] = found
                turns[str(found)] = turn
        if not turns:
            raise next(iter(self.refused.values()))
        return turns

    def _turn(self, setting: Setting) -> tuple[Setting, Turn]:
        """A turn, and what its engine makes of the setting: it may have fewer streams or threads."""
        opened, spec = self._open(setting), self._bundle.manifest.spec
        model = opened.model
        if setting.threads is not None:
            threads = int(model.facts.get("threads", setting.threads))
            setting = replace(setting, threads=threads, streams=min(model.parallel, setting.streams))
        if spec.window is not None:
            call = usual_call(model, self._bundle, dense=True, windows_a_side=WINDOWS_A_SIDE)
            submit: Submit = partial(opened.callers.submit, call)
        else:
            feeds = usual_feeds(self._bundle, setting.batch)
            call, submit = partial(model.run, feeds), partial(model.submit, feeds)
        call()
        inputs = 1 if spec.window is not None else setting.batch
        if self._grid.objective == "latency":
            return setting, lambda: _latency_ms(call) / inputs
        return setting, lambda: seconds_each(submit, model.parallel, seconds=TURN_S) * 1e3 / inputs

    def _open(self, setting: Setting) -> _Opened:
        key = (str(setting.candidate), setting.threads, setting.streams)
        if key not in self._opened:
            if self._opened and not has_room():
                raise Unavailable("no memory is left beside the others")
            options = options_for(
                setting.candidate,
                setting.threads,
                self._profile,
                mode=self._grid.objective,
                streams=setting.streams,
            )
            candidate = setting.candidate
            model = open_artifact(
                self._bundle, candidate.entry, candidate.runtime, options, on_stale="wait", dense=True
            )
            self._opened[key] = _Opened(model, ThreadPoolExecutor(model.parallel))
        return self._opened[key]

    def _close_all_but(self, settings: Sequence[Setting]) -> None:
        kept = {(str(setting.candidate), setting.threads, setting.streams) for setting in settings}
        for key in self._opened.keys() - kept:
            opened = self._opened.pop(key)
            opened.callers.shutdown()
            opened.model.close()


@dataclass(frozen=True)
class _Opened:
    """A loaded model, and threads that call it where all windows of a picture are one piece of work."""

    model: Runtime
    callers: ThreadPoolExecutor


def _latency_ms(call: Callable[[], object]) -> float:
    """Median of calls in a row; the first of them finds threads asleep and caches as others left them."""
    call()
    times: list[float] = []
    while sum(times) < TURN_S:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def _times_ms(races: Sequence[Race]) -> dict[str, float]:
    """Of each setting, from its last race: its ratio to the leader, who went on to the races after that.

    So that one that was dropped early, when the machine was faster, does not seem to be the fastest.
    """
    times: dict[str, float] = {}
    for each in reversed(races):
        leader_ms = times.setdefault(each.leader, each.leader_ms)
        for name, ratio in each.ratios.items():
            times.setdefault(name, round(ratio * leader_ms, 4))
    return times
