"""A loaded model with channels cut: by a share of its work, or until it is fast enough here."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgecnn.converters.load import LoadedModel
from edgecnn.converters.onnx_canonical import canonical
from edgecnn.errors import InputError
from edgecnn.manifest import PrunedChannels, Pruning
from edgecnn.progress import OnWork
from edgecnn.pruning import prune, prune_to_latency
from edgecnn.runtimes import Artifact, RuntimeOptions, backend
from edgecnn.spec import ModelSpec
from edgecnn.timing import interleaved_ms

if TYPE_CHECKING:
    from torch import nn

__all__ = ["pruned_model"]


def pruned_model(
    loaded: LoadedModel,
    spec: ModelSpec,
    images: npt.NDArray[np.uint8],
    *,
    ratio: float | None = None,
    max_latency_ms: float | None = None,
    batch: int | None = None,
    threads: int | None = None,
    on_work: OnWork | None = None,
) -> tuple[LoadedModel, Pruning]:
    """Prune a loaded model; see `edgecnn.pruning`.

    Args:
        loaded: Holds a module; it stays as it is.
        spec: Its spec.
        images: Calibration samples, uint8 (n, h, w, c).
        ratio: Share of the multiply-accumulates to cut; or
        max_latency_ms: Cut until one run of the fp32 model in ONNX Runtime takes no longer here.
        batch: Of the converted model; None leaves it open and measures one image.
        threads: Threads of the engine; None is all processors.
        on_work: Called during long steps.

    Raises:
        InputError: There is no module to prune, or an argument cannot be used.
        GateMissed: No cut is fast enough.
    """
    if loaded.module is None:
        raise InputError(
            f"{loaded.name}: an ONNX file cannot be pruned; give the PyTorch module it was made from"
        )
    report = on_work or (lambda what, done, total: None)

    def on_progress(done: int, total: int) -> None:
        report("pruning", done, total)

    def latency_ms(module: nn.Module) -> float:
        model = canonical(replace(loaded, module=module), spec, batch=batch).model
        with backend("ort")(Artifact("onnx", model), RuntimeOptions(threads=threads)) as runtime:
            feeds = {runtime.inputs[0].name: np.resize(images, (batch or 1, *images.shape[1:]))}
            return interleaved_ms({"pruned": partial(runtime.run, feeds)}, seconds=1.0)["pruned"]

    if max_latency_ms is not None:
        made = prune_to_latency(
            loaded.module,
            images,
            spec,
            max_latency_ms=max_latency_ms,
            measure=latency_ms,
            on_progress=on_progress,
        )
    else:
        made = prune(loaded.module, images, spec, ratio=ratio or 0.0, on_progress=on_progress)
    return replace(loaded, module=made.module), Pruning(
        macs_before=made.macs_before,
        macs_after=made.macs_after,
        params_before=made.params_before,
        params_after=made.params_after,
        layers=tuple(
            PrunedChannels(
                layer=layer.name,
                before=layer.channels_before,
                after=layer.channels_after,
                reason=layer.reason or "",
            )
            for layer in made.layers
        ),
    )
