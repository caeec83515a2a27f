"""Servers of live video that behave as they are told to: well, or in one of the ways in which cameras fail."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from edgecnn.vision.opencv import cv2

FPS = 20.0
FAILURES = ("refuse", "silent", "stall", "close", "garbage", "reset")


def jpeg(number: int, size_hw: tuple[int, int] = (96, 128)) -> bytes:
    """A picture with some structure, so that it takes more than a few bytes."""
    rng = np.random.default_rng(number)
    small = rng.integers(0, 256, (6, 8, 3), np.uint8)
    image = cv2.resize(small, size_hw[::-1], interpolation=cv2.INTER_NEAREST)
    return bytes(cv2.imencode(".jpg", image)[1])


class Server:
    """Listens on a port of its own; every client has a thread.

    Attributes:
        mode: ``serve``, or one of `FAILURES`; may be changed while clients are connected.
        size_hw: Of the pictures.
    """

    def __init__(self, port: int = 0) -> None:
        self.mode = "serve"
        self.size_hw = (96, 128)
        self.clients = 0
        self._open: list[socket.socket] = []
        self._listening = self._listen(port)
        self.port = int(self._listening.getsockname()[1])

    def become(self, mode: str) -> None:
        """Change the behaviour, for those who are connected too."""
        if self.mode == "refuse" and mode != "refuse":
            self._listening = self._listen(self.port)
        self.mode = mode
        if mode in ("refuse", "reset"):
            if mode == "refuse":
                self._stop_listening()
            self._drop_all()
        if mode == "reset":
            self.mode = "refuse"
            self._stop_listening()

    def close(self) -> None:
        """End all of it."""
        self.mode = "closed"
        self._stop_listening()
        self._drop_all()

    def serve(self, client: socket.socket) -> None:
        """Speak with a client until it or this server goes."""
        raise NotImplementedError

    def pictures(self) -> Iterator[bytes]:
        """JPEG after JPEG, in the rhythm and manner of the mode."""
        number = 0
        while True:
            if self.mode == "serve":
                yield jpeg(number, self.size_hw)
            elif self.mode == "garbage":
                yield np.random.default_rng(number).bytes(4000)
            elif self.mode != "stall":
                return
            number += 1
            time.sleep(1 / FPS)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _listen(self, port: int) -> socket.socket:
        listening = socket.create_server(("127.0.0.1", port), reuse_port=False)
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()
        return listening

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                self._open.append(client)
                threading.Thread(target=self._client, args=(client,), daemon=True).start()

    def _client(self, client: socket.socket) -> None:
        self.clients += 1
        with suppress(OSError), client:
            while self.mode == "silent":
                time.sleep(0.02)
            self.serve(client)

    def _stop_listening(self) -> None:
        # close alone does not wake the thread that accepts
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _drop_all(self) -> None:
        """Cut all connections as a machine does that loses its power and comes back: with a reset."""
        for client in self._open:
            with suppress(OSError):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.shutdown(socket.SHUT_RDWR)
        self._open.clear()


class MjpegServer(Server):
    """Pictures over HTTP, each replacing the one before."""

    @property
    def url(self) -> str:
        """Where it is, with a password that nobody asks for."""
        return f"http://user:secret@127.0.0.1:{self.port}/video"

    def serve(self, client: socket.socket) -> None:
        client.recv(4096)
        client.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=next\r\n\r\n--next\r\n"
        )
        for picture in self.pictures():
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
            client.sendall(head.encode() + picture + b"\r\n--next\r\n")


class RtspServer(Server):
    """Motion JPEG over RTSP (RFC 2326, 2435), in the connection that was made for the commands."""

    @property
    def url(self) -> str:
        """Where it is, with a password that nobody asks for."""
        return f"rtsp://user:secret@127.0.0.1:{self.port}/video"

    def serve(self, client: socket.socket) -> None:
        text = client.makefile("rb")
        playing = threading.Event()
        while True:
            request = [line.decode() for line in iter(text.readline, b"\r\n") if line]
            if not request:
                return
            number = next(line.split(":")[1].strip() for line in request if line.lower().startswith("cseq"))
            method = request[0].split(" ")[0]
            client.sendall(self._answer(method, number))
            if method == "PLAY" and not playing.is_set():
                playing.set()
                threading.Thread(target=self._play, args=(client,), daemon=True).start()

    def _answer(self, method: str, number: str) -> bytes:
        lines, body = ["RTSP/1.0 200 OK", f"CSeq: {number}"], ""
        if method == "OPTIONS":
            lines.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        elif method == "DESCRIBE":
            body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=video\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\na=control:track\r\n"
            lines += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        elif method == "SETUP":
            lines += ["Session: 1", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1"]
        else:
            lines.append("Session: 1")
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()

    def _play(self, client: socket.socket) -> None:
        sequence = 0
        with suppress(OSError):
            for frame, picture in enumerate(self.pictures()):
                for packet in rtp_packets(picture, frame, sequence):
                    client.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
                    sequence += 1
            client.shutdown(socket.SHUT_RDWR)


def rtp_packets(picture: bytes, frame: int, sequence: int) -> Iterator[bytes]:
    """A JPEG in packets as RFC 2435 has it; what is no JPEG is sent as it is."""
    time_90khz = int(frame * 90_000 / FPS)
    if picture[:2] != b"\xff\xd8":
        yield struct.pack(">BBHII", 0x80, 0x80 | 26, sequence & 0xFFFF, time_90khz, 7) + picture[:1200]
        return
    tables, scan, (height, width) = jpeg_parts(picture)
    offset = 0
    while offset < len(scan):
        part = scan[offset : offset + 1200]
        last = offset + len(part) == len(scan)
        rtp = struct.pack(">BBHII", 0x80, (0x80 if last else 0) | 26, (sequence) & 0xFFFF, time_90khz, 7)
        head = struct.pack(">I", offset) + bytes([1, 255, width // 8, height // 8])  # 4:2:0, tables follow
        if offset == 0:
            head += struct.pack(">BBH", 0, 0, len(tables)) + tables
        yield rtp + head + part
        offset += len(part)
        sequence += 1


def jpeg_parts(picture: bytes) -> tuple[bytes, bytes, tuple[int, int]]:
    """Quantisation tables, entropy-coded data, height and width of a baseline JPEG."""
    tables, size_hw, at = b"", (0, 0), 2
    while True:
        marker, length = picture[at + 1], int.from_bytes(picture[at + 2 : at + 4], "big")
        body = picture[at + 4 : at + 2 + length]
        if marker == 0xDB:
            while body:
                tables, body = tables + body[1:65], body[65:]
        elif marker == 0xC0:
            size_hw = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
        elif marker == 0xDA:
            return tables, picture[at + 2 + length : -2], size_hw
        at += 2 + length
