"""Requests with bytes changed, put in, taken out and doubled: each is answered or refused, and none breaks the server."""

from __future__ import annotations

import logging
import os
import random
import socket
from contextlib import suppress

import pytest

from edgecnn.web import pages, server
from tests.web.fakes import Show, until
from tests.web.test_pages import threads

MUTANTS = int(os.environ.get("EDGECNN_MUTANTS", "1000"))
REQUESTS = [
    b"GET /picture.jpg?after=1&source=0&token=abc HTTP/1.1\r\nHost: localhost:80\r\nCookie: a=b; edgecnn_0=x\r\n\r\n",
    b"HEAD / HTTP/1.0\r\nHost: [::1]:8080\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n",
    b"GET /state.json?source=1 HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n",
]
PIECES = [
    b"\r\n",
    b"\n",
    b"\t",
    b" ",
    b":",
    b"\0",
    b"%",
    b"[",
    b"]",
    b"?",
    b"&",
    b"=",
    b";",
    b"\xff",
    b"9" * 400,
    b"Host: ",
]
STATUSES = {200, 204, 400, 403, 404, 405, 413, 414, 431, 505}


def mutant(rng: random.Random) -> bytes:
    data = bytearray(rng.choice(REQUESTS))
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data) or 1)
        change = rng.randrange(4)
        if change == 0:
            data[at : at + 1] = rng.randbytes(1)
        elif change == 1:
            data[at:at] = rng.choice(PIECES)
        elif change == 2:
            del data[at : at + rng.randint(1, 12)]
        else:
            data[at:at] = data[rng.randrange(len(data) or 1) :][:20]
    return bytes(data) if data.endswith(b"\r\n\r\n") else bytes(data) + b"\r\n\r\n"


def test_mutants(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.5)
    monkeypatch.setattr(pages, "PICTURE_WAIT_S", 0.0)
    rng, found = random.Random(0), set()
    with Show() as show, caplog.at_level(logging.ERROR, "edgecnn"):
        show.frame()
        for _ in range(MUTANTS):
            answer, data = b"", mutant(rng)
            with show.connect() as connection, suppress(ConnectionError):
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
            assert not caplog.records, data
            if answer:
                found.add(int(answer.split(b" ", 2)[1]))
        assert show.get("/")[0] == 200
        until(lambda: threads() == 1)
    assert found <= STATUSES
    assert {200, 400, 403, 413} <= found
