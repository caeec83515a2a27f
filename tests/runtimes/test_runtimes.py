"""Every runtime, one answer: the same tiny network on each, and the checks they share."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from edgecnn.converters.onnx_tensorrt import OnnxToTensorRT
from edgecnn.errors import EngineError, InputError, MissingDependency, Unavailable
from edgecnn.manifest import TensorInfo
from edgecnn.runtimes import Artifact, Runtime, RuntimeOptions, backend, known
from edgecnn.tensorrt_api import find_tensorrt
from tests.gpu import gpu

INPUTS = (TensorInfo(name="image", dtype="uint8", shape=("batch", 2, 2, 1)),)
OUTPUTS = (
    TensorInfo(name="sum", dtype="float32", shape=("batch", 1)),
    TensorInfo(name="twice", dtype="float32", shape=("batch", 4)),
)
BATCH = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)
ANSWER = {"sum": [[6], [22], [38]], "twice": [[0, 2, 4, 6], [8, 10, 12, 14], [16, 18, 20, 22]]}


def onnx_model() -> bytes:
    """Sum of the pixels, and each pixel twice."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("ReduceSum", ["flat", "axis"], ["sum"], keepdims=1),
        helper.make_node("Add", ["flat", "flat"], ["twice"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 2, 2, 1])],
        [
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["batch", 1]),
            helper.make_tensor_value_info("twice", TensorProto.FLOAT, ["batch", 4]),
        ],
        [helper.make_tensor("axis", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


class TwoOutputs(torch.nn.Module):
    """The same network in torch."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        flat = image.float().flatten(1)
        return flat.sum(1, keepdim=True), flat + flat


def artifact(name: str) -> Artifact:
    if name in ("torch", "null"):
        return Artifact(name, TwoOutputs() if name == "torch" else None, "tiny", INPUTS, OUTPUTS)
    if name == "tensorrt":
        return Artifact("tensorrt", tiny_engine(gpu()), "tiny", INPUTS, OUTPUTS)
    return Artifact("onnx", onnx_model(), "tiny", INPUTS, OUTPUTS)


@cache
def tiny_engine(capability: str) -> bytes:
    rtx = find_tensorrt().flavor == "tensorrt_rtx"
    return OnnxToTensorRT(compute_capability=capability if rtx else None)(onnx_model()).plan


def check_installed(name: str) -> None:
    """Skip what is for an engine that is not installed."""
    try:
        backend(name).version()
    except MissingDependency as error:
        pytest.skip(str(error))


def open_runtime(name: str, **options: Any) -> Runtime:
    check_installed(name)
    if name == "null":
        values = [np.float32(value) for value in ANSWER.values()]
        return backend("null")(artifact("null"), RuntimeOptions(**options), lambda feeds: values)  # type: ignore[call-arg]
    return backend(name)(artifact(name), RuntimeOptions(**options))


each = pytest.mark.parametrize("name", known())


def test_known_are_the_files() -> None:
    assert known() == ["null", "openvino", "ort", "tensorrt", "torch"]


@each
def test_same_answer_everywhere(name: str) -> None:
    with open_runtime(name) as runtime:
        assert runtime.name == name
        assert [i.name for i in runtime.inputs] == ["image"]
        assert [o.name for o in runtime.outputs] == ["sum", "twice"]
        outputs = runtime.run({"image": BATCH})
    assert list(outputs) == ["sum", "twice"]
    for key, expected in ANSWER.items():
        assert outputs[key].dtype == np.float32
        np.testing.assert_array_equal(outputs[key], expected)


@each
def test_version_is_told_without_loading_a_model(name: str) -> None:
    check_installed(name)
    assert backend(name).version()[0].isdigit()


@each
@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "takes the inputs image; got none"),
        ({"x": BATCH}, "takes the inputs image; got x"),
        ({"image": BATCH, "more": BATCH}, "got image, more"),
        ({"image": BATCH.astype(np.float32)}, "input image: dtype float32, the model takes uint8"),
        ({"image": BATCH[..., 0]}, r"input image: shape 3×2×2, the model takes (batch|\?)×2×2×1"),
        ({"image": BATCH[:, :1]}, r"input image: shape 3×1×2×1, the model takes (batch|\?)×2×2×1"),
        ({"image": BATCH[:0]}, r"input image: shape 0×2×2×1, the model takes (batch|\?)×2×2×1"),
        ({"image": BATCH.tolist()}, "input image: a list, not a numpy array"),
    ],
)
def test_feeds_are_checked(name: str, feeds: dict[str, Any], message: str) -> None:
    with open_runtime(name) as runtime, pytest.raises(InputError, match=message):
        runtime.run(feeds)


@each
def test_outputs_are_fresh(name: str) -> None:
    if name == "null":
        pytest.skip("null hands out the arrays it was given")
    with open_runtime(name) as runtime:
        first = runtime.run({"image": BATCH})["sum"]
        first[:] = -1
        np.testing.assert_array_equal(runtime.run({"image": BATCH})["sum"], ANSWER["sum"])


@each
def test_feeds_are_left_alone_and_may_be_read_only(name: str) -> None:
    frozen = BATCH.copy()
    frozen.setflags(write=False)
    with open_runtime(name) as runtime:
        runtime.run({"image": frozen})
    np.testing.assert_array_equal(frozen, BATCH)


@each
def test_threads_share_a_runtime(name: str) -> None:
    wrong: list[int] = []
    with open_runtime(name, threads=1) as runtime:

        def work(index: int) -> None:
            for _ in range(20):
                if not np.array_equal(runtime.run({"image": BATCH})["sum"], ANSWER["sum"]):
                    wrong.append(index)

        workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert wrong == []


@each
def test_other_formats_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"tiny: the runtime {name} takes .*, not tflite"):
        backend(name)(Artifact("tflite", b"", "tiny"))


def test_unknown_runtime_names_those_there_are() -> None:
    with pytest.raises(
        InputError, match="no runtime 'tflite'; there are null, openvino, ort, tensorrt, torch"
    ):
        backend("tflite")


@pytest.mark.parametrize("threads", [0, -1, 5000, "2", 2.5])
def test_threads_are_checked(threads: Any) -> None:
    with pytest.raises(InputError, match="threads must be a whole number in"):
        RuntimeOptions(threads=threads)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("streams", 0, r"streams must be a whole number in 1\.\.1024, not 0"),
        ("streams", 2.0, r"streams must be a whole number in 1\.\.1024, not 2\.0"),
        ("mode", "speed", "mode is latency or throughput, not 'speed'"),
        ("compute", "int8", "compute is f32, bf16 or f16, not 'int8'"),
    ],
)
def test_options_are_checked(option: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RuntimeOptions(**{option: value})


def test_compiled_models_go_to_the_cache_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path / "user"))
    assert RuntimeOptions().cache_path == tmp_path / "user"
    assert RuntimeOptions(cache=tmp_path / "own").cache_path == tmp_path / "own"


@each
def test_submitted_answers_are_those_of_run(name: str) -> None:
    with open_runtime(name) as runtime:
        assert runtime.parallel >= 1
        feeds = [{"image": np.roll(BATCH, shift, axis=0)} for shift in range(6)]
        futures = [runtime.submit(each) for each in feeds]
        for shift, future in enumerate(futures):
            expected = ANSWER["sum"] if name == "null" else np.roll(ANSWER["sum"], shift, axis=0)
            np.testing.assert_array_equal(future.result(timeout=60)["sum"], expected)


@each
def test_submitted_feeds_are_checked_at_once(name: str) -> None:
    with open_runtime(name) as runtime, pytest.raises(InputError, match="got x"):
        runtime.submit({"x": BATCH})
    with pytest.raises(InputError, match="tiny: was closed"):
        runtime.submit({"image": BATCH})


def test_failure_of_what_was_submitted_comes_with_its_result() -> None:
    def answer(feeds: object) -> list[Any]:
        raise EngineError("the engine stopped")

    runtime = backend("null")(artifact("null"), None, answer)  # type: ignore[call-arg]
    future = runtime.submit({"image": BATCH})
    with pytest.raises(EngineError, match="the engine stopped"):
        future.result(timeout=0)


@each
def test_arithmetic_that_is_always_there(name: str) -> None:
    check_installed(name)
    assert backend(name).computes()[0] == "f32"


@pytest.mark.parametrize("name", ["openvino", "tensorrt"])
def test_engines_that_choose_tell_what_they_run_on(name: str) -> None:
    with open_runtime(name) as runtime:
        assert runtime.facts["device"]


def test_engine_that_is_not_installed_cannot_be_used_here(monkeypatch: pytest.MonkeyPatch) -> None:
    backend("ort").check_here()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependency, match="onnxruntime could not be imported"):
        backend("ort").check_here()


@pytest.mark.parametrize("content", [b"", b"junk", onnx_model()[:-20]])
def test_ort_refuses_what_is_not_onnx(content: bytes) -> None:
    with pytest.raises(InputError, match="broken: onnxruntime refuses it") as caught:
        backend("ort")(Artifact("onnx", content, "broken"))
    assert "\n" not in str(caught.value)


def test_ort_maps_a_failing_run() -> None:
    """A reshape that does not fit is seen by the engine only."""
    node = helper.make_node("Reshape", ["image", "shape"], ["out"])
    graph = helper.make_graph(
        [node],
        "bad",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["m", 7])],
        [helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 7])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    runtime = backend("ort")(Artifact("onnx", model.SerializeToString(), "bad"))
    with pytest.raises(EngineError, match="bad: onnxruntime failed") as caught:
        runtime.run({"image": np.zeros(3, np.float32)})
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


def test_torch_maps_a_failing_run() -> None:
    class Broken(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.reshape(7)

    runtime = backend("torch")(Artifact("torch", Broken(), "bad", INPUTS, OUTPUTS))
    with pytest.raises(EngineError, match="bad: torch failed"):
        runtime.run({"image": BATCH})


def test_number_of_outputs_is_checked() -> None:
    runtime = backend("null")(artifact("null"), None, lambda feeds: [])  # type: ignore[call-arg]
    with pytest.raises(EngineError, match="null gave 0 outputs, not 2"):
        runtime.run({"image": BATCH})


def test_null_gives_zeros_of_the_batch() -> None:
    outputs = backend("null")(Artifact("onnx", b"", "x", INPUTS, OUTPUTS)).run({"image": BATCH})
    assert {k: v.shape for k, v in outputs.items()} == {"sum": (3, 1), "twice": (3, 4)}
    assert not outputs["twice"].any()


def test_idle_threads_sleep_unless_asked_to_spin() -> None:
    for spin, value in ((False, "0"), (True, "1")):
        with open_runtime("ort", spin=spin) as runtime:
            options = runtime._session.get_session_options()  # type: ignore[attr-defined]
            assert options.get_session_config_entry("session.intra_op.allow_spinning") == value
            assert options.get_session_config_entry("session.inter_op.allow_spinning") == value


def test_threads_are_those_asked_for() -> None:
    with open_runtime("ort", threads=3) as runtime:
        assert runtime._session.get_session_options().intra_op_num_threads == 3  # type: ignore[attr-defined]
    assert RuntimeOptions().thread_count == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("options", "streams", "threads"),
    [
        ({}, 1, 8),
        ({"threads": 2}, 1, 2),
        ({"streams": 3}, 3, 2),
        ({"streams": 16}, 16, 1),
        ({"mode": "throughput"}, 8, 1),
        ({"mode": "throughput", "threads": 3}, 2, 3),
        ({"mode": "throughput", "threads": 20}, 1, 20),
        ({"mode": "throughput", "streams": 2}, 2, 4),
        ({"mode": "throughput", "streams": 5, "threads": 4}, 5, 4),
    ],
)
def test_streams_share_the_processors(
    options: dict[str, Any], streams: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecnn.runtimes.base._processors", lambda: 8)
    made = RuntimeOptions(**options)
    assert (made.stream_count, made.thread_count) == (streams, threads)
    with open_runtime("ort", **options) as runtime:
        assert runtime.parallel == streams
        assert (runtime.facts["streams"], runtime.facts["threads"]) == (str(streams), str(threads))
        session = runtime._session.get_session_options()  # type: ignore[attr-defined]
        assert session.intra_op_num_threads == streams * (threads - 1) + 1


@pytest.mark.parametrize("name", ["ort", "openvino"])
def test_streams_run_side_by_side(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two inferences that wait for each other end only where both run."""
    both = threading.Barrier(2)
    with open_runtime(name, threads=1, streams=2) as runtime:
        run = runtime._run
        monkeypatch.setattr(runtime, "_run", lambda feeds: (both.wait(timeout=30), run(feeds))[1])
        futures = [runtime.submit({"image": BATCH}) for _ in range(4)]
        for future in futures:
            np.testing.assert_array_equal(future.result(timeout=60)["sum"], ANSWER["sum"])


@pytest.mark.parametrize("name", ["ort", "openvino"])
def test_closing_waits_for_what_was_submitted(name: str) -> None:
    runtime = open_runtime(name, threads=1)
    futures = [runtime.submit({"image": BATCH}) for _ in range(10)]
    runtime.close()
    np.testing.assert_array_equal(futures[-1].result(timeout=0)["sum"], ANSWER["sum"])


@each
def test_closed_is_closed(name: str) -> None:
    runtime = open_runtime(name)
    runtime.close()
    runtime.close()
    with pytest.raises(InputError, match="tiny: was closed; open it again"):
        runtime.run({"image": BATCH})


def test_engine_that_is_taken_away_while_it_runs() -> None:
    def answer(feeds: object) -> list[Any]:
        runtime.close()
        raise AttributeError("_session")

    runtime = backend("null")(artifact("null"), None, answer)  # type: ignore[call-arg]
    with pytest.raises(EngineError, match=r"^tiny: was closed while it ran$"):
        runtime.run({"image": BATCH})


def test_model_that_the_manifest_does_not_describe(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Runtime] = []
    monkeypatch.setattr(backend("ort"), "close", lambda self: closed.append(self))
    for change in ({"inputs": OUTPUTS}, {"outputs": INPUTS}):
        with pytest.raises(InputError, match=r"tiny: has the (in|out)puts .*; the manifest says"):
            backend("ort")(dataclasses.replace(artifact("ort"), **change))
    assert len(closed) == 2, "what was opened for nothing is given back"


def test_only_engines_are_chosen_by_themselves() -> None:
    assert {name for name in known() if backend(name).is_engine} == {"openvino", "ort", "tensorrt"}


def test_missing_engine_says_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        MissingDependency, match=r"onnxruntime could not be imported .*pip install 'edgecnn\[cpu\]'"
    ) as e:
        backend("ort").version()
    assert isinstance(e.value, (Unavailable, ImportError))
    assert e.value.exit_code == 3
