"""The page in a real Chromium."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgecnn.stream import open_source, run_stream
from edgecnn.stream.base import SourceEvent
from edgecnn.vision.drawing import class_color
from edgecnn.vision.opencv import cv2
from edgecnn.web import server
from edgecnn.web.access import TOKEN_VARIABLE
from tests.stream.fakes import detections
from tests.stream.servers import MjpegServer
from tests.web.browser import Browser
from tests.web.fakes import Camera, Show, moving, until
from tests.web.test_pages import Both, open_files, threads

# the column in the picture where most pixels have the colour of the box
BOX_AT = """(() => {
  const picture = document.getElementById("picture"), canvas = document.createElement("canvas");
  canvas.width = picture.naturalWidth; canvas.height = picture.naturalHeight;
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  const {data} = context.getImageData(0, 0, canvas.width, canvas.height), columns = new Array(canvas.width).fill(0);
  for (let i = 0; i < data.length; i += 4)
    if (Math.abs(data[i] - RED) + Math.abs(data[i + 1] - GREEN) + Math.abs(data[i + 2] - BLUE) < 90) columns[(i / 4) % canvas.width]++;
  return columns.indexOf(Math.max(...columns));
})()"""
for channel, value in zip(("BLUE", "GREEN", "RED"), class_color(0)):
    BOX_AT = BOX_AT.replace(channel, str(value))
SHOWN = "!document.getElementById('picture').hidden"
STATUS = "document.getElementById('status').className"


@pytest.fixture(scope="module")
def shared() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def browser(shared: Browser) -> Iterator[Browser]:
    shared.said.clear()
    yield shared
    shared.open("about:blank")


def test_boxes_move_and_nothing_is_blocked_or_fails(browser: Browser) -> None:
    with Show() as show, moving(show):
        browser.open(show.sink.url)
        browser.wait_for(SHOWN)
        places = set()
        until(lambda: places.add(browser.evaluate(BOX_AT)) or len(places) > 5)
        browser.wait_for(f"{STATUS} === 'up'")
        assert browser.text("name") == "camera:0"
        assert browser.text("about") == "face on ort"
        browser.wait_for("document.querySelector('#classes td').textContent === '1'")
        browser.wait_for("/^[0-9.]+ fps$/.test(document.getElementById('fps').textContent)")
        browser.wait_for("document.getElementById('latency').textContent === '5.0 / 5.0 ms'")
        browser.wait_for("/[0-9]L/.test(document.querySelector('#fps-chart .line').getAttribute('d'))")
        assert browser.said == []


def test_stream_is_lost_and_comes_back(browser: Browser) -> None:
    with (
        MjpegServer() as camera,
        open_source(camera.url, timeout_s=1.0) as source,
        Show(source=source) as show,
    ):
        stream = threading.Thread(
            target=run_stream, args=(lambda image: detections(1), source, [_Writing(show)]), daemon=True
        )
        stream.start()
        browser.open(show.sink.url)
        browser.wait_for(f"{STATUS} === 'up' && {SHOWN}")
        camera.become("stall")
        browser.wait_for(f"{STATUS} === 'lost'")
        assert browser.text("status").startswith("lost for ")
        assert "no frame for 1 s" in browser.text("banner")
        before = browser.evaluate("document.getElementById('picture').src")
        camera.become("serve")
        browser.wait_for(f"{STATUS} === 'up' && document.getElementById('banner').hidden")
        browser.wait_for(f"document.getElementById('picture').src !== '{before}'")
        browser.wait_for("document.getElementById('health').textContent.includes('Reconnects1')")
        assert browser.text("events").count("no frame for 1 s") == 1
        browser.wait_for("document.querySelector('#fps-chart .lost').getAttribute('d') !== ''")
        source.close()
        stream.join(20)


class _Writing:
    """Has the frames of a real stream shown; closed by the test."""

    def __init__(self, show: Show) -> None:
        self.write = show.sink.write

    def close(self, summary: object) -> None:
        """Nothing to do."""


def test_pause_holds_the_picture_and_snapshot_saves_it(browser: Browser, tmp_path: Path) -> None:
    browser.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    with Show() as show, moving(show):
        browser.open(show.sink.url)
        browser.wait_for(SHOWN)
        browser.evaluate("document.getElementById('pause').click()")
        assert browser.text("pause") == "Resume"
        browser.wait_for("document.getElementById('banner').textContent === 'Paused.'")
        src = browser.evaluate("document.getElementById('picture').src")
        drawn, frames = show.drawn, browser.text("frame")
        browser.wait_for(f"document.getElementById('frame').textContent !== {frames!r}")
        assert browser.evaluate("document.getElementById('picture').src") == src
        assert show.drawn <= drawn + 1  # nobody looks, so nothing is encoded
        expected = browser.evaluate(
            "fetch(document.getElementById('picture').src).then(a => a.blob()).then(b => new Promise(done => {"
            "const r = new FileReader(); r.onload = () => done(r.result); r.readAsDataURL(b)})).catch(() => null)"
        )
        browser.evaluate("document.getElementById('snapshot').click()")
        until(lambda: list(tmp_path.glob("edgecnn-*.jpg")))
        (saved,) = tmp_path.glob("edgecnn-*.jpg")
        assert cv2.imdecode(np.frombuffer(saved.read_bytes(), np.uint8), cv2.IMREAD_COLOR).shape == (
            96,
            128,
            3,
        )
        assert expected is None or base64.b64decode(expected.partition(",")[2]) == saved.read_bytes()
        browser.evaluate("document.getElementById('pause').click()")
        browser.wait_for(f"document.getElementById('picture').src !== '{src}'")


def test_page_says_when_the_program_has_ended(browser: Browser) -> None:
    with Show() as show, moving(show):
        browser.open(show.sink.url)
        browser.wait_for(SHOWN)
    browser.wait_for(f"{STATUS} === 'gone'")
    assert "it has ended" in browser.text("banner")


def test_sources_are_chosen(browser: Browser) -> None:
    with Show(source=Both(Camera("camera:0"), Camera("camera:1"))) as show:
        show.frame(source="camera:0")
        show.frame(source="camera:1", image=np.full((40, 60, 3), 200, np.uint8))
        show.sink.note(SourceEvent("camera:1", "lost", "why", 5.0))
        browser.open(show.sink.url)
        browser.wait_for("document.getElementById('picture').naturalWidth === 128")
        assert browser.evaluate(
            "[...document.querySelectorAll('#sources button')].map(b => b.className)"
        ) == ["up", "lost"]
        browser.evaluate("document.querySelectorAll('#sources button')[1].click()")
        browser.wait_for("document.getElementById('picture').naturalWidth === 60")
        browser.wait_for(f"document.getElementById('name').textContent === 'camera:1' && {STATUS} === 'lost'")


def test_names_are_text_and_not_markup(browser: Browser) -> None:
    evil = "<img src=x onerror=document.title='evil'>"
    found = detections(1)
    object.__setattr__(found, "labels", (evil,))
    with Show(source=Camera(evil), about=evil) as show:
        show.frame(found)
        browser.open(show.sink.url)
        browser.wait_for("document.querySelector('#classes th')")
        assert browser.evaluate("document.querySelector('#classes th').textContent") == evil
        assert browser.text("about") == evil
        assert browser.evaluate("document.images.length") == 1
        assert browser.said == []


def test_token_is_given_once_and_leaves_the_address(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "a-token-of-the-tests")
    with Show() as show, moving(show):
        browser.open(show.sink.url)
        browser.wait_for("document.body && document.body.textContent.startsWith('403')")
        browser.open(f"{show.sink.url}?token=a-token-of-the-tests")
        browser.wait_for(SHOWN)
        assert browser.evaluate("location.href") == show.sink.url
        assert browser.evaluate("document.cookie") == ""
        browser.send("Page.reload")
        browser.wait_for(SHOWN)


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1920])
def test_nothing_sticks_out(width: int, browser: Browser) -> None:
    browser.send(
        "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600
    )
    with Show(
        source=Camera("rtsp://a-camera-with-a-long-name.example/with/a/path/that/is/long"), about="a" * 60
    ) as show:
        for _ in range(3):
            show.frame(detections(3))
        show.sink.note(
            SourceEvent(show.source.name, "lost", "it does not answer within nine seconds " * 4, 5.0)
        )
        browser.open(show.sink.url)
        browser.wait_for(SHOWN)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_20_viewers_come_and_vanish(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE_S", 2.0)  # the browser keeps connections for later
    with Show() as show, moving(show):
        show.get("/picture.jpg")
        until(lambda: threads() == 1)
        before = open_files()
        viewers = [browser.viewer(show.sink.url) for _ in range(20)]
        until(lambda: threads() > 20)
        for viewer in viewers:
            browser.send("Target.disposeBrowserContext", browserContextId=viewer)
        until(lambda: threads() == 1)
        assert open_files() == before
        browser.open(show.sink.url)
        browser.wait_for(SHOWN)
