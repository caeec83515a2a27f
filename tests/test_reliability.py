"""What benchmarks/reliability.py says and ends with, with parts that take no time."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.paths import ROOT


class Process:
    """A part that is done at once, here; it ends with ``exitcode``."""

    exitcode = 0
    fingerprint = ""
    misses: tuple[str, ...] = ()

    def __init__(self, target: object, args: tuple[str, dict[str, float]], daemon: bool) -> None:
        self.part, self.options = args

    def start(self) -> None:
        write(self.part, self.options, self.fingerprint, self.misses)

    def join(self) -> None:
        pass


def write(part: str, options: dict[str, float], fingerprint: str, misses: tuple[str, ...] = ()) -> None:
    found = {"fingerprint": fingerprint, "options": options, "text": f"figures of {part}", "misses": misses}
    sys.modules["reliability"].DONE.joinpath(f"{part}.json").write_text(json.dumps(found))


@pytest.fixture
def reliability(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("reliability")
    monkeypatch.setattr(module, "DONE", tmp_path)
    monkeypatch.setattr(module, "fingerprint", lambda part: "now")
    monkeypatch.setattr(module.SPAWN, "Process", Process, raising=False)
    monkeypatch.setattr(module.signal, "signal", lambda *arguments: None)
    monkeypatch.setattr(sys, "argv", ["reliability.py", str(tmp_path / "page.md"), "--only", "clock"])
    return module


@pytest.mark.parametrize(
    ("fingerprint", "misses", "code"), [("now", (), 0), ("now", ("x",), 1), ("old", (), 1)]
)
def test_figures_are_printed_whatever_became_of_the_sources(
    reliability: Any,
    fingerprint: str,
    misses: tuple[str, ...],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Process, "fingerprint", fingerprint)
    monkeypatch.setattr(Process, "misses", misses)
    write("disk", {}, "now", ("of another part",))
    assert reliability.main() == code
    said = capsys.readouterr()
    assert said.out.startswith("figures of clock\n")
    assert ("the sources changed while these were measured: clock" in said.err) == (fingerprint == "old")


def test_an_interrupted_part_interrupts_the_run(reliability: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Process, "exitcode", 130)
    with pytest.raises(KeyboardInterrupt):
        reliability.main()
