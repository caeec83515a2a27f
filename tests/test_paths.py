"""Where the cache is, whatever the environment says or leaves out."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from edgecnn.paths import cache_dir

VARIABLES = ("EDGECNN_CACHE", "XDG_CACHE_HOME", "HOME")


@pytest.mark.parametrize(
    ("settings", "folder"),
    [
        ({"EDGECNN_CACHE": "/own", "XDG_CACHE_HOME": "/base", "HOME": "/home/me"}, "/own"),
        ({"XDG_CACHE_HOME": "/base", "HOME": "/home/me"}, "/base/edgecnn"),
        ({"HOME": "/home/me"}, "/home/me/.cache/edgecnn"),
        ({"EDGECNN_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/home/me"}, "/home/me/.cache/edgecnn"),
    ],
)
def test_cache_folder(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], folder: str) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert cache_dir() == Path(folder)


def test_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert cache_dir() == Path(tempfile.gettempdir()) / f"edgecnn-{os.getuid()}"


def test_asking_makes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path / "cache"))
    cache_dir()
    assert list(tmp_path.iterdir()) == []
