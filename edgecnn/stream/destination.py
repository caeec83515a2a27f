"""Where results are sent: URLs whose secrets stay out of messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from edgecnn.errors import InputError

__all__ = ["Destination", "parse_destination"]

# what RFC 3986 allows in a URL, but for the fragment, which is not sent
_URL = re.compile(r"[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]+")


@dataclass(frozen=True)
class Destination:
    """A server, and what it is asked for.

    Attributes:
        scheme: In small letters.
        host: Its name or address.
        port: As given, or the scheme's own.
        path: What follows the host, with the query; may hold a secret.
        user, password: None where the URL has none.
    """

    scheme: str
    host: str
    port: int
    path: str = field(repr=False)
    user: str | None = field(repr=False)
    password: str | None = field(repr=False)

    @property
    def shown(self) -> str:
        """Scheme, host and port, for messages."""
        place = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{place}:{self.port}"


def parse_destination(url: str, option: str, ports: Mapping[str, int]) -> Destination:
    """Take a URL apart.

    Args:
        url: ``scheme://user:password@host:port/path?query``; other characters than letters and digits of
            the user and the password as ``%XX``.
        option: Where it was given, for messages, which never hold the URL itself.
        ports: The schemes that can be used here, with their own ports.

    Raises:
        InputError: It is none, or of another scheme.
    """
    known = " or ".join(f"{scheme}://" for scheme in ports)
    if not _URL.fullmatch(url):
        raise InputError(f"{option}: the URL has characters that are not allowed in one; write them as %XX")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"{option}: the URL cannot be read; give {known}host/…") from error
    if parts.scheme not in ports or not host:
        raise InputError(f"{option}: not a URL that can be used here; give {known}host/…")
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    user, password = (None if part is None else unquote(part) for part in (parts.username, parts.password))
    return Destination(
        parts.scheme, host, ports[parts.scheme] if port is None else port, path, user, password
    )
