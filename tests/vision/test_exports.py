from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import edgecnn.vision
from tests.paths import ROOT


@pytest.mark.parametrize("name", edgecnn.vision.__all__)
def test_public_names_load(name: Any) -> None:
    assert getattr(edgecnn.vision, name) is not None


def test_listing_shows_the_public_names_only() -> None:
    assert dir(edgecnn.vision) == sorted(edgecnn.vision.__all__)


def test_no_module_hides_a_public_name() -> None:
    modules = {path.stem for path in Path(ROOT, "edgecnn/vision").glob("*.py")}
    assert not modules & set(edgecnn.vision.__all__)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nsm'"):
        edgecnn.vision.nsm  # noqa: B018


def test_import_loads_no_opencv() -> None:
    code = "import edgecnn.vision, sys; assert 'cv2' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "path", sorted(Path(ROOT, "edgecnn/vision").glob("*.py")), ids=lambda path: path.stem
)
def test_modules_declare_what_they_offer(path: Any) -> None:
    if path.stem == "__init__":
        module = edgecnn.vision
    else:
        module = importlib.import_module(f"edgecnn.vision.{path.stem}")
    assert all(hasattr(module, name) for name in module.__all__)
