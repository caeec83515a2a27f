"""The spec: what it takes, what it refuses and in which words, and its two file forms."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.errors import SpecError
from edgecnn.spec import ModelSpec, PriorMap, WindowGeometry

FACE = ModelSpec(
    task="window_detection",
    size_hw=(64, 48),
    mean=(0.5,),
    std=(0.25, 0.5, 0.75),
    activation="sigmoid",
    labels=("face",),
    class_thresholds={"face": 0.8},
    window=WindowGeometry(stride=8, min_size=40, box_scale=0.9),
)
PHOTO = ModelSpec(
    task="classification", size_hw=(224, 224), labels=("cat", "dög"), resize="center_crop", resize_short=256
)


DETECTOR: dict[str, Any] = {"task": "detection", "decoder": "yolo_anchor_free"}
PRIORS: dict[str, Any] = {"stride": 16, "sizes_wh": [[30, 30]]}


@pytest.mark.parametrize("spec", [FACE, PHOTO, ModelSpec(task="tensors", size_hw=(1, 1), color="gray")])
@pytest.mark.parametrize("form", ["toml", "json"])
def test_files_round_trip(spec: ModelSpec, form: str, tmp_path: Path) -> None:
    path = tmp_path / f"spec.{form}"
    path.write_text(spec.to_toml() if form == "toml" else spec.to_json(), encoding="utf-8")
    assert ModelSpec.from_file(path) == spec


def test_toml_as_a_person_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "net.toml"
    path.write_text(
        'task = "window_detection"\nsize_hw = [64, 64]\nactivation = "sigmoid"\nmean = [0.5]\nlabels = ["face"]\n'
        "[window]\nstride = 8\n"
    )
    spec = ModelSpec.from_file(path)
    assert spec.mean == (0.5, 0.5, 0.5)
    assert spec.window == WindowGeometry(stride=8)
    assert spec.input_shape == (64, 64, 3)


def test_one_value_stands_for_all_channels_and_lists_become_tuples() -> None:
    spec = ModelSpec(task="tensors", size_hw=[2, 3], mean=[1], std=[2, 2, 2])  # type: ignore[arg-type]
    assert (spec.size_hw, spec.mean, spec.std) == ((2, 3), (1.0, 1.0, 1.0), (2.0, 2.0, 2.0))
    assert ModelSpec(task="tensors", size_hw=(2, 3), color="gray", mean=(0.5,)).mean == (0.5,)


def test_window_detection_always_has_windows() -> None:
    assert ModelSpec(task="window_detection", size_hw=(8, 8)).window == WindowGeometry()


def test_a_detector_with_priors_as_a_person_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "ssd.toml"
    path.write_text(
        'task = "detection"\ndecoder = "ssd"\nsize_hw = [64, 64]\nactivation = "softmax"\nbackground = 0\n'
        "[[priors]]\nstride = 16\nsizes_wh = [[30, 30]]\n[[priors]]\nstride = 32\nsizes_wh = [[50, 25], [25, 50]]\n"
    )
    spec = ModelSpec.from_file(path)
    assert spec.priors == (
        PriorMap(stride=16, sizes_wh=((30, 30),)),
        PriorMap(stride=32, sizes_wh=((50, 25), (25, 50))),
    )
    path.write_text(spec.to_toml())
    assert ModelSpec.from_file(path) == spec
    assert spec.finds_boxes


BAD: list[tuple[dict[str, Any], str]] = [
    ({"mean": (0.1, 0.2)}, r"mean has 2 values but color 'rgb' has 3 channels"),
    ({"std": (1.0, 1.0, 0.0)}, r"std must be above 0"),
    ({"mean": (float("nan"),)}, r"mean holds a value that is not finite"),
    ({"scale": 0}, r"scale must be above 0"),
    ({"size_hw": (0, 5)}, r"size_hw must be two sizes in 1..16384, not 0×5"),
    ({"size_hw": (5,)}, r"size_hw: Expected `array` of length 2"),
    ({"color": "hsv"}, r"color: Invalid enum value 'hsv'; it can be rgb, bgr, gray"),
    ({"task": "detect"}, r"task: Invalid enum value 'detect'"),
    ({"activation": "relu"}, r"activation: Invalid enum value 'relu'; it can be softmax, sigmoid, none"),
    ({"labels": ("a\nb",)}, r"a label is printable text on one line"),
    ({"labels": ("",)}, r"a label is printable text on one line"),
    ({"threshold": 1.5}, r"threshold must be in 0..1"),
    ({"nms_iou": 0}, r"nms_iou must be in 0..1"),
    ({"top_k": 0}, r"top_k must be at least 1"),
    ({"labels": ("a", "b", "a")}, r"labels holds 'a' twice"),
    ({"class_thresholds": {"x": 0.5}}, r"class_thresholds names 'x', which is not in labels"),
    ({"window": {"stride": 4}}, r"window: not used by task 'classification'"),
    ({"background": 0}, r"background: not used by task 'classification'"),
    ({"resize_short": 256}, r"resize_short: not used by resize 'stretch'"),
    (
        {"resize": "center_crop", "resize_short": 100},
        r"resize_short \(100\) is smaller than the crop 224×224",
    ),
    ({"antialias": True, "interpolation": "area"}, r"antialias goes with bilinear or bicubic"),
    ({"pad_value": 256}, r"pad_value must be in 0..255"),
    ({"max_detections": 0}, r"max_detections must be at least 1"),
    ({"task": "window_detection", "window": {"stride": 0}}, r"window.stride must be at least 1"),
    ({"task": "window_detection", "window": {"scale_step": 1.0}}, r"window.scale_step must be above 1.01"),
    ({"task": "window_detection", "window": {"min_size": 2}}, r"window.min_size must be at least 4 px"),
    (
        {"task": "window_detection", "window": {"min_size": 9, "max_size": 8}},
        r"window.min_size \(9\) is above",
    ),
    ({"task": "window_detection", "window": {"box_scale": 9}}, r"window.box_scale must be in 0.1..4"),
    (
        {"task": "window_detection", "background": 2, "labels": ("a", "b")},
        r"background is class 2 but there are 2",
    ),
    ({"task": "window_detection", "background": -1}, r"background must be a class index"),
    ({"task": "detection"}, r"decoder 'scores' does not go with task 'detection'"),
    ({"decoder": "ssd"}, r"decoder 'ssd' does not go with task 'classification'"),
    ({"nms_method": "fusion"}, r"nms_method 'fusion': goes with task 'detection', not with 'classification'"),
    ({**DETECTOR, "activation": "sigmoid"}, r"activation: decoder 'yolo_anchor_free' reads boxes and scores"),
    ({**DETECTOR, "decoder": "ssd"}, r"priors: decoder 'ssd' needs the priors of each feature map"),
    ({**DETECTOR, "priors": [PRIORS]}, r"priors: not used by decoder 'yolo_anchor_free', remove them"),
    (
        {**DETECTOR, "decoder": "ssd", "priors": [{**PRIORS, "stride": 0.5}]},
        r"priors.stride must be at least 1 px, not 0.5",
    ),
    (
        {**DETECTOR, "decoder": "ssd", "priors": [{**PRIORS, "sizes_wh": [[5, 0]]}]},
        r"priors.sizes_wh must be widths and heights above 0",
    ),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[m for _, m in BAD])
@pytest.mark.parametrize("way", ["python", "file"])
def test_contradictions_are_named(change: dict[str, Any], message: str, way: str, tmp_path: Path) -> None:
    fields = {"task": "classification", "size_hw": (224, 224)} | change
    with pytest.raises(SpecError, match=message) as caught:
        if way == "python":
            ModelSpec(**fields)
        else:
            ModelSpec.from_dict({k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()})
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "task = ", r"a\.toml: not valid TOML"),
        ("a.json", "{", r"a\.json: not valid JSON"),
        ("a.json", "[" * 100_000, r"a\.json: not valid JSON"),
        ("a.yaml", "task: x", r"a\.yaml: a spec is a \.toml or \.json file"),
        ("a.json", '{"task": "tensors", "size_hw": [1, 1], "sise": 3}', r"a\.json: .*unknown field `sise`"),
        ("a.json", '{"task": "tensors"}', r"a\.json: .*missing required field `size_hw`"),
    ],
)
def test_bad_files_are_named(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(SpecError, match=message):
        ModelSpec.from_file(path)


def test_missing_and_binary_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.toml: cannot be read as a spec \(No such file"):
        ModelSpec.from_file(tmp_path / "none.toml")
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="not UTF-8 text"):
        ModelSpec.from_file(tmp_path / "x.toml")


def test_thresholds_and_labels_by_class() -> None:
    spec = ModelSpec(task="classification", size_hw=(1, 1), labels=("a", "b"), class_thresholds={"b": 0.9})
    assert [spec.threshold_of(0), spec.threshold_of(1), spec.label(1), spec.label(7)] == [0.5, 0.9, "b", "7"]


def test_replace_checks_the_whole() -> None:
    assert FACE.replace(threshold=0.25).threshold == 0.25
    with pytest.raises(SpecError, match="threshold must be in"):
        FACE.replace(threshold=-1)
    with pytest.raises(SpecError, match="unknown field: treshold"):
        FACE.replace(treshold=0.5)


def test_another_color_keeps_one_value_for_all_channels() -> None:
    spec = ModelSpec(task="tensors", size_hw=(1, 1), mean=(0.5,), std=(0.25,))
    assert spec.replace(color="gray").mean == (0.5,)
    with pytest.raises(SpecError, match="std has 3 values but color 'gray' has 1 channels"):
        FACE.replace(color="gray")


def test_activation_follows_the_task() -> None:
    tasks = {task: ModelSpec(task=task, size_hw=(1, 1)).activation for task in ("tensors", "classification")}  # type: ignore[arg-type]
    assert ModelSpec(**DETECTOR, size_hw=(1, 1)).activation == "none"
    assert tasks == {"tensors": "none", "classification": "softmax"}


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_spec_or_a_spec_error(data: bytes) -> None:
    import msgspec

    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    with pytest.raises(SpecError):
        ModelSpec.from_dict(value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "a" + ".a" * 20_000 + " = 1", "more than 10000 dots; write so long a spec as .json"),
        ("a.toml", "a = " + "[" * 100_000, "not valid TOML"),
        ("a.json", " " * (2**20 + 1), "more than 1048576 bytes, which no spec has"),
        ("a.json", '{"a\\nb": 1}', "Object contains unknown field `a"),
    ],
    ids=["a key of many parts", "deep", "long", "a line break in a key"],
)
def test_a_spec_that_is_meant_to_harm(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SpecError, match=message) as caught:
        ModelSpec.from_file(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.toml")
    with pytest.raises(SpecError, match=r"a\.toml: cannot be read as a spec \(not a file\)"):
        ModelSpec.from_file(tmp_path / "a.toml")


def test_many_labels_are_checked_in_one_pass() -> None:
    """As many as fit into a manifest; comparing each with each would take hours."""
    labels = [format(i, "x") for i in range(500_000)]
    spec = ModelSpec(
        task="classification", size_hw=(8, 8), labels=labels, class_thresholds=dict.fromkeys(labels, 0.5)
    )
    assert spec.threshold_of(499_999) == 0.5
