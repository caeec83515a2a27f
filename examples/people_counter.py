"""Counts the people who cross a line, on a video or camera: a detector, a small tracker and two points.

usage: python examples/people_counter.py BUNDLE SOURCE --line X1,Y1,X2,Y2 [--save counted.mp4]

Prints a line of JSON a frame: how many people are present, the tracks so far, and how many crossed the line
in (to the right of an arrow from its first to its second point, as the picture shows it) and out. The last
line is a summary, also after Ctrl-C. The camera must not move: what never walks is nobody. Somebody who was
hidden for long comes back as another track.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from tracking import Floats, Line, Track, Tracker

import edgecnn
from edgecnn.errors import InputError
from edgecnn.stream import EndOfStream, Frame, Sink, Summary, open_save, open_source, run_stream
from edgecnn.vision import draw

Image = npt.NDArray[np.uint8]

PRESENT_MISSED = 2  # frames for which somebody is still present without a detection
RED = (0, 0, 255)
PIXELS_MAX = 2**15


class PeopleCounter(Sink):
    """Counts as frames come, and prints what it knows after each."""

    def __init__(self, label: str, line: Line, video: Sink | None) -> None:
        self.label, self.line, self.video = label, line, video
        self.tracker = Tracker()

    def write(self, frame: Frame, result: edgecnn.Detections, annotated: Callable[[], Image]) -> None:
        """Take the detections of a frame.

        Raises:
            EndOfStream: Nobody reads the lines any more.
        """
        people = result[np.array([label == self.label for label in result.labels], bool)]
        tracks = self.tracker.update(people.boxes, people.scores)
        self.line.watch(tracks)
        present = [track for track in tracks if track.id and track.missed <= PRESENT_MISSED]
        if not self.say({"frame": frame.index, "present": len(present), **self.counts}):
            raise EndOfStream
        if self.video:
            self.video.write(frame, result, lambda: self.picture(frame.image, present))

    def close(self, summary: Summary) -> None:
        """The stream has ended."""
        try:
            self.say({"summary": {"frames": summary.frames, "fps": summary.fps, **self.counts}})
        finally:
            if self.video:
                self.video.close(summary)

    @property
    def counts(self) -> dict[str, int]:
        """Of the whole stream until now."""
        return {"tracks": self.tracker.ids, **self.line.crossed}

    def say(self, values: dict[str, Any]) -> bool:
        """Print a line of JSON; False where nobody reads them any more."""
        try:
            print(json.dumps(values), flush=True)
        except BrokenPipeError:  # Python tries it again at its end, and would fail there too
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return False
        return True

    def picture(self, image: Image, present: list[Track]) -> Image:
        """The frame with its tracks by number, the line, and the counts."""
        ids = [track.id for track in present]
        boxes, scores = [track.box for track in present], [track.score for track in present]
        canvas = draw(image, edgecnn.Detections(boxes, scores, ids, [f"{self.label} {n}" for n in ids]))
        start, end = (tuple(point.round().astype(int).tolist()) for point in (self.line.start, self.line.end))
        cv2.arrowedLine(canvas, start, end, RED, 2)
        text = f"in {self.line.crossed['in']}, out {self.line.crossed['out']}, present {len(present)}"
        cv2.putText(canvas, text, (10, canvas.shape[0] - 12), cv2.FONT_HERSHEY_SIMPLEX, 0.7, RED, 2)
        return canvas


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", help="of a detector")
    parser.add_argument("source", help="a video, a camera's number, or a URL")
    parser.add_argument("--line", type=line, required=True, metavar="X1,Y1,X2,Y2", help="pixels of the frame")
    parser.add_argument("--label", default="person", help="what to count")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--tiles", type=float, help="look at tiles too, that overlap by this share")
    parser.add_argument("--save", help="the video with its tracks: a name that ends in .mp4, .mkv or .avi")
    options = parser.parse_args(arguments)
    try:
        with (
            edgecnn.load(options.bundle, runtime=options.runtime, tiles=options.tiles) as detector,
            open_source(options.source) as source,
        ):
            if "detection" not in detector.spec.task or options.label not in detector.spec.labels:
                raise InputError(f"{options.bundle}: does not detect {options.label}; give another --label")
            video = open_save(options.save, source) if options.save else None
            counter = PeopleCounter(options.label, Line(*options.line), video)
            run_stream(detector, source, [counter], workers=detector.workers)
    except KeyboardInterrupt:
        return 130
    except edgecnn.EdgeCnnError as error:
        print(f"people_counter: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"people_counter: the counts cannot be written ({error.strerror})", file=sys.stderr)
        return 3
    return 0


def line(text: str) -> Floats:
    """The points of ``X1,Y1,X2,Y2``."""
    with suppress(ValueError):
        points = np.array([float(number) for number in text.split(",")]).reshape(2, 2)
        if np.all(np.abs(points) < PIXELS_MAX) and np.any(points[0] != points[1]):
            return points
    raise argparse.ArgumentTypeError(f"{text}: not two points, as 190,150,190,340")


if __name__ == "__main__":
    sys.exit(main())
