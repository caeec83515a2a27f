"""``edgecnn sign``: who made a bundle."""

from __future__ import annotations

import click

from edgecnn.cli import _common

__all__ = ["command"]


@click.command("sign", short_help="Sign a bundle, or make a pair of keys for that.")
@click.argument("bundle", required=False)
@click.option("--key", metavar="FILE", help="The private Ed25519 key to sign with, PEM.")
@click.option("--new-key", metavar="FILE", help="Make a private key, and the public one beside it.")
@_common.verbosity
def command(bundle: str | None, key: str | None, new_key: str | None) -> None:
    """Sign the manifest of BUNDLE, and so all of its files; a bundle that is written again has no signature.

    edgecnn verify --key and EDGECNN_REQUIRE_SIGNATURE, which name the public key, refuse any other bundle.
    """
    for name, value in (("BUNDLE", bundle), ("--key", key), ("--new-key", new_key)):
        if value == "":
            raise click.UsageError(f"{name} is empty; give a name")
    if new_key is not None:
        if bundle is not None or key is not None:
            raise click.UsageError("--new-key stands alone; sign with --key then")
        from edgecnn.signing import new_key as make

        public = make(new_key)
        _common.echo(f"{new_key}: keep it secret\n{public}: for the devices")
        return
    if bundle is None or key is None:
        raise click.UsageError("give BUNDLE and --key FILE, or --new-key FILE")
    from edgecnn.bundle import Bundle

    _common.echo(f"{Bundle(bundle).sign(key)}: written")
