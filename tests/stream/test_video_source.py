"""Video files, which are read in a process of their own: what they do to it stays there."""

from __future__ import annotations

import gc
import itertools
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgecnn.cli.main import main
from edgecnn.errors import InputError, MediaError
from edgecnn.stream import Source, VideoSink, files, open_source, reading
from edgecnn.stream.files import VideoSource
from edgecnn.vision.video import VideoReader
from tests.fuzz.targets import CORPUS
from tests.paths import ROOT, data
from tests.stream.fakes import write_video
from tests.stream.receivers import until

SIDE = 12_000  # of 144 million pixels, more than the limit


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "v.avi", count=8)


def waits(source: Source) -> bool:
    """Whether one and the same frame is waited for at two looks."""
    watch = source._reader._watch  # type: ignore[attr-defined]
    limit = watch._limit
    time.sleep(0.2)
    return limit is not None and watch._limit is limit


@pytest.mark.parametrize("way", ["memory", "pipe"])
def test_frames_are_those_of_the_reader(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "pipe":
        monkeypatch.setattr(reading, "_memory", lambda: None)
    path = data("video/one-by-one-person-detection.mp4")
    with open_source(path) as source, VideoReader(path) as reader:
        assert isinstance(source, VideoSource)
        assert (source.fps, source.frames_announced) == (reader.fps, reader.announced_frames)
        frames = [frame.image for frame in itertools.islice(source, 20)]  # none is written over later
        for frame, image in zip(frames, reader):
            assert frame.tobytes() == image.tobytes()


def test_the_process_ends_with_the_video_and_when_it_is_closed(video: Path) -> None:
    whole = open_source(video)
    assert len(list(whole)) == 8
    assert whole._reader._process.returncode is not None  # type: ignore[attr-defined]
    with open_source(video) as begun:
        next(begun)
    assert begun._reader._process.returncode is not None  # type: ignore[attr-defined]
    assert list(begun) == []


def test_a_source_that_is_forgotten_ends_its_process(video: Path) -> None:
    source = open_source(video)
    next(source)
    process = source._reader._process  # type: ignore[attr-defined]
    del source
    gc.collect()
    assert process.returncode is not None


def test_a_process_that_takes_its_frames_back(video: Path) -> None:
    with open_source(video) as source:
        next(source)
        memory = source._reader._memory  # type: ignore[attr-defined]
        # until the next one is there, in the other slot
        until(lambda: os.fstat(memory).st_size > reading.SLOT_BYTES)
        os.ftruncate(memory, 0)
        with pytest.raises(MediaError, match="its process gives less than a frame"):
            list(source)


def test_a_file_that_kills_the_process_is_an_error_with_its_name(video: Path) -> None:
    with open_source(video) as source:
        next(source)
        source._reader._process.kill()  # type: ignore[attr-defined]
        with pytest.raises(MediaError, match=r"v\.avi: broke off after \d frames \(its process died\)$"):
            list(source)


@pytest.mark.parametrize(
    ("does", "message"),
    [("os.abort()", "its process died"), ("time.sleep(60)", "it does not answer within 1 s")],
)
def test_a_file_that_cannot_even_be_opened_without_harm(
    video: Path,
    does: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = (
        "import os, time, edgecnn.vision.video as v, edgecnn.stream.reader as r\n"
        f"v.VideoReader = lambda path: {does}\n"
        "r.main()"
    )
    monkeypatch.setattr(reading, "PROGRAM", ("-c", program))
    monkeypatch.setattr(reading, "OPEN_S", 1.0)
    monkeypatch.setattr(files, "VIDEO_TIMEOUT_S", 1.0)
    assert main(["run", "--source", str(video), "-q"]) == 2
    assert capsys.readouterr().err == f"edgecnn: error: {video}: {message}\n"


def test_a_decoder_that_hangs_is_ended(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "VIDEO_TIMEOUT_S", 1.0)
    with open_source(video) as source:
        next(source)
        os.kill(source._reader._process.pid, signal.SIGSTOP)  # type: ignore[attr-defined]
        with pytest.raises(MediaError, match=r"broke off after \d frames \(no frame for 1 s\)$"):
            list(source)


def test_who_closes_it_does_not_wait_for_a_decoder_that_hangs(video: Path) -> None:
    source = open_source(video)
    os.kill(source._reader._process.pid, signal.SIGSTOP)  # type: ignore[attr-defined]
    waiting = threading.Thread(target=lambda: list(source), daemon=True)
    waiting.start()
    until(lambda: waits(source))
    source.close()
    waiting.join(files.VIDEO_TIMEOUT_S / 2)
    assert not waiting.is_alive()


def test_a_program_that_is_stopped_for_a_while_goes_on(video: Path) -> None:
    """As with Ctrl-Z and fg: the time during which nobody runs is nobody's fault."""
    program = (
        "import os, signal, sys, threading\n"
        "from edgecnn.stream import files, open_source\n"
        "from tests.stream.test_video_source import until, waits\n"
        "files.VIDEO_TIMEOUT_S = 2.0\n"
        "source = open_source(sys.argv[1])\n"
        "reader = source._reader._process.pid\n"
        "os.kill(reader, signal.SIGSTOP)\n"
        "def tell():\n"
        "    until(lambda: waits(source))\n"
        "    print(reader, flush=True)\n"
        "threading.Thread(target=tell).start()\n"
        "print(len(list(source)))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(video)], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        reader = int(process.stdout.readline())
        process.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        process.send_signal(signal.SIGCONT)
        os.kill(reader, signal.SIGCONT)
        assert process.stdout.read() == b"8\n"


@pytest.mark.parametrize("codec", ["raw", "jpeg"])
def test_an_enormous_size_is_refused_before_it_is_decoded(tmp_path: Path, codec: str) -> None:
    """Frames without compression, whose size nothing but the header says; and JPEGs that say it too."""
    changed = bytearray((CORPUS / "video" / "a.avi").read_bytes())
    form = changed.index(b"strf") + 8  # a BITMAPINFOHEADER
    changed[form + 4 : form + 12] = struct.pack("<ii", SIDE, SIDE)
    if codec == "raw":
        changed[form + 14 : form + 20] = struct.pack("<HI", 24, 0)
    for start in re.finditer(b"\xff\xc0", bytes(changed)):
        changed[start.end() + 3 : start.end() + 7] = struct.pack(">HH", SIDE, SIDE)
    (tmp_path / "v.avi").write_bytes(changed)
    with pytest.raises(MediaError, match=rf"v\.avi: {SIDE}×{SIDE} px is more than the"):
        open_source(tmp_path / "v.avi")


def test_the_process_gets_no_more_memory_than_a_video_can_need() -> None:
    program = "from edgecnn.stream.reader import _limit_memory as limit; limit(); bytearray(2**{})"
    for power, code in ((20, 0), (32, 1)):
        done = subprocess.run([sys.executable, "-c", program.format(power)], capture_output=True, check=False)
        assert (done.returncode, b"MemoryError" in done.stderr) == (code, bool(code))


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes on Linux")
def test_a_name_that_is_no_text_is_refused(video: Path) -> None:
    """OpenCV crashes over it."""
    other = Path(os.fsdecode(os.fsencode(video.parent) + b"/\xff.avi"))
    video.rename(other)
    for opens in (open_source, VideoReader, lambda path: VideoSink(path, 10.0)):
        with pytest.raises(InputError, match="a name that is not UTF-8; rename it"):
            opens(other)  # type: ignore[operator]
