"""What is found is kept, and `auto` takes it until something has changed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import edgecnn
from edgecnn import ModelSpec, choices, devices
from edgecnn.auto import explain, open_model
from edgecnn.bundle import Bundle
from edgecnn.errors import BundleError, InputError, Unavailable
from edgecnn.runtimes import ort
from edgecnn.tuning import choosing, forget
from edgecnn.tuning import search as search_module
from edgecnn.tuning.search import Search
from edgecnn.tuning.settings import Setting
from tests.bundles import entry, write_artifacts, write_mean_color
from tests.paths import engine

engine("openvino")

SPEC = ModelSpec(task="classification", size_hw=(4, 4), activation="none")
LISTED = [entry("onnx-int8", "onnx", "int8", "cpu"), entry("onnx-fp32", "onnx")]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and nothing asked for."""
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EDGECNN_RUNTIME")
    monkeypatch.setattr("edgecnn.candidates.known", lambda: ["null", "openvino", "ort", "torch"])
    return tmp_path / "cache"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_artifacts(tmp_path / "a.edge", SPEC, LISTED)


@pytest.fixture
def fastest(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The search finds the candidate and the numbers that are put here, and another one behind."""
    wanted: dict[str, Any] = {"candidate": "onnx-fp32 on ort", "threads": 1, "streams": 1, "batch": 1}

    def found(self: Search, candidates: Any, seconds: float) -> list[tuple[Setting, float]]:
        wanted["tried"] = [str(each) for each in candidates]
        numbers = {key: wanted[key] for key in ("threads", "streams", "batch")}
        first = next(each for each in candidates if str(each) == wanted["candidate"])
        return [(Setting(first, **numbers), 2.0), (Setting(candidates[0], 1, 1, 1), 3.0)]

    monkeypatch.setattr(Search, "fastest", found)
    return wanted


def chosen(bundle: Bundle, **options: Any) -> str:
    """Why a model is opened as it is."""
    with open_model(bundle, **options) as model:
        return model.facts["chosen"]


def test_all_precisions_on_all_engines_are_tried(bundle: Bundle, fastest: dict[str, Any]) -> None:
    found = edgecnn.tune(bundle)
    assert fastest["tried"] == [
        "onnx-fp32 on openvino",
        "onnx-int8 on openvino",
        "onnx-fp32 on ort",
        "onnx-int8 on ort",
    ]
    assert (found.best, found.objective, found.bundle) == ("onnx-fp32 on ort, 1 thread", "latency", "a")
    assert [(row.ms, row.per_second, row.ratio) for row in found.rows] == [
        (2.0, 500.0, 1.0),
        (3.0, 333.33, 1.5),
    ]
    assert json.loads(json.dumps(found.to_json()))["rows"][0]["runtime"] == "ort"


def test_auto_takes_what_was_found(bundle: Bundle, fastest: dict[str, Any]) -> None:
    found = edgecnn.tune(bundle)
    said = f"tuned here for latency on {found.created[:10]} (1 thread: 2.00 ms, the best of 2 settings)"
    with open_model(bundle) as model:
        assert model.name == "ort"
        assert model.artifact.precision == "fp32"
        assert model.options.thread_count == 1
        assert (model.facts["chosen"], model.facts["batch"]) == (said, "1")
    with edgecnn.load(bundle) as predictor:
        assert predictor.runtime.facts["chosen"] == said
    assert explain(bundle) == f"onnx-fp32 on ort: {said}"


def test_objectives_are_kept_side_by_side(bundle: Bundle, fastest: dict[str, Any]) -> None:
    edgecnn.tune(bundle)
    fastest |= {"candidate": "onnx-int8 on ort", "streams": 3, "batch": 4}
    edgecnn.tune(bundle, objective="throughput")
    with edgecnn.load(bundle) as predictor:
        assert (predictor.runtime.parallel, predictor.runtime.artifact.precision) == (1, "fp32")
    with edgecnn.load(bundle, mode="throughput") as predictor:
        runtime = predictor.runtime
        assert (runtime.parallel, runtime.artifact.precision, runtime.facts["batch"]) == (3, "int8", "4")
        assert runtime.options.mode == "throughput"
    both = explain(bundle).split("; ")
    assert both[0].startswith("onnx-fp32 on ort: tuned here for latency")
    assert both[1].startswith("onnx-int8 on ort: tuned here for throughput")
    assert "3 streams of 1 thread, batches of 4: 2.00 ms" in both[1]


@pytest.mark.parametrize(
    "options", [{"runtime": "ort"}, {"threads": 2}, {"precision": "fp32"}, {"device": "arm64"}]
)
@pytest.mark.usefixtures("fastest")
def test_arguments_go_before_it(bundle: Bundle, options: dict[str, Any]) -> None:
    edgecnn.tune(bundle)
    assert "tuned" not in chosen(bundle, **options)


@pytest.mark.usefixtures("fastest")
def test_environment_goes_before_it_and_tune_says_so(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("EDGECNN_RUNTIME", "openvino")
    edgecnn.tune(bundle)
    assert "$EDGECNN_RUNTIME names a runtime" in caplog.text
    assert chosen(bundle) == "$EDGECNN_RUNTIME names it"


@pytest.mark.usefixtures("fastest")
def test_it_is_not_taken_where_something_has_changed(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edgecnn.tune(bundle)
    assert "tuned" in chosen(bundle)
    assert "tuned" in chosen(write_artifacts(tmp_path / "same.edge", SPEC, LISTED))
    assert "tuned" not in chosen(write_artifacts(tmp_path / "b.edge", SPEC.replace(size_hw=(5, 5)), LISTED))
    cpu = choices.find_cpu()
    for change in ({"model": "486"}, {"usable_cores": 99}):
        with monkeypatch.context() as patch:
            patch.setattr(choices, "find_cpu", lambda change=change: dataclasses.replace(cpu, **change))
            assert "tuned" not in chosen(bundle)
    with monkeypatch.context() as patch:
        patch.setattr(ort.Backend, "version", classmethod(lambda cls: "99.0"))
        assert "tuned" not in chosen(bundle)
    with monkeypatch.context() as patch:  # another engine has come or gone
        patch.setattr("edgecnn.candidates.known", lambda: ["ort"])
        assert "tuned" not in chosen(bundle)
    assert "tuned" in chosen(bundle)


@pytest.mark.usefixtures("fastest")
def test_damaged_file_is_not_taken(bundle: Bundle) -> None:
    path = Path(edgecnn.tune(bundle).stored)
    kept = json.loads(path.read_bytes())
    damages = [{"threads": 0}, {"streams": "2"}, {"candidate": "onnx-fp8 on ort"}, {"ms": -1}, {"more": 1}]
    for junk in (b"", b"\xff", b"[]", *(json.dumps(kept | change).encode() for change in damages)):
        path.write_bytes(junk)
        assert "tuned" not in chosen(bundle)


@pytest.mark.usefixtures("fastest")
def test_what_is_kept_is_private(bundle: Bundle, cache: Path) -> None:
    path = Path(edgecnn.tune(bundle).stored)
    assert path.parent == cache / "tuned"
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.usefixtures("fastest")
def test_forgotten(bundle: Bundle) -> None:
    assert forget(bundle) == []
    edgecnn.tune(bundle, objective="throughput")
    edgecnn.tune(bundle)
    assert forget(bundle) == ["latency", "throughput"]
    assert "tuned" not in explain(bundle)


def test_windows_that_are_cut_out_were_not_tuned(tmp_path: Path, fastest: dict[str, Any]) -> None:
    window = edgecnn.WindowGeometry(stride=2)
    bundle = write_mean_color(tmp_path / "w.edge", SPEC.replace(task="window_detection", window=window))
    edgecnn.tune(bundle)
    assert "tuned" in chosen(bundle, dense=True)
    assert "tuned" not in chosen(bundle, dense=False)


def test_interrupt_keeps_nothing(bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(search_module, "race", interrupted)
    with pytest.raises(KeyboardInterrupt):
        edgecnn.tune(bundle, runtime="ort")
    assert list((cache / "tuned").iterdir()) == []


def test_for_real(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "TURN_S", 0.001)
    found = edgecnn.tune(bundle, runtime="ort", threads=1, seconds=0.01)
    assert {(row.runtime, row.threads) for row in found.rows} == {("ort", 1)}
    assert {row.id for row in found.rows} == {"onnx-int8", "onnx-fp32"}
    assert found.best.startswith(f"{found.rows[0].id} on ort")
    assert "tuned" in chosen(bundle)


def test_one_way_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "TURN_S", 0.001)
    bundle = write_mean_color(tmp_path / "a.edge", SPEC)
    found = edgecnn.tune(bundle, runtime="ort", threads=1)
    assert [row.ratio for row in found.rows] == [1.0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"objective": "speed"}, InputError, "objective is latency or throughput, not 'speed'"),
        ({"seconds": 0}, InputError, "seconds must be above 0, not 0"),
        ({"seconds": float("nan")}, InputError, "seconds must be above 0, not nan"),
        ({"threads": 0}, InputError, "threads must be a whole number"),
        ({"runtime": "tflite"}, InputError, "no runtime 'tflite'"),
        ({"runtime": "ort,torch"}, BundleError, "the runtime torch takes torch"),
    ],
)
def test_arguments_are_checked(
    bundle: Bundle, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        edgecnn.tune(bundle, **options)


def test_cache_that_cannot_be_written(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(Unavailable, match=r"file/cache/tuned cannot be written \(Not a directory\)"):
        edgecnn.tune(bundle)
    assert forget(bundle) == []


def test_no_engine(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecnn.candidates.known", lambda: ["null"])
    with pytest.raises(Unavailable, match=rf"^no runtime here can run {bundle.path} "):
        edgecnn.tune(bundle)


def test_device_of_the_bundle(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found for an Intel GPU is not what the processor of the same machine takes."""
    arm = devices.profile("arm64")
    paths = [choices.tuned_path(bundle, [ort.Backend], "latency", name) for name in ("", arm.name)]
    assert paths[0] != paths[1]
    monkeypatch.setattr(choosing, "intel_target", lambda bundle: arm)
    assert choosing._path(bundle, "latency") == paths[1]
