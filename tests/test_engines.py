"""Engines of this device: which one fits, what is kept, what is never loaded, and who answers meanwhile.

TensorRT for RTX builds them for real. Without a GPU none can be loaded, and that is what is seen then.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgecnn.engine_cache import EngineCache, Recipe, Target, fits_here, target_here
from edgecnn.engines import ServedMeanwhile, open_on_tensorrt
from edgecnn.errors import (
    DeviceUnavailable,
    EngineError,
    InputError,
    MissingDependency,
    ModelError,
    Unavailable,
)
from edgecnn.runtimes import Artifact, Runtime, RuntimeOptions, backend
from tests.gpu import gpu, long_model, small_model, without_gpu
from tests.paths import ROOT, engine

trt = engine("tensorrt_rtx_bindings")
engine("cuda.bindings.runtime")

HERE = Target(flavor="tensorrt_rtx", tensorrt=trt.__version__, compute_capability="8.9")
SMALL = Artifact("onnx", small_model(), "small.onnx")
RECIPE = Recipe(onnx_sha256="0" * 64, precision="fp32", batches=(1, 1, 8), target=HERE)
IMAGE = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)
SUMS = [[6], [22]]
BUILT = "TensorRT built its engine"


def on_ort(model: bytes = SMALL.content) -> Runtime:
    return backend("ort")(Artifact("onnx", model, "small.onnx"), RuntimeOptions(threads=1))


def open_small(folder: Path, on_stale: Any = "wait", **options: Any) -> Runtime:
    here = RuntimeOptions(cache=folder, threads=1)
    choices = {"target": HERE, "fallback": on_ort, **options}
    return open_on_tensorrt(SMALL, here, on_stale=on_stale, **choices)


def build_small(folder: Path) -> Path:
    """Build and keep; that it cannot be loaded without a GPU is another matter."""
    with pytest.raises(DeviceUnavailable, match="no NVIDIA GPU"):
        open_small(folder)
    (path,) = (folder / "tensorrt").glob("*.engine")
    return path


def children() -> list[str]:
    """Living processes that this one started."""
    found = subprocess.run(
        ["ps", "--no-headers", "-o", "pid,stat,args", "--ppid", str(os.getpid())],
        capture_output=True,
        text=True,
    )
    return [line for line in found.stdout.splitlines() if "edgecnn.isolation" in line]


def builders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "edgecnn-engine"]


def wait_for(what: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    yield
    wait_for(lambda: not children())
    assert not builders()


# which engine


def variants() -> dict[str, Recipe]:
    replace = msgspec.structs.replace
    changed: dict[str, Recipe] = {
        "onnx": replace(RECIPE, onnx_sha256="1" * 64),
        "precision": replace(RECIPE, precision="fp16"),
        "least": replace(RECIPE, batches=(2, 2, 8)),
        "usual": replace(RECIPE, batches=(1, 4, 8)),
        "most": replace(RECIPE, batches=(1, 1, 64)),
    }
    for name, value in {
        "flavor": "tensorrt", "tensorrt": "10.3.0", "compute_capability": "8.7", "l4t": "36.4.3"
    }.items():  # fmt: skip
        changed[name] = replace(RECIPE, target=replace(HERE, **{name: value}))
    return changed


@pytest.mark.parametrize("name", variants())
def test_key_changes_with(name: str) -> None:
    assert variants()[name].key != RECIPE.key


def test_key_is_the_same_for_the_same() -> None:
    assert msgspec.json.decode(msgspec.json.encode(RECIPE), type=Recipe).key == RECIPE.key


def test_engine_of_this_device_fits() -> None:
    requires = {"flavor": "tensorrt_rtx", "tensorrt": trt.__version__, "compute_capability": "8.9"}
    assert fits_here({**requires, "precision": "int8", "profile": "1,4,8"}, HERE) is None


@pytest.mark.parametrize(
    ("requires", "reason"),
    [
        ({"compute_capability": "8.6"}, f"tensorrt_rtx {trt.__version__} and compute capability 8.6"),
        ({"tensorrt": "1.2.0"}, "tensorrt_rtx 1.2.0 and compute capability 8.9"),
        ({"flavor": "tensorrt"}, f"tensorrt {trt.__version__} and compute capability 8.9"),
    ],
)
def test_other_engines_do_not_fit(requires: dict[str, str], reason: str) -> None:
    fitting = {"flavor": "tensorrt_rtx", "tensorrt": trt.__version__, "compute_capability": "8.9"}
    here = msgspec.structs.replace(HERE, l4t="36.4.3")
    assert fits_here({**fitting, **requires}, here) == (
        f"built for {reason}; here is {HERE} on Jetson Linux 36.4.3"
    )


def test_engine_of_unknown_origin_does_not_fit() -> None:
    assert "built for unknown unknown" in str(fits_here({}, HERE))


def test_without_a_gpu_no_engine_fits() -> None:
    without_gpu()
    assert str(fits_here({})).startswith("no NVIDIA GPU can be used here (")
    with pytest.raises(DeviceUnavailable, match="no NVIDIA GPU can be used here"):
        target_here()


# what is kept


def test_engine_is_built_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    without_gpu()
    caplog.set_level(logging.INFO, "edgecnn.engines")
    path = build_small(tmp_path)
    status = path.stat()
    assert build_small(tmp_path).stat() == status
    assert caplog.text.count(BUILT) == 1
    assert {file.name for file in path.parent.iterdir()} == {path.name, path.with_suffix(".json").name}
    assert path.parent.stat().st_mode & 0o077 == 0
    kept = json.loads(path.with_suffix(".json").read_bytes())
    assert kept["recipe"]["target"]["compute_capability"] == "8.9"
    assert 0 < kept["build_s"] < 60


def test_another_profile_is_another_engine(tmp_path: Path) -> None:
    without_gpu()
    build_small(tmp_path)
    with pytest.raises(DeviceUnavailable):
        open_small(tmp_path, batches=(1, 4, 16))
    assert len(list((tmp_path / "tensorrt").glob("*.engine"))) == 2


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit(path: Path) -> None:
    sidecar = path.with_suffix(".json")
    sidecar.write_text(sidecar.read_text().replace('"8.9"', '"8.6"'))


ALTERED: dict[str, Callable[[Path], object]] = {
    "one bit": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "empty": lambda path: path.write_bytes(b""),
    "of another device": edit,
    "no sidecar": lambda path: path.with_suffix(".json").unlink(),
    "junk sidecar": lambda path: path.with_suffix(".json").write_bytes(b"\xff{"),
    "open to others": lambda path: path.parent.chmod(0o777),
}


@pytest.mark.parametrize("how", ALTERED)
def test_altered_engines_are_built_again(how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    without_gpu()
    caplog.set_level(logging.INFO, "edgecnn.engines")
    path = build_small(tmp_path)
    ALTERED[how](path)
    caplog.clear()
    build_small(tmp_path)
    assert BUILT in caplog.text
    if how != "open to others":
        caplog.clear()
        build_small(tmp_path)
        assert BUILT not in caplog.text, "what was built again was not kept"


def test_unwritable_cache_is_no_obstacle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    without_gpu()
    (tmp_path / "file").touch()
    with pytest.raises(DeviceUnavailable):
        open_small(tmp_path / "file")
    assert "the engine cannot be kept, and is built each time" in caplog.text


def test_cache_gives_what_it_got(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "engines")
    assert cache.get(RECIPE) is None
    cache.put(RECIPE, b"engine", 1.5)
    assert cache.get(RECIPE) == b"engine"
    assert cache.get(variants()["onnx"]) is None


def test_nothing_is_built_where_that_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        Unavailable, match=r"small\.onnx: .* holds no engine of it for tensorrt_rtx .* and compute"
    ):
        open_small(tmp_path, "error")
    assert not (tmp_path / "tensorrt").exists()


def test_models_that_tensorrt_refuses(tmp_path: Path) -> None:
    junk = Artifact("onnx", b"junk", "junk.onnx")
    with pytest.raises(ModelError):
        open_on_tensorrt(junk, RuntimeOptions(cache=tmp_path), fallback=on_ort, on_stale="wait", target=HERE)
    assert not (tmp_path / "tensorrt").exists()


# who answers meanwhile


def test_fallback_answers_and_stays_without_a_gpu(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    without_gpu()
    caplog.set_level(logging.INFO, "edgecnn.engines")
    with open_small(tmp_path, "serve") as model:
        assert isinstance(model, ServedMeanwhile)
        assert model.facts == {**on_ort().facts, "tensorrt": "being built; ort answers meanwhile"}
        runs = 0
        while model.facts["tensorrt"].startswith("being built") or runs < 3:
            assert model.run({"image": IMAGE})["sum"].tolist() == SUMS
            runs += 1
        assert model.facts["tensorrt"].startswith("not used: no NVIDIA GPU can be used here")
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO", "WARNING"]
    assert "stays with ort, since TensorRT cannot be used: no NVIDIA GPU" in caplog.text
    assert len(list((tmp_path / "tensorrt").glob("*.engine"))) == 1, "the build itself was done"


def test_fallback_stays_where_tensorrt_refuses_the_model(tmp_path: Path) -> None:
    odd = Artifact("onnx", small_model().replace(b"Flatten", b"Flattex"), "odd.onnx")
    options = RuntimeOptions(cache=tmp_path)
    with open_on_tensorrt(odd, options, fallback=on_ort, target=HERE) as model:
        wait_for(lambda: model.facts["tensorrt"].startswith("not used: "))
        assert model.run({"image": IMAGE})["sum"].tolist() == SUMS


def test_batches_are_those_of_the_engine_from_the_start(tmp_path: Path) -> None:
    with (
        open_small(tmp_path, "serve") as model,
        pytest.raises(InputError, match="9×2×2×1, the engine was built"),
    ):
        model.run({"image": np.zeros((9, 2, 2, 1), np.uint8)})


def test_without_onnx_runtime_the_engine_is_built_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    without_gpu()

    def missing() -> Runtime:
        raise MissingDependency("onnxruntime could not be imported")

    with pytest.raises(DeviceUnavailable, match="no NVIDIA GPU"):
        open_small(tmp_path, "serve", fallback=missing)
    assert "TensorRT builds its engine first, since onnxruntime could not be imported" in caplog.text
    assert len(list((tmp_path / "tensorrt").glob("*.engine"))) == 1


@pytest.mark.parametrize("on_stale", ["serve", "wait", "error"])
def test_a_kept_engine_that_fails_to_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, on_stale: str
) -> None:
    """It is as it was, so another one would fail as well."""
    without_gpu()
    build_small(tmp_path)

    def full(*arguments: object) -> Runtime:
        raise EngineError("small.onnx: cudaMalloc failed: cudaErrorMemoryAllocation")

    monkeypatch.setattr("edgecnn.engines.Backend", full)
    if on_stale == "serve":
        with open_small(tmp_path, on_stale) as model:
            assert model.run({"image": IMAGE})["sum"].tolist() == SUMS
        assert "cudaMalloc failed" in caplog.text
    else:
        with pytest.raises(EngineError, match="cudaMalloc failed"):
            open_small(tmp_path, on_stale)


def test_switch_is_between_two_runs() -> None:
    """To another network, so that each answer shows who gave it."""
    ready = threading.Event()
    other = small_model().replace(b"\x02Add", b"\x02Mul").replace(b"Add", b"Mul")

    def make(cancelled: object) -> Runtime:
        ready.wait(10)
        return on_ort(other)

    seen: list[list[list[float]]] = []

    def run() -> None:
        while len(seen) < 400:
            answer = model.run({"image": IMAGE})
            assert answer["sum"].tolist() == SUMS
            seen.append(answer["twice"].tolist())
            if len(seen) == 200:
                ready.set()

    with ServedMeanwhile(SMALL, RuntimeOptions(), on_ort, make, (1, 1, 8)) as model:
        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_for(lambda: model.facts["tensorrt"] == "in use")
        seen.append(model.run({"image": IMAGE})["twice"].tolist())
    twice, squared = [[0, 2, 4, 6], [8, 10, 12, 14]], [[0, 1, 4, 9], [16, 25, 36, 49]]
    assert all(answer in (twice, squared) for answer in seen)
    assert seen[0] == twice
    assert seen[-1] == squared


def test_what_is_not_used_any_more_is_let_go(tmp_path: Path) -> None:
    """Also where it was not closed."""
    model = weakref.ref(open_small(tmp_path, "serve"))
    wait_for(lambda: not builders())
    gc.collect()
    assert model() is None


def test_closing_ends_the_build(tmp_path: Path) -> None:
    big = Artifact("onnx", long_model(150), "long.onnx")
    model = open_on_tensorrt(
        big, RuntimeOptions(cache=tmp_path, threads=1), fallback=lambda: on_ort(big.content), target=HERE
    )
    wait_for(children)
    start = time.monotonic()
    model.close()
    model.close()
    assert time.monotonic() - start < 3
    assert children() == []
    assert not list(tmp_path.rglob("*.*"))
    with pytest.raises(InputError, match="was closed"):
        model.run({"image": np.zeros((1, 8, 8, 1), np.uint8)})


PROGRAM = """
import os, sys, time
from pathlib import Path
from edgecnn.engine_cache import Target
from edgecnn.engines import open_on_tensorrt
from edgecnn.runtimes import Artifact, RuntimeOptions, backend
from tests.gpu import long_model

big = Artifact("onnx", long_model(150), "long.onnx")
here = Target(flavor="tensorrt_rtx", tensorrt="{version}", compute_capability="8.9")
model = open_on_tensorrt(
    big, RuntimeOptions(cache=Path(sys.argv[1])), fallback=lambda: backend("ort")(big), on_stale=sys.argv[2], target=here
)
while not list(Path(os.environ["TMPDIR"]).glob("edgecnn-*/payload")):
    time.sleep(0.01)
"""


@pytest.mark.parametrize("on_stale", ["wait", "serve"])
def test_programs_that_end_leave_nothing(on_stale: str, tmp_path: Path) -> None:
    """One by Ctrl-C while it waits, one by itself while TensorRT builds."""
    scratch, cache = tmp_path / "scratch", tmp_path / "cache"
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(version=trt.__version__), str(cache), on_stale],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(scratch), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    if on_stale == "wait":
        wait_for(lambda: list(scratch.rglob("payload")))
        process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == (-signal.SIGINT if on_stale == "wait" else 0), said.decode()
    assert not list(scratch.glob("edgecnn-*"))
    assert not list(cache.rglob("*"))
    started = f"edgecnn.isolation .* {process.pid} "
    left = subprocess.run(["pgrep", "-f", started], capture_output=True, text=True)
    assert left.stdout == ""


# on a GPU


def test_engine_of_this_gpu_answers(tmp_path: Path) -> None:
    gpu()
    for _ in range(2):
        with open_small(tmp_path, target=None) as model:
            assert model.run({"image": IMAGE})["sum"].tolist() == SUMS


def test_gpu_takes_over(tmp_path: Path) -> None:
    gpu()
    with open_small(tmp_path, "serve", target=None) as model:
        wait_for(lambda: model.facts["tensorrt"] == "in use", 60)
        assert model.run({"image": IMAGE})["sum"].tolist() == SUMS
        assert model.facts["device"].startswith("GPU of compute capability")
