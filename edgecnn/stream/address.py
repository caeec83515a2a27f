"""Names of what is read in a process of its own: a camera, a CSI sensor, a URL; and how OpenCV opens it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from edgecnn.errors import InputError

__all__ = ["Address", "gstreamer_pipeline", "has_gstreamer", "parse_address"]

URL_SCHEMES = ("rtsp", "rtsps", "http", "https")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_DEVICE = re.compile(r"/dev/video(\d+)")
# what RFC 3986 allows in a URL
_URL = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
# of those, what would end a name in the text of a GStreamer pipeline
_NOT_IN_PIPELINE = "!'();"

_BGR = "video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR"
_NEWEST = "appsink drop=true max-buffers=1 sync=false"


@dataclass(frozen=True)
class Address:
    """A source that is read in a process of its own.

    Attributes:
        kind: ``camera`` of this machine, ``csi`` sensor of a Jetson, ``url``, or ``file``, a video.
        where: The number of the device, the URL, or the path.
        shown: Its name in messages and results: a URL without user and password.
    """

    kind: Literal["camera", "csi", "url", "file"]
    where: str
    shown: str


def parse_address(name: str) -> Address | None:
    """Tell what a name stands for; None is no live source, but perhaps a path.

    Args:
        name: ``0``, ``/dev/video0``, ``csi://0``, ``rtsp://…``, ``http://…`` and both with an s.

    Raises:
        InputError: An unknown scheme, or characters that no URL has.
    """
    if device := _DEVICE.fullmatch(name):
        return _camera(int(device[1]))
    if name.isascii() and name.isdigit():
        return _camera(int(name))
    scheme = _SCHEME.match(name)
    if scheme is None:
        return None
    kind, rest = scheme[1].lower(), name[scheme.end() :]
    if kind == "csi":
        if not (rest.isascii() and rest.isdigit()):
            raise InputError("source: csi:// is followed by the number of a sensor, as csi://0")
        return Address("csi", str(int(rest)), f"csi://{int(rest)}")
    if kind not in URL_SCHEMES:
        # the rest of the URI is kept out of the message: it may hold a password
        known = ", ".join(f"{scheme}://" for scheme in ("csi", *URL_SCHEMES))
        raise InputError(f"source: {kind}:// is not supported; give {known} or a path")
    return _url(name, kind)


def gstreamer_pipeline(address: Address) -> str | None:
    """The pipeline that decodes in a Jetson's hardware, for an OpenCV that has GStreamer; else None.

    Raises:
        InputError: The URL has characters that would change the pipeline.
    """
    if address.kind == "csi":
        sensor = "video/x-raw(memory:NVMM),width=1920,height=1080,format=NV12,framerate=30/1"
        camera = f"nvarguscamerasrc sensor-id={address.where} ! {sensor} ! nvvidconv flip-method=0"
        return f"{camera} ! {_BGR} ! {_NEWEST}"
    if address.kind == "url" and address.where.startswith("rtsp"):
        wrong = _first_of(_NOT_IN_PIPELINE, address.where)
        if wrong:
            raise InputError(
                f"source {address.shown}: {wrong} cannot be in a GStreamer pipeline; write %{ord(wrong):02X}"
            )
        decoded = "rtph264depay ! h264parse ! nvv4l2decoder enable-max-performance=1 ! nvvidconv"
        return (
            f'rtspsrc location="{address.where}" protocols=tcp latency=100 ! {decoded} ! {_BGR} ! {_NEWEST}'
        )
    return None


def has_gstreamer() -> bool:
    """Whether this is a Jetson, and this OpenCV the one of JetPack."""
    from edgecnn.devices.jetson import find_jetson

    if find_jetson() is None:
        return False
    from edgecnn.vision.opencv import cv2

    return bool(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER))


def _camera(index: int) -> Address:
    return Address("camera", str(index), f"camera:{index}")


def _url(name: str, scheme: str) -> Address:
    if not _URL.fullmatch(name):
        raise InputError(
            f"source: the {scheme}:// URL has characters that are not allowed in one; write them as %XX"
        )
    try:
        parts = urlsplit(name)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"source: the {scheme}:// URL cannot be read ({error})") from error
    if not host:
        raise InputError(f"source: the {scheme}:// URL names no host")
    place = f"[{host}]" if ":" in host else host
    shown = f"{scheme}://{place}{'' if port is None else f':{port}'}{parts.path}"
    return Address("url", scheme + name[len(scheme) :], shown)


def _first_of(characters: Sequence[str], text: str) -> str | None:
    return next((each for each in characters if each in text), None)
