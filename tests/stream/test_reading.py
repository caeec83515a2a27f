"""A process that reads a source, when it or its source does what it should not."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from edgecnn.errors import DeviceUnavailable, MediaError
from edgecnn.stream import open_source, reading
from edgecnn.vision.opencv import cv2
from tests.stream.certificates import Authority
from tests.stream.fakes import write_video
from tests.stream.servers import MjpegServer

FRAMES, COUNT = 8, 60


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "v.avi", count=FRAMES)


class Quiet(BaseHTTPRequestHandler):
    """Answers, and logs nothing."""

    def log_message(self, *_: object) -> None:
        pass

    def video(self, content: bytes, part: float = 1.0) -> None:
        """Send a video, or its beginning."""
        self.send_response(200)
        self.send_header("Content-Type", "video/x-msvideo")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: round(len(content) * part)])
        self.wfile.flush()


@contextmanager
def serving(answer: type[Quiet], authority: Authority | None = None) -> Iterator[int]:
    """Answers HTTP, or HTTPS with a good certificate; gives the port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), answer) as server:
        if authority is not None:
            server.socket = authority.show("good").context().wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("MemoryError()", "it wants more memory than it gets"),
        ("ValueError('spoilt\\nor not')", "spoilt"),
    ],
)
def test_a_file_whose_decoder_fails_on_the_way_does_not_count_as_whole(
    error: str, reason: str, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import edgecnn.vision.video as v, edgecnn.stream.reader as r\n"
        "class Reader(v.VideoReader):\n"
        "    def __iter__(self):\n"
        "        for index, image in enumerate(super().__iter__()):\n"
        f"            if index == 3: raise {error}\n"
        "            yield image\n"
        "v.VideoReader = Reader\n"
        "r.main()"
    )
    monkeypatch.setattr(reading, "PROGRAM", ("-c", program))
    with open_source(video) as source:
        found = []
        with pytest.raises(MediaError, match=rf"v\.avi: broke off after 3 frames \({reason}"):
            found.extend(frame.index for frame in source)


def test_a_video_at_a_url_that_stalls_does_not_count_as_whole(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (320, 240))
    for image in np.random.default_rng(0).integers(0, 256, (COUNT, 240, 320, 3), np.uint8):
        writer.write(image)
    writer.release()
    content = (tmp_path / "v.avi").read_bytes()
    ending = threading.Event()

    class Stalling(Quiet):
        def do_GET(self) -> None:
            self.video(content, 0.7)
            ending.wait(30)

    with serving(Stalling) as port, open_source(f"http://127.0.0.1:{port}/v.avi", timeout_s=1.0) as source:
        count = 0
        with pytest.raises(
            DeviceUnavailable, match=r"v\.avi: broke off after \d+ frames \(no frame for 1 s\)"
        ):
            for _ in source:
                count += 1
        ending.set()
    assert 0 < count < COUNT


def test_a_video_at_a_url_is_refused_by_its_size_as_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = write_video(tmp_path / "v.avi", count=FRAMES).read_bytes()

    class Video(Quiet):
        def do_GET(self) -> None:
            self.video(content)

    with serving(Video) as port:
        url = f"http://127.0.0.1:{port}/v.avi"
        with open_source(url) as source:
            assert len(list(source)) == FRAMES
        monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", "1000")
        with pytest.raises(DeviceUnavailable, match=r"px is more than the 1000 pixels allowed"):
            open_source(url)


def test_https_does_not_lead_to_a_server_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    with MjpegServer() as plain:

        class Elsewhere(Quiet):
            def do_GET(self) -> None:
                self.send_response(302)
                self.send_header("Location", f"http://127.0.0.1:{plain.port}/video")
                self.end_headers()

        with serving(Elsewhere) as port, open_source(f"http://127.0.0.1:{port}/video") as source:
            next(source)
        with (
            serving(Elsewhere, authority) as port,
            pytest.raises(DeviceUnavailable, match="redirects to a server without encryption"),
        ):
            open_source(f"https://127.0.0.1:{port}/video")


def test_forgotten_sources_are_ended_in_whatever_thread(video: Path) -> None:
    """Also in the one that watches their process, while it looks."""
    program = (
        "import gc, sys, time\n"
        "from edgecnn.stream import open_source\n"
        "gc.disable()\n"
        "source = open_source(sys.argv[1])\n"
        "next(source)\n"
        "process, sleep = source._reader._process, time.sleep\n"
        "del source\n"
        "time.sleep = lambda seconds: (sleep(seconds), gc.collect())\n"
        "while process.returncode is None:\n"
        "    sleep(0.01)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(video)], check=True, timeout=60)


@pytest.mark.parametrize(
    "begun_with",
    [
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))",  # frames go through the pipe then
        "os.close(0)",  # as a service may be started: the next file that is opened is number 0
    ],
)
def test_programs_that_have_less(begun_with: str, video: Path) -> None:
    program = (
        "import os, resource, sys\n"
        "from edgecnn.stream import open_source\n"
        f"{begun_with}\n"
        "print(len(list(open_source(sys.argv[1]))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(video)], capture_output=True, check=True, timeout=60
    )
    assert done.stdout == f"{FRAMES}\n".encode()


@pytest.mark.parametrize("said", ["b'{'", "b'[]'", 'b\'{"type": "Magic"}\''])
def test_answers_that_cannot_be_understood(said: str, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import os, sys, edgecnn.stream.messages as m\n"
        "sys.stdin.readline()\n"
        f"os.write(1, m.HEADER.pack(m.SAID, len({said}), 0, 0, 0, 0.0) + {said})\n"
        "sys.stdin.read()"
    )
    monkeypatch.setattr(reading, "PROGRAM", ("-c", program))
    with pytest.raises(MediaError, match=r"v\.avi: its process answers what cannot be understood"):
        open_source(video)


@pytest.mark.parametrize("name", ["struct", "edgecnn", "cv2"])
def test_what_lies_in_the_current_folder_is_not_run(
    name: str, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video.with_name(f"{name}.py").write_text("raise SystemExit")
    monkeypatch.chdir(video.parent)
    assert len(list(open_source(video.name))) == FRAMES
