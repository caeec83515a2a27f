"""Charts of a benchmark: where each row's latencies lie, and what speed costs in accuracy and size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from edgecnn.benchmarking.results import Row
from edgecnn.report.svg import BASE, PLOT, chart, grid, line, nice_step, rect, text

__all__ = ["is_accuracy_shown", "latency_chart", "pareto_chart", "pareto_front"]

STRIP, BARS = 66, 34  # px: of a row, and of its highest bar
LOGARITHMIC_FROM = 5.0  # slowest over fastest, from where a linear axis hides the fast ones
RADII = (5.0, 16.0)  # px

Scale = Callable[[float], float]


def latency_chart(rows: Sequence[Row]) -> str:
    """A histogram for each row on one axis of ms; lines stand at the median and the 99th percentile."""
    x, ticks = _across(
        min(row.histogram.start_ms for row in rows),
        max(row.histogram.start_ms + row.histogram.width_ms * len(row.histogram.counts) for row in rows),
    )
    base = STRIP * len(rows)
    body = [
        line(x(tick), 0, x(tick), base + 4, "grid")
        + text(f"{x(tick):.3f}%", base + 20, "middle", f"{tick:g} ms")
        for tick in ticks
    ]
    for number, row in enumerate(rows):
        bottom = STRIP * (number + 1)
        body.append(text("-8", bottom - 2, "end", str(number + 1)))
        body.append(text("0", bottom - BARS - 8, "start", f"{row.name}: {row.p50_ms:.3g} ms"))
        body += _bars(row, x, bottom)
        body += [line(x(ms), bottom - BARS, x(ms), bottom, "fence") for ms in (row.p50_ms, row.p99_ms)]
    drawn = chart(
        "Latencies", f"How often each of {len(rows)} rows took how many ms for a frame.", body, base + 24
    )
    return f'<div class="strips">{drawn}</div>'


def pareto_chart(rows: Sequence[Row], metric: str) -> str:
    """A circle for each row: latency across, accuracy up, size by area; see `is_accuracy_shown`."""
    x, ticks = _across(min(row.p50_ms for row in rows) * 0.9, max(row.p50_ms for row in rows) * 1.1)
    known = is_accuracy_shown(rows)
    heights = [row.metric or 0.0 if known else row.size_bytes / 1e6 for row in rows]
    y, levels = _up(heights, percent=known)
    largest = max(row.size_bytes for row in rows)
    front = pareto_front(rows)
    body = [grid([(y(level), f"{level:.4g}{' %' if known else ' MB'}") for level in levels])]
    for tick in ticks:
        body.append(text(f"{x(tick):.3f}%", BASE + 18, "middle", f"{tick:g} ms"))
    for number, (row, height) in enumerate(zip(rows, heights)):
        top = y(height * 100 if known else height)
        radius = RADII[0] + (RADII[1] - RADII[0]) * math.sqrt(row.size_bytes / largest)
        tip = f"{row.name}: {row.p50_ms:.3g} ms, {row.size_bytes / 1e6:.2f} MB"
        tip += "" if row.metric is None else f", {metric} {row.metric:.2%}"
        kind = "dot" if row in front else "dot beaten"
        body.append(
            f'<circle class="{kind}" cx="{x(row.p50_ms):.3f}%" cy="{top:.1f}" r="{radius:.1f}">'
            f"<title>{escape(tip)}</title></circle>"
        )
        body.append(text(f"{x(row.p50_ms):.3f}%", top + 4, "middle", str(number + 1)))
    up = metric if known else "size"
    return chart("Speed and what it costs", f"Median latency across, {up} up, size by area.", body)


def is_accuracy_shown(rows: Sequence[Row]) -> bool:
    """Whether accuracies differ; else the size says more."""
    return len({row.metric for row in rows} - {None}) > 1 and all(row.metric is not None for row in rows)


def pareto_front(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other beats: as good in latency, size and accuracy, and better in one of them."""

    def cost(row: Row) -> tuple[float, int, float]:
        return row.p50_ms, row.size_bytes, -(row.metric or 0.0)

    def beats(one: Row, other: Row) -> bool:
        pairs = list(zip(cost(one), cost(other)))
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    return [row for row in rows if not any(beats(other, row) for other in rows)]


def _bars(row: Row, x: Scale, bottom: float) -> list[str]:
    found, most = row.histogram, max(row.histogram.counts)
    bars = []
    for number, count in enumerate(found.counts):
        if count:
            start = found.start_ms + number * found.width_ms
            left, right = x(start), x(start + found.width_ms)
            height = max(BARS * count / most, 1.5)
            last = number == len(found.counts) - 1
            tip = f"{start:.3g} ms {'and more' if last else 'or a little more'}: {count} of {row.n}"
            bars.append(rect(left, max(right - left, 0.15), bottom - height, height, "bar", tip))
    return bars


def _across(low: float, high: float) -> tuple[Scale, list[float]]:
    """From ms to percent of the width, logarithmic where the ends are far apart, and where ticks are."""
    if high / low < LOGARITHMIC_FROM:
        step = nice_step(high - low)
        first, last = math.floor(low / step), math.ceil(high / step)
        ticks = [round(i * step, 9) for i in range(first, last + 1)]
        return lambda ms: 100 * (ms / step - first) / (last - first), ticks
    begin, end = math.log10(low), math.log10(high)
    decades = range(math.floor(begin), math.ceil(end))
    ticks = [m * 10.0**k for k in decades for m in (1, 2, 5)]
    return (
        lambda ms: 100 * (math.log10(ms) - begin) / (end - begin),
        [tick for tick in ticks if low <= tick <= high],
    )


def _up(values: Sequence[float], *, percent: bool) -> tuple[Scale, list[float]]:
    """From a value to px from the top with room around all, and where ticks are."""
    scaled = [value * 100 if percent else value for value in values]
    span = max(max(scaled) - min(scaled), 0.02 * max(scaled), 1e-6)
    low, high = min(scaled) - 0.3 * span, max(scaled) + 0.3 * span
    step = nice_step(high - low)
    levels = [
        round(i * step, 9)
        for i in range(math.ceil(low / step), math.floor(high / step) + 1)
        if i * step >= 0 and not (percent and i * step > 100)
    ]
    return lambda value: BASE - PLOT * (value - low) / (high - low), levels
