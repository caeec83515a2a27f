"""``edgecnn tune``: what it prints and writes, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgecnn.cli.main import main
from edgecnn.tuning import search


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short turns, and a cache of its own."""
    monkeypatch.setattr(search, "TURN_S", 0.001)
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EDGECNN_RUNTIME")
    monkeypatch.setattr("edgecnn.candidates.known", lambda: ["ort"])


def tune(bundle: Path, *more: str) -> int:
    return main(["tune", str(bundle), "--seconds", "0.01", "--threads", "1", *more])


def test_report_for_people(color_bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert tune(color_bundle) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "best: onnx-fp32 on ort, 1 thread"
    assert lines[2].split() == ["threads", "streams", "batch", "ms", "a", "second", "×", "best"]
    assert lines[3].split()[:6] == ["onnx-fp32", "on", "ort", "1", "1", "1"]
    assert lines[-1] == "kept: load and run take the best from now on, unless told otherwise"


def test_throughput_then_inspect_then_forget(color_bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert tune(color_bundle, "--objective", "throughput") == 0
    assert 'load(mode="throughput") takes the best' in capfd.readouterr().out
    assert main(["inspect", str(color_bundle)]) == 0
    assert "tuned here for throughput on " in capfd.readouterr().out
    for said in ("forgotten: throughput", "nothing was kept"):
        assert main(["tune", str(color_bundle), "--forget"]) == 0
        assert capfd.readouterr().out == f"{said}\n"


def test_json(color_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert tune(color_bundle, "--json", "-") == 0
    found = json.loads(capfd.readouterr().out)
    assert tune(color_bundle, "--json", str(tmp_path / "a.json"), "-q") == 0
    assert capfd.readouterr().out == ""
    assert json.loads((tmp_path / "a.json").read_text()).keys() == found.keys()
    assert found["best"] == "onnx-fp32 on ort, 1 thread"
    assert found["rows"][0]["ratio"] == 1


def test_what_is_slower_is_not_all_shown(
    color_bundle: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("edgecnn.cli.tune.ROWS_SHOWN", 1)
    assert tune(color_bundle, "--objective", "throughput") == 0
    assert " that are slower\n" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--runtime", "tflite"], 2, "no runtime 'tflite'"),
        (["--json", "nowhere/a.json"], 2, "cannot be written"),
        (["--threads", "0"], 2, "'--threads'"),
        (["--seconds", "0"], 2, "'--seconds'"),
        (["--objective", "speed"], 2, "'--objective'"),
    ],
)
def test_bad_usage(
    color_bundle: Path, options: list[str], code: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", str(color_bundle), *options]) == code
    assert said in capfd.readouterr().err


@pytest.mark.parametrize("more", [[], ["--forget"]])
def test_no_bundle(more: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", str(tmp_path / "no.edge"), *more]) == 2
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_cache_that_cannot_be_written(
    color_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path / "file"))
    assert tune(color_bundle) == 3
    error = capfd.readouterr().err
    assert "set EDGECNN_CACHE" in error
    assert len(error.splitlines()) == 1


def test_interrupt_keeps_nothing(
    color_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "race", interrupted)
    assert tune(color_bundle) == 130
    assert capfd.readouterr().err == "edgecnn: interrupted\n"
    assert list((tmp_path / "cache" / "tuned").iterdir()) == []
