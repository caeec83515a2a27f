"""Weights in other files are seen in the bytes of a model, wherever a tensor can stand."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper, numpy_helper

import edgecnn
from edgecnn.bundle import write_bundle
from edgecnn.errors import BundleError
from edgecnn.external_data import external_tensor
from edgecnn.spec import ModelSpec
from tests.bundles import mean_color_model, write_mean_color

SPEC = ModelSpec(task="tensors", size_hw=(8, 8))


def outside(name: str = "weight") -> TensorProto:
    """A tensor whose values are to be read from another file."""
    tensor = TensorProto(name=name, dims=[1], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    return tensor


def holding(place: str, tensor: TensorProto) -> ModelProto:
    """A model with a tensor at one of the places where ONNX lets one stand."""
    model = ModelProto.FromString(mean_color_model(SPEC))
    node = model.graph.node[0]
    inner = GraphProto(initializer=[tensor])
    if place == "initializer":
        model.graph.initializer.append(tensor)
    elif place == "sparse values":
        model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    elif place == "sparse indices":
        model.graph.sparse_initializer.add().indices.CopyFrom(tensor)
    elif place == "attribute":
        node.attribute.add(name="a", type=AttributeProto.TENSOR).t.CopyFrom(tensor)
    elif place == "attributes":
        node.attribute.add(name="a", type=AttributeProto.TENSORS).tensors.append(tensor)
    elif place == "subgraph":
        node.attribute.add(name="a", type=AttributeProto.GRAPH).g.CopyFrom(inner)
    elif place == "subgraphs":
        node.attribute.add(name="a", type=AttributeProto.GRAPHS).graphs.append(inner)
    elif place == "function":
        function = model.functions.add(name="f")
        function.node.add(op_type="Constant").attribute.add(name="value").t.CopyFrom(tensor)
    elif place == "default of a function":
        model.functions.add(name="f").attribute_proto.add(name="a").t.CopyFrom(tensor)
    else:
        model.training_info.add().algorithm.CopyFrom(inner)
    return model


PLACES = [
    "initializer",
    "sparse values",
    "sparse indices",
    "attribute",
    "attributes",
    "subgraph",
    "subgraphs",
    "function",
    "default of a function",
    "training",
]


@pytest.mark.parametrize("place", PLACES)
def test_it_is_seen_wherever_a_tensor_can_stand(place: str) -> None:
    own = numpy_helper.from_array(np.float32([1]), "weight")
    assert external_tensor(holding(place, own).SerializeToString()) is None
    assert external_tensor(holding(place, outside()).SerializeToString()) == "weight"


def test_either_of_its_marks_is_enough() -> None:
    for field in ("data_location", "external_data"):
        tensor = outside("")
        tensor.ClearField(field)
        assert external_tensor(holding("initializer", tensor).SerializeToString()) == ""


@given(st.binary(max_size=200))
def test_other_bytes_are_no_protobuf_or_hold_none(data: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(external_tensor(data), (str, type(None)))


def test_graphs_in_graphs_are_followed_without_recursion() -> None:
    node = helper.make_node("If", ["x"], ["y"])
    graph = GraphProto(initializer=[outside("deepest")])
    for _ in range(30):  # protobuf itself ends at a depth of 100 messages
        node.ClearField("attribute")
        node.attribute.add(name="then_branch", type=AttributeProto.GRAPH).g.CopyFrom(graph)
        graph = GraphProto(node=[node])
    assert external_tensor(ModelProto(graph=graph).SerializeToString()) == "deepest"


@pytest.mark.parametrize("location", ["secret.bin", "../secret.bin", "/etc/passwd"])
def test_a_bundle_never_opens_another_file(
    tmp_path: Path, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even one that lies where the program runs, which is where an engine would look."""
    monkeypatch.chdir(tmp_path)
    Path("secret.bin").write_bytes(np.float32([2]).tobytes())
    bundle = write_mean_color(tmp_path / "a.edge", SPEC)
    tensor = outside()
    tensor.external_data[0].value = location
    with write_bundle(bundle.path) as writer:
        writer.add("model.onnx", holding("initializer", tensor).SerializeToString())

        writer.finish(msgspec.structs.replace(bundle.manifest, files=writer.files))
    with pytest.raises(
        BundleError, match=r"a\.edge/model\.onnx: the weights \('weight'\) are in another file"
    ):
        edgecnn.open_model(bundle.path, runtime="ort")
