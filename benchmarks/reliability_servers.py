"""Servers of live video in processes that can be killed, for the parts of reliability.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

SERVER = """
import sys
sys.path.insert(0, {root!r})
from tests.stream import servers
with getattr(servers, {kind!r})({port}) as server:
    server.size_hw = {size_hw}
    print(server.port, flush=True)
    for line in sys.stdin:
        server.become(line.strip())
        print("done", flush=True)
"""


class ServerProcess:
    """One of tests/stream/servers.py, that does as it is told.

    Attributes:
        url: Where its video is.
    """

    def __init__(self, kind: str, size_hw: tuple[int, int] = (96, 128)) -> None:
        self.kind, self.port, self.size_hw = kind, 0, size_hw
        self._start()
        self.url = f"{'rtsp' if kind == 'RtspServer' else 'http'}://127.0.0.1:{self.port}/video"

    def become(self, mode: str) -> None:
        """Change what it does; ``killed`` ends it with SIGKILL, ``serve`` begins anew where it was."""
        if mode == "killed":
            self.close()
            return
        if self._process.poll() is not None:
            self._start()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{mode}\n")
        self._process.stdin.flush()
        self._process.stdout.readline()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def _start(self) -> None:
        program = SERVER.format(root=str(ROOT), kind=self.kind, port=self.port, size_hw=self.size_hw)
        self._process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
