"""``make ros2`` on machines that ROS 2 has no wheels for: one clear line, before anything is made or removed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.paths import ROOT


@pytest.mark.parametrize(
    ("version", "modules", "machine", "message"),
    [
        (None, True, "x86_64", "not found; install Python 3.10 to 3.12"),
        ("3.13.1", True, "x86_64", "no wheels for Python 3.13.1; name a Python 3.10 to 3.12"),
        ("3.12.1", True, "aarch64", "x86-64 only, this machine is aarch64"),
        ("3.12.1", False, "x86_64", "cannot make virtual environments"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    tmp_path: Path, version: str | None, modules: bool, machine: str, message: str
) -> None:
    python = tmp_path / "python-of-mine"
    lines = {"uname": f"echo {machine}"}
    if version:
        supported = int(not version.startswith("3.12"))
        lines[python.name] = (
            f'case "$*" in --version) echo Python {version};; *ensurepip*) exit {int(not modules)};; '
            f"*) exit {supported};; esac"
        )
    for name, text in lines.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["tools/ros2.sh", str(python)],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3
    [line] = done.stderr.splitlines()
    assert line.startswith("ros2: ")
    assert message in line
