"""A benchmark in words and cells, which the terminal, Markdown and HTML all show."""

from __future__ import annotations

from collections.abc import Sequence

from edgecnn.benchmarking.baseline import OTHERS_MOST, Verdict
from edgecnn.benchmarking.results import Benchmark, Row

__all__ = ["cost_table", "facts", "headlines", "latency_table", "verdict_lines"]

DASH = "-"


def headlines(found: Benchmark) -> list[str]:
    """The best row of each mode in a line."""
    modes = dict.fromkeys(row.mode for row in found.rows)
    return [_best_of([row for row in found.rows if row.mode == mode]) for mode in modes]


def latency_table(found: Benchmark) -> list[list[str]]:
    """Latency of each row in ms, the header first."""
    rows = [["", "p50 ms", "p90", "p95", "p99", "mean", "fps", "× best", found.metric]]
    for row in found.rows:
        figures = (row.p50_ms, row.p90_ms, row.p95_ms, row.p99_ms, row.mean_ms)
        metric = DASH if row.metric is None else f"{row.metric:.2%}"
        rows.append([row.name, *map(_ms, figures), f"{row.fps:.1f}", f"{row.ratio:.2f}", metric])
    return rows


def cost_table(found: Benchmark) -> list[list[str]]:
    """Parts of a call in ms and what a row costs, the header first; columns without a figure are left out."""
    stages = list(dict.fromkeys(stage for row in found.rows for stage in row.stages_ms))
    header = ["", *stages, "first ms", "RSS MB", "mJ", "size MB"]
    rows = [[row.name, *_costs(row, stages)] for row in found.rows]
    shown = [i for i in range(len(header)) if i == 0 or any(row[i] != DASH for row in rows)]
    return [[cells[i] for i in shown] for cells in (header, *rows)]


def facts(found: Benchmark) -> list[str]:
    """What was timed, where, and what stands against it."""
    machine, timed = found.machine, found.timed
    sizes = ", ".join(f"{width}×{height}" for width, height in timed.sizes_wh)
    count = "1 frame" if timed.frames == 1 else f"{timed.frames} frames"
    calls = min(row.n for row in found.rows)
    threads = " or ".join(dict.fromkeys(str(row.threads) for row in found.rows))
    lines = [
        f"timed: {timed.what}",
        f"frames: {timed.source}, {count} of {sizes}; {calls} calls in turns, {threads} threads",
        f"machine: {machine.cpu}, {machine.cores} cores, {_state(found)}",
        "versions: " + ", ".join(f"{name} {version}" for name, version in machine.versions.items()),
    ]
    lines += [f"GPU: {machine.gpu}"] * bool(machine.gpu)
    if machine.jetpack or machine.power_mode:
        lines.append(f"Jetson: JetPack {machine.jetpack}, power mode {machine.power_mode or 'unknown'}")
    known = {True: "throttled: yes, ", False: "throttled: no", None: "throttled: not known, "}
    lines.append(known[machine.throttled] + machine.throttled_reason)
    lines.append(f"energy: {found.energy}")
    restless = [row.name for row in found.rows if not row.settled]
    if restless:
        lines.append(f"not yet stable when counting began: {', '.join(restless)}")
    if machine.others_share is not None and machine.others_share > OTHERS_MOST:
        lines.append(
            f"other programs took {machine.others_share:.0%} of the processors: figures are too high"
        )
    lines += [
        f"no first result of {row.name}: {row.first_result_reason}"
        for row in found.rows
        if row.first_result_reason
    ]
    lines += [f"left out: {each.id} on {each.runtime}: {each.reason}" for each in found.left_out]
    return lines


def verdict_lines(verdict: Verdict) -> list[str]:
    """Each row against the baseline."""
    lines = [
        f"{row.verdict}: {row.name} takes {row.ratio.value:.2f} times what it took "
        f"({row.ratio.low:.2f} to {row.ratio.high:.2f})"
        for row in verdict.rows
    ]
    return [*lines, f"the machine itself: {verdict.machine.value:.2f} times, by a fixed computation"]


def _best_of(rows: Sequence[Row]) -> str:
    best = rows[0]
    text = f"{best.name}: {best.fps:.1f} fps"
    if best.mode == "latency":
        text = f"{best.name}: {_ms(best.p50_ms)} ms a frame, {best.fps:.1f} fps"
    if len(rows) == 1:
        return text
    second = rows[1]
    if second.ratio_low > 1:
        return f"{text}, {second.ratio:.2f} times as fast as {second.name}"
    return f"{text}; {second.name} is as fast within the noise"


def _costs(row: Row, stages: Sequence[str]) -> list[str]:
    times = [row.stages_ms.get(stage) for stage in stages]
    cells = [DASH if ms is None else _ms(ms) for ms in times]
    others = ((row.first_result_ms, ".0f"), (row.rss_mb, ".0f"), (row.energy_mj, ".3g"))
    cells += [DASH if value is None else format(value, form) for value, form in others]
    return [*cells, f"{row.size_bytes / 1e6:.2f}"]


def _ms(value: float) -> str:
    return f"{value:.{1 if value >= 10 else 2 if value >= 1 else 3}f}"


def _state(found: Benchmark) -> str:
    before, after, machine = found.machine.before, found.machine.after, found.machine
    parts = [f"clock {machine.governor}{' (locked)' if machine.clocks_locked else ''}"] * bool(
        machine.governor
    )
    if before.clock_mhz is not None and after.clock_mhz is not None:
        parts.append(f"{before.clock_mhz:.0f} → {after.clock_mhz:.0f} MHz")
    if before.temperature_c is not None and after.temperature_c is not None:
        parts.append(f"{before.temperature_c:.0f} → {after.temperature_c:.0f} °C")
    return ", ".join(parts) or "clock and temperature are not told"
