"""Commands whose outputs lie on a disk that is full."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import edgecnn
from edgecnn.cli.main import main
from edgecnn.results import Result
from edgecnn.stream import Frame, JsonlSink
from edgecnn.stream.base import Image
from tests.stream.fakes import write_picture, write_video
from tests.stream.servers import MjpegServer
from tests.stream.small_disk import empty, fill


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"filled"}


def test_run_on_a_camera_goes_on_and_says_what_is_missing(
    color_bundle: Path,
    disk: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, save = disk / "o.jsonl", tmp_path / "elsewhere.mkv"
    write, tried = JsonlSink.write, []

    def write_on_a_disk_that_changes(
        sink: JsonlSink, frame: Frame, result: Result, annotated: Callable[[], Image]
    ) -> None:
        # a page that was taken already has room for some 20 lines
        if len(tried) == 5:
            fill(disk)
        if len(tried) == 45:
            empty(disk)
        tried.append(frame.index)
        write(sink, frame, result, annotated)

    monkeypatch.setattr(JsonlSink, "write", write_on_a_disk_that_changes)
    with MjpegServer() as server:
        source = ["--source", server.url, "--max-frames", "50"]
        assert main(["run", str(color_bundle), *source, "--json", str(out), "--save", str(save)]) == 3
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith(f"edgecnn: error: {out}: writing failed (No space left on device; ")
    assert error.endswith(" frames are not in it); check the space and the disk")
    *found, last = [json.loads(line) for line in out.read_text().splitlines()]
    numbers = [line["frame"] for line in found]
    assert numbers[:5] + numbers[-5:] == tried[:5] + tried[-5:]
    assert len(numbers) < len(tried) == last["summary"]["frames"]
    assert edgecnn.stream.open_source(str(save)).frames_announced


def test_run_on_a_file_ends(
    color_bundle: Path, disk: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, source = disk / "o.jsonl", write_video(tmp_path / "v.avi")
    out.touch()
    fill(disk)
    assert main(["run", str(color_bundle), "--source", str(source), "--json", str(out)]) == 3
    assert f"{out}: writing failed (No space left on device)" in capfd.readouterr().err.splitlines()[-1]
    assert out.read_text() == ""


def test_convert_keeps_the_old_bundle(
    color_onnx: tuple[Path, Path], disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, spec = color_onnx
    command = ["convert", str(model), "--spec", str(spec), "-o", str(disk / "a.edge")]
    assert main(command) == 0
    before = names(disk)
    fill(disk, 8192)
    assert main(command) == 3
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.endswith(
        "a.edge: cannot be written (No space left on device); free some space, or choose another disk"
    )
    assert names(disk) == before
    edgecnn.load(disk / "a.edge").close()


def test_tune_says_that_nothing_can_be_kept(
    color_bundle: Path, disk: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECNN_CACHE", str(disk / "cache"))
    fill(disk)
    assert main(["tune", str(color_bundle), "--seconds", "1", "--threads", "1"]) == 3
    error = capfd.readouterr().err.splitlines()[-1]
    assert str(disk / "cache") in error
    assert error.endswith(
        "cannot be written (No space left on device), where the fastest is kept; set EDGECNN_CACHE"
    )


def test_caches_that_cannot_be_written_are_done_without(
    color_bundle: Path, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECNN_CACHE", str(disk / "cache"))
    monkeypatch.delenv("EDGECNN_RUNTIME")
    fill(disk)
    assert main(["run", str(color_bundle), "--source", str(write_picture(tmp_path / "a.png"))]) == 0
