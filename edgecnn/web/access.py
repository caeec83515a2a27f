"""Where the view listens, and who is let in."""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import secrets
import socket
from dataclasses import dataclass
from email.message import Message
from urllib.parse import urlsplit

from edgecnn.errors import InputError

__all__ = ["TOKEN_VARIABLE", "Access", "Place", "open_access", "parse_place"]

TOKEN_VARIABLE = "EDGECNN_WEB_TOKEN"
LOOPBACK = "127.0.0.1"
# what may stand in a URL as it is; long enough not to be guessed
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,256}")


@dataclass(frozen=True)
class Place:
    """Where to listen.

    Attributes:
        host: A name or an address of this machine.
        port: Its number; 0 takes one that is free.
    """

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Only programs of this machine get here."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def url(self) -> str:
        """What a browser opens; where all addresses are listened on, with the name of this machine."""
        host = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"


def parse_place(text: str) -> Place:
    """Read ``[HOST:]PORT``; an IPv6 address is in brackets.

    Raises:
        InputError: Not of this form.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else -1
    if not 0 <= number <= 65535 or (colon and not host) or (":" in host and not bracketed):
        raise InputError(f"--web {text}: give PORT, HOST:PORT or [IPV6]:PORT, as 8080 or 0.0.0.0:8080")
    return Place(host or LOOPBACK, number)


@dataclass(frozen=True)
class Access:
    """Tells who may see the stream.

    Attributes:
        token: What has to be known; None asks for nothing.
        hosts: Names that a browser may know this server by; empty allows all.
        cookie: Name of the cookie that holds the token: browsers share cookies between ports.
        printed: The token was made up here, so it has to be told to somebody.
    """

    token: str | None
    hosts: frozenset[str]
    cookie: str
    printed: bool = False

    def refusal(self, headers: Message, given: str | None) -> str | None:
        """Why a request is refused; None lets it in.

        Args:
            headers: Of the request.
            given: The token in the URL.
        """
        if self.hosts and _host(headers.get("Host", "")) not in self.hosts:
            # a page of another site whose name was made to lead to this machine
            return "this name is not one of this server; open it as localhost"
        if self.token is None or self.knows(given) or self.knows(self._from_cookie(headers)):
            return None
        return "a token is needed: open the address with ?token= once, as edgecnn printed it"

    def knows(self, token: str | None) -> bool:
        """Whether this is the token; takes as long for nearly right ones as for others."""
        return bool(
            self.token
            and token
            and hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode())
        )

    def set_cookie(self) -> str:
        """The header that makes a browser remember the token, for requests of this page only."""
        return f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"

    def _from_cookie(self, headers: Message) -> str | None:
        pairs = (part.strip().partition("=") for part in headers.get("Cookie", "").split(";"))
        return next((value for name, _, value in pairs if name == self.cookie), None)


def open_access(place: Place) -> Access:
    """Decide who is let in: everybody on this machine; from elsewhere, who has the token.

    The token is that of ``$EDGECNN_WEB_TOKEN``, which then holds on this machine too, or made up.

    Raises:
        InputError: The token of the environment is too short or has characters that a URL cannot have.
    """
    token = os.environ.get(TOKEN_VARIABLE) or None
    if token is not None and not _TOKEN.fullmatch(token):
        raise InputError(f"{TOKEN_VARIABLE}: give 16 to 256 letters, digits or . _ ~ -")
    made_up = token is None and not place.loopback
    hosts = frozenset({"localhost", LOOPBACK, "::1", place.host}) if place.loopback else frozenset[str]()
    return Access(
        secrets.token_urlsafe(24) if made_up else token, hosts, f"edgecnn_{place.port}", printed=made_up
    )


def _host(header: str) -> str | None:
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None
