"""How fast a bundle is on this machine, on every engine that runs it here, and whether that has changed."""

from __future__ import annotations

from edgecnn.benchmarking.baseline import Verdict, compare_with, read_benchmark
from edgecnn.benchmarking.measuring import Interrupted, benchmark
from edgecnn.benchmarking.page import render_html, render_markdown
from edgecnn.benchmarking.results import Benchmark, Row

__all__ = [
    "Benchmark",
    "Interrupted",
    "Row",
    "Verdict",
    "benchmark",
    "compare_with",
    "read_benchmark",
    "render_html",
    "render_markdown",
]
