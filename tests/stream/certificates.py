"""A certification authority of one test, and certificates that servers of this machine show."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["KINDS", "Authority", "Shown"]

# what a server may show, and what is wrong with it
KINDS = ("good", "of another host", "expired", "of another authority")


@dataclass(frozen=True)
class Shown:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """For a server that shows it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


class Authority:
    """Signs certificates for 127.0.0.1.

    Attributes:
        path: Its own certificate, which is what clients are to trust.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.path = folder / f"{name}.pem"
        made = (
            self._draft(self._name, self._key, days=(-1, 30))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.path.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def show(self, kind: str) -> Shown:
        """Make a certificate of one of `KINDS`."""
        if kind == "of another authority":
            return Authority(self._folder, "another").show("good")
        key = ec.generate_private_key(ec.SECP256R1())
        place = (
            x509.DNSName("elsewhere.example")
            if kind == "of another host"
            else x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        )
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        made = (
            self._draft(subject, key, days=(-9, -2) if kind == "expired" else (-1, 30))
            .add_extension(x509.SubjectAlternativeName([place]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        name = f"{self.path.stem}-{kind.replace(' ', '-')}"
        shown = Shown(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        shown.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        shown.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return shown

    def _draft(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: tuple[int, int]
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.timezone.utc)
        begin, end = (now + datetime.timedelta(days=day) for day in days)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
        )
