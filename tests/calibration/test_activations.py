"""Observing the tensors inside a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from edgecnn import Bundle
from edgecnn.calibration import Observer, observe
from edgecnn.calibration.activations import IMAGES_A_RUN
from edgecnn.errors import InputError, ModelError
from tests.calibration.nets import tiny_model


def images(*pixels: tuple[int, int]) -> npt.NDArray[np.uint8]:
    return np.array(pixels, np.uint8).reshape(-1, 1, 2, 1)


def test_inner_tensors_are_those_known_by_hand() -> None:
    seen = observe(tiny_model(), ["relu", "shifted", "scores"], [images((0, 7), (3, 4)), images((5, 5))])
    assert list(seen) == ["relu", "shifted", "scores"]
    extremes = {name: (each.low, each.high, each.n, each.zeros) for name, each in seen.items()}
    assert extremes == {"relu": (0, 4, 6, 2), "shifted": (-3, 4, 6, 1), "scores": (0, 2, 6, 2)}


def test_large_batches_are_cut_and_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    pixels = images(*[(i, 2 * i) for i in range(2 * IMAGES_A_RUN + 1)])
    seen = observe(tiny_model(), ["float"], [pixels], on_progress=lambda *figures: told.append(figures))
    assert told == [(IMAGES_A_RUN, 5), (2 * IMAGES_A_RUN, 5), (5, 5)]
    assert seen["float"].n == 10


def test_batches_may_come_one_by_one_from_an_iterator() -> None:
    told: list[tuple[int, int]] = []
    batches = (images((i, i)) for i in range(3))
    seen = observe(tiny_model(), ["float"], batches, on_progress=lambda *figures: told.append(figures))
    assert told == [(1, 0), (2, 0), (3, 0)]
    assert seen["float"].high == 2


def test_a_fixed_batch_leaves_out_what_does_not_fill_it() -> None:
    pixels = images((1, 1), (2, 2), (3, 3), (4, 4), (200, 200))
    assert observe(tiny_model(batch=4), ["float"], [pixels])["float"].high == 4
    with pytest.raises(InputError, match="fewer samples than the 8 that the model runs at once"):
        observe(tiny_model(batch=8), ["float"], [pixels])


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ("nothing", "nothing: no layer of the model makes such a tensor"),
        ("image", "image: no layer"),
        ("places", r"places \(layer ArgMax\): int64, not float32"),
    ],
)
def test_tensors_that_cannot_be_observed(tensor: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        observe(tiny_model(), [tensor], [images((0, 1))])


def test_values_that_are_not_finite_name_tensor_and_layer() -> None:
    with pytest.raises(ModelError, match=r"scores \(layer halve\): .* not finite"):
        observe(tiny_model(divisor=0), ["scores", "relu"], [images((0, 7))])


def test_samples_of_another_size_are_named() -> None:
    with pytest.raises(InputError, match="input image: shape"):
        observe(tiny_model(), ["relu"], [np.zeros((1, 9, 9, 3), np.uint8)])


def test_nothing_is_fused_away_in_a_real_network(photo_bundle: Path) -> None:
    """All convolutions are seen before their ReLU, as an engine without optimisations computes them."""
    model = Bundle(photo_bundle).read("model.onnx")
    proto = onnx.load_from_string(model)
    names = [node.output[0] for node in proto.graph.node if node.op_type == "Conv"]
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    seen = observe(model, names, [pixels], threads=1)
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.intra_op_num_threads = 1
    plain = onnxruntime.InferenceSession(
        proto.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    for name, values in zip(names, plain.run(names, {"image": pixels})):
        assert seen[name].low < 0
        assert (seen[name].low, seen[name].high) == pytest.approx((values.min(), values.max()), rel=1e-3)
        observer = Observer()
        observer.update(values)
        assert np.abs(observer.result().counts - seen[name].counts).sum() < 0.01 * values.size
