from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgecnn.errors import EdgeCnnError, InputError, Unavailable
from edgecnn.results import Result
from edgecnn.stream import EndOfStream, Frame, Interrupted, Summary, open_source, run_stream
from edgecnn.stream.base import Image
from edgecnn.stream.interrupts import Interrupts
from tests.stream.fakes import Memory, detections, picture, pictures, predicting, write_picture


def test_every_sink_gets_every_frame_in_order() -> None:
    sinks = [Memory(), Memory()]
    seen = []
    summary = run_stream(
        predicting([detections(i) for i in range(4)]),
        open_source(pictures(4)),
        sinks,
        on_frame=lambda frame, result: seen.append(frame.index),
    )
    for sink in sinks:
        assert [f.index for f in sink.frames] == [0, 1, 2, 3]
        assert [len(r) for r in sink.results] == [0, 1, 2, 3]  # type: ignore[arg-type]
        assert sink.summary == summary
    assert seen == [0, 1, 2, 3]


def test_a_frame_is_drawn_once_for_all_sinks_and_not_on_itself() -> None:
    sinks = [Memory(), Memory()]
    frames = pictures(1)
    run_stream(lambda image: detections(2), open_source(frames), sinks)
    assert sinks[0].drawn[0] is sinks[1].drawn[0]
    assert (sinks[0].drawn[0] != frames[0]).any()
    np.testing.assert_array_equal(frames, pictures(1))


def test_timing_has_reading_and_the_total() -> None:
    sink = Memory()
    run_stream(lambda image: detections(1), open_source(picture(1)), [sink])
    timing = sink.results[0].timing_ms
    assert list(timing) == ["read", "wait", "infer", "total"]
    assert timing["infer"] == 1.0
    assert timing["total"] >= timing["read"] + timing["wait"] - 0.002


def test_summary() -> None:
    def slow(image: Image) -> Result:
        time.sleep(0.004)
        return detections(1)

    summary = run_stream(slow, open_source(pictures(5)))
    assert (summary.frames, summary.dropped, summary.reconnects, summary.skipped) == (5, 0, 0, 0)
    assert summary.p50_ms is not None
    assert summary.p95_ms is not None
    assert 4 <= summary.p50_ms <= summary.p95_ms
    assert summary.seconds >= 0.02
    assert summary.fps == pytest.approx(5 / summary.seconds, rel=0.05)
    fixed = {"frames", "dropped", "fps", "p50_ms", "p95_ms", "reconnects", "seconds"}
    assert fixed <= set(summary.to_json())


def test_percentiles_of_no_frame_are_unknown() -> None:
    summary = run_stream(lambda image: detections(1), open_source(iter(())))
    assert (summary.frames, summary.p50_ms, summary.p95_ms, summary.fps) == (0, None, None, 0.0)


def test_max_frames_reads_no_frame_more() -> None:
    taken = []

    def generate() -> Iterator[Image]:
        while True:
            taken.append(1)
            yield picture(1)

    assert run_stream(lambda image: detections(0), open_source(generate()), max_frames=3).frames == 3
    assert len(taken) == 3


def test_duration_ends_an_endless_source() -> None:
    def generate() -> Iterator[Image]:
        while True:
            yield picture(1)

    summary = run_stream(lambda image: detections(0), open_source(generate()), duration_s=0.05)
    assert summary.frames > 0
    assert 0.05 <= summary.seconds < 5


class Failing(Memory):
    def __init__(self, on_write: BaseException | None = None, on_close: Exception | None = None) -> None:
        super().__init__()
        self.on_write, self.on_close = on_write, on_close

    def write(self, frame: Frame, result: Result, annotated: Callable[[], Image]) -> None:
        if self.on_write and frame.index == 1:
            raise self.on_write
        super().write(frame, result, annotated)

    def close(self, summary: Summary) -> None:
        super().close(summary)
        if self.on_close:
            raise self.on_close


def test_sink_that_ends_the_stream() -> None:
    first, second = Memory(), Failing(EndOfStream())
    summary = run_stream(lambda image: detections(0), open_source(pictures(5)), [first, second])
    assert summary.frames == 2
    assert first.summary == second.summary == summary


def test_sink_that_fails_does_not_keep_the_others_open() -> None:
    failing, other = Failing(Unavailable("disk full"), EdgeCnnError("and again")), Memory()
    with pytest.raises(Unavailable, match="disk full"):
        run_stream(lambda image: detections(0), open_source(pictures(5)), [failing, other])
    assert other.summary is not None


def test_sink_that_fails_to_close_is_an_error() -> None:
    failing, other = Failing(on_close=Unavailable("disk full")), Memory()
    with pytest.raises(Unavailable, match="disk full"):
        run_stream(lambda image: detections(0), open_source(pictures(2)), [failing, other])
    assert other.summary is not None


def test_predictor_that_fails_closes_the_sinks() -> None:
    sink = Memory()
    with pytest.raises(ZeroDivisionError):
        run_stream(lambda image: detections(1 // 0), open_source(pictures(2)), [sink])
    assert sink.summary is not None
    assert sink.summary.frames == 0


def too_dark(image: Image) -> Result:
    if image.mean() < 50:
        raise InputError("too dark")
    return detections(1)


def test_frame_that_does_not_fit_names_its_source(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "dark.png", 0)
    with pytest.raises(InputError, match=r"dark\.png: too dark"):
        run_stream(too_dark, open_source(path))


def test_picture_of_a_folder_that_does_not_fit_is_skipped(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", 0)
    write_picture(tmp_path / "b.png", 200)
    summary = run_stream(too_dark, open_source(tmp_path))
    assert (summary.frames, summary.skipped) == (1, 1)


def test_folder_of_which_nothing_fits(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", 0)
    with pytest.raises(InputError, match=r"a\.png: too dark"):
        run_stream(too_dark, open_source(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_reading_closes_the_outputs(number: signal.Signals) -> None:
    def generate() -> Iterator[Image]:
        yield picture(1)
        os.kill(os.getpid(), number)
        yield picture(2)

    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    sink = Memory()
    with pytest.raises(Interrupted) as raised:
        run_stream(lambda image: detections(0), open_source(generate()), [sink])
    assert raised.value.summary == sink.summary
    assert raised.value.summary.frames == 1
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_signal_while_a_frame_is_predicted_closes_the_outputs() -> None:
    def predict(image: Image) -> Result:
        if image[0, 0, 0] == 20:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
        return detections(1)

    sink = Memory()
    before = threading.active_count()
    with pytest.raises(Interrupted) as raised:
        run_stream(predict, open_source(pictures(9)), [sink])
    assert raised.value.summary == sink.summary
    assert raised.value.summary.frames <= 2
    assert threading.active_count() == before


def test_signal_while_writing_waits_for_the_sinks() -> None:
    class Interrupting(Memory):
        def write(self, frame: Frame, result: Result, annotated: Callable[[], Image]) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            super().write(frame, result, annotated)

    sinks = [Interrupting(), Memory()]
    with pytest.raises(Interrupted):
        run_stream(lambda image: detections(0), open_source(pictures(3)), sinks)
    assert [len(sink.frames) for sink in sinks] == [1, 1]
    assert sinks[1].summary is not None


class Signalling(Memory):
    """A sink to which a signal comes while it writes or closes."""

    def __init__(self, where: str, times: int = 1, error: Exception | None = None) -> None:
        super().__init__()
        self.where, self.times, self.error = where, times, error

    def write(self, frame: Frame, result: Result, annotated: Callable[[], Image]) -> None:
        super().write(frame, result, annotated)
        self._signal("write")

    def close(self, summary: Summary) -> None:
        self._signal("close")
        super().close(summary)

    def _signal(self, where: str) -> None:
        if where == self.where:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGTERM)
            if self.error is not None:
                raise self.error


@pytest.mark.parametrize("where", ["write", "close"])
@pytest.mark.parametrize("error", [None, Unavailable("disk full"), BrokenPipeError(32, "Broken pipe")])
def test_signal_while_a_sink_fails_is_an_interrupt(
    where: str, error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    sinks = [Memory(), Signalling(where, error=error), Memory()]
    with pytest.raises(Interrupted) as raised:
        run_stream(lambda image: detections(0), open_source(pictures(1)), sinks)
    assert sinks[0].summary == sinks[2].summary == raised.value.summary
    assert raised.value.summary.frames == 1
    assert [record.getMessage() for record in caplog.records] == ([str(error)] if error else [])


@pytest.mark.parametrize("where", ["write", "close"])
def test_second_signal_breaks_a_sink_and_closes_the_others(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    breaking = Signalling(where, times=2)
    sinks = [Memory(), breaking, Memory()]
    with pytest.raises(Interrupted):
        run_stream(lambda image: detections(0), open_source(pictures(1)), sinks)
    assert sinks[0].summary is not None
    assert sinks[2].summary is not None
    assert (breaking.summary is None) == (where == "close")
    said = [record.getMessage() for record in caplog.records]
    assert said == (["Signalling was not closed: interrupted again"] if where == "close" else [])


def test_signals_between_the_loop_and_the_closing_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(self: Interrupts) -> None:
        end(self)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    end = Interrupts.end
    monkeypatch.setattr(Interrupts, "end", late)
    sink = Memory()
    with pytest.raises(Interrupted):
        run_stream(lambda image: detections(0), open_source(pictures(2)), [sink])
    assert sink.summary is not None
    assert sink.summary.frames == 2


def test_mistake_does_not_pass_for_an_interrupt() -> None:
    sink = Memory()
    with pytest.raises(KeyError):
        run_stream(
            lambda image: detections(0),
            open_source(pictures(1)),
            [Signalling("write", error=KeyError()), sink],
        )
    assert sink.summary is not None


def test_sink_that_breaks_while_closing_does_not_keep_the_others_open() -> None:
    sink = Memory()
    with pytest.raises(ZeroDivisionError):
        run_stream(
            lambda image: detections(0),
            open_source(pictures(1)),
            [Failing(on_close=ZeroDivisionError()), sink],
        )
    assert sink.summary is not None


def test_runs_outside_the_main_thread() -> None:
    summaries = []
    thread = threading.Thread(
        target=lambda: summaries.append(run_stream(lambda image: detections(0), open_source(pictures(2))))
    )
    thread.start()
    thread.join()
    assert summaries[0].frames == 2


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
@pytest.mark.parametrize(("number", "heard"), [("SIGINT", True), ("SIGTERM", True), ("SIGHUP", False)])
def test_signals_that_were_ignored(number: str, heard: bool) -> None:
    """A shell starts background jobs with SIGINT ignored, and nohup ignores SIGHUP: only the latter is meant."""
    which = getattr(signal, number)
    before = signal.signal(which, signal.SIG_IGN)
    try:
        with Interrupts():
            assert (signal.getsignal(which) is not signal.SIG_IGN) is heard
        assert signal.getsignal(which) is signal.SIG_IGN
    finally:
        signal.signal(which, before)
