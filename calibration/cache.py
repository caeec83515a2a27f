"""Observations kept on disk, so that what was seen once need not be run again."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecnn import paths
from edgecnn.calibration.activations import IMAGES_A_RUN, OnProgress, observe
from edgecnn.calibration.observers import BINS, MOMENTUM, Observation
from edgecnn.npz import decode_npz, encode_npz

__all__ = ["FILES_MAX", "cache_folder", "observe_cached"]

log = logging.getLogger(__name__)

FILES_MAX = 50
# raised when a file of before would be misunderstood, or observers see something else
FORMAT_VERSION = 1

COUNTS = "counts"
NUMBERS = [field.name for field in fields(Observation) if field.name != COUNTS]


def observe_cached(
    model: bytes,
    tensors: Sequence[str],
    images: npt.NDArray[np.uint8],
    *,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
    cache_dir: Path | None = None,
) -> dict[str, Observation]:
    """As `observe`, or from the cache where the same was observed before.

    The same is: every byte of the model (its graph, weights and preprocessing), the tensors, every byte of
    the images, and how observers count. The recipe that makes ranges of it does not belong to it: ranges
    are found from the histogram, so another recipe uses the same observations.

    Args:
        model: As `observe`, like tensors and threads.
        tensors: See model.
        images: uint8 (n, h, w, c).
        threads: See model.
        on_progress: As `observe`; not called where the cache answers.
        cache_dir: Where the files are; None is `cache_folder`. The newest `FILES_MAX` are kept. A folder
            that cannot be used costs a warning, and the next run the time.

    Raises:
        ModelError, InputError: As `observe`.
    """
    file = (cache_dir or cache_folder()) / f"{_key(model, tensors, images)}.npz"
    kept = _read(file, tensors)
    if kept is not None:
        log.info("observations of %d tensors taken from %s", len(kept), file)
        return kept
    seen = observe(model, tensors, [images], threads=threads, on_progress=on_progress)
    try:
        _write(file, seen)
    except OSError as error:
        log.warning("%s: observations cannot be kept (%s)", file.parent, error.strerror)
    return seen


def cache_folder() -> Path:
    """``observations`` in the user's cache; see `edgecnn.paths.cache_dir`."""
    return paths.cache_dir() / "observations"


def _key(model: bytes, tensors: Sequence[str], images: npt.NDArray[np.uint8]) -> str:
    method = (FORMAT_VERSION, BINS, MOMENTUM, IMAGES_A_RUN)
    parts = (repr((method, list(tensors), images.shape)).encode(), model, np.ascontiguousarray(images).data)
    digest = hashlib.sha256()
    for part in parts:
        # the hash of each part, so that no byte can move from one part to the next
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _read(file: Path, tensors: Sequence[str]) -> dict[str, Observation] | None:
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s: cannot be read (%s), observing again", file, error.strerror)
        return None
    try:
        arrays = decode_npz(content, str(file))
        return {name: _observation(arrays, row) for row, name in enumerate(tensors)}
    except Exception:  # of all kinds, from whatever a damaged archive holds
        log.warning("%s: damaged, observing again", file)
        return None


def _observation(arrays: Mapping[str, npt.NDArray[np.generic]], row: int) -> Observation:
    numbers = {name: arrays[name][row].item() for name in NUMBERS}
    counts = arrays[COUNTS][row].astype(np.int64)
    if counts.shape != (BINS,) or counts.sum() != numbers["n"]:
        raise ValueError(f"the counts of row {row} are not those of its values")
    return Observation(counts=counts, **numbers)


def _write(file: Path, seen: Mapping[str, Observation]) -> None:
    rows = list(seen.values())
    arrays = {name: np.array([getattr(row, name) for row in rows]) for name in (*NUMBERS, COUNTS)}
    paths.make_private(file.parent)
    paths.replace_file(file, encode_npz(arrays))
    newest = sorted(file.parent.glob("*.npz"), key=_age)
    for old in newest[FILES_MAX:]:
        # another process may have been faster
        with suppress(OSError):
            old.unlink()


def _age(file: Path) -> float:
    """Newest first; a file that is gone is the oldest."""
    try:
        return -file.stat().st_mtime
    except OSError:
        return 0.0
