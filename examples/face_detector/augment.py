"""Endless augmented batches from a small stock of patches and photographs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from data import CORE, PATCH, Image, Patches, Scene, cut_patch
from net import WINDOW
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

FloatArray = npt.NDArray[np.float32]

SMALLEST_WINDOW = 20.0


@dataclass
class Stock:
    """What batches are drawn from.

    Attributes:
        faces: Patches with a face filling the core.
        face_odds: How often each face patch is drawn.
        filled: Which face patches have an invented margin that a background may replace.
        plain: Patches without a face.
        hard: Patches the network took for faces in earlier rounds.
        scenes: Photographs to cut random windows from.
    """

    faces: Patches
    face_odds: npt.NDArray[np.float64]
    filled: npt.NDArray[np.bool_]
    plain: Patches
    hard: Patches
    scenes: list[Scene]


class Batches(IterableDataset[tuple[Tensor, Tensor]]):
    """Batches of BGR windows ``[B, WINDOW, WINDOW, 3]`` and labels, without end."""

    def __init__(self, stock: Stock, batch: int, seed: int) -> None:
        """Prepares the stream.

        Args:
            stock: Material.
            batch: Windows a batch.
            seed: Start of the random stream; each worker derives its own.
        """
        self._stock = stock
        self._batch = batch
        self._seed = seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Draws batches for ever."""
        cv2.setNumThreads(0)
        worker = get_worker_info()
        rng = np.random.default_rng([self._seed, worker.id if worker else 0])
        while True:
            labels = rng.random(self._batch) < 0.3
            windows = [self._face(rng) if face else self._other(rng) for face in labels]
            yield torch.from_numpy(np.stack(windows)), torch.from_numpy(labels.astype(np.float32))

    def _face(self, rng: np.random.Generator) -> Image:
        index = int(rng.choice(len(self._stock.faces), p=self._stock.face_odds))
        patch = self._stock.faces[index]
        if self._stock.filled[index] and rng.random() < 0.6:
            patch = self._on_background(patch, rng)
        scale = float(np.exp(rng.uniform(-0.15, 0.15)))
        return _degrade(_warp(patch, scale, rng.uniform(-0.075, 0.075, 2), rng, 9.0), rng)

    def _other(self, rng: np.random.Generator) -> Image:
        stock, draw = self._stock, rng.random()
        if len(stock.hard) and draw < 0.5:
            patch, scale = stock.hard[rng.integers(len(stock.hard))], np.exp(rng.normal(0, 0.05))
            return _degrade(_warp(patch, float(scale), rng.normal(0, 0.03, 2), rng, 4.0), rng)
        if draw < 0.58:
            # A window inside a face: the detector must not answer to one eye or a mouth.
            patch = stock.faces[rng.integers(len(stock.faces))]
            shift = rng.uniform(-0.25, 0.25, 2)
            return _degrade(_warp(patch, rng.uniform(0.3, 0.55), shift, rng, 9.0), rng)
        if draw < 0.75:
            patch = stock.plain[rng.integers(len(stock.plain))]
            if rng.random() < 0.3:
                patch = self._on_background(patch, rng)
        else:
            patch = self._random_patch(rng)
        return _degrade(_warp(patch, rng.uniform(0.6, 1.2), np.zeros(2), rng, 9.0), rng)

    def _on_background(self, patch: Image, rng: np.random.Generator) -> Image:
        """Replaces the margin; faces and non-faces both get it, so the seam tells nothing."""
        margin = (PATCH - CORE) // 2
        result: Image = self._stock.plain[rng.integers(len(self._stock.plain))].copy()
        inner = slice(margin, margin + CORE)
        result[inner, inner] = patch[inner, inner]
        return result

    def _random_patch(self, rng: np.random.Generator) -> Image:
        """Cuts a random window, near a face in half the photographs that have one."""
        while True:
            scene = self._stock.scenes[rng.integers(len(self._stock.scenes))]
            height, width = scene.image.shape[:2]
            limit = float(min(height, width))
            side = SMALLEST_WINDOW * (limit / SMALLEST_WINDOW) ** rng.random()
            corner = rng.random(2) * (width - side, height - side)
            if len(scene.faces) and rng.random() < 0.5:
                face = scene.faces[rng.integers(len(scene.faces))]
                own = face[2] - face[0]
                side = float(own * np.exp(rng.uniform(-0.9, 0.7)))
                corner = (face[:2] + face[2:]) / 2 + rng.uniform(-1, 1, 2) * own - side / 2
            window = np.asarray([*corner, *(corner + side)], np.float32)
            inside = window.min() >= 0 and window[2] <= width and window[3] <= height
            if inside and scene.verdict(window) == "none":
                return cut_patch(scene.image, window)


def _warp(
    patch: Image,
    scale: float,
    shift: npt.NDArray[np.float64],
    rng: np.random.Generator,
    degrees: float,
) -> Image:
    angle = np.deg2rad(rng.normal(0, degrees))
    zoom = scale * CORE / WINDOW
    flip = -1 if rng.random() < 0.5 else 1
    turn = zoom * np.array([[np.cos(angle) * flip, -np.sin(angle)], [np.sin(angle) * flip, np.cos(angle)]])
    centre = (PATCH - 1) / 2 + shift * CORE - turn @ np.full(2, (WINDOW - 1) / 2)
    warped = cv2.warpAffine(
        patch,
        np.column_stack([turn, centre]),
        (WINDOW, WINDOW),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return np.asarray(warped, np.uint8)


def _degrade(window: Image, rng: np.random.Generator) -> Image:
    """Loses detail the ways cameras, codecs and enlargement of small faces do."""
    draws = rng.random(4)
    if draws[0] < 0.35:
        side = int(rng.integers(20, WINDOW))
        small = cv2.resize(window, (side, side), interpolation=cv2.INTER_AREA)
        window = np.asarray(cv2.resize(small, (WINDOW, WINDOW), interpolation=cv2.INTER_LINEAR), np.uint8)
    elif draws[0] < 0.45:
        window = np.asarray(cv2.GaussianBlur(window, (0, 0), rng.uniform(0.5, 1.6)), np.uint8)
    if draws[1] < 0.15:
        quality = int(rng.integers(25, 85))
        _, code = cv2.imencode(".jpg", window, [cv2.IMWRITE_JPEG_QUALITY, quality])
        window = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)
    if draws[2] < 0.1:
        size = rng.integers(6, 20, 2)
        x, y = (int(v) for v in rng.integers(0, WINDOW - size + 1))
        window[y : y + size[1], x : x + size[0]] = rng.integers(0, 256, 3)
    return window


def shift_colours(x: Tensor, generator: torch.Generator) -> Tensor:
    """Varies exposure, contrast, gamma, colour cast and noise of windows in -1..1."""
    count = len(x)

    def normal(channels: int = 1) -> Tensor:
        return torch.randn(count, channels, 1, 1, generator=generator)

    x = ((x + 1) / 2).pow(torch.exp(0.3 * normal()))
    grey = (torch.rand(count, 1, 1, 1, generator=generator) < 0.15).float()
    x = x + grey * (x.mean(1, keepdim=True) - x)
    x = (x - 0.5) * torch.exp(0.25 * normal()) + 0.5 + 0.1 * normal() + 0.05 * normal(3)
    sigma = 0.04 * torch.rand(count, 1, 1, 1, generator=generator)
    x = x + sigma * torch.randn(x.shape, generator=generator)
    return x.clamp(0, 1) * 2 - 1
