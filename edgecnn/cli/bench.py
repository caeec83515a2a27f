"""``edgecnn bench``: how fast is a bundle here, on every engine, and is it slower than it was?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgecnn.cli import _common
from edgecnn.errors import GateMissed, InputError

if TYPE_CHECKING:
    from edgecnn.benchmarking import Benchmark, Verdict

__all__ = ["command"]


@click.command("bench", short_help="Time a bundle on every engine here.")
@click.argument("bundle")
@click.option("--runtime", default="all", show_default=True, metavar="NAME,…", help="Which engines run it.")
@click.option("--source", metavar="PATH", help="A video, an image or a folder; else frames are made up.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "fp16", "int8"]),
    default="auto",
    show_default=True,
    help="Only artifacts of this one; auto are all.",
)
@click.option("--threads", type=click.IntRange(1), help="Threads of one inference.")
@click.option(
    "--mode",
    type=click.Choice(["latency", "throughput", "both"]),
    default="latency",
    show_default=True,
    help="One frame after the other, or as many at a time as the engine runs side by side.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, 86400, min_open=True),
    default=5.0,
    show_default=True,
    metavar="S",
    help="Measure each for so long.",
)
@click.option("--baseline", type=Path, metavar="OLD.json", help="Exit with 1 where it is slower than this.")
@click.option("--json", "json_path", metavar="FILE", help="All figures; - is stdout.")
@click.option("--markdown", "markdown_path", metavar="FILE", help="Tables for a document.")
@click.option("--html", "html_path", metavar="FILE", help="One page with charts.")
@_common.require_signature
@_common.verbosity
def command(
    bundle: str,
    runtime: str,
    source: str | None,
    precision: str,
    threads: int | None,
    mode: str,
    seconds: float,
    baseline: Path | None,
    json_path: str | None,
    markdown_path: str | None,
    html_path: str | None,
) -> None:
    """Time BUNDLE from frame to result on every engine that runs it here, in turns.

    \b
    edgecnn bench face --mode both
    edgecnn bench net.edge --source clip.mp4 --json now.json --html now.html
    edgecnn bench net.edge --baseline before.json     # exits with 1 where it has become slower
    """
    from edgecnn.benchmarking import Interrupted, benchmark, compare_with, read_benchmark

    outputs = {"json": json_path, "markdown": markdown_path, "html": html_path}
    _common.check_outputs(*outputs.values())
    before = read_benchmark(baseline) if baseline else None
    try:
        with _common.progress_bar(f"timing {bundle}") as bar:
            found = benchmark(
                bundle,
                runtime=runtime,
                source=source,
                precision=precision,
                threads=threads,
                mode=mode,
                seconds=seconds,
                baseline=before,
                on_work=bar.show,
            )
    except Interrupted as interrupted:
        _write(interrupted.found, None, outputs)
        raise
    try:
        verdict = compare_with(found, before) if before else None
    except InputError:
        _write(found, None, outputs)
        raise
    _write(found, verdict, outputs)
    if verdict and verdict.slower:
        rows = ", ".join(f"{row.name} {row.ratio.value:.2f} times" for row in verdict.slower)
        raise GateMissed(f"{bundle}: slower than {baseline}: {rows}")


def _write(found: Benchmark, verdict: Verdict | None, outputs: dict[str, str | None]) -> None:
    from edgecnn.benchmarking import render_html, render_markdown
    from edgecnn.stream.outputs import json_text, write_whole

    figures = found.to_json() | ({"verdict": verdict.to_json()} if verdict else {})
    makers = {
        "json": lambda: json_text(figures) + "\n",
        "markdown": lambda: render_markdown(found, verdict),
        "html": lambda: render_html(found, verdict),
    }
    for kind, path in outputs.items():
        if path == "-":
            _common.echo(makers[kind]().rstrip("\n"))
        elif path is not None:
            write_whole(Path(path), makers[kind]().encode())
    if "-" not in outputs.values() and not _common.is_quiet():
        _common.echo(_report(found, verdict, [path for path in outputs.values() if path]))


def _report(found: Benchmark, verdict: Verdict | None, written: list[str]) -> str:
    from edgecnn.benchmarking.tables import cost_table, facts, headlines, latency_table, verdict_lines

    lines = [*headlines(found), "", _common.table(latency_table(found)), ""]
    lines += [_common.table(cost_table(found)), "", *facts(found)]
    if verdict:
        lines += [
            "",
            f"against the baseline of {verdict.created}",
            *(f"  {t}" for t in verdict_lines(verdict)),
        ]
    lines += [f"written: {path}" for path in written]
    return "\n".join(lines)
