"""Parameters and multiply-accumulates of networks whose counts are known."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import nn

from edgecnn.converters import canonical, load_model
from edgecnn.converters.network import network
from edgecnn.converters.torch_onnx import export
from edgecnn.spec import ModelSpec
from tests import models
from tests.converters.helpers import convert


def test_lenet5() -> None:
    """conv1 28²·6·25, conv2 10²·16·150, then 400·120 + 120·84 + 84·10."""
    spec = ModelSpec(task="classification", size_hw=(32, 32), color="gray")
    found = convert(models.lenet5(), spec).network
    assert found.params == 61_706
    assert found.macs == 117_600 + 240_000 + 48_000 + 10_080 + 840
    costly = [(layer.op, layer.params, layer.output_shape) for layer in found.layers if layer.macs]
    assert costly[0] == ("Conv", 156, (1, 6, 28, 28))
    assert [params for _, params, _ in costly] == [156, 2416, 48_120, 10_164, 850]


@pytest.mark.parametrize(
    ("module", "params", "macs"),
    [
        (nn.Conv2d(3, 6, 3, groups=3), 60, 6 * 6 * 6 * 9),
        (nn.ConvTranspose2d(3, 4, 2, stride=2), 52, 3 * 8 * 8 * 4 * 4),
        (nn.Linear(8, 5, bias=False), 40, 3 * 8 * 8 * 5),
        (models.Lambda(lambda x: x @ x.transpose(2, 3)), 0, 3 * 8 * 8 * 8),
        (nn.MaxPool2d(2), 0, 0),
    ],
)
def test_single_operations(module: nn.Module, params: int, macs: int) -> None:
    found = network(export(module, ModelSpec(task="tensors", size_hw=(8, 8))), (1, 3, 8, 8))
    assert (found.params, found.macs) == (params, macs)


def test_shared_weight_counts_once() -> None:
    conv = nn.Conv2d(3, 3, 1)
    found = network(
        export(nn.Sequential(conv, conv), ModelSpec(task="tensors", size_hw=(8, 8))), (1, 3, 8, 8)
    )
    assert [layer.params for layer in found.layers] == [12, 0]
    assert found.params == 12


@pytest.mark.parametrize(
    ("name", "params", "giga_macs"), [("mobilenet_v2", 3_504_872, 0.3008), ("resnet50", 25_557_032, 4.089)]
)
def test_torchvision_networks(name: str, params: int, giga_macs: float) -> None:
    """The module's own parameters are reported, though its BatchNorm layers are merged in the graph."""
    loaded = load_model(f"torchvision:{name}")
    assert loaded.default_spec is not None
    converted = canonical(loaded, loaded.default_spec)
    assert converted.network.params == params
    assert converted.network.macs / 1e9 == pytest.approx(giga_macs, rel=1e-3)
    assert "BatchNormalization" not in {layer.op for layer in converted.network.layers}
    assert all(layer.output_shape[0] == 1 for layer in converted.network.layers)
    model = onnx.load_from_string(converted.model)
    assert [v.name for v in model.graph.output] == ["scores"]
    with torch.inference_mode():
        image = torch.zeros((1, 224, 224, 3), dtype=torch.uint8)
        assert converted.reference(image)[0].shape == (1, 1000)


def test_layers_have_the_names_of_their_modules() -> None:
    """Also where BatchNorm was merged into the convolution, and where a module is called twice."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Sequential(
                torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()
            )
            self.act = torch.nn.LeakyReLU(0.1)
            self.fc = torch.nn.Linear(8 * 36, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.act(self.act(self.stem(x))).flatten(1))

    spec = ModelSpec(task="classification", size_hw=(8, 8))
    names = [node.name for node in export(Net(), spec).graph.node if node.op_type != "Constant"]
    assert names[:4] == ["stem.0", "stem.2", "act", "act#2"]
    assert names[-1] == "fc"
    assert len(set(names)) == len(names)
