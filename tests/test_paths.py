"""Where the cache is, whatever the environment says or leaves out."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import pytest

from edgecnn.paths import cache_dir, is_private, locked, make_private, trim

VARIABLES = ("EDGECNN_CACHE", "XDG_CACHE_HOME", "HOME")


@pytest.mark.parametrize(
    ("settings", "folder"),
    [
        ({"EDGECNN_CACHE": "/own", "XDG_CACHE_HOME": "/base", "HOME": "/home/me"}, "/own"),
        ({"EDGECNN_CACHE": "~/kept", "HOME": "/home/me"}, "/home/me/kept"),
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


def test_a_relative_cache_stays_where_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGECNN_CACHE", "cache")
    assert cache_dir() == tmp_path / "cache"


def test_what_is_made_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_private(tmp_path / "cache" / "engines")
    finally:
        os.umask(before)
    assert is_private(tmp_path / "cache" / "engines")
    assert [path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")] == [0o700, 0o700]


@pytest.mark.parametrize(
    ("cache", "engines", "private"),
    [
        (0o755, 0o755, True),
        (0o755, 0o775, False),
        (0o755, 0o757, False),
        (0o777, 0o700, False),
        (0o1777, 0o700, True),
        (0o755, 0o1777, False),
    ],
)
def test_others_must_not_write(tmp_path: Path, cache: int, engines: int, private: bool) -> None:
    folder = tmp_path / "cache" / "engines"
    make_private(folder)
    folder.parent.chmod(cache)
    folder.chmod(engines)
    assert is_private(folder) is private


@pytest.mark.parametrize(("user", "private"), [(0, True), (1234, False)])
def test_whose_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, private: bool) -> None:
    """Root may have put engines into an image; another user may not."""
    owned, real = os.stat_result((0o40755, 0, 0, 2, user, 0, 0, 0, 0, 0)), Path.stat
    monkeypatch.setattr(
        Path, "stat", lambda self, **how: owned if self == tmp_path / "a" else real(self, **how)
    )
    assert is_private(tmp_path / "a") is private


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    held: list[int] = []

    def work() -> None:
        for _ in range(20):
            with locked(tmp_path / "lock"):
                held.append(1)
                assert len(held) == 1
                held.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert held == []


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    for age, name in enumerate(("newest", "middle", "oldest")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "blob").write_bytes(bytes(100))
        os.utime(folder, (1000 - age, 1000 - age))
    (tmp_path / "newest.lock").touch()
    trim(tmp_path, 250)
    assert {path.name for path in tmp_path.iterdir()} == {"newest", "middle", "newest.lock"}
    trim(tmp_path, 99)
    assert {path.name for path in tmp_path.iterdir()} == {"newest.lock"}
    trim(tmp_path / "nowhere", 1)
