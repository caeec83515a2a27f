from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import click
import pytest

import edgecnn
from edgecnn.cli import main as cli
from edgecnn.errors import DeviceUnavailable, EdgeCnnError, GateMissed, InputError
from tests.paths import ROOT

HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "openvino", "tensorrt", "cv2", "numpy", "rich")
LOADED = """
import json, sys
from edgecnn.cli.main import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def test_commands_are_the_files_of_the_folder() -> None:
    files = {p.stem for p in (ROOT / "edgecnn" / "cli").glob("*.py")}
    assert set(cli.commands()) == {n for n in files if n != "main" and not n.startswith("_")}
    assert set(cli.commands()) == {"convert", "doctor", "inspect", "run", "verify"}


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


@pytest.mark.parametrize("args", [["-q", "-v"], ["-v", "-q"]])
def test_quiet_and_verbose_contradict(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", *args]) == 2
    assert "contradict" in capsys.readouterr().err
