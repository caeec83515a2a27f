"""The two published face detectors that decide where training photographs show a face.

The training photographs carry no face annotation. RetinaFace (MobileNet 0.25) and UltraFace
(RFB-320) were trained on other data and err on different things, so a region that neither of
them suspects is safe to learn from as "no face", and a region on which both are confident is
safe to learn from as "face". Neither is needed to run the finished detector.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from dense import suppress
from torch import Tensor, nn

FloatArray = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    padding = kernel // 2
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _conv_dw(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _conv_plain(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))


class _ContextHead(nn.Module):
    """RetinaFace's SSH block; the attribute names are those of the published weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv3X3 = _conv_plain(64, 32)
        self.conv5X5_1 = _conv_bn(64, 16, 3)
        self.conv5X5_2 = _conv_plain(16, 16)
        self.conv7X7_2 = _conv_bn(16, 16, 3)
        self.conv7x7_3 = _conv_plain(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        """Joins three receptive fields of the same feature map."""
        middle = self.conv5X5_1(x)
        wide = self.conv7x7_3(self.conv7X7_2(middle))
        return torch.relu(torch.cat([self.conv3X3(x), self.conv5X5_2(middle), wide], 1))


def _head(outputs: int) -> nn.ModuleList:
    heads = [nn.Sequential() for _ in range(3)]
    for head in heads:
        head.add_module("conv1x1", nn.Conv2d(64, outputs, 1))
    return nn.ModuleList(heads)


class _RetinaNet(nn.Module):
    """RetinaFace-MobileNet-0.25 without its landmark branch."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict(
            {
                "stage1": nn.Sequential(
                    _conv_bn(3, 8, 3, 2),
                    _conv_dw(8, 16),
                    _conv_dw(16, 32, 2),
                    _conv_dw(32, 32),
                    _conv_dw(32, 64, 2),
                    _conv_dw(64, 64),
                ),
                "stage2": nn.Sequential(_conv_dw(64, 128, 2), *(_conv_dw(128, 128) for _ in range(5))),
                "stage3": nn.Sequential(_conv_dw(128, 256, 2), _conv_dw(256, 256)),
            }
        )
        self.fpn = nn.ModuleDict(
            {f"output{i + 1}": _conv_bn(c, 64, 1) for i, c in enumerate((64, 128, 256))}
            | {f"merge{i}": _conv_bn(64, 64, 3) for i in (1, 2)}
        )
        self.ssh1, self.ssh2, self.ssh3 = _ContextHead(), _ContextHead(), _ContextHead()
        self.ClassHead = _head(4)
        self.BboxHead = _head(8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns box offsets ``[A, 4]`` and class logits ``[A, 2]`` of one image."""
        fine = self.body["stage1"](x)
        mid = self.body["stage2"](fine)
        coarse = self.fpn["output3"](self.body["stage3"](mid))
        mid = self.fpn["output2"](mid)
        mid = self.fpn["merge2"](mid + nn.functional.interpolate(coarse, size=mid.shape[2:], mode="nearest"))
        fine = self.fpn["output1"](fine)
        fine = self.fpn["merge1"](fine + nn.functional.interpolate(mid, size=fine.shape[2:], mode="nearest"))
        maps = [self.ssh1(fine), self.ssh2(mid), self.ssh3(coarse)]
        boxes = [h(m).permute(0, 2, 3, 1).reshape(-1, 4) for h, m in zip(self.BboxHead, maps)]
        classes = [h(m).permute(0, 2, 3, 1).reshape(-1, 2) for h, m in zip(self.ClassHead, maps)]
        return torch.cat(boxes), torch.cat(classes)


class RetinaFace:
    """RetinaFace as a function from a BGR image to scored boxes."""

    def __init__(self, weights: Path) -> None:
        """Loads the published weights.

        Args:
            weights: ``retinaface_mobilenet025.pth``.
        """
        state = torch.load(weights, weights_only=True, map_location="cpu")
        self._net = _RetinaNet().eval()
        self._net.load_state_dict({k: v for k, v in state.items() if "Landmark" not in k})

    @torch.inference_mode()
    def __call__(self, image: Image, threshold: float, zoom: float = 1.0) -> FloatArray:
        """Detects faces.

        Args:
            image: BGR photograph.
            threshold: Lowest score reported.
            zoom: Enlargement before detection; small faces need it.

        Returns:
            Rows ``x1, y1, x2, y2, score`` in pixels of ``image``.
        """
        scaled = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR)
        height, width = scaled.shape[:2]
        x = torch.from_numpy(scaled.astype(np.float32) - np.asarray([104, 117, 123], np.float32))
        offsets, classes = self._net(x.permute(2, 0, 1)[None])
        anchors = _anchors(height, width)
        centre = anchors[:, :2] + offsets[:, :2] * 0.1 * anchors[:, 2:]
        size = anchors[:, 2:] * torch.exp(offsets[:, 2:] * 0.2)
        scores = classes.softmax(1)[:, 1:]
        rows = torch.cat([centre - size / 2, centre + size / 2, scores], 1).numpy()
        rows = rows[rows[:, 4] >= threshold]
        rows[:, :4] /= zoom
        return rows[suppress(rows[:, :4], rows[:, 4], 0.4)]


def _anchors(height: int, width: int) -> Tensor:
    levels = []
    for step, sizes in ((8, (10, 20)), (16, (32, 64)), (32, (128, 256))):
        y, x, size = torch.meshgrid(
            (torch.arange(-(-height // step)) + 0.5) * step,
            (torch.arange(-(-width // step)) + 0.5) * step,
            torch.tensor(sizes, dtype=torch.float32),
            indexing="ij",
        )
        levels.append(torch.stack([x, y, size, size], -1).reshape(-1, 4))
    return torch.cat(levels)


class UltraFace:
    """UltraFace RFB-320 as a function from a BGR image to scored boxes."""

    def __init__(self, model: Path) -> None:
        """Loads the published network.

        Args:
            model: ``ultraface_RFB320.onnx``.
        """
        self._net = cv2.dnn.readNetFromONNX(str(model))

    def __call__(self, image: Image, threshold: float) -> FloatArray:
        """Detects faces.

        Args:
            image: BGR photograph.
            threshold: Lowest score reported.

        Returns:
            Rows ``x1, y1, x2, y2, score`` in pixels of ``image``.
        """
        blob = cv2.dnn.blobFromImage(image, 1 / 128, (320, 240), (127, 127, 127), swapRB=True)
        self._net.setInput(blob)
        scores, boxes = self._net.forward(["scores", "boxes"])
        rows = np.concatenate([boxes[0], scores[0][:, 1:]], 1).astype(np.float32)
        rows = rows[rows[:, 4] >= threshold]
        height, width = image.shape[:2]
        rows[:, :4] *= np.asarray([width, height, width, height], np.float32)
        return rows[suppress(rows[:, :4], rows[:, 4], 0.4)]
