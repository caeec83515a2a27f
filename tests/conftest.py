"""Fixtures that several tests share because they take seconds to make."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import edgecnn
from tests import int8
from tests.paths import leave_out
from tests.shapes import SPEC, train_shapes_net
from tests.stream.small_disk import mounted

# tiny networks: torch's threads would wait for one another longer than they compute
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of the tests' own; and one runtime for all that do not ask: measuring each bundle takes long."""
    settings = {"EDGECNN_CACHE": str(tmp_path_factory.mktemp("cache")), "EDGECNN_RUNTIME": "ort"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def shapes_module() -> torch.nn.Module:
    """The trained network of drawn shapes."""
    return train_shapes_net()


@pytest.fixture(scope="session")
def shapes_bundle(shapes_module: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle made from it."""
    path = tmp_path_factory.mktemp("shapes") / "shapes.edge"
    edgecnn.convert(shapes_module, spec=SPEC, out=path)
    return path


@pytest.fixture(scope="session")
def photo_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A torchvision classifier with random weights."""
    path = tmp_path_factory.mktemp("photo") / "squeeze.edge"
    edgecnn.convert("torchvision:squeezenet1_1", out=path, samples=4)
    return path


@pytest.fixture(scope="session")
def two_scales_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a network whose head INT8 breaks."""
    path = tmp_path_factory.mktemp("int8") / "two_scales.edge"
    edgecnn.convert(int8.TwoScales(), spec=int8.SPEC, out=path, calibration=int8.frames())
    return path


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for six megabytes."""
    try:
        with mounted(tmp_path / "disk", 6) as folder:
            yield folder
    except OSError as error:
        leave_out("disk", str(error))


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """Commands set up the log; the next test finds it as it was."""
    logger = logging.getLogger("edgecnn")
    before = (logger.level, logger.propagate, list(logger.handlers))
    yield
    logger.setLevel(before[0])
    logger.propagate, logger.handlers = before[1], before[2]
