"""A benchmark as Markdown and as one HTML page that needs no network, no script and no template engine."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from edgecnn.benchmarking.baseline import Verdict
from edgecnn.benchmarking.charts import is_accuracy_shown, latency_chart, pareto_chart
from edgecnn.benchmarking.results import Benchmark
from edgecnn.benchmarking.tables import cost_table, facts, headlines, latency_table, verdict_lines
from edgecnn.report import style

__all__ = ["render_html", "render_markdown"]

MARKS = {"met": "M6.5 12.5l3.7 3.7 7.3-8", "missed": "M7.5 7.5l9 9m0-9l-9 9"}


def render_markdown(found: Benchmark, verdict: Verdict | None = None) -> str:
    """Write a benchmark as Markdown."""
    against = [_bullets(verdict_lines(verdict))] if verdict else []
    parts = [
        f"# {found.timed.bundle} on {found.machine.cpu}",
        f"{found.created}{', interrupted' if found.interrupted else ''}. **{'. '.join(headlines(found))}**",
        *against,
        _markdown_table(latency_table(found)),
        _markdown_table(cost_table(found)),
        _bullets(facts(found)),
    ]
    return "\n\n".join(parts) + "\n"


def render_html(found: Benchmark, verdict: Verdict | None = None) -> str:
    """Write a benchmark as a page with its style and charts in it.

    The same benchmark gives the same text.
    """
    title = escape(found.timed.bundle)
    best = escape(". ".join(headlines(found)))
    about = escape(f"{found.machine.cpu} · {found.machine.system} · {found.created}")
    of_one_mode = [row for row in found.rows if row.mode == found.rows[0].mode]
    up = f"{escape(found.metric)} up, the area is" if is_accuracy_shown(of_one_mode) else "up and as an area"
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title} · benchmark</title>
<style>
{style()}</style>
</head>
<body>
<main>
<header>
  <p class="over">Benchmark{", interrupted" if found.interrupted else ""}</p>
  <h1>{title}</h1>
  <p>{about}</p>
</header>
{_verdict_box(verdict)}
<section>
  <h2>Latency</h2>
  <p class="lead">{best}.</p>
  {_html_table(latency_table(found), "Latency")}
</section>
<section>
  <h2>How it is spread</h2>
  <figure>
    <p class="legend"><span><i class="key int8"></i>calls</span>
      <span><i class="key fence"></i>p50 and p99</span></p>
    {latency_chart(found.rows)}
    <figcaption>Every call of each row; the last bar holds all that took longer.</figcaption>
  </figure>
</section>
<section>
  <h2>What speed costs</h2>
  <figure>
    <p class="legend"><span><i class="key dot"></i>no other is better in everything</span>
      <span><i class="key beaten"></i>another is</span></p>
    {pareto_chart(of_one_mode, found.metric)}
    <figcaption>Median latency across, {up} the size of the files.
      Numbers are those of the table.</figcaption>
  </figure>
</section>
<section>
  <h2>Parts and costs</h2>
  <p class="lead">Medians of each part in ms.
    First result and memory are those of a fresh process.</p>
  {_html_table(cost_table(found), "Parts and costs")}
</section>
<section>
  <h2>What was timed, and where</h2>
  <ul class="facts">{"".join(f"<li>{escape(text)}</li>" for text in facts(found))}</ul>
</section>
<footer>Written by edgecnn. This page needs no network.</footer>
</main>
</body>
</html>
"""
    # a file name may hold bytes that are not UTF-8
    return page.encode("utf-8", "replace").decode("utf-8")


def _verdict_box(verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    kind = "missed" if verdict.slower else "met"
    title = f"Slower than {verdict.created}" if verdict.slower else f"Not slower than {verdict.created}"
    lines = "<br>".join(escape(text) for text in verdict_lines(verdict))
    return f"""<div class="verdict {kind}">
  <svg viewBox="0 0 24 24" aria-hidden="true"><circle cx="12" cy="12" r="12"/><path d="{MARKS[kind]}"/></svg>
  <p><strong>{escape(title)}</strong>{lines}</p>
</div>"""


def _html_table(rows: Sequence[Sequence[str]], label: str) -> str:
    header = "".join(f'<th scope="col" class="n">{escape(cell)}</th>' for cell in rows[0][1:])
    body = "".join(
        f'<tr><th scope="row">{number} <code>{escape(name)}</code></th>'
        + "".join(f'<td class="n">{escape(cell)}</td>' for cell in cells)
        + "</tr>"
        for number, (name, *cells) in enumerate(rows[1:], 1)
    )
    return (
        f'<div class="scroll" role="region" aria-label="{label}" tabindex="0"><table>'
        f'<thead><tr><th scope="col" aria-label="Row"></th>{header}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in rows[0][1:])]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
        for cells in (rows[0], rule, *rows[1:])
    )


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {text}" for text in lines)
