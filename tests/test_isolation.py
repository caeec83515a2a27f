"""A child process that answers, refuses, crashes, hangs, eats memory, or loses its parent."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgecnn import isolation
from edgecnn.errors import BundleError, CompilerFailed, ModelError, Unavailable
from edgecnn.isolation import Cancelled, Limits, run_isolated
from tests.paths import ROOT


@pytest.fixture(autouse=True)
def _room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The child finds this folder's modules; whatever it leaves behind is seen."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture(autouse=True)
def _nothing_is_left(_room: None, tmp_path: Path) -> Any:
    yield
    assert list(tmp_path.glob("edgecnn-*")) == []


def run(function: str, limits: Limits | None = None, **payload: Any) -> dict[str, Any]:
    return run_isolated(
        f"tests.isolated:{function}", payload, what="the compiler", limits=limits or Limits(seconds=30)
    )


def failure(function: str, limits: Limits | None = None, **payload: Any) -> str:
    with pytest.raises(CompilerFailed) as caught:
        run(function, limits, **payload)
    assert "\n" not in str(caught.value)
    assert (caught.value.exit_code, isinstance(caught.value, ModelError)) == (2, True)
    return str(caught.value)


def wait_for(met: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not met() and time.monotonic() < deadline:
        time.sleep(0.02)
    return met()


def is_gone(pid: int) -> bool:
    """Ended; a zombie that nobody has waited for yet has ended, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z"
    except OSError:
        return True


def test_values_cross_both_ways() -> None:
    values: dict[str, Any] = {
        "text": "é\n",
        "blob": b"\0\xff",
        "list": [1, 2.5, None, True],
        "deep": {"a": {"b": -1}},
    }
    assert run("echo", **values) == values


def test_it_is_another_process_in_a_folder_of_its_own() -> None:
    found = run("where")
    assert found["pid"] != os.getpid()
    assert not Path(found["folder"]).exists()


def test_modules_of_the_current_folder_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "msgspec.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    assert run("echo", a=1) == {"a": 1}


def test_progress_arrives_in_order() -> None:
    seen: list[tuple[str, int, int]] = []
    run_isolated(
        "tests.isolated:count",
        {"total": 300},
        what="counting",
        on_work=lambda what, done, total: seen.append((what, done, total)),
    )
    assert seen == [("counting\n", i + 1, 300) for i in range(300)]


@pytest.mark.parametrize("odd", [False, True])
def test_our_errors_stay_what_they_are(odd: bool) -> None:
    with pytest.raises(BundleError, match=r"^face\.edge: altered; get it again$") as caught:
        run("refuse", odd=odd)
    assert type(caught.value) is BundleError


def test_other_errors_are_told_in_one_line() -> None:
    assert failure("stumble") == (
        "the compiler failed (ZeroDivisionError: by nothing); use another target for this model"
    )


def test_a_function_that_is_not_there() -> None:
    assert "AttributeError" in failure("nonsense")


def test_an_answer_that_cannot_be_sent() -> None:
    assert "ended with code 1 and no answer (TypeError: Encoding objects of type object" in failure(
        "unanswerable"
    )


@pytest.mark.parametrize("name", ["SIGFPE", "SIGSEGV", "SIGABRT", "SIGKILL"])
def test_a_signal_is_named(name: str) -> None:
    assert failure("die", number=getattr(signal, name).value) == (
        f"the compiler died of {name}; use another target for this model"
    )


def test_last_words_are_kept() -> None:
    assert "died of SIGFPE (node conv7: no kernel);" in failure(
        "die", number=signal.SIGFPE.value, words="noise\nnode conv7: no kernel\n\n"
    )


@pytest.mark.parametrize("code", [0, 3])
def test_an_end_without_an_answer(code: int) -> None:
    assert f"ended with code {code} and no answer;" in failure("leave", code=code)


def test_a_crash_after_the_answer_changes_nothing() -> None:
    assert run("fall_after_the_answer") == {"answer": 42}


def test_a_child_may_print_what_it_likes(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("chatter") == {"answer": 42}
    assert capfd.readouterr() == ("", "")


def test_time_is_limited() -> None:
    start = time.monotonic()
    assert failure("hang", Limits(seconds=0.5)) == (
        "the compiler took more than 0.5 s; use another target for this model, or allow more"
    )
    assert time.monotonic() - start < 5


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is looked at through /proc")
def test_memory_is_limited() -> None:
    assert run("swallow", Limits(seconds=30, memory_mb=200), megabytes=30) == {"held": 3}
    assert failure("swallow", Limits(seconds=30, memory_mb=200), megabytes=10_000) == (
        "the compiler needed more than 200 MB; use another target for this model, or allow more"
    )


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is looked at through /proc")
def test_without_a_limit_memory_is_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    real = isolation._proc_mb
    free = {"MemAvailable": 250.0}
    monkeypatch.setattr(isolation, "_proc_mb", lambda file, name: free.get(name) or real(file, name))
    assert failure("swallow", megabytes=10_000) == (
        "the compiler needed more than 200 MB; use another target for this model, or allow more"
    )


def test_what_the_child_started_ends_with_it() -> None:
    started = run("leave_behind")["pid"]
    assert wait_for(lambda: is_gone(started))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux chooses by it")
def test_the_child_goes_first_where_memory_runs_out() -> None:
    assert run("expendable") == {"score": 1000}


def test_big_values_cross() -> None:
    blob = os.urandom(1_000_000) * 200
    assert run("size", Limits(seconds=60), blob=blob) == {"blob": blob, "size": 200_000_000}


def test_no_room_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert failure("echo").startswith("the compiler could not be started ([Errno 2]")


@pytest.mark.parametrize(
    ("function", "payload"),
    [("size", {"blob": bytes(100_000)}), ("fill", {"size": 100_000}), ("bulky", {"size": 100_000})],
    ids=["of what it is given", "of its own", "of the answer"],
)
def test_no_room_for_the_files_of_the_child(function: str, payload: dict[str, Any]) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    try:
        with pytest.raises(Unavailable, match=r"^the compiler found no room in .*; free some, or set TMPDIR"):
            run(function, **payload)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_children_run_side_by_side() -> None:
    found: dict[int, Any] = {}
    workers = [
        threading.Thread(target=lambda i=i: found.update({i: run("echo", i=i)["i"]})) for i in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == {0: 0, 1: 1, 2: 2}


# a program whose child is under way when it is interrupted or killed
PROGRAM = """
import sys
from edgecnn.isolation import run_isolated
try:
    run_isolated("tests.isolated:hang", {"note": sys.argv[1]}, what="it")
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the death of a parent is told by Linux alone")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_the_child_goes_with_its_parent(number: signal.Signals, code: int, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(note)], env=environment) as program:
        assert wait_for(lambda: note.exists() and note.read_text() != "")
        child = int(note.read_text())
        assert not is_gone(child)
        program.send_signal(number)
        assert program.wait(20) == code
    assert wait_for(lambda: is_gone(child))
    if number == signal.SIGINT:
        assert list((tmp_path / "tmp").iterdir()) == []


def test_what_nobody_waits_for_is_ended() -> None:
    cancelled = threading.Event()
    threading.Timer(0.3, cancelled.set).start()
    start = time.monotonic()
    with pytest.raises(Cancelled):
        run_isolated("tests.isolated:die", {"number": 0}, what="the compiler", cancelled=cancelled)
    assert time.monotonic() - start < 10
