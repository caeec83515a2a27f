"""A small tracker: detections of one frame after the other become tracks, and tracks cross a line.

Made for a camera that does not move and gives some ten frames a second; people_counter.py uses it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from edgecnn.vision import iou_matrix

__all__ = ["Floats", "Line", "Track", "Tracker"]

Floats = npt.NDArray[np.floating]

START_SCORE = 0.7  # a weaker detection goes on with a track, but begins none
MIN_IOU = 0.2
MAX_MISSED = 20  # frames for which somebody may be hidden
MIN_HITS = 3
MIN_WALK = 0.5  # of the own height, from where the track began
MARGIN = 0.1  # of the own height: nearer to a line, feet are on neither side of it


@dataclass(eq=False)
class Track:
    """What is taken for one person, while its detections follow each other.

    Attributes:
        box: x1 y1 x2 y2 of its last detection.
        score: Of that detection.
        id: 1, 2, … in the order in which tracks became somebody, by walking; 0 before.
        velocity: Pixels a frame of each side of the box, smoothed.
        hits: Its detections.
        missed: Frames since the last one.
        origin: Where its feet were first, x y.
    """

    box: Floats
    score: float
    id: int = 0
    velocity: Floats = field(default_factory=lambda: np.zeros(4))
    hits: int = 1
    missed: int = 0
    origin: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.origin = self.feet

    @property
    def feet(self) -> Floats:
        """Middle of the lower edge, x y."""
        return np.array([(self.box[0] + self.box[2]) / 2, self.box[3]])

    @property
    def height(self) -> float:
        """Of the box, in pixels."""
        return float(self.box[3] - self.box[1])

    @property
    def expected(self) -> Floats:
        """Where the next frame's box will be at this velocity."""
        return self.box + self.velocity * (self.missed + 1)

    @property
    def has_walked(self) -> bool:
        """What stays where it was is a sign or a cone that looks like somebody."""
        walk_px = float(np.hypot(*(self.feet - self.origin)))
        return self.hits >= MIN_HITS and walk_px > MIN_WALK * self.height

    def follow(self, box: Floats, score: float) -> None:
        """Go on with a detection."""
        self.velocity = 0.7 * self.velocity + 0.3 * (box - self.box) / (self.missed + 1)
        self.box, self.score, self.hits, self.missed = box, score, self.hits + 1, 0


class Tracker:
    """Keeps the tracks of one camera.

    Attributes:
        tracks: Those that go on, with the ones that are hidden.
        ids: How many became somebody so far.
    """

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self.ids = 0

    def update(self, boxes: Floats, scores: Floats) -> list[Track]:
        """Take the detections of the next frame and give all tracks.

        A track goes on with the detection that its expected box overlaps; greedily, the pair of largest IoU
        first. What belongs to no track begins one.

        Args:
            boxes: (n, 4), x1 y1 x2 y2.
            scores: (n,), in 0..1.
        """
        iou = iou_matrix(np.reshape([track.expected for track in self.tracks], (-1, 4)), boxes)
        hidden, new = set(range(len(self.tracks))), set(range(len(boxes)))
        for t, b in sorted(np.argwhere(iou >= MIN_IOU).tolist(), key=lambda pair: -iou[tuple(pair)]):
            if t in hidden and b in new:
                self.tracks[t].follow(boxes[b], float(scores[b]))
                hidden.remove(t)
                new.remove(b)
        for t in hidden:
            self.tracks[t].missed += 1
        self.tracks = [track for track in self.tracks if track.missed <= MAX_MISSED]
        self.tracks += [Track(boxes[b], float(scores[b])) for b in sorted(new) if scores[b] >= START_SCORE]
        for track in self.tracks:
            if not track.id and track.has_walked:
                self.ids += 1
                track.id = self.ids
        return self.tracks


class Line:
    """Two points between which tracks cross.

    Attributes:
        start, end: x y in pixels of the frame.
        crossed: How many tracks went ``in``, to the right of start → end as the picture shows it, and
            how many ``out``.
    """

    def __init__(self, start: Floats, end: Floats) -> None:
        self.start, self.end = start, end
        self.crossed = {"in": 0, "out": 0}
        self._clear: WeakKeyDictionary[Track, Floats] = WeakKeyDictionary()

    def watch(self, tracks: list[Track]) -> None:
        """Count tracks whose feet came from one side to the other, since they were last clear of the line.

        What is nobody is not counted. Once it becomes somebody, it came from where it was first clear.
        """
        length_px = np.hypot(*(self.end - self.start))
        for track in tracks:
            feet = track.feet
            away = turn(self.start, self.end, feet)
            if abs(away) < MARGIN * track.height * length_px or (track in self._clear and not track.id):
                continue
            if meet(self._clear.get(track, feet), feet, self.start, self.end):
                self.crossed["in" if away > 0 else "out"] += 1
            self._clear[track] = feet


def turn(a: Floats, b: Floats, c: Floats) -> float:
    """Positive where c is on the right of a → b (y is down), 0 on its line.

    ``cross(b - a, c - a)``, which is the distance of c from the line times that of a from b.
    """
    (abx, aby), (acx, acy) = b - a, c - a
    return float(abx * acy - aby * acx)


def meet(a: Floats, b: Floats, c: Floats, d: Floats) -> bool:
    """Whether the way from a to b crosses that from c to d: each has the ends of the other on both sides."""
    return turn(a, b, c) * turn(a, b, d) < 0 and turn(c, d, a) * turn(c, d, b) < 0
