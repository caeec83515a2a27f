"""What runs in a source's own process: it reads a frame ahead, and hands it over when asked.

A driver or decoder may hang for ever, crash or want all memory over what a camera sends or a file holds. Here
that ends a process which holds nothing else, and which the other side can kill. It ends by itself when nobody
listens any more. `edgecnn.stream.messages` has what the two say to each other.
"""

from __future__ import annotations

import itertools
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from edgecnn.errors import DeviceUnavailable, EdgeCnnError, first_line
from edgecnn.stream.camera import open_camera
from edgecnn.stream.messages import FRAME, HEADER, SAID, SLOT_BYTES, SLOTS, Failed, Opened, Order, Ready, Said
from edgecnn.stream.mjpeg import open_mjpeg
from edgecnn.stream.tls import authorities_file

__all__ = ["main"]

# a playlist shall not name files of this machine; one that is a file names no servers, as FFmpeg has it
PROTOCOLS = "rtsp,rtsps,rtp,tcp,udp,tls,http,https,crypto"
FFMPEG_VARIABLE = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
LIVE_OPTIONS = {
    # over UDP a lost packet is a spoilt picture
    FFMPEG_VARIABLE: f"rtsp_transport;tcp|protocol_whitelist;{PROTOCOLS}",
    "OPENCV_FFMPEG_LOGLEVEL": "-8",
    "GST_DEBUG": "0",
}
# of FFmpeg's, whatever a header claims: room for 8K and its reference frames
MEMORY_BYTES = 2**32
ENDED = "it gives no more frames"


class Newest:
    """Frames between the thread that reads and the one that hands over.

    Of what has no end, only the newest one is kept.

    Attributes:
        reason: Why there are no more; empty where it is nothing but the end.
    """

    def __init__(self, *, every: bool) -> None:
        self._every = every
        self._changed = threading.Condition()
        self._frame: tuple[npt.NDArray[np.uint8], float] | None = None
        self._passed = 0
        self._ended = False
        self.reason = ""

    def put(self, image: npt.NDArray[np.uint8]) -> None:
        """Keep a frame; where none may be lost, once there is room for it."""
        with self._changed:
            if self._every:
                self._changed.wait_for(lambda: self._frame is None)
            elif self._frame is not None:
                self._passed += 1
            self._frame = image, time.monotonic()
            self._changed.notify_all()

    def end(self, reason: str) -> None:
        """No more frames come."""
        with self._changed:
            self._ended, self.reason = True, reason
            self._changed.notify_all()

    def wait(self) -> bool:
        """Wait for a frame; False when none comes."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._ended)
            return self._frame is not None

    def take(self) -> tuple[npt.NDArray[np.uint8], float, int] | None:
        """Wait for a frame: itself, its time, and how many were passed over before it; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._ended)
            if self._frame is None:
                return None
            (image, came), self._frame = self._frame, None
            passed, self._passed = self._passed, 0
            self._changed.notify_all()
            return image, came, passed


def main() -> None:
    """Open what the first line says, and answer."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they are for the program that reads; it ends this one
    # what libraries print must not land among the frames
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    orders = sys.stdin.buffer
    order = msgspec.json.decode(orders.readline(), type=Order)
    if order.address.kind != "file":
        os.environ.update(LIVE_OPTIONS)
    with suppress(BrokenPipeError):
        _serve(order, orders, answers)
    os._exit(0)  # a driver that hangs in another thread is not waited for


def _limit_memory() -> None:
    """Refuse this process more than it can need, and where memory runs out all the same, end it first."""
    with suppress(ImportError, OSError, ValueError):  # no such limit here
        import resource

        limits = (each for each in resource.getrlimit(resource.RLIMIT_DATA) if each != resource.RLIM_INFINITY)
        lowest = min([MEMORY_BYTES, *limits])
        resource.setrlimit(resource.RLIMIT_DATA, (lowest, lowest))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _serve(order: Order, orders: BinaryIO, answers: BinaryIO) -> None:
    import edgecnn.vision.opencv  # noqa: F401 (takes its time, which is not the source's)

    _say(answers, Ready())
    try:
        opened, images = _open(order)
    except EdgeCnnError as error:
        _say(answers, Failed(str(error).removeprefix(f"{order.address.where}: ")))
        return
    newest = Newest(every=opened.ends)
    # a file is not waited for, and Ctrl-Z may stop both processes for long
    limit_s = order.timeout_s if order.address.kind != "file" else math.inf
    threading.Thread(target=_read, args=(images, newest, limit_s), daemon=True).start()
    if not newest.wait():
        _say(answers, Failed(f"it opens but gives no picture ({newest.reason or ENDED})"))
        return
    _say(answers, opened)
    for slot in _wanted(orders):
        taken = newest.take()
        if taken is None:
            _say(answers, Failed(newest.reason or ENDED, ended=opened.ends and not newest.reason))
            return
        image, came, passed = taken
        pixels = np.ascontiguousarray(image).data.cast("B")
        header = HEADER.pack(FRAME, image.nbytes, *image.shape[:2], passed, came)
        if order.memory is None:
            answers.write(header)
            _write(answers, pixels)
        else:
            os.pwrite(order.memory, pixels, slot * SLOT_BYTES)
            answers.write(header)


def _open(order: Order) -> tuple[Opened, Iterator[npt.NDArray[np.uint8]]]:
    from edgecnn.vision.opencv import check_pixels, cv2
    from edgecnn.vision.video import VideoReader, frame_rate

    if order.address.kind == "file":
        _limit_memory()
        video = VideoReader(order.address.where)
        return Opened(video.fps, video.announced_frames, ends=True), iter(video)
    capture = _open_live(order)
    size_hw = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
    check_pixels(size_hw, order.address.where)
    count = float(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if order.address.kind == "url" else 0.0
    frames = int(count) if 1 <= count < 2**31 else None
    return Opened(frame_rate(capture), frames, ends=frames is not None), _images(capture)


def _images(capture: Any) -> Iterator[npt.NDArray[np.uint8]]:
    while True:
        ok, image = capture.read()
        if not ok or image is None:
            return
        yield image


def _open_live(order: Order) -> Any:
    from edgecnn.vision.opencv import cv2

    address, ms = order.address, int(order.timeout_s * 1e3)
    if address.kind == "camera":
        return open_camera(int(address.where))
    if order.pipeline is not None:
        capture = cv2.VideoCapture(order.pipeline, cv2.CAP_GSTREAMER)
        if capture.isOpened():
            return capture
    if address.kind == "csi":
        raise DeviceUnavailable(
            "CSI sensors are read through JetPack's own OpenCV, which has GStreamer; "
            "check that it is the one in use and that the sensor is connected"
        )
    mjpeg = open_mjpeg(address.where, order.timeout_s) if address.where.startswith("http") else None
    if mjpeg is not None:
        return mjpeg
    if not cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG):
        raise DeviceUnavailable("this OpenCV was built without FFmpeg, which reads URLs")
    _limit_memory()
    if address.where.startswith("https"):  # left to itself, FFmpeg takes any certificate
        os.environ[FFMPEG_VARIABLE] += f"|tls_verify;1|ca_file;{authorities_file()}"
    # the backend by name: without it the time limits are ignored
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, ms]
    capture = cv2.VideoCapture(address.where, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        raise DeviceUnavailable(f"it does not answer with a video within {order.timeout_s:g} s")
    return capture


def _read(images: Iterator[npt.NDArray[np.uint8]], newest: Newest, limit_s: float) -> None:
    asked, waited_s, reason = time.monotonic(), 0.0, ""
    try:
        for index, image in enumerate(images):
            waited_s = time.monotonic() - asked
            if index and waited_s >= 0.9 * limit_s:
                break
            newest.put(image)
            asked = time.monotonic()
    except MemoryError:
        reason = "it wants more memory than it gets"
    except Exception as error:  # OpenCV raises on some spoilt streams
        reason = first_line(error)
    # OpenCV does not say that its limit was met, and gives what its decoder held back, a limit apart
    if max(waited_s, time.monotonic() - asked) >= 0.9 * limit_s:
        reason = f"no frame for {limit_s:g} s"
    newest.end(reason)


def _wanted(orders: BinaryIO) -> Iterator[int]:
    """The slot of each frame that is asked for; the process ends as soon as nobody can ask any more."""
    wanted = threading.Semaphore(0)

    def listen() -> None:
        while orders.read(1):
            wanted.release()
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    for slot in itertools.cycle(range(SLOTS)):
        wanted.acquire()
        yield slot


def _say(answers: BinaryIO, said: Said) -> None:
    text = msgspec.json.encode(said)
    _write(answers, memoryview(HEADER.pack(SAID, len(text), 0, 0, 0, 0.0) + text))


def _write(answers: BinaryIO, data: memoryview) -> None:
    while data:
        data = data[answers.write(data) :]
