"""TensorRT's runtime: what it refuses without a GPU, and, where there is one, the answers of ONNX Runtime."""

from __future__ import annotations

import importlib.util
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgecnn import ModelSpec
from edgecnn.calibration.int8 import Int8Builder
from edgecnn.converters.onnx_fp16 import OnnxToFp16
from edgecnn.converters.onnx_tensorrt import OnnxToTensorRT
from edgecnn.errors import DeviceUnavailable, EngineMismatch, InputError
from edgecnn.manifest import TensorInfo
from edgecnn.runtimes import Artifact, Runtime, RuntimeOptions, backend, tensorrt
from edgecnn.runtimes.tensorrt import Backend, check_within, deserialized, in_order, tensor_bytes
from edgecnn.tensorrt_api import MODULES, collector, find_tensorrt
from tests.calibration.graphs import pixels
from tests.converters.helpers import convert
from tests.gpu import gpu, halving_model, small_model, without_gpu
from tests.paths import engine

engine("cuda.bindings.runtime")
if not any(map(importlib.util.find_spec, MODULES)):
    pytest.skip("TensorRT is not installed", allow_module_level=True)


def engine_for(capability: str, model: bytes, precision: Any = "fp32") -> bytes:
    rtx = find_tensorrt().flavor == "tensorrt_rtx"
    arrow = OnnxToTensorRT(
        precision=precision, batch=(1, 4, 8), compute_capability=capability if rtx else None
    )
    return arrow(model).plan


def open_engine(model: bytes, precision: str = "fp32") -> Runtime:
    plan = engine_for(gpu(), model, precision)
    return Backend(Artifact("tensorrt", plan, "small.engine", precision=precision))


def on_gpu(model: bytes) -> Backend:
    engine = open_engine(model)
    assert isinstance(engine, Backend)
    return engine


def test_what_it_is() -> None:
    assert backend("tensorrt") is Backend
    assert Backend.version() == find_tensorrt().module.__version__
    assert (Backend.formats, Backend.builds_from, Backend.placement) == (("tensorrt",), ("onnx",), "tensorrt")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (r"(?:self\._)?engine", "ICudaEngine"),
        (r"self\._context", "IExecutionContext"),
        ("config", "IRuntimeConfig"),
    ],
)
def test_what_it_calls_is_there(value: str, kind: str) -> None:
    """Without a GPU nothing else would show a name that this version does not have."""
    used = set(re.findall(rf"\b{value}\.([a-z]\w+)", Path(tensorrt.__file__).read_text()))
    there = getattr(find_tensorrt().module, kind, None)
    if there is None:
        pytest.skip(f"this TensorRT has no {kind}, and none of it is used then")
    assert used
    assert used <= set(dir(there))


@pytest.mark.parametrize("built", [False, True])
def test_without_a_gpu_there_is_one_line(built: bool) -> None:
    without_gpu()
    plan = engine_for("8.9", small_model()) if built else b"junk"
    with pytest.raises(DeviceUnavailable, match=r"^no NVIDIA GPU can be used here \(.*\); install .*$"):
        Backend(Artifact("tensorrt", plan, "small.engine"))


@pytest.mark.parametrize("cut", [0, 1, 100, 10_000])
def test_what_tensorrt_does_not_load_is_a_mismatch(cut: int) -> None:
    """A damaged engine; and one of another kind of GPU is the same to TensorRT."""
    found = find_tensorrt()
    plan = engine_for("8.9", small_model())[:cut]
    runtime = found.module.Runtime(collector(found))
    with pytest.raises(EngineMismatch) as refused:
        deserialized(runtime, Artifact("tensorrt", plan, "small.engine"), "8.7")
    text = str(refused.value)
    assert text.startswith(
        f"small.engine: {found.flavor} {found.version} on a GPU of compute capability 8.7 does not load"
    )
    assert "\n" not in text
    assert text.endswith("; build it again from the ONNX")


def test_an_engine_without_a_driver_is_a_mismatch() -> None:
    without_gpu()
    found = find_tensorrt()
    runtime = found.module.Runtime(collector(found))
    with pytest.raises(EngineMismatch, match="does not load this engine"):
        deserialized(runtime, Artifact("tensorrt", engine_for("8.9", small_model())), "8.9")


def test_other_devices_are_refused() -> None:
    with pytest.raises(InputError, match="device is auto or gpu for TensorRT, not 'npu'"):
        Backend(Artifact("tensorrt", b"", "small.engine"), RuntimeOptions(device="npu"))


@pytest.mark.parametrize(
    ("shape", "dtype", "size"),
    [
        ((), "float32", 4),
        ((0, 3), "float32", 0),
        ((8, 48, 48, 3), "uint8", 55_296),
        ((8, 1), "float16", 16),
        ((3,), "int64", 24),
        ((64, 1080, 1920, 3), "float32", 1_592_524_800),
    ],
)
def test_size_of_a_tensor(shape: tuple[int, ...], dtype: str, size: int) -> None:
    assert tensor_bytes(shape, dtype) == size


@pytest.mark.parametrize("batch", [1, 5, 8])
def test_shapes_within_the_profile(batch: int) -> None:
    check_within("image", (batch, 4, 4, 3), (1, 4, 4, 3), (8, 4, 4, 3))


@pytest.mark.parametrize("shape", [(9, 4, 4, 3), (1, 4, 4, 3), (2, 4, 5, 3)])
def test_shapes_beyond_the_profile(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        InputError, match=r"^input image: shape .*, the engine was built for 2×4×4×3 to 8×4×4×3$"
    ):
        check_within("image", shape, (2, 4, 4, 3), (8, 4, 4, 3))


def test_order_is_that_of_the_manifest() -> None:
    a, b, c = (TensorInfo(name=name, dtype="float32", shape=()) for name in "abc")
    assert in_order([c, a, b], [b, c]) == (b, c, a)
    assert in_order([c, a, b], ()) == (c, a, b)


@pytest.fixture(scope="module")
def precisions() -> dict[str, bytes]:
    """A small network in every precision."""
    gpu()
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)).eval()
    fp32 = convert(net, ModelSpec(task="classification", size_hw=(32, 32), mean=(0.5,), std=(0.25,))).model
    return {
        "fp32": fp32,
        "fp16": OnnxToFp16()(onnx.load_from_string(fp32)).SerializeToString(),
        "int8": Int8Builder(fp32, pixels(8, 32, 32, 3), method="minmax", threads=1).build("tensorrt"),
    }


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 1e-2), ("int8", 5e-2)])
def test_same_answers_as_onnx_runtime(precisions: dict[str, bytes], precision: str, tolerance: float) -> None:
    """Of the same file: each batch plainly first, and from a graph after that."""
    model = precisions[precision]
    reference = backend("ort")(Artifact("onnx", model))
    with open_engine(model, precision) as engine:
        assert [(i.name, i.dtype) for i in engine.inputs] == [(i.name, i.dtype) for i in reference.inputs]
        for batch in (*range(1, 9), *range(8, 0, -1)):
            feeds = {"image": pixels(batch, 32, 32, 3)}
            wanted, found = reference.run(feeds)["scores"], engine.run(feeds)["scores"]
            assert found.shape == wanted.shape
            assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


def test_graphs_change_nothing() -> None:
    with open_engine(small_model()) as engine:
        image = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)
        plain, repeated = engine.run({"image": image}), engine.run({"image": image})
        assert engine.facts["cuda_graphs"].startswith("captured")
        assert plain["sum"].tolist() == repeated["sum"].tolist() == [[6], [22]]
        assert engine.run({"image": image + 1})["sum"].tolist() == [[10], [26]]
        assert plain["twice"].tolist() == [[0, 2, 4, 6], [8, 10, 12, 14]], "an earlier answer was overwritten"


def test_answers_may_stay_on_the_gpu() -> None:
    with on_gpu(small_model()) as first, on_gpu(halving_model()) as second:
        image = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)
        for _ in range(3):  # plainly, while the graph is made, and from it
            there = first.run_on_device({"image": image})
            assert [(a.shape, str(a.dtype)) for a in there.values()] == [
                ((2, 1), "float32"),
                ((2, 4), "float32"),
            ]
            assert there["sum"].numpy().tolist() == [[6], [22]]
            half = second.run_on_device({"values": there["twice"]})["half"]
            assert half.numpy().tolist() == second.run({"values": there["twice"].numpy()})["half"].tolist()
            assert first.run({"image": image})["twice"].tolist() == [[0, 2, 4, 6], [8, 10, 12, 14]]


def test_an_answer_is_the_next_input() -> None:
    """Of the same engine, as a network with a state has it."""
    with on_gpu(halving_model()) as engine:
        state: Any = np.full((1, 4), 64, np.float32)
        for _ in range(5):
            state = engine.run_on_device({"values": state})["half"]
        assert state.numpy().tolist() == [[2, 2, 2, 2]]


def test_tensors_of_pytorch_on_the_gpu() -> None:
    gpu()
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    with on_gpu(halving_model()) as engine:
        values = torch.arange(8, dtype=torch.float32, device="cuda").reshape(2, 4)
        half = engine.run_on_device({"values": values})["half"]
        assert torch.equal(torch.as_tensor(half, device="cuda"), values / 2)
        with pytest.raises(InputError, match="input values: its elements do not lie one after the other"):
            engine.run_on_device({"values": values.reshape(4, 2).t()})


def test_answers_on_the_gpu_last_until_the_next_run() -> None:
    engine = on_gpu(small_model())
    image = np.zeros((1, 2, 2, 1), np.uint8)
    old = engine.run_on_device({"image": image})["sum"]
    new = engine.run_on_device({"image": image})["sum"]
    with pytest.raises(
        InputError, match=r"small.engine: these outputs were written over by a later run; take"
    ):
        old.numpy()
    assert new.numpy().tolist() == [[0]]
    engine.close()
    with pytest.raises(InputError, match="was closed, and its outputs are gone"):
        new.numpy()
    with pytest.raises(InputError, match="was closed; open it again"):
        engine.run_on_device({"image": image})


def test_what_is_on_the_gpu_is_checked_too() -> None:
    with on_gpu(small_model()) as first:
        there = first.run_on_device({"image": np.zeros((1, 2, 2, 1), np.uint8)})
        with pytest.raises(InputError, match="input image: dtype float32, the model takes uint8"):
            first.run_on_device({"image": there["sum"]})
        with pytest.raises(InputError, match="shape 9×2×2×1, the engine was built for"):
            first.run_on_device({"image": np.zeros((9, 2, 2, 1), np.uint8)})
        with pytest.raises(InputError, match="input image: a DeviceArray, not a numpy array"):
            first.run({"image": there["sum"]})  # type: ignore[dict-item]


def test_batches_beyond_the_profile_are_refused() -> None:
    with (
        open_engine(small_model()) as engine,
        pytest.raises(InputError, match="shape 9×2×2×1, the engine was"),
    ):
        engine.run({"image": np.zeros((9, 2, 2, 1), np.uint8)})


def test_threads_get_their_own_answers() -> None:
    def total(value: int) -> float:
        image = np.full((1 + value % 8, 2, 2, 1), value, np.uint8)
        return float(engine.run({"image": image})["sum"][-1, 0])

    with open_engine(small_model()) as engine, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(total, range(200))) == [4.0 * value for value in range(200)]


def test_closed_is_closed() -> None:
    engine = open_engine(small_model())
    engine.close()
    engine.close()
    with pytest.raises(InputError, match="was closed"):
        engine.run({"image": np.zeros((1, 2, 2, 1), np.uint8)})
