from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

import edgecnn
from edgecnn.cli import main as cli
from edgecnn.errors import DeviceUnavailable, EdgeCnnError, GateMissed, InputError
from tests.paths import ROOT
from tests.stream.fakes import write_picture, write_video

HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "openvino", "tensorrt", "cv2", "numpy")
LOADED = """
import json, sys
from edgecnn.cli.main import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def test_commands_are_the_files_of_the_folder() -> None:
    files = {p.stem for p in (ROOT / "edgecnn" / "cli").glob("*.py")}
    assert set(cli.commands()) == {n for n in files if n != "main" and not n.startswith("_")}
    assert set(cli.commands()) == {
        "bench",
        "convert",
        "doctor",
        "eval",
        "inspect",
        "run",
        "sign",
        "tune",
        "verify",
    }


@pytest.mark.parametrize("args", [["--help"], ["run", "--help"], ["convert", "-h"], ["--version"], ["run"]])
def test_help_loads_nothing_heavy(args: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LOADED, *args], capture_output=True, text=True, check=True)
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == (2 if args == ["run"] else 0)
    assert set(modules) & set(HEAVY) == set()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert edgecnn.__version__ in capsys.readouterr().out


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name}  " in out for name in cli.commands())


@pytest.mark.parametrize("args", [[], ["frobnicate"], ["--nope"], ["convert", "x"], ["inspect", "a", "b"]])
def test_wrong_usage(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(args) == 2
    assert "Usage: edgecnn" in capsys.readouterr().err


def end_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command ends with this error."""

    def fail() -> None:
        raise error

    command = click.Command("run", callback=fail)
    monkeypatch.setattr(cli._Commands, "get_command", lambda self, ctx, name: command)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("x.png: broken"), 2, "edgecnn: error: x.png: broken\n"),
        (DeviceUnavailable("no camera"), 3, "edgecnn: error: no camera\n"),
        (GateMissed("too slow"), 1, "edgecnn: error: too slow\n"),
        (EdgeCnnError("else"), 1, "edgecnn: error: else\n"),
        (KeyboardInterrupt(), 130, "edgecnn: interrupted\n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "x.png"),
            2,
            "edgecnn: error: x.png: Permission denied\n",
        ),
        (OSError(errno.EIO, "Input/output error"), 2, "edgecnn: error: Input/output error\n"),
        (OSError("said otherwise\nand more"), 2, "edgecnn: error: said otherwise\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", b"x.edge"),
            3,
            "edgecnn: error: x.edge: No space left on device; check the space and the disk\n",
        ),
    ],
)
def test_endings(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    end_with(error, monkeypatch)
    assert cli.main(["run"]) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", message)


def test_own_mistake_is_one_line_without_vv(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    end_with(KeyError("oops"), monkeypatch)
    assert cli.main(["run"]) == cli.INTERNAL_ERROR
    [line] = capsys.readouterr().err.splitlines()
    assert "internal error: KeyError: 'oops'" in line
    assert "-vv" in line
    logging.getLogger("edgecnn").setLevel(logging.DEBUG)
    assert cli.main(["run"]) == cli.INTERNAL_ERROR
    assert "Traceback" in capsys.readouterr().err


def test_closed_pipe_is_quiet(color_bundle: Path) -> None:
    program = Path(sys.executable).with_name("edgecnn")
    script = f"'{program}' inspect '{color_bundle}' --json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_closed_standard_output(color_bundle: Path) -> None:
    program = Path(sys.executable).with_name("edgecnn")
    done = subprocess.run(
        ["bash", "-c", f"'{program}' inspect '{color_bundle}' >&-"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("args", [["inspect", "BUNDLE"], ["inspect", "BUNDLE", "--json"], ["--help"]])
def test_full_standard_output(color_bundle: Path, args: list[str]) -> None:
    program = Path(sys.executable).with_name("edgecnn")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [program, *(arg.replace("BUNDLE", str(color_bundle)) for arg in args)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 3
    [line] = done.stderr.splitlines()
    assert line.startswith("edgecnn: error: ")
    assert line.endswith("; check the space and the disk")


LONG = "n" * 300


@pytest.mark.parametrize(
    "args",
    [
        ["inspect", LONG],
        ["verify", LONG],
        ["run", LONG],
        ["run", LONG, "--source", "a.png"],
        ["run", "BUNDLE", "--source", LONG],
        ["run", "BUNDLE", "--source", "a.png", "--json", LONG],
        ["run", "BUNDLE", "--source", "a.png", "--save", f"{LONG}.mp4"],
        ["convert", f"{LONG}.onnx", "-o", "x.edge"],
        ["convert", "a.onnx", "--spec", f"{LONG}.toml", "-o", "x.edge"],
    ],
)
def test_name_that_is_too_long(
    args: list[str],
    color_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_picture(tmp_path / "a.png")
    assert cli.main([arg.replace("BUNDLE", str(color_bundle)) for arg in args]) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("edgecnn: error: ")
    assert "internal" not in line
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("kind", ["folder", "words.txt", "v.avi"])
@pytest.mark.parametrize(
    "args",
    [
        ["inspect", "IT"],
        ["verify", "IT"],
        ["run", "IT", "--source", "a.png"],
        ["convert", "IT", "-o", "x.edge"],
        ["convert", "mean.onnx", "--spec", "IT", "-o", "x.edge"],
        ["convert", "mean.onnx", "--spec", "mean.toml", "--weights", "IT", "-o", "x.edge"],
        ["convert", "mean.onnx", "--spec", "mean.toml", "-o", "IT"],
    ],
)
def test_another_kind_than_is_wanted_is_one_line(
    args: list[str],
    kind: str,
    color_bundle: Path,
    color_onnx: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "words.txt").write_text("just words\n" * 90)
    write_video(tmp_path / "v.avi", count=2)
    write_picture(tmp_path / "a.png")
    for path in color_onnx:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    before = sorted(tmp_path.rglob("*"))
    given = {"IT": kind, "BUNDLE": str(color_bundle)}
    assert cli.main([given.get(arg, arg) for arg in args]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert [line for line in lines if "error:" in line.lower()] == lines[-1:]
    assert "internal" not in lines[-1]
    assert sorted(tmp_path.rglob("*")) == before


def test_unreadable_file_is_named(
    tmp_path: Path,
    color_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # reading it fails with an I/O error also for root
    (tmp_path / "x.png").symlink_to("/proc/self/mem")
    assert cli.main(["run", str(color_bundle), "--source", str(tmp_path / "x.png")]) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(f"edgecnn: error: {tmp_path}/x.png: ")


TERMINATED_WHILE_IT_WRITES = """
import os, signal, sys
from edgecnn import bundle
from edgecnn.cli.main import main
add = bundle.BundleWriter.add
def slow(self, name, data):
    add(self, name, data)
    os.kill(os.getpid(), signal.SIGTERM)
bundle.BundleWriter.add = slow
sys.exit(main(sys.argv[1:]))
"""


def test_sigterm_removes_the_half_made_bundle(color_onnx: tuple[Path, Path], tmp_path: Path) -> None:
    model, spec = color_onnx
    args = ["convert", str(model), "--spec", str(spec), "-o", str(tmp_path / "x.edge"), "-q"]
    done = subprocess.run(
        [sys.executable, "-c", TERMINATED_WHILE_IT_WRITES, *args], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "edgecnn: interrupted\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [ImportError("no module"), EdgeCnnError("not installed"), None])
def test_an_interrupt_that_something_took_for_its_own_error(
    ending: Exception | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As extension modules do that are being imported."""

    def swallow() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            if ending is not None:
                raise ending from error

    command = click.Command("verify", callback=swallow)
    monkeypatch.setattr(cli._Commands, "get_command", lambda self, ctx, name: command)
    assert cli.main(["verify"]) == 130
    assert capsys.readouterr().err.endswith("edgecnn: interrupted\n")


def test_handler_of_sigterm_lasts_as_long_as_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def terminate() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    command = click.Command("verify", callback=terminate)
    monkeypatch.setattr(cli._Commands, "get_command", lambda self, ctx, name: command)
    assert cli.main(["verify"]) == 130
    assert capsys.readouterr().err == "edgecnn: interrupted\n"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("args", [["-q", "-v"], ["-v", "-q"]])
def test_quiet_and_verbose_contradict(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", *args]) == 2
    assert "contradict" in capsys.readouterr().err
