"""The page of a report: one HTML file with its style, charts and pictures in it."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from importlib import resources

import numpy as np
import numpy.typing as npt

from edgecnn.errors import require
from edgecnn.report import charts
from edgecnn.report.data import ArtifactRow, RangeRow, Report
from edgecnn.vision.opencv import cv2

__all__ = ["render", "style"]

DASH = "–"
PICTURES_MAX = 16
PICTURE_SIDE = 160  # px of the longer side
CLIPPED_SHOWN = 8  # histograms that are shown before the reader asks for all


def render(report: Report) -> str:
    """Write a report as one HTML page that needs no network, no script and no other file.

    The same report gives the same text.

    Raises:
        MissingDependency: Jinja is not installed.
    """
    jinja2 = require("jinja2", "convert")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        size=_size, ms=_ms, number=_number, percent=_percent, share=_share, points=_points, picture=_picture
    )
    before, after = _compared(report.artifacts)
    page: str = environment.from_string(_resource("template.html")).render(
        report=report,
        style=style(),
        charts=charts,
        before=before,
        after=after,
        most_clipped=_most_clipped(report.ranges),
        worst=report.worst[:PICTURES_MAX],
    )
    # a file name may hold bytes that are not UTF-8
    return page.encode("utf-8", "replace").decode("utf-8")


def style() -> str:
    """What pages of edgecnn look like, in CSS."""
    return _resource("style.css")


def _resource(name: str) -> str:
    return resources.files("edgecnn.report").joinpath(name).read_text(encoding="utf-8")


def _compared(artifacts: Sequence[ArtifactRow]) -> tuple[ArtifactRow | None, ArtifactRow | None]:
    """The float model and the fastest of the others: of those that were kept, else of all."""
    others = [row for row in artifacts if row.precision != "fp32"]
    return (
        next((row for row in artifacts if row.precision == "fp32"), None),
        min(others, key=lambda row: (row.status != "kept", row.latency_ms or math.inf), default=None),
    )


def _most_clipped(ranges: Sequence[RangeRow]) -> list[RangeRow]:
    clipped = [row for row in ranges if row.clipped]
    return sorted(clipped, key=lambda row: row.clipped or 0.0, reverse=True)[:CLIPPED_SHOWN]


def _figure(value: float | None, form: str) -> str:
    return DASH if value is None or math.isnan(value) else form.format(value).replace("-", "−")


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _ms(value: float | None) -> str:
    return _figure(value, "{:.3g} ms")


def _number(value: float | None, form: str = "{:.3g}") -> str:
    return _figure(value, form)


def _percent(value: float | None) -> str:
    """Accuracies: to a tenth of a point."""
    return _figure(value, "{:.1%}").replace("%", " %")


def _share(value: float | None) -> str:
    """Errors and shares of all magnitudes: to three digits."""
    return _figure(value if value is None else value * 100, "{:.3g} %")


def _points(drop: float | None) -> str:
    """What a drop does to the metric: a loss has a minus, and nothing has no sign."""
    points = None if drop is None else round(-drop * 100, 2) + 0.0
    return _figure(points, "{:+.2f}" if points else "{:.2f}")


def _picture(image_bgr: npt.NDArray[np.uint8]) -> str:
    """A picture as a data URI, shrunk to `PICTURE_SIDE`."""
    height, width = image_bgr.shape[:2]
    ratio = PICTURE_SIDE / max(height, width)
    if ratio < 1:
        size_wh = (max(round(width * ratio), 1), max(round(height * ratio), 1))
        image_bgr = cv2.resize(image_bgr, size_wh, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, 88])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
