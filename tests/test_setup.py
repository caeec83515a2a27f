"""``make setup`` on machines that lack something: one clear line, and nothing half done is taken for done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the script needs of the project, without an environment."""
    root = tmp_path / "checkout"
    (root / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "tools" / "setup.sh", root / "tools")
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def script(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def setup(checkout: Path, python: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["tools/setup.sh", python],
        cwd=checkout,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def check_one_line(done: subprocess.CompletedProcess[str], text: str) -> None:
    assert done.returncode == 3
    assert text in done.stderr
    assert len(done.stderr.strip().splitlines()[-1]) < 300
    assert done.stderr.strip().splitlines()[-1].startswith("setup: ")


def test_python_is_missing(checkout: Path) -> None:
    done = setup(checkout, "python-that-is-not")
    check_one_line(done, "python-that-is-not not found; install Python 3.10 or newer")


def test_python_is_too_old(checkout: Path, tmp_path: Path) -> None:
    script(tmp_path / "bin", "python3.8", 'case "$1" in --version) echo Python 3.8.1;; *) exit 1;; esac')
    done = setup(checkout, str(tmp_path / "bin" / "python3.8"))
    check_one_line(done, "Python 3.8.1 is too old; Python 3.10 or newer is needed")


def test_venv_is_missing(checkout: Path, tmp_path: Path) -> None:
    script(tmp_path / "bin", "python3", 'case "$2" in *ensurepip*) exit 1;; *) exit 0;; esac')
    done = setup(checkout, str(tmp_path / "bin" / "python3"))
    check_one_line(done, "apt-get install python3-venv")


def test_disk_is_full(checkout: Path, tmp_path: Path) -> None:
    script(tmp_path / "bin", "df", "echo header; echo disk 1000 1000 2097152 99% /")
    done = setup(checkout, sys.executable, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    check_one_line(done, "2 GB free on this disk, 9 GB are needed")
    assert not (checkout / ".venv").exists()


def test_network_is_missing(checkout: Path) -> None:
    """Nothing listens on port 9 of this machine; the failed attempt is not taken for done."""
    nowhere = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_RETRIES": "0",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }
    done = setup(checkout, sys.executable, **nowhere)
    check_one_line(done, "is there a network?")
    assert not list((checkout / ".venv").glob(".ready-*"))


def test_second_time_does_nothing(checkout: Path) -> None:
    (checkout / ".venv" / "bin").mkdir(parents=True)
    script(checkout / ".venv" / "bin", "python", 'echo "$@" >> calls; exit 0')
    first, second = setup(checkout, "python-that-is-not"), setup(checkout, "python-that-is-not")
    assert (first.returncode, second.returncode) == (0, 0)
    assert "setup: done" in first.stdout
    assert "setup: .venv is ready" in second.stdout
    assert (checkout / "calls").read_text().count("pip install") == 1
