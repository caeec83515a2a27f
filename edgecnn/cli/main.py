"""``edgecnn``: finds the commands in this folder and turns every ending into an exit code.

==== =======================================================================================
0    done; also when the reader of a pipe went away
1    a gate was missed (accuracy, parity, latency)
2    bad input or usage
3    something is missing on this machine (runtime, device, camera)
70   a mistake in edgecnn itself; ``-vv`` shows where
130  interrupted; output files are closed and valid
==== =======================================================================================
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from pkgutil import iter_modules

import click

import edgecnn.cli
from edgecnn.errors import EdgeCnnError, first_line

__all__ = ["commands", "main"]

INTERNAL_ERROR = 70
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
    try:
        # click's own main() would end a closed pipe with 1 and an interrupt without our message
        with _edgecnn.make_context("edgecnn", list(sys.argv[1:] if args is None else args)) as context:
            _edgecnn.invoke(context)
        # what is still buffered must fail here, not while the interpreter shuts down
        sys.stdout.flush()
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except EdgeCnnError as error:
        return _fail(str(error), error.exit_code)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:
        click.echo("edgecnn: interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        _drop_stdout()
        return 0
    except Exception as error:
        if logging.getLogger("edgecnn").isEnabledFor(logging.DEBUG):
            traceback.print_exc()
        message = f"internal error: {type(error).__name__}: {first_line(error)}"
        return _fail(
            f"{message}; please report it with the output of the same command with -vv", INTERNAL_ERROR
        )
    return 0


def _fail(message: str, code: int) -> int:
    click.echo(f"edgecnn: error: {message}", err=True)
    return code


def _open_streams() -> None:
    """Give the process streams where it was started with closed ones (``>&-``)."""
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 (open till the end)
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115


def _drop_stdout() -> None:
    """Send what is left to nowhere, or Python complains of the closed pipe when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
