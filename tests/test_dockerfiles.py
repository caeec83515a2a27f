"""The Dockerfiles as far as they can be read; tools/check_dockerfiles.py --run carries them out."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from fnmatch import fnmatch
from types import ModuleType
from typing import Any

import pytest

from tests.paths import ROOT

JETSON = "Dockerfile.jetson"
X86 = "tools/docker/Dockerfile.x86"
PAGE = (ROOT / "docs" / "containers.md").read_text()


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "check_dockerfiles", ROOT / "tools" / "check_dockerfiles.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


check = tool()


def build(path: str, **arguments: str) -> Any:
    return check.Build(ROOT / path, arguments)


def last(path: str, **arguments: str) -> Any:
    return [*build(path, **arguments).stages.values()][-1]


def values(steps: Any, word: str) -> list[str]:
    return [step.value for step in steps if step.word == word]


def test_continued_lines_and_comments() -> None:
    text = "# a comment\nARG A=1\nFROM base AS one\nRUN first \\\n # between\n && second\n\nUSER me\n"
    found = [(step.word, step.value, step.line) for step in check.parse(text)]
    assert found == [
        ("ARG", "A=1", 2),
        ("FROM", "base AS one", 3),
        ("RUN", "first && second", 4),
        ("USER", "me", 8),
    ]


@pytest.mark.parametrize(
    ("given", "base"), [({}, "jetpack6"), ({"JETPACK": "5"}, "jetpack5"), ({"JETPACK": "7"}, "jetpack7")]
)
def test_jetpack_chooses_the_base(given: dict[str, str], base: str) -> None:
    stages = build(JETSON, **given).stages
    assert last(JETSON, **given).base == base
    assert stages[base].base.startswith("nvcr.io/nvidia/")


@pytest.mark.parametrize("path", [JETSON, X86])
def test_every_copied_source_exists_and_is_sent(path: str) -> None:
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for stage in build(path).stages.values():
        for value in values(stage.steps, "COPY"):
            if value.startswith("--from="):
                assert value.split()[0].removeprefix("--from=") in build(path).stages
                continue
            for source in value.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert any(fnmatch(source, pattern) for pattern in sent), source


def test_the_wheel_is_made_of_what_setuptools_needs() -> None:
    folders = {"edgecnn", "converters", "runtimes", "calibration"}
    for path in (JETSON, X86):
        copied = {
            word for value in values(build(path).stages["wheel"].steps, "COPY") for word in value.split()
        }
        assert copied >= {*folders, "pyproject.toml", "README.md", "LICENSE"}


@pytest.mark.parametrize("path", [JETSON, X86])
def test_runs_as_a_user_who_may_use_cameras(path: str) -> None:
    steps = last(path).steps
    assert values(steps, "USER") == ["edgecnn"]
    words = [step.word for step in steps]
    assert "RUN" not in words[words.index("USER") :]
    assert any("--groups video edgecnn" in value for value in values(steps, "RUN"))


@pytest.mark.parametrize("path", [JETSON, X86])
def test_says_how_it_is(path: str) -> None:
    steps = last(path).steps
    assert [json.loads(value) for value in values(steps, "ENTRYPOINT")] == [["edgecnn"]]
    (health,) = values(steps, "HEALTHCHECK")
    assert json.loads(health.partition("CMD")[2]) == ["edgecnn", "doctor"]


@pytest.mark.parametrize("jetpack", ["6", "7"])
def test_nothing_of_jetpack_is_replaced(jetpack: str) -> None:
    stages = build(JETSON, JETPACK=jetpack).stages
    steps = [*stages[f"jetpack{jetpack}"].steps, *last(JETSON, JETPACK=jetpack).steps]
    ran = "\n".join(values(steps, "RUN"))
    assert not re.search(r"opencv-(contrib-)?python|\[cpu\]|\[tensorrt\]|onnxruntime", ran)
    assert "--system-site-packages" in ran
    assert "numpy<2" in ran


@pytest.mark.parametrize("path", [JETSON, X86])
def test_build_arguments_are_documented(path: str) -> None:
    for step in check.parse((ROOT / path).read_text()):
        if step.word == "ARG":
            assert f"`{step.value.partition('=')[0]}`" in PAGE
