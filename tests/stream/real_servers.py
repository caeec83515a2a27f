"""Servers of live video as other people wrote them: GStreamer's of RTSP, and FFmpeg's of Motion JPEG over HTTP.

Both send colour bars, and can be told to fail as `servers` are, by what the system does to their processes.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.paths import leave_out
from tests.stream.receivers import free_port

# SMPTE's, of three quarters: white, yellow, cyan, green, magenta, red, blue; BGR
BARS = 191 * np.array([(1, 1, 1), (0, 1, 1), (1, 1, 0), (0, 1, 0), (1, 0, 1), (0, 0, 1), (1, 0, 0)])
SYSTEM_PYTHON = "/usr/bin/python3"  # the one that Debian's packages are for
ENDS = ("stall", "killed", "terminated")


class RealServer:
    """A server that runs in processes of its own, and can be started again on its port.

    Attributes:
        url: Where its video is.
        size_hw: Of its pictures, from the next start on.
    """

    scheme: str
    packages: str

    def __init__(self, size_hw: tuple[int, int] = (240, 320)) -> None:
        self.size_hw = size_hw
        self.port = free_port()
        self.url = f"{self.scheme}://127.0.0.1:{self.port}/video"
        self._process: subprocess.Popen[bytes] | None = None
        self.become("serve")

    @classmethod
    def installed(cls) -> bool:
        """Whether this machine has it."""
        raise NotImplementedError

    def become(self, mode: str) -> None:
        """``serve``; ``stall``: it is stopped and keeps its connections; ``killed``; ``terminated``."""
        if mode == "serve":
            if self._process is None:
                self._process = self._start()
            self._signal(signal.SIGCONT)
        elif mode == "stall":
            self._signal(signal.SIGSTOP)
        else:
            self._signal(signal.SIGKILL if mode == "killed" else signal.SIGTERM)
            self._wait()

    def close(self) -> None:
        """End it."""
        self._signal(signal.SIGKILL)
        self._wait()

    def __enter__(self) -> RealServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def size(self) -> str:
        """As WIDTHxHEIGHT."""
        return f"{self.size_hw[1]}x{self.size_hw[0]}"

    def _start(self) -> subprocess.Popen[bytes]:
        raise NotImplementedError

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _wait(self) -> None:
        if self._process is not None:
            self._process.communicate()
            self._process = None


class GStreamer(RealServer):
    """H.264 over RTSP."""

    scheme = "rtsp"
    packages = "gir1.2-gst-rtsp-server-1.0 python3-gi"

    @classmethod
    def installed(cls) -> bool:
        program = "import gi; gi.require_version('GstRtspServer', '1.0')"
        with suppress(FileNotFoundError):
            return subprocess.run([SYSTEM_PYTHON, "-c", program], stderr=subprocess.DEVNULL).returncode == 0
        return False

    def resize(self, size_hw: tuple[int, int]) -> None:
        """Change the size at once, for those who are connected too."""
        self.size_hw = size_hw
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{self.size}\n".encode())
        self._process.stdin.flush()

    def _start(self) -> subprocess.Popen[bytes]:
        program = Path(__file__).with_name("gst_server.py")
        process = subprocess.Popen(
            [SYSTEM_PYTHON, str(program), str(self.port), self.size],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline()
        return process


class FFmpeg(RealServer):
    """Motion JPEG over HTTP. FFmpeg serves one client and ends; a shell starts the next one."""

    scheme = "http"
    packages = "ffmpeg"

    @classmethod
    def installed(cls) -> bool:
        with suppress(FileNotFoundError):
            return subprocess.run(["ffmpeg", "-version"], stdout=subprocess.DEVNULL).returncode == 0
        return False

    def _start(self) -> subprocess.Popen[bytes]:
        bars = f"-re -f lavfi -i smptebars=size={self.size}:rate=20"
        served = (
            "-c:v mjpeg -q:v 2 -f mpjpeg -content_type 'multipart/x-mixed-replace;boundary=ffmpeg' -listen 1"
        )
        return subprocess.Popen(
            ["sh", "-c", f"while :; do ffmpeg -loglevel quiet {bars} {served} {self.url}; done"],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def needed(kind: type[RealServer]) -> None:
    """Skip a test where a server is not installed; of the kind ``servers``."""
    if not kind.installed():
        leave_out("servers", f"{kind.__name__}'s server is not installed: apt-get install {kind.packages}")


def apart(image: npt.NDArray[np.uint8]) -> float:
    """How far the middles of seven columns of a picture are from `BARS`, in levels."""
    height, width = image.shape[:2]
    columns = [int(width * (i + 0.5) / len(BARS)) for i in range(len(BARS))]
    return float(np.abs(image[height // 3, columns].astype(int) - BARS).max())
