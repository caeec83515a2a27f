from __future__ import annotations

import re

import pytest

from edgecnn.devices import built_there, engine_source, profile, profiles
from edgecnn.devices.page import page
from edgecnn.devices.profiles import Placement, Precision
from edgecnn.errors import InputError
from edgecnn.manifest import ArtifactEntry
from tests.paths import ROOT

NAMES = [
    "cpu", "x86", "intel-gpu", "intel-npu", "arm64", "raspberry-pi-5", "jetson-nano", "jetson-xavier-nx",
    "jetson-orin-nano", "jetson-orin-nx", "jetson-agx-orin", "jetson-thor", "rtx",
]  # fmt: skip


def onnx(precision: Precision, path: str, placement: Placement | None = None) -> ArtifactEntry:
    return ArtifactEntry(
        id=f"onnx-{precision}", format="onnx", precision=precision, placement=placement, path=path
    )


FP32 = onnx("fp32", "model.onnx")
FP16 = onnx("fp16", "model.fp16.onnx")
INT8_CPU = onnx("int8", "model.int8.onnx", "cpu")
INT8_TENSORRT = onnx("int8", "model.int8.tensorrt.onnx", "tensorrt")


def test_there_is_a_profile_of_each_device() -> None:
    assert [entry.name for entry in profiles()] == NAMES
    assert [profile(name).name for name in NAMES] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_profiles_are_consistent(name: str) -> None:
    entry = profile(name)
    assert set(entry.runtimes) <= {"ort", "openvino", "tensorrt"}
    assert "ort" in entry.runtimes
    assert set(entry.targets) <= {"onnx", "openvino", "tensorrt"}
    assert ("tensorrt" in entry.targets) == ("tensorrt" in entry.runtimes)
    assert ("openvino" in entry.targets) == ("openvino" in entry.runtimes) == bool(entry.openvino_device)
    assert entry.placement == ("tensorrt" if "tensorrt" in entry.runtimes else "cpu")
    assert bool(entry.compute_capabilities) == (name.startswith("jetson") or name == "rtx")
    assert (entry.jetson is not None) == name.startswith("jetson")
    assert entry.default_precision == entry.precisions(entry.runtimes[0])[0]
    assert entry.notes
    assert entry.sources
    for source in entry.sources:
        assert re.fullmatch(r"https://[a-z.]+/\S+", source.url)
        assert source.title
        assert source.fact


@pytest.mark.parametrize(
    ("name", "opset", "precision", "capabilities", "batch"),
    [
        ("cpu", None, "fp32", (), None),
        ("intel-npu", None, "int8", (), 1),
        # its TensorRT, which stops at 13, is not used
        ("jetson-nano", None, "fp32", ("5.3",), None),
        ("jetson-xavier-nx", 17, "int8", ("7.2",), None),
        ("jetson-orin-nano", 20, "int8", ("8.7",), None),
        ("jetson-thor", 20, "int8", ("11.0",), None),
        ("rtx", None, "int8", ("8.6", "8.9", "12.0"), None),
    ],
)
def test_what_convert_asks(
    name: str, opset: int | None, precision: str, capabilities: tuple[str, ...], batch: int | None
) -> None:
    entry = profile(name)
    assert (entry.opset, entry.default_precision) == (opset, precision)
    assert (entry.compute_capabilities, entry.fixed_batch) == (capabilities, batch)


def test_a_runtime_that_is_not_used_runs_nothing() -> None:
    assert profile("cpu").precisions("tensorrt") == ()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("jetson-orin", "did you mean jetson-orin-nano, jetson-orin-nx?"),
        ("orin", "did you mean jetson-orin-nano, jetson-orin-nx, jetson-agx-orin?"),
        ("jetson-xaver-nx", "did you mean jetson-xavier-nx"),
        ("X86", "did you mean x86?"),
        ("", "there are cpu, x86, "),
        ("toaster", "there are cpu, x86, "),
    ],
)
def test_unknown_name(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"no device {name!r}; {hint}")):
        profile(name)


@pytest.mark.parametrize(
    ("artifacts", "source"),
    [
        ([FP32], "fp32 from model.onnx"),
        ([FP32, FP16], "fp16 from model.fp16.onnx"),
        ([FP32, FP16, INT8_TENSORRT], "int8 from model.int8.tensorrt.onnx"),
        # Q/DQ as processors want it is not for TensorRT
        ([INT8_CPU, FP32], "fp32 from model.onnx"),
    ],
)
def test_a_jetson_builds_its_engine(artifacts: list[ArtifactEntry], source: str) -> None:
    [sentence] = built_there(profile("jetson-orin-nano"), artifacts)
    assert sentence == (
        f"TensorRT engine {source}, by the device's TensorRT (10.3–10.16) on first use, "
        "which can take minutes, and kept in the cache"
    )


def test_engine_source() -> None:
    assert engine_source([FP32, INT8_CPU, FP16, INT8_TENSORRT]) is INT8_TENSORRT
    assert engine_source([INT8_CPU]) is None


def test_an_rtx_builds_engines_for_other_cards_only() -> None:
    engines = [
        ArtifactEntry(
            id=f"tensorrt-fp32-{tag}",
            format="tensorrt",
            precision="fp32",
            placement="tensorrt",
            path=f"tensorrt/{tag}.engine",
            requires={"compute_capability": capability},
        )
        for tag, capability in (("sm86", "8.6"), ("sm120", "12.0"))
    ]
    [sentence] = built_there(profile("rtx"), [FP32, *engines])
    assert sentence.endswith("where the GPU has another compute capability than 8.6, 12.0")
    [sentence] = built_there(profile("rtx"), [FP32])
    assert sentence.endswith("from model.onnx on first use, which can take minutes, and kept in the cache")


def test_openvino_compiles_for_a_gpu() -> None:
    entry = ArtifactEntry(
        id="openvino-fp16", format="openvino", precision="fp16", path="openvino/model.fp16.xml"
    )
    assert built_there(profile("intel-npu"), [FP32, entry]) == (
        "openvino/model.fp16.xml is compiled by OpenVINO for NPU on first use and kept in the cache",
    )
    assert built_there(profile("x86"), [FP32, entry]) == ()


def test_nothing_is_built_from_nothing() -> None:
    assert built_there(profile("jetson-orin-nano"), [INT8_CPU]) == ()
    assert built_there(profile("cpu"), [FP32, INT8_CPU]) == ()


def test_the_page_is_up_to_date() -> None:
    text = (ROOT / "docs" / "devices.md").read_text()
    assert text == page(), "run: python -m edgecnn.devices.page > docs/devices.md"
    assert all(f"| `{name}` |" in text and f"## {name}\n" in text for name in NAMES)
