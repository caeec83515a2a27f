"""Options and output that commands share."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from edgecnn.cli._line import StatusLine, note, progress_text, status_line
from edgecnn.signing import SIGNATURE_VARIABLE

__all__ = [
    "check_outputs",
    "echo",
    "figure",
    "human_bytes",
    "is_quiet",
    "is_verbose",
    "json_flag",
    "once",
    "precision_option",
    "print_json",
    "progress_bar",
    "require_signature",
    "step_reporter",
    "table",
    "verbosity",
]

F = TypeVar("F", bound=Callable[..., Any])

_LEVELS = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}


class _Stderr(logging.Handler):
    """Writes to what stderr is at that moment, above the line that shows what goes on."""

    def emit(self, record: logging.LogRecord) -> None:
        note(f"edgecnn: {record.levelname.lower()}: {self.format(record)}")


def verbosity(function: F) -> F:
    """Add ``-q`` and ``-v``; the command does not see them: they set the level of the log."""
    quiet = click.option(
        "-q",
        "--quiet",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_set_quiet,
        help="Errors only.",
    )
    verbose = click.option(
        "-v",
        "--verbose",
        count=True,
        expose_value=False,
        callback=_set_verbose,
        help="More; -vv: everything.",
    )
    return quiet(verbose(function))


def is_quiet() -> bool:
    """``-q`` was given."""
    return logging.getLogger("edgecnn").level == _LEVELS[-1]


def is_verbose() -> bool:
    """``-v`` or more was given."""
    return logging.getLogger("edgecnn").isEnabledFor(logging.INFO)


def _set_verbose(ctx: click.Context, param: click.Parameter, count: int) -> None:
    logger = logging.getLogger("edgecnn")
    for handler in [h for h in logger.handlers if isinstance(h, _Stderr)]:
        logger.removeHandler(handler)
    logger.addHandler(_Stderr())
    logger.propagate = False
    if not ctx.meta.get("edgecnn.quiet"):
        logger.setLevel(_LEVELS[min(count, 2)])
    elif count:
        raise click.UsageError("-q and -v contradict each other", ctx)


def _set_quiet(ctx: click.Context, param: click.Parameter, quiet: bool) -> None:
    ctx.meta["edgecnn.quiet"] = quiet
    if quiet:
        logging.getLogger("edgecnn").setLevel(_LEVELS[-1])


precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "fp16", "int8"]),
    default="auto",
    show_default=True,
    help="Which artifact; auto is the bundle's first that fits.",
)
json_flag = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def once(ctx: click.Context, param: click.Parameter, values: tuple[Any, ...]) -> Any:
    """For an option with ``multiple=True`` that may be given once: click would keep the last silently."""
    if len(values) > 1:
        raise click.BadParameter("given more than once", ctx, param)
    return values[0] if values else None


def require_signature(function: F) -> F:
    """Add ``--require-signature``; the command does not see it: it holds for whatever is loaded meanwhile."""
    return click.option(
        "--require-signature",
        metavar="KEY",
        multiple=True,
        expose_value=False,
        callback=_set_required_signature,
        help=f"Refuse a bundle that this public key (PEM) has not signed, instead of ${SIGNATURE_VARIABLE}.",
    )(function)


def _set_required_signature(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> None:
    key = once(ctx, param, values)
    if key is None:
        return
    if not key:  # of a variable that is not set, in a script
        raise click.BadParameter("empty; name the file of a public key", ctx, param)
    before = os.environ.get(SIGNATURE_VARIABLE)
    # as the variable it reaches a bundle that is loaded again, and processes that load it elsewhere
    os.environ[SIGNATURE_VARIABLE] = str(Path(key).absolute())
    ctx.call_on_close(lambda: _restore(SIGNATURE_VARIABLE, before))


def _restore(variable: str, value: str | None) -> None:
    if value is None:
        del os.environ[variable]
    else:
        os.environ[variable] = value


def print_json(value: Any) -> None:
    """Print one JSON object, indented, on standard output; numbers that are not finite are null."""
    from edgecnn.stream.outputs import json_text

    echo(json_text(value, indent=2))


def check_outputs(*paths: str | None) -> None:
    """See, before anything takes long, that each result can be written; ``-`` is standard output.

    Raises:
        click.UsageError: Two are the same file, or one cannot be written.
    """
    files = [Path(path).resolve() for path in paths if path not in (None, "-")]
    if len(set(files)) < len(files) or paths.count("-") > 1:
        raise click.UsageError("two outputs name the same file")
    for file in files:
        # a device would be replaced by a file
        if not file.parent.is_dir() or (file.exists() and not file.is_file()):
            raise click.UsageError(f"{file} cannot be written: its folder is missing, or it is no file")


def echo(text: str) -> None:
    """Print a result on standard output.

    Raises:
        Unavailable: It is a file on a full disk.
        BrokenPipeError: Its reader went away.
    """
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        from edgecnn.stream.outputs import WriteFailed

        raise WriteFailed("standard output", error.strerror) from error


def human_bytes(count: int) -> str:
    """Write a size for people: ``512 B``, ``1.4 MB`` (decimal)."""
    if count < 1000:
        return f"{count} B"
    value = count / 1000
    for unit in ("kB", "MB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"


def table(rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Columns as wide as they need to be, the first row being the header; cells must be one line."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows)
    return "\n".join(f"{indent}{line}".rstrip() for line in lines)


def figure(value: float | None, form: str) -> str:
    """Format a number, or give a dash where it was not measured."""
    return "-" if value is None else format(value, form)


@dataclass(frozen=True)
class Reporter:
    """Takes what long work tells of itself.

    Attributes:
        step: For the name and the seconds of a finished step.
        work: For what is under way, how much of it is done, and how much there is.
    """

    step: Callable[[str, float], None]
    work: Callable[[str, int, int], None]


@contextmanager
def step_reporter(doing: str) -> Iterator[Reporter]:
    """Show on stderr what takes long: a bar with the time left on a terminal, a plain line a step elsewhere.

    What the steps print to standard output goes to stderr: that is for results alone.

    Args:
        doing: What is under way, such as ``converting net``.
    """
    with progress_bar(doing) as bar, redirect_stdout(sys.stderr):

        def step(name: str, seconds: float) -> None:
            if bar.live:
                bar.show(f"{doing} … {name} done", 0, 0)
            elif not is_quiet():
                note(f"{name}: {seconds:.1f} s")

        yield Reporter(step, lambda what, done, total: bar.show(f"{doing} … {what}", done, total))


class Bar:
    """A bar that shows one thing after another; nothing where there is no terminal."""

    def __init__(self, line: StatusLine) -> None:
        self.live = line.visible
        self._line = line
        self._what = ""
        self._begun_s = 0.0

    def show(self, what: str, done: int, total: int) -> None:
        """Show what is under way; a total of 0 is not known. Something new starts its own time left."""
        if what != self._what:
            self._what, self._begun_s = what, time.monotonic()
        self._line.show(progress_text(what, done, total, time.monotonic() - self._begun_s))


@contextmanager
def progress_bar(doing: str) -> Iterator[Bar]:
    """Show a bar with the time left on stderr, on a terminal only."""
    with status_line(not is_quiet()) as line:
        bar = Bar(line)
        bar.show(doing, 0, 0)
        yield bar
