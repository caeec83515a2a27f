"""What the comparisons with peers run: one INT8 file for both sides, a bundle made of it, and clips (see peers.py)."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import openvino
from onnx import helper, numpy_helper

import edgecnn
from edgecnn import ModelSpec
from edgecnn.calibration.data import draw_samples
from edgecnn.calibration.int8 import Int8Builder
from edgecnn.converters import canonical, load_model

SAMPLES = 8
CLIP_FRAMES = 60

DETECTOR = ModelSpec(
    task="detection",
    decoder="yolo_anchor_free",
    size_hw=(640, 640),
    resize="letterbox",
    threshold=0.25,
    nms_iou=0.7,
)
SPECS = {
    "yolo11n-640": DETECTOR,
    "yolo11n-320": DETECTOR.replace(size_hw=(320, 320)),
    "yolo11n-cls-224": ModelSpec(
        task="classification",
        size_hw=(224, 224),
        resize="center_crop",
        resize_short=224,
        antialias=True,
        activation="none",
    ),
}


@dataclass(frozen=True)
class Network:
    """One network in the forms that the two sides load.

    Attributes:
        onnx: In INT8; takes float32 (1, 3, height, width), RGB 0..1.
        ir: The folder with the same file as OpenVINO's IR.
        bundle: edgecnn's, made of ``onnx``.
    """

    onnx: Path
    ir: Path
    bundle: Path

    def file(self, tool: str, runtime: str) -> Path:
        """What a tool of the peers loads for an engine."""
        if runtime == "ort":
            return self.onnx
        return next(self.ir.glob("*.xml")) if tool == "model_api" else self.ir


def networks(folder: Path, python: Path, video: Path) -> dict[str, Network]:
    """All networks by name, made where they are missing.

    Args:
        folder: Where they are kept.
        python: Interpreter of the environment of the peers, which exports them.
        video: Frames to calibrate on.
    """
    found = {
        name: Network(
            folder / f"{name}.int8.onnx", folder / f"{name}_openvino_model", folder / f"{name}.edge"
        )
        for name in SPECS
    }
    if not all(network.bundle.exists() for network in found.values()):
        exporter = Path(__file__).with_name("peer_export.py")
        subprocess.run([python, exporter, folder, video], check=True, cwd=folder)
        for name, network in found.items():
            _write(folder / f"{name}.onnx", SPECS[name], video, network)
    return found


def _write(exported: Path, spec: ModelSpec, video: Path, network: Network) -> None:
    source = onnx.load(exported)
    samples = draw_samples(video, spec, SAMPLES).images
    fp32 = canonical(load_model(str(exported)), spec).model
    int8 = onnx.load_from_string(Int8Builder(fp32, samples, method="minmax").build("cpu"))
    onnx.save(_with_float_input(int8, source), network.onnx)
    model = openvino.Core().read_model(network.onnx)
    openvino.save_model(model, network.ir / f"{exported.stem}.xml", compress_to_fp16=False)
    # the words of Python in those of YAML
    lines = [f"{entry.key}: {entry.value.replace('None', 'null')}" for entry in source.metadata_props]
    (network.ir / "metadata.yaml").write_text("\n".join(lines) + "\n")
    shutil.rmtree(network.bundle, ignore_errors=True)
    edgecnn.convert(network.onnx, spec=spec, out=network.bundle, calibration=video)


def _with_float_input(int8: onnx.ModelProto, source: onnx.ModelProto) -> onnx.ModelProto:
    """The INT8 network behind the input of the exported one, with its metadata.

    A pixel of 0..1 is quantised to the whole number that it came from: nothing is lost.
    """
    graph = int8.graph
    pixels = graph.input[0].name
    first = next(node for node in graph.node if pixels in node.input)
    assert first.op_type == "Transpose"
    graph.node.remove(first)
    name = source.graph.input[0].name
    step = helper.make_node("QuantizeLinear", [name, "pixel_scale", "pixel_zero"], first.output)
    graph.node.insert(0, step)
    constants = {"pixel_scale": np.float32(1 / 255), "pixel_zero": np.uint8(0)}
    graph.initializer.extend(
        numpy_helper.from_array(np.array(value), key) for key, value in constants.items()
    )
    del graph.input[:], graph.value_info[:]
    graph.input.append(source.graph.input[0])
    helper.set_model_props(int8, {entry.key: entry.value for entry in source.metadata_props})
    return int8


def clip(video: Path, size_hw: tuple[int, int], folder: Path) -> Path:
    """The first frames of a video at another size, written once."""
    path = folder / f"{video.stem}-{size_hw[0]}.mp4"
    if not path.exists():
        capture = cv2.VideoCapture(str(video))
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, size_hw[::-1])
        for _ in range(CLIP_FRAMES):
            writer.write(_enlarged(capture, size_hw))
        writer.release()
    return path


def picture(video: Path, size_hw: tuple[int, int], folder: Path) -> Path:
    """The first frame of a video at another size, written once."""
    path = folder / f"{video.stem}-{size_hw[0]}.png"
    if not path.exists():
        cv2.imwrite(str(path), _enlarged(cv2.VideoCapture(str(video)), size_hw))
    return path


def _enlarged(capture: cv2.VideoCapture, size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    image = cv2.resize(capture.read()[1], size_hw[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(image, np.uint8)
