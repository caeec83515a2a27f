"""Ed25519 signatures (RFC 8032) of a manifest, which holds the hashes of all other files of its bundle.

Keys are PEM as OpenSSL writes it: PKCS #8, and SubjectPublicKeyInfo. A signature is its 64 bytes.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from edgecnn.errors import BundleError, InputError, require
from edgecnn.paths import cannot_write

__all__ = [
    "SIGNATURE_BYTES",
    "SIGNATURE_VARIABLE",
    "check_signature",
    "new_key",
    "required_key",
    "signature_of",
]

KEY_BYTES_MAX = 1 << 16
SIGNATURE_BYTES = 64
SIGNATURE_VARIABLE = "EDGECNN_REQUIRE_SIGNATURE"


def new_key(path: str | os.PathLike[str]) -> Path:
    """Make a pair of keys: the private one at the path, for its owner alone, the public one beside it.

    Returns:
        The public one: ``NAME.pub.pem`` for ``NAME.pem``.

    Raises:
        InputError: There is a file already, or none can be written.
        Unavailable: The disk is full; neither file is left on it.
        MissingDependency: cryptography is not installed.
    """
    key, form = _ed25519().Ed25519PrivateKey.generate(), _serialization()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    given, path = path, Path(path)
    if not path.name:
        raise InputError(
            f"{os.fspath(given)!r}: not the name of a file; name the private key, such as maker.pem"
        )
    public_path = path.with_suffix(".pub.pem")
    for name in (path, public_path):
        if name.exists():
            raise InputError(f"{name}: exists; a key is never replaced, choose another name")
    with ExitStack() as undo:
        for name, content, mode in ((path, private, 0o600), (public_path, public, 0o644)):
            try:
                with os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                    undo.callback(name.unlink, missing_ok=True)
                    file.write(content)
            except OSError as error:
                raise cannot_write(name, error) from error
        undo.pop_all()
    return public_path


def required_key() -> str | None:
    """The public key that ``$EDGECNN_REQUIRE_SIGNATURE`` names; None where it is not set.

    Raises:
        InputError: It is empty: what a script that lost the name sets, and a device would load anything.
    """
    key = os.environ.get(SIGNATURE_VARIABLE)
    if key == "":
        raise InputError(f"{SIGNATURE_VARIABLE} is empty; name the file of a public key in it, or unset it")
    return key


def signature_of(data: bytes, key: str | os.PathLike[str]) -> bytes:
    """Sign bytes.

    Args:
        data: The bytes of a manifest.
        key: A private key in PEM, not encrypted.

    Raises:
        InputError: It is none.
        MissingDependency: cryptography is not installed.
    """
    signed: bytes = _loaded(key, "private").sign(data)
    return signed


def check_signature(data: bytes, signature: bytes, public_key: str | os.PathLike[str], where: str) -> None:
    """See that a signature of these bytes was made with the private half of a key.

    Args:
        data: The bytes of a manifest.
        signature: What is to be one.
        public_key: A public key in PEM.
        where: Name of the signature, for messages.

    Raises:
        BundleError: It was not.
        InputError: There is no such key.
        MissingDependency: cryptography is not installed.
    """
    key = _loaded(public_key, "public")
    invalid = require("cryptography.exceptions", "sign").InvalidSignature
    try:
        key.verify(signature, data)
    except invalid as error:
        raise BundleError(
            f"{where}: not a signature of its manifest by the key {os.fspath(public_key)}; "
            "the bundle is another one's, or was altered"
        ) from error


def _loaded(path: str | os.PathLike[str], half: str) -> Any:
    kind = getattr(_ed25519(), f"Ed25519{half.capitalize()}Key")
    name = os.fspath(path) or "''"
    try:
        # O_NONBLOCK: opening a FIFO that nobody writes to must not wait
        with open(
            path, "rb", opener=lambda at, flags: os.open(at, flags | getattr(os, "O_NONBLOCK", 0))
        ) as file:
            if half == "public" and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError(f"{name}: cannot be read as a key (not a plain file)")
            data = file.read(KEY_BYTES_MAX)
    except OSError as error:
        raise InputError(f"{name}: cannot be read as a key ({error.strerror})") from error
    if half == "public" and b"PRIVATE KEY-----" in data:
        raise InputError(
            f"{name}: a PRIVATE key, which does not belong on a device; "
            f"give the public one, as {Path(path).with_suffix('.pub.pem').name}"
        )
    try:
        given = {"password": None} if half == "private" else {}
        key = getattr(_serialization(), f"load_pem_{half}_key")(data, **given)
    except Exception as error:  # ValueError, TypeError of an encrypted one, classes of cryptography's own
        raise InputError(
            f"{name}: not a {half} key in PEM that is not encrypted; edgecnn sign --new-key makes a pair"
        ) from error
    if not isinstance(key, kind):
        raise InputError(f"{name}: not an Ed25519 key; edgecnn sign --new-key makes a pair")
    return key


def _ed25519() -> Any:
    return require("cryptography.hazmat.primitives.asymmetric.ed25519", "sign")


def _serialization() -> Any:
    return require("cryptography.hazmat.primitives.serialization", "sign")
