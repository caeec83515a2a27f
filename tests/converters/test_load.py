"""Every form in which a model and its weights can be given, and what is wrong with those that cannot."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import re
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgecnn.converters import canonical, load_model
from edgecnn.converters.load import FORCE_WEIGHTS_ONLY, _weights_only
from edgecnn.errors import ModelError
from edgecnn.spec import ModelSpec
from tests import models
from tests.converters.helpers import check_parity, images

NET = """\
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.fc = nn.Linear(12, classes)

    def forward(self, x):
        return self.fc(x.flatten(1))

def sized(classes):
    return Net(classes)

def broken():
    return nn.Linear(3, undefined_name)

def leaves():
    raise SystemExit("bye")

def wrong():
    return {"net": Net()}

net = Net()
number = 3
"""


@pytest.fixture
def net_file(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


def _refused(model: Any, weights: Any = None) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(model, weights)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- models


def test_module_is_copied_and_left_as_it_was() -> None:
    net = models.flat_net().double().train()
    loaded = load_model(net)
    assert loaded.module is not None
    assert loaded.module is not net
    assert next(loaded.module.parameters()).dtype == torch.float32
    assert next(net.parameters()).dtype == torch.float64
    assert net.training
    assert (loaded.kind, loaded.name, loaded.default_spec) == ("torch", "sequential", None)
    assert loaded.provenance == {
        "model": "torch.nn.modules.container.Sequential",
        "weights": "as given",
        "torch": torch.__version__,
    }


@pytest.mark.parametrize("factory", ["Net", "net"])
def test_factory_in_a_file(net_file: Path, factory: str) -> None:
    loaded = load_model(f"{net_file}:{factory}")
    assert type(loaded.module).__name__ == "Net"
    assert loaded.name == "net"
    assert loaded.provenance["model"] == f"{net_file}:{factory}"
    spec = ModelSpec(task="classification", size_hw=(2, 2))
    check_parity(canonical(loaded, spec), images(spec))


def test_factory_in_a_module_of_the_current_directory(
    net_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net_file.rename(net_file.with_name("my_nets_for_test.py"))
    monkeypatch.chdir(net_file.parent)
    assert type(load_model("my_nets_for_test:Net").module).__name__ == "Net"


def test_file_may_import_what_lies_beside_it(net_file: Path) -> None:
    (net_file.parent / "user.py").write_text("from net import Net\n\ndef make():\n    return Net(5)\n")
    loaded = load_model(f"{net_file.parent / 'user.py'}:make")
    assert loaded.module is not None
    assert loaded.module.fc.out_features == 5


def test_module_of_the_users_code_is_copied(net_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net_file.with_name("live_net_for_test.py").write_text(NET + "net = net.double().train()\n")
    monkeypatch.syspath_prepend(net_file.parent)
    loaded = load_model("live_net_for_test:net")
    theirs = sys.modules["live_net_for_test"].net
    assert loaded.module is not theirs
    assert loaded.module is not None
    assert next(loaded.module.parameters()).dtype == torch.float32
    weight = theirs.fc.weight
    assert (weight.dtype, weight.requires_grad, theirs.training) == (torch.float64, True, True)


HELPER = """\
from dataclasses import dataclass
import torch
from torch import nn
from parts import SIZE

class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, SIZE)

    def forward(self, x):
        return self.fc(x.flatten(1))
"""


def test_each_folder_has_helpers_of_its_own(tmp_path: Path) -> None:
    """Two models, each with a helper.py and a package parts beside it; the classes still export."""
    spec = ModelSpec(task="classification", size_hw=(2, 2))
    before = set(sys.modules)
    loaded = []
    for size in (3, 5):
        folder = tmp_path / str(size)
        (folder / "parts").mkdir(parents=True)
        (folder / "parts" / "__init__.py").write_text("from parts.sizes import SIZE\n")
        (folder / "parts" / "sizes.py").write_text(f"SIZE = {size}\n")
        (folder / "helper.py").write_text(HELPER)
        (folder / "net.py").write_text("from helper import Head\n\ndef make():\n    return Head()\n")
        loaded.append(load_model(f"{folder / 'net.py'}:make"))
    for one, size in zip(loaded, (3, 5)):
        assert check_parity(canonical(one, spec), images(spec))["scores"].shape == (2, size)
    assert not {"helper", "parts", "parts.sizes"} & (set(sys.modules) - before)
    assert len({type(one.module) for one in loaded}) == 2


def test_helpers_that_the_program_has_itself_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_helper_for_test.py").write_text("from torch.nn import Flatten\n")
    (tmp_path / "net.py").write_text("from own_helper_for_test import Flatten\n")
    monkeypatch.syspath_prepend(tmp_path)
    load_model(f"{tmp_path / 'net.py'}:Flatten")
    assert "own_helper_for_test" in sys.modules


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("nett", r"net\.py: has no 'nett'; did you mean net\?$"),
        (
            "sized",
            r"net\.py:sized: needs classes, but a factory is called without arguments; name a function",
        ),
        ("broken", r"net\.py:16: NameError: name 'undefined_name' is not defined$"),
        ("leaves", r"net\.py:19: SystemExit: bye$"),
        ("wrong", r"net\.py:wrong: gave a dict, a factory returns a torch\.nn\.Module$"),
        ("number", r"net\.py:number: a int, not a function that makes the model$"),
    ],
)
def test_factory_that_makes_no_model(net_file: Path, factory: str, message: str) -> None:
    assert re.search(message, _refused(f"{net_file}:{factory}"))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1\ndef make(:\n", r"net\.py:2: SyntaxError: invalid syntax"),
        ("import torch\nimport no_such_package_here\n", r"net\.py:2: ModuleNotFoundError: No module named"),
        ("x = 1\n\nx.y\n", r"net\.py:3: AttributeError: 'int' object has no attribute 'y'"),
    ],
)
def test_file_that_cannot_be_imported(net_file: Path, code: str, message: str) -> None:
    net_file.write_text(code)
    assert re.search(message, _refused(f"{net_file}:make"))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "resnet18",
            r"^resnet18: not the name of a model; a model is torchvision:NAME, package\.module:factory",
        ),
        ("net.py", r"^net\.py: which function makes the model\? write net\.py:FUNCTION; a model is"),
        ("net.pth", r"^net\.pth: weights without a model; name the model and give this file as weights"),
        ("none.py:make", r"^none\.py: no such file$"),
        ("no_such_module:make", r"^no_such_module: ModuleNotFoundError: No module named 'no_such_module'$"),
        ("none.onnx", r"^none\.onnx: no such file$"),
        ("none.pt2", r"^none\.pt2: no such file$"),
        ("torchvision:resnet81", r"^torchvision:resnet81: no such model; did you mean .*resnet18"),
        (
            "torchvision:fasterrcnn_resnet50_fpn",
            r": a detector with its own pre- and post-processing; edgecnn",
        ),
        ("torchvision:quantized_resnet18", r": already quantised; edgecnn converts float models"),
        (3, r"^a model is an nn\.Module or a string, not a int; torchvision:NAME"),
    ],
)
def test_name_of_no_model(model: Any, message: str) -> None:
    assert re.search(message, _refused(model))


def test_torchvision_classifier_brings_its_spec() -> None:
    loaded = load_model("torchvision:squeezenet1_1")
    spec = loaded.default_spec
    assert spec is not None
    assert (spec.size_hw, spec.resize, spec.resize_short) == ((224, 224), "center_crop", 256)
    assert (spec.interpolation, spec.antialias, spec.color) == ("bilinear", True, "rgb")
    assert (spec.mean, spec.std, spec.scale) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1 / 255)
    assert (len(spec.labels), spec.labels[0], spec.labels[999]) == (1000, "tench", "toilet tissue")
    assert loaded.provenance["weights"] == "random (no weights file was given)"
    assert set(loaded.provenance) == {"model", "weights", "torch", "torchvision"}


def test_random_weights_are_the_same_each_time_and_leave_torchs_state_alone() -> None:
    state = torch.random.get_rng_state()
    first, second = (load_model("torchvision:squeezenet1_1").module for _ in range(2))
    assert first is not None
    assert second is not None
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))
    assert torch.equal(state, torch.random.get_rng_state())


def test_torchvision_segmentation_has_no_spec_and_downloads_no_backbone() -> None:
    loaded = load_model("torchvision:lraspp_mobilenet_v3_large")
    assert loaded.default_spec is None


def test_torchscript_is_refused(recwarn: pytest.WarningsRecorder) -> None:
    with pytest.deprecated_call():
        script = torch.jit.trace(models.flat_net(), torch.zeros(1, 3, 4, 4))
    assert _refused(script).endswith("TorchScript cannot be converted; give the nn.Module it was made from")


@pytest.mark.parametrize(
    "wrap", [torch.compile, nn.DataParallel, lambda m: nn.DataParallel(torch.compile(m))]
)
@pytest.mark.parametrize("factory", [False, True])
def test_wrappers_of_training_are_taken_off(
    monkeypatch: pytest.MonkeyPatch, wrap: Any, factory: bool
) -> None:
    wrapped = wrap(models.flat_net(seed=7))
    monkeypatch.setattr(models, "wrapped", lambda: wrapped, raising=False)
    loaded = load_model("tests.models:wrapped" if factory else wrapped)
    assert isinstance(loaded.module, nn.Sequential)
    assert list(loaded.module.state_dict()) == list(STATE)
    assert all(torch.equal(value, STATE[key]) for key, value in loaded.module.state_dict().items())


def test_lazy_module_is_refused() -> None:
    assert re.search(r"^.*Sequential: 0\.weight has no shape yet; run the model once", _refused(_lazy()))


def _lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(3, 3))


# ---- model.pt2


def _program(open_batch: bool = True) -> torch.export.ExportedProgram:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(16, 3)
    ).eval()
    shapes = ({0: torch.export.Dim("b")},) if open_batch else None
    return torch.export.export(net, (torch.zeros(2, 3, 4, 4),), dynamic_shapes=shapes)


def test_pt2(tmp_path: Path) -> None:
    torch.export.save(_program(), tmp_path / "net.pt2")
    loaded = load_model(tmp_path / "net.pt2")
    assert (
        loaded.provenance["model_sha256"] == hashlib.sha256((tmp_path / "net.pt2").read_bytes()).hexdigest()
    )
    spec = ModelSpec(task="classification", size_hw=(4, 4))
    converted = canonical(loaded, spec)
    assert converted.inputs[0].shape == ("batch", 4, 4, 3)
    check_parity(converted, images(spec, 3))


def test_exported_program_in_memory_with_a_fixed_batch() -> None:
    spec = ModelSpec(task="classification", size_hw=(4, 4))
    loaded = load_model(_program(open_batch=False))
    check_parity(canonical(loaded, spec, batch=2), images(spec, 2))
    with pytest.raises(ModelError, match="was exported for another input"):
        canonical(loaded, spec)
    with pytest.raises(ModelError, match="was exported for another input"):
        canonical(load_model(_program()), spec.replace(size_hw=(5, 5)))


def test_pt2_exported_in_training_mode_is_refused() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 3)).train()
    program = torch.export.export(
        net, (torch.zeros(2, 3, 4, 4),), dynamic_shapes=({0: torch.export.Dim("b")},)
    )
    with pytest.raises(ModelError, match="dropout with training=True"):
        canonical(load_model(program), ModelSpec(task="classification", size_hw=(4, 4)))


def test_pt2_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.pt2").write_bytes(b"not a zip")
    assert re.search(r"a\.pt2: not a program that torch\.export\.save wrote", _refused(tmp_path / "a.pt2"))
    assert re.search("leave weights out", _refused(tmp_path / "a.onnx", tmp_path / "w.pth"))


def test_archive_of_a_pt2_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    class Watched(zipfile.ZipFile):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            opened.append(self)

    torch.export.save(_program(), tmp_path / "net.pt2")
    monkeypatch.setattr(zipfile, "ZipFile", Watched)
    load_model(tmp_path / "net.pt2")
    assert opened
    assert all(archive.fp is None for archive in opened)


def test_two_loads_at_once_leave_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FORCE_WEIGHTS_ONLY, raising=False)
    entered = threading.Event()

    def other() -> None:
        with _weights_only():
            entered.set()

    thread = threading.Thread(target=other)
    with _weights_only():
        thread.start()
        assert not entered.wait(0.05)
        assert os.environ[FORCE_WEIGHTS_ONLY] == "1"
    thread.join()
    assert entered.is_set()
    assert FORCE_WEIGHTS_ONLY not in os.environ


def test_pt2_with_a_pickle_inside_runs_nothing(tmp_path: Path) -> None:
    """The inputs that were stored with a program are read by torch.load, also when they are a bomb."""
    torch.export.save(_program(), tmp_path / "good.pt2")
    torch.save(Bomb(tmp_path / "boom"), tmp_path / "bomb.pt")
    source = zipfile.ZipFile(tmp_path / "good.pt2")
    with source, zipfile.ZipFile(tmp_path / "bad.pt2", "w") as target:
        for name in source.namelist():
            bomb = "sample_inputs" in name
            target.writestr(name, (tmp_path / "bomb.pt").read_bytes() if bomb else source.read(name))
    assert "bad.pt2: not a program" in _refused(tmp_path / "bad.pt2")
    assert not (tmp_path / "boom").exists()


# ---- weights


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


STATE = models.flat_net(seed=7).state_dict()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th", ".bin", ".safetensors"])
def test_weights_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path)
    loaded = load_model(models.flat_net(), path)
    assert loaded.module is not None
    assert all(torch.equal(value, STATE[key]) for key, value in loaded.module.state_dict().items())
    assert loaded.provenance["weights"] == f"w{suffix}"
    assert loaded.provenance["weights_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {"model_state_dict": state},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"module._orig_mod.{key}": value for key, value in state.items()}},
        lambda state: {key: value.half() for key, value in state.items()},
    ],
)
def test_checkpoints_and_wrappers(tmp_path: Path, wrap: Any) -> None:
    torch.save(wrap(STATE), tmp_path / "w.pth")
    loaded = load_model(models.flat_net(), tmp_path / "w.pth")
    assert loaded.module is not None
    for key, value in loaded.module.state_dict().items():
        assert torch.allclose(value, STATE[key], atol=1e-3)


def test_old_files_lack_the_counter_of_batchnorm(tmp_path: Path) -> None:
    net = nn.BatchNorm2d(3)
    state = {k: v + 1 for k, v in net.state_dict().items() if k != "num_batches_tracked"}
    torch.save(state, tmp_path / "w.pth")
    loaded = load_model(net, tmp_path / "w.pth")
    assert loaded.module is not None
    assert torch.equal(loaded.module.state_dict()["weight"], torch.full((3,), 2.0))


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_pickle_bomb_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    path = tmp_path / "w.pth"
    if form == "torch":
        torch.save({"state_dict": STATE, "extra": Bomb(tmp_path / "boom")}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))
    message = _refused(models.flat_net(), path)
    assert "holds more than tensors and would run code when loaded" in message
    assert 'torch.save(model.state_dict(), "weights.pth")' in message
    assert not (tmp_path / "boom").exists()


def test_whole_module_in_a_file_is_refused_with_the_cure(tmp_path: Path) -> None:
    torch.save(models.flat_net(), tmp_path / "w.pth")
    assert "write the weights alone" in _refused(models.flat_net(), tmp_path / "w.pth")


def test_weights_of_another_architecture_name_the_keys(tmp_path: Path) -> None:
    save_file(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)).state_dict(), tmp_path / "shape.safetensors")
    message = _refused(models.flat_net(), tmp_path / "shape.safetensors")
    assert message.endswith(
        "weights of another architecture: "
        "2 of another shape (1.weight is 5×48, the model has 3×48, 1.bias is 5, the model has 3)"
    )
    linears = [nn.Linear(2, 2) for _ in range(5)]
    save_file(nn.Sequential(*linears[:3]).state_dict(), tmp_path / "keys.safetensors")
    other = nn.Sequential(nn.Identity(), linears[3], nn.Identity(), linears[4])
    message = _refused(other, tmp_path / "keys.safetensors")
    assert message.endswith(
        "another architecture: 2 missing (3.weight, 3.bias); 4 unexpected (0.bias, 0.weight, 2.bias, …)"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pth", None, r"w\.pth: no such weights file$"),
        ("w.txt", b"x", r"w\.txt: weights are a file of the kind \.safetensors, \.pth"),
        ("w.pth", b"", r"w\.pth: not a weights file of torch"),
        ("w.pth", b"PK\x03\x04 cut off", r"w\.pth: not a weights file of torch"),
        ("w.pth", b"<!DOCTYPE html><html>", r"w\.pth: not a weights file: it is a web page; download the"),
        ("w.safetensors", b"\n<html>", r"w\.safetensors: not a weights file: it is a web page"),
        (
            "w.pth",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n",
            r"w\.pth: not a weights file: it is a Git LFS pointer; fetch the real file with git lfs pull$",
        ),
        ("w.safetensors", b"x" * 20, r"w\.safetensors: not a safetensors file"),
    ],
)
def test_file_of_no_weights(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert re.search(message, _refused(models.flat_net(), tmp_path / name))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "lr": 0.1}, "holds no weights by name but the keys epoch, lr; save them with"),
        ([1, 2], "holds no weights by name but a list"),
    ],
)
def test_file_without_a_state_dict(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    assert message in _refused(models.flat_net(), tmp_path / "w.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    state = {k: v.clone() for k, v in net.state_dict().items()}
    state["0.weight"][0, 0, 0, 0] = value
    state["1.running_var"][1] = value
    torch.save(state, tmp_path / "w.pth")
    message = _refused(net, tmp_path / "w.pth")
    assert message.endswith("w.pth: 2 weights hold NaN or infinity (0.weight, 1.running_var); train again")


def test_mask_of_infinities_is_no_mistake() -> None:
    net = models.flat_net()
    net.register_buffer("mask", torch.full((2, 2), -np.inf))
    assert load_model(net).module is not None


# ---- files that are damaged or cannot be read


@pytest.mark.parametrize("form", ["zip.pth", "legacy.pth", "w.safetensors", "net.pt2"])
def test_damaged_files_are_model_errors(tmp_path: Path, form: str, capfd: pytest.CaptureFixture[str]) -> None:
    path, net = tmp_path / form, models.flat_net()
    if path.suffix == ".safetensors":
        save_file(STATE, path)
    elif path.suffix == ".pt2":
        torch.export.save(_program(), path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=form.startswith("zip"))
    whole, draw = path.read_bytes(), random.Random(3)
    messages = []
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            load_model(path) if path.suffix == ".pt2" else load_model(net, path)
        except ModelError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert not [message for message in messages if "\n" in message]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("error", [TypeError, AssertionError, IndexError, RecursionError, MemoryError])
def test_whatever_the_unpickler_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def load(*args: Any, **options: Any) -> None:
        raise error

    (tmp_path / "w.pth").write_bytes(b"x")
    monkeypatch.setattr(torch, "load", load)
    message = _refused(models.flat_net(), tmp_path / "w.pth")
    assert message.endswith(f"w.pth: not a weights file of torch ({error.__name__})")


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".pth", ".safetensors"])
def test_file_that_cannot_be_read(tmp_path: Path, suffix: str) -> None:
    if not Path("/proc/self/mem").exists():
        pytest.skip("no /proc/self/mem here, a file whose first byte cannot be read")
    (tmp_path / f"a{suffix}").symlink_to("/proc/self/mem")
    for path in (tmp_path / f"a{suffix}", tmp_path / ("a" * 300 + suffix)):
        model = (models.flat_net(), path) if suffix in (".pth", ".safetensors") else (path,)
        assert re.search(rf"{suffix}: (cannot be read \(|no such)", _refused(*model))


def test_keys_that_are_no_names(tmp_path: Path) -> None:
    torch.save({0: torch.zeros(1)}, tmp_path / "w.pth")
    assert "holds no weights by name but the keys 0; save" in _refused(models.flat_net(), tmp_path / "w.pth")
    torch.save({"a\nb": torch.zeros(1), **STATE}, tmp_path / "w.pth")
    assert r"1 unexpected ('a\nb')" in _refused(models.flat_net(), tmp_path / "w.pth")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64])
def test_weights_that_are_not_floating_point(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.save({k: v.to(dtype) for k, v in STATE.items()}, tmp_path / "w.pth")
    kind = str(dtype).removeprefix("torch.")
    assert f"2 weights are not floating point, as in a quantised model (1.weight is {kind}, " in _refused(
        models.flat_net(), tmp_path / "w.pth"
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_and_integer_buffers(tmp_path: Path, dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    torch.save(net.to(dtype).state_dict(), tmp_path / "w.pth")
    loaded = load_model(nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)), tmp_path / "w.pth")
    assert loaded.module is not None
    state = loaded.module.state_dict()
    assert torch.equal(state["0.weight"], net[0].weight.detach().float())
    assert state["1.num_batches_tracked"].dtype == torch.int64


def test_weights_that_cannot_be_copied(tmp_path: Path) -> None:
    torch.save({k: v.to_sparse() for k, v in STATE.items()}, tmp_path / "w.pth")
    message = _refused(models.flat_net(), tmp_path / "w.pth")
    assert "w.pth: the weights cannot be copied into the model (" in message
