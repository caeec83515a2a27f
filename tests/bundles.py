"""Small bundles made by hand, so that tests of the runtime side need no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from edgecnn.bundle import GOLDEN_INPUT, GOLDEN_OUTPUT, Bundle, write_bundle
from edgecnn.manifest import ArtifactEntry, Manifest, TensorInfo
from edgecnn.npz import encode_npz
from edgecnn.predictor import Predictor
from edgecnn.runtimes import Artifact, Feeds, RuntimeOptions, backend
from edgecnn.spec import ModelSpec

Answer = Callable[[Feeds], list[npt.NDArray[Any]]]


def mean_color_model(spec: ModelSpec) -> bytes:
    """ONNX: the mean of each channel over 255, as the score of that channel's class."""
    h, w, c = spec.input_shape
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "full"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "mean-color",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", h, w, c])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", c])],
        [
            numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
            numpy_helper.from_array(np.float32(255), "full"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def mean_color_scores(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """What `mean_color_model` answers."""
    return (images.astype(np.float64).mean(axis=(1, 2)) / 255).astype(np.float32)


def write_mean_color(path: Path, spec: ModelSpec) -> Bundle:
    """A whole bundle of `mean_color_model` with golden tensors."""
    images = np.random.default_rng(0).integers(0, 256, (3, *spec.input_shape), np.uint8)
    with write_bundle(path) as writer:
        writer.add("model.onnx", mean_color_model(spec))
        golden = {GOLDEN_INPUT: images, GOLDEN_OUTPUT + "scores": mean_color_scores(images)}
        writer.add("golden.npz", encode_npz(golden))
        writer.finish(
            Manifest(
                name=path.stem,
                created="2026-01-02T03:04:05Z",
                spec=spec,
                inputs=(TensorInfo(name="image", dtype="uint8", shape=("batch", *spec.input_shape)),),
                outputs=(TensorInfo(name="scores", dtype="float32", shape=("batch", spec.channels)),),
                artifacts=(
                    ArtifactEntry(id="onnx-fp32", format="onnx", precision="fp32", path="model.onnx"),
                ),
                files=writer.files,
            )
        )
    return Bundle(path)


def null_predictor(
    bundle: Bundle, answer: Answer, spec: ModelSpec | None = None, **options: Any
) -> Predictor:
    """A predictor on a bundle whose engine gives known answers."""
    artifact = Artifact("null", None, "null", bundle.manifest.inputs, bundle.manifest.outputs)
    runtime = backend("null")(artifact, RuntimeOptions(), answer)  # type: ignore[call-arg]
    return Predictor(bundle, runtime, spec or bundle.manifest.spec, **options)


def entry(
    name: str, kind: str, precision: Any = "fp32", placement: Any = None, **requires: str
) -> ArtifactEntry:
    """An artifact; the second file of OpenVINO's stands beside it."""
    second = f"{name}.bin" if kind == "openvino" else None
    return ArtifactEntry(
        id=name,
        format=kind,
        precision=precision,
        placement=placement,
        path=f"{name}.model",
        weights=second,
        requires=requires,
    )


def write_artifacts(path: Path, spec: ModelSpec, entries: Sequence[ArtifactEntry], **changes: Any) -> Bundle:
    """A bundle that lists artifacts in this order; those in ONNX are `mean_color_model`, others no models."""
    bundle = write_mean_color(path, spec)
    with write_bundle(path) as writer:
        for listed in entries:
            writer.add(listed.path, mean_color_model(spec) if listed.format == "onnx" else b"no model")
            if listed.weights is not None:
                writer.add(listed.weights, b"no weights")
        manifest = msgspec.structs.replace(bundle.manifest, artifacts=tuple(entries), **changes)
        writer.finish(msgspec.structs.replace(manifest, files=writer.files))
    return Bundle(path)
