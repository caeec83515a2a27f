"""Charts of a report: pure functions from values to inline SVG.

Across, positions are in percent; down, in pixels. So a chart fills whatever width it is given while its
text and lines keep their size, on a phone as on a screen. Colours come from the page's style by class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from edgecnn.report.data import LayerRow, RangeRow, Trial
from edgecnn.report.svg import BASE, PLOT, chart, grid, line, nice_step, rect, signed, spread, text

__all__ = ["error_chart", "histogram_chart", "range_chart", "trial_chart"]

BAR_MAX = 6.0  # %: no bar of a small network is wider
DECADES_MAX = 6
LEAST = 1e-12


def error_chart(layers: Sequence[LayerRow]) -> str:
    """Error of each layer as a bar in network order, on a logarithmic axis of decades.

    A layer without an error leaves a gap; an error of zero stands as a stub on the axis.
    """
    decades = _decades([row.error for row in layers if row.error is not None])
    bottom, top = decades[0], decades[-1]

    def y(error: float) -> float:
        exponent = math.log10(error) if error > 0 else -math.inf
        return BASE - PLOT * min(max((exponent - bottom) / (top - bottom), 0.0), 1.0)

    bars = []
    for (left, width), row in zip(_slots(len(layers)), layers):
        if row.error is None or math.isnan(row.error):
            continue
        height = max(BASE - y(row.error), 2.0)
        tip = f"{row.name} ({row.op}, {row.precision}): {row.error:.2%}"
        bars.append(rect(left, width, BASE - height, height, f"bar {row.precision}", tip))
    ticks = [(y(10.0**k), f"{10.0 ** (k + 2):g} %") for k in decades]
    worst = max(layers, key=lambda row: _rank(row.error))
    return chart(
        "Error of each layer",
        f"{len(bars)} layers from input to output; the largest error is that of {worst.name}.",
        [grid(ticks), _ends(), *bars],
    )


def range_chart(ranges: Sequence[RangeRow]) -> str:
    """Observed range of each activation as a thin line, the chosen one as a thick bar, in network order.

    The axis is linear about zero and logarithmic far from it: ``asinh(value / t)`` with the median of the
    chosen magnitudes as ``t``. A range that is not finite leaves a gap.
    """
    drawn = [row for row in ranges if _is_finite(row)]
    chosen = sorted(max(abs(row.clip_low), abs(row.clip_high)) for row in drawn)
    largest = max(
        (max(abs(row.low), abs(row.high), abs(row.clip_low), abs(row.clip_high)) for row in drawn),
        default=0.0,
    )
    # what is smaller than that beside the largest one cannot be seen, nor divided by
    t = max(chosen[len(chosen) // 2] if chosen else 0.0, largest * LEAST) or 1.0
    low = math.asinh(min([0.0, *(min(row.low, row.clip_low) for row in drawn)]) / t)
    high = math.asinh(max([0.0, *(max(row.high, row.clip_high) for row in drawn)]) / t)
    span = (high - low) or 1.0

    def y(value: float) -> float:
        return BASE - PLOT * (math.asinh(value / t) - low) / span

    bars = []
    for (left, width), row in zip(_slots(len(ranges)), ranges):
        if not _is_finite(row):
            continue
        tip = (
            f"{row.tensor}: {row.clip_low:.3g} to {row.clip_high:.3g}, "
            f"observed {row.low:.3g} to {row.high:.3g}"
        )
        middle = left + width / 2
        upper, lower = y(row.clip_high), y(row.clip_low)
        bars.append(line(middle, y(row.low), middle, y(row.high), "observed"))
        bars.append(rect(left, width, upper, max(lower - upper, 2.0), "bar chosen", tip))
    # evenly spaced on the axis, rounded to one digit, and drawn where the rounded value belongs
    values = {0.0} | {float(f"{t * math.sinh(low + span * i / 6):.1g}") for i in range(7)}
    ticks = [(y(value), signed(value)) for value in sorted(values) if low <= math.asinh(value / t) <= high]
    return chart(
        "Range of each activation",
        f"{len(drawn)} activations from input to output: the chosen range and the observed one.",
        [grid(spread(ticks)), _ends(), *bars],
    )


def trial_chart(trials: Sequence[Trial], max_drop: float | None = None) -> str:
    """Drop of the metric in points as a bar for each number of layers in float; the budget as a line."""
    tried = sorted((t for t in trials if math.isfinite(t.drop)), key=lambda t: t.float_layers)
    budget = [] if max_drop is None else [max_drop]
    values = [0.0, *(t.drop for t in tried), *budget]
    span = max(values) - min(values)
    step = nice_step(span if span > 1e-9 else 0.01)
    bottom, top = math.floor(min(values) / step), max(math.ceil(max(values) / step), 1)

    def y(drop: float) -> float:
        return BASE - PLOT * (drop / step - bottom) / (top - bottom)

    bars = []
    for (left, width), trial in zip(_slots(len(tried)), tried):
        kind = "fp32" if max_drop is not None and trial.drop > max_drop else "int8"
        upper, lower = sorted((y(trial.drop), y(0.0)))
        tip = f"{trial.float_layers} layers in float: {trial.drop * 100:.2f} points"
        bars.append(rect(left, width, upper, max(lower - upper, 2.0), f"bar {kind}", tip))
        bars.append(text(f"{left + width / 2:.3f}%", BASE + 18, "middle", str(trial.float_layers)))
    bars += [line(0, y(drop), 100, y(drop), "budget") for drop in budget]
    ticks = [(y(i * step), signed(i * step * 100)) for i in range(bottom, top + 1)]
    return chart(
        "Search for the fewest layers in float",
        f"{len(tried)} settings that were evaluated: points lost by the number of layers in float.",
        [grid(ticks), *bars],
    )


def histogram_chart(row: RangeRow) -> str:
    """Observed values as a small histogram with logarithmic counts; what is clipped has its own class."""
    if row.histogram is None or not any(row.histogram.counts):
        return ""
    counts, start, width = row.histogram.counts, row.histogram.start, row.histogram.width
    peak = math.log1p(max(counts))
    paths = {"kept": "", "clipped": ""}
    for i, count in enumerate(counts):
        centre = start + (i + 0.5) * width
        kind = "kept" if row.clip_low <= centre <= row.clip_high else "clipped"
        if count > 0:
            height = max(100 * math.log1p(count) / peak, 3)
            paths[kind] += f"M{i} 100v-{height:.0f}h1V100z"
    drawn = "".join(f'<path class="{kind}" d="{path}"/>' for kind, path in paths.items() if path)
    label = escape(f"Histogram of {row.tensor}", quote=True)
    return (
        f'<svg class="spark" role="img" aria-label="{label}" viewBox="0 0 {len(counts)} 100" '
        f'preserveAspectRatio="none">{drawn}</svg>'
    )


def _slots(count: int) -> list[tuple[float, float]]:
    """Left edge and width, in percent, of ``count`` bars side by side."""
    slot = 100 / max(count, 1)
    width = min(slot * 0.72, BAR_MAX)
    return [(slot * (i + 0.5) - width / 2, width) for i in range(count)]


def _ends() -> str:
    return text("0", BASE + 18, "start", "input") + text("100%", BASE + 18, "end", "output")


def _is_finite(row: RangeRow) -> bool:
    return all(map(math.isfinite, (row.low, row.high, row.clip_low, row.clip_high)))


def _rank(error: float | None) -> float:
    return -1.0 if error is None or math.isnan(error) else error


def _decades(errors: Iterable[float]) -> list[int]:
    """Exponents of the powers of ten that enclose the errors above 0, at most `DECADES_MAX` of them."""
    logs = [math.log10(error) for error in errors if 0 < error < math.inf]
    top = math.ceil(max(logs, default=0.0))
    bottom = min(math.floor(min(logs, default=0.0)), top - 1)
    return list(range(max(bottom, top - DECADES_MAX), top + 1))
