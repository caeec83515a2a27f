"""``edgecnn tune``: what runs a bundle fastest here, kept for ``auto``."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgecnn.cli import _common

if TYPE_CHECKING:
    from edgecnn.tuning import Tuning, TuningRow

__all__ = ["command"]

ROWS_SHOWN = 12


@click.command("tune", short_help="Find and keep what runs a bundle fastest here.")
@click.argument("bundle")
@click.option(
    "--objective",
    type=click.Choice(["latency", "throughput"]),
    default="latency",
    show_default=True,
    help="Of one input after the other, or of many side by side.",
)
@click.option("--runtime", default="all", show_default=True, metavar="NAME,…", help="Which engines to try.")
@click.option("--threads", type=click.IntRange(1, 1024), metavar="MAX", help="Threads to use at most.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, 86400, min_open=True),
    default=5.0,
    show_default=True,
    metavar="S",
    help="How long to time what is close to the fastest.",
)
@click.option("--json", "json_path", metavar="FILE", help="All figures; - is stdout.")
@click.option("--forget", is_flag=True, help="Forget what was found for BUNDLE here.")
@_common.require_signature
@_common.verbosity
def command(
    bundle: str,
    objective: Any,
    runtime: str,
    threads: int | None,
    seconds: float,
    json_path: str | None,
    forget: bool,
) -> None:
    """Time BUNDLE here by engine, precision, threads, streams and batch; load and run take the fastest.

    \b
    edgecnn tune net.edge
    edgecnn tune net.edge --objective throughput     # for load(mode="throughput"), kept beside the other
    edgecnn tune net.edge --forget
    """
    from edgecnn import tuning

    if forget:
        kept = tuning.forget(bundle)
        _common.echo(f"forgotten: {' and '.join(kept)}" if kept else "nothing was kept")
        return
    _common.check_outputs(json_path)
    with _common.progress_bar(f"tuning {bundle}") as bar:
        found = tuning.tune(
            bundle,
            objective=objective,
            runtime=runtime,
            threads=threads,
            seconds=seconds,
            on_work=bar.show,
        )
    if json_path == "-":
        _common.print_json(found.to_json())
        return
    if json_path is not None:
        from edgecnn.stream.outputs import json_text, write_whole

        write_whole(Path(json_path), (json_text(found.to_json(), indent=2) + "\n").encode())
    if not _common.is_quiet():
        _common.echo(_report(found))


def _report(found: Tuning) -> str:
    rows = [["", "threads", "streams", "batch", "ms", "a second", "× best"]]
    rows += [_cells(row) for row in found.rows[:ROWS_SHOWN]]
    lines = [f"best: {found.best}", "", _common.table(rows)]
    if len(found.rows) > ROWS_SHOWN:
        lines.append(f"  … and {len(found.rows) - ROWS_SHOWN} that are slower")
    reasons = defaultdict(list)
    for name, reason in found.left_out.items():
        reasons[reason].append(name)
    lines += [f"left out: {'; '.join(names)}: {reason}" for reason, names in reasons.items()]
    takes = "load and run take" if found.objective == "latency" else 'load(mode="throughput") takes'
    return "\n".join([*lines, "", f"kept: {takes} the best from now on, unless told otherwise"])


def _cells(row: TuningRow) -> list[str]:
    lower = "" if row.compute == "f32" else f" in {row.compute}"
    return [
        f"{row.id} on {row.runtime}{lower}",
        _common.figure(row.threads, "d"),
        str(row.streams),
        str(row.batch),
        f"{row.ms:.3g}",
        f"{row.per_second:.4g}",
        f"{row.ratio:.2f}",
    ]
