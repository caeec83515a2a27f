from __future__ import annotations

import socket
from email.message import Message

import pytest

from edgecnn.errors import InputError
from edgecnn.web.access import TOKEN_VARIABLE, Access, Place, open_access, parse_place


def headers(**values: str) -> Message:
    message = Message()
    for name, value in values.items():
        message[name] = value
    return message


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("8080", Place("127.0.0.1", 8080)),
        ("localhost:80", Place("localhost", 80)),
        ("0.0.0.0:0", Place("0.0.0.0", 0)),
        ("robot.local:65535", Place("robot.local", 65535)),
        ("[::1]:8080", Place("::1", 8080)),
    ],
)
def test_place(text: str, place: Place) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "65536", "²", ":80", "::1", "::1:80", "[]:80", "a:b", "1.5", "9" * 5000]
)
def test_no_place(text: str) -> None:
    with pytest.raises(InputError, match=r"^--web .*: give PORT, HOST:PORT or"):
        parse_place(text)


@pytest.mark.parametrize(
    ("host", "loopback", "url"),
    [
        ("127.0.0.1", True, "http://127.0.0.1:80/"),
        ("127.9.9.9", True, "http://127.9.9.9:80/"),
        ("localhost", True, "http://localhost:80/"),
        ("::1", True, "http://[::1]:80/"),
        ("10.0.0.7", False, "http://10.0.0.7:80/"),
        ("localhost.example.org", False, "http://localhost.example.org:80/"),
        ("0.0.0.0", False, f"http://{socket.gethostname()}:80/"),
    ],
)
def test_loopback_and_url(host: str, loopback: bool, url: str) -> None:
    place = Place(host, 80)
    assert (place.loopback, place.url) == (loopback, url)


def test_loopback_needs_no_token_and_other_hosts_do() -> None:
    assert open_access(Place("127.0.0.1", 1)).token is None
    one, other = (open_access(Place("0.0.0.0", 1)) for _ in range(2))
    assert one.token != other.token
    assert len(one.token or "") >= 32
    assert one.printed


def test_token_of_the_environment_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "a" * 16)
    for host in ("127.0.0.1", "0.0.0.0"):
        access = open_access(Place(host, 1))
        assert (access.token, access.printed) == ("a" * 16, False)


@pytest.mark.parametrize("token", ["short", "a" * 257, "sixteen letters and; more", "ä" * 16])
def test_token_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, token)
    with pytest.raises(InputError, match=rf"^{TOKEN_VARIABLE}: give 16 to 256") as raised:
        open_access(Place("0.0.0.0", 1))
    assert token not in str(raised.value)


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "LOCALHOST"])
def test_names_of_this_machine(host: str) -> None:
    assert open_access(Place("127.0.0.1", 8080)).refusal(headers(Host=host), None) is None


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "[::1", "localhost@evil.example"],
)
def test_names_that_were_made_to_lead_here(host: str) -> None:
    assert "name" in str(open_access(Place("127.0.0.1", 8080)).refusal(headers(Host=host), None))


ACCESS = Access("right-token-0123456789", frozenset(), "edgecnn_80")


@pytest.mark.parametrize(
    ("cookie", "given", "let_in"),
    [
        (None, "right-token-0123456789", True),
        ("edgecnn_80=right-token-0123456789", None, True),
        ("a=b; edgecnn_80=right-token-0123456789; c", "wrong", True),
        (None, None, False),
        (None, "", False),
        (None, "right-token-012345678", False),
        (None, "ünïcode", False),
        (None, "\udc80", False),
        ("edgecnn_81=right-token-0123456789", None, False),
        ("edgecnn_80=; edgecnn_80", None, False),
    ],
)
def test_token(cookie: str | None, given: str | None, let_in: bool) -> None:
    refusal = ACCESS.refusal(headers(**({} if cookie is None else {"Cookie": cookie})), given)
    assert (refusal is None) == let_in
    assert "right-token" not in str(refusal)


def test_cookie_is_for_this_page_only() -> None:
    assert ACCESS.set_cookie() == "edgecnn_80=right-token-0123456789; Path=/; HttpOnly; SameSite=Strict"
