"""All windows of an image at once: which artifacts get such a form, by comparing it with cut windows."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath

import msgspec
import numpy as np
import numpy.typing as npt

from edgecnn.calibration.data import FrameSource, draw_frames, generate_frames
from edgecnn.converters.base import model_errors
from edgecnn.converters.onnx_dense import OnnxToDense
from edgecnn.converters.onnx_openvino import OnnxToOpenVino
from edgecnn.draft import Draft
from edgecnn.errors import EdgeCnnError, InputError, ModelError, first_line, require
from edgecnn.inference import Inference
from edgecnn.manifest import ArtifactEntry, DenseForm
from edgecnn.progress import OnStep, silent_step
from edgecnn.runtimes import Artifact, RuntimeOptions, backend
from edgecnn.spec import ModelSpec
from edgecnn.timing import compare_speed
from edgecnn.vision.color import check_frame
from edgecnn.vision.decode import reported
from edgecnn.vision.windows import Level, level_image, pyramid

__all__ = ["LARGEST_DIFFERENCE", "LEAST_AGREEMENT", "Scenes", "draw_scenes", "with_dense"]

log = logging.getLogger(__name__)

LEAST_AGREEMENT = 0.995
LARGEST_DIFFERENCE = 1e-5  # of scores, where the two compute the same in fp32
FRAMES = 8
# of each level of each frame a part of at most so many windows on a side is looked at
WINDOWS_A_SIDE = 21
SPEED_SECONDS = 0.5
RUNTIMES = {"onnx": "ort", "openvino": "openvino"}


@dataclass(frozen=True)
class Scene:
    """A part of a level as a frame of its own, uint8 (h, w, 3) BGR, with its windows as the only level."""

    image: npt.NDArray[np.uint8]
    level: Level


@dataclass(frozen=True)
class Scenes:
    """What dense forms are compared on; ``real`` where it is not made up."""

    parts: tuple[Scene, ...]
    real: bool


class NotDense(Exception):
    """Why an artifact gets no dense form."""


def draw_scenes(source: FrameSource | None, spec: ModelSpec) -> Scenes:
    """A part of each level of some frames, spread evenly over a source; none for other tasks than windows.

    Args:
        source: As `draw_frames`. Parts with a single window are left out: its border is that of the image.
        spec: The model's spec.

    Raises:
        InputError: The source is of no known kind, or a frame of it is not uint8 BGR.
        MediaError: It holds no frame, or one cannot be read.
    """
    if spec.window is None:
        return Scenes((), real=False)
    frames, real = draw_frames(source, FRAMES)
    parts = tuple(_parts(frames, spec))
    if parts:
        return Scenes(parts, real)
    enlarged = (spec.window.min_size or 0) / min(spec.size_hw)
    side = math.ceil(2 * max(spec.size_hw) * max(enlarged, 1)) + spec.window.stride
    return Scenes(tuple(_parts(generate_frames(FRAMES, size_hw=(side, side)), spec)), real=False)


def with_dense(
    draft: Draft,
    scenes: Scenes,
    *,
    threads: int | None = None,
    speed_gate: bool = True,
    on_step: OnStep | None = None,
) -> Draft:
    """Give the artifacts of a model of windows their dense forms.

    A form is kept if its scores are those of cut windows, and it is faster here. Where the network pads its
    layers, windows inside an image see other pixels there than windows that were cut out; then decisions have
    to agree on real frames.

    Args:
        draft: With all of its artifacts; one of another task is given back as it is.
        scenes: From `draw_scenes`.
        threads: Threads of the engine; None is all processors.
        speed_gate: Keep only what is faster here.
        on_step: Called with the name and the seconds of each form.
    """
    manifest, contents = draft.manifest, dict(draft.contents)
    if manifest.spec.window is None:
        return draft
    entries: list[ArtifactEntry] = []
    reasons: list[str] = []
    for entry in manifest.artifacts:
        start = time.perf_counter()
        try:
            made = _dense(draft, entry, scenes, threads=threads, timed=speed_gate)
        except (NotDense, EdgeCnnError) as error:
            reasons.append(f"{entry.id}: {first_line(error)}")
            made = None
        if made is not None:
            entry, files = made
            contents |= files
            (on_step or silent_step)(f"dense {entry.id}", time.perf_counter() - start)
        entries.append(entry)
    for reason in reasons:
        log.warning("windows are cut out one by one: %s", reason)
    changed = msgspec.structs.replace(manifest, artifacts=tuple(entries), not_dense="; ".join(reasons))
    return Draft(changed, contents)


def _dense(
    draft: Draft,
    entry: ArtifactEntry,
    scenes: Scenes,
    *,
    threads: int | None,
    timed: bool,
) -> tuple[ArtifactEntry, dict[str, bytes]] | None:
    """An artifact with its dense form, and the files of that; None for what is made for other engines.

    Raises:
        NotDense: It is no gain, or no longer the same.
        EdgeCnnError: The network has no dense form, or the engine does not take it.
    """
    spec = draft.manifest.spec
    model = _source(draft, entry)
    if model is None or spec.window is None:
        return None
    onnx = require("onnx", "convert")
    with model_errors("its dense form cannot be written"):
        made = OnnxToDense(spec.window.stride)(onnx.load_from_string(model))
    path = PurePosixPath(entry.path)
    name = str(path.with_name(f"{path.stem}.dense{path.suffix}"))
    if entry.format == "openvino":
        ir = OnnxToOpenVino(compress=entry.precision == "fp16", known=(1, *spec.input_shape))(made.model)
        second = str(PurePosixPath(name).with_suffix(".bin"))
        files = {name: ir.xml, second: ir.weights}
        content, weights = ir.xml, ir.weights
    else:
        second, files, content, weights = None, {name: made.model}, made.model, b""
    whole = _artifact(draft, entry)
    artifact = replace(whole, content=content, weights=weights, dense_stride=spec.window.stride)
    options, kind = RuntimeOptions(threads=threads), backend(RUNTIMES[entry.format])
    with kind(whole, options) as cut, kind(artifact, options) as dense:
        one, all_at_once = Inference(cut, spec), Inference(dense, spec)
        form = _compared(one, all_at_once, scenes.parts, exact=made.exact)
        form = msgspec.structs.replace(form, path=name, weights=second)
        _check(form, entry, made.inexact, real=scenes.real)
        if timed:
            form = msgspec.structs.replace(form, speedup=_speedup(one, all_at_once, scenes.parts))
    return msgspec.structs.replace(entry, dense=form), files


def _source(draft: Draft, entry: ArtifactEntry) -> bytes | None:
    """The ONNX that the dense form of an artifact is made of."""
    if entry.format not in RUNTIMES or entry.placement == "tensorrt":
        return None
    # OpenVINO's fp16 is its fp32 with smaller weights
    wanted = "fp32" if entry.format == "openvino" and entry.precision == "fp16" else entry.precision
    for other in draft.manifest.artifacts:
        if other.format == "onnx" and other.precision == wanted and other.placement != "tensorrt":
            return draft.contents[other.path]
    raise ModelError(f"the ONNX in {wanted} that it would be made of is not in the bundle")


def _artifact(draft: Draft, entry: ArtifactEntry) -> Artifact:
    return Artifact(
        entry.format,
        draft.contents[entry.path],
        entry.id,
        inputs=draft.manifest.inputs,
        precision=entry.precision,
        placement=entry.placement,
        weights=draft.contents[entry.weights] if entry.weights else b"",
    )


def _compared(cut: Inference, dense: Inference, scenes: Sequence[Scene], *, exact: bool) -> DenseForm:
    spec = cut.spec
    assert spec.window is not None
    pairs = [(_scores(cut, scene), _scores(dense, scene)) for scene in scenes]
    expected, found = (np.concatenate(parts) for parts in zip(*pairs))
    shown, also = reported(expected, spec), reported(found, spec)
    same = (shown == also).all(axis=1)
    telling = shown.any(axis=1) | also.any(axis=1)
    return DenseForm(
        path="",
        stride=spec.window.stride,
        exact=exact,
        n=len(expected),
        max_abs=float(np.abs(expected - found).max()),
        agreement=float(same.mean()),
        agreement_reported=float(same[telling].mean()) if telling.any() else None,
    )


def _speedup(cut: Inference, dense: Inference, scenes: Sequence[Scene]) -> float:
    """How many times as long cut windows take.

    Raises:
        NotDense: They take less.
    """
    largest = max(scenes, key=lambda scene: scene.level.count)
    speed = compare_speed(
        partial(_scores, dense, largest), partial(_scores, cut, largest), seconds=SPEED_SECONDS, min_rounds=5
    )
    if not speed.faster:
        raise NotDense(
            f"all windows at once take {speed.candidate_ms:.2f} ms here, one by one "
            f"{speed.reference_ms:.2f} ms (--no-speed-gate keeps it)"
        )
    return round(1 / speed.ratio, 2)


def _check(form: DenseForm, entry: ArtifactEntry, inexact: Sequence[str], *, real: bool) -> None:
    """Hold a form against its gates.

    Raises:
        NotDense: It missed one.
    """
    padded = f"with padding in {', '.join(inexact[:3])}{' …' if len(inexact) > 3 else ''}"
    if form.exact and entry.precision == "fp32" and form.max_abs > LARGEST_DIFFERENCE:
        raise NotDense(f"scores differ by up to {form.max_abs:.2g} from those of cut windows")
    if not form.exact and not real:
        raise NotDense(f"{padded}, whether decisions stay the same shows on real frames only (--calib)")
    if not form.exact and form.agreement_reported is None:
        raise NotDense(f"{padded}, decisions are to be compared, and no window of the frames is reported")
    for share, of in ((form.agreement, "windows"), (form.agreement_reported, "windows that are reported")):
        if share is not None and share < LEAST_AGREEMENT:
            why = "" if form.exact else f" ({padded})"
            raise NotDense(f"{share:.2%} of {of} get the same decision, less than {LEAST_AGREEMENT:.1%}{why}")


def _scores(inference: Inference, scene: Scene) -> npt.NDArray[np.float32]:
    return inference.score_windows(scene.image, [scene.level]).scores


def _parts(frames: Iterable[npt.NDArray[np.uint8]], spec: ModelSpec) -> Iterator[Scene]:
    assert spec.window is not None
    rng, stride = np.random.default_rng(0), spec.window.stride
    for frame in frames:
        check_frame(frame)
        try:
            levels = pyramid((frame.shape[0], frame.shape[1]), spec)
        except InputError:
            continue
        for level in levels:
            starts, corner = [], []
            for size, window in zip(level.size_hw, spec.size_hw):
                last = stride * min((size - window) // stride, WINDOWS_A_SIDE - 1)
                starts.append(tuple(range(0, last + 1, stride)))
                corner.append(int(rng.integers(0, size - window - last + 1)))
            if len(starts[0]) * len(starts[1]) == 1:
                continue
            height, width = (each[-1] + window for each, window in zip(starts, spec.size_hw))
            whole = level_image(frame, level, spec)
            part = whole[corner[0] : corner[0] + height, corner[1] : corner[1] + width]
            yield Scene(np.ascontiguousarray(part), Level((height, width), (1.0, 1.0), *starts))
