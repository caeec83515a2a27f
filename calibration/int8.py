"""One network, observed once, written as INT8 for any placement and with any layers left in float."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgecnn.calibration.cache import observe_cached
from edgecnn.calibration.equalization import equalize
from edgecnn.calibration.layers import QuantLayer, quant_layers
from edgecnn.calibration.observers import Observation
from edgecnn.calibration.pixels import PIXELS, fold_pixels, pixel_params
from edgecnn.calibration.placement import Placement, is_symmetric, place, quantized_tensors
from edgecnn.calibration.rounding import Int8Weights, round_weights
from edgecnn.calibration.selection import AUTO, Selected, select_ranges
from edgecnn.converters.onnx_packed import pack_pixels
from edgecnn.errors import ModelError, require
from edgecnn.progress import OnWork, silent_work

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Int8Builder"]

# what is under way, how much of it is done, and how much there is


class Int8Builder:
    """Makes INT8 models of a canonical network.

    Attributes:
        layers: Those that can be in INT8, in the order of the network.
        observations: What was seen of each tensor that is quantised.
    """

    def __init__(
        self,
        model: bytes,
        images: npt.NDArray[np.uint8],
        *,
        method: str = AUTO,
        threads: int | None = None,
        on_work: OnWork | None = None,
    ) -> None:
        """Observe a network.

        Args:
            model: Canonical ONNX in float32.
            images: Calibration samples, uint8 (n, h, w, c) as the model takes them.
            method: How ranges are chosen: ``auto`` or the name of a recipe.
            threads: Threads of the engine; None is all processors.
            on_work: Called during long steps.

        Raises:
            ModelError: The network has no layer for INT8, or a value in it is not finite.
        """
        from onnx_ir.passes.common import LiftConstantsToInitializersPass

        onnx, graphs = require("onnx", "convert"), require("onnx_ir", "convert")
        self._network: ir.Model = graphs.from_proto(onnx.load_from_string(model))
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(self._network)
        fold_pixels(self._network)
        self._network = equalize(self._network, images, threads=threads)
        self._images = images
        self._method = method
        self._threads = threads
        self._work: OnWork = on_work or silent_work
        self.layers: tuple[QuantLayer, ...] = quant_layers(self._network)
        if not self.layers:
            raise ModelError(
                "nothing to quantise: the network has no Conv, Gemm or MatMul with constant weights"
            )
        folded: bytes = graphs.to_proto(self._network).SerializeToString()
        tensors = [name for name in quantized_tensors(self.layers) if name != PIXELS]
        self.observations: Mapping[str, Observation] = observe_cached(
            folded, tensors, images, threads=threads, on_progress=self._progress("observing")
        )
        self._selected: dict[bool, dict[str, Selected]] = {}
        self._weights: dict[bool, dict[str, Int8Weights]] = {}

    def build(self, placement: Placement, kept_float: Collection[str] = ()) -> bytes:
        """Write the network as INT8; see `edgecnn.calibration.placement.place`."""
        symmetric = is_symmetric(placement)
        params = {name: chosen.params for name, chosen in self.ranges(placement).items()}
        params[PIXELS] = pixel_params(symmetric=symmetric)
        if symmetric not in self._weights:
            self._weights[symmetric] = round_weights(
                self._network,
                self.layers,
                params,
                self._images,
                threads=self._threads,
                on_progress=self._progress(f"rounding weights for {placement}"),
            )
        model = place(
            self._network,
            self.layers,
            params,
            self._weights[symmetric],
            placement=placement,
            kept_float=kept_float,
        )
        return pack_pixels(model) if placement == "cpu" else model

    def ranges(self, placement: Placement) -> Mapping[str, Selected]:
        """The range of each tensor that a placement quantises, but for pixels: they are whole numbers."""
        symmetric = is_symmetric(placement)
        if symmetric not in self._selected:
            self._selected[symmetric] = select_ranges(
                self._network,
                list(self.observations),
                self.observations,
                self._images,
                method=self._method,
                symmetric=symmetric,
                threads=self._threads,
                on_progress=self._progress(f"choosing ranges for {placement}"),
            )
        return self._selected[symmetric]

    def _progress(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self._work(what, done, total)
