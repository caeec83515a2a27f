"""The documents are true: what README shows runs, and the tables name what there is."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from skimage import data as photographs

from edgecnn import ModelSpec, PriorMap, WindowGeometry
from edgecnn.manifest import Manifest
from edgecnn.vision.opencv import cv2
from tests.paths import ROOT

README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Each ``edgecnn`` command of README's console blocks, without its comment."""
    lines = [line[2:].split("#")[0].strip() for block in blocks("console") for line in block.splitlines()]
    return [
        part.strip() for line in lines for part in line.split("&&") if part.strip().startswith("edgecnn ")
    ]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that README's examples name."""
    folder = tmp_path_factory.mktemp("readme")
    face = np.ascontiguousarray(photographs.astronaut()[:256, 100:356, ::-1])
    cv2.imwrite(str(folder / "photo.jpg"), face)
    (folder / "photos").mkdir()
    cv2.imwrite(str(folder / "photos" / "a.JPG"), face)
    for name in ("coffee", "chelsea", "rocket"):
        cv2.imwrite(str(folder / "photos" / f"{name}.jpg"), getattr(photographs, name)()[..., ::-1])
    (folder / "labelled" / "0").mkdir(parents=True)
    cv2.imwrite(str(folder / "labelled" / "0" / "a.jpg"), face)
    writer = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (160, 160))
    for step in range(3):
        writer.write(cv2.resize(face, (160, 160)) - np.uint8(step))
    writer.release()
    from torchvision.models import resnet18

    torch.manual_seed(0)
    torch.save(resnet18().state_dict(), folder / "net.pth")
    return folder


@pytest.mark.parametrize("command", commands())
def test_readme_commands(command: str, workplace: Path) -> None:
    words = [str(BIN / "edgecnn"), *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=workplace, capture_output=True, text=True, timeout=300)
    if "--camera" in command and not Path("/dev/video0").exists():
        assert done.returncode == 3, done.stderr
        assert "camera" in done.stderr
    else:
        assert done.returncode == 0, done.stderr


def test_readme_python(workplace: Path) -> None:
    (code,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=workplace, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("face ")


def test_readme_spec_is_one(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    (tmp_path / "spec.toml").write_text(text)
    assert ModelSpec.from_file(tmp_path / "spec.toml").window == WindowGeometry(stride=8, min_size=36)


def test_readme_links_lead_somewhere() -> None:
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "examples/face_detector/MODEL_CARD.md",
        "examples/kiosk/README.md",
        *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md")),
    ):
        text = (ROOT / name).read_text()
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert ((ROOT / name).parent / target).exists(), f"{name}: {target}"


def test_every_field_of_the_spec_is_documented() -> None:
    text = (ROOT / "docs" / "spec.md").read_text()
    for field in msgspec.structs.fields(ModelSpec):
        assert f"`{field.name}`" in text or f"`{field.name}." in text, field.name
    for field in msgspec.structs.fields(WindowGeometry):
        assert f"`window.{field.name}`" in text, field.name
    for field in msgspec.structs.fields(PriorMap):
        assert f"`priors.{field.name}`" in text, field.name


def test_every_field_of_the_manifest_is_documented() -> None:
    text = (ROOT / "docs" / "bundle.md").read_text()
    for field in msgspec.structs.fields(Manifest):
        assert f"`{field.name}`" in text, field.name


def test_demo_help_of_make() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True)
    assert "make demo" in done.stdout
    assert "make test" in done.stdout
