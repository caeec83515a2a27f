"""The devices there are profiles of: one table, each fact with where it can be looked up."""

from __future__ import annotations

import difflib

from edgecnn.devices.profiles import DeviceProfile, JetsonSoftware, Runs, Source
from edgecnn.errors import InputError

__all__ = ["profile", "profiles"]

ON_CPU = Runs("ort", ("int8", "fp32"))
TENSORRT = Runs("tensorrt", ("int8", "fp16", "fp32"))

CAPABILITY = Source(
    "compute capability", "CUDA GPU Compute Capability", "https://developer.nvidia.com/cuda-gpus"
)
LEGACY_CAPABILITY = Source(
    "compute capability",
    "Legacy CUDA GPU Compute Capability",
    "https://developer.nvidia.com/cuda-legacy-gpus",
)
MODULES = Source(
    "memory, DLA cores",
    "Jetson Modules, Support, Ecosystem, and Lineup",
    "https://developer.nvidia.com/embedded/jetson-modules",
)
JETPACKS = Source(
    "JetPack, L4T, TensorRT", "JetPack Archive", "https://developer.nvidia.com/embedded/jetpack-archive"
)
DLA = Source(
    "TensorRT 10.7 was the last 10.x with DLA; 11.4.1 has it on AGX Orin again",
    "Working with DLA",
    "https://docs.nvidia.com/deeplearning/tensorrt/11.4.1/inference-library/work-with-dla.html",
)
OPERATORS = "Supported ONNX Operators (onnx-tensorrt {})"
OPERATORS_URL = "https://github.com/onnx/onnx-tensorrt/blob/release/{}/docs/operators.md"
QUANTIZED_CPU = Source(
    "INT8 pays with VNNI on x86 and with dot-product instructions on Arm",
    "Quantize ONNX Models",
    "https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html",
)

# JetPack 6.0 came with TensorRT 8.6: the range starts with the one that has 10
ORIN_SOFTWARE = JetsonSoftware(
    jetpack="6.1–7.2", l4t="36.4–39.2", tensorrt="10.3–10.16", python="3.10–3.12", opset=20
)
ORIN_SOURCES = (
    CAPABILITY,
    MODULES,
    JETPACKS,
    Source("opset 20", OPERATORS.format("10.1"), OPERATORS_URL.format("10.1-GA")),
)
JETPACK_OPENCV = "JetPack's own OpenCV reads CSI cameras through GStreamer, pip's cannot: do not replace it"
DLA_NOTE = (
    "DLA needs JetPack 6: the TensorRT of JetPack 7.2 has none, and layers it cannot run fall back to the GPU"
)

PROFILES = (
    DeviceProfile(
        name="cpu",
        title="Any processor",
        architecture=None,
        runs=(Runs("ort", ("fp32", "int8")),),
        targets=("onnx",),
        notes=("INT8 is smaller everywhere, but faster only with VNNI or dot-product instructions",),
        sources=(QUANTIZED_CPU,),
    ),
    DeviceProfile(
        name="x86",
        title="Intel or AMD processor",
        architecture="x86_64",
        runs=(Runs("openvino", ("int8", "fp32")), ON_CPU),
        targets=("onnx", "openvino"),
        openvino_device="CPU",
        notes=("without VNNI, INT8 sums of AVX2 can saturate: edgecnn doctor shows what the processor has",),
        sources=(QUANTIZED_CPU,),
    ),
    DeviceProfile(
        name="intel-gpu",
        title="Intel GPU, integrated or Arc",
        architecture="x86_64",
        runs=(Runs("openvino", ("fp16", "int8", "fp32")), ON_CPU),
        targets=("openvino",),
        openvino_device="GPU",
        notes=(
            "OpenVINO runs fp16 artifacts in fp16 there",
            "INT8 is faster from Iris Xe on; older GPUs run it in float",
            "fixed shapes are faster than a varying batch",
        ),
        sources=(
            Source(
                "precisions, shapes",
                "OpenVINO: GPU Device",
                "https://docs.openvino.ai/2026/openvino-workflow/running-inference/"
                "inference-devices-and-modes/gpu-device.html",
            ),
        ),
    ),
    DeviceProfile(
        name="intel-npu",
        title="Intel NPU (Core Ultra)",
        architecture="x86_64",
        runs=(Runs("openvino", ("int8", "fp16")), ON_CPU),
        targets=("openvino",),
        openvino_device="NPU",
        fixed_batch=1,
        notes=(
            "fixed shapes only: the batch is part of the artifact",
            "computes in fp16, or INT8 where the artifact is quantised; needs Intel's NPU driver",
        ),
        sources=(
            Source(
                "static shapes, fp16, INT8, driver",
                "OpenVINO: NPU Device",
                "https://docs.openvino.ai/2026/openvino-workflow/running-inference/"
                "inference-devices-and-modes/npu-device.html",
            ),
        ),
    ),
    DeviceProfile(
        name="arm64",
        title="64-bit Arm processor",
        architecture="aarch64",
        runs=(ON_CPU,),
        targets=("onnx",),
        notes=(
            "INT8 is faster where the processor has dot-product instructions (asimddp: Cortex-A55, A76 "
            "and later); on a Cortex-A53 or A72 compare it with fp32",
        ),
        sources=(QUANTIZED_CPU,),
    ),
    DeviceProfile(
        name="raspberry-pi-5",
        title="Raspberry Pi 5",
        architecture="aarch64",
        runs=(ON_CPU,),
        targets=("onnx",),
        memory_mb=1024,
        notes=(
            "its Cortex-A76 has dot-product instructions (asimddp), which INT8 in ONNX Runtime uses",
            "needs a 64-bit system and, for full speed over time, the active cooler",
        ),
        sources=(
            Source(
                "BCM2712 with Cortex-A76",
                "Raspberry Pi 5",
                "https://www.raspberrypi.com/products/raspberry-pi-5/",
            ),
            Source(
                "memory",
                "1GB Raspberry Pi 5, and memory-driven price rises",
                "https://www.raspberrypi.com/news/1gb-raspberry-pi-5-now-available-at-45-and-memory-driven-price-rises/",
            ),
            QUANTIZED_CPU,
        ),
    ),
    DeviceProfile(
        name="jetson-nano",
        title="Jetson Nano (2019)",
        architecture="aarch64",
        runs=(Runs("ort", ("fp32", "int8")),),
        targets=("onnx",),
        memory_mb=2048,
        compute_capabilities=("5.3",),
        jetson=JetsonSoftware(
            jetpack="4.6.1–4.6.6", l4t="32.7.1–32.7.6", tensorrt="8.2", python="3.6", opset=13
        ),
        notes=(
            "JetPack 4, its last, has Python 3.6 and Ubuntu 18.04: edgecnn needs a container with "
            "Python 3.10 or newer, and runs on the processor there",
            "the GPU is not used: TensorRT 8.2 reads no uint8 input and has no bindings for a newer Python",
            "the GPU (Maxwell) has no INT8, and the Cortex-A57 no dot-product instructions",
        ),
        sources=(
            LEGACY_CAPABILITY,
            MODULES,
            JETPACKS,
            Source("opset 13", OPERATORS.format("8.2"), OPERATORS_URL.format("8.2-GA")),
            Source(
                "uint8 inputs since TensorRT 8.5",
                "ONNX-TensorRT Changelog",
                "https://github.com/onnx/onnx-tensorrt/blob/main/docs/Changelog.md",
            ),
            Source(
                "no INT8 with compute capability 5.3",
                "Support Matrix, TensorRT 8.2.5",
                "https://docs.nvidia.com/deeplearning/tensorrt/archives/tensorrt-825/support-matrix/index.html",
            ),
        ),
    ),
    DeviceProfile(
        name="jetson-xavier-nx",
        title="Jetson Xavier NX (and AGX Xavier)",
        architecture="aarch64",
        runs=(TENSORRT, ON_CPU),
        targets=("onnx", "tensorrt"),
        placement="tensorrt",
        memory_mb=8192,
        compute_capabilities=("7.2",),
        dla_cores=2,
        jetson=JetsonSoftware(
            jetpack="5.1–5.1.6", l4t="35.2.1–35.6.4", tensorrt="8.5", python="3.8", opset=17
        ),
        notes=(
            "JetPack 5, its last, has Python 3.8: edgecnn needs a container with Python 3.10 or newer, and "
            "TensorRT's bindings built for that Python, else it runs on the processor",
            JETPACK_OPENCV,
        ),
        sources=(
            LEGACY_CAPABILITY,
            MODULES,
            JETPACKS,
            Source("opset 17", OPERATORS.format("8.5"), OPERATORS_URL.format("8.5-GA")),
            Source(
                "bindings for another Python",
                "TensorRT OSS, Python packages",
                "https://github.com/NVIDIA/TensorRT/tree/release/8.5/python",
            ),
        ),
    ),
    DeviceProfile(
        name="jetson-orin-nano",
        title="Jetson Orin Nano",
        architecture="aarch64",
        runs=(TENSORRT, ON_CPU),
        targets=("tensorrt",),
        placement="tensorrt",
        memory_mb=4096,
        compute_capabilities=("8.7",),
        jetson=ORIN_SOFTWARE,
        notes=("no DLA", JETPACK_OPENCV),
        sources=ORIN_SOURCES,
    ),
    DeviceProfile(
        name="jetson-orin-nx",
        title="Jetson Orin NX",
        architecture="aarch64",
        runs=(TENSORRT, ON_CPU),
        targets=("tensorrt",),
        placement="tensorrt",
        memory_mb=8192,
        compute_capabilities=("8.7",),
        dla_cores=1,
        jetson=ORIN_SOFTWARE,
        notes=("the module with 16 GB has a second DLA core", DLA_NOTE, JETPACK_OPENCV),
        sources=(*ORIN_SOURCES, DLA),
    ),
    DeviceProfile(
        name="jetson-agx-orin",
        title="Jetson AGX Orin",
        architecture="aarch64",
        runs=(TENSORRT, ON_CPU),
        targets=("tensorrt",),
        placement="tensorrt",
        memory_mb=32768,
        compute_capabilities=("8.7",),
        dla_cores=2,
        jetson=ORIN_SOFTWARE,
        notes=(f"{DLA_NOTE}; TensorRT 11.4.1 brings it back for JetPack 7.2.2", JETPACK_OPENCV),
        sources=(*ORIN_SOURCES, DLA),
    ),
    DeviceProfile(
        name="jetson-thor",
        title="Jetson Thor (T4000, T5000)",
        architecture="aarch64",
        runs=(TENSORRT, ON_CPU),
        targets=("tensorrt",),
        placement="tensorrt",
        memory_mb=65536,
        compute_capabilities=("11.0",),
        jetson=JetsonSoftware(
            jetpack="7.0–7.2", l4t="38.2–39.2", tensorrt="10.13–10.16", python="3.12", opset=20
        ),
        notes=("no DLA", "its GPU has FP8, which edgecnn does not write", JETPACK_OPENCV),
        sources=(
            CAPABILITY,
            MODULES,
            JETPACKS,
            DLA,
            Source("opset 20 or newer", OPERATORS.format("10.1"), OPERATORS_URL.format("10.1-GA")),
        ),
    ),
    DeviceProfile(
        name="rtx",
        title="NVIDIA RTX card",
        architecture="x86_64",
        runs=(TENSORRT, ON_CPU),
        targets=("tensorrt",),
        placement="tensorrt",
        compute_capabilities=("8.6", "8.9", "12.0"),
        notes=(
            "engines are built at conversion for the generations 30 (8.6), 40 (8.9) and 50 (12.0)",
            "they need the TensorRT for RTX that built them; with another one they are built again there",
        ),
        sources=(
            CAPABILITY,
            Source(
                "engines for a compute capability, built without its GPU",
                "CPU-Only AOT and TensorRT-RTX Engines",
                "https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/cpu-engines.html",
            ),
        ),
    ),
)


def profiles() -> tuple[DeviceProfile, ...]:
    """All profiles, from the most general to the most special within each family."""
    return PROFILES


def profile(name: str) -> DeviceProfile:
    """The profile of a name.

    Raises:
        InputError: There is none; names those that sound alike, or all.
    """
    by_name = {entry.name: entry for entry in PROFILES}
    if not isinstance(name, str):
        raise InputError(f"a device is the name of a profile, not a {type(name).__name__}")
    if name in by_name:
        return by_name[name]
    part = name.lower()
    close = [known for known in by_name if part and part in known]
    close = close or difflib.get_close_matches(part, by_name, n=3)
    hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(by_name)}"
    raise InputError(f"no device {name!r}; {hint}")
