"""Models of torchvision by name, and the spec that their published weights were trained with."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from edgecnn.converters.base import suggest
from edgecnn.errors import ModelError, require
from edgecnn.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

__all__ = ["torchvision_model"]

# families whose forward takes something else than one batch of images, or whose weights are not float
REFUSED = {
    "detection": "a detector with its own pre- and post-processing",
    "video": "a video model",
    "optical_flow": "an optical flow model",
    "quantization": "already quantised",
}


def torchvision_model(name: str) -> tuple[nn.Module, ModelSpec | None]:
    """Build a torchvision model with random weights (the same ones each time); nothing is downloaded.

    Returns:
        The module, and for classifiers the spec of the default published weights.

    Raises:
        ModelError: Unknown, or of a family that is not converted.
    """
    models = require("torchvision.models", "convert")
    torch = require("torch", "convert")
    if name not in models.list_models():
        raise ModelError(f"torchvision:{name}: no such model{suggest(name, models.list_models())}")
    builder = models.get_model_builder(name)
    family = builder.__module__.split(".")[2]
    if family in REFUSED:
        raise ModelError(
            f"torchvision:{name}: {REFUSED[family]}; edgecnn converts float models that take one batch "
            "of images"
        )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        module = builder(**_arguments(name, family))
    return module, _classifier_spec(models.get_model_weights(name).DEFAULT, module)


def _arguments(name: str, family: str) -> dict[str, Any]:
    arguments: dict[str, Any] = {"weights": None}
    if family == "segmentation":
        arguments["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        # their published weights expect another normalisation, which the model then does itself
        arguments.update(transform_input=True, init_weights=False)
    return arguments


def _classifier_spec(weights: Any, module: nn.Module) -> ModelSpec | None:
    transforms = weights.transforms()
    if type(transforms).__name__ != "ImageClassification":
        return None
    crop, short = transforms.crop_size[0], transforms.resize_size[0]
    outputs = list(module.parameters())[-1].shape[0]
    categories = weights.meta.get("categories") or ()
    return ModelSpec(
        task="classification",
        size_hw=(crop, crop),
        resize="center_crop",
        resize_short=short,
        interpolation=transforms.interpolation.value,
        antialias=bool(transforms.antialias),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        labels=tuple(categories) if len(categories) == outputs else (),
    )
