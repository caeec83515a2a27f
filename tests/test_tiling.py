"""A detector on large frames: what is small is found once, wherever the borders of tiles are."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgecnn
from edgecnn import Bundle, ModelSpec
from edgecnn.errors import InputError
from edgecnn.predictor import Predictor
from edgecnn.runtimes import Artifact, Feeds, Outputs, RuntimeOptions, backend
from edgecnn.vision.opencv import cv2
from tests.bundles import null_predictor, write_mean_color

SPEC = ModelSpec(
    task="detection",
    decoder="yolo_anchor_free",
    size_hw=(64, 64),
    resize="letterbox",
    pad_value=0,
    labels=("square",),
    threshold=0.5,
)
MOST = 40
SEEN: list[tuple[int, ...]] = []


def squares(feeds: Feeds) -> list[npt.NDArray[Any]]:
    """A box for each white spot, of at most 40, surer the larger it is; (N, 5, 40)."""
    (images,) = feeds.values()
    SEEN.append(images.shape)
    columns = np.zeros((len(images), 5, MOST), np.float32)
    for i, image in enumerate(images):
        _, _, spots, _ = cv2.connectedComponentsWithStats((image[..., 0] > 254).astype(np.uint8))
        for j, (left, top, width, height, area) in enumerate(spots[1 : MOST + 1]):
            score = 0.5 + area / 10_000
            columns[i, :, j] = left + width / 2, top + height / 2, width, height, score
    return [columns]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_mean_color(tmp_path_factory.mktemp("tiles") / "a.edge", SPEC)


def detector(bundle: Bundle, tiles: float | None = 0.25) -> Predictor:
    return null_predictor(bundle, squares, tiles=tiles)


def boxes(predictor: Predictor, frame: npt.NDArray[np.uint8]) -> list[list[float]]:
    found = predictor(frame)
    assert isinstance(found, edgecnn.Detections)
    return sorted(found.boxes.tolist())


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(70, 300), st.integers(70, 300))
def test_small_objects_are_found_once(bundle: Bundle, seed: int, height: int, width: int) -> None:
    """At most 12 pixels large: less than the 16 of the overlap. So far apart that none touch in the whole frame."""
    rng = np.random.default_rng(seed)
    frame, wanted = np.zeros((height, width, 3), np.uint8), []
    for top in range(0, height - 24, 36):
        for left in range(0, width - 24, 36):
            if rng.uniform() < 0.3:
                w, h = rng.integers(4, 13, 2)
                x, y = left + rng.integers(0, 12), top + rng.integers(0, 12)
                frame[y : y + h, x : x + w] = 255
                wanted.append([float(x), float(y), float(x + w), float(y + h)])
    assert boxes(detector(bundle), frame) == sorted(wanted)


def test_what_is_larger_than_a_tile_is_found_in_the_whole_frame(bundle: Bundle) -> None:
    frame = np.zeros((256, 256, 3), np.uint8)
    frame[32:224, 64:192] = 255
    found = boxes(detector(bundle), frame)
    assert [64, 32, 192, 224] in found


def test_batches_are_even(bundle: Bundle) -> None:
    """Two rows of four tiles and the whole frame: five and four, not eight and one."""
    SEEN.clear()
    detector(bundle)(np.zeros((100, 200, 3), np.uint8))
    assert SEEN == [(5, 64, 64, 3), (4, 64, 64, 3)]


def test_batches_of_a_fixed_size_are_filled_up(bundle: Bundle) -> None:
    frame = np.zeros((100, 200, 3), np.uint8)
    frame[10:20, 30:40] = frame[70:80, 190:195] = 255
    fixed = detector(bundle)
    fixed._fixed_batch = 4
    SEEN.clear()
    assert boxes(fixed, frame) == [[30, 10, 40, 20], [190, 70, 195, 80]]
    assert SEEN == [(4, 64, 64, 3)] * 3


def test_an_engine_for_throughput_gets_several_tiles_at_once(bundle: Bundle) -> None:
    """The second comes while the first is under way, and what they find is what one after the other finds."""

    class Abreast(backend("null")):  # type: ignore[misc]
        parallel = 2
        pool = ThreadPoolExecutor(2)

        def submit(self, feeds: Feeds) -> Future[Outputs]:
            return self.pool.submit(self.run, feeds)

    second = threading.Event()
    seen: list[tuple[int, ...]] = []

    def answer(feeds: Feeds) -> list[npt.NDArray[Any]]:
        seen.append(feeds["image"].shape)
        if len(seen) > 1:
            second.set()
        assert second.wait(10)
        return squares(feeds)

    frame = np.zeros((100, 200, 3), np.uint8)
    frame[10:20, 30:60] = frame[70:80, 100:105] = 255
    artifact = Artifact("null", None, "null", bundle.manifest.inputs, bundle.manifest.outputs)
    abreast = Abreast(artifact, RuntimeOptions(), answer)
    with Abreast.pool, Predictor(bundle, abreast, bundle.manifest.spec, tiles=0.25) as predictor:
        assert boxes(predictor, frame) == boxes(detector(bundle), frame)
    assert seen == [(1, 64, 64, 3)] * 9


def test_a_frame_that_fits_is_looked_at_once(bundle: Bundle) -> None:
    SEEN.clear()
    detector(bundle)(np.zeros((64, 50, 3), np.uint8))
    assert SEEN == [(1, 64, 64, 3)]


def test_times_of_all_tiles(bundle: Bundle) -> None:
    result = detector(bundle)(np.zeros((100, 200, 3), np.uint8))
    assert list(result.timing_ms) == ["geometry", "infer", "decode", "nms"]
    assert all(ms > 0 for ms in result.timing_ms.values())


def test_another_process_has_the_same_tiles(tmp_path: Path) -> None:
    bundle = write_mean_color(tmp_path / "a.edge", SPEC)
    with edgecnn.load(bundle, tiles=0.3) as opened, pickle.loads(pickle.dumps(opened)) as again:
        assert again.tiles == 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tiles": 1.5}, "tiles: an overlap is at least 0 and below 1, not 1.5"),
        ({"still": 3}, "still: goes with window_detection, not with detection"),
    ],
)
def test_options_that_do_not_fit(bundle: Bundle, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        edgecnn.load(bundle, **options)


def test_other_ways_to_suppress_have_no_tiles(tmp_path: Path) -> None:
    bundle = write_mean_color(tmp_path / "a.edge", SPEC.replace(nms_method="fusion"))
    with pytest.raises(InputError, match="tiles: go with nms_method 'hard', not 'fusion'"):
        edgecnn.load(bundle, tiles=0.2)


def test_other_tasks_have_no_tiles(tmp_path: Path) -> None:
    spec = ModelSpec(task="classification", size_hw=(8, 8), activation="none")
    write_mean_color(tmp_path / "a.edge", spec)
    with pytest.raises(InputError, match="tiles: go with detection, not with classification"):
        edgecnn.load(tmp_path / "a.edge", tiles=0.2)
