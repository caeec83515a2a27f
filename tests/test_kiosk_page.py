"""The kiosk's page in a real Chromium, whose camera plays a clip."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from skimage import data as photographs

import edgecnn
from edgecnn.results import Detections, Result
from edgecnn.stream.base import Image
from edgecnn.vision import iou_matrix
from edgecnn.vision.opencv import cv2
from edgecnn.web.access import TOKEN_VARIABLE
from tests.paths import ROOT
from tests.stream.fakes import classes, detections
from tests.stream.receivers import free_port
from tests.test_kiosk import example, jpeg, kiosk, opened, running, start
from tests.web.browser import Browser
from tests.web.fakes import PATIENCE_S, until

__all__ = ["running"]  # a fixture

TOKEN = "a-token-of-the-tests"
STATUS = "document.getElementById('status').textContent"
BOXES = "document.querySelectorAll('.box').length"
# the picture that is shown, and where the first box lies on it, as shares of its width and height
SHOWN = """(() => {
  const video = document.getElementById("video"), canvas = document.createElement("canvas");
  canvas.width = video.videoWidth; canvas.height = video.videoHeight;
  const place = document.querySelector(".box")?.getBoundingClientRect(), whole = video.getBoundingClientRect();
  canvas.getContext("2d").drawImage(video, 0, 0);
  return JSON.stringify({
    jpeg: canvas.toDataURL("image/jpeg").split(",")[1],
    box: place && [(place.left - whole.left) / whole.width, (place.top - whole.top) / whole.height,
      (place.right - whole.left) / whole.width, (place.bottom - whole.top) / whole.height],
  });
})()"""


# how often the page has sent something before the answer to what it had sent before
WATCHED = """
window.early = 0;
window.WebSocket = class extends WebSocket {
  unanswered = 0;

  constructor(...words) {
    super(...words);
    this.addEventListener("message", () => { this.unanswered = 0; });
  }

  send(data) {
    if (this.unanswered++) window.early++;
    super.send(data);
  }
};"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera that pans over a portrait and back: the face goes from the right third to the left one."""
    view = example(ROOT / "examples" / "clip.py").view
    photo = np.ascontiguousarray(photographs.astronaut()[..., ::-1])
    there = [jpeg(view(photo, x, 0.3, 0.7)) for x in np.linspace(0.35, 0.6, 120)]
    path = tmp_path_factory.mktemp("camera") / "clip.mjpeg"
    path.write_bytes(b"".join(there + there[::-1]))
    return path


@pytest.fixture(scope="module")
def shared(clip: Path) -> Iterator[Browser]:
    options = [
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={clip}",
        "--host-resolver-rules=MAP kiosk.example 127.0.0.1",
    ]
    with Browser(options=options) as browser:
        yield browser


@pytest.fixture
def browser(shared: Browser) -> Iterator[Browser]:
    shared.said.clear()
    allow(shared, "granted")
    yield shared
    shared.open("about:blank")


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Browsers keep connections for later, on which nothing is said."""
    monkeypatch.setattr(kiosk, "OPEN_S", 0.5)


def allow(browser: Browser, setting: str) -> None:
    """What the user says to the question whether pages may use the camera."""
    browser.send("Browser.setPermission", permission={"name": "camera"}, setting=setting)


@contextmanager
def ahead(browser: Browser, script: str) -> Iterator[None]:
    """A script runs before those of every page."""
    added = browser.send("Page.addScriptToEvaluateOnNewDocument", source=script)
    try:
        yield
    finally:
        browser.send("Page.removeScriptToEvaluateOnNewDocument", **added)


def shown(browser: Browser) -> tuple[Image, npt.NDArray[np.float32] | None]:
    """The picture, and the first box in its pixels."""
    now = json.loads(browser.evaluate(SHOWN))
    image = cv2.imdecode(np.frombuffer(base64.b64decode(now["jpeg"]), np.uint8), cv2.IMREAD_COLOR)
    height, width = image.shape[:2]
    return image, None if now["box"] is None else np.float32(now["box"]) * (width, height, width, height)


def test_boxes_follow_the_face_and_outlive_the_program(
    browser: Browser, running: list[subprocess.Popen[str]]
) -> None:
    port = free_port()
    running.append(start("--port", str(port)))
    assert running[0].stdout is not None
    assert running[0].stdout.readline().startswith("kiosk: open http://127.0.0.1:")
    browser.open(f"http://127.0.0.1:{port}/")
    browser.wait_for(f"{BOXES} && {STATUS} === 'looking'")
    with edgecnn.load("face", min_size=100) as detector:
        lefts: list[float] = []

        def followed() -> bool:
            image, box = shown(browser)
            face = detector(image)
            assert isinstance(face, Detections)
            if box is not None and len(face):
                # the box belongs to a picture of a moment ago
                assert iou_matrix(box[None], face.boxes[:1])[0, 0] > 0.3
                lefts.append(box[0] / image.shape[1])
            return len(lefts) >= 8 and max(lefts) - min(lefts) > 0.15

        until(followed)
    browser.wait_for("document.getElementById('found').textContent.startsWith('face')")
    browser.wait_for("parseFloat(document.getElementById('fps').textContent) > 0")
    browser.wait_for("/^[0-9]+ ms$/.test(document.getElementById('latency').textContent)")
    assert browser.text("about") == "face on ort"
    assert browser.said == []

    running[0].terminate()
    running[0].communicate(timeout=PATIENCE_S)
    browser.wait_for(f"{STATUS} === 'no answer' && {BOXES} === 0")
    assert browser.text("told").startswith(
        "The program does not answer: it has ended, or the network is away."
    )
    browser.wait_for("document.getElementById('fps').textContent === '–'")
    assert browser.evaluate("document.getElementById('video').paused") is False

    running.append(start("--port", str(port)))
    browser.wait_for(f"{STATUS} === 'looking' && {BOXES} > 0 && document.getElementById('banner').hidden")


def test_camera_that_is_refused(browser: Browser) -> None:
    allow(browser, "denied")
    with opened(lambda image: detections(1)) as to:
        browser.open(to.url)
        browser.wait_for(f"{STATUS} === 'camera refused'")
        assert browser.text("told").startswith("The camera is refused. Allow it for this page")
        allow(browser, "granted")
        browser.evaluate("document.getElementById('again').click()")
        browser.wait_for(f"{STATUS} === 'looking' && {BOXES} === 1")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("NotFoundError", "There is no camera. Plug one in"),
        ("NotReadableError", "The camera cannot be read: another program has it"),
        ("OverconstrainedError", "The camera cannot be opened (why). It is tried again."),
    ],
)
def test_camera_that_is_missing(name: str, text: str, browser: Browser) -> None:
    fails = f"""
      const open = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
      let left = 2;
      if (open) navigator.mediaDevices.getUserMedia = async (wanted) => {{
        if (left-- > 0) throw new DOMException("why", "{name}");
        return open(wanted);
      }};"""
    with ahead(browser, fails), opened(lambda image: detections(1)) as to:
        browser.open(to.url)
        browser.wait_for(f"{STATUS} === 'no camera'")
        assert browser.text("told").startswith(text)
        browser.wait_for(f"{STATUS} === 'looking' && {BOXES} === 1")  # it was tried again


def test_camera_that_is_pulled_out_comes_back(browser: Browser) -> None:
    with opened(lambda image: detections(1)) as to:
        browser.open(to.url)
        browser.wait_for(f"{BOXES} === 1")
        track = "document.getElementById('video').srcObject.getVideoTracks()[0]"
        browser.evaluate(f"{track}.dispatchEvent(new Event('mute'))")
        assert browser.text("status") == "no pictures"
        browser.evaluate(f"{track}.dispatchEvent(new Event('unmute'))")
        assert browser.text("status") == "looking"
        browser.evaluate(f"{track}.dispatchEvent(new Event('ended'))")
        browser.wait_for(f"{STATUS} === 'no camera'")
        assert browser.evaluate(BOXES) == 0
        browser.wait_for(f"{STATUS} === 'looking' && {BOXES} === 1")


def test_page_that_may_not_use_a_camera(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    with opened(host="0.0.0.0") as to:
        address = f"http://kiosk.example:{to.url.rpartition(':')[2]}"
        browser.open(f"{address}?token={TOKEN}")
        browser.wait_for(f"{STATUS} === 'not secure'")
        assert "Open this one as http://localhost" in browser.text("told")
        assert browser.evaluate("document.getElementById('again').hidden") is True
        browser.wait_for("document.getElementById('about').textContent")  # the program knows the cookie
        assert browser.evaluate("location.href") == address


def test_one_picture_is_under_way(browser: Browser) -> None:
    seen: list[Image] = []

    def predict(image: Image) -> Result:
        threading.Event().wait(0.2)  # several pictures of the camera
        seen.append(image)
        return detections(1)

    with ahead(browser, WATCHED), opened(predict) as to:
        browser.open(to.url)
        until(lambda: len(seen) > 5)
        assert browser.evaluate("early") == 0
        browser.wait_for("parseInt(document.getElementById('latency').textContent) >= 200")
        assert browser.text("status") == "looking"
    assert len({image.tobytes() for image in seen}) == len(seen)  # each of them is a new one


def test_what_the_program_says_of_a_picture(browser: Browser) -> None:
    answers: list[Any] = [classes(0.7)]

    def predict(image: Image) -> Result:
        if isinstance(answers[-1], Exception):
            raise answers[-1]
        return answers[-1]

    evil = "<img src=x onerror=document.title='evil'>"
    with opened(predict) as to:
        browser.open(to.url)
        browser.wait_for("document.getElementById('found').textContent === 'thing70 %'")
        answers.append(edgecnn.errors.EngineError("ort: out of memory"))
        browser.wait_for(f"{STATUS} === 'error'")
        assert browser.text("told") == "The program says: ort: out of memory"
        answers.append(replace(detections(2), labels=(evil, evil)))
        browser.wait_for(f"{STATUS} === 'looking' && {BOXES} === 2")
        assert browser.text("found") == f"{evil}2"
        assert browser.evaluate("document.images.length") == 0
        answers.append(Detections.empty())
        browser.wait_for("!document.getElementById('nothing').hidden")
        assert browser.said == []


@pytest.mark.parametrize("width", [320, 768, 1920])
def test_nothing_sticks_out(width: int, browser: Browser) -> None:
    size = {"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.send("Emulation.setDeviceMetricsOverride", **size)
    with opened(lambda image: replace(detections(1), labels=("a long name " * 9,))) as to:
        browser.open(to.url)
        browser.wait_for(f"{BOXES} === 1")
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.evaluate("document.querySelector('.stage').getBoundingClientRect().bottom") <= 700
