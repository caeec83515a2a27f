from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn.cli.main import main
from edgecnn.vision.images import read_image
from edgecnn.vision.opencv import cv2
from edgecnn.vision.video import VideoReader
from tests.paths import data
from tests.stream.fakes import write_picture, write_video
from tests.stream.receivers import hook

ENDLESS_CAMERA = """
import itertools, sys
import numpy as np
from edgecnn.cli.main import main
from edgecnn.stream import sources
from edgecnn.stream.files import IterableSource
sources.LiveSource = lambda address, timeout_s: IterableSource(itertools.repeat(np.full((48, 64, 3), 90, np.uint8)))
sys.exit(main(sys.argv[1:]))
"""


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_results_are_those_of_both_modes(
    color_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], mode: str
) -> None:
    source = write_video(tmp_path / "v.avi", count=6)
    assert main(["run", str(color_bundle), "--source", str(source), "--mode", mode, "--json", "-"]) == 0
    *frames, last = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line["frame"] for line in frames] == [0, 1, 2, 3, 4, 5]
    best = [line["classes"][0]["score"] for line in frames]
    assert best == pytest.approx([10 * i / 255 for i in range(6)], abs=0.02)
    assert last["summary"]["dropped"] == 0


def test_video_to_everything(color_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = write_video(tmp_path / "v.avi", count=6)
    out, result = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    code = main(
        ["run", str(color_bundle), "--source", str(source), "--save", str(out), "--json", str(result)]
    )
    captured = capfd.readouterr()
    assert code == 0
    assert captured.out == ""
    first, *rest = captured.err.splitlines()
    assert first.startswith("6 frames in ")
    assert first.endswith(" on ort")
    assert rest == [f"annotated: {out}", f"results: {result}"]
    *frames, last = lines(result)
    assert [line["frame"] for line in frames] == [0, 1, 2, 3, 4, 5]
    assert set(frames[0]) == {"frame", "time", "source", "classes", "timing_ms"}
    assert set(frames[0]["timing_ms"]) == {"read", "wait", "geometry", "infer", "decode", "total"}
    assert frames[5]["classes"][0]["score"] == pytest.approx(50 / 255, abs=0.02)
    assert last["summary"]["frames"] == 6
    with VideoReader(out) as video:
        assert sum(1 for _ in video) == 6


def test_outputs_in_pieces(color_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = write_video(tmp_path / "v.avi", count=24)
    out, result = tmp_path / "out.mkv", tmp_path / "out.jsonl"
    args = ["run", str(color_bundle), "--source", str(source), "--save", str(out), "--segment", "1"]
    assert main([*args, "--json", str(result), "--json-max-mb", "0.001", "--keep", "1"]) == 0
    assert f"annotated: {tmp_path}/out-*.mkv" in capfd.readouterr().err
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["out-000002.mkv", "out-000003.mkv", "out.jsonl", "out.jsonl.1", "v.avi"]
    assert "summary" in lines(result)[-1]


def test_results_over_the_network(
    color_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The URL comes from the environment, where no other user can read its password."""
    source = write_video(tmp_path / "v.avi", count=6)
    args = ["run", str(color_bundle), "--source", str(source), "--spool", str(tmp_path / "spool")]
    with hook() as server:
        monkeypatch.setenv("EDGECNN_WEBHOOK", server.url)
        assert main([*args, "--json", str(tmp_path / "o.jsonl")]) == 0
        assert server.lines == lines(tmp_path / "o.jsonl")
    assert "se/cret" not in capfd.readouterr().err


def test_port_of_the_metrics_that_is_taken(
    color_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_picture(tmp_path / "a.png")
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = str(server.getsockname()[1])
        assert main(["run", str(color_bundle), "--source", str(path), "--metrics", place]) == 3
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(f"edgecnn: error: --metrics 127.0.0.1:{place}: cannot listen there")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--metrics", "here"], "--metrics here: give a port"),
        (["--webhook", "host/secret"], "--webhook: not a URL that can be used here"),
        (["--mqtt", "mqtt://user:secret@host"], "--mqtt: the URL needs a topic"),
    ],
)
def test_places_that_cannot_be_used(
    color_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], args: list[str], message: str
) -> None:
    path = write_picture(tmp_path / "a.png")
    assert main(["run", str(color_bundle), "--source", str(path), *args]) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert message in line
    assert "secret" not in line


def test_image_lists_what_was_found(
    window_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_picture(tmp_path / "bright.png", 255, (32, 32))
    assert main(["run", str(window_bundle), "--source", str(path)]) == 0
    first, *rest = capfd.readouterr().err.splitlines()
    assert first.startswith("1 frame in ")
    assert first.endswith("1 found")
    assert rest == ["  red 1.00 at 0,0 to 32,32"]


def test_json_on_standard_output_is_all_there(
    color_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_picture(tmp_path / "a.png", 51)
    assert main(["run", str(color_bundle), "--source", str(path), "--json", "-"]) == 0
    frame, summary = map(json.loads, capfd.readouterr().out.splitlines())
    assert [row["label"] for row in frame["classes"]] == ["red", "green", "blue"]
    assert summary["summary"]["frames"] == 1


def test_quiet_says_nothing(color_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_picture(tmp_path / "a.png")
    assert main(["run", str(color_bundle), "--source", str(path), "-q"]) == 0
    assert capfd.readouterr() == ("", "")


def test_folder_with_a_broken_picture(
    color_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_picture(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "b.jpg").write_bytes((tmp_path / "in" / "a.jpg").read_bytes()[:300])
    write_picture(tmp_path / "in" / "sub" / "c.png")
    code = main(["run", str(color_bundle), "--source", str(tmp_path / "in"), "--save", f"{tmp_path}/out/"])
    warning, summary, _ = capfd.readouterr().err.splitlines()
    assert code == 0
    assert warning.startswith("edgecnn: warning: skipped: ")
    assert "b.jpg" in warning
    assert summary.startswith("2 frames in ")
    assert summary.endswith(", 1 skipped")
    assert read_image(tmp_path / "out" / "sub" / "c.png").shape == (48, 64, 3)


def test_limits_and_changes(window_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, result = write_video(tmp_path / "v.avi", count=6), tmp_path / "o.jsonl"
    args = ["run", str(window_bundle), "--source", str(source), "--json", str(result), "--max-frames", "2"]
    assert main([*args, "--threshold", "0", "--min-size", "48", "--threads", "1", "--runtime", "ort"]) == 0
    frames = lines(result)[:-1]
    assert len(frames) == 2
    boxes = np.array([d["box"] for d in frames[1]["detections"]])
    assert len(boxes)
    assert ((boxes[:, 2:] - boxes[:, :2]) >= 47).all()


def test_smooth_averages_over_frames(color_bundle: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.png", 0)
    write_picture(tmp_path / "in" / "b.png", 204)
    result = tmp_path / "o.jsonl"
    args = ["run", str(color_bundle), "--source", str(tmp_path / "in"), "--json", str(result), "-q"]
    assert main([*args, "--smooth", "2"]) == 0
    assert lines(result)[1]["classes"][0]["score"] == pytest.approx(0.4, abs=0.01)


def test_container_that_lies(color_bundle: Path, tmp_path: Path) -> None:
    result = tmp_path / "o.jsonl"
    args = ["run", str(color_bundle), "--source", str(data("video/tree.avi")), "--json", str(result)]
    assert main([*args, "--save", str(tmp_path / "o.mp4")]) == 0
    assert lines(result)[-1]["summary"]["frames"] == 68


def test_absent_camera_is_exit_3_and_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--camera", "63"]) == 3
    captured = capfd.readouterr()
    [line] = captured.err.splitlines()
    assert line.startswith("edgecnn: error: camera:63: /dev/video63 ")
    assert "check" in line
    assert captured.out == ""


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "--camera 0 or --source video.mp4"),
        (["--source", "a", "--source", "b", "--show"], "go with one source"),
        (["--source", "a", "--camera", "0", "--save", "x.png"], "go with one source"),
        (["--source", "-"], "give it, as --frame-size 640x480"),
        (["--source", "-", "--frame-size", "640"], "is no size; give width and height"),
        (["--source", "-", "--frame-size", "0x4"], "frames of 0x4"),
        (["--camera", "0", "--camera", "0"], "given more than once"),
        (["--source", "0", "--camera", "0"], "given more than once"),
        (["--source", "a", "--json", "x.png", "--save", "x.png"], "name the same file"),
        (["--source", "a", "--save", "x.png", "--save", "./x.png"], "name the same file"),
        (["--source", "a", "--save", "d/../x.mp4", "--save", "x.mp4"], "name the same file"),
        (["--source", "a", "--threshold", "7"], "0<=x<=1"),
        (["--source", "a", "--threshold", "nan"], "not a number that can be used"),
        (["--source", "a", "--duration", "nan"], "not a number that can be used"),
        (["--source", "a", "--duration", "inf"], "not a number that can be used"),
        (["--source", "a", "--duration", "0"], "x>0"),
        (["--source", "a", "--max-frames", "0"], "x>=1"),
        (["--camera", "-1"], "x>=0"),
        (["--source", "a", "--segment", "60"], "--segment goes with --save"),
        (["--source", "a", "--json-max-mb", "1"], "--json-max-mb goes with --json"),
    ],
)
def test_wrong_usage(args: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *args]) == 2
    assert message in capfd.readouterr().err


def test_several_sources(color_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    one, other = write_video(tmp_path / "a.avi", count=3), write_video(tmp_path / "b.avi", count=5)
    args = ["run", str(color_bundle), "--source", str(one), "--source", str(other), "--json", "-"]
    assert main(args) == 0
    *frames, last = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    of = {
        str(path): [line["frame"] for line in frames if line["source"] == str(path)] for path in (one, other)
    }
    assert of == {str(one): [0, 1, 2], str(other): [0, 1, 2, 3, 4]}
    assert [line["source"] for line in frames[:4]] != [str(one)] * 3 + [str(other)]
    assert last["summary"]["frames"] == 8


def test_raw_frames_from_standard_input(color_bundle: Path) -> None:
    frames = np.stack([np.full((48, 64, 3), level, np.uint8) for level in (0, 100, 200)])
    command = [sys.executable, "-m", "edgecnn", "run", str(color_bundle), "--source", "-"]
    done = subprocess.run(
        [*command, "--frame-size", "64x48", "--json", "-"],
        input=frames.tobytes(),
        capture_output=True,
        check=True,
    )
    *lines, _ = [json.loads(line) for line in done.stdout.splitlines()]
    found = [line["classes"][0]["score"] for line in lines]
    assert found == pytest.approx([0, 100 / 255, 200 / 255], abs=0.01)


def test_two_outputs_are_the_same_through_a_link(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    saves = ["--save", f"{tmp_path}/there/x.png", "--save", f"{tmp_path}/link/x.png"]
    assert main(["run", "--source", "a", *saves]) == 2
    assert "name the same file" in capfd.readouterr().err


def test_null_runtime_warns_that_it_computes_nothing(
    color_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_picture(tmp_path / "a.png")
    args = ["run", str(color_bundle), "--source", str(path), "--runtime"]
    assert main([*args, "null"]) == 0
    assert "warning: the runtime null has no engine: every score is zero" in capfd.readouterr().err
    assert main([*args, "ort"]) == 0
    assert "null" not in capfd.readouterr().err


def test_best_picture_of_a_classified_stream(color_bundle: Path, tmp_path: Path) -> None:
    for name, value in (("a.png", 20), ("b.png", 220), ("c.png", 120)):
        write_picture(tmp_path / "in" / name, value)
    best = tmp_path / "best.png"
    args = ["run", str(color_bundle), "--source", str(tmp_path / "in"), "--save", str(best), "-q"]
    assert main(args) == 0
    assert read_image(best)[-1, -1].tolist() == [220, 220, 220]


def test_video_in_the_place_of_the_bundle(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_video(tmp_path / "v.avi", count=1)
    assert main(["run", str(path)]) == 2
    assert f"did you mean: edgecnn run --source {path}" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nope.png", None, "no such file or folder"),
        ("zero.mp4", b"", "empty"),
        ("words.jpg", b"just words", "not an image"),
        ("words.avi", b"just words" * 90, "not a video"),
    ],
)
def test_source_that_is_none(
    color_bundle: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    name: str,
    content: bytes | None,
    message: str,
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    out = tmp_path / "o.jsonl"
    code = main(["run", str(color_bundle), "--source", str(tmp_path / name), "--json", str(out)])
    [line] = capfd.readouterr().err.splitlines()
    assert code == 2
    assert line.startswith(f"edgecnn: error: {tmp_path / name}: ")
    assert message in line
    assert not out.exists()


def test_missing_bundle(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_picture(tmp_path / "a.png")
    assert main(["run", str(tmp_path / "nope.edge"), "--source", str(path)]) == 2
    assert "nope.edge: no such bundle" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_leaves_valid_outputs(color_bundle: Path, tmp_path: Path, number: signal.Signals) -> None:
    out, result = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    command = [sys.executable, "-c", ENDLESS_CAMERA, "run", str(color_bundle), "--camera", "0"]
    command += ["--save", str(out), "--json", str(result)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and not (result.exists() and result.stat().st_size > 2000):
                time.sleep(0.02)
            process.send_signal(number)
            _, error = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    *frames, last = lines(result)
    assert last["summary"]["frames"] == len(frames) >= 5
    with VideoReader(out) as video:
        assert sum(1 for _ in video) == len(frames)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.jsonl", "out.mp4"]
    assert error.splitlines()[0].startswith(f"{len(frames)} frames in ")
    assert error.splitlines()[-1] == "edgecnn: interrupted"


def test_reader_that_goes_away(color_bundle: Path, tmp_path: Path) -> None:
    source = write_video(tmp_path / "v.avi", count=20)
    program = Path(sys.executable).with_name("edgecnn")
    saved = tmp_path / "v.mp4"
    script = f"'{program}' run '{color_bundle}' --source '{source}' --save '{saved}' --json - | head -n 1; "
    done = subprocess.run(
        ["bash", "-c", script + "echo ${PIPESTATUS[0]}"], capture_output=True, text=True, check=True
    )
    line, code = done.stdout.splitlines()
    assert json.loads(line)["frame"] == 0
    assert code == "0"
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


def test_cut_video_is_told_of(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The container announces more than decodes."""
    path = tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 64))
    for _ in range(10):
        writer.write(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert main(["run", "--source", str(path)]) == 0
    assert "cut.avi announces 10 frames, " in capfd.readouterr().err


def test_folder_in_place_of_a_bundle_gets_a_hint(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(tmp_path)]) == 2
    assert f"did you mean: edgecnn run --source {tmp_path}" in capfd.readouterr().err


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_hang_up_closes_the_outputs(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for i in range(200):
        cv2.imwrite(str(frames / f"{i}.png"), np.zeros((240, 320, 3), np.uint8))
    command = [
        sys.executable,
        "-m",
        "edgecnn",
        "run",
        "--source",
        str(frames),
        "--json",
        str(tmp_path / "out.jsonl"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not ((tmp_path / "out.jsonl").exists() and (tmp_path / "out.jsonl").stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert "summary" in json.loads((tmp_path / "out.jsonl").read_text().splitlines()[-1])


def test_closed_stdout_takes_no_results(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 64, 3), np.uint8))
    command = f"exec {sys.executable} -m edgecnn run --source a.png --json -"
    closed = subprocess.run(f"{command} >&-", shell=True, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert closed.returncode == 3
    assert "standard output is closed, so results would be lost; name a file" in closed.stderr
    assert subprocess.run(f"{command} >/dev/null 2>&1", shell=True, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    "stderr",
    [
        "2> >(true)",
        pytest.param(
            "2> /dev/full",
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's"),
        ),
    ],
)
def test_what_cannot_be_said_costs_no_result(color_bundle: Path, tmp_path: Path, stderr: str) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"spoilt")
    for name in ("b.png", "c.png"):
        write_picture(folder / name)
    # by then the reader of stderr is gone
    command = (
        f"sleep 0.1; exec {sys.executable} -m edgecnn run {color_bundle} --source pictures --json j.jsonl"
    )
    done = subprocess.run(["bash", "-c", f"exec {stderr}; {command}"], cwd=tmp_path)
    assert done.returncode == 0
    *frames, last = lines(tmp_path / "j.jsonl")
    assert len(frames) == 2
    assert (last["summary"]["frames"], last["summary"]["skipped"]) == (2, 1)
