"""ONNX → an engine of TensorRT 8.5 to 11 or of TensorRT for RTX, built in a process of its own.

What differs between versions is probed for, never looked up by number. An engine belongs to one version
of TensorRT and one kind of GPU; it is made anew from the ONNX wherever it does not fit.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from edgecnn.converters.base import Arrow
from edgecnn.converters.tensorrt_checks import End, check_model
from edgecnn.errors import DeviceUnavailable, InputError, ModelError
from edgecnn.isolation import NO_HURRY, Limits, run_isolated
from edgecnn.progress import OnWork
from edgecnn.tensorrt_api import (
    Collector,
    TensorRT,
    collector,
    find_tensorrt,
    monitor,
    numpy_dtype,
    parser_error,
)

__all__ = ["OnnxToTensorRT", "TensorRtEngine", "build"]

CURE = "change the model there, or use another target for it"
# TensorRT 8 computes in a lower precision only where a flag lets it
FLAGS = {"fp32": (), "fp16": ("FP16",), "int8": ("INT8",)}


@dataclass(frozen=True)
class TensorRtEngine:
    """An engine, and what is to be known of it before it is loaded.

    Attributes:
        plan: What TensorRT deserialises. It holds machine code: load only what you built or trust.
        inputs, outputs: As the network has them.
        facts: ``tensorrt`` (its version), ``flavor``, ``precision``; ``compute_capability`` where one was
            asked for, ``profile`` (``min,opt,max``) where the batch is open, ``dla_core`` where there is one.
        timing_cache: What was measured of the GPU, for later builds; empty where TensorRT keeps none.
        fallback: Layers that run on the GPU although the DLA was asked for: their names by kind.
        warnings: What TensorRT said while it built.
        build_s: Seconds that took.
    """

    plan: bytes
    inputs: tuple[End, ...]
    outputs: tuple[End, ...]
    facts: dict[str, str]
    timing_cache: bytes = b""
    fallback: dict[str, tuple[str, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    build_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class OnnxToTensorRT(Arrow[bytes, TensorRtEngine]):
    """Builds the engine of an ONNX model, whose types are kept: see `OnnxToFp16` and `Int8Builder`.

    Attributes:
        precision: What the model is in, for versions that have to be told.
        batch: Smallest, usual and largest batch, where the model leaves it open.
        workspace_mb: Memory for intermediate results, in units of 2²⁰ bytes; None is all there is.
        compute_capability: The GPU to build for, such as ``8.9``, with TensorRT for RTX; None is the GPU of
            this machine with TensorRT, and any that it supports with TensorRT for RTX.
        dla_core: The deep learning accelerator to build for; what it cannot do runs on the GPU.
        timing_cache: That of an earlier engine.
        limits: Of the process that builds.
        on_work: Called with what is under way, where TensorRT tells.
        cancelled: Ends the build where another thread sets it.
    """

    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    batch: tuple[int, int, int] = (1, 1, 8)
    workspace_mb: int | None = None
    compute_capability: str | None = None
    dla_core: int | None = None
    timing_cache: bytes = b""
    limits: Limits = NO_HURRY
    on_work: OnWork | None = None
    cancelled: threading.Event | None = None

    name = "onnx_tensorrt"

    def __post_init__(self) -> None:
        smallest, usual, largest = self.batch
        if not 1 <= smallest <= usual <= largest:
            raise InputError(f"batch is (min, opt, max) with 1 <= min <= opt <= max, not {self.batch}")
        if self.workspace_mb is not None and self.workspace_mb < 1:
            raise InputError(f"workspace_mb must be 1 or more, not {self.workspace_mb}")
        if self.dla_core is None:
            return
        if self.dla_core < 0:
            raise InputError(f"dla_core must be 0 or more, not {self.dla_core}")
        if self.precision == "fp32":
            raise InputError("the DLA computes in fp16 and int8; choose one of them, or leave out dla_core")
        if smallest != largest:
            raise InputError(f"the DLA takes batches of one size; give the same thrice, not {self.batch}")

    def requires(self, source: bytes) -> None:
        """A model that TensorRT reads as it is meant; none of TensorRT runs for this."""
        check_model(source)

    def convert(self, source: bytes) -> TensorRtEngine:
        """Build in a child process.

        Raises:
            MissingDependency: No TensorRT here.
            DeviceUnavailable: No GPU, and it needs one to build; or no such DLA.
            InputError: No such compute capability.
            ModelError: TensorRT refuses the model, by node and operation.
            CompilerFailed: It crashed, or passed a limit.
        """
        start = time.perf_counter()
        made = run_isolated(
            f"{__name__}:build",
            {
                "model": source,
                "precision": self.precision,
                "batch": self.batch,
                "workspace_mb": self.workspace_mb,
                "compute_capability": self.compute_capability,
                "dla_core": self.dla_core,
                "timing_cache": self.timing_cache,
            },
            what="TensorRT's builder",
            limits=self.limits,
            on_work=self.on_work,
            cancelled=self.cancelled,
        )
        return TensorRtEngine(
            plan=made["plan"],
            inputs=tuple(End(*each) for each in made["inputs"]),
            outputs=tuple(End(*each) for each in made["outputs"]),
            facts=made["facts"],
            timing_cache=made["timing_cache"],
            fallback={kind: tuple(names) for kind, names in made["fallback"].items()},
            warnings=tuple(made["warnings"]),
            build_s=time.perf_counter() - start,
        )

    def ensures(self, source: bytes, target: TensorRtEngine) -> None:
        """Check that there is an engine and that it takes and gives what the model does.

        It is not loaded: that needs the GPU it was built for.
        """
        if not target.plan:
            raise ModelError("TensorRT built an empty engine; use another target for this model")
        for wanted, found in zip(check_model(source), (target.inputs, target.outputs)):
            if [_in_engine(end, found) for end in wanted] != list(found):
                raise ModelError(f"the engine has {_listed(found)} where the model has {_listed(wanted)}")


def _in_engine(end: End, found: Sequence[End]) -> End:
    """An input or output as an engine has it: TensorRT 8 and 9 have int32 in place of int64."""
    short = End(end.name, "int32")
    return short if end.dtype == "int64" and short in found else end


def _listed(ends: Sequence[End]) -> str:
    return ", ".join(f"{end.name} ({end.dtype})" for end in ends) or "nothing"


def build(
    *,
    model: bytes,
    precision: str,
    batch: Sequence[int],
    workspace_mb: int | None,
    compute_capability: str | None,
    dla_core: int | None,
    timing_cache: bytes,
    progress: OnWork | None = None,
) -> dict[str, Any]:
    """Build an engine in this process, from values as `OnnxToTensorRT` has them; it runs this in a child.

    Returns:
        The parts of a `TensorRtEngine`, in plain values.

    Raises:
        EdgeCnnError: As `OnnxToTensorRT.convert`.
    """
    tensorrt = find_tensorrt()
    trt, said = tensorrt.module, collector(tensorrt)
    said.take()
    try:
        builder = trt.Builder(said)
    except TypeError as error:  # there is none without a GPU, but with TensorRT for RTX
        reason = said.take().reason
        raise DeviceUnavailable(f"TensorRT {tensorrt.version} cannot build here: {reason}") from error
    config = builder.create_builder_config()
    # TensorFloat-32 is on by itself and leaves 10 bits of a float32
    config.clear_flag(trt.BuilderFlag.TF32)
    network = _parsed(tensorrt, builder, said, model, dla=dla_core is not None)
    facts = {"tensorrt": tensorrt.version, "flavor": tensorrt.flavor, "precision": precision}
    if not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        for flag in FLAGS[precision]:
            config.set_flag(getattr(trt.BuilderFlag, flag))
    if compute_capability is not None:
        facts["compute_capability"] = _aim(tensorrt, config, compute_capability)
    if workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mb << 20)
    if _add_profile(builder, network, config, batch):
        facts["profile"] = ",".join(map(str, batch))
    fallback: dict[str, list[str]] = {}
    if dla_core is not None:
        fallback = _use_dla(tensorrt, builder, network, config, dla_core)
        facts["dla_core"] = str(dla_core)
    # TensorRT for RTX has the calls, which do nothing but warn
    cached = tensorrt.flavor == "tensorrt"
    if cached:
        _use_timing_cache(config, timing_cache)
    # version 8 has none
    if progress and hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = monitor(tensorrt, progress)
    warnings = said.take().warnings
    plan = builder.build_serialized_network(network, config)
    heard = said.take()
    if plan is None:
        raise ModelError(f"TensorRT builds no engine of it: {heard.reason}; {CURE}")
    return {
        "plan": bytes(plan),
        "inputs": [_end(network.get_input(i)) for i in range(network.num_inputs)],
        "outputs": [_end(network.get_output(i)) for i in range(network.num_outputs)],
        "facts": facts,
        "timing_cache": bytes(config.get_timing_cache().serialize()) if cached else b"",
        "fallback": fallback,
        "warnings": [*warnings, *heard.warnings],
    }


def _parsed(tensorrt: TensorRT, builder: Any, said: Collector, model: bytes, *, dla: bool) -> Any:
    """The network of a model."""
    trt = tensorrt.module
    flags = 0
    # before version 10 a batch is part of a shape only when asked for; before 9 types are a matter of speed
    for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):
        flag = getattr(trt.NetworkDefinitionCreationFlag, name, None)
        flags |= 0 if flag is None else 1 << int(flag)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, said)
    if dla and hasattr(trt, "OnnxParserFlag") and hasattr(trt.OnnxParserFlag, "ADJUST_FOR_DLA"):
        parser.set_flag(trt.OnnxParserFlag.ADJUST_FOR_DLA)
    parsed = parser.parse(model)
    if parser.num_errors:
        raise ModelError(f"{parser_error(parser.get_error(0))}; {CURE}")
    # of bytes that are no model, it makes an empty network without an error
    if not parsed or not network.num_outputs:
        raise ModelError(f"TensorRT finds no network in it: {said.take().reason}; {CURE}")
    return network


def _aim(tensorrt: TensorRT, config: Any, wanted: str) -> str:
    """Build for a GPU that is not here, given as 8.9, 89 or sm89; gives it as 8.9."""
    if not hasattr(config, "set_compute_capability"):
        raise InputError(
            f"compute capability {wanted}: TensorRT {tensorrt.version} builds for the GPU of its machine "
            "alone; leave it out, or use TensorRT for RTX"
        )
    digits = wanted.lower().removeprefix("sm").replace(".", "")
    kinds = tensorrt.module.ComputeCapability.__members__
    if f"SM{digits}" not in kinds:
        known = ", ".join(f"{kind[2:-1]}.{kind[-1]}" for kind in kinds if kind.startswith("SM"))
        raise InputError(f"compute capability {wanted}: TensorRT {tensorrt.version} builds for {known}")
    config.num_compute_capabilities = 1
    config.set_compute_capability(kinds[f"SM{digits}"], 0)
    return f"{digits[:-1]}.{digits[-1]}"


def _add_profile(builder: Any, network: Any, config: Any, batch: Sequence[int]) -> bool:
    """Say which batches will come, where the model leaves them open."""
    profile, needed = builder.create_optimization_profile(), False
    for image in (network.get_input(i) for i in range(network.num_inputs)):
        _, *sizes = image.shape
        if -1 in sizes:
            raise ModelError(f"input {image.name}: only its batch may be open; fix the other sizes")
        if image.shape[0] == -1:
            profile.set_shape(image.name, *((size, *sizes) for size in batch))
            needed = True
    # it does not raise, and would build with no profile at all
    if needed and config.add_optimization_profile(profile) < 0:
        raise InputError(f"TensorRT does not take batches of {', '.join(map(str, batch))} (min, opt, max)")
    return needed


def _use_dla(tensorrt: TensorRT, builder: Any, network: Any, config: Any, core: int) -> dict[str, list[str]]:
    """Build for the DLA; gives the layers that it cannot run, by kind."""
    trt = tensorrt.module
    # where there is none, TensorRT builds for the GPU in silence
    if core >= builder.num_DLA_cores:
        raise DeviceUnavailable(
            f"DLA core {core}: TensorRT {tensorrt.version} finds {builder.num_DLA_cores} of them here; "
            "leave out dla_core"
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    return _not_for_dla(network, config)


def _not_for_dla(network: Any, config: Any) -> dict[str, list[str]]:
    fallback = defaultdict(list)
    for layer in (network.get_layer(i) for i in range(network.num_layers)):
        if layer.type.name != "CONSTANT" and not config.can_run_on_DLA(layer):
            fallback[layer.type.name.lower()].append(layer.name)
    return dict(fallback)


def _use_timing_cache(config: Any, known: bytes) -> None:
    """Collect timings in a cache, at first those that are known where they are of this GPU and version."""
    for content in (known, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return


def _end(tensor: Any) -> list[str]:
    return [tensor.name, numpy_dtype(tensor.dtype)]
