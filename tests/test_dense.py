"""Dense forms in bundles: kept where scores or decisions are those of cut windows, else the reason is said."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

import edgecnn
from edgecnn import Bundle, ModelSpec, WindowGeometry
from edgecnn.bundle import write_bundle
from edgecnn.cli.main import main
from edgecnn.dense import LARGEST_DIFFERENCE, draw_scenes
from edgecnn.errors import BundleError, InputError
from edgecnn.manifest import DenseForm
from edgecnn.runtimes import backend
from edgecnn.vision import pyramid
from tests.paths import engine

SPEC = ModelSpec(
    task="window_detection",
    size_hw=(24, 24),
    mean=(0.5,),
    std=(0.25,),
    activation="sigmoid",
    labels=("thing",),
    window=WindowGeometry(stride=4, scale_step=1.5),
)


def seeded(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(*layers)
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    return net.eval()


def exact_net() -> nn.Module:
    return seeded(
        nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(200, 1)
    )


def padded_net(strength: float) -> nn.Module:
    """Its border counts as much as ``strength`` says."""
    net = seeded(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1)
    )
    with torch.no_grad():
        net[0].weight[:, :, 0] *= strength  # type: ignore[index, operator]
        net[0].weight[:, :, 2] *= strength  # type: ignore[index, operator]
        net[0].weight[..., 0] *= strength  # type: ignore[index, operator]
        net[0].weight[..., 2] *= strength  # type: ignore[index, operator]
        net[4].bias[:] = 0.3  # type: ignore[index, operator]
    return net


class Gated(nn.Module):
    """Squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3, 2), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((x * x.mean((2, 3), keepdim=True).sigmoid()).mean((2, 3)))  # type: ignore[no-any-return]


def frames(count: int = 3) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (count, 12, 16, 3), np.uint8)
    return np.kron(coarse, np.ones((1, 6, 6, 1), np.uint8))


def converted(net: nn.Module, path: Path, **options: Any) -> Bundle:
    options = {"spec": SPEC, "calibration": frames(), "speed_gate": False, **options}
    return edgecnn.convert(net, out=path / "a.edge", **options)


def form_of(bundle: Bundle, index: int = 0) -> DenseForm:
    form = bundle.manifest.artifacts[index].dense
    assert form is not None
    return form


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return converted(exact_net(), tmp_path_factory.mktemp("exact"))


def test_what_computes_the_same_gets_one(exact: Bundle) -> None:
    form = form_of(exact)
    assert (form.path, form.stride, form.exact, form.agreement) == ("model.dense.onnx", 4, True, 1.0)
    assert form.n > 300
    assert 0 <= form.max_abs <= LARGEST_DIFFERENCE
    assert form.speedup is None
    assert exact.manifest.not_dense == ""


def test_it_is_what_runs_and_finds_the_same(exact: Bundle) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (61, 83, 3), np.uint8)
    with edgecnn.load(exact) as dense, edgecnn.load(exact, dense=False) as cut:
        assert (dense.is_dense, cut.is_dense) == (True, False)
        found, wanted = dense(frame), cut(frame)
        assert isinstance(found, edgecnn.Detections)
        assert isinstance(wanted, edgecnn.Detections)
        assert len(found) == len(wanted) > 0
        assert np.abs(found.boxes - wanted.boxes).max() < 1e-3
        assert np.abs(found.scores - wanted.scores).max() < 1e-5


def test_another_process_opens_the_same_form(exact: Bundle) -> None:
    for dense in (True, False):
        with edgecnn.load(exact, dense=dense) as opened, pickle.loads(pickle.dumps(opened)) as again:
            assert again.is_dense is dense


def test_raw_tensors_are_those_of_windows_unless_asked(exact: Bundle) -> None:
    windows = np.zeros((2, 24, 24, 3), np.uint8)
    with edgecnn.open_model(exact) as model:
        assert model.run({"image": windows})["scores"].shape == (2, 1)
    with edgecnn.open_model(exact, dense=True) as model:
        (found,) = model.run({"image": np.zeros((1, 32, 28, 3), np.uint8)}).values()
        assert found.shape == (1, 1, 3, 2)


def test_verify_runs_it_too(exact: Bundle) -> None:
    checks = edgecnn.verify(exact, runtime="ort").artifacts
    assert [(check.id, check.status) for check in checks] == [("onnx-fp32", "ok"), ("onnx-fp32-dense", "ok")]


def test_verify_finds_one_that_computes_something_else(exact: Bundle, tmp_path: Path) -> None:
    manifest = exact.manifest
    other = edgecnn.convert(
        nn.Sequential(exact_net(), nn.Linear(1, 1)), out=tmp_path / "b.edge", spec=SPEC, calibration=frames()
    )
    with write_bundle(tmp_path / "mixed.edge") as writer:
        for file in manifest.files:
            writer.add(file.path, (other if file.path == "model.dense.onnx" else exact).read(file.path))
        writer.finish(msgspec.structs.replace(manifest, files=writer.files))
    checks = edgecnn.verify(tmp_path / "mixed.edge", runtime="ort").artifacts
    assert [(check.id, check.status) for check in checks] == [
        ("onnx-fp32", "ok"),
        ("onnx-fp32-dense", "failed"),
    ]


def test_an_altered_one_is_refused(exact: Bundle, tmp_path: Path) -> None:
    with write_bundle(tmp_path / "b.edge") as writer:
        for file in exact.manifest.files:
            if file.path != "model.dense.onnx":
                writer.add(file.path, exact.read(file.path))
        writer.finish(msgspec.structs.replace(exact.manifest, files=writer.files))
    with pytest.raises(BundleError, match=r"artifact onnx-fp32 names model.dense.onnx, not listed"):
        Bundle(tmp_path / "b.edge")


def test_int8_and_openvino(tmp_path: Path) -> None:
    engine("openvino")
    bundle = converted(exact_net(), tmp_path, precision="int8", target=("onnx", "openvino"))
    ids = {entry.id: entry.dense for entry in bundle.manifest.artifacts}
    assert set(ids) == {"onnx-int8", "openvino-int8", "onnx-fp32", "openvino-fp32"}
    assert all(form is not None and form.exact and form.agreement >= 0.995 for form in ids.values())
    assert edgecnn.verify(bundle).ok
    frame = frames(1)[0]
    with edgecnn.load(bundle, runtime="openvino") as dense, edgecnn.load(bundle, runtime="ort") as other:
        assert dense.is_dense
        assert len(dense(frame)) == len(other(frame)) > 0  # type: ignore[arg-type]


def test_padding_that_changes_nothing_is_taken(tmp_path: Path) -> None:
    bundle = converted(padded_net(0.0), tmp_path)
    form = form_of(bundle)
    assert (form.exact, form.agreement) == (False, 1.0)
    assert form.agreement_reported == 1.0


def test_padding_that_changes_decisions_is_not(tmp_path: Path) -> None:
    net = padded_net(3.0)
    with edgecnn.load(converted(net, tmp_path), dense=False) as detector:
        scores = detector.score_windows(frames(1)[0]).scores
    spec = SPEC.replace(threshold=float(np.median(scores)))
    manifest = converted(net, tmp_path, spec=spec).manifest
    assert manifest.artifacts[0].dense is None
    assert manifest.not_dense.endswith("get the same decision, less than 99.5% (with padding in 0)")


def test_padding_is_not_judged_on_made_up_frames(tmp_path: Path) -> None:
    manifest = converted(padded_net(0.0), tmp_path, calibration=None).manifest
    assert manifest.artifacts[0].dense is None
    assert "shows on real frames only (--calib)" in manifest.not_dense


class TwoOutputs(nn.Module):
    """Scores, and features that nobody slides: they are enlarged."""

    def __init__(self) -> None:
        super().__init__()
        self.net = exact_net()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(x), nn.functional.interpolate(x, scale_factor=2.0)


class ChannelsLastScores(nn.Module):
    """Ends in rows, columns, channels, as networks from Keras do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = seeded(nn.Conv2d(3, 4, 7, 2), nn.ReLU(), nn.Conv2d(4, 1, 9))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).permute(0, 2, 3, 1).reshape(-1, 1)  # type: ignore[no-any-return]


class Widened(nn.Module):
    """Two scores of one number."""

    def __init__(self) -> None:
        super().__init__()
        self.net = exact_net()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * torch.tensor([-1.0, 1.0])


@pytest.mark.parametrize("kind", [TwoOutputs, ChannelsLastScores])
def test_whatever_else_a_model_gives(kind: type[nn.Module], tmp_path: Path) -> None:
    bundle = converted(kind().eval(), tmp_path)
    assert form_of(bundle).exact
    assert edgecnn.verify(bundle, runtime="ort").ok
    with edgecnn.load(bundle) as detector:
        assert detector.is_dense
        detector(frames(1)[0])


def test_pixels_that_a_network_leaves_unused(tmp_path: Path) -> None:
    """An image of one window has more places than one then."""
    net = seeded(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 4, 3, 2), nn.Flatten(), nn.Linear(16, 1))
    spec = SPEC.replace(size_hw=(14, 14), window=WindowGeometry(stride=2, scale_step=1.5))
    bundle = converted(net, tmp_path, spec=spec)
    assert form_of(bundle).exact
    assert edgecnn.verify(bundle, runtime="ort").ok


def test_what_widens_a_channel_has_none(tmp_path: Path) -> None:
    spec = SPEC.replace(labels=("a", "b"))
    manifest = converted(Widened().eval(), tmp_path, spec=spec).manifest
    assert "or widens its channels" in manifest.not_dense


def test_a_runtime_without_an_engine_takes_windows(exact: Bundle) -> None:
    with edgecnn.load(exact, runtime="null") as detector:
        assert not detector.is_dense
        assert len(detector(frames(1)[0])) == 0  # type: ignore[arg-type]


def test_frames_of_one_window_show_nothing(tmp_path: Path) -> None:
    """Their border is that of the image, in both forms."""
    crops = [frame[:24, :24] for frame in frames()]
    scenes = draw_scenes(crops, SPEC)
    assert not scenes.real
    assert all(part.level.count > 1 for part in scenes.parts)
    assert (
        "shows on real frames only"
        in converted(padded_net(3.0), tmp_path, calibration=crops).manifest.not_dense
    )


@pytest.mark.parametrize("size_hw", [(48, 24), (24, 48)])
@pytest.mark.parametrize("min_size", [None, 10, 400])
def test_made_up_frames_fit_any_window(size_hw: tuple[int, int], min_size: int | None) -> None:
    spec = SPEC.replace(size_hw=size_hw, window=WindowGeometry(stride=8, min_size=min_size))
    assert draw_scenes([np.zeros((8, 8, 3), np.uint8)], spec).parts


def test_a_predictor_that_cannot_be_made_leaves_no_engine(
    exact: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[object] = []
    kind = backend("ort")
    monkeypatch.setattr(kind, "_release", lambda self: closed.append(self))
    with pytest.raises(InputError, match="grey levels"):
        edgecnn.load(exact, runtime="ort", still=300)
    assert len(closed) == 1


def test_still_scenes_of_a_padded_network_are_cut(tmp_path: Path) -> None:
    bundle = converted(padded_net(0.0), tmp_path)
    with edgecnn.load(bundle, still=4) as detector:
        assert not detector.is_dense


def test_small_frames_are_left_out() -> None:
    small, large = np.zeros((10, 10, 3), np.uint8), frames(1)[0]
    scenes = draw_scenes([small, large], SPEC)
    assert scenes.real
    assert len(scenes.parts) == len(pyramid(large.shape[:2], SPEC))
    made_up = draw_scenes([small], SPEC)
    assert made_up.parts
    assert not made_up.real


def test_what_was_read_already_is_made_up() -> None:
    """An iterator gives its frames once, and they went into the samples."""
    assert not draw_scenes(iter(frames()), SPEC).real
    assert draw_scenes(None, SPEC.replace(task="classification", window=None)).parts == ()


def test_a_fixed_batch(tmp_path: Path) -> None:
    bundle = converted(exact_net(), tmp_path, batch=4)
    assert form_of(bundle).exact
    assert len(edgecnn.load(bundle)(frames(1)[0])) > 0  # type: ignore[arg-type]
    assert edgecnn.verify(bundle, runtime="ort").ok


def test_what_has_no_dense_form_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bundle = converted(Gated().eval(), tmp_path)
    assert bundle.manifest.artifacts[0].dense is None
    assert "(Mul): joins values of different sizes" in bundle.manifest.not_dense
    assert "windows are cut out one by one: onnx-fp32: " in caplog.text
    assert edgecnn.verify(bundle, runtime="ort").ok


def test_windows_far_apart_are_not_worth_it(tmp_path: Path) -> None:
    """Nothing is shared between windows that do not touch."""
    apart = SPEC.replace(window=WindowGeometry(stride=96, scale_step=1.5))
    net = seeded(nn.Conv2d(3, 32, 9), nn.ReLU(), nn.Conv2d(32, 32, 9), nn.Flatten(), nn.Linear(2048, 1))
    manifest = converted(
        net, tmp_path, spec=apart, speed_gate=True, calibration=np.tile(frames(1), (1, 4, 4, 1))
    ).manifest
    assert manifest.artifacts[0].dense is None
    assert "(--no-speed-gate keeps it)" in manifest.not_dense


def test_speed_is_measured_where_it_counts(tmp_path: Path) -> None:
    form = form_of(converted(exact_net(), tmp_path, speed_gate=True))
    assert form.speedup is not None
    assert form.speedup > 1


def test_classifiers_have_none(tmp_path: Path) -> None:
    spec = ModelSpec(task="classification", size_hw=(24, 24), activation="sigmoid")
    manifest = converted(exact_net(), tmp_path, spec=spec).manifest
    assert (manifest.artifacts[0].dense, manifest.not_dense) == (None, "")


def test_quantize_makes_them_anew(exact: Bundle, tmp_path: Path) -> None:
    made = edgecnn.quantize(
        exact, out=tmp_path / "q.edge", calibration=frames(), samples=16, speed_gate=False
    )
    assert [entry.dense is not None for entry in made.manifest.artifacts] == [True, True]
    assert form_of(made).path == "model.int8.dense.onnx"
    assert edgecnn.verify(made, runtime="ort").ok


def test_cards_show_it(exact: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(exact.path)]) == 0
    assert "all windows at once: onnx-fp32 (the same network; 100.00% of" in capsys.readouterr().out
    gated = converted(Gated().eval(), tmp_path)
    assert main(["inspect", str(gated.path)]) == 0
    assert "windows one by one: onnx-fp32: " in capsys.readouterr().out
