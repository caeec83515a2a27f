"""The ROS 2 node on a real ROS 2: another node publishes images and subscribes to what is found.

tools/ros2.sh makes that ROS 2 in build/ros2, of wheels from PyPI, with vision_msgs built from its definitions.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from skimage import data as photographs

import edgecnn
from edgecnn.vision.opencv import cv2
from tests.paths import ROOT, leave_out

ROS2 = ROOT / "build" / "ros2"
if not any(ROS2.glob(".ready-*")):
    leave_out("ros2", "ROS 2 is not in build/ros2; make it there with tools/ros2.sh")

Image = npt.NDArray[np.uint8]
# a node has a graph of its own, of this machine alone
DOMAINS = (number % 101 + 1 for number in itertools.count(os.getpid()))
READY_S = 30.0


@dataclass
class Started:
    """A node that runs, the file of what it logs, and how others find it."""

    process: subprocess.Popen[bytes]
    log: Path
    environment: dict[str, str]

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@contextmanager
def node(folder: Path, *parameters: str) -> Iterator[Started]:
    """The example with these ROS arguments, once it looks at its topic."""
    words = [
        str(ROS2 / "bin" / "python"),
        str(ROOT / "examples" / "ros2_node.py"),
        "--ros-args",
        "-p",
        "runtime:=ort",
    ]
    log = folder / "node.log"
    domain = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_DOMAIN_ID": str(next(DOMAINS))}
    environment = dict(os.environ) | domain
    with log.open("wb") as output:
        process = subprocess.Popen([*words, *parameters], stdout=output, stderr=output, env=environment)
    try:
        end = time.monotonic() + READY_S
        while "looks at" not in log.read_text() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        yield Started(process, log, environment)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def looking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with node(tmp_path_factory.mktemp("node")) as started:
        yield started


@pytest.fixture(scope="module")
def detector() -> Iterator[edgecnn.Predictor]:
    with edgecnn.load("face", runtime="ort") as predictor:
        yield predictor


@pytest.fixture(scope="module")
def face() -> Image:
    """A portrait of Eileen Collins, BGR."""
    return np.ascontiguousarray(photographs.astronaut()[:256, 100:356, ::-1])


def ask(started: Started, folder: Path, images: dict[str, Image], *options: str) -> list[dict[str, Any]]:
    """What comes back when these are published."""
    np.savez(folder / "images.npz", **images)  # type: ignore[arg-type]
    command = [
        str(ROS2 / "bin" / "python"),
        str(ROOT / "tests" / "ros2" / "camera.py"),
        str(folder / "images.npz"),
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, env=started.environment)
    assert done.returncode == 0, done.stderr
    # what was sent twice may be answered twice
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return [answer for answer, after in zip(answers, [*answers[1:], None]) if answer != after]


def padded(pixels: Image, more: int) -> Image:
    """Rows of bytes, each followed by so many that are no pixels."""
    return np.pad(pixels.reshape(len(pixels), -1), ((0, 0), (0, more)), constant_values=255)


def assert_same(answer: dict[str, Any], expected: edgecnn.Detections) -> None:
    found = answer["detections"]
    assert len(found) == len(expected) > 0
    for each, (box, score, _, label) in zip(found, expected):
        x1, y1, x2, y2 = box.tolist()
        np.testing.assert_allclose(each["center"], [(x1 + x2) / 2, (y1 + y2) / 2, 0], atol=0.01)
        np.testing.assert_allclose(each["size"], [x2 - x1, y2 - y1], atol=0.01)
        assert each["same_header"]
        assert each["results"] == [[label, pytest.approx(score, abs=1e-4)]]


def test_encodings_and_rows(
    looking: Started, detector: edgecnn.Predictor, face: Image, tmp_path: Path
) -> None:
    """All encodings of a frame give its boxes, with the stamp and the frame of its message."""
    grey = cv2.cvtColor(face, cv2.COLOR_BGR2GRAY)
    wide = face[:, :200]
    images = {
        "0:bgr8:256": padded(face, 0),
        "1:rgb8:256": padded(face[..., ::-1], 0),
        "2:bgra8:256": padded(cv2.cvtColor(face, cv2.COLOR_BGR2BGRA), 64),
        "3:rgba8:256": padded(cv2.cvtColor(face, cv2.COLOR_BGR2RGBA), 0),
        "4:mono8:256": padded(grey, 7),
        "5:bgr8:200": padded(wide, 40),
    }
    answers = ask(looking, tmp_path, images)
    assert [answer["stamp"] for answer in answers] == [[number, 7] for number in range(6)]
    assert {answer["frame_id"] for answer in answers} == {"camera_optical_frame"}
    frames = [face, face, face, face, cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), wide]
    for answer, frame in zip(answers, frames):
        assert_same(answer, detector(frame))  # type: ignore[arg-type]


def test_nothing_found_is_an_answer(looking: Started, tmp_path: Path) -> None:
    [answer] = ask(looking, tmp_path, {"1:mono8:80": np.full((60, 80), 128, np.uint8)})
    assert answer["detections"] == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1:16UC1:128", "encoding '16UC1': not one of bgr8, rgb8, mono8, bgra8, rgba8"),
        ("1:bgr8:257", "196608 bytes are no 257×256 bgr8 with rows of 768 bytes"),
    ],
    ids=["encoding", "size"],
)
def test_what_cannot_be_used_is_one_line_in_the_log(
    name: str, message: str, face: Image, tmp_path: Path
) -> None:
    """The node goes on, and does not say it of each image of a stream."""
    with node(tmp_path) as started:
        images = {"0:bgr8:256": face, name: face, name.replace("1:", "2:"): face, "3:bgr8:256": face}
        rows = {number: padded(image, 0) for number, image in images.items()}
        answers = ask(started, tmp_path, rows, "--unanswered", "1", "2")
        warnings = [line for line in started.log.read_text().splitlines() if "WARN" in line]
    assert [answer["stamp"][0] for answer in answers] == [0, 3]
    assert len(warnings) == 1
    assert warnings[0].endswith(f"skipped an image: {message}")


def test_the_newest_image_is_next(tmp_path: Path) -> None:
    """Images that come faster than they are looked at: most are passed over, and the node answers others."""
    # small on its way, and long to look at
    large = cv2.imencode(".jpg", np.full((1200, 1600), 128, np.uint8))[1].reshape(-1)
    with node(tmp_path, "-p", "image_transport:=compressed") as started:
        answers = ask(started, tmp_path, {f"{number}:jpeg": large for number in range(40)}, "--at-once")
    assert {"bundle": "face"} in answers
    numbers = [answer["stamp"][0] for answer in answers if "stamp" in answer]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 39
    # a queue would have held the last ones
    assert not set(range(34, 40)) <= set(numbers)


def test_compressed_images_of_a_topic_with_another_name(
    detector: edgecnn.Predictor, face: Image, tmp_path: Path
) -> None:
    jpeg = cv2.imencode(".jpg", face)[1].reshape(-1)
    names = ("-p", "image_transport:=compressed", "-r", "image:=/front/image_raw")
    with node(tmp_path, *names) as started:
        images = {"0:jpeg": jpeg[:999], "1:jpeg": jpeg}
        [answer] = ask(started, tmp_path, images, "--topic", "/front/image_raw", "--unanswered", "0")
        assert "looks at /front/image_raw/compressed" in started.log.read_text()
    assert_same(answer, detector(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)))  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ends_as_nodes_do(number: int, tmp_path: Path) -> None:
    with node(tmp_path) as started:
        assert started.end(number) == 0
        assert "Traceback" not in started.log.read_text()


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("bundle:=nowhere.edge", "nowhere.edge: no such bundle"),
        ("runtime:=abacus", "abacus"),
        ("image_transport:=theora", "image_transport 'theora': not one of raw, compressed"),
        ("threshold:=high", "threshold"),
    ],
)
def test_mistakes_are_one_line(parameter: str, message: str, tmp_path: Path) -> None:
    with node(tmp_path, "-p", parameter) as started:
        assert started.process.wait(20) == 2
        [line] = started.log.read_text().splitlines()
    assert "[FATAL]" in line
    assert message in line
