"""Which TensorRT is found, and what it says; with the real one, which needs no GPU for this."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from edgecnn.tensorrt_api import Said, TensorRT, collector, find_tensorrt, numpy_dtype, plain
from tests.paths import engine

RTX = "tensorrt_rtx_bindings"

# prints what is found or why nothing is; the names after the first are made impossible to import
FIND = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))
from edgecnn.errors import MissingDependency
from edgecnn.tensorrt_api import find_tensorrt
try:
    print(find_tensorrt().module.__name__)
except MissingDependency as error:
    print(error)
"""


@pytest.fixture(scope="module")
def tensorrt() -> TensorRT:
    engine(RTX)
    return find_tensorrt()


def found(folder: Path, *blocked: str) -> str:
    """What a fresh Python finds, with a folder of modules before all others."""
    done = subprocess.run(
        [sys.executable, "-c", FIND, *blocked],
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def package(folder: Path, name: str, text: str | None) -> None:
    (folder / name).mkdir()
    if text is not None:
        (folder / name / "__init__.py").write_text(text)


def test_the_wheels_are_found(tensorrt: TensorRT) -> None:
    assert tensorrt.flavor == "tensorrt_rtx"
    assert tensorrt.version == metadata.version("tensorrt_rtx_cu13_bindings")
    assert tensorrt.module.Builder
    assert find_tensorrt() is tensorrt


def test_without_any_the_message_says_what_to_do(tmp_path: Path) -> None:
    assert found(tmp_path, "tensorrt", "tensorrt_rtx", RTX) == (
        "TensorRT could not be imported (not installed); on a Jetson it comes with JetPack, "
        "elsewhere try: pip install 'edgecnn[tensorrt]'"
    )


def test_the_full_one_comes_first(tmp_path: Path) -> None:
    package(tmp_path, "tensorrt", "__version__ = '10.3.0'\nclass Runtime: ...\n")
    assert found(tmp_path) == "tensorrt"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise ImportError('libnvinfer.so.10: cannot open shared object file')", "libnvinfer.so.10"),
        ("raise OSError('libcuda.so.1: no such file')", "libcuda.so.1"),
        ("import gone", "No module named 'gone'"),
        # a folder of engines in the current one, as bundles have it
        (None, "no attribute 'Runtime'"),
    ],
)
def test_a_broken_installation_is_named_or_passed_over(tmp_path: Path, text: str | None, reason: str) -> None:
    package(tmp_path, "tensorrt", text)
    said = found(tmp_path, "tensorrt_rtx", RTX)
    assert said.startswith("TensorRT could not be imported (tensorrt: ")
    assert reason in said
    engine(RTX)
    assert found(tmp_path) == RTX


def test_errors_are_collected_until_taken(tensorrt: TensorRT, caplog: pytest.LogCaptureFixture) -> None:
    said = collector(tensorrt)
    assert collector(tensorrt) is said
    runtime = tensorrt.module.Runtime(said)
    said.take()
    with caplog.at_level(logging.DEBUG, logger="edgecnn.tensorrt_api"):
        assert runtime.deserialize_cuda_engine(b"not an engine") is None
        assert runtime.deserialize_cuda_engine(b"not an engine") is None
    taken = said.take()
    assert len([text for text in taken.errors if "bufferSize" in text]) == 1
    assert not taken.warnings
    assert len([record for record in caplog.records if "bufferSize" in record.message]) == 2
    assert said.take().errors == ()


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        ((), "it does not say why"),
        (("Cuda Runtime (cudaError 35)", "K is too large", "in vain"), "K is too large"),
        (("Cuda Runtime (cudaError 2)",), "Cuda Runtime (cudaError 2)"),
    ],
)
def test_the_reason_is_the_first_error_that_is_not_of_cuda(errors: tuple[str, ...], reason: str) -> None:
    assert Said(errors).reason == reason


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("[runtime.cpp::readHeader::765] Error Code 2: Internal Error (bad)", "Internal Error (bad)"),
        (
            "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (tk: K exceeds 3840. In processCheck"
            " at /_src/optimizer/graph.cpp:1066\nIn analyzeShapes at /_src/optimizer/graph.cpp:28)",
            "API Usage Error (tk: K exceeds 3840.)",
        ),
        ("WARNING onnxOpImporters.cpp:1980: Defaulting to INT8", "Defaulting to INT8"),
        ("Conv_3: In the end it is text", "Conv_3: In the end it is text"),
    ],
)
def test_messages_lose_the_places_in_the_source(message: str, wanted: str) -> None:
    assert plain(message) == wanted


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("FLOAT", "float32"), ("HALF", "float16"), ("INT8", "int8"), ("UINT8", "uint8"),
        ("INT32", "int32"), ("INT64", "int64"), ("BOOL", "bool"), ("FP8", "fp8"),
    ],
)  # fmt: skip
def test_dtypes_by_numpys_names(tensorrt: TensorRT, kind: str, name: str) -> None:
    assert numpy_dtype(getattr(tensorrt.module.DataType, kind)) == name
