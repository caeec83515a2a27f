"""The house: folders, names, directions of imports, and what an installed wheel holds."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import edgecnn
from tests.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAPPED = {"converters", "runtimes", "calibration"}

# from the ground up: a module may import its own floor and the floors below
FLOORS = [
    {"errors", "paths", "progress"},
    {"schema", "places", "npz", "external_data", "signing", "packed_pixels", "plain_files"},
    {"isolation", "tensorrt_api", "cuda_api"},
    {"device_array"},
    {"spec", "results", "manifest", "bundle"},
    {"openvino_api"},
    {"devices", "vision", "metrics", "timing", "runtimes", "converters", "calibration", "pruning", "models"},
    {"engine_cache", "engines"},
    {"inference"},
    {"loading", "candidates", "choices", "auto", "parity", "reference", "datasets", "report"},
    {"still", "tiling", "tuning"},
    {"predictor", "evaluation", "verification"},
    {"first_result"},
    {"untrusted", "judging", "rungs", "draft", "compiled", "ladder", "reporting", "dense", "quantization"},
    {"pruned_model", "conversion"},
    {"stream"},
    {"web"},
    {"benchmarking"},
    {"cli", "__main__"},
]
# a method of the predictor hands its frames to the stream: a convenience of the public surface
AGAINST_THE_GRAIN = {("predictor", "stream")}
NEVER = {
    ("converters", "runtimes"),
    ("vision", "runtimes"),
    ("runtimes", "vision"),
    ("runtimes", "converters"),
}
CONVERSION_ONLY = {"converters", "conversion", "pruned_model", "pruning", "reference"}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for folder in ("edgecnn", *sorted(MAPPED)):
        base = ROOT / folder
        prefix = () if folder == "edgecnn" else (folder,)
        for path in base.rglob("*.py"):
            parts = (*prefix, *path.relative_to(base).with_suffix("").parts)
            found[".".join(p for p in parts if p != "__init__") or "edgecnn"] = path
    return found


def imports_of(path: Path, *, everywhere: bool) -> set[str]:
    """Modules of edgecnn that a file imports: at its top, or everywhere in it."""
    tree = ast.parse(path.read_text())
    nodes = list(ast.walk(tree)) if everywhere else tree.body
    names = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("edgecnn"):
            names |= {
                f"{node.module}.{alias.name}" if node.module == "edgecnn" else node.module
                for alias in node.names
            }
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.startswith("edgecnn")}
    return names


def floor_of(name: str) -> int:
    part = name.split(".")[0]
    return next(i for i, floor in enumerate(FLOORS) if part in floor)


def test_top_level_is_the_fixed_one() -> None:
    for name in ("pyproject.toml", "edgecnn", "converters", "runtimes", "calibration", "tests", "examples"):
        assert (ROOT / name).exists(), name


def test_every_module_stands_on_a_known_floor() -> None:
    unknown = {n.split(".")[0] for n in modules()} - set().union(*FLOORS) - {"edgecnn"}
    assert unknown == set()


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_point_down(name: str) -> None:
    if name == "edgecnn":
        assert imports_of(modules()[name], everywhere=False) == set()
        return
    here = name.split(".")[0]
    for target in imports_of(modules()[name], everywhere=True):
        if target.startswith("edgecnn.__"):
            continue
        there = target.removeprefix("edgecnn.").split(".")[0]
        if (here, there) in AGAINST_THE_GRAIN:
            continue
        assert floor_of(there) <= floor_of(here), f"{name} imports {target}"
        assert (here, there) not in NEVER, f"{name} imports {target}"


@pytest.mark.parametrize("name", sorted(modules()))
def test_torch_stays_on_the_conversion_side(name: str) -> None:
    if name.split(".")[0] in CONVERSION_ONLY or name == "runtimes.torch":
        return
    text = modules()[name].read_text()
    tree = ast.parse(text)
    assert 'require("torch' not in text, name
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not any(n.split(".")[0] in {"torch", "torchvision"} for n in names), name


def test_durations_are_not_taken_from_the_wall_clock() -> None:
    """It is set forward and back; those that name a moment may read it."""
    readers = {
        name
        for name, path in modules().items()
        if re.search(r"\btime\.time(_ns)?\(|\bdatetime\.now\(|import .*\btime_ns\b", path.read_text())
    }
    assert readers == {"benchmarking.summary", "draft", "stream.live", "tuning.choosing"}


def test_packages_listed_are_the_folders() -> None:
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    found = {"edgecnn"} | {f"edgecnn.{name}" for name in MAPPED}
    for folder in ("edgecnn", *sorted(MAPPED)):
        for path in (ROOT / folder).rglob("__init__.py"):
            parts = path.parent.relative_to(ROOT).parts
            found.add(".".join(parts if parts[0] == "edgecnn" else ("edgecnn", *parts)))
    assert listed == found


def test_public_names_are_the_contract() -> None:
    assert set(dir(edgecnn)) == set(edgecnn.__all__)
    assert all(getattr(edgecnn, name) is not None for name in edgecnn.__all__)


def test_functions_are_not_hidden_by_modules() -> None:
    for name in edgecnn.__all__:
        if name != "vision":
            assert name not in modules(), f"a module called {name} would hide edgecnn.{name}"


@pytest.mark.parametrize(
    "statement", ["import edgecnn", "import edgecnn.cli.main", "from edgecnn import ModelSpec"]
)
def test_import_loads_no_engine(statement: str) -> None:
    code = f"{statement}; import sys; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    loaded = set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )
    assert loaded & {"torch", "onnx", "onnxruntime", "openvino", "tensorrt", "cv2"} == set()


def test_prediction_loads_no_torch() -> None:
    code = (
        "import edgecnn, sys, numpy as np\n"
        "edgecnn.load('face', min_size=64)(np.zeros((64, 64, 3), np.uint8)); edgecnn.verify('face')\n"
        "print('torch' in sys.modules, 'onnx' in sys.modules, 'onnxruntime' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True"]


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        edgecnn.nonsense  # noqa: B018


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools would take up what an older build left in build/."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("edgecnn", *sorted(MAPPED)):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(copy)],
        check=True,
        capture_output=True,
    )
    return next(out.glob("*.whl"))


def test_wheel_holds_edgecnn_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    expected = {"edgecnn/py.typed"}
    for folder in ("edgecnn", *sorted(MAPPED)):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).parts
            expected.add("/".join(parts if folder == "edgecnn" else ("edgecnn", *parts)))
    expected |= {"edgecnn/report/template.html", "edgecnn/report/style.css"}
    expected |= {f"edgecnn/web/page.{kind}" for kind in ("html", "css", "js")}
    for path in (ROOT / "edgecnn" / "models").rglob("*.*"):
        if path.is_file():
            expected.add(path.relative_to(ROOT).as_posix())
    metadata = f"edgecnn-{edgecnn.__version__}.dist-info/"
    assert {name for name in names if not name.startswith(metadata)} == expected
    assert metadata + "METADATA" in names


def test_installed_wheel_finds_a_face(wheel: Path, tmp_path: Path) -> None:
    """The wheel in an environment of its own, where the sources cannot be imported by accident."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    site = next(home.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # the packages edgecnn stands on come from here, without the path hook of the editable install
    here = next(p for p in map(Path, sys.path) if p.name == "site-packages" and (p / "onnxruntime").is_dir())
    for path in here.iterdir():
        if "edgecnn" not in path.name and path.suffix != ".pth" and not (site / path.name).exists():
            (site / path.name).symlink_to(path)
    code = (
        "import edgecnn, edgecnn.converters, edgecnn.runtimes, edgecnn.calibration, skimage.data, sys\n"
        "assert 'site-packages' in edgecnn.runtimes.__file__ and 'venv' in edgecnn.__file__\n"
        "found = edgecnn.load('face')(skimage.data.astronaut()[..., ::-1].copy())\n"
        "assert 'torch' not in sys.modules\n"
        "print(len(found), *found.boxes[0].round())\n"
    )
    done = subprocess.run(
        [home / "bin" / "python", "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    count, x1, y1, x2, y2 = map(float, done.stdout.split())
    assert count >= 1
    # her face: about x 175..275, y 65..190
    assert 130 < x1 < 210
    assert 30 < y1 < 110
    assert 240 < x2 < 320
    assert 150 < y2 < 230
