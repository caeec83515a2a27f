"""OpenVINO: known answers from ONNX and IR, what it is told to do, and models that it cannot take."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgecnn.openvino_api
from edgecnn.converters.onnx_openvino import OnnxToOpenVino
from edgecnn.errors import (
    CompilerFailed,
    DeviceUnavailable,
    EngineError,
    InputError,
    MissingDependency,
    ModelError,
)
from edgecnn.runtimes import Artifact, Runtime, RuntimeOptions, backend
from tests.paths import ROOT, engine
from tests.runtimes.test_runtimes import ANSWER, BATCH, INPUTS, OUTPUTS, onnx_model

engine("openvino")

FACE = ROOT / "edgecnn" / "models" / "face.edge"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One cache for all: most tests use the same model."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("cache")
        patch.setenv("EDGECNN_CACHE", str(path))
        yield path


@pytest.fixture(scope="module")
def ir() -> Artifact:
    made = OnnxToOpenVino()(onnx_model())
    return Artifact("openvino", made.xml, "tiny", INPUTS, OUTPUTS, weights=made.weights)


@pytest.fixture(params=["onnx", "ir"])
def artifact(request: pytest.FixtureRequest) -> Artifact:
    if request.param == "onnx":
        return Artifact("onnx", onnx_model(), "tiny", INPUTS, OUTPUTS)
    return request.getfixturevalue("ir")  # type: ignore[no-any-return]


def load(artifact: Artifact, **options: Any) -> Runtime:
    return backend("openvino")(artifact, RuntimeOptions(**{"threads": 1, **options}))


def network(nodes: list[onnx.NodeProto], shape: list[int | str], **weights: Any) -> bytes:
    """ONNX from uint8 ``image`` to float ``out``."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(onnx.shape_inference.infer_shapes(model).SerializeToString())


def cast(to: str = "float") -> onnx.NodeProto:
    return helper.make_node("Cast", ["image"], [to], to=TensorProto.FLOAT)


def test_the_answer_is_known(artifact: Artifact) -> None:
    with load(artifact) as runtime:
        assert [(i.name, i.dtype, i.shape) for i in runtime.inputs] == [("image", "uint8", (None, 2, 2, 1))]
        assert [(o.name, o.shape) for o in runtime.outputs] == [("sum", (None, 1)), ("twice", (None, 4))]
        for count in (3, 1, 2):
            found = runtime.run({"image": BATCH[:count]})
            assert list(found) == ["sum", "twice"]
            for key, expected in ANSWER.items():
                np.testing.assert_array_equal(found[key], expected[:count])


def test_a_fixed_batch_stays_fixed() -> None:
    with load(Artifact("onnx", network([cast("out")], [2, 3]))) as runtime:
        assert runtime.inputs[0].shape == (2, 3)
        np.testing.assert_array_equal(
            runtime.run({"image": np.ones((2, 3), np.uint8)})["out"], np.ones((2, 3))
        )
        with pytest.raises(InputError, match="input image: shape 1×3, the model takes 2×3"):
            runtime.run({"image": np.ones((1, 3), np.uint8)})


@pytest.mark.parametrize("precision", ["model.onnx", "model.int8.onnx"])
def test_it_agrees_with_onnxruntime_on_the_face_model(precision: str) -> None:
    model = Artifact("onnx", (FACE / precision).read_bytes(), precision)
    made = OnnxToOpenVino()(model.content)
    images = np.random.default_rng(0).integers(0, 256, (8, 48, 48, 3), np.uint8)
    wanted = backend("ort")(model, RuntimeOptions(threads=1)).run({"image": images})["scores"]
    for artifact in (model, Artifact("openvino", made.xml, precision, weights=made.weights)):
        with load(artifact) as runtime:
            np.testing.assert_allclose(runtime.run({"image": images})["scores"], wanted, atol=1e-4)


@pytest.mark.parametrize("view", ["read-only", "mirrored", "transposed"])
def test_any_array_will_do(artifact: Artifact, view: str) -> None:
    frozen = BATCH.copy()
    frozen.setflags(write=False)
    given = {"read-only": frozen, "mirrored": BATCH[::-1], "transposed": BATCH.transpose(0, 2, 1, 3)}[view]
    before = given.copy()
    with load(artifact) as runtime:
        found = runtime.run({"image": given})["twice"]
        np.testing.assert_array_equal(found, 2.0 * given.reshape(3, 4))
        again = runtime.run({"image": np.zeros_like(BATCH)})["twice"]
    np.testing.assert_array_equal(given, before)
    np.testing.assert_array_equal(found, 2.0 * given.reshape(3, 4))
    assert found.flags.owndata
    assert not again.any()


def test_threads_share_it(ir: Artifact) -> None:
    wrong: list[int] = []
    with load(ir) as runtime:

        def work(level: int) -> None:
            image = np.full((level, 2, 2, 1), level, np.uint8)
            for _ in range(50):
                if not np.array_equal(runtime.run({"image": image})["sum"], [[4 * level]] * level):
                    wrong.append(level)

        workers = [threading.Thread(target=work, args=(level,)) for level in range(1, 5)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert wrong == []


def test_submitted_work_is_done_side_by_side(ir: Artifact) -> None:
    with load(ir, mode="throughput", streams=2, threads=2) as runtime:
        assert (runtime.parallel, runtime.facts["streams"]) == (2, "2")
        futures = [runtime.submit({"image": np.full((1, 2, 2, 1), i, np.uint8)}) for i in range(40)]
        assert [future.result()["sum"][0, 0] for future in futures] == [4.0 * i for i in range(40)]


class Failing:
    """A request that fails as OpenVINO does."""

    def infer(self, *feeds: Any, **options: Any) -> None:
        raise RuntimeError(
            "Exception from src/infer.cpp:1:\nCheck 'a == b' failed at src/b.cpp:2:\nconv1: no memory\n"
        )


def test_a_failing_run_is_told_in_one_line_and_harms_no_other(ir: Artifact) -> None:
    with load(ir) as runtime:
        for run in (runtime.run, lambda feeds: runtime.submit(feeds).result()):
            runtime._idle.append(Failing())  # type: ignore[attr-defined]
            with pytest.raises(EngineError, match=r"^tiny: OpenVINO failed \(conv1: no memory\)$"):
                run({"image": BATCH})
            np.testing.assert_array_equal(run({"image": BATCH})["sum"], ANSWER["sum"])


def test_arithmetic_is_that_asked_for(ir: Artifact) -> None:
    with load(ir) as runtime:
        facts = runtime.facts
        assert facts["arithmetic"] == "f32"
        assert facts["openvino"] == runtime.version()
        assert (facts["threads"], facts["streams"]) == ("1", "1")
        assert facts["device"]
    capable = "bf16" in backend("openvino").computes()
    with load(ir, compute="bf16") as runtime:
        assert runtime.facts["arithmetic"] == ("bf16" if capable else "f32")


@pytest.mark.parametrize("pin", [False, True])
def test_settings_reach_the_engine(ir: Artifact, pin: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []
    real = edgecnn.openvino_api.compile_model
    monkeypatch.setattr(
        "edgecnn.runtimes.openvino.compile_model", lambda *call: given.append(call[2]) or real(*call)
    )
    with load(ir, pin=pin, threads=2, mode="throughput", streams=2):
        pass
    assert {key: value for key, value in given[0].items() if key != "CACHE_DIR"} == {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": 2,
        "INFERENCE_NUM_THREADS": 4,
        "ENABLE_CPU_PINNING": pin,
    }


@pytest.mark.parametrize("device", ["npu", "gpu.7", "warp"])
def test_a_device_that_is_not_there(ir: Artifact, device: str) -> None:
    with pytest.raises(
        DeviceUnavailable, match=f"no device '{device}' on this machine; there is cpu"
    ) as caught:
        load(ir, device=device)
    assert caught.value.exit_code == 3


def test_the_cpu_can_be_named(ir: Artifact) -> None:
    with load(ir, device="cpu") as runtime:
        np.testing.assert_array_equal(runtime.run({"image": BATCH})["sum"], ANSWER["sum"])


class Counted:
    """Counts the children that are started."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._run = edgecnn.isolation.run_isolated
        patch.setattr("edgecnn.runtimes.openvino.run_isolated", self)

    def __call__(self, *work: Any, **options: Any) -> dict[str, Any]:
        self.count += 1
        return self._run(*work, **options)


def test_a_model_is_tried_out_once(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = Counted(monkeypatch)
    for count, options in ((1, {}), (1, {}), (2, {"threads": 2}), (2, {"threads": 2}), (2, {})):
        with load(artifact, cache=tmp_path, **options) as runtime:
            np.testing.assert_array_equal(runtime.run({"image": BATCH})["sum"], ANSWER["sum"])
        assert children.count == count
    assert list(tmp_path.glob("openvino/*/*.blob"))


def test_weights_are_part_of_a_model(ir: Artifact, tmp_path: Path) -> None:
    """The same network with other weights is another one, also to the cache."""
    nodes = [cast(), helper.make_node("Mul", ["float", "factor"], ["out"])]
    for factor in (2, 3):
        made = OnnxToOpenVino()(network(nodes, ["n"], factor=np.full(1, factor, np.float32)))
        with load(Artifact("openvino", made.xml, weights=made.weights), cache=tmp_path) as runtime:
            assert runtime.run({"image": np.ones(1, np.uint8)})["out"] == factor


def test_it_works_without_a_cache(ir: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    children = Counted(monkeypatch)
    for count in (1, 2):
        with load(ir, cache=tmp_path / "file") as runtime:
            np.testing.assert_array_equal(runtime.run({"image": BATCH})["sum"], ANSWER["sum"])
        assert children.count == count


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "cut": lambda whole: whole[:-100],
    "zeros": lambda whole: whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2),
    "a bit": lambda whole: whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_made_anew(
    ir: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    load(ir, cache=tmp_path).close()
    (blob,) = tmp_path.glob("openvino/*/*.blob")
    whole = blob.read_bytes()
    blob.unlink()
    blob.write_bytes(DAMAGES[damage](whole))
    children = Counted(monkeypatch)
    for _ in range(2):
        with load(ir, cache=tmp_path) as runtime:
            np.testing.assert_array_equal(runtime.run({"image": BATCH})["sum"], ANSWER["sum"])
    assert children.count == 1


@pytest.mark.parametrize("proof", [b"", b"junk", b"\xff", b"[]", b"{}"])
def test_a_damaged_proof_proves_nothing(
    ir: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proof: bytes
) -> None:
    load(ir, cache=tmp_path).close()
    (file,) = tmp_path.glob("openvino/*/proven.json")
    file.write_bytes(proof)
    children = Counted(monkeypatch)
    load(ir, cache=tmp_path).close()
    load(ir, cache=tmp_path).close()
    assert children.count == 1


def test_many_open_the_same_new_model_at_once(
    ir: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One compiles it and the others wait; together they once wrote into what was being read."""
    children = Counted(monkeypatch)
    with ThreadPoolExecutor(6) as pool:
        opened = list(pool.map(lambda _: load(ir, cache=tmp_path), range(6)))
    for runtime in opened:
        np.testing.assert_array_equal(runtime.run({"image": BATCH})["sum"], ANSWER["sum"])
        runtime.close()
    assert children.count == 1


def test_a_cache_that_others_may_write_to_is_not_used(
    ir: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.joinpath("openvino").mkdir()
    tmp_path.joinpath("openvino").chmod(0o777)
    children = Counted(monkeypatch)
    for count in (1, 2):
        load(ir, cache=tmp_path).close()
        assert children.count == count
    assert "others may write there" in caplog.text


@pytest.mark.parametrize("content", [b"", b"junk", onnx_model()[:-20], onnx_model()[:40]])
@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_junk_is_refused(form: str, content: bytes) -> None:
    with pytest.raises(ModelError, match=r"^broken: OpenVINO refuses it") as caught:
        load(Artifact(form, content, "broken"))
    assert "\n" not in str(caught.value)


def test_damaged_ir_is_refused() -> None:
    made = OnnxToOpenVino()(
        network(
            [cast(), helper.make_node("Add", ["float", "w"], ["out"])], ["n", 9], w=np.ones(9, np.float32)
        )
    )
    for xml, weights in (
        (made.xml[:-100], made.weights),
        (made.xml[: len(made.xml) // 2], made.weights),
        (made.xml, made.weights[:-10]),
        (made.xml, b""),
        (made.xml.replace(b'"Add"', b'"Odd"'), made.weights),
    ):
        with pytest.raises(ModelError, match=r"^broken: OpenVINO") as caught:
            load(Artifact("openvino", xml, "broken", weights=weights))
        assert "\n" not in str(caught.value)


def test_a_compiler_that_dies_is_an_error(
    ir: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = edgecnn.isolation.run_isolated
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(
        "edgecnn.runtimes.openvino.run_isolated",
        lambda target, payload, what: real("tests.isolated:die", {"number": 8}, what=what),
    )
    for _ in range(2):  # and is no less one the next time
        with pytest.raises(CompilerFailed, match=r"^tiny: OpenVINO's compiler died of SIGFPE; use another"):
            load(ir, cache=tmp_path)


def test_a_missing_engine_says_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependency, match=r"openvino could not be .*pip install 'edgecnn\[openvino\]'"):
        backend("openvino").version()


def test_nothing_is_sent_and_nothing_is_printed(tmp_path: Path) -> None:
    """OpenVINO's own import reports itself over the network and leaves an identity in the home folder."""
    (tmp_path / "home").mkdir()
    code = (
        "import socket, sys, threading\n"
        "def refuse(*a, **k): raise SystemExit('a connection was opened')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from edgecnn.runtimes import Artifact, backend\n"
        "backend('openvino')(Artifact('onnx', open(sys.argv[1], 'rb').read()))\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "CI"}
    environment |= {"HOME": str(tmp_path / "home"), "EDGECNN_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(FACE / "model.onnx")],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list((tmp_path / "home").iterdir()) == []
