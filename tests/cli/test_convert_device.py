"""``convert --device`` and ``--target``: what a profile decides, and what an option decides instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import edgecnn
from edgecnn import Bundle, devices, rungs
from edgecnn.cli.main import main
from edgecnn.devices import DeviceProfile
from tests.int8 import FASTER, clock
from tests.paths import engine
from tests.shapes import SPEC
from tests.test_quantization import shape_frames

PROFILES = [profile.name for profile in devices.profiles()]


def needs(profile: DeviceProfile) -> None:
    """Skip what cannot be written without an engine that is not installed."""
    if "openvino" in profile.targets:
        engine("openvino")
    if profile.compute_capabilities and profile.jetson is None:
        engine("tensorrt_rtx_bindings")


def check_readable(bundle: Bundle, profile: DeviceProfile) -> None:
    """Every ONNX file is in an opset that the device knows, and in the batch that it can take."""
    for entry in bundle.manifest.artifacts:
        if entry.format != "onnx":
            continue
        model = onnx.load_from_string(bundle.read(entry.path))
        (opset,) = (each.version for each in model.opset_import if each.domain == "")
        assert entry.requires["opset"] == str(opset)
        assert profile.opset is None or opset <= profile.opset
        batch = model.graph.input[0].type.tensor_type.shape.dim[0]
        assert (batch.dim_value or None) == profile.fixed_batch
    assert isinstance(bundle.manifest.inputs[0].shape[0], int) == (profile.fixed_batch is not None)


def convert(color_onnx: tuple[Path, Path], out: Path, *options: str) -> int:
    model, spec = color_onnx
    return main(["convert", str(model), "--spec", str(spec), "-o", str(out), "--samples", "4", *options])


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Real inputs, as far as anyone can see."""
    path = tmp_path / "images.npz"
    np.savez(path, images=np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8))
    return path


@pytest.mark.parametrize("name", PROFILES)
def test_every_device(
    name: str, color_onnx: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    profile = devices.profile(name)
    needs(profile)
    assert convert(color_onnx, tmp_path / "a.edge", "--device", name, "--json") == 0
    facts = json.loads(capfd.readouterr().out)
    bundle = Bundle(tmp_path / "a.edge")
    target = bundle.manifest.device
    assert target is not None
    assert facts["device"] == {
        "profile": name,
        "runtimes": list(profile.runtimes),
        "built_there": list(target.built_there),
    }
    formats = [entry.format for entry in bundle.manifest.artifacts]
    assert formats[0] == "onnx"
    assert formats.count("openvino") == ("openvino" in profile.targets)
    assert formats.count("tensorrt") == (0 if profile.jetson else len(profile.compute_capabilities))
    assert {entry.precision for entry in bundle.manifest.artifacts} == {"fp32"}
    assert any("model.onnx" in line for line in target.built_there) == ("tensorrt" in profile.runtimes)
    check_readable(bundle, profile)
    assert edgecnn.verify(bundle, runtime="ort").ok


@pytest.mark.parametrize(
    ("name", "artifacts"),
    [
        ("intel-gpu", {"onnx-fp32", "openvino-fp32", "openvino-fp16"}),
        ("intel-npu", {"onnx-fp32", "onnx-int8", "openvino-fp32", "openvino-int8"}),
        ("jetson-xavier-nx", {"onnx-fp32", "onnx-int8", "onnx-int8-tensorrt"}),
        (
            "rtx",
            {"onnx-fp32", "onnx-int8-tensorrt", *(f"tensorrt-int8-sm{sm}" for sm in ("86", "89", "120"))},
        ),
    ],
)
def test_real_inputs_bring_the_precision_of_the_device(
    name: str,
    artifacts: set[str],
    shapes_module: torch.nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    profile = devices.profile(name)
    needs(profile)
    monkeypatch.setattr(rungs, "compare_speed", clock(FASTER))
    bundle = edgecnn.convert(
        shapes_module,
        spec=SPEC,
        out=tmp_path / "a.edge",
        device=name,
        calibration=shape_frames(),
        samples=32,
        threads=1,
    )
    assert {entry.id for entry in bundle.manifest.artifacts} == artifacts
    assert profile.default_precision in {entry.precision for entry in bundle.manifest.artifacts}
    assert bundle.manifest.device is not None
    assert bundle.manifest.device.profile == name
    check_readable(bundle, profile)


def test_device_that_gains_nothing_by_less_stays_in_fp32(
    color_onnx: tuple[Path, Path], images: Path, tmp_path: Path
) -> None:
    assert convert(color_onnx, tmp_path / "a.edge", "--device", "cpu", "--calib", str(images)) == 0
    assert [entry.id for entry in Bundle(tmp_path / "a.edge").manifest.artifacts] == ["onnx-fp32"]


def test_what_is_given_comes_before_the_profile(
    color_onnx: tuple[Path, Path], images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.edge"
    assert convert(color_onnx, out, "--device", "intel-npu", "--target", "onnx", "--batch", "3") == 0
    bundle = Bundle(out)
    assert [entry.id for entry in bundle.manifest.artifacts] == ["onnx-fp32"]
    assert bundle.manifest.inputs[0].shape[0] == 3
    options = ["--device", "intel-gpu", "--calib", str(images), "--precision", "fp32", "--target", "onnx"]
    assert convert(color_onnx, out, *options) == 0
    assert [entry.precision for entry in Bundle(out).manifest.artifacts] == ["fp32"]


@pytest.mark.parametrize("targets", ["openvino", "onnx,openvino", " openvino , onnx "])
def test_targets_are_a_list(color_onnx: tuple[Path, Path], tmp_path: Path, targets: str) -> None:
    engine("openvino")
    assert convert(color_onnx, tmp_path / "a.edge", "--target", targets) == 0
    bundle = Bundle(tmp_path / "a.edge")
    assert [entry.id for entry in bundle.manifest.artifacts] == ["onnx-fp32", "openvino-fp32"]
    assert bundle.manifest.device is None


def test_card_says_what_is_made_on_the_device(
    color_onnx: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.edge"
    assert convert(color_onnx, out, "--device", "jetson-orin-nano") == 0
    report = capfd.readouterr().out
    assert "  for jetson-orin-nano: tensorrt, then ort\n" in report
    assert "  built there: TensorRT engine fp32 from model.onnx, by the device's TensorRT (10.3–" in report
    assert main(["inspect", str(out)]) == 0
    assert "  for jetson-orin-nano: tensorrt, then ort\n" in capfd.readouterr().out


def test_card_says_what_engines_need(
    color_onnx: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engine("tensorrt_rtx_bindings")
    assert convert(color_onnx, tmp_path / "a.edge", "--device", "rtx") == 0
    lines = capfd.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.lstrip().startswith("tensorrt-fp32-sm89"))
    assert "tensorrt_rtx " in line
    assert line.endswith("compute capability 8.9")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "jetson-orin"], "no device 'jetson-orin'; did you mean jetson-orin-nano, "),
        (["--device", "toaster"], "no device 'toaster'; there are cpu, x86, "),
        (["--target", "tflite"], "target: 'tflite' is not onnx, openvino, tensorrt"),
        (["--target", ""], "target: '' is not onnx, openvino, tensorrt"),
        (["--device", "rtx", "--precision", "int8"], "int8 is made for real inputs: pass some of them"),
    ],
)
def test_bad_options_are_refused_in_a_line(
    color_onnx: tuple[Path, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    options: list[str],
    message: Any,
) -> None:
    assert convert(color_onnx, tmp_path / "a.edge", *options) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("edgecnn: error: ")
    assert message in last
    assert not (tmp_path / "a.edge").exists()
