"""``edgecnn``: finds the commands in this folder and turns every ending into an exit code.

==== =======================================================================================
0    done; also when the reader of a pipe went away
1    a gate was missed (accuracy, parity, latency)
2    bad input or usage; also a file or folder that the system refuses
3    something is missing on this machine (runtime, device, camera, room on the disk)
70   a mistake in edgecnn itself; ``-vv`` shows where
130  interrupted (SIGINT, SIGTERM, SIGHUP); output files are closed and valid, half-made ones are removed
==== =======================================================================================
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from pkgutil import iter_modules
from types import FrameType
from typing import NoReturn, TextIO

import click

import edgecnn.cli
from edgecnn.errors import EdgeCnnError, first_line
from edgecnn.paths import NO_ROOM

__all__ = ["commands", "main"]

BAD_INPUT = 2
MISSING_HERE = 3
INTERNAL_ERROR = 70
# SIGHUP: the terminal went away; there is none on Windows
ENDS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
INTERRUPTED = 130


def commands() -> list[str]:
    """Names of the commands: the modules of this folder but this one and private ones."""
    names = (module.name for module in iter_modules(edgecnn.cli.__path__))
    return sorted(name for name in names if name != "main" and not name.startswith("_"))


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return commands()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in commands():
            return None
        found: click.Command = importlib.import_module(f"edgecnn.cli.{cmd_name}").command
        return found


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(edgecnn.__version__, prog_name="edgecnn")
def _edgecnn() -> None:
    """Take a trained PyTorch vision model to a small, proven bundle, and run it on cameras and video."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: Arguments without the program's name; None takes the process's own.

    Returns:
        The exit code.
    """
    _open_streams()
    with _terminable() as came:
        code = _run(list(sys.argv[1:] if args is None else args))
    if came and code != INTERRUPTED:
        # what is imported at that moment may take the interrupt for an error of its own
        _say("interrupted")
        code = INTERRUPTED
    _settle(sys.stdout)
    _settle(sys.stderr)
    return code


def _run(args: list[str]) -> int:
    try:
        # click's own main() would end a closed pipe with 1 and an interrupt without our message
        with _edgecnn.make_context("edgecnn", args) as context:
            _edgecnn.invoke(context)
        # what is still buffered must fail here, not while the interpreter shuts down
        sys.stdout.flush()
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except EdgeCnnError as error:
        return _fail(str(error), error.exit_code)
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        return error.exit_code
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return 0
    except OSError as error:
        _trace()
        return _refused(error)
    except Exception as error:
        _trace()
        message = f"internal error: {type(error).__name__}: {first_line(error)}"
        return _fail(
            f"{message}; please report it with the output of the same command with -vv", INTERNAL_ERROR
        )
    return 0


def _fail(message: str, code: int) -> int:
    _say(f"error: {message}")
    return code


def _refused(error: OSError) -> int:
    """A file that the system refuses and that no command answered for."""
    message = error.strerror or first_line(error)
    if isinstance(error.filename, (str, bytes)):
        message = f"{os.fsdecode(error.filename)}: {message}"
    if error.errno in NO_ROOM:
        return _fail(f"{message}; check the space and the disk", MISSING_HERE)
    return _fail(message, BAD_INPUT)


def _say(message: str) -> None:
    with suppress(OSError):  # nobody is left to tell of a stderr that cannot be written
        click.echo(f"edgecnn: {message}", err=True)


def _trace() -> None:
    if logging.getLogger("edgecnn").isEnabledFor(logging.DEBUG):
        with suppress(OSError):
            traceback.print_exc()


@contextmanager
def _terminable() -> Iterator[list[int]]:
    """End at SIGTERM and SIGHUP as at Ctrl-C, so that half-made files are removed; lists what came."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        came.append(number)
        raise KeyboardInterrupt

    # what is ignored stays ignored: nohup is meant
    ends = [number for number in ENDS if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, interrupt) for number in ends}
    try:
        yield came
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _open_streams() -> None:
    """Give the process streams where it was started with closed ones (``>&-``)."""
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 (open till the end)
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115


def _settle(stream: TextIO) -> None:
    """Send what cannot be written to nowhere, or Python complains of it when it exits, and fails."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
