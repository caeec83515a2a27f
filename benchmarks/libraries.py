"""INT8 as two libraries make it when they are left to their defaults, to compare with."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgecnn.converters.quiet import quiet

Images = npt.NDArray[np.uint8]
Feeds = dict[str, Images]


def onnxruntime_int8(model: bytes, images: Images) -> bytes:
    """``quantize_static`` with a scale for each channel of the weights."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = _feeds(model, images)

        def get_next(self) -> Feeds | None:
            return next(self.feeds, None)

    with tempfile.TemporaryDirectory() as folder, _silence():
        whole, small = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        whole.write_bytes(model)
        quantize_static(whole, small, Reader(), per_channel=True)
        return small.read_bytes()


def nncf_int8(model: bytes, images: Images) -> bytes:
    """``nncf.quantize``, which looks at all of the images."""
    with _silence():
        import nncf

        dataset = nncf.Dataset(list(_feeds(model, images)))
        small: Any = nncf.quantize(onnx.load_from_string(model), dataset, subset_size=len(images))
    data: bytes = small.SerializeToString()
    return data


LIBRARIES = {"onnxruntime": onnxruntime_int8, "nncf": nncf_int8}


def versions() -> dict[str, str]:
    """Version of each library.

    Raises:
        SystemExit: One is not installed.
    """
    for name in LIBRARIES:
        if find_spec(name) is None:
            raise SystemExit(f"int8: {name} is not installed; pip install {name}, or --skip-libraries")
    return {name: version(name) for name in LIBRARIES}


def _feeds(model: bytes, images: Images) -> Iterator[Feeds]:
    name = onnx.load_from_string(model).graph.input[0].name
    return ({name: image[None]} for image in images)


@contextmanager
def _silence() -> Iterator[None]:
    """Without their progress bars, warnings and logs."""
    with quiet(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield
