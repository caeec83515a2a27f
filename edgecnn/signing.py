"""Ed25519 signatures (RFC 8032) of a manifest, which holds the hashes of all other files of its bundle.

Keys are PEM as OpenSSL writes it: PKCS #8, and SubjectPublicKeyInfo. A signature is its 64 bytes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edgecnn.errors import BundleError, InputError, require

__all__ = ["SIGNATURE_BYTES", "SIGNATURE_VARIABLE", "check_signature", "new_key", "signature_of"]

KEY_BYTES_MAX = 1 << 16
SIGNATURE_BYTES = 64
SIGNATURE_VARIABLE = "EDGECNN_REQUIRE_SIGNATURE"


def new_key(path: str | os.PathLike[str]) -> Path:
    """Make a pair of keys: the private one at the path, for its owner alone, the public one beside it.

    Returns:
        The public one: ``NAME.pub.pem`` for ``NAME.pem``.

    Raises:
        InputError: There is a file already, or none can be written.
        MissingDependency: cryptography is not installed.
    """
    key, form = _ed25519().Ed25519PrivateKey.generate(), _serialization()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    path = Path(path)
    public_path = path.with_suffix(".pub.pem")
    for name in (path, public_path):
        if name.exists():
            raise InputError(f"{name}: exists; a key is never replaced, choose another name")
    for name, content, mode in ((path, private, 0o600), (public_path, public, 0o644)):
        try:
            with os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
        except OSError as error:
            raise InputError(f"{name}: cannot be written ({error.strerror})") from error
    return public_path


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
    path = Path(path)
    kind = getattr(_ed25519(), f"Ed25519{half.capitalize()}Key")
    try:
        with path.open("rb") as file:
            data = file.read(KEY_BYTES_MAX)
    except OSError as error:
        raise InputError(f"{path}: cannot be read as a key ({error.strerror})") from error
    try:
        given = {"password": None} if half == "private" else {}
        key = getattr(_serialization(), f"load_pem_{half}_key")(data, **given)
    except Exception as error:  # ValueError, TypeError of an encrypted one, classes of cryptography's own
        raise InputError(
            f"{path}: not a {half} key in PEM that is not encrypted; edgecnn sign --new-key makes a pair"
        ) from error
    if not isinstance(key, kind):
        raise InputError(f"{path}: not an Ed25519 key; edgecnn sign --new-key makes a pair")
    return key


def _ed25519() -> Any:
    return require("cryptography.hazmat.primitives.asymmetric.ed25519", "sign")


def _serialization() -> Any:
    return require("cryptography.hazmat.primitives.serialization", "sign")
