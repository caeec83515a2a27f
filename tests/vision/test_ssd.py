"""SSD heads: priors and boxes by hand, torchvision's own answers, and what was encoded comes back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn import ModelSpec, PriorMap
from edgecnn.errors import InputError
from edgecnn.vision import SSD_VARIANCES, decode_detections, decode_ssd, encode_offsets, prior_boxes
from edgecnn.vision.boxes import as_boxes


def test_priors_by_hand() -> None:
    priors = prior_boxes((32, 48), 16, [(10, 20), (8, 4)])
    assert priors.shape == (2 * 3 * 2, 4)
    assert priors[:3].tolist() == [[3, -2, 13, 18], [4, 6, 12, 10], [19, -2, 29, 18]]
    assert priors[-1].tolist() == [36, 22, 44, 26]


@pytest.mark.parametrize(("cells", "size"), [(3, 320), (7, 300), (19, 300), (20, 320)])
def test_a_stride_that_is_not_whole_has_as_many_cells(cells: int, size: int) -> None:
    assert len(prior_boxes((size, size), size / cells, [(5, 5)])) == cells**2


def test_boxes_by_hand() -> None:
    boxes, scores = decode_ssd([[1, 0, 5 * np.log(2), 0]], [[0.1, 0.9]], [[0, 0, 10, 20]])
    np.testing.assert_allclose(boxes, [[-4, 0, 16, 20]], atol=1e-6)
    assert scores.tolist() == [[0.1, 0.9]]


@given(st.integers(0, 2**32 - 1))
def test_encoded_boxes_come_back(seed: int) -> None:
    rng, priors = np.random.default_rng(seed), prior_boxes((64, 96), 32, [(20, 30), (40, 10)])
    boxes = rng.uniform(0, 64, priors.shape)
    boxes[:, 2:] = boxes[:, :2] + rng.uniform(1, 64, (len(boxes), 2))
    scores = rng.uniform(size=(len(boxes), 3))
    found, same = decode_ssd(encode_offsets(boxes, priors, SSD_VARIANCES), scores, priors)
    np.testing.assert_allclose(found, boxes, atol=1e-6)
    np.testing.assert_array_equal(same, scores)


def test_boxes_are_those_of_torchvision() -> None:
    """SSDLite on 320 px: its priors level by level, and its coder's boxes of random locations."""
    torch = pytest.importorskip("torch")
    from torchvision.models.detection._utils import BoxCoder
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.image_list import ImageList

    generator = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
    maps = [torch.zeros(1, 1, cells, cells) for cells in (20, 10, 5, 3, 2, 1)]
    [expected] = generator(ImageList(torch.zeros(1, 3, 320, 320), [(320, 320)]), maps)
    # it makes no prior larger than the input
    sizes = [np.minimum(pairs.numpy(), 1) * 320 for pairs in generator._wh_pairs]
    levels = [prior_boxes((320, 320), 320 / len(m[0, 0]), wh.tolist()) for m, wh in zip(maps, sizes)]
    priors = np.concatenate(levels)
    assert len(priors) == 3234
    np.testing.assert_allclose(priors, expected.numpy(), atol=1e-3)
    locations = np.random.default_rng(0).normal(size=(3234, 4)).astype(np.float32)
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    boxes, _ = decode_ssd(locations, np.zeros((3234, 2)), priors)
    decoded = coder.decode_single(torch.from_numpy(locations), torch.from_numpy(priors))
    np.testing.assert_allclose(boxes, decoded.numpy(), atol=1e-2)


def test_refusals() -> None:
    with pytest.raises(InputError, match=r"2 locations and class scores of shape \(2, 3\) for 1 priors"):
        decode_ssd(np.zeros((2, 4)), np.zeros((2, 3)), [[0, 0, 5, 5]])
    with pytest.raises(InputError, match="priors need sizes, a stride and an input size"):
        prior_boxes((10, 10), 0, [(1, 1)])
    with pytest.raises(InputError, match="priors need sizes, a stride and an input size"):
        prior_boxes((10, 10), 2, [])


def test_detections_are_those_of_torchvision() -> None:
    """The same raw head through torchvision's own postprocessing: boxes, scores and classes."""
    torch = pytest.importorskip("torch")
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    model = ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4, score_thresh=0.3, nms_thresh=0.55
    )
    pairs = [np.minimum(wh.numpy(), 1) * 320 for wh in model.anchor_generator._wh_pairs]
    maps = tuple(
        PriorMap(stride=320 / cells, sizes_wh=tuple(map(tuple, wh.tolist())))
        for cells, wh in zip((20, 10, 5, 3, 2, 1), pairs)
    )
    priors = np.concatenate([prior_boxes((320, 320), each.stride, each.sizes_wh) for each in maps])
    rng = np.random.default_rng(1)
    locations = rng.normal(size=(len(priors), 4)).astype(np.float32)
    logits = torch.from_numpy(rng.normal(scale=2, size=(len(priors), 4)).astype(np.float32))
    # few places hold anything: no class has more candidates than torchvision looks at
    logits[rng.uniform(size=len(priors)) < 0.9, 0] += 20
    raw = {"bbox_regression": torch.from_numpy(locations)[None], "cls_logits": logits[None]}
    [expected] = model.postprocess_detections(raw, [torch.from_numpy(priors)], [(320, 320)])
    spec = ModelSpec(
        task="detection",
        decoder="ssd",
        size_hw=(320, 320),
        activation="softmax",
        background=0,
        multi_label=True,
        threshold=0.3,
        nms_iou=0.55,
        priors=maps,
    )
    outputs = {"scores": logits.softmax(-1).numpy(), "locations": locations}
    found = decode_detections(outputs, spec, as_boxes, (320, 320))
    assert 50 < len(found) < 300
    np.testing.assert_array_equal(found.class_ids, expected["labels"].numpy())
    np.testing.assert_allclose(found.scores, expected["scores"].numpy(), atol=1e-6)
    np.testing.assert_allclose(found.boxes, expected["boxes"].numpy(), atol=1e-2)
