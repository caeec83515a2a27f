"""Servers that take results: an HTTP server that behaves as it is told to, and a real MQTT broker."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.paths import leave_out

# of each worker of pytest-xdist its own, and none that a system gives to clients: while a server is away, nobody
# takes its port
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PORTS = range(20_000 + 100 * WORKER, 20_100 + 100 * WORKER)
_ports = itertools.cycle(random.sample(PORTS, len(PORTS)))


def free_port() -> int:
    """Another one each time."""
    return next(filter(_is_free, _ports))


def _is_free(port: int) -> bool:
    with suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


class Hook:
    """Takes lists of lines over HTTP.

    Attributes:
        mode: ``take``; ``500`` and the like; ``hang``; ``cut`` takes the lines but gives no answer.
        tls: Speak it from the next start on, and show the certificate that is in it.
        lines: All that were taken, in order.
        requests: Headers, and how many lines, of all requests.
    """

    def __init__(self) -> None:
        self.mode = "take"
        self.tls: ssl.SSLContext | None = None
        self.port = free_port()
        self.lines: list[dict[str, Any]] = []
        self.requests: list[tuple[dict[str, str], int]] = []
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://user:se%2Fcret@127.0.0.1:{self.port}/hook/token?key=private"

    @property
    def frames(self) -> list[int]:
        return [line["frame"] for line in self.lines if "frame" in line]

    def start(self) -> None:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                lines = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.requests.append((dict(self.headers) | {"path": self.path}, len(lines)))
                while hook.mode == "hang":
                    time.sleep(0.02)
                if hook.mode in ("take", "cut"):
                    hook.lines += lines
                if hook.mode == "cut":
                    hook.mode = "take"
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                self.send_response(200 if hook.mode == "take" else int(hook.mode))
                self.send_header("Content-Length", "2")
                if hook.mode == "302":
                    self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *arguments: object) -> None:
                pass

            def process_request(self, request: Any, address: Any) -> None:
                hook._clients.append(request)
                super().process_request(request, address)

        self._clients: list[socket.socket] = []
        self._server = Server(("127.0.0.1", self.port), Handler)
        if self.tls:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """As a machine that loses its power: all connections end."""
        server, self._server = self._server, None
        if server:
            server.shutdown()
            server.server_close()
            for client in self._clients:
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)


@contextmanager
def hook() -> Iterator[Hook]:
    server = Hook()
    server.start()
    try:
        yield server
    finally:
        server.mode = "take"
        server.stop()


class Broker:
    """mosquitto, with a user and a password, and everything that is published to it.

    Attributes:
        payloads: As they came, in order.
    """

    def __init__(self, folder: Path, certificate: Path | None = None, key: Path | None = None) -> None:
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
        if program is None:
            leave_out("mqtt", "mosquitto is not installed: apt-get install mosquitto")
        self._program = program
        self._folder = folder
        self._tls = certificate is not None
        self.port = free_port()
        self.payloads: list[bytes] = []
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "passwords").write_text("user:se/cret\n")
        (folder / "passwords").chmod(0o600)
        passwords = [Path(program).parent.parent / "bin" / "mosquitto_passwd", "-U", folder / "passwords"]
        subprocess.run(passwords, check=True)
        tls = f"certfile {certificate}\nkeyfile {key}\n" if self._tls else ""
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\n{tls}allow_anonymous false\npassword_file {folder}/passwords\n"
            # what it has acknowledged, it keeps for its listener over a restart
            f"user root\npersistence true\npersistence_location {folder}/\n"
        )

    @property
    def url(self) -> str:
        return f"mqtt{'s' if self._tls else ''}://user:se%2Fcret@127.0.0.1:{self.port}/doors/front%20door"

    @property
    def frames(self) -> list[int]:
        lines = [json.loads(payload) for payload in self.payloads]
        return [line["frame"] for line in lines if "frame" in line]

    def start(self) -> None:
        import paho.mqtt.client as paho

        command = [self._program, "-c", str(self._folder / "mosquitto.conf")]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: is_open(self.port))
        listening = threading.Event()
        self._listener = paho.Client(paho.CallbackAPIVersion.VERSION2, "listener", clean_session=False)
        self._listener.username_pw_set("user", "se/cret")
        self._listener.on_message = lambda client, data, message: self.payloads.append(message.payload)
        self._listener.on_subscribe = lambda *arguments: listening.set()
        self._listener.on_connect = lambda client, *arguments: client.subscribe("doors/front door", 1)
        if self._tls:
            self._listener.tls_set_context(ssl._create_unverified_context())
        self._listener.connect("127.0.0.1", self.port)
        self._listener.loop_start()
        assert listening.wait(10)

    def stop(self) -> None:
        """End it, whatever its clients are doing."""
        if self._process:
            self._process.terminate()
            self._process.wait()
            self._process = None
            self._listener.disconnect()
            self._listener.loop_stop()


@contextmanager
def broker(folder: Path, certificate: Path | None = None, key: Path | None = None) -> Iterator[Broker]:
    server = Broker(folder, certificate, key)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def is_open(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def until(condition: Any, seconds: float = 30.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)
