"""``edgecnn verify``: does a bundle still compute what it did where it was made?"""

from __future__ import annotations

from collections import defaultdict

import click

from edgecnn.cli import _common
from edgecnn.errors import GateMissed, Unavailable

__all__ = ["command"]


@click.command("verify", short_help="Check a bundle's files and results here.")
@click.argument("bundle")
@click.option("--runtime", default="all", show_default=True, metavar="NAME", help="Run on this one only.")
@click.option("--key", metavar="FILE", help="The public key (PEM) of who has to have signed it.")
@_common.json_flag
@_common.verbosity
def command(bundle: str, runtime: str, key: str | None, as_json: bool) -> None:
    """Check the files of BUNDLE (with --key its signature) and run its golden inputs on this machine.

    Exits with 1 when an artifact gives other results than where it was made, with 3 when none could run.
    """
    from edgecnn.verification import verify

    found = verify(bundle, runtime=runtime, public_key=key)
    if as_json:
        _common.print_json(found.to_json())
    elif found.artifacts and not _common.is_quiet():
        rows = [["artifact", "runtime", "status", "max |difference|", "cosine", "agreement"]]
        rows += [
            [
                row.id,
                row.runtime,
                row.status,
                _common.figure(row.max_abs, ".3g"),
                _common.figure(row.cosine, ".6f"),
                _common.figure(row.agreement, ".1%"),
            ]
            for row in found.artifacts
        ]
        _common.echo(_common.table(rows, indent=""))
        reasons = defaultdict(list)
        for row in found.artifacts:
            if row.reason:
                reasons[row.reason].append(f"{row.id} on {row.runtime}")
        for reason, names in reasons.items():
            _common.echo(f"{', '.join(names)}: {reason}")
    if not found.ok:
        failed = [f"{row.id} on {row.runtime}" for row in found.artifacts if row.status == "failed"]
        if failed:
            raise GateMissed(f"{bundle}: failed: {', '.join(failed)}")
        raise Unavailable(f"{bundle}: no artifact could be run here ({runtime}); see edgecnn doctor")
