"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy.typing as npt

from edgecnn.errors import EngineError, InputError, first_line, require
from edgecnn.manifest import TensorInfo
from edgecnn.runtimes.base import Feeds, Outputs, Runtime

__all__ = ["Backend"]

# onnxruntime's names of element types -> numpy's
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class Backend(Runtime):
    """Loads ONNX bytes; idle threads sleep unless ``spin`` is set."""

    name = "ort"
    formats = ("onnx",)

    @classmethod
    def version(cls) -> str:
        """Version of onnxruntime."""
        return str(require("onnxruntime", "cpu").__version__)

    def _load(self) -> None:
        ort = require("onnxruntime", "cpu")
        settings = ort.SessionOptions()
        threads, streams = self.options.thread_count, self.options.stream_count
        # inferences side by side bring a thread each and share the helpers of their session
        settings.intra_op_num_threads = streams * (threads - 1) + 1
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 4  # its errors come as exceptions, once
        spin = "1" if self.options.spin else "0"
        settings.add_session_config_entry("session.intra_op.allow_spinning", spin)
        settings.add_session_config_entry("session.inter_op.allow_spinning", spin)
        try:
            self._session = ort.InferenceSession(
                self.artifact.content, settings, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own errors share no base class
            raise InputError(f"{self.artifact.name}: onnxruntime refuses it ({first_line(error)})") from error
        self.inputs = tuple(_info(value, self.artifact.name) for value in self._session.get_inputs())
        self.outputs = tuple(_info(value, self.artifact.name) for value in self._session.get_outputs())
        self._names = [info.name for info in self.outputs]
        self.facts = {"onnxruntime": self.version(), "streams": str(streams), "threads": str(threads)}
        self._workers = ThreadPoolExecutor(streams, thread_name_prefix="onnxruntime")

    def _release(self) -> None:
        self._workers.shutdown()
        del self._session

    @property
    def parallel(self) -> int:
        """As many as there are streams."""
        return self.options.stream_count

    def submit(self, feeds: Feeds) -> Future[Outputs]:
        """Start one inference beside others; see `Runtime.submit`."""
        self._check(feeds)
        return self._workers.submit(self._answered, feeds)

    def _run(self, feeds: Feeds) -> Sequence[npt.NDArray[Any]]:
        try:
            values: list[npt.NDArray[Any]] = self._session.run(self._names, feeds)
        except Exception as error:  # as above
            raise EngineError(f"{self.artifact.name}: onnxruntime failed ({first_line(error)})") from error
        return values


def _info(value: Any, name: str) -> TensorInfo:
    if value.type not in _DTYPES:
        raise InputError(f"{name}: {value.name} is a {value.type}; edgecnn handles {', '.join(_DTYPES)}")
    return TensorInfo(name=value.name, dtype=_DTYPES[value.type], shape=tuple(value.shape))
