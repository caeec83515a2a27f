"""Which runtime is taken: asked for, preferred for its device, or measured to be the fastest, once."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import edgecnn
from edgecnn import ModelSpec, auto, candidates, devices
from edgecnn.auto import choose, explain, open_model
from edgecnn.bundle import Bundle
from edgecnn.errors import BundleError, DeviceUnavailable, InputError, MissingDependency, Unavailable
from edgecnn.loading import read_artifact
from edgecnn.manifest import DeviceTarget, Fidelity
from edgecnn.runtimes import RuntimeOptions, backend, openvino, ort, tensorrt
from tests.bundles import entry, mean_color_scores, write_artifacts, write_mean_color
from tests.gpu import gpu, without_gpu
from tests.paths import engine

engine("openvino")

SPEC = ModelSpec(task="classification", size_hw=(4, 4), activation="none")
IMAGE = np.random.default_rng(1).integers(0, 256, (2, 4, 4, 3), np.uint8)
FP32 = entry("onnx-fp32", "onnx")
ORT, OPENVINO, BF16 = "onnx-fp32 on ort", "onnx-fp32 on openvino", "onnx-fp32 on openvino in bf16"


class Times:
    """In place of a measurement: known times, and how often it was asked for them."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.ms: dict[str, float] = {}

    def __call__(self, calls: Mapping[str, Callable[[], object]], *, seconds: float) -> dict[str, float]:
        for call in calls.values():
            call()
        self.asked.append(list(calls))
        return {name: self.ms.get(name, 5.0) for name in calls}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and nothing asked for."""
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EDGECNN_RUNTIME")
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    made = Times()
    monkeypatch.setattr(auto, "interleaved_ms", made)
    return made


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_mean_color(tmp_path / "a.edge", SPEC)


@pytest.fixture
def _on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, whatever the machine has."""
    monkeypatch.setattr(candidates, "known", lambda: ["null", "openvino", "ort", "torch"])


def opened(bundle: Bundle, **options: Any) -> tuple[str, str]:
    """Which runtime was opened, and why; it answers."""
    with open_model(bundle, **options) as model:
        np.testing.assert_allclose(model.run({"image": IMAGE})["scores"], mean_color_scores(IMAGE), atol=1e-6)
        return model.name, model.facts["chosen"]


# one way


def test_the_only_way_is_not_measured(bundle: Bundle, times: Times, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "known", lambda: ["null", "ort", "torch"])
    assert opened(bundle) == ("ort", "the only way to run it here")
    assert times.asked == []


def test_runtime_that_is_not_installed_is_no_way(
    bundle: Bundle, times: Times, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> str:
        raise MissingDependency("openvino could not be imported; try: pip install 'edgecnn[openvino]'")

    monkeypatch.setattr(candidates, "known", lambda: ["openvino", "ort"])
    monkeypatch.setattr(openvino.Backend, "version", staticmethod(missing))
    assert opened(bundle) == ("ort", "the only way to run it here")
    assert times.asked == []


def test_no_way_says_why_of_each(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    without_gpu()
    monkeypatch.setattr(candidates, "known", lambda: ["null", "tensorrt", "torch"])
    with pytest.raises(Unavailable, match=rf"^no runtime here can run {bundle.path} \(tensorrt: .*\)$") as e:
        open_model(bundle)
    assert "null" not in str(e.value)
    assert e.value.exit_code == 3


def test_what_is_asked_for_is_not_measured(bundle: Bundle, times: Times) -> None:
    assert opened(bundle, runtime="ort") == ("ort", "asked for")
    assert opened(bundle, runtime="openvino") == ("openvino", "asked for")
    assert times.asked == []


def test_environment_names_a_runtime(bundle: Bundle, times: Times, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECNN_RUNTIME", "openvino")
    assert opened(bundle) == ("openvino", "$EDGECNN_RUNTIME names it")
    assert explain(bundle) == f"{OPENVINO}: $EDGECNN_RUNTIME names it"
    assert opened(bundle, runtime="ort") == ("ort", "asked for")
    assert times.asked == []


@pytest.mark.parametrize("value", ["", "auto"])
@pytest.mark.usefixtures("_on_cpu")
def test_environment_that_names_none(
    bundle: Bundle, times: Times, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("EDGECNN_RUNTIME", value)
    opened(bundle)
    assert len(times.asked) == 1


def test_environment_that_names_another_thing(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECNN_RUNTIME", "tflite")
    with pytest.raises(InputError, match=r"^\$EDGECNN_RUNTIME: no runtime 'tflite'; there are null, "):
        open_model(bundle)


# several


@pytest.mark.parametrize(("fast", "slow"), [(ORT, OPENVINO), (OPENVINO, ORT)])
@pytest.mark.usefixtures("_on_cpu")
def test_the_fastest_is_taken(bundle: Bundle, times: Times, fast: str, slow: str) -> None:
    times.ms = {fast: 1.0, slow: 2.5}
    name = fast.rpartition(" ")[2]
    assert opened(bundle) == (name, f"the fastest measured here ({fast} 1.00 ms, {slow} 2.50 ms)")
    assert times.asked == [[OPENVINO, ORT]]


@pytest.mark.usefixtures("_on_cpu")
def test_what_was_measured_is_remembered(bundle: Bundle, times: Times, tmp_path: Path) -> None:
    times.ms = {ORT: 1.0}
    first = opened(bundle)
    times.ms = {OPENVINO: 0.1}
    assert opened(bundle) == first
    assert opened(write_mean_color(tmp_path / "same.edge", SPEC)) == first
    assert len(times.asked) == 1


@pytest.mark.usefixtures("_on_cpu")
def test_it_is_measured_again_for_what_may_differ(
    bundle: Bundle, times: Times, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(bundle)
    opened(bundle, threads=1)
    assert len(times.asked) == 2
    other = write_mean_color(tmp_path / "b.edge", SPEC.replace(size_hw=(5, 5)))
    open_model(other).close()
    assert len(times.asked) == 3
    monkeypatch.setattr(ort.Backend, "version", classmethod(lambda cls: "99.0"))
    opened(bundle)
    assert len(times.asked) == 4


@pytest.mark.usefixtures("_on_cpu")
def test_damaged_memory_is_measured_again(bundle: Bundle, times: Times, cache: Path) -> None:
    opened(bundle)
    (path,) = (cache / "choices").iterdir()
    one, other = f'"{ORT}": 1.0', f'"{OPENVINO}"'
    damages = ["", '{"onnx-fp32 on ort": "fast"}', "[]", "{}", f"{{{one}}}", f'{{{one}, "zz": 1}}']
    damages += [f"{{{one}, {other}: -5}}", f'{{"{ORT}": null, {other}: null}}']
    for junk in (b"\xff\xfe", b'{"\xff\xfe": 1}', *(text.encode() for text in damages)):
        path.write_bytes(junk)
        opened(bundle)
    assert len(times.asked) == 1 + 2 + len(damages)
    assert [file.name for file in (cache / "choices").iterdir()] == [path.name]


@pytest.mark.usefixtures("_on_cpu")
def test_cache_that_cannot_be_written_is_no_error(
    bundle: Bundle,
    times: Times,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path / "file" / "cache"))
    caplog.set_level(logging.INFO, "edgecnn")
    times.ms = {ORT: 1.0}
    assert opened(bundle)[0] == opened(bundle)[0] == "ort"
    assert len(times.asked) == 2
    assert "cannot be written (Not a directory), so the next start measures again" in caplog.text


@pytest.mark.usefixtures("_on_cpu")
def test_candidate_that_does_not_load_is_left_out(
    times: Times, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = write_artifacts(tmp_path / "a.edge", SPEC, [FP32, entry("openvino-fp32", "openvino")])
    assert opened(bundle)[0] == "ort"
    assert times.asked == [[ORT]]
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert line.startswith("openvino-fp32 on openvino cannot be used: ")
    assert "\n" not in line
    # nor is it tried again
    caplog.clear()
    assert opened(bundle)[0] == "ort"
    assert len(times.asked) == 1
    assert caplog.records == []


@pytest.mark.usefixtures("_on_cpu")
def test_what_was_in_the_way_once_is_tried_again(
    bundle: Bundle, times: Times, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **more: object) -> None:
        raise Unavailable("OpenVINO's compiler found no room in /tmp")

    times.ms = {OPENVINO: 1.0}
    with monkeypatch.context() as patch:
        patch.setattr(openvino, "run_isolated", full)
        assert opened(bundle)[0] == "ort"
    assert opened(bundle)[0] == "openvino"
    assert times.asked == [[ORT], [OPENVINO, ORT]]


@pytest.mark.usefixtures("_on_cpu")
def test_where_none_loads_the_first_says_why_and_nothing_is_remembered(
    tmp_path: Path, cache: Path, times: Times
) -> None:
    listed = [entry("openvino-fp32", "openvino"), FP32]
    bundle = write_artifacts(tmp_path / "a.edge", SPEC, listed)
    outputs = tuple(msgspec.structs.replace(info, name="other") for info in bundle.manifest.outputs)
    bundle = write_artifacts(tmp_path / "a.edge", SPEC, listed, outputs=outputs)
    for _ in range(2):
        with pytest.raises(InputError, match=r"openvino-fp32\.model: OpenVINO refuses it"):
            open_model(bundle)
    assert times.asked == []
    assert not (cache / "choices").exists()


def test_measured_for_real(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.delenv("EDGECNN_RUNTIME")
    monkeypatch.setattr(auto, "SECONDS_A_CANDIDATE", 0.02)
    monkeypatch.setattr(candidates, "known", lambda: ["openvino", "ort"])
    name, why = opened(bundle, threads=1)
    assert re.match(rf"the fastest measured here \(onnx-fp32 on {name} \d+\.\d\d ms, ", why)
    assert opened(bundle, threads=1) == (name, why)


# explained


@pytest.mark.usefixtures("_on_cpu")
def test_explaining_measures_nothing(bundle: Bundle, times: Times, cache: Path) -> None:
    assert explain(bundle) == "not measured here yet: the first start does that"
    assert times.asked == []
    assert not cache.exists()
    choice = choose(bundle, measure=False)
    assert not choice.measured
    times.ms = {ORT: 1.0}
    opened(bundle)
    assert explain(bundle) == f"{ORT}: the fastest measured here ({ORT} 1.00 ms, {OPENVINO} 5.00 ms)"
    assert len(times.asked) == 1


def test_what_cannot_run_here_is_explained_in_a_line(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "known", lambda: ["null"])
    assert explain(bundle) == f"no runtime here can run {bundle.path} ()"


# TensorRT


@pytest.fixture
def _with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT has all that it needs, as far as can be seen without using it."""
    monkeypatch.setattr(tensorrt.Backend, "check_here", classmethod(lambda cls: None))


@pytest.mark.usefixtures("_with_gpu")
def test_tensorrt_comes_first_where_there_is_a_gpu(bundle: Bundle, times: Times) -> None:
    choice = choose(bundle)
    assert str(choice.candidate) == "onnx-fp32 on tensorrt"
    assert (choice.reason, choice.measured, times.asked) == ("this device has a GPU for it", True, [])
    assert explain(bundle) == "onnx-fp32 on tensorrt: this device has a GPU for it"


@pytest.mark.usefixtures("_with_gpu")
def test_bundle_without_anything_for_tensorrt_runs_on_the_processor(tmp_path: Path, times: Times) -> None:
    bundle = write_artifacts(tmp_path / "a.edge", SPEC, [entry("onnx-int8", "onnx", "int8", "cpu")])
    times.ms = {"onnx-int8 on ort": 1.0}
    assert opened(bundle)[0] == "ort"


def test_without_a_gpu_tensorrt_is_no_candidate(bundle: Bundle, times: Times) -> None:
    without_gpu()
    opened(bundle)
    assert times.asked == [[OPENVINO, ORT]]


def test_tensorrt_answers_where_there_is_a_gpu(bundle: Bundle) -> None:
    gpu()
    assert opened(bundle, on_stale="wait") == ("tensorrt", "this device has a GPU for it")


# arithmetic


def row(name: str, compute: Any) -> Fidelity:
    return Fidelity(
        id=name, runtime="openvino", compute=compute, n=1, max_abs=0, mean_abs=0, cosine=1, agreement=1
    )


@pytest.mark.parametrize(
    ("rows", "hardware", "candidates"),
    [
        ((row("onnx-fp32", "f32"), row("onnx-fp32", "bf16")), ("f32", "bf16"), [OPENVINO, BF16, ORT]),
        ((row("onnx-fp32", "f32"),), ("f32", "bf16"), [OPENVINO, ORT]),
        ((row("onnx-fp16", "bf16"),), ("f32", "bf16"), [OPENVINO, ORT]),
        ((row("onnx-fp32", "bf16"),), ("f32", "f16"), [OPENVINO, ORT]),
    ],
    ids=["proven", "not proven", "of another", "no hardware"],
)
@pytest.mark.usefixtures("_on_cpu")
def test_bfloat16_only_where_it_was_proven(
    tmp_path: Path,
    times: Times,
    monkeypatch: pytest.MonkeyPatch,
    rows: tuple[Fidelity, ...],
    hardware: tuple[str, ...],
    candidates: list[str],
) -> None:
    monkeypatch.setattr(openvino.Backend, "computes", classmethod(lambda cls: hardware))
    bundle = write_artifacts(tmp_path / "a.edge", SPEC, [FP32], fidelity=rows)
    times.ms = {BF16: 1.0}
    with open_model(bundle) as model:
        assert times.asked == [candidates]
        assert model.options.compute == ("bf16" if BF16 in candidates else "f32")
        assert BF16 in model.facts["chosen"] or BF16 not in candidates


# devices


def test_runtimes_of_a_device(bundle: Bundle, times: Times) -> None:
    assert opened(bundle, device="arm64") == ("ort", "the only way to run it here")
    assert times.asked == []
    times.ms = {OPENVINO: 1.0}
    with open_model(bundle, device="x86") as model:
        assert (model.name, model.options.device) == ("openvino", "cpu")
    assert edgecnn.load(bundle, device="arm64").runtime.name == "ort"


def test_device_that_is_not_here(
    bundle: Bundle, times: Times, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """OpenVINO is, but none of its GPUs: what there is answers, and what was measured is not mixed up."""

    class Core:
        available_devices = ("CPU",)

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    real = openvino.core()
    monkeypatch.setattr(openvino, "core", Core)
    times.ms = {OPENVINO: 1.0}
    assert opened(bundle, device="x86")[0] == "openvino"
    assert opened(bundle, device="intel-gpu")[0] == "ort"
    assert times.asked == [[OPENVINO, ORT], [ORT]]
    assert f"{OPENVINO} cannot be used: OpenVINO finds no device 'gpu'" in caplog.text
    with pytest.raises(DeviceUnavailable, match="OpenVINO finds no device 'gpu'"):
        open_model(bundle, runtime="openvino", device="intel-gpu")


@pytest.mark.parametrize(
    ("intel", "found"),
    [(("GPU", "NPU"), "fp16 on gpu"), (("NPU",), "fp32 on auto"), ((), "fp32 on auto")],
    ids=["there", "another", "none"],
)
def test_bundle_for_an_intel_gpu_runs_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, intel: tuple[str, ...], found: str
) -> None:
    """And on the processor of a machine without one."""
    here = dataclasses.replace(devices.this_device(), intel=intel)
    monkeypatch.setattr(devices, "this_device", lambda: here)
    opened: list[str] = []

    def remember(bundle: Bundle, entry: Any, runtime: Any, options: RuntimeOptions, **more: Any) -> Any:
        opened.append(f"{entry.precision} on {options.device}")
        return backend("ort")(read_artifact(bundle, FP32), RuntimeOptions())

    monkeypatch.setattr(auto, "open_artifact", remember)
    target = DeviceTarget(profile="intel-gpu", runtimes=("openvino", "ort"))
    listed = [FP32, entry("onnx-fp16", "onnx", "fp16")]
    bundle = write_artifacts(tmp_path / "a.edge", SPEC, listed, device=target)
    open_model(bundle, runtime="openvino").close()
    assert opened == [found]


def test_profile_is_for_choose_as_well(bundle: Bundle) -> None:
    choice = choose(bundle, profile=devices.profile("raspberry-pi-5"))
    assert str(choice.candidate) == ORT


# arguments


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"runtime": "tflite"}, InputError, "no runtime 'tflite'; there are "),
        ({"device": "jetson-orin"}, InputError, "no device 'jetson-orin'; did you mean jetson-orin-nano"),
        (
            {"device": "raspberry-pi-5", "runtime": "openvino"},
            InputError,
            "raspberry-pi-5 runs ort, not openvino",
        ),
        ({"device": None}, InputError, "a device is the name of a profile, not a NoneType"),
        ({"on_stale": "never"}, InputError, "on_stale is serve, wait or error, not 'never'"),
        ({"precision": "int4"}, InputError, "precision is auto, fp32, fp16 or int8, not 'int4'"),
        ({"precision": "int8"}, BundleError, "holds nothing in int8, but onnx-fp32"),
        ({"precision": "int8", "runtime": "ort"}, BundleError, "takes onnx in int8, it holds onnx-fp32"),
        ({"threads": 0}, InputError, "threads must be a whole number"),
    ],
)
def test_arguments_are_checked(
    bundle: Bundle, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        open_model(bundle, **options)


def test_precision_limits_what_is_tried(tmp_path: Path, times: Times) -> None:
    listed = [entry("onnx-int8", "onnx", "int8", "cpu"), FP32]
    bundle = write_artifacts(tmp_path / "a.edge", SPEC, listed)
    with open_model(bundle, precision="fp32", device="arm64") as model:
        assert model.artifact.name.endswith("onnx-fp32.model")
    with open_model(bundle, device="arm64") as model:
        assert model.artifact.name.endswith("onnx-int8.model")
