"""The rungs below fp32, on a network of shapes that INT8 suits and on one whose head it breaks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import edgecnn
from edgecnn import Bundle, ladder, rungs
from edgecnn.calibration import Samples, draw_samples
from edgecnn.calibration.int8 import Int8Builder
from edgecnn.errors import ModelError
from edgecnn.judging import Judge, judge_for, outputs_of
from edgecnn.ladder import Ladder
from edgecnn.rungs import Compared, Examiner, Goal
from edgecnn.runtimes import Artifact, Runtime, backend
from edgecnn.timing import SpeedComparison
from tests import int8
from tests.int8 import CONV_MACS, FASTER, HEAD_MACS, SLOWER, clock


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, and a machine on which all that is smaller is faster."""
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rungs, "compare_speed", clock(FASTER))


def ladder_on(
    path: Path,
    goal: Goal,
    *,
    judge: Judge | None = None,
    samples: Samples | None = None,
    on_step: Callable[[str, float], None] | None = None,
    on_work: Callable[[str, int, int], None] | None = None,
) -> Ladder:
    """A ladder for the model of a bundle, judged by agreement where nothing else is said."""
    bundle = Bundle(path)
    spec, network = bundle.manifest.spec, bundle.manifest.network
    assert network is not None
    samples = samples or draw_samples(int8.frames(), spec, 36)
    model = bundle.read("model.onnx")
    with backend("ort")(Artifact("onnx", model)) as runtime:
        reference = outputs_of(runtime, samples.images)
        judge = judge or judge_for(None, spec, runtime, samples)
    return Ladder(
        model,
        network,
        samples,
        Examiner(Compared(samples.images, reference), spec, judge, goal),
        opset="20",
        on_step=on_step,
        on_work=on_work,
    )


def goal(**options: Any) -> Goal:
    return Goal(**{"precision": "int8", "threads": 1, **options})


@pytest.fixture
def shapes_samples(shapes_bundle: Path) -> Samples:
    return draw_samples(None, Bundle(shapes_bundle).manifest.spec, 32)


def convert(net: nn.Module, path: Path, **options: Any) -> Path:
    edgecnn.convert(net, spec=int8.SPEC, out=path, calibration=int8.frames(), **options)
    return path


def test_int8_that_holds_and_is_faster_is_all_that_is_tried(
    shapes_bundle: Path, shapes_samples: Samples
) -> None:
    steps: list[str] = []
    made = ladder_on(
        shapes_bundle,
        goal(max_drop=0.05),
        samples=shapes_samples,
        on_step=lambda name, seconds: steps.append(name),
    )
    (rung,) = made.descend()
    assert steps == ["int8 for cpu"]
    assert rung.kept
    assert (rung.missed, rung.slow, rung.search) == ("", False, None)
    entry = rung.entry
    assert (entry.id, entry.format, entry.precision, entry.placement, entry.path, entry.requires) == (
        "onnx-int8", "onnx", "int8", "cpu", "model.int8.onnx", {"opset": "20"}
    )  # fmt: skip
    assert entry.build_s > 0
    assert rung.quantization is not None
    assert (rung.quantization.int8_macs_share, rung.quantization.kept_float) == (1.0, ())
    assert (rung.fidelity.n, rung.fidelity.metric_fp32) == (32, 1.0)
    assert rung.fidelity.drop == 1.0 - (rung.fidelity.metric or 0)
    assert 0 < rung.fidelity.max_abs < 0.3
    assert rung.speed is not None
    assert len(made.sensitivities["cpu"]) == 4


def test_one_layer_goes_back_to_float(two_scales_bundle: Path) -> None:
    """The head alone, though it is the cheaper one; in float it makes no wrong decision."""
    (rung,) = ladder_on(two_scales_bundle, goal(max_drop=0.0)).descend()
    assert rung.kept
    assert rung.fidelity.drop == 0.0
    assert rung.quantization is not None
    (layer,) = rung.quantization.kept_float
    assert layer.layer.endswith("linear")
    assert layer.macs_share == pytest.approx(HEAD_MACS / (CONV_MACS + HEAD_MACS))
    assert layer.reason.startswith("int8 in it alone moves the output by ")
    assert rung.quantization.int8_macs_share == pytest.approx(CONV_MACS / (CONV_MACS + HEAD_MACS))
    assert rung.search is not None
    assert rung.search.met
    assert rung.search.trials[0] == ((), 0.5)
    assert rung.search.trials[-1][1] == 0.0


def test_head_is_what_harms(two_scales_bundle: Path) -> None:
    made = ladder_on(two_scales_bundle, goal(max_drop=0.0))
    made.descend()
    conv, head = made.sensitivities["cpu"]
    assert (conv.macs, head.macs) == (CONV_MACS, HEAD_MACS)
    assert head.error > 10 * conv.error


def test_without_a_budget_parity_is_the_gate(two_scales_bundle: Path) -> None:
    """Half of the classes are green, and green is lost."""
    (rung,) = ladder_on(two_scales_bundle, goal()).descend()
    assert rung.missed == "only 50.0% of the decisions agree (at least 80%)"
    assert (rung.kept, rung.search, rung.fidelity.metric) == (False, None, 0.5)


def test_budget_that_no_choice_of_layers_meets(two_scales_bundle: Path) -> None:
    judge = Judge("top1", "a hard test", 10, lambda model: 0.4, fp32=0.9)
    (rung,) = ladder_on(two_scales_bundle, goal(max_drop=0.1), judge=judge).descend()
    assert not rung.kept
    assert rung.search is not None
    assert not rung.search.met
    assert (rung.fidelity.metric, rung.fidelity.metric_fp32, rung.fidelity.drop) == (0.4, 0.9, 0.5)


def test_int8_without_a_layer_in_int8_is_none(tmp_path: Path) -> None:
    bundle = convert(int8.Head(), tmp_path / "head.edge")
    (rung,) = ladder_on(bundle, goal(max_drop=0.0)).descend()
    assert rung.missed == "the budget of 0 leaves no layer in int8"
    assert rung.quantization is not None
    assert rung.quantization.int8_macs_share == 0


def test_int8_that_is_slower_is_followed_by_fp16(
    shapes_bundle: Path, shapes_samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rungs, "compare_speed", clock(SLOWER, FASTER))
    first, second = ladder_on(shapes_bundle, goal(), samples=shapes_samples).descend()
    assert (first.entry.id, first.slow, first.missed, first.kept) == ("onnx-int8", True, "", False)
    assert (second.entry.id, second.entry.precision, second.slow, second.kept) == (
        "onnx-fp16", "fp16", False, True
    )  # fmt: skip
    assert (second.entry.placement, second.quantization) == (None, None)


def test_speed_gate_that_is_off_keeps_what_is_slower(
    shapes_bundle: Path, shapes_samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rungs, "compare_speed", clock(SLOWER))
    (rung,) = ladder_on(shapes_bundle, goal(speed_gate=False), samples=shapes_samples).descend()
    assert rung.kept
    assert rung.speed is not None
    assert rung.speed.ratio == SLOWER


def test_what_is_for_another_engine_is_not_timed(
    shapes_bundle: Path, shapes_samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(candidate: object, reference: object) -> SpeedComparison:
        raise AssertionError("was timed")

    monkeypatch.setattr(rungs, "compare_speed", never)
    (rung,) = ladder_on(shapes_bundle, goal(targets=("tensorrt",)), samples=shapes_samples).descend()
    assert (rung.entry.id, rung.entry.placement, rung.kept, rung.speed) == (
        "onnx-int8-tensorrt", "tensorrt", True, None
    )  # fmt: skip
    assert rung.entry.path == "model.int8.tensorrt.onnx"


def test_network_is_observed_once_for_all_placements(
    shapes_bundle: Path, shapes_samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []

    class Counted(Int8Builder):
        def __init__(self, *args: Any, **options: Any) -> None:
            built.append("builder")
            super().__init__(*args, **options)

    monkeypatch.setattr(ladder, "Int8Builder", Counted)
    tried = ladder_on(shapes_bundle, goal(targets=("onnx", "tensorrt")), samples=shapes_samples).descend()
    assert [rung.entry.placement for rung in tried] == ["cpu", "tensorrt"]
    assert built == ["builder"]


@pytest.mark.parametrize(("batch", "expected"), [(None, 1), (6, 6)])
def test_classifiers_are_timed_on_one_image_or_their_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int | None, expected: int
) -> None:
    assert _timed_on(convert(int8.TwoScales(), tmp_path / "a.edge", batch=batch), None, monkeypatch) == {
        expected
    }


def test_detectors_are_timed_on_windows_of_a_frame(
    shapes_bundle: Path, shapes_samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 of them, also where there are fewer samples."""
    assert _timed_on(shapes_bundle, shapes_samples, monkeypatch) == {64}


def _timed_on(bundle: Path, samples: Samples | None, monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The numbers of images that the two models get while the clock runs."""
    sizes: set[int] = set()

    def compared(candidate: Callable[[], Any], reference: Callable[[], Any]) -> SpeedComparison:
        sizes.update(len(call()["scores"]) for call in (candidate, reference))
        return SpeedComparison(1.0, 2.0, 0.5, 1)

    monkeypatch.setattr(rungs, "compare_speed", compared)
    ladder_on(bundle, goal(precision="fp16"), samples=samples).descend()
    return sizes


class Hot(nn.Module):
    """Goes up to 255000 on the way and comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 1)

    def forward(self, x: torch.Tensor) -> Any:
        hot = (x * 255).pow(2) * 4
        return self.conv(hot / 510 / 510).mean((2, 3))


@pytest.mark.parametrize("batch", [None, 2])
def test_overflow_of_fp16_is_named(tmp_path: Path, batch: int | None) -> None:
    frames = int8.frames()
    bundle = convert(Hot(), tmp_path / "hot.edge", batch=batch)
    samples = draw_samples(frames, Bundle(bundle).manifest.spec, 36)
    (rung,) = ladder_on(bundle, goal(precision="fp16"), samples=samples).descend()
    assert not rung.kept
    assert "(Mul) reaches 2.6e+05, float16 ends at 65504" in rung.missed


class Vast(nn.Module):
    """Divides by a constant that float16 cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 1)

    def forward(self, x: torch.Tensor) -> Any:
        return self.conv(x).mean((2, 3)) * 100 + x.mean() / 1e6


def test_network_that_fp16_cannot_hold_is_no_error_where_nobody_asked_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = convert(Vast(), tmp_path / "vast.edge")
    monkeypatch.setattr(rungs, "compare_speed", clock(SLOWER))
    (rung,) = ladder_on(bundle, goal()).descend()
    assert (rung.entry.id, rung.slow) == ("onnx-int8", True)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "edgecnn.ladder"]
    assert line.startswith("fp16 is left out: ")
    assert "holds 1e+06, float16 ends at 65504" in line
    with pytest.raises(ModelError, match=r"holds 1e\+06, float16 ends at 65504"):
        ladder_on(bundle, goal(precision="fp16")).descend()


def test_fp16_with_a_budget(two_scales_bundle: Path) -> None:
    (rung,) = ladder_on(two_scales_bundle, goal(precision="fp16", max_drop=0.0)).descend()
    assert (rung.entry.id, rung.kept, rung.fidelity.drop) == ("onnx-fp16", True, 0.0)
    assert rung.entry.path == "model.fp16.onnx"


def test_work_is_reported(two_scales_bundle: Path) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}

    def on_work(what: str, done: int, total: int) -> None:
        seen.setdefault(what, []).append((done, total))

    ladder_on(two_scales_bundle, goal(max_drop=0.0), on_work=on_work).descend()
    assert seen["sensitivity of layers for cpu"] == [(1, 2), (2, 2)]
    trials = seen["searching float layers for cpu"]
    assert [done for done, _ in trials] == list(range(1, len(trials) + 1))
    assert all(done <= total for done, total in trials)
    assert "observing" in seen


def test_judge_marks_what_is_written(two_scales_bundle: Path) -> None:
    """The last mark is that of the very model that the rung holds."""
    marked: list[bytes] = []

    def measure(model: Runtime) -> float:
        marked.append(model.artifact.content or b"")
        return 1.0

    judge = Judge("agreement", "x", 1, measure, fp32=1.0)
    (rung,) = ladder_on(two_scales_bundle, goal(max_drop=0.0), judge=judge).descend()
    assert marked[-1] == rung.content
    assert b"QuantizeLinear" in rung.content
