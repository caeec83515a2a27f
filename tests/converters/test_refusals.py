"""Modules that must not be converted: each is refused in one line that names the layer and the reason."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgecnn.converters.torch_onnx import TorchToOnnx, _module_of, export
from edgecnn.errors import ModelError
from edgecnn.spec import ModelSpec
from tests import models

SPEC = ModelSpec(task="tensors", size_hw=(32, 32), activation="none")


class StubbornBatchNorm(nn.Module):
    """Keeps its BatchNorm in training mode, as some fine-tuning code does the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

    def train(self, mode: bool = True) -> StubbornBatchNorm:
        super().train(mode)
        self.stem[1].train()
        return self

    def forward(self, x: Tensor) -> Any:
        return self.stem(x)


class Sampler(nn.Module):
    """A VAE's z = mu + sigma * eps."""

    def __init__(self) -> None:
        super().__init__()
        self.mu = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        mu: Tensor = self.mu(x.mean((2, 3)))
        return mu + torch.randn_like(mu)


class GuessedRange(nn.Module):
    """Guesses the range of its input."""

    def forward(self, x: Tensor) -> Tensor:
        if x.max() > 1.0:
            x = x / 255
        return x.flatten(1)


class OneImage(nn.Module):
    """Flattens the batch away."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 32 * 32, 5)

    def forward(self, x: Tensor) -> Any:
        return self.fc(x.view(1, -1))


class StochasticDepth(nn.Module):
    """Skips its block at random, in evaluation too."""

    def forward(self, x: Tensor) -> Tensor:
        return x * random.random()


def _numpy_inside(x: Tensor) -> Tensor:
    return torch.from_numpy(x.numpy() + 1)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "train mode after eval": (
        StubbornBatchNorm,
        r"^stem\.1 \(BatchNorm2d\) stays in training mode after \.eval\(\); let it follow \.train\(\)$",
    ),
    "no running statistics": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        r"^1 \(BatchNorm2d\): track_running_stats=False normalises by the batch itself",
    ),
    "functional dropout": (
        lambda: models.Lambda(lambda x: functional.dropout(x, 0.5)),
        r"^forward \(Lambda\), \w+\.py:\d+: dropout with training=True; .* training=self\.training$",
    ),
    "functional batch norm": (
        lambda: models.Lambda(lambda x: functional.batch_norm(x, None, None, training=True)),
        r"^forward \(Lambda\), \w+\.py:\d+: batch_norm with training=True",
    ),
    "sampling": (
        lambda: nn.Sequential(nn.Conv2d(3, 3, 3), Sampler()),
        r"^1 \(Sampler\), test_refusals\.py:\d+: randn_like draws random numbers",
    ),
    "fractional pooling": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.FractionalMaxPool2d(2, output_ratio=0.5)),
        r"^1 \(FractionalMaxPool2d\): rand draws random numbers",
    ),
    "random numbers of Python": (
        StochasticDepth,
        r"^output differs between two runs on the same input: forward draws random numbers$",
    ),
    "shapes that collapse": (
        models.collapsing_net,
        r"^pool6 \(MaxPool2d\): input 1×32×1×1 is smaller than its kernel 2×2; use a larger size_hw or less",
    ),
    "kernel larger than its input": (
        lambda: nn.Sequential(nn.MaxPool2d(32), nn.Conv2d(3, 4, 3)),
        r"^1 \(Conv2d\): input 1×3×1×1 is smaller than its kernel 3×3; use a larger size_hw",
    ),
    "pool larger than its input": (
        lambda: nn.Sequential(nn.MaxPool2d(32), nn.AvgPool2d((2, 3))),
        r"^1 \(AvgPool2d\): input 1×3×1×1 is smaller than its kernel 2×3; use a larger size_hw",
    ),
    "crop to nothing": (
        lambda: nn.Sequential(models.Lambda(lambda x: x[:, :, 32:])),
        r"^0 \(Lambda\): input 1×3×32×32 shrinks to nothing \(1×3×0×32\); use a larger size_hw",
    ),
    "Linear of another size": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(100, 3)),
        r"^1 \(Linear\): fails on input 1×3072: .*1x3072 and 100x3",
    ),
    "channels of another spec": (
        lambda: nn.Conv2d(1, 4, 3),
        r"^forward \(Conv2d\): fails on input 1×3×32×32: .*to have 1 channels, but got 3",
    ),
    "weights beyond an ONNX file": (
        lambda: nn.Linear(2**16, 2**14, device="meta"),
        r"^its weights are 4\.3 GB, and the ONNX file .* holds 2\.1 GB at most; use a smaller network$",
    ),
    "range guessed from the data": (
        GuessedRange,
        r"^forward, test_refusals\.py:\d+ \(if x\.max\(\) > 1\.0:\): what forward does depends on the values",
    ),
    "numpy inside": (
        lambda: models.Lambda(_numpy_inside),
        r"^forward, test_refusals\.py:\d+ \(return torch\.from_numpy.*\): cannot be exported",
    ),
    "batch flattened away": (
        OneImage,
        r"^works with one image but not with 2: fc \(Linear\): .*test_refusals\.py.*one batch size",
    ),
    "batch counted with len": (
        lambda: models.Lambda(lambda x: x.view(len(x), -1)),
        r"^forward.*: works for a batch of 2 only; len\(x\) and int\(x\.shape\[0\]\) fix the batch, x\.shape\[0\]",
    ),
    "sampling beside a fixed batch": (
        lambda: models.Lambda(lambda x: (x + torch.randn_like(x)).view(len(x), -1)),
        r"^forward \(Lambda\), \w+\.py:\d+: randn_like draws random numbers",
    ),
    "batch lost in a view": (
        lambda: models.Lambda(lambda x: x.view(1, -1)),
        r"^output is 1×6144 for 2 images: the batch must be its first dimension; flatten",
    ),
    "batch baked into a constant": (
        lambda: models.Lambda(lambda x: x.reshape(2, 3, 1024) if len(x) == 2 else x.reshape(1, 3, 1024)),
        r"works for a batch of 2 only",
    ),
    "neighbours that matter": (
        lambda: models.Lambda(lambda x: (x / x.abs().max()).flatten(1)),
        r"^output of an image depends on the other images of its batch or on their number; make",
    ),
    "batch size that matters": (
        lambda: models.Lambda(lambda x: x.flatten(1) + (0 if x.shape[0] == 1 else 1)),
        r"^output of an image depends on the other images of its batch or on their number",
    ),
    "entries filtered by their values": (
        lambda: models.Lambda(lambda x: x.flatten(0, 2)[x.flatten(0, 2).sum(1) > 0]),
        r"^output: the number of its entries depends on the values of the image, .* select among them after",
    ),
    "images filtered by their values": (  # all of the sample pass
        lambda: models.Lambda(lambda x: x[x.abs().sum((1, 2, 3)) >= 0]),
        r"^output: the number of its entries depends on the values of the image",
    ),
    "output without a batch": (
        lambda: models.Lambda(lambda x: {"scores": x.mean((2, 3)), "anchors": torch.zeros(7, 4)}),
        r"^anchors is 7×4 for 2 images: the batch must be its first dimension",
    ),
    "output that is no tensor": (
        lambda: models.Lambda(lambda x: {"scores": x, "name": "face"}),
        r"^forward returns a str as name; return tensors, alone or in a dict, tuple or list$",
    ),
    "no output": (lambda: models.Lambda(lambda x: ()), r"^forward returns no tensor; return tensors"),
    "two outputs of a name": (
        lambda: models.Lambda(lambda x: {"a.b": x, "a": {"b": x}}),
        r"^forward returns two outputs of the name a\.b; rename one of the keys$",
    ),
    "adaptive max pool": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveMaxPool2d(7)),
        r"^1 \(AdaptiveMaxPool2d\): ONNX has no form of adaptive_max_pool2d on an input of N×4×32×32",
    ),
    "operation taken apart by the exporter": (
        lambda: nn.Sequential(nn.RReLU()),
        r"^0 \(RReLU\): ONNX has no form of rrelu on an input of N×3×32×32",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    make, message = REFUSED[case]
    with pytest.raises(ModelError, match=message) as caught:
        export(make(), SPEC)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", ""), "torch and onnx keep quiet"


@pytest.mark.parametrize(
    "module",
    [
        pytest.param(nn.Sequential(nn.AdaptiveMaxPool2d(8)), id="adaptive max pool that divides"),
        pytest.param(nn.TransformerEncoderLayer(32, 4, 8, batch_first=True), id="attention with dropout 0"),
        pytest.param(nn.Sequential(nn.Dropout(), nn.AlphaDropout(), nn.FeatureAlphaDropout()), id="dropouts"),
        pytest.param(nn.InstanceNorm2d(3), id="instance norm"),
        pytest.param(models.Lambda(lambda x: torch.where(x > 1, x / 255, x)), id="torch.where"),
    ],
)
def test_not_refused_though_it_looks_alike(module: nn.Module, capfd: pytest.CaptureFixture[str]) -> None:
    body = module
    if isinstance(module, nn.TransformerEncoderLayer):
        body = nn.Sequential(nn.Flatten(1, 2), module)
    assert len(export(body, SPEC).graph.output) == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("batch", [2, 3, 5])
@pytest.mark.parametrize(
    "forward",
    [
        pytest.param(lambda x: (x - x.mean(0, keepdim=True)).flatten(1), id="mean of the batch"),
        pytest.param(lambda x: (x + x.roll(1, 0)).flatten(1), id="one neighbour"),
        pytest.param(lambda x: torch.cat([x[:-1], x[-1:] + x[:1]]).flatten(1), id="last and first alone"),
    ],
)
def test_neighbours_that_matter_in_a_fixed_batch(forward: Any, batch: int) -> None:
    with pytest.raises(ModelError, match=r"^output of an image depends on the other images of its batch"):
        export(models.Lambda(forward), SPEC.replace(size_hw=(4, 4)), batch=batch)


def test_images_filtered_by_their_values_in_a_fixed_batch() -> None:
    net = models.Lambda(lambda x: x[x.abs().sum((1, 2, 3)) >= 0])
    with pytest.raises(ModelError, match=r"^output: the number of its entries depends on the values"):
        export(net, SPEC, batch=2)


@pytest.mark.parametrize("batch", [1, 3])
def test_random_numbers_in_a_fixed_batch(batch: int) -> None:
    random.seed(0)  # two draws that are about the same would show nothing
    with pytest.raises(ModelError, match=r"^output differs between two runs on the same input"):
        export(StochasticDepth(), SPEC.replace(size_hw=(4, 4)), batch=batch)


def test_batch_below_one() -> None:
    with pytest.raises(ModelError, match=r"^batch must be at least 1, not 0$"):
        export(nn.Identity(), SPEC, batch=0)


def test_export_leaves_no_hooks_and_no_gradients() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    export(net, SPEC)
    assert not net[0]._forward_hooks
    assert not net[0]._forward_pre_hooks
    assert net[0].weight.grad is None


def test_what_torch_onnx_raises_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **options: Any) -> None:
        raise ValueError("optimiser\nstack")

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(ModelError, match=r"^torch\.onnx cannot convert it \(optimiser\)$"):
        export(nn.Conv2d(3, 4, 3), SPEC)


def test_exported_model_that_is_not_valid() -> None:
    with pytest.raises(ModelError, match=r"^the exported model is not valid \(.+\)$") as caught:
        TorchToOnnx(SPEC).ensures(nn.Identity(), onnx.ModelProto())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("trace", "module"),
    [
        ("['', 'stem.0', 'conv2d']", "stem.0"),
        ("['', 'conv2d']", ""),
        ("['conv2d']", ""),
        ("{'stem': 0}", ""),
        ("stem.0 > conv2d", ""),
        ("['stem',", ""),
        ("(" * 10_000, ""),
        ("\0", ""),
    ],
)
def test_traces_of_the_exporter_may_have_any_form(trace: str, module: str) -> None:
    node = onnx.NodeProto(op_type="Conv")
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=trace)
    assert _module_of(node) == module
