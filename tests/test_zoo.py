"""A slice of the zoo through every engine that is installed; benchmarks/coverage.py runs all of it."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from edgecnn.calibration.int8 import Int8Builder
from edgecnn.converters import canonical, load_model
from edgecnn.converters.onnx_fp16 import OnnxToFp16
from edgecnn.errors import ModelError
from edgecnn.runtimes import Artifact, RuntimeOptions, backend
from tests.paths import engine
from tests.zoo import ROWS, images

LISTED_MODELS = """
base-cnn image-classifier face-window transfer-head spatial-attention three-blocks-valid separable-net conv-gap
lenet-5 alexnet vgg16 vgg-style resnet-18 resnet-50 small-residual inception mobilenet-v2 mobilenet-v2-32px
mobilenet-v2-5-classes mobilenet-v3 efficientnet-b0 densenet-block se-block se-resnet-50 cbam channel-attention
yolo-like yolov3-rows retinanet localization u-net fcn-32s mnist-cnn-a mnist-cnn-b mnist-cnn-c cifar-cnn-as-listed
cifar-cnn-padded simple-cnn simple-cnn-any-size mlp linear-autoencoder conv-autoencoder vae-encoder-mean vit
stochastic-residual deployment-ready
"""

LISTED_OPERATIONS = """
conv-reflect conv-replicate conv-circular conv-even-kernel-same conv-dilated conv-depthwise conv-32-groups
conv-transpose-3 conv-transpose-2 adaptive-max-pool-28-to-7 adaptive-max-pool-32-to-7 adaptive-avg-pool-32-to-7
adaptive-avg-pool-10-to-7 global-avg-pool global-max-pool fractional-max-pool lp-pool mixed-pool
stochastic-pool-expectation spatial-pyramid-pool nearest-x2 bilinear-x32 interpolate-to-24 interpolate-antialias
bed-of-nails-assigned bed-of-nails-stacked pixel-shuffle layer-norm group-norm instance-norm attention
max-pool-ceil-31 sampling dropout2d softmax sigmoid tanh leaky-relu-0.1 leaky-relu-0.01 argmax concat add mul exp
linear-batch-norm max-pool-3-same avg-pool
"""

MUST_BE_REFUSED = [name for name, row in ROWS.items() if row.refused]
SLICE = [
    "models/lenet-5",
    "models/face-window",
    "models/localization",
    "operations/conv-circular",
    "operations/max-pool-ceil-31",
    "operations/spatial-pyramid-pool",
    "operations/bed-of-nails-assigned",
    "operations/attention",
    "operations/argmax",
]


def test_every_listed_network_is_there() -> None:
    assert {f"models/{name}" for name in LISTED_MODELS.split()} <= set(ROWS)
    assert {f"operations/{name}" for name in LISTED_OPERATIONS.split()} <= set(ROWS)


def test_published_families_are_there() -> None:
    import torchvision

    sections = Counter(row.section for row in ROWS.values())
    assert sections["torchvision"] == len(torchvision.models.list_models(module=torchvision.models)) >= 80
    assert (sections["segmentation"], sections["detection"], sections["timm"]) == (6, 2, 40)
    assert {row.needs for row in ROWS.values() if row.section == "timm"} == {"timm"}


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.params])
def test_networks_have_the_parameters_they_are_known_for(name: str) -> None:
    with torch.device("meta"):
        module = ROWS[name].build()
    assert sum(parameter.numel() for parameter in module.parameters()) == ROWS[name].params


def test_seasoned_networks_are_alike_and_not_as_they_began() -> None:
    row = ROWS["models/simple-cnn"]
    first, second = row.make().state_dict(), row.make().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    for layer in (layer for layer in row.make().modules() if isinstance(layer, nn.BatchNorm2d)):
        assert layer.running_mean is not None
        assert layer.running_mean.abs().max() > 0
        assert layer.weight.std() > 0


@pytest.mark.parametrize("name", MUST_BE_REFUSED)
def test_refused_with_the_reason(name: str) -> None:
    row = ROWS[name]
    with pytest.raises(ModelError) as caught:
        canonical(load_model(row.make()), row.spec)
    assert re.search(str(row.refused), str(caught.value))
    assert "\n" not in str(caught.value)


def convert(name: str) -> tuple[Any, Any]:
    """A row's canonical model, and pictures of its size."""
    row = ROWS[name]
    return canonical(load_model(row.make()), row.spec), images(row.spec, 2, seed=1)


def check(engine: str, artifact: Artifact, pictures: Any, converted: Any, limit: float) -> None:
    """Outputs of an engine are those of torch."""
    with torch.inference_mode():
        expected = converted.reference(torch.from_numpy(pictures))
    with backend(engine)(artifact, RuntimeOptions(threads=1)) as runtime:
        found = runtime.run({"image": pictures})
    for values, wanted in zip(found.values(), (tensor.numpy() for tensor in expected)):
        if wanted.dtype.kind == "f":
            np.testing.assert_allclose(values, wanted, atol=limit * np.abs(wanted).max(), rtol=0)
        else:
            assert (values == wanted).mean() >= 1 - 10 * limit


@pytest.mark.parametrize("name", SLICE)
def test_onnxruntime(name: str) -> None:
    converted, pictures = convert(name)
    check("ort", Artifact(format="onnx", content=converted.model), pictures, converted, 1e-4)
    half = OnnxToFp16()(onnx.load_from_string(converted.model)).SerializeToString()
    check("ort", Artifact(format="onnx", content=half, precision="fp16"), pictures, converted, 1e-2)


@pytest.mark.parametrize("name", ["operations/concat", "operations/attention"])
def test_int8(name: str) -> None:
    converted, pictures = convert(name)
    builder = Int8Builder(converted.model, images(ROWS[name].spec, 4, seed=0), method="minmax", threads=1)
    exact = onnxruntime.InferenceSession(converted.model).run(None, {"image": pictures})[0]
    for placement in ("cpu", "tensorrt"):
        found = onnxruntime.InferenceSession(builder.build(placement)).run(None, {"image": pictures})[0]
        assert ((found - exact) ** 2).sum() < 0.05 * (exact**2).sum()


@pytest.mark.parametrize(
    "name", ["models/lenet-5", "operations/bed-of-nails-assigned", "operations/attention"]
)
def test_openvino(name: str) -> None:
    engine("openvino")
    from edgecnn.converters.onnx_openvino import OnnxToOpenVino

    converted, pictures = convert(name)
    made = OnnxToOpenVino()(converted.model)
    artifact = Artifact(format="openvino", content=made.xml, weights=made.weights)
    check("openvino", artifact, pictures, converted, 1e-4)


@pytest.mark.parametrize("name", ["models/lenet-5", "operations/spatial-pyramid-pool"])
def test_tensorrt_builds(name: str) -> None:
    engine("tensorrt_rtx_bindings")
    from edgecnn.converters.onnx_tensorrt import OnnxToTensorRT

    assert OnnxToTensorRT(compute_capability="8.9")(convert(name)[0].model).plan
