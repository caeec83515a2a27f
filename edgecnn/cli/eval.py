"""``edgecnn eval``: how good is a bundle on images whose answers are known?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgecnn.cli import _common

if TYPE_CHECKING:
    from edgecnn.evaluation import Evaluation

__all__ = ["command"]

ROWS_SHOWN = 10
# what is listed of a class by the main metric, and by which figure the worst is found
COLUMNS = {
    "top1": ("f1", ("support", "precision", "recall", "f1")),
    "ap50": ("ap50", ("support", "ap50", "ap", "recall", "false_positives")),
}


@click.command("eval", short_help="Measure a bundle on labelled images.")
@click.argument("bundle")
@click.option("--data", required=True, metavar="PATH", help="A folder a class, a CSV, or COCO JSON.")
@click.option("--runtime", default="auto", show_default=True, metavar="NAME", help="Which engine runs it.")
@_common.precision_option
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N images, evenly over all.")
@_common.json_flag
@_common.require_signature
@_common.verbosity
def command(bundle: str, data: str, runtime: str, precision: str, limit: int | None, as_json: bool) -> None:
    """Measure BUNDLE on images whose answers are known.

    \b
    edgecnn eval net.edge --data val/            # one folder a class
    edgecnn eval net.edge --data labels.csv      # rows of file,class
    edgecnn eval face --data instances.json      # COCO boxes, for window detection
    """
    from edgecnn.evaluation import evaluate

    doing = f"evaluating {bundle}"
    with _common.progress_bar(doing) as bar:
        found = evaluate(
            bundle,
            data,
            runtime=runtime,
            precision=precision,
            limit=limit,
            on_progress=lambda done, total: bar.show(doing, done, total),
        )
    if as_json:
        _common.print_json(found.to_json())
    elif not _common.is_quiet():
        _common.echo(_report(found))


def _report(found: Evaluation) -> str:
    lines = ["1 image" if found.n == 1 else f"{found.n} images"]
    lines += [_common.table([[name, f"{value:.4f}"] for name, value in found.metrics.items()])]
    key, columns = COLUMNS[found.primary]
    worst = sorted((row for row in found.per_class if row["support"]), key=lambda row: float(row[key]))
    if len(worst) > 1:
        rows = [["class", *columns]]
        rows += [[row["label"], *(_cell(row[name]) for name in columns)] for row in worst[:ROWS_SHOWN]]
        lines += ["", f"worst classes by {key}", _common.table(rows)]
    confused = _confused(found)
    if confused:
        lines += ["", "most often confused", _common.table([["truth", "prediction", "images"], *confused])]
    return "\n".join(lines)


def _cell(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def _confused(found: Evaluation) -> list[list[str]]:
    if found.confusion is None:
        return []
    import numpy as np

    pairs = np.argwhere(found.confusion)
    wrong = [(int(found.confusion[i, j]), int(i), int(j)) for i, j in pairs if i != j]
    wrong.sort(key=lambda pair: (-pair[0], pair[1:]))
    return [[found.labels[i], found.labels[j], str(count)] for count, i, j in wrong[:ROWS_SHOWN]]
