"""What is left of outputs when the program that writes them is killed (SIGKILL) at a random moment.

usage: python benchmarks/killed.py [--kills 50]

Each output is written by a program of its own at the pace of a camera of 100 frames a second and killed between 1 and 3
seconds after its first frame. Frames are those of vtest.avi (768×576, 10 a second), so a second of that video is 10 frames.
Exits with 1 when an output cannot be read or lacks more than it may.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tables import table

from edgecnn.stream.spool import Spool
from edgecnn.vision.video import VideoReader

# argv: the video, the folder for the output; frames are reported once the sink has returned
WRITER = """
import itertools, sys, time
from pathlib import Path
from edgecnn.results import Detections
from edgecnn.stream import Frame, JsonlSink, VideoSink
from edgecnn.stream.spool import Spool
from edgecnn.vision.opencv import cv2
from edgecnn.vision.video import VideoReader

class SpoolSink:
    def __init__(self, spool):
        self.spool = spool
    def write(self, frame, result, annotated):
        assert self.spool.append(str(frame.index).encode())

cv2.setNumThreads(1)
folder = Path(sys.argv[2])
with VideoReader(sys.argv[1]) as video:
    images = list(itertools.islice(video, 100))
sink = {sink}
start = time.monotonic()
for index in range(10**6):
    image = images[index % 100]
    sink.write(Frame(index, image, index / 10, "camera:0"), Detections.empty(), lambda: image)
    print(index, flush=True)
    time.sleep(max(start + index / 100 - time.monotonic(), 0))
"""


@dataclass(frozen=True)
class Output:
    """One kind of output.

    Attributes:
        name: For the table.
        sink: The expression that makes it.
        read: Gives the frames that can be read.
        may_lack: Frames.
    """

    name: str
    sink: str
    read: Callable[[Path], int]
    may_lack: float


def in_videos(folder: Path) -> int:
    """Frames of all videos under their names; of a segment that has just begun nothing may be written."""
    total = 0
    for path in (path for path in folder.glob("v*") if path.stat().st_size):
        with VideoReader(path) as video:
            total += sum(1 for _ in iter(video.skip, False))
    return total


def in_lines(folder: Path) -> int:
    """Lines, all of which are whole but the last, and in order."""
    paths = sorted(folder.glob("o.jsonl.*"), key=lambda path: -int(path.suffix[1:]))
    text = "".join(path.read_text() for path in (*paths, folder / "o.jsonl") if path.exists())
    numbers = [json.loads(line)["frame"] for line in text.split("\n")[:-1]]
    assert numbers == list(range(len(numbers)))
    return len(numbers)


def in_spool(folder: Path) -> int:
    """Records, in order."""
    spool, found = Spool(folder / "spool", 10**7), 0
    while records := spool.oldest(1000, 0):
        assert [int(record.data) for record in records] == list(range(found, found + len(records)))
        found += len(records)
        spool.acknowledge(records[-1].number)
    spool.close()
    return found


OUTPUTS = [
    Output("`--save v.mkv`", 'VideoSink(folder / "v.mkv", 10)', in_videos, 60),
    Output("`--save v.mkv --segment 2`", 'VideoSink(folder / "v.mkv", 10, 2)', in_videos, 21),
    Output("`--save v.mp4 --segment 2`", 'VideoSink(folder / "v.mp4", 10, 2)', in_videos, 21),
    Output("`--save v.avi --segment 2`", 'VideoSink(folder / "v.avi", 10, 2)', in_videos, 21),
    Output("`--json`, rotated", 'JsonlSink(str(folder / "o.jsonl"), 10_000, 10**6)', in_lines, 0),
    Output("spool", 'SpoolSink(Spool(folder / "spool", 10**7))', in_spool, 0),
]


def lacking(output: Output, video: Path, rng: random.Random) -> tuple[int, int]:
    """Frames that were reported before a kill, and how many of them are not in the output."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", WRITER.format(sink=output.sink), str(video), folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(rng.uniform(1, 3))
            process.kill()
            reported = 1 + len(process.stdout.read().split("\n")[:-1])
        return reported, max(reported - output.read(Path(folder)), 0)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="of each output")
    kills = parser.parse_args().kills
    video = Path(os.environ.get("EDGECNN_DATA", "../shared/data")) / "video" / "vtest.avi"
    if not video.exists():
        print(f"test data video/vtest.avi is not at {video.parent}; set EDGECNN_DATA (docs/data.md)")
        return 2
    rng, rows, missed = random.Random(0), [], False
    for output in OUTPUTS:
        found = [lacking(output, video, rng) for _ in range(kills)]
        reported = sum(count for count, _ in found)
        lost = sorted(count for _, count in found)
        missed |= lost[-1] > output.may_lack
        median = statistics.median(lost)
        rows.append(
            [output.name, str(kills), str(reported), f"{median:g}", f"{lost[-1]}", f"{lost[-1] / 10:.1f} s"]
        )
    head = ["output", "kills", "frames reported", "lacking, median", "lacking, most", "of video"]
    print(table(head, rows))
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
