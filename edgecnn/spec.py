"""What a model wants and what it gives: the contract between training, conversion and runtime."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from edgecnn.errors import SpecError
from edgecnn.places import PriorMap, WindowGeometry
from edgecnn.schema import check_types, demand, readable, table_of

__all__ = ["Interpolation", "ModelSpec", "PriorMap", "Task", "WindowGeometry"]

Task = Literal["classification", "window_detection", "detection", "tensors"]
Decoder = Literal["scores", "yolo_anchor_free", "yolo_anchor_based", "ssd", "fastestdet"]
Color = Literal["rgb", "bgr", "gray"]
Resize = Literal["stretch", "letterbox", "center_crop"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "area"]
Activation = Literal["softmax", "sigmoid", "none"]


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model expects as input and how its output is to be read.

    The arithmetic is ``(pixel * scale - mean) / std`` per channel and runs inside the artifact;
    the geometry (resize policy, interpolation) runs outside on uint8. Lists are taken as tuples and
    one value of mean or std stands for all channels.

    Attributes:
        task: ``classification`` (whole frames), ``window_detection`` (a classifier slid over a
            pyramid of the frame), ``detection`` (whole frames to boxes) or ``tensors`` (outputs are handed
            out as they are).
        size_hw: Height and width of the model's input in pixels.
        color: Channel order the model was trained with. Frames are always BGR.
        resize: ``stretch``, ``letterbox`` (aspect kept, padded) or ``center_crop``.
        resize_short: With ``center_crop``: the frame's shorter side is resized to this many pixels
            before the crop; None takes the smallest that covers the crop.
        interpolation: ``area`` is area averaging when shrinking and bilinear when enlarging.
        antialias: Widen bilinear and bicubic kernels when shrinking, as Pillow does.
        pad_value: Grey level 0..255 of letterbox borders.
        scale, mean, std: Normalisation, see above.
        activation: Applied in the graph to the scores, over the last axis for softmax; None becomes
            ``none`` for tensors and detection, and ``softmax`` otherwise.
        multi_label: Several classes may hold of one window or box at once; else only the best counts. None is
            true for sigmoid.
        decoder: How the outputs are read. ``scores``: one output (N,), (N, 1) or (N, K). Of detection:
            ``yolo_anchor_free`` (N, 4 + K, n), ``yolo_anchor_based`` (N, n, 5 + K), ``fastestdet``
            (N, 5 + K, rows, columns), or ``ssd``: class scores (N, n, K) and locations (N, n, 4).
        output: Name of the model's output that holds the scores; None is its first.
        labels: Class names by index; empty when there are none.
        background: Index of the class that means "nothing here" (window_detection and detection).
        threshold: Scores at or above it are reported (``score >= threshold``).
        class_thresholds: Thresholds of single classes by label, where they differ.
        nms: Boxes suppress one another within a class (``per_class``) or all (``class_agnostic``).
        nms_iou: A box that overlaps a better one by more than this IoU is suppressed, or fused with it.
        nms_method: ``hard``; or, of detection, ``soft_linear`` and ``soft_gaussian`` (`vision.soft_nms`) or
            ``fusion`` (`vision.fuse_boxes`).
        max_detections: At most this many boxes per frame, the best.
        top_k: At most this many classes per frame, the best (classification).
        window: Where to look (window_detection); None otherwise.
        priors: The feature maps of a head that has priors, in the order of its outputs (ssd).

    Raises:
        SpecError: A field has the wrong type or contradicts another one.
    """

    task: Task
    size_hw: tuple[int, int]
    color: Color = "rgb"
    resize: Resize = "stretch"
    resize_short: int | None = None
    interpolation: Interpolation = "bilinear"
    antialias: bool = False
    pad_value: int = 114
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    activation: Activation | None = None
    multi_label: bool | None = None
    decoder: Decoder = "scores"
    output: str | None = None
    labels: tuple[str, ...] = ()
    background: int | None = None
    threshold: float = 0.5
    class_thresholds: dict[str, float] = {}
    nms: Literal["per_class", "class_agnostic"] = "per_class"
    nms_iou: float = 0.5
    nms_method: Literal["hard", "soft_linear", "soft_gaussian", "fusion"] = "hard"
    max_detections: int = 300
    top_k: int = 5
    window: WindowGeometry | None = None
    priors: tuple[PriorMap, ...] = ()

    def __post_init__(self) -> None:
        check_types(self)
        self._check_input()
        self._check_output()
        windows = self.task == "window_detection"
        if self.activation is None:
            default = "none" if self.task in ("tensors", "detection") else "softmax"
            msgspec.structs.force_setattr(self, "activation", default)
        if self.multi_label is None:
            msgspec.structs.force_setattr(self, "multi_label", self.activation == "sigmoid")
        if windows and self.window is None:
            msgspec.structs.force_setattr(self, "window", WindowGeometry())
        demand(windows or self.window is None, f"window: not used by task {self.task!r}, remove it")
        demand(
            self.finds_boxes or self.background is None,
            f"background: not used by task {self.task!r}, remove it",
        )
        self._check_head()

    def _check_input(self) -> None:
        height, width = self.size_hw
        demand(
            1 <= height <= 16384 and 1 <= width <= 16384,
            f"size_hw must be two sizes in 1..16384, not {height}×{width}",
        )
        for name in ("mean", "std"):
            values: tuple[float, ...] = getattr(self, name)
            if len(values) == 1:
                values = values * self.channels
            demand(
                len(values) == self.channels,
                f"{name} has {len(values)} values but color {self.color!r} has {self.channels} channels",
            )
            demand(all(map(math.isfinite, values)), f"{name} holds a value that is not finite")
            msgspec.structs.force_setattr(self, name, values)
        demand(all(v > 0 for v in self.std), f"std must be above 0, not {list(self.std)}")
        demand(math.isfinite(self.scale) and self.scale > 0, f"scale must be above 0, not {self.scale}")
        demand(0 <= self.pad_value <= 255, f"pad_value must be in 0..255, not {self.pad_value}")
        demand(
            not self.antialias or self.interpolation in ("bilinear", "bicubic"),
            f"antialias goes with bilinear or bicubic interpolation, not {self.interpolation!r}",
        )
        if self.resize_short is not None:
            demand(
                self.resize == "center_crop", f"resize_short: not used by resize {self.resize!r}, remove it"
            )
            demand(
                self.resize_short >= max(self.size_hw),
                f"resize_short ({self.resize_short}) is smaller than the crop {height}×{width}",
            )

    def _check_output(self) -> None:
        demand(0 <= self.threshold <= 1, f"threshold must be in 0..1, not {self.threshold}")
        demand(0 < self.nms_iou <= 1, f"nms_iou must be in 0..1, not {self.nms_iou}")
        demand(self.max_detections >= 1, f"max_detections must be at least 1, not {self.max_detections}")
        demand(self.top_k >= 1, f"top_k must be at least 1, not {self.top_k}")
        broken = [label for label in self.labels if not label.strip() or not label.isprintable()]
        demand(not broken, f"labels holds {broken[:1]}: a label is printable text on one line")
        known = set[str]()
        for label in self.labels:
            demand(label not in known, f"labels holds {label!r} twice")
            known.add(label)
        for label, value in self.class_thresholds.items():
            demand(label in known, f"class_thresholds names {label!r}, which is not in labels")
            demand(0 <= value <= 1, f"class_thresholds[{label!r}] must be in 0..1, not {value}")
        if self.background is not None:
            demand(self.background >= 0, f"background must be a class index, not {self.background}")
            demand(
                not self.labels or self.background < len(self.labels),
                f"background is class {self.background} but there are {len(self.labels)} labels",
            )

    def _check_head(self) -> None:
        detection, ssd = self.task == "detection", self.decoder == "ssd"
        demand(
            detection == (self.decoder != "scores"),
            f"decoder {self.decoder!r} does not go with task {self.task!r}: detection alone has "
            "yolo_anchor_free, yolo_anchor_based, ssd and fastestdet",
        )
        demand(
            not detection or ssd or self.activation == "none",
            f"activation: decoder {self.decoder!r} reads boxes and scores from one output; let the model "
            'activate the scores itself and set activation = "none"',
        )
        demand(
            detection or self.nms_method == "hard",
            f"nms_method {self.nms_method!r}: goes with task 'detection', not with {self.task!r}",
        )
        demand(not ssd or bool(self.priors), "priors: decoder 'ssd' needs the priors of each feature map")
        demand(ssd or not self.priors, f"priors: not used by decoder {self.decoder!r}, remove them")

    @property
    def finds_boxes(self) -> bool:
        """The answer is boxes: of windows, or of whole frames."""
        return self.task in ("window_detection", "detection")

    @property
    def channels(self) -> int:
        """Channels of the model's input: 1 for gray, else 3."""
        return 1 if self.color == "gray" else 3

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width, channels of one uint8 sample as artifacts take it."""
        return (*self.size_hw, self.channels)

    @property
    def batch_range(self) -> tuple[int, int, int]:
        """Smallest, usual and largest batch that prediction gives a model that leaves it open."""
        return (1, 64, 64) if self.task == "window_detection" else (1, 1, 8)

    def label(self, class_id: int) -> str:
        """Name of a class, or its number where the model has no labels."""
        return self.labels[class_id] if class_id < len(self.labels) else str(class_id)

    def threshold_of(self, class_id: int) -> float:
        """The threshold that holds for a class."""
        return self.class_thresholds.get(self.label(class_id), self.threshold)

    def replace(self, **changes: Any) -> ModelSpec:
        """A copy with some fields changed, checked as a whole."""
        unknown = set(changes) - set(self.__struct_fields__)
        demand(not unknown, f"unknown field: {', '.join(sorted(unknown))}")
        if "color" in changes:
            # one value stood for all channels: it stands for those of another colour too
            for name in ("mean", "std"):
                if len(set(getattr(self, name))) == 1:
                    changes.setdefault(name, getattr(self, name)[:1])
        if "activation" in changes:
            changes.setdefault("multi_label", None)
        return msgspec.structs.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers; every field, in the declared order."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return built

    def to_json(self) -> str:
        """One JSON object with every field."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()

    def to_toml(self) -> str:
        """TOML with every field that is set (TOML has no null)."""
        import tomli_w

        return tomli_w.dumps(_without_none(self.to_dict()))

    @classmethod
    def from_dict(cls, data: Any, where: str = "spec") -> ModelSpec:
        """Check plain data against the schema; unknown keys are refused.

        Raises:
            SpecError: The message starts with ``where`` and names the field.
        """
        try:
            return msgspec.convert(data, cls)
        except msgspec.ValidationError as error:
            raise SpecError(f"{where}: {readable(error, '', cls)}") from error

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> ModelSpec:
        """Read a spec from a ``.toml`` or ``.json`` file.

        Raises:
            SpecError: The file is missing, is neither, or does not fit the schema.
        """
        path = Path(path)
        return cls.from_dict(table_of(path), where=str(path))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return value
