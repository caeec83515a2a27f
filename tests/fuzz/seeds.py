"""Writes the corpus: small real files of every kind. ``python -m tests.fuzz.seeds`` makes them again."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import onnx
import PIL.Image
from onnx import TensorProto, helper, numpy_helper

from edgecnn import ModelSpec, WindowGeometry
from edgecnn.bundle import Bundle
from edgecnn.npz import encode_npz
from edgecnn.vision.opencv import cv2
from tests.bundles import mean_color_model, write_mean_color
from tests.fuzz.targets import CLASSES, CORPUS
from tests.paths import ROOT


def images() -> dict[str, bytes]:
    """24×36, smooth, in every format and some of their kinds."""
    y, x = np.mgrid[0:24, 0:36]
    photo = PIL.Image.fromarray(np.stack([x * 7, y * 10, 255 - x * 5], axis=2).astype(np.uint8))
    kinds = {
        "a.bmp": ("BMP", "RGB", {}),
        "gray.jpg": ("JPEG", "L", {}),
        "a.jpg": (
            "JPEG",
            "RGB",
            {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"},
        ),
        "cmyk.jpg": ("JPEG", "CMYK", {}),
        "progressive.jpg": ("JPEG", "RGB", {"progressive": True}),
        "a.png": ("PNG", "RGB", {}),
        "palette.png": ("PNG", "P", {}),
        "alpha.png": ("PNG", "RGBA", {}),
        "bits.png": ("PNG", "1", {}),
        "a.ppm": ("PPM", "RGB", {}),
        "a.tif": ("TIFF", "RGB", {}),
        "lzw.tif": ("TIFF", "L", {"compression": "tiff_lzw"}),
        "jpeg.tif": ("TIFF", "RGB", {"compression": "jpeg"}),
        "a.webp": ("WEBP", "RGB", {}),
        "lossless.webp": ("WEBP", "RGBA", {"lossless": True}),
    }
    made = {}
    for name, (kind, mode, options) in kinds.items():
        buffer = io.BytesIO()
        photo.convert(mode).save(buffer, kind, **options)
        made[name] = buffer.getvalue()
    made["deep.png"] = cv2.imencode(".png", np.arange(24 * 36, dtype=np.uint16).reshape(24, 36) * 70)[
        1
    ].tobytes()
    made["text.pgm"] = b"P2\n# gray\n3 2\n255\n0 1 2\n3 4 255\n"
    return made


def videos() -> dict[str, bytes]:
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        kinds = {"a.avi": "MJPG", "a.mp4": "mp4v", "a.mkv": "mp4v", "xvid.avi": "XVID"}
        kinds |= {"vp8.webm": "VP80", "vp9.webm": "VP90", "ffv1.mkv": "FFV1"}
        for name, codec in kinds.items():
            path = Path(folder, name)
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, (64, 48))
            for step in range(4):
                writer.write(np.full((48, 64, 3), 40 * step, np.uint8))
            writer.release()
            made[name] = path.read_bytes()
    return made


def models() -> dict[str, bytes]:
    """A mean of colours, a small convolutional network, and one with Q/DQ and a branch."""
    spec = CLASSES
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "matrix", "bias"], ["scores"], transB=1),
    ]
    constants = [
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(rng.standard_normal((3, 4)).astype(np.float32), "matrix"),
        numpy_helper.from_array(np.zeros(3, np.float32), "bias"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])
    opset = [helper.make_opsetid("", 18)]
    conv = helper.make_model(
        helper.make_graph(nodes, "conv", [image], [scores], constants), opset_imports=opset, ir_version=9
    )
    quantised = [
        helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]),
        helper.make_node("ReduceMean", ["dq", "axes"], ["mean"], keepdims=0),
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node(
            "If",
            ["yes"],
            ["scores"],
            **{
                branch: helper.make_graph(
                    [helper.make_node(op, ["mean"], [branch])],
                    branch,
                    [],
                    [helper.make_tensor_value_info(branch, TensorProto.FLOAT, ["batch", 3])],
                )
                for branch, op in (("then_branch", "Sigmoid"), ("else_branch", "Tanh"))
            },
        ),
    ]
    others = [
        numpy_helper.from_array(np.float32(0.02), "scale"),
        numpy_helper.from_array(np.uint8(128), "zero"),
        numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
    ]
    branch = helper.make_model(
        helper.make_graph(quantised, "qdq", [image], [scores], others), opset_imports=opset, ir_version=9
    )
    onnx.checker.check_model(conv)
    onnx.checker.check_model(branch)
    return {
        "mean.onnx": mean_color_model(spec),
        "conv.onnx": conv.SerializeToString(),
        "branch.onnx": branch.SerializeToString(),
    }


def manifests() -> dict[str, bytes]:
    shipped = Bundle(ROOT / "edgecnn/models/face.edge").manifest
    return {
        "small.json": (ROOT / "tests/golden/manifest_v1.json").read_bytes(),
        "face.json": msgspec.json.encode(
            msgspec.structs.replace(shipped, network=None, fidelity=shipped.fidelity[:2])
        ),
    }


def specs() -> dict[str, bytes]:
    windows = ModelSpec(
        task="window_detection",
        size_hw=(64, 48),
        mean=(0.5,),
        std=(0.25, 0.5, 0.75),
        activation="sigmoid",
        labels=("face",),
        class_thresholds={"face": 0.8},
        window=WindowGeometry(stride=8, min_size=40, box_scale=0.9),
    )
    ssd = ModelSpec(
        task="detection",
        decoder="ssd",
        size_hw=(32, 32),
        labels=("none", "dög"),
        background=0,
        priors=[{"stride": 16, "sizes_wh": [[30, 30], [12.5, 40]]}],
    )
    return {
        f"{name}.{form}": text.encode()
        for name, spec in (("windows", windows), ("ssd", ssd))
        for form, text in (("toml", spec.to_toml()), ("json", spec.to_json()))
    }


def main() -> None:
    """Write all of it, and the whole bundle that mutants of its parts are put into."""
    pictures, networks = images(), models()
    write_mean_color(CORPUS.parent / "whole.edge", CLASSES)
    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    arrays = {
        "frames.npz": encode_npz({"frames": frames}),
        "two.npz": encode_npz({"frames": frames, "more": frames[0]}),
    }
    whole = CORPUS.parent / "whole.edge"
    coco = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [{"image_id": 1, "category_id": 7, "bbox": [1, 2, 3.5, 4], "iscrowd": 0}],
        "categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}],
    }
    folders = {
        "manifest": manifests(),
        "spec": specs(),
        "bundle": {
            name: (whole / name).read_bytes() for name in ("manifest.json", "model.onnx", "golden.npz")
        },
        "image": pictures,
        "video": videos(),
        "calibration": arrays | {name: pictures[name] for name in ("a.png", "a.jpg")},
        "dataset": {
            "coco.json": json.dumps(coco).encode(),
            "classes.csv": b'file,class\na.png,b\n"a.png", 2\n',
        },
        "onnx": networks,
    }
    for name, files in folders.items():
        (CORPUS / name).mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (CORPUS / name / file).write_bytes(content)


if __name__ == "__main__":
    main()
