"""The schema of ``manifest.json``: what stands in a bundle and what was measured of it.

Version 1. A reader accepts its own version and older ones; a change that an old reader would
misunderstand raises ``SCHEMA_VERSION``. The encoded bytes are part of the contract (golden test).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from edgecnn.errors import BundleError, first_line
from edgecnn.spec import ModelSpec

__all__ = [
    "MANIFEST_BYTES_MAX",
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "ArtifactEntry",
    "Calibration",
    "DenseForm",
    "DeviceTarget",
    "Evaluated",
    "Fidelity",
    "FileEntry",
    "FloatLayer",
    "Layer",
    "Manifest",
    "Network",
    "PrunedChannels",
    "Pruning",
    "Quantization",
    "TensorInfo",
    "sizes_text",
]

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1
MANIFEST_BYTES_MAX = 8 * 1024 * 1024
# protobuf, and so ONNX, ends at 2 GiB
FILE_BYTES_MAX = 2**31
FORMAT: Literal["edgecnn-bundle"] = "edgecnn-bundle"


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all parts share; ``frozen`` and ``kw_only`` have to be said again by each."""


class TensorInfo(_Part, frozen=True, kw_only=True):
    """One input or output of an artifact.

    Attributes:
        name: Name in the graph.
        dtype: numpy's name of the dtype.
        shape: Sizes; a string is a symbol (``"batch"``), None an unknown size.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


def sizes_text(shape: Sequence[int | str | None]) -> str:
    """A shape as messages show it: ``batch×3×224×224``, with ``?`` for a size that is not known."""
    return "×".join("?" if size is None else str(size) for size in shape) or "a scalar"


class FileEntry(_Part, frozen=True, kw_only=True):
    """One file of the bundle; ``path`` is relative with forward slashes."""

    path: str
    bytes: Annotated[int, msgspec.Meta(ge=0, le=FILE_BYTES_MAX)]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class DenseForm(_Part, frozen=True, kw_only=True):
    """The same network for all windows of an image at once.

    Attributes:
        path, weights: Its files, as of an artifact.
        stride: Pixels between neighbouring windows.
        exact: It computes what the windowed network does; else it sees what is beside a window where cut
            windows have a border.
        n: Windows that it was compared on with the artifact.
        max_abs: Largest difference of a score.
        agreement: Share of the windows with the same decision.
        agreement_reported: The same of those windows alone that either of the two reports; None where that
            was none.
        speedup: Time of the windows one batch after the other, over its own, on the same picture where it was
            made; None where that was not measured.
    """

    path: str
    weights: str | None = None
    stride: Annotated[int, msgspec.Meta(ge=1)]
    exact: bool
    n: int
    max_abs: float
    agreement: float
    agreement_reported: float | None = None
    speedup: float | None = None


class ArtifactEntry(_Part, frozen=True, kw_only=True):
    """One form of the model that a runtime can load.

    Attributes:
        id: Unique in the bundle, such as ``onnx-fp32``.
        format: ``onnx``, ``openvino``, ``tensorrt``.
        precision: ``fp32``, ``fp16``, ``int8``.
        placement: Where Q/DQ stands (int8 only): ``cpu`` or ``tensorrt``.
        path: Its main file, listed in ``files``.
        weights: The second file of a format that has two, such as OpenVINO's ``.bin``.
        build_s: Seconds the conversion took.
        requires: Versions a device needs, such as ``{"opset": "20"}``.
        dense: Its form for all windows at once; None where windows are cut out.
    """

    id: str
    format: str
    precision: Literal["fp32", "fp16", "int8"]
    placement: Literal["cpu", "tensorrt"] | None = None
    path: str
    weights: str | None = None
    build_s: float = 0.0
    requires: dict[str, str] = {}
    dense: DenseForm | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """All of its files."""
        forms = (self, self.dense) if self.dense is not None else (self,)
        return tuple(path for form in forms for path in (form.path, form.weights) if path)


class Fidelity(_Part, frozen=True, kw_only=True):
    """How far an artifact is from the reference model, on n inputs.

    Attributes:
        id: The artifact.
        runtime: The runtime that ran it.
        compute: Arithmetic of its float layers; lower than ``f32`` only where a runtime can choose.
        n: Number of inputs.
        max_abs, mean_abs: Absolute differences over all values of all outputs.
        cosine: Cosine similarity over all inputs, the smallest of the outputs.
        agreement: Share of inputs with the same decision (argmax, or side of the threshold).
        metric, metric_fp32: What `Evaluated` names, of this artifact and of the float model.
        drop: ``metric_fp32 - metric``: above 0 is a loss.
    """

    id: str
    runtime: str
    compute: Literal["f32", "bf16"] = "f32"
    n: int
    max_abs: float
    mean_abs: float
    cosine: float
    agreement: float
    metric: float | None = None
    metric_fp32: float | None = None
    drop: float | None = None


class Evaluated(_Part, frozen=True, kw_only=True):
    """What the accuracy budget is about.

    Attributes:
        metric: ``top1``, ``ap50``, or ``agreement`` with the decisions of the float model.
        source: The data it was measured on, in words.
        n: Number of images or windows.
        max_drop: The budget; None where none was given.
    """

    metric: str
    source: str
    n: int
    max_drop: float | None


class FloatLayer(_Part, frozen=True, kw_only=True):
    """A layer of an INT8 artifact that stays in float, its share of all MACs, and why."""

    layer: str
    macs_share: float
    reason: str


class Quantization(_Part, frozen=True, kw_only=True):
    """How an INT8 artifact was made.

    Attributes:
        artifact: Its id.
        method: How ranges were chosen.
        int8_macs_share: Share of the network's MACs in layers that run in INT8.
        kept_float: The layers that do not.
    """

    artifact: str
    method: str
    int8_macs_share: float
    kept_float: tuple[FloatLayer, ...]


class PrunedChannels(_Part, frozen=True, kw_only=True):
    """Output channels of a layer before and after pruning; ``reason`` is why none can be cut, or empty."""

    layer: str
    before: int
    after: int
    reason: str


class Pruning(_Part, frozen=True, kw_only=True):
    """What pruning left of a module: multiply-accumulates for one input, parameters, channels by layer."""

    macs_before: int
    macs_after: int
    params_before: int
    params_after: int
    layers: tuple[PrunedChannels, ...]


class Calibration(_Part, frozen=True, kw_only=True):
    """The inputs that fidelity was measured on; ``source`` says where they came from."""

    source: str
    n: int
    generated: bool


class DeviceTarget(_Part, frozen=True, kw_only=True):
    """The device a bundle was converted for.

    Attributes:
        profile: Its name in `edgecnn.devices`.
        runtimes: Those to try there, in this order.
        built_there: What is made on the device itself, in words.
    """

    profile: str
    runtimes: tuple[str, ...]
    built_there: tuple[str, ...] = ()


class Layer(_Part, frozen=True, kw_only=True):
    """One node of the network with its cost for one input."""

    name: str
    op: str
    output_shape: tuple[int | str | None, ...]
    params: int
    macs: int


class Network(_Part, frozen=True, kw_only=True):
    """Size of the network: parameters, multiply-accumulates for one input, layers in order."""

    params: int
    macs: int
    layers: tuple[Layer, ...]


class Manifest(_Part, frozen=True, kw_only=True):
    """Everything a device needs to know of a bundle before it loads an engine.

    Attributes:
        not_dense: Of a model of windows: why they are cut out one by one; empty where they are not.
    """

    format: Literal["edgecnn-bundle"] = FORMAT
    schema_version: Annotated[int, msgspec.Meta(ge=1)] = SCHEMA_VERSION
    name: str
    created: str
    spec: ModelSpec
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    artifacts: tuple[ArtifactEntry, ...]
    files: tuple[FileEntry, ...]
    calibration: Calibration | None = None
    fidelity: tuple[Fidelity, ...] = ()
    evaluated: Evaluated | None = None
    quantization: tuple[Quantization, ...] = ()
    pruning: Pruning | None = None
    network: Network | None = None
    device: DeviceTarget | None = None
    not_dense: str = ""
    provenance: dict[str, str] = {}

    def __post_init__(self) -> None:
        if not self.inputs or not self.outputs:
            raise ValueError("inputs and outputs must not be empty")
        for what, names in (
            ("files", [file.path for file in self.files]),
            ("artifacts", [artifact.id for artifact in self.artifacts]),
        ):
            if len(set(names)) < len(names):
                raise ValueError(f"{what} names one twice")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, every field, in the declared order."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return built

    def encode(self) -> bytes:
        """The bytes of ``manifest.json``: UTF-8, two spaces a level, a newline at the end.

        Raises:
            BundleError: More than a reader would take.
        """
        data = msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"
        if len(data) > MANIFEST_BYTES_MAX:
            raise BundleError(
                f"{self.name}: its manifest would have {len(data)} bytes, the most is {MANIFEST_BYTES_MAX}"
            )
        return data


class _Header(msgspec.Struct):
    format: str
    schema_version: int


def decode_manifest(data: bytes, where: str) -> Manifest:
    """Read the bytes of a manifest.

    Raises:
        BundleError: Not a manifest, of a newer version, or against the schema; starts with ``where``.
    """
    if len(data) > MANIFEST_BYTES_MAX:
        raise BundleError(f"{where}: {len(data)} bytes, a manifest has at most {MANIFEST_BYTES_MAX}")
    try:
        header = msgspec.json.decode(data, type=_Header)
        if header.format != FORMAT:
            raise BundleError(f"{where}: format is {header.format!r}, not {FORMAT!r}")
        if header.schema_version > SCHEMA_VERSION:
            raise BundleError(
                f"{where}: schema version {header.schema_version} was written by a newer edgecnn "
                f"(this one reads up to {SCHEMA_VERSION}); upgrade edgecnn"
            )
        return msgspec.json.decode(data, type=Manifest)
    except BundleError:
        raise
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BundleError(f"{where}: not a valid manifest ({first_line(error)})") from error
