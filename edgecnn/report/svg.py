"""What charts are made of: inline SVG that fills whatever width it is given.

Across, positions are in percent; down, in pixels. Colours come from the page's style by class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["BASE", "PLOT", "Tick", "chart", "grid", "line", "nice_step", "rect", "signed", "spread", "text"]

TOP, PLOT, BOTTOM = 10, 190, 24  # px: room above, the plot, room for the labels below
BASE = TOP + PLOT

Tick = tuple[float, str]


def chart(title: str, description: str, body: Iterable[str], height: float = BASE + BOTTOM) -> str:
    """A whole chart; its title and description are for those who cannot see it."""
    return (
        f'<svg class="chart" role="img" width="100%" height="{height:.0f}">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(body)}</svg>"
    )


def rect(left: float, width: float, y: float, height: float, kind: str, tip: str) -> str:
    """A bar that tells more when it is pointed at."""
    return (
        f'<rect class="{kind}" x="{left:.3f}%" width="{width:.3f}%" y="{y:.1f}" height="{height:.1f}">'
        f"<title>{escape(tip)}</title></rect>"
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A line of a class."""
    return f'<line class="{kind}" x1="{x1:.3f}%" y1="{y1:.1f}" x2="{x2:.3f}%" y2="{y2:.1f}"/>'


def text(x: str, y: float, anchor: str, text: str) -> str:
    """A label whose start, middle or end is at x."""
    return f'<text class="axis" x="{x}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def grid(ticks: Iterable[Tick]) -> str:
    """Horizontal lines with their labels in the margin to the left of the plot."""
    return "".join(line(0, y, 100, y, "grid") + text("-8", y + 4, "end", label) for y, label in ticks)


def signed(value: float) -> str:
    """A number with a real minus."""
    return f"{value:.3g}".replace("-", "−")


def spread(ticks: Sequence[Tick], apart: float = 18.0) -> list[Tick]:
    """Leave out ticks whose labels would touch; the one of zero always stays."""
    kept = [tick for tick in ticks if tick[1] == "0"]
    for tick in ticks:
        if all(abs(tick[0] - other[0]) >= apart for other in kept):
            kept.append(tick)
    return kept


def nice_step(span: float) -> float:
    """A step of 1, 2 or 5 times a power of ten that cuts the span into three to eight parts."""
    power = 10.0 ** math.floor(math.log10(span / 3))
    # 0.3 / 3 is a little less than 0.1, and its logarithm is not
    return max(m * power for m in (1, 2, 5) if m * power <= span / 3 * (1 + 1e-9))
