from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecnn import ModelSpec, WindowGeometry
from tests.bundles import write_mean_color


@pytest.fixture(scope="session")
def color_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classifies a frame by its mean colour."""
    spec = ModelSpec(
        task="classification", size_hw=(8, 8), activation="none", labels=("red", "green", "blue"), top_k=3
    )
    return write_mean_color(tmp_path_factory.mktemp("color") / "color.edge", spec).path


@pytest.fixture(scope="session")
def window_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finds windows of a bright colour."""
    spec = ModelSpec(
        task="window_detection",
        size_hw=(32, 32),
        activation="none",
        labels=("red", "green", "blue"),
        threshold=0.8,
        window=WindowGeometry(stride=16, scale_step=2.0),
    )
    return write_mean_color(tmp_path_factory.mktemp("window") / "window.edge", spec).path


@pytest.fixture(scope="session")
def color_onnx(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The mean-colour network as a plain ONNX file (float, N×C×H×W), and its spec."""
    from onnx import TensorProto, helper, numpy_helper

    folder = tmp_path_factory.mktemp("onnx")
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["pixels", "axes"], ["color"], keepdims=0)],
        "mean",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("color", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.array([2, 3]), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (folder / "mean.onnx").write_bytes(model.SerializeToString())
    spec = ModelSpec(
        task="classification", size_hw=(8, 8), activation="none", labels=("red", "green", "blue")
    )
    (folder / "mean.toml").write_text(spec.to_toml())
    return folder / "mean.onnx", folder / "mean.toml"
