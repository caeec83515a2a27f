"""Runs a function in a process of its own, so that an engine's compiler cannot take the program with it.

Compilers of engines crash, hang and eat memory on models that others accept. All that passes between the
two processes are files of msgpack in a private folder: nothing that the child prints can be taken for an
answer, and no size of it can block.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from edgecnn import errors
from edgecnn.errors import CompilerFailed, EdgeCnnError, Unavailable, first_line
from edgecnn.paths import NO_ROOM
from edgecnn.progress import OnWork

__all__ = ["NO_HURRY", "Cancelled", "Limits", "child_environment", "run_isolated"]

POLL_S = 0.05
LAST_WORDS = 4096  # bytes at the end of the child's output in which its last line is looked for
CURE = "use another target for this model"
NO_ROOM_CODE = 74  # EX_IOERR of <sysexits.h>
FREE_SHARE = 0.8
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a child may take.

    Attributes:
        seconds: Wall-clock time.
        memory_mb: Resident memory in units of 10⁶ bytes, looked at every 50 ms where there is ``/proc``;
            None is four fifths of what is free at the start. Address space would be the wrong measure: CUDA
            reserves far more than it uses.
    """

    seconds: float = 600.0
    memory_mb: int | None = None


NO_HURRY = Limits()


class Cancelled(Exception):
    """A child was ended because nobody waits for its answer any more."""


def run_isolated(
    target: str,
    payload: Mapping[str, Any],
    *,
    what: str,
    cure: str = CURE,
    limits: Limits = NO_HURRY,
    on_work: OnWork | None = None,
    cancelled: threading.Event | None = None,
) -> dict[str, Any]:
    """Call a function in a child process and wait for its answer.

    Args:
        target: ``package.module:function``, importable as it is here. It takes the payload as keywords,
            and ``progress``, a callable like ``on_work``, where that is given. It runs in a folder of its
            own: paths have to be absolute.
        payload: Strings, numbers, bytes, and lists and dicts of these.
        what: The work, as the subject of a message: ``OpenVINO's compiler, on model.onnx,``.
        cure: What to do where the child dies.
        limits: Of time and memory.
        on_work: Called here with what the function reports.
        cancelled: Ends the child where another thread sets it.

    Returns:
        What the function returned: a dict of the same kinds of values.

    Raises:
        EdgeCnnError: As the function raised it: the same class and message.
        Unavailable: There is no room for its files.
        CompilerFailed: It raised anything else, died, passed a limit, or could not be started.
        Cancelled: It was ended by ``cancelled``.
    """
    with tempfile.TemporaryDirectory(prefix="edgecnn-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        try:
            folder.joinpath("payload").write_bytes(msgspec.msgpack.encode(payload))
            output, reports = folder.joinpath("output").open("wb"), folder.joinpath("reports").open("w+b")
        except OSError as error:
            if error.errno in NO_ROOM:
                raise _no_room(what) from error
            raise CompilerFailed(f"{what} could not be started ({first_line(error)})") from error
        with output, reports, _started(target, folder, output, on_work, what) as process:
            _watch(process, reports, what, cure, limits, on_work, cancelled)
        return _answer(process.returncode, folder, what, cure)


def child_environment() -> dict[str, str]:
    """For a child that imports the same modules as here, whatever lies in its current folder."""
    paths = [os.path.abspath(path) for path in sys.path if path]  # noqa: PTH100 (zip files, too)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@contextmanager
def _started(
    target: str, folder: Path, output: BinaryIO, on_work: OnWork | None, what: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A child that does not outlive the block."""
    command = [sys.executable, "-u", "-m", __name__, target, str(os.getpid()), str(int(on_work is not None))]
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    except OSError as error:
        raise CompilerFailed(f"{what} could not be started ({first_line(error)})") from error
    try:
        yield process
    finally:
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a child and all that it started, which may be there after it has gone."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _watch(
    process: subprocess.Popen[bytes],
    reports: BinaryIO,
    what: str,
    cure: str,
    limits: Limits,
    on_work: OnWork | None,
    cancelled: threading.Event | None,
) -> None:
    """Wait for the end, pass on what is reported, and hold the limits."""
    deadline = time.monotonic() + limits.seconds
    memory_mb = limits.memory_mb or int(FREE_SHARE * _proc_mb("meminfo", "MemAvailable")) or None
    begun, running = b"", True
    while running:
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL_S)
        running = process.returncode is None
        *whole, begun = (begun + reports.read()).split(b"\n")
        if on_work:
            for line in whole:
                on_work(*msgspec.json.decode(line, type=tuple[str, int, int]))
        if running and cancelled and cancelled.is_set():
            raise Cancelled(what)
        if running and time.monotonic() > deadline:
            raise CompilerFailed(f"{what} took more than {limits.seconds:g} s; {cure}, or allow more")
        if running and memory_mb and _proc_mb(f"{process.pid}/status", "VmRSS") > memory_mb:
            raise CompilerFailed(f"{what} needed more than {memory_mb} MB; {cure}, or allow more")


def _proc_mb(file: str, name: str) -> float:
    """A figure of a file in ``/proc`` in units of 10⁶ bytes; 0 where the system does not say."""
    with suppress(OSError):
        for line in Path("/proc", file).read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def _no_room(what: str) -> Unavailable:
    return Unavailable(
        f"{what} found no room in {tempfile.gettempdir()}; free some, or set TMPDIR to another disk"
    )


def _answer(code: int, folder: Path, what: str, cure: str) -> dict[str, Any]:
    answer = folder / "answer"
    if code == NO_ROOM_CODE:
        raise _no_room(what)
    if code or not answer.exists():
        names = {-number: f"died of {number.name}" for number in signal.Signals}
        end = names.get(code, f"ended with code {code} and no answer")
        raise CompilerFailed(f"{what} {end}{_last_words(folder)}; {cure}")
    given: dict[str, Any] = msgspec.msgpack.decode(answer.read_bytes())
    if "failed" in given:
        raise CompilerFailed(f"{what} failed ({given['failed']}); {cure}")
    if "error" in given:
        kind, message = given["error"]
        raise getattr(errors, kind)(message)
    value: dict[str, Any] = given["value"]
    return value


def _last_words(folder: Path) -> str:
    """The last line that the child printed, in brackets."""
    with folder.joinpath("output").open("rb") as output:
        output.seek(max(0, output.seek(0, os.SEEK_END) - LAST_WORDS))
        lines = [line.strip() for line in output.read().decode(errors="replace").splitlines() if line.strip()]
    return f" ({first_line(RuntimeError(lines[-1]))})" if lines else ""


def _child(target: str, parent: int, reporting: bool) -> None:
    """What runs in the child: the function, and one file that says how it went."""
    _die_with(parent)
    # where memory runs out all the same, the system is to take this process and not the one that waits
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        payload = msgspec.msgpack.decode(Path("payload").read_bytes())
        module, function = target.split(":")
        call = getattr(importlib.import_module(module), function)
        given = {"value": call(**payload, **({"progress": _report} if reporting else {}))}
    except EdgeCnnError as error:
        # its class, or the nearest of its bases that is known by name
        kind = next(k.__name__ for k in type(error).__mro__ if k.__name__ in errors.__all__)
        given = {"error": [kind, str(error)]}
    except OSError as error:
        if error.errno in NO_ROOM:
            os._exit(NO_ROOM_CODE)
        given = {"failed": f"{type(error).__name__}: {first_line(error)}"}
    except Exception as error:
        given = {"failed": f"{type(error).__name__}: {first_line(error)}"}
    try:
        Path("answer").write_bytes(msgspec.msgpack.encode(given))
    except OSError as error:
        os._exit(NO_ROOM_CODE if error.errno in NO_ROOM else 1)
    # an engine that crashes while it is torn down changes nothing any more
    os._exit(0)


def _report(what: str, done: int, total: int) -> None:
    with Path("reports").open("ab") as reports:
        reports.write(msgspec.json.encode([what, done, total]) + b"\n")


def _die_with(parent: int) -> None:
    """Be killed when the parent dies, also where it had no time to see to that."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before
        os._exit(1)


if __name__ == "__main__":
    _child(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1")
