"""Networks of torchvision and timm, with random weights and small inputs where the network allows them."""

from __future__ import annotations

import torchvision
from torch import Tensor, nn

from edgecnn.converters.zoo import torchvision_model
from tests.zoo.rows import Row

CLASSIFICATION_SIZE = 64
# what positions, windows or a fixed grid of the head ask for, by the start of the name
SIZES = {
    "alexnet": 224,
    "vgg": 224,
    "vit": 224,
    "maxvit": 224,
    "swin": 224,
    "inception": 96,
    "efficientnet": 128,
    "mobilenet_v3": 128,
}

SEGMENTATION_SIZE = 96
SSDLITE_SIZE = 320
RETINANET_SIZE = 128

# the smallest member of each family, and the side of its input
TIMM = {
    "mobilenetv1_100": 64, "mobilenetv3_small_050": 64, "mobilenetv4_conv_small_050": 64, "mnasnet_small": 64,
    "tf_efficientnet_lite0": 64, "efficientnet_b0": 64, "mixnet_s": 64, "ghostnet_050": 64, "lcnet_035": 64,
    "tinynet_e": 64, "hardcorenas_a": 64, "fbnetc_100": 64, "rexnet_100": 64, "mobileone_s0": 64,
    "repvgg_a0": 64, "repvit_m0_9": 64, "starnet_s050": 64, "fastvit_t8": 64, "resnet10t": 64,
    "legacy_seresnet18": 64, "skresnet18": 64, "ecaresnet26t": 64, "resnest14d": 64, "regnetx_002": 64,
    "hgnetv2_b0": 64, "dla46_c": 64, "gernet_s": 64, "ese_vovnet19b_slim_dw": 64, "convnext_atto": 64,
    "convnextv2_atto": 64, "inception_next_atto": 64, "mobilevit_xxs": 64, "efficientvit_b0": 64,
    "poolformer_s12": 64, "pvt_v2_b0": 64, "levit_128s": 224, "vit_tiny_patch16_224": 224,
    "xcit_nano_12_p16_224": 224, "mixer_s32_224": 224, "tiny_vit_5m_224": 224,
}  # fmt: skip


class Raw(nn.Module):
    """A detector without its anchors, decoding and suppression: what its heads say."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.head(list(self.backbone(x).values()))
        return found


class Out(nn.Module):
    """The map of a segmentation network, out of its dict."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x)["out"]
        return found


def _classifier(name: str) -> Row:
    size = next((size for start, size in SIZES.items() if name.startswith(start)), CLASSIFICATION_SIZE)
    return Row(
        name=f"torchvision/{name}",
        importance="expected",
        build=lambda: torchvision_model(name)[0],
        size_hw=(size, size),
    )


def _segmenter(name: str) -> Row:
    return Row(
        name=f"segmentation/{name}",
        importance="expected",
        build=lambda: Out(torchvision_model(name)[0]),
        size_hw=(SEGMENTATION_SIZE, SEGMENTATION_SIZE),
        task="tensors",
    )


def _detector(name: str, size: int) -> Row:
    def build() -> nn.Module:
        detector = torchvision.models.get_model(name, weights=None, weights_backbone=None)
        return Raw(detector)

    return Row(
        name=f"detection/{name}",
        importance="expected",
        build=build,
        size_hw=(size, size),
        task="tensors",
        note="raw heads",
    )


def _timm(name: str, size: int) -> Row:
    def build() -> nn.Module:
        import timm

        net: nn.Module = timm.create_model(name, pretrained=False)
        return net

    return Row(name=f"timm/{name}", importance="expected", build=build, size_hw=(size, size), needs="timm")


def _models(module: object) -> list[str]:
    names: list[str] = torchvision.models.list_models(module=module)
    return names


PUBLISHED = [
    *map(_classifier, _models(torchvision.models)),
    *map(_segmenter, _models(torchvision.models.segmentation)),
    _detector("ssdlite320_mobilenet_v3_large", SSDLITE_SIZE),
    _detector("retinanet_resnet50_fpn", RETINANET_SIZE),
    *(_timm(name, size) for name, size in TIMM.items()),
]
