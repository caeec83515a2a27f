from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from edgecnn import ModelSpec, auto, candidates, conversion, verification
from edgecnn.cli import _common
from edgecnn.cli.main import main
from edgecnn.runtimes.ort import Backend
from tests.bundles import mean_color_model


def test_convert_prints_one_json_object(
    color_onnx: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, spec = color_onnx
    out = tmp_path / "mean.edge"
    code = main(["convert", str(model), "--spec", str(spec), "-o", str(out), "--samples", "4", "--json"])
    captured = capfd.readouterr()
    assert code == 0, captured.err
    facts = json.loads(captured.out)
    assert list(facts) == ["bundle", "artifacts", "fidelity", "steps", "gate", "device", "not_dense"]
    assert facts["bundle"] == str(out)
    [artifact] = facts["artifacts"]
    assert set(artifact) == {
        "id", "format", "precision", "placement", "path", "bytes", "sha256", "build_s", "dense"
    }  # fmt: skip
    assert artifact["bytes"] == (out / artifact["path"]).stat().st_size
    [fidelity] = facts["fidelity"]
    assert set(fidelity) == {
        "id", "runtime", "n", "max_abs", "cosine", "agreement", "metric", "metric_fp32", "drop"
    }  # fmt: skip
    assert fidelity["n"] == 4
    assert fidelity["max_abs"] < 1e-5
    names = [step["name"] for step in facts["steps"]]
    assert {"load", "samples", "parity", "bundle"} <= set(names)
    assert facts["gate"] == {"max_drop": None, "met": True, "kept_float": []}
    assert facts["device"] is None
    # elsewhere than on a terminal progress is a plain line a step
    assert [line.split(":")[0] for line in captured.err.splitlines()] == names


def test_convert_report_for_people(
    color_onnx: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, spec = color_onnx
    out = tmp_path / "mean.edge"
    assert main(["convert", str(model), "--spec", str(spec), "-o", str(out), "--samples", "4"]) == 0
    report = capfd.readouterr().out
    assert report.startswith(f"{out} is written and agrees with the model\n")
    assert "onnx-fp32  onnx    fp32" in report
    assert "100.0%" in report
    assert "  measured on 4 inputs from generated images (made up: convert with --calib " in report
    assert main(["inspect", str(out)]) == 0
    card = capfd.readouterr().out
    # the same tables, word for word
    assert report.partition("\n\n")[2].rstrip() in card
    assert main(["convert", str(model), "--spec", str(spec), "-o", str(out), "--samples", "4", "-q"]) == 0
    assert capfd.readouterr() == ("", "")


def test_convert_that_misses_the_gate_prints_the_object_too(
    color_onnx: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    honest = conversion.reference_for
    monkeypatch.setattr(
        conversion,
        "reference_for",
        lambda *given: lambda images: {k: v + 0.5 for k, v in honest(*given)(images).items()},
    )
    model, spec = color_onnx
    out = tmp_path / "mean.edge"
    args = ["convert", str(model), "--spec", str(spec), "-o", str(out), "--samples", "4"]
    assert main([*args, "--json"]) == 1
    captured = capfd.readouterr()
    facts = json.loads(captured.out)
    assert list(facts) == ["bundle", "artifacts", "fidelity", "steps", "gate", "device", "not_dense"]
    assert (facts["bundle"], facts["artifacts"]) == (None, [])
    [fidelity] = facts["fidelity"]
    assert (fidelity["id"], fidelity["runtime"], fidelity["n"]) == ("onnx-fp32", "ort", 4)
    assert fidelity["max_abs"] == pytest.approx(0.5, abs=1e-3)
    assert "load" in [step["name"] for step in facts["steps"]]
    assert facts["gate"] == {"max_drop": None, "met": False, "kept_float": []}
    assert "differs from the original" in captured.err.splitlines()[-1]
    assert main(args) == 1
    assert capfd.readouterr().out == ""
    assert not out.exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nope.onnx", "-o", "x.edge"], "nope.onnx: "),
        (["nope.onnx", "-o", "x"], "a bundle's name ends in .edge"),
        (["nope.onnx", "-o", "x.edge", "--spec", "nope.toml"], "nope.toml: cannot be read as a spec"),
    ],
)
def test_convert_with_bad_input(
    args: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["convert", *args]) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("edgecnn: error: ")
    assert message in last
    assert list(tmp_path.iterdir()) == []


def test_verify(color_bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(color_bundle), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["ok"] is True
    [row] = [r for r in found["artifacts"] if r["runtime"] == "ort"]
    assert set(row) == {"id", "runtime", "status", "reason", "max_abs", "cosine", "agreement"}
    assert row["status"] == "ok"
    assert main(["verify", str(color_bundle), "--runtime", "ort"]) == 0
    assert "onnx-fp32  ort      ok" in capfd.readouterr().out


def test_verify_says_once_why_artifacts_were_skipped(
    color_bundle: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    row = verification.ArtifactCheck("onnx-fp32", "tensorrt", "skipped", "no NVIDIA GPU can be used here")
    rows = (
        verification.ArtifactCheck("onnx-fp32", "ort", "ok", "", 0.0, 1.0, 1.0),
        row,
        dataclasses.replace(row, id="onnx-int8-tensorrt"),
        verification.ArtifactCheck("tensorrt-fp32-sm89", "tensorrt", "skipped", "built for another GPU"),
    )
    monkeypatch.setattr(verification, "verify", lambda *given, **more: verification.Verification(rows))
    assert main(["verify", str(color_bundle)]) == 0
    assert capfd.readouterr().out.splitlines()[-2:] == [
        "onnx-fp32 on tensorrt, onnx-int8-tensorrt on tensorrt: no NVIDIA GPU can be used here",
        "tensorrt-fp32-sm89 on tensorrt: built for another GPU",
    ]


def test_verify_exits_1_where_the_results_differ(
    color_bundle: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = Backend._run
    monkeypatch.setattr(Backend, "_run", lambda self, feeds: [value + 0.5 for value in run(self, feeds)])
    assert main(["verify", str(color_bundle), "--runtime", "ort", "--json"]) == 1
    captured = capfd.readouterr()
    assert json.loads(captured.out)["ok"] is False
    assert "failed: onnx-fp32 on ort" in captured.err
    assert main(["verify", str(color_bundle), "--runtime", "ort"]) == 1
    assert "onnx-fp32  ort      failed  0.5 " in capfd.readouterr().out


def test_verify_without_a_bundle(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path / "nope")]) == 2
    assert "no such bundle" in capfd.readouterr().err


def test_inspect_for_machines(color_bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(color_bundle), "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    manifest = json.loads((color_bundle / "manifest.json").read_text())
    assert {key: facts[key] for key in manifest} == manifest
    assert facts["input"] == {"name": "image", "dtype": "uint8", "shape": ["batch", 8, 8, 3]}
    assert {"layers", "params", "macs", "outputs"} <= set(facts)
    assert isinstance(facts["auto"], str)


def test_inspect_tells_how_it_runs_here_and_measures_nothing(
    color_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def never(*given: object, **options: object) -> dict[str, float]:
        raise AssertionError("was measured")

    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path))
    monkeypatch.delenv("EDGECNN_RUNTIME")
    monkeypatch.setattr(candidates, "known", lambda: ["openvino", "ort"])
    monkeypatch.setattr(auto, "interleaved_ms", never)
    assert main(["inspect", str(color_bundle)]) == 0
    assert "  runs here: not measured here yet: the first start does that" in capfd.readouterr().out
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(candidates, "known", lambda: ["ort"])
    assert main(["inspect", str(color_bundle), "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["auto"] == "onnx-fp32 on ort: the only way to run it here"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["inspect", str(color_bundle)]) == 0
    assert f"  runs here: no runtime here can run {color_bundle} (ort: " in capfd.readouterr().out


def test_inspect_for_people(window_bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(window_bundle)]) == 0
    card = capfd.readouterr().out
    size = len(mean_color_model(ModelSpec(task="classification", size_hw=(32, 32))))
    for text in (
        "window_detection",
        "image: uint8 batch×32×32×3",
        "red, green, blue",
        "score ≥ 0.8",
        f"{size} B",
    ):
        assert text in card


def test_inspect_lists_layers_when_asked(photo_bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(photo_bundle)]) == 0
    card = capfd.readouterr().out
    assert "1,235,496 parameters" in card
    assert "… 1000 in all" in card
    assert main(["inspect", str(photo_bundle), "-v"]) == 0
    layers = capfd.readouterr().out.removeprefix(card.rstrip())
    assert "86,528,000" in layers
    assert main(["inspect", str(photo_bundle), "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["params"] == 1_235_496
    assert facts["macs"] == sum(layer["macs"] for layer in facts["layers"])


def test_json_of_numbers_that_are_not_finite(capfd: pytest.CaptureFixture[str]) -> None:
    _common.print_json({"a": [float("nan"), {"b": float("-inf")}], "c": (1.5, 2, True, None, "NaN")})
    assert json.loads(capfd.readouterr().out, parse_constant=pytest.fail) == {
        "a": [None, {"b": None}],
        "c": [1.5, 2, True, None, "NaN"],
    }


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_499, "999 kB"), (999_600, "1 MB"), (4_939_255, "4.94 MB"),
     (2_500_000_000, "2.5 GB")],
)  # fmt: skip
def test_human_bytes(count: int, text: str) -> None:
    assert _common.human_bytes(count) == text


def test_table() -> None:
    assert _common.table([["a", "long"], ["value", "b"]]) == "  a      long\n  value  b"


def test_verify_without_an_engine_is_unavailable(
    photo_bundle: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(verification, "known", lambda: ["ort"])
    assert main(["verify", str(photo_bundle)]) == 3
    assert "no artifact could be run here (all); see edgecnn doctor" in capfd.readouterr().err
