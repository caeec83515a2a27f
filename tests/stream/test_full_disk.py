"""Outputs on a disk that gets full while they are written, and has room again later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn.errors import Unavailable
from edgecnn.stream import Frame, JsonlSink, Sink, StillSink, Summary, VideoSink, run_stream
from edgecnn.stream.network import open_outboxes
from edgecnn.stream.outputs import WriteFailed
from edgecnn.vision.video import VideoReader
from tests.stream.fakes import Frames, detections
from tests.stream.receivers import hook, until
from tests.stream.small_disk import empty, fill

FRAMES, FULL, ROOM = 90, range(30, 60), range(60, 90)
# pictures that do not compress
NOISE = np.random.default_rng(0).integers(0, 256, (8, 96, 128, 3), np.uint8)
SUMMARY = Summary(frames=1, dropped=0, fps=1.0, p50_ms=1.0, p95_ms=1.0, reconnects=0, seconds=1.0)
IMAGES = [NOISE[number % 8] for number in range(FRAMES)]


def run(sink: Sink, disk: Path, *, live: bool, leave: int = 0) -> list[int]:
    """Numbers of the frames that were predicted; from the 30th to the 60th the disk is full but for some bytes."""
    seen: list[int] = []

    def on_frame(frame: Frame, result: object) -> None:
        seen.append(frame.index)

    def predict(image: object) -> Any:
        if len(seen) == FULL.start:
            fill(disk, leave)
        if len(seen) == ROOM.start:
            empty(disk)
        return detections(2)

    with pytest.raises(WriteFailed, match=r"/disk/.*: writing failed .*; check the space and the disk$"):
        run_stream(predict, Frames(IMAGES, live=live), [sink], on_frame=on_frame)
    return seen


def lines(path: Path) -> list[Any]:
    """What is in lines of JSON, all of which are whole."""
    text = path.read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def frames(path: Path) -> int:
    with VideoReader(path) as video:
        return sum(1 for _ in video)


@pytest.mark.parametrize("max_bytes", [None, 2000])
def test_lines_of_a_camera_go_on_when_there_is_room(
    disk: Path, max_bytes: int | None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecnn.stream.enduring.CALM_S", 0.0)
    sink = JsonlSink(str(disk / "o.jsonl"), max_bytes, keep=100)
    assert run(sink, disk, live=True) == list(range(FRAMES))
    files = sorted(disk.glob("o.jsonl.*"), key=lambda path: -int(path.suffix[1:]))
    *found, last = [line for path in [*files, disk / "o.jsonl"] for line in lines(path)]
    numbers = [line["frame"] for line in found]
    # in the pages that were taken already, some lines find room
    assert numbers == sorted(numbers)
    assert [number for number in numbers if number not in FULL] == [*range(FULL.start), *ROOM]
    missing = FRAMES - len(numbers)
    assert 0 < missing <= len(FULL)
    assert last["summary"]["frames"] == FRAMES
    assert "o.jsonl: writing failed (No space left on device); check the space" in caplog.text
    assert f"o.jsonl: written again, without {missing} frames" in caplog.text


def test_lines_of_a_file_end_with_the_disk(disk: Path) -> None:
    seen = run(JsonlSink(str(disk / "o.jsonl")), disk, live=False)
    assert [line["frame"] for line in lines(disk / "o.jsonl")] == seen
    assert seen[-1] in FULL


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".avi"])
@pytest.mark.parametrize(("leave", "segments"), [(2**19, 6), (0, 5)])
def test_segments_of_a_camera_go_on_when_there_is_room(
    disk: Path, suffix: str, leave: int, segments: int
) -> None:
    """One that is written while the disk gets full is finished, unless others took all room at once."""
    run(VideoSink(disk / f"v{suffix}", 10, segment_s=1), disk, live=True, leave=leave)
    found = [path for path in sorted(disk.glob(f"v-*{suffix}")) if path.stat().st_size]
    assert [frames(path) for path in found] == [10] * segments
    assert list(disk.glob(".*")) == []


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".avi"])
def test_a_video_ends_with_the_disk_and_can_be_played(disk: Path, suffix: str) -> None:
    """It is not begun again: that would replace what is there."""
    path = disk / f"v{suffix}"

    def writes(sink: VideoSink) -> None:
        for number in range(10_000):
            sink.write(Frame(number, NOISE[number % 8], number / 10, "x"), detections(1), lambda: NOISE[0])
            written.append(number)

    for _ in range(2):
        written: list[int] = []
        sink = VideoSink(path, 10)
        with pytest.raises(WriteFailed, match=r"writing failed \(No space left on device\)"):
            writes(sink)
        with pytest.raises(WriteFailed):
            writes(sink)
        sink.close(SUMMARY)
        assert frames(path) == len(written) > 10
        written.clear()
        path.unlink()


def test_a_still_is_tried_again(disk: Path) -> None:
    sink = StillSink(disk / "best.png")
    frame = Frame(0, NOISE[0], 0.0, "x")
    fill(disk)
    with pytest.raises(Unavailable, match=r"best\.png: .*No space left on device"):
        sink.write(frame, detections(1), lambda: NOISE[0])
    empty(disk)
    sink.write(frame, detections(1), lambda: NOISE[0])
    assert sorted(path.name for path in disk.iterdir()) == ["best.png"]


def test_a_spool_on_a_full_disk_stops_nothing_and_goes_on(disk: Path) -> None:
    source = Frames(IMAGES, live=True)
    with hook() as server:
        server.stop()
        [sink] = open_outboxes(source, webhook=server.url, spool=str(disk / "spool"))
        seen: list[int] = []

        def predict(image: object) -> Any:
            if len(seen) == FULL.start:
                fill(disk)
            if len(seen) == ROOM.start:
                empty(disk)
                server.start()
            return detections(2)

        summary = run_stream(predict, source, [sink], on_frame=lambda frame, _: seen.append(frame.index))
        assert summary.frames == FRAMES
        until(lambda: FRAMES - 1 in server.frames)
    once = list(dict.fromkeys(server.frames))
    assert once == sorted(once)
    assert [number for number in once if number not in FULL] == [*range(FULL.start), *ROOM]
    assert sink.spool.given_up == FRAMES - len(once) > 0
