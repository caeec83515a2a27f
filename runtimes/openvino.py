"""OpenVINO on a CPU, GPU or NPU."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy.typing as npt

from edgecnn.errors import DeviceUnavailable, EngineError, ModelError, first_line
from edgecnn.isolation import run_isolated
from edgecnn.openvino_api import compile_model, core, find_openvino, port_info, read_model, useful_line
from edgecnn.paths import is_private, locked, make_private, replace_file, trim
from edgecnn.runtimes.base import Artifact, Feeds, Outputs, Runtime, RuntimeOptions

__all__ = ["Backend"]

log = logging.getLogger(__name__)

KEPT_BYTES = 2_000_000_000  # of compiled models; those unused for longest go first
PROOF = "proven.json"  # which files a child compiled and ran


class Backend(Runtime):
    """Loads IR or ONNX bytes.

    A model that is new to this machine is compiled and run in a child process first, since OpenVINO's
    compiler was seen to die on models that others accept. What it made is found in the cache afterwards.
    """

    name = "openvino"
    formats = ("openvino", "onnx")
    any_size = False  # it makes kernels for each

    @classmethod
    def version(cls) -> str:
        """Version of OpenVINO."""
        return str(find_openvino().__version__).partition("-")[0]

    @classmethod
    def computes(cls) -> tuple[str, ...]:
        """Arithmetic that this processor has for float layers."""
        able = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return ("f32", *(name for name, key in (("bf16", "BF16"), ("f16", "FP16")) if key in able))

    def _load(self) -> None:
        artifact, options = self.artifact, self.options
        device = _device(options.device)
        config = _config(device, options)
        folder = _usable(options.cache_path / "openvino", _key(artifact, device, config))
        if folder is not None:
            config["CACHE_DIR"] = str(folder)
        try:
            # two that compile the same model would write to the same file
            with locked(folder.with_suffix(".lock")) if folder is not None else nullcontext():
                _prove(artifact, device, config, folder)
                model = read_model(artifact.content, artifact.weights)
                self._compiled = compile_model(model, device, config)
        except ModelError as error:
            raise type(error)(f"{artifact.name}: {error}") from error
        self.inputs = tuple(port_info(port) for port in model.inputs)
        self.outputs = tuple(port_info(port) for port in model.outputs)
        self.facts = _facts(device, self._compiled)
        self._idle: deque[Any] = deque()
        self._workers = ThreadPoolExecutor(self.parallel, thread_name_prefix="openvino")

    def _release(self) -> None:
        self._workers.shutdown()
        self._idle.clear()
        del self._compiled

    @property
    def parallel(self) -> int:
        """How many inferences keep the device busy, as OpenVINO sees it."""
        return int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))

    def submit(self, feeds: Feeds) -> Future[Outputs]:
        """Start one inference beside others; see `Runtime.submit`."""
        self._check(feeds)
        return self._workers.submit(self._answered, feeds)

    def _run(self, feeds: Feeds) -> Sequence[npt.NDArray[Any]]:
        try:
            request = self._idle.pop()
        except IndexError:  # one for each of the threads that are here at the same time
            request = self._compiled.create_infer_request()
        try:
            # it reads the caller's arrays in place, and is done with them when this returns
            found = request.infer(
                [feeds[info.name] for info in self.inputs], share_inputs=True, share_outputs=True
            )
            values = [found[index].copy() for index in range(len(self.outputs))]
        except Exception as error:  # OpenVINO raises RuntimeError and others
            raise EngineError(f"{self.artifact.name}: OpenVINO failed ({useful_line(error)})") from error
        self._idle.append(request)
        return values


def _device(asked: str) -> str:
    """OpenVINO's name of a device, once it is known to be there."""
    device = "CPU" if asked == "auto" else asked.upper()
    if device == "CPU":  # looking for others takes longer than compiling a small model
        return device
    there = core().available_devices
    if not any(device in (name, name.partition(".")[0]) for name in there):
        listed = ", ".join(name.lower() for name in there)
        raise DeviceUnavailable(f"OpenVINO finds no device {asked!r} on this machine; there is {listed}")
    return device


def _config(device: str, options: RuntimeOptions) -> dict[str, Any]:
    """OpenVINO's settings; the arithmetic is set since it would use bfloat16 unasked where a CPU has it."""
    config: dict[str, Any] = {"PERFORMANCE_HINT": options.mode.upper()}
    if device != "NPU":  # which knows float16 alone
        config["INFERENCE_PRECISION_HINT"] = options.compute
    if options.streams is not None:
        config["NUM_STREAMS"] = options.streams
    if device == "CPU":
        if options.threads is not None and options.mode == "throughput":
            config["NUM_STREAMS"] = options.stream_count
        # its own number is that of all streams together
        threads = options.thread_count * options.stream_count
        config |= {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": options.pin}
    return config


def _usable(cache: Path, key: str) -> Path | None:
    """A folder for one compiled model, made where it is missing; None if it cannot be written or trusted."""
    with suppress(OSError):
        make_private(cache)
        if not is_private(cache):
            log.warning("%s: compiled models are not kept in it: others may write there", cache)
            return None
        folder = cache / key
        folder.mkdir(mode=0o700, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    return None


def _key(artifact: Artifact, device: str, config: Mapping[str, Any]) -> str:
    """Differs wherever OpenVINO's compiler might make something else."""
    files = [hashlib.sha256(content).hexdigest() for content in (artifact.content, artifact.weights)]
    about = [Backend.version(), core().get_property(device, "FULL_DEVICE_NAME"), config]
    return hashlib.sha256(msgspec.json.encode([files, about])).hexdigest()


def _prove(artifact: Artifact, device: str, config: Mapping[str, Any], folder: Path | None) -> None:
    """Compile and run a model in a child process, unless that went well here and is kept as it was.

    Raises:
        CompilerFailed: The child did not survive it.
        ModelError: OpenVINO refuses the model.
    """
    if folder is not None and _is_proven(folder):
        with suppress(OSError):
            os.utime(folder)
        return
    run_isolated(
        "edgecnn.openvino_api:try_out",
        {
            "content": artifact.content,
            "weights": artifact.weights,
            "device": device,
            "config": config,
            "known": [list(info.shape) for info in artifact.inputs],
        },
        what="OpenVINO's compiler",
    )
    if folder is not None:
        with suppress(OSError):
            replace_file(folder / PROOF, msgspec.json.encode(_compiled_files(folder)))
        trim(folder.parent, KEPT_BYTES)


def _is_proven(folder: Path) -> bool:
    """Whether what a child compiled is still what it was; if not, it is thrown away, never loaded."""
    try:
        proof = msgspec.json.decode((folder / PROOF).read_bytes(), type=dict[str, str])
        if proof == _compiled_files(folder):
            return True
        log.warning("%s: was altered, and is compiled again", folder)
    except FileNotFoundError:
        pass
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        log.warning("%s: cannot be read, and is compiled again (%s)", folder, first_line(error))
    for path in folder.iterdir():
        with suppress(OSError):
            path.unlink()
    return False


def _compiled_files(folder: Path) -> dict[str, str]:
    """The sha256 of each file that OpenVINO keeps in a folder."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.suffix == ".blob"
    }


# what it tells of itself -> OpenVINO's name for that
FACTS = {
    "arithmetic": "INFERENCE_PRECISION_HINT",
    "streams": "NUM_STREAMS",
    "threads": "INFERENCE_NUM_THREADS",
}


def _facts(device: str, compiled: Any) -> dict[str, str]:
    """What it runs on and how: a CPU without bfloat16, say, uses float32 whatever was asked for.

    Threads are those of one inference, as in `RuntimeOptions`.
    """
    known = compiled.get_property("SUPPORTED_PROPERTIES")
    found = {fact: compiled.get_property(key) for fact, key in FACTS.items() if key in known}
    if "arithmetic" in found:
        found["arithmetic"] = found["arithmetic"].get_type_name()
    if "threads" in found:
        found["threads"] //= max(found["streams"], 1)
    return {
        "openvino": Backend.version(),
        "device": str(core().get_property(device, "FULL_DEVICE_NAME")).strip(),
        **{fact: str(value) for fact, value in found.items()},
    }
