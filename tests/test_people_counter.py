"""The people counter: its tracker on boxes with known answers, the program on a street that was counted by eye."""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgecnn.vision import VideoReader
from tests.paths import ROOT, data

PROGRAM = ROOT / "examples" / "people_counter.py"


@pytest.fixture(scope="module")
def tracking() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "examples"))
        yield importlib.import_module("tracking")


@pytest.fixture(scope="module")
def people() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("people")


@pytest.fixture(scope="module")
def video() -> Path:
    return data("video/vtest.avi")


@pytest.fixture(scope="module")
def detector(people: ModuleType, video: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("person") / "person.edge"
    people.person_detector(video.parent.parent, path)
    return path


def standing(*feet_xy: tuple[float, float]) -> Any:
    """Boxes of people of 20×50 pixels by where their feet are."""
    return np.array([[x - 10, y - 50, x + 10, y] for x, y in feet_xy], np.float32).reshape(-1, 4)


def follow(tracker: Any, line: Any, frames: list[Any], score: float = 0.9) -> list[Any]:
    """Show the tracker frame after frame; its tracks at the end."""
    for boxes in frames:
        line.watch(tracker.update(boxes, np.full(len(boxes), score, np.float32)))
    return list(tracker.tracks)


def walk(start: int, end: int, y: float = 100) -> list[Any]:
    """Somebody who walks along a row, five pixels a frame."""
    step = 5 if end > start else -5
    return [standing((x, y)) for x in range(start, end + step, step)]


def downward(tracking: ModuleType) -> Any:
    """A line at x = 100 from y = 50 down to y = 150: its right is the picture's left."""
    return tracking.Line(np.array([100.0, 50.0]), np.array([100.0, 150.0]))


@pytest.mark.parametrize(
    ("frames", "crossed"),
    [
        (walk(150, 50), {"in": 1, "out": 0}),
        (walk(50, 150), {"in": 0, "out": 1}),
        (walk(50, 150) + walk(145, 50), {"in": 1, "out": 1}),
        (walk(50, 90) + walk(85, 50), {"in": 0, "out": 0}),
        # who trembles on the line does not cross it: 5 pixels are a tenth of a height of 50
        (walk(50, 95) + [standing((x, 100)) for x in (103, 97, 104, 96, 102)], {"in": 0, "out": 0}),
        # first seen on the line, one pixel past it, and off to that side
        ([standing((x, 100)) for x in (101, 99, 101)] + walk(98, 58), {"in": 0, "out": 0}),
        # far enough to be on both sides, and never further: a sign
        ([standing((x, 100)) for x in (94, 106, 94, 106, 94, 106)], {"in": 0, "out": 0}),
        # a crossing is made before the walk that makes a track somebody, and counts with it
        (walk(110, 70), {"in": 1, "out": 0}),
        ([standing((x, 100)) for x in (94, 106, 94, 106)] + walk(101, 131), {"in": 0, "out": 1}),
        (walk(50, 150, y=40), {"in": 0, "out": 0}),
        (walk(50, 150, y=160), {"in": 0, "out": 0}),
        # hidden for 10 frames while it crosses, and found where it was expected
        (walk(50, 75) + [standing()] * 9 + walk(125, 150), {"in": 0, "out": 1}),
        # hidden for 30: somebody else
        (walk(50, 75) + [standing()] * 29 + walk(225, 250), {"in": 0, "out": 0}),
    ],
    ids=[
        "in",
        "out",
        "back and forth",
        "turned back",
        "trembling",
        "first seen on the line",
        "a sign",
        "nobody yet",
        "nobody yet, trembling",
        "above the line",
        "below the line",
        "hidden",
        "gone",
    ],
)
def test_crossings(tracking: ModuleType, frames: list[Any], crossed: dict[str, int]) -> None:
    line = downward(tracking)
    follow(tracking.Tracker(), line, frames)
    assert line.crossed == crossed


def test_around_the_end_of_the_line(tracking: ModuleType) -> None:
    """Past its upper end to the other side, down, and back over it."""
    line = downward(tracking)
    over = walk(70, 130, y=40) + [standing((130, y)) for y in range(45, 105, 5)] + walk(125, 70)
    follow(tracking.Tracker(), line, over)
    assert line.crossed == {"in": 1, "out": 0}


def test_a_track_keeps_its_number_while_it_is_hidden(tracking: ModuleType) -> None:
    tracker, line = tracking.Tracker(), downward(tracking)
    [before] = follow(tracker, line, walk(50, 100))
    [hidden] = follow(tracker, line, [standing()] * 4)
    assert (hidden.id, hidden.missed) == (1, 4)
    [after] = follow(tracker, line, walk(125, 150))
    assert after is before
    assert (after.id, after.missed, tracker.ids) == (1, 0, 1)


def test_a_track_that_stays_away_ends(tracking: ModuleType) -> None:
    tracker, line = tracking.Tracker(), downward(tracking)
    follow(tracker, line, walk(50, 100))
    assert follow(tracker, line, [standing()] * 21) == []
    follow(tracker, line, walk(50, 100))
    assert tracker.ids == 2


def test_two_that_meet_go_on_as_themselves(tracking: ModuleType) -> None:
    """They pass each other with boxes that overlap: velocity tells them apart."""
    tracker, line = tracking.Tracker(), downward(tracking)
    frames = [standing((50 + 5 * n, 100), (150 - 5 * n, 110)) for n in range(21)]
    first, second = follow(tracker, line, frames)
    assert (first.id, second.id) == (1, 2)
    np.testing.assert_array_equal(first.feet, (150, 100))
    np.testing.assert_array_equal(second.feet, (50, 110))
    assert line.crossed == {"in": 1, "out": 1}


def test_what_never_walks_is_nobody(tracking: ModuleType) -> None:
    tracker, line = tracking.Tracker(), downward(tracking)
    [sign] = follow(tracker, line, [standing((80 + n % 3, 100)) for n in range(30)])
    assert (sign.id, tracker.ids) == (0, 0)


def test_weak_detections_go_on_with_a_track_and_begin_none(tracking: ModuleType) -> None:
    tracker, line = tracking.Tracker(), downward(tracking)
    assert follow(tracker, line, walk(50, 75), score=0.5) == []
    follow(tracker, line, walk(50, 75), score=0.8)
    [track] = follow(tracker, line, walk(80, 110), score=0.5)
    assert (track.id, track.missed, track.score) == (1, 0, 0.5)


def test_the_street_is_counted_as_by_eye(people: ModuleType, detector: Path, video: Path) -> None:
    """All 12 crossings in 795 frames; the people present, of whom some are hidden or small, but for 1.2."""
    *frames, last = people.count(detector, video)
    assert [line["frame"] for line in frames] == list(range(795))
    summary = last["summary"]
    assert {way: summary[way] for way in people.CROSSED} == people.CROSSED
    assert people.mean_error(frames) <= 1.5
    assert summary["frames"] == 795
    assert 12 <= summary["tracks"] <= 80


def test_interrupted(detector: Path, video: Path, tmp_path: Path) -> None:
    """The counts until then are told, and the video is whole."""
    command = [sys.executable, PROGRAM, detector, video, "--line", "190,150,190,340", "--save", "counted.mp4"]
    with subprocess.Popen(
        list(map(str, command)), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout
        assert json.loads(program.stdout.readline())["frame"] == 0
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=60)
    assert program.returncode == 130
    assert "Traceback" not in err
    last = json.loads(out.splitlines()[-1])["summary"]
    with VideoReader(tmp_path / "counted.mp4") as counted:
        assert sum(1 for _ in counted) == last["frames"]


def test_nobody_reads_any_more(detector: Path, video: Path, tmp_path: Path) -> None:
    """As `| head -1`: the stream ends, and the video is whole."""
    command = [sys.executable, PROGRAM, detector, video, "--line", "190,150,190,340", "--save", "counted.mp4"]
    with subprocess.Popen(
        list(map(str, command)), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        assert program.stdout
        assert program.stderr
        assert b'"frame": 0' in program.stdout.readline()
        program.stdout.close()
        assert program.stderr.read() == b""
    assert program.returncode == 0
    with VideoReader(tmp_path / "counted.mp4") as counted:
        assert 0 < sum(1 for _ in counted) < 795


def test_interrupted_with_whoever_reads(detector: Path, video: Path, tmp_path: Path) -> None:
    """Ctrl-C in `… | jq` ends jq too, and first: the summary is for nobody, the video is whole."""
    program = (
        "import os, runpy, signal, sys\n"
        "from edgecnn.stream import VideoSink\n"
        "write = VideoSink.write\n"
        "def interrupted(self, frame, *others):\n"
        "    write(self, frame, *others)\n"
        "    if frame.index == 3:\n"
        "        sys.stdin.read()\n"  # until the test has closed the other end of the lines
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "VideoSink.write = interrupted\n"
        "sys.argv = sys.argv[1:]\n"
        "sys.path.insert(0, os.path.dirname(sys.argv[0]))\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    command = [sys.executable, "-c", program, PROGRAM, detector, video, "--line", "190,150,190,340"]
    with subprocess.Popen(
        [*map(str, command), "--save", "counted.mp4"],
        cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        assert child.stdin
        assert child.stdout
        assert child.stderr
        for index in range(4):
            assert json.loads(child.stdout.readline())["frame"] == index
        child.stdout.close()
        child.stdin.close()
        assert child.stderr.read() == b""
    assert child.returncode == 130
    assert [path.name for path in tmp_path.iterdir()] == ["counted.mp4"]
    with VideoReader(tmp_path / "counted.mp4") as counted:
        assert sum(1 for _ in counted) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no.edge", "clip.avi"], "no.edge"),
        (["face", "clip.avi"], "clip.avi"),
        (["face", "clip.avi", "--save", "a.txt"], "clip.avi"),
        (["face", str(ROOT / "docs" / "faces.png")], "face: does not detect person; give another --label"),
        (["face", "clip.avi", "--tiles", "0.2"], "tiles"),
    ],
    ids=["bundle", "source", "both", "label", "option"],
)
def test_mistakes_are_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), *words, "--line", "1,2,3,4"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("people_counter: ")
    assert message in line


@pytest.mark.parametrize("points", ["1e30,0,1,1e30", "1,2,3", "a,b,c,d", "5,5,5,5", "0,0,nan,1"])
def test_a_line_has_two_points(points: str) -> None:
    command = [sys.executable, str(PROGRAM), "face", "0", "--line", points]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        f"argument --line: {points}: not two points, as 190,150,190,340"
    )
