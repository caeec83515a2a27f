"""JSON lines that go on for months: files that are rotated, and programs that are killed."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from edgecnn.errors import InputError, Unavailable
from edgecnn.stream import Frame, JsonlSink, Summary, open_json, open_source
from edgecnn.stream.base import SourceEvent
from edgecnn.stream.jsonl import frame_line
from edgecnn.stream.outputs import json_text
from tests.stream.fakes import detections, picture
from tests.stream.killed import write_until_killed
from tests.stream.small_disk import empty, fill

SUMMARY = Summary(frames=1, dropped=0, fps=1.0, p50_ms=1.0, p95_ms=1.0, reconnects=0, seconds=1.0)
LOST = SourceEvent("camera:0", "lost", "no frame for 4 s", 0.0)
IMAGE = picture(1)
LINE = len(json_text(frame_line(Frame(0, IMAGE, 0.0, "x"), detections(1)))) + 1


def write(sink: JsonlSink, *numbers: int) -> None:
    for number in numbers:
        sink.write(Frame(number, IMAGE, 0.0, "x"), detections(1), lambda: IMAGE)


def oldest_first(path: Path) -> list[Path]:
    older = sorted(path.parent.glob(f"{path.name}.*"), key=lambda p: -int(p.suffix[1:]))
    return [*older, path]


def numbers(path: Path) -> list[list[Any]]:
    return [
        [json.loads(line).get("frame") for line in each.read_text().splitlines()]
        for each in oldest_first(path)
    ]


def test_a_file_is_rotated_before_it_is_larger_than_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    sink = JsonlSink(str(path), max_bytes=2 * LINE, keep=2)
    write(sink, *range(7))
    assert numbers(path) == [[2, 3], [4, 5], [6]]
    sink.close(SUMMARY)
    assert numbers(path) == [[2, 3], [4, 5], [6, None]]
    assert all(each.stat().st_size <= 2 * LINE for each in oldest_first(path)[:-1])


def test_a_line_that_is_longer_than_the_limit_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    sink = JsonlSink(str(path), max_bytes=1, keep=9)
    write(sink, 0, 1)
    sink.close(SUMMARY)
    assert numbers(path) == [[0], [1], [None]]


def test_what_is_rotated_goes_on_where_it_ended(tmp_path: Path) -> None:
    """A torn line is one that nobody could read; it does not stay in the middle of the file."""
    path = tmp_path / "o.jsonl"
    path.write_text('{"frame": 0}\n{"frame": 1, "ti')
    sink = JsonlSink(str(path), max_bytes=LINE + 13)
    write(sink, 2, 3)
    assert numbers(path) == [[0, 2], [3]]
    sink.close(SUMMARY)


def test_what_is_not_rotated_replaces_an_older_file(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    path.write_text("older\n")
    sink = JsonlSink(str(path))
    write(sink, 1)
    sink.close(SUMMARY)
    assert numbers(path) == [[1, None]]


def test_events_come_from_another_thread(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    sink = JsonlSink(str(path), max_bytes=20 * LINE, keep=1000)
    thread = threading.Thread(target=lambda: [sink.note(LOST) for _ in range(200)])
    thread.start()
    write(sink, *range(200))
    thread.join()
    sink.close(SUMMARY)
    found = [number for file in numbers(path) for number in file]
    assert [number for number in found if number is not None] == list(range(200))
    assert found.count(None) == 201


def test_a_folder_that_takes_no_new_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "o.jsonl"
    sink = JsonlSink(str(path), max_bytes=1)
    write(sink, 0)

    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(Unavailable, match=r"o\.jsonl: writing failed \(Permission denied\)"):
        write(sink, 1)
    sink.note(LOST)
    with pytest.raises(Unavailable, match=r"o\.jsonl: writing failed \(1 events are not in it\)"):
        sink.close(SUMMARY)
    assert numbers(path) == [[0]]


@pytest.mark.parametrize("after", [[1], []])
def test_an_event_that_is_lost_is_an_error_and_takes_no_other_line_with_it(
    disk: Path, after: list[int]
) -> None:
    path = disk / "o.jsonl"
    sink = JsonlSink(str(path))
    write(sink, 0)
    fill(disk)
    for _ in range(1000):  # in the page that was taken already, some find room
        sink.note(LOST)
    empty(disk)
    write(sink, *after)
    with pytest.raises(Unavailable, match=r"o\.jsonl: writing failed \(9\d\d events are not in it\)"):
        sink.close(SUMMARY)
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["frame"] for line in found if "frame" in line] == [0, *after]
    assert "summary" in found[-1]


@pytest.mark.parametrize("path", ["-", "/dev/null"])
def test_only_a_file_can_be_rotated(path: str) -> None:
    with pytest.raises(InputError, match="only a file can be rotated"):
        open_json(path, open_source(IMAGE), max_mb=1)


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_only_the_last_line_is_torn(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "o.jsonl"
    last = write_until_killed(f"JsonlSink({str(path)!r}, max_bytes=5000, keep=100_000)", seed)
    whole = "".join(each.read_text() for each in oldest_first(path) if each.exists())
    found = [json.loads(line)["frame"] for line in whole.split("\n")[:-1]]
    assert found == list(range(len(found)))
    assert len(found) >= last + 1
    for each in oldest_first(path)[:-1]:
        assert each.read_text().endswith("\n")
