from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn.errors import DeviceUnavailable, InputError, Unavailable
from edgecnn.results import Tensors
from edgecnn.stream import Frame, JsonlSink, Summary, VideoSink, open_json, open_save, open_source, run_stream
from edgecnn.stream.video import fit_into
from edgecnn.vision.images import read_image
from edgecnn.vision.opencv import cv2
from edgecnn.vision.video import VideoReader
from tests.stream.fakes import classes, detections, picture, pictures, predicting, write_picture, write_video

SUMMARY = Summary(frames=1, dropped=0, fps=1.0, p50_ms=1.0, p95_ms=1.0, reconnects=0, seconds=1.0)


def run(where: Any, *sinks: Any, results: Any = None) -> Summary:
    source = open_source(where)
    opened = [sink(source) if callable(sink) else sink for sink in sinks]
    predict = predicting(results) if results else lambda image: detections(1)
    with source:
        return run_stream(predict, source, opened)


def saving(path: Path | str) -> Any:
    return lambda source: open_save(str(path), source)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_json_lines_have_the_keys_of_the_contract(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.avi", count=3)
    path = tmp_path / "new" / "folder" / "o.jsonl"
    run(video, JsonlSink(str(path)))
    *frames, last = lines(path)
    assert [list(line) for line in frames] == [["frame", "time", "source", "detections", "timing_ms"]] * 3
    assert [(line["frame"], line["time"]) for line in frames] == [(0, 0.0), (1, 0.1), (2, 0.2)]
    assert frames[0]["source"] == str(video)
    assert frames[0]["detections"] == [
        {"box": [0.0, 5.0, 10.0, 15.0], "score": 0.9, "class_id": 0, "label": "thing"}
    ]
    assert {"frames", "dropped", "fps", "p50_ms", "p95_ms", "reconnects", "seconds"} <= set(last["summary"])
    assert last["summary"]["frames"] == 3


def test_json_lines_of_other_results(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    tensors = Tensors({"y": np.zeros((2, 3), np.float32)})
    run(pictures(2), JsonlSink(str(path)), results=[classes(0.75), tensors])
    assert lines(path)[0]["classes"] == [{"class_id": 0, "score": 0.75, "label": "thing"}]
    assert lines(path)[1]["tensors"] == {"y": {"shape": [2, 3], "dtype": "float32"}}


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    run(pictures(2), JsonlSink(str(path)), results=[classes(float("inf")), classes(float("nan"))])
    assert not {"Infinity", "NaN"} & set(path.read_text().replace(",", " ").split())
    assert [line["classes"][0]["score"] for line in lines(path)[:2]] == [None, None]


def test_json_line_is_in_the_file_before_the_next_frame(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    sink = JsonlSink(str(path))
    sink.write(Frame(0, picture(1), 0.0, "x"), detections(1), lambda: picture(1))
    assert lines(path)[0]["frame"] == 0
    sink.close(SUMMARY)


def test_json_lines_survive_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    sink = JsonlSink(str(path))
    sink.write(Frame(0, picture(1), 0.0, "caf\udce9 é"), detections(0), lambda: picture(1))
    sink.close(SUMMARY)
    assert lines(path)[0]["source"] == "caf\udce9 é"


def test_json_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    run(picture(1), lambda source: open_json("-", source))
    out = capsys.readouterr().out.splitlines()
    assert [next(iter(json.loads(line))) for line in out] == ["frame", "summary"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_full_disk_is_one_error() -> None:
    with pytest.raises(Unavailable, match=r"/dev/full: writing failed .*check the space"):
        run(pictures(3), JsonlSink("/dev/full"))


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.avi", "deep/er/v.MP4"])
def test_video_has_all_frames_and_the_rate(tmp_path: Path, name: str) -> None:
    source = write_video(tmp_path / "source.avi", count=7, fps=12)
    run(source, saving(tmp_path / name))
    with VideoReader(tmp_path / name) as video:
        assert video.fps == pytest.approx(12)
        assert video.size_hw == (48, 64)
        assert sum(1 for _ in video) == 7
    assert list(tmp_path.rglob("*.part*")) == []


def test_video_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "v.mp4", 10)
    sink.write(Frame(0, picture(1), 0.0, "x"), detections(1), lambda: picture(1))
    [hidden] = [p.name for p in tmp_path.iterdir()]
    assert hidden.startswith(".")
    assert hidden.endswith(".mp4")
    sink.close(SUMMARY)
    assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]


@pytest.mark.parametrize(("source", "save"), [("v.part.avi", "v.avi"), ("a.part.png", "a.png")])
def test_source_named_like_a_half_written_output_stays(tmp_path: Path, source: str, save: str) -> None:
    path = tmp_path / source
    write_video(path) if path.suffix == ".avi" else write_picture(path)
    before = path.read_bytes()
    run(path, saving(tmp_path / save))
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([source, save])


def test_hidden_file_never_replaces_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda count: "taken")
    taken = tmp_path / ".edgecnn-taken.png"
    taken.write_bytes(b"mine")
    with pytest.raises(InputError, match="cannot be written"):
        run(picture(1), saving(tmp_path / "a.png"))
    assert taken.read_bytes() == b"mine"
    assert [p.name for p in tmp_path.iterdir()] == [taken.name]


SAVE_WITH_LITTLE_ROOM = """
import resource, sys
import numpy as np
from edgecnn.errors import Unavailable
from edgecnn.results import Detections
from edgecnn.stream import open_save, open_source, run_stream
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
frames = np.random.default_rng(0).integers(0, 256, (30, 96, 128, 3), np.uint8)
source = open_source(frames)
try:
    run_stream(lambda image: Detections.empty(), source, [open_save(sys.argv[1], source)])
except Unavailable as error:
    sys.exit(str(error))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file")
@pytest.mark.parametrize("name", ["v.mp4", "v.avi"])
def test_full_disk_is_no_broken_video(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"an older one")

    def save(limit: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", SAVE_WITH_LITTLE_ROOM, str(path), str(limit)]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ)

    failed = save(40_000)
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"{path}: writing failed (the video ")
    assert len(failed.stderr.splitlines()) == 1
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [(name, b"an older one")]
    done = save(10_000_000)
    assert (done.returncode, done.stderr) == (0, "")
    with VideoReader(path) as video:
        assert sum(1 for _ in video) == 30


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file")
def test_full_disk_leaves_what_there_is_of_a_video_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "v.mkv"
    command = [sys.executable, "-c", SAVE_WITH_LITTLE_ROOM, str(path), "40_000"]
    failed = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert failed.stderr.startswith(f"{path}: writing failed (the video holds ")
    with VideoReader(path) as video:
        assert 3 <= sum(1 for _ in video) < 30


def test_video_whose_container_counts_wrong_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = cv2.VideoCapture

    class Miscounting:
        def __init__(self, *arguments: Any) -> None:
            self._capture = real(*arguments)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._capture, name)

        def get(self, key: int) -> float:
            return 0.0 if key == cv2.CAP_PROP_FRAME_COUNT else float(self._capture.get(key))

    monkeypatch.setattr(cv2, "VideoCapture", Miscounting)
    run(pictures(5), saving(tmp_path / "v.avi"))
    with VideoReader(tmp_path / "v.avi") as video:
        assert sum(1 for _ in video) == 5


def test_video_without_a_frame_is_no_file(tmp_path: Path) -> None:
    VideoSink(tmp_path / "v.mp4", 10).close(SUMMARY)
    assert list(tmp_path.iterdir()) == []


def test_video_of_a_slow_camera_keeps_its_time(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "v.avi", fps=10)
    # 10 fps announced; frames came at 0 s, 0.3 s, two within the same tenth of a second, and 0.6 s
    for value, time_s in ((0, 0.0), (80, 0.3), (160, 0.32), (240, 0.6)):
        sink.write(Frame(0, picture(value), time_s, "camera:0"), detections(0), partial(picture, value))
    sink.close(SUMMARY)
    with VideoReader(tmp_path / "v.avi") as video:
        levels = [round(float(frame.mean()) / 80) for frame in video]
    assert levels == [0, 1, 1, 1, 3, 3, 3]


@pytest.mark.parametrize(
    ("times_s", "frames"),
    [
        # the model loads for 7 s after the camera was opened
        ([7.0, 7.1, 7.2], 3),
        # a pause of a minute is cut to 2 s, and the time goes on from there
        ([0.0, 60.0, 60.1, 60.3], 1 + 20 + 1 + 2),
        # one of 2 s is not
        ([0.0, 2.0, 2.1], 22),
    ],
)
def test_video_of_a_camera_that_stands_still(tmp_path: Path, times_s: list[float], frames: int) -> None:
    sink = VideoSink(tmp_path / "v.avi", fps=10)
    for time_s in times_s:
        sink.write(Frame(0, picture(9), time_s, "camera:0"), detections(0), partial(picture, 9))
    sink.close(SUMMARY)
    with VideoReader(tmp_path / "v.avi") as video:
        assert sum(1 for _ in video) == frames


def test_video_brings_frames_to_the_first_size(tmp_path: Path) -> None:
    write_picture(tmp_path / "in/a.png", 200, (48, 64))
    write_picture(tmp_path / "in/b.png", 200, (96, 32))
    run(tmp_path / "in", saving(tmp_path / "v.avi"), results=[classes(0.5), classes(0.5)])
    with VideoReader(tmp_path / "v.avi") as video:
        frames = list(video)
    assert [f.shape for f in frames] == [(48, 64, 3)] * 2
    assert frames[1][20:, :20].mean() < 5
    assert frames[1][20:, 28:36].mean() > 190


@pytest.mark.parametrize(
    ("size_hw", "filled"),
    [
        ((10, 20), (0, 10, 0, 20)),
        ((10, 10), (0, 10, 5, 15)),
        ((40, 20), (0, 10, 7, 12)),
        ((1, 1000), (4, 5, 0, 20)),
    ],
)
def test_fit_into_keeps_the_aspect(size_hw: tuple[int, int], filled: tuple[int, int, int, int]) -> None:
    fitted = fit_into(picture(255, size_hw), (10, 20))
    expected = np.zeros((10, 20, 3), np.uint8)
    top, bottom, left, right = filled
    expected[top:bottom, left:right] = 255
    np.testing.assert_array_equal(fitted, expected)


def test_video_that_cannot_be_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Unavailable, match=r"v\.mp4: OpenCV cannot write 1×1 .*\.avi"):
        run(picture(1, (1, 1)), saving(tmp_path / "v.mp4"), results=[detections(0)])
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


def test_still_is_that_of_the_surest_frame(tmp_path: Path) -> None:
    """The highest mean score, and among equals the most boxes: a doubtful extra box does not win."""
    path = tmp_path / "new" / "best.png"
    results = [detections(0), detections(2, 0.8), detections(5, 0.5), detections(3, 0.8), detections(1, 0.7)]
    run(pictures(5), saving(path), results=results)
    assert read_image(path)[-1, -1].tolist() == [30, 30, 30]


def test_still_of_classes_is_that_of_the_best_score(tmp_path: Path) -> None:
    path = tmp_path / "best.png"
    run(pictures(3), saving(path), results=[classes(0.3), classes(0.9), classes(0.6)])
    assert read_image(path)[-1, -1].tolist() == [10, 10, 10]


@pytest.mark.parametrize("scores", [[-3.0, -1.0, -2.0], [float("nan"), 0.5, float("nan")]])
def test_still_of_classes_whose_scores_are_no_probabilities(tmp_path: Path, scores: list[float]) -> None:
    path = tmp_path / "best.png"
    run(pictures(3), saving(path), results=[classes(score) for score in scores])
    assert read_image(path)[-1, -1].tolist() == [10, 10, 10]


def test_still_is_written_where_nothing_is_found(tmp_path: Path) -> None:
    run(picture(40), saving(tmp_path / "x.jpg"), results=[detections(0)])
    np.testing.assert_allclose(read_image(tmp_path / "x.jpg"), picture(40), atol=2)


def test_folder_keeps_names_and_sub_folders(tmp_path: Path) -> None:
    for name in ("a.png", "a.bmp", "sub/a.png", "sub/deep/b.JPG", "a.bmp.png"):
        write_picture(tmp_path / "in" / name)
    run(tmp_path / "in", saving(f"{tmp_path}/out/"))
    out = tmp_path / "out"
    found = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    assert found == ["a.bmp-2.png", "a.bmp.png", "a.png", "sub/a.png", "sub/deep/b.JPG"]


def test_folder_of_one_image(tmp_path: Path) -> None:
    run(write_picture(tmp_path / "in" / "a.png"), saving(tmp_path / "out"))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.png"]


def test_folder_does_not_go_with_a_video(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a folder goes with pictures; for .*v\.avi give a \.mp4 or \.png"):
        run(write_video(tmp_path / "v.avi"), saving(tmp_path / "out"))


def test_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.gif is not written here; give a video \(\.mp4, \.mkv, \.avi\)"):
        run(picture(1), saving(tmp_path / "x.gif"))


@pytest.mark.parametrize(
    ("source", "save"),
    [
        ("in/a.png", "in/a.png"),
        ("in/a.png", "in"),
        ("in", "in"),
        ("in", "in/a.png"),
        ("in", "in/sub"),
        ("v.avi", "v.avi"),
    ],
)
def test_source_is_never_overwritten(tmp_path: Path, source: str, save: str) -> None:
    write_picture(tmp_path / "in/a.png")
    write_picture(tmp_path / "in/sub/a.png")
    write_video(tmp_path / "v.avi")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match="choose another"):
        run(tmp_path / source, saving(tmp_path / save))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_source_is_not_overwritten_through_a_link(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png")
    (tmp_path / "link.jsonl").symlink_to(path)
    with pytest.raises(InputError, match="is the source itself"):
        open_json(str(tmp_path / "link.jsonl"), open_source(path))


@pytest.mark.parametrize("suffix", [".mp4", ".png", ".jsonl", "", "/x.png"])
def test_name_that_is_too_long_is_refused_before_the_first_frame(tmp_path: Path, suffix: str) -> None:
    source = open_source(write_picture(tmp_path / "a.png"))
    with pytest.raises(InputError, match="File name too long"):
        (open_json if suffix == ".jsonl" else open_save)(f"{tmp_path}/{'n' * 300}{suffix}", source)


@pytest.mark.parametrize("name", ["file/x.mp4", "file/x.png", "file/x.jsonl", "file/deep/"])
def test_folder_that_cannot_be_made(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    source = open_source(write_picture(tmp_path / "a.png"))
    with pytest.raises(InputError, match="cannot be made a folder"):
        (open_json if name.endswith("jsonl") else open_save)(f"{tmp_path}/{name}", source)


def test_window_without_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecnn.stream import WindowSink

    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(DeviceUnavailable, match="no screen here"):
        WindowSink()


def test_window_without_a_window_system(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecnn.stream import WindowSink

    def refuse(*arguments: object) -> None:
        raise cv2.error("The function is not implemented")

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", refuse)
    with pytest.raises(DeviceUnavailable, match="pip install opencv-python"):
        WindowSink()


@pytest.mark.parametrize(
    ("key", "visible", "frames"), [("q", 1, 3), ("\x1b", 1, 3), ("x", 1, 5), ("x", 0, 3)]
)
def test_window_ends_with_q_esc_or_when_it_is_closed(
    monkeypatch: pytest.MonkeyPatch, key: str, visible: int, frames: int
) -> None:
    from edgecnn.stream import WindowSink

    shown: list[Any] = []
    monkeypatch.setenv("DISPLAY", ":0")
    for name in ("namedWindow", "resizeWindow", "destroyAllWindows"):
        monkeypatch.setattr(cv2, name, lambda *arguments: None)
    monkeypatch.setattr(cv2, "imshow", lambda title, image: shown.append(image))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: ord(key) if len(shown) == 3 else -1)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *arguments: visible if len(shown) == 3 else 1)
    summary = run(pictures(5), WindowSink())
    assert summary.frames == len(shown) == frames
