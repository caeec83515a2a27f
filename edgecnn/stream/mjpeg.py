"""Motion JPEG over HTTP, as most web cameras serve it: JPEG files that replace one another.

OpenCV would squeeze every picture to the size of the first one, and takes a second to make sure of it.
"""

from __future__ import annotations

import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from email.message import Message
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit, urlunsplit

import numpy as np
import numpy.typing as npt

from edgecnn.errors import DeviceUnavailable, MediaError, first_line
from edgecnn.stream.tls import refused, trusted

__all__ = ["MjpegCapture", "open_mjpeg"]

PART_BYTES_MAX = 2**25
LINE_BYTES_MAX, HEADERS_MAX = 4096, 64
JPEG_BEGIN, JPEG_END = b"\xff\xd8", b"\xff\xd9"


def open_mjpeg(url: str, timeout_s: float) -> MjpegCapture | None:
    """Open a URL; None where it answers with something else than pictures that replace one another.

    Args:
        url: ``http://`` or ``https://``, perhaps with user and password.
        timeout_s: How long it may be silent.

    Raises:
        DeviceUnavailable: It does not answer, or with an error; says which.
        InputError: What ``$SSL_CERT_FILE`` names holds no certificates.
    """
    parts = urlsplit(url)
    plain = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    if parts.username is not None:
        passwords.add_password(None, plain, unquote(parts.username), unquote(parts.password or ""))
    encrypted = [urllib.request.HTTPSHandler(context=trusted())] if parts.scheme == "https" else []
    opener = urllib.request.build_opener(
        *encrypted,
        _StaysEncrypted(),
        urllib.request.HTTPBasicAuthHandler(passwords),
        urllib.request.HTTPDigestAuthHandler(passwords),
    )
    try:
        answer = opener.open(plain, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        raise DeviceUnavailable(f"it answers with {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DeviceUnavailable(refused(reason)) from error
        raise DeviceUnavailable(f"it does not answer ({first_line(Exception(str(reason)))})") from error
    if answer.headers.get_content_type() == "multipart/x-mixed-replace":
        return MjpegCapture(answer, answer.headers)
    answer.close()
    return None


class _StaysEncrypted(urllib.request.HTTPRedirectHandler):
    """Follows no redirection from ``https://`` to anything else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise urllib.error.URLError("it redirects to a server without encryption")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class MjpegCapture:
    """The pictures, read as from a ``cv2.VideoCapture``.

    What is no whole JPEG is passed over.
    """

    def __init__(self, answer: BinaryIO, headers: Message) -> None:
        boundary = str(headers.get_param("boundary", "")).strip('"').lstrip("-")
        self._boundary = b"--" + boundary.encode("ascii", "replace")
        self._answer = answer
        self._parts = self._read_parts()

    def read(self) -> tuple[bool, npt.NDArray[np.uint8] | None]:
        """Wait for the next picture: True and uint8 (H, W, 3) BGR, or False and None at the end."""
        from edgecnn.vision.images import decode_image

        for part in self._parts:
            if part.startswith(JPEG_BEGIN) and part.rstrip(b"\r\n\0").endswith(JPEG_END):
                with suppress(MediaError):
                    return True, decode_image(part, "picture")
        return False, None

    def get(self, key: int) -> float:
        """Nothing is known beforehand: neither a rate nor a number of frames."""
        return 0.0

    def release(self) -> None:
        """Hang up."""
        self._answer.close()

    def _read_parts(self) -> Iterator[bytes]:
        while self._find_boundary():
            length = self._length()
            if length is None:
                yield self._until_boundary()
            elif length <= PART_BYTES_MAX:
                part = self._answer.read(length)
                if len(part) < length:
                    return
                yield part
            else:
                return

    def _find_boundary(self) -> bool:
        return any(line.startswith(self._boundary) for line in iter(self._line, b""))

    def _length(self) -> int | None:
        """What the headers of a part say of its length; some cameras say nothing."""
        found = None
        for _ in range(HEADERS_MAX):
            line = self._line().strip()
            if not line:
                break
            if match := re.fullmatch(rb"content-length:\s*(\d{1,12})", line, re.IGNORECASE):
                found = int(match[1])
        return found

    def _until_boundary(self) -> bytes:
        """A part without a length ends at the end of its JPEG."""
        data = bytearray()
        while len(data) < PART_BYTES_MAX and (chunk := self._line()):
            data += chunk
            if data.rstrip(b"\r\n").endswith(JPEG_END):
                break
        return bytes(data)

    def _line(self) -> bytes:
        line: Any = self._answer.readline(LINE_BYTES_MAX)
        return bytes(line)
