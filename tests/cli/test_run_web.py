from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from edgecnn.cli.main import main
from tests.cli.test_run import ENDLESS_CAMERA
from tests.stream.fakes import write_picture


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_view_of_a_stream_that_is_interrupted(color_bundle: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", ENDLESS_CAMERA, "run", str(color_bundle), "--camera", "0", "--web", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.fullmatch(r"web view: (http://127\.0\.0\.1:\d+/)\n", line)
            assert found, line
            picture = urllib.request.urlopen(f"{found[1]}picture.jpg", timeout=20)
            assert picture.read(3) == b"\xff\xd8\xff"
            picture.close()
            with urllib.request.urlopen(f"{found[1]}state.json", timeout=20) as answer:
                state = json.load(answer)
            assert state["about"] == "color.edge on ort"
            assert {each["label"] for each in state["source"]["classes"]} <= {"red", "green", "blue"}
            process.send_signal(number)
            _, error = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in error


def test_port_in_use_is_exit_3_and_replaces_no_file(
    color_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, out = write_picture(tmp_path / "a.png"), tmp_path / "o.jsonl"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        args = ["run", str(color_bundle), "--source", str(path), "--json", str(out), "--web", str(port)]
        assert main(args) == 3
    [line] = capfd.readouterr().err.splitlines()
    assert line == f"edgecnn: error: --web 127.0.0.1:{port}: the port is in use; take another one"
    assert not out.exists()


@pytest.mark.parametrize(
    "where", [["x"], ["127.0.0.1"], ["70000"], ["192.0.2.1:8080"], ["8080", "--web", "8081"]]
)
def test_places_that_are_none(
    color_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], where: list[str]
) -> None:
    path = write_picture(tmp_path / "a.png")
    assert main(["run", str(color_bundle), "--source", str(path), "--web", *where]) == 2
    assert "--web" in capfd.readouterr().err.splitlines()[-1]


def test_token_of_the_environment_is_kept_out_of_the_output(
    color_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_picture(tmp_path / "a.png")
    args = ["run", str(color_bundle), "--source", str(path), "--web", "0.0.0.0:0"]
    assert main(args) == 0
    assert re.match(r"web view: http://\S+:\d+/\?token=\S{32}\n", capfd.readouterr().err)
    monkeypatch.setenv("EDGECNN_WEB_TOKEN", "a-token-of-the-tests")
    assert main([*args, "-vv"]) == 0
    captured = capfd.readouterr()
    assert re.search(r"web view: http://\S+:\d+/\n", captured.err)
    assert "a-token-of-the-tests" not in captured.err + captured.out
