"""A kiosk: a page shows what a model on this machine finds in the pictures of the browser's own camera.

usage: python examples/kiosk/kiosk.py [BUNDLE] [--port 8090] [--host 127.0.0.1]

The page sends JPEGs over a WebSocket and draws what comes back as JSON; README.md
beside this file has the rest.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import logging
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from email.message import Message
from functools import partial
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import numpy.typing as npt

import edgecnn
from edgecnn.errors import EdgeCnnError, InputError, MediaError
from edgecnn.results import Result
from edgecnn.stream import Supervised
from edgecnn.stream.outputs import json_text
from edgecnn.vision.image_headers import read_header
from edgecnn.vision.images import decode_image
from edgecnn.web.access import Place, open_access

try:
    from websockets.exceptions import ConnectionClosed
    from websockets.frames import CloseCode
    from websockets.http11 import Request, Response
    from websockets.sync.server import ServerConnection, serve
except ImportError as error:
    print(f"kiosk: {error}; try: pip install 'websockets>=15'", file=sys.stderr)
    raise SystemExit(3) from error

HERE = Path(__file__).resolve().parent
FRAMES_PATH = "/frames"
VIEWERS_MAX = 32
# ten times what the page sends, and the largest picture that is decoded
MESSAGE_BYTES_MAX = 2**20
FRAME_PIXELS_MAX = 1920 * 1080
OPEN_S, CLOSE_S, SEND_S = 2, 1, 5

log = logging.getLogger("kiosk")
# what is said to a port in a language that is not HTTP is no news
strangers = logging.getLogger("kiosk.strangers")
strangers.setLevel(logging.CRITICAL)

Predict = Callable[[npt.NDArray[np.uint8]], Result]


def read_frame(message: str | bytes) -> npt.NDArray[np.uint8]:
    """The picture in a message, uint8 (H, W, 3) BGR.

    Raises:
        MediaError: Text, not a whole JPEG, or one with more than `FRAME_PIXELS_MAX` pixels.
    """
    data = message if isinstance(message, bytes) else b""
    header = read_header(data)
    if header is None or header.kind != "JPEG":
        raise MediaError("frame: not a JPEG; send one as a binary message")
    if header.size_hw is not None and header.size_hw[0] * header.size_hw[1] > FRAME_PIXELS_MAX:
        height, width = header.size_hw
        raise MediaError(f"frame: {width}×{height} px are more than the {FRAME_PIXELS_MAX} pixels allowed")
    return decode_image(data, "frame")


class Kiosk:
    """Serves the page and answers the pictures of all who look at it; a context manager.

    Attributes:
        url: What a browser opens, with a token where one was made up.
    """

    def __init__(self, predict: Predict, about: str, place: Place, workers: int = 1) -> None:
        """Begin to listen.

        Args:
            predict: Called with one frame after the other, from several threads.
            about: The model and what runs it, for the page.
            place: Where to listen.
            workers: How many frames are predicted at the same time.

        Raises:
            InputError: It cannot be listened there; or the token of the environment is none.
        """
        self._predict = predict
        self._about = about
        self._turns = threading.Semaphore(workers)
        self._access = open_access(place)
        self._page, self._headers = read_page()
        family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
        try:
            listener = socket.create_server((place.host, place.port), family=family)
        except (OSError, OverflowError, UnicodeError) as error:
            where = f"{place.host}:{place.port}"
            raise InputError(
                f"{where}: cannot be listened on ({error}); take another address or port"
            ) from error
        token = f"?token={self._access.token}" if self._access.printed else ""
        self.url = Place(place.host, listener.getsockname()[1]).url + token
        self._viewers: set[ServerConnection] = set()
        self._changing = threading.Lock()
        self._closed = False
        self._server = serve(
            self._answer,
            sock=listener,
            process_request=self._admit,
            server_header="edgecnn",
            compression=None,  # a JPEG is compressed
            max_size=MESSAGE_BYTES_MAX,
            max_queue=1,  # who does not wait for an answer waits for room
            open_timeout=OPEN_S,
            close_timeout=CLOSE_S,
            logger=strangers,
        )
        self._accepting = threading.Thread(target=self._server.serve_forever, name="kiosk")
        self._accepting.start()

    def wait(self) -> None:
        """Wait until it is closed, or for an interrupt."""
        self._accepting.join()

    def close(self) -> None:
        """Stop listening and end all connections."""
        with self._changing:
            self._closed = True
        self._server.shutdown()
        self._accepting.join()
        viewers = list(self._viewers)
        for viewer in viewers:  # websockets before version 17 leaves them open
            viewer.close(CloseCode.GOING_AWAY)

    def __enter__(self) -> Kiosk:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer a request that is not for frames, or may not be; None lets it become a WebSocket."""
        headers = Message()
        for name, value in request.headers.raw_items():
            headers[name] = value
        path, _, query = request.path.partition("?")
        token = parse_qs(query).get("token", [None])[-1]
        refusal = self._access.refusal(headers, token) or foreign(headers)
        if refusal is not None:
            return connection.respond(HTTPStatus.FORBIDDEN, f"403 Forbidden: {refusal}\n")
        if path == FRAMES_PATH:
            return None
        if path != "/":
            return connection.respond(HTTPStatus.NOT_FOUND, "404 Not Found\n")
        response = connection.respond(HTTPStatus.OK, self._page)
        del response.headers["Content-Type"]
        response.headers.update(self._headers)
        if self._access.knows(token):
            response.headers["Set-Cookie"] = self._access.set_cookie()
        return response

    def _answer(self, connection: ServerConnection) -> None:
        """Answer the pictures of one viewer, in their order."""
        # one who reads no answers must not hold up the end of the program
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", SEND_S, 0))
        with self._changing:
            welcome = not self._closed and len(self._viewers) < VIEWERS_MAX
            if welcome:
                self._viewers.add(connection)
        if not welcome:
            connection.close(CloseCode.TRY_AGAIN_LATER, "too many are looking; try again later")
            return
        try:
            connection.send(json_text({"about": self._about}))
            for message in connection:
                connection.send(json_text(self._look(message)))
        except ConnectionClosed:
            pass
        except Exception:
            log.exception("a picture could not be answered")
            connection.close(CloseCode.INTERNAL_ERROR, "a mistake in the program; its log says more")
        finally:
            with self._changing:
                self._viewers.remove(connection)

    def _look(self, message: str | bytes) -> dict[str, object]:
        try:
            frame = read_frame(message)
            with self._turns:
                result = self._predict(frame)
        except EdgeCnnError as error:
            return {"error": str(error)}
        return {**result.to_json(), "timing_ms": result.timing_ms}


def foreign(headers: Message) -> str | None:
    """Why a page may not send frames: browsers let every site open a WebSocket, and say which one it was."""
    origin = headers.get("Origin")
    if origin is None or origin.partition("://")[2] == headers.get("Host"):
        return None
    return "pages of other sites may not send pictures here"


def read_page() -> tuple[str, dict[str, str]]:
    """The page, with its style and its program in it, and headers that let nothing else run."""
    page, hashes = (HERE / "page.html").read_text(encoding="utf-8"), {}
    for name in ("page.css", "page.js"):
        text = (HERE / name).read_text(encoding="utf-8")
        page = page.replace(f"{{{name}}}", text)
        hashes[name] = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    policy = {
        "default-src": "'none'",
        "script-src": f"'sha256-{hashes['page.js']}'",
        "style-src": f"'sha256-{hashes['page.css']}'",
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return page, {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Permissions-Policy": "camera=(self)",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", nargs="?", default="face", help="the face detector that ships, if left out")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--host", default="127.0.0.1", help="other addresses than this ask for a token")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="kiosk: %(message)s")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Supervised(partial(edgecnn.load, options.bundle)) as supervised:
            predictor = supervised.predictor
            if predictor.spec.task == "tensors":
                raise InputError(f"{options.bundle}: gives tensors; take a detector or a classifier")
            about = f"{Path(options.bundle).name} on {predictor.runtime.name}"
            place = Place(options.host, options.port)
            with Kiosk(supervised, about, place, predictor.workers) as kiosk:
                print(f"kiosk: open {kiosk.url} in a browser; Ctrl-C ends", flush=True)
                kiosk.wait()
    except EdgeCnnError as error:
        print(f"kiosk: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"kiosk: its address cannot be printed ({error.strerror})", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("kiosk: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
