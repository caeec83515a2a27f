"""``edgecnn bench``: what it prints and writes, and how it ends."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import edgecnn.benchmarking as package
from edgecnn.benchmarking import Interrupted
from edgecnn.benchmarking.results import Benchmark
from edgecnn.cli.main import main
from edgecnn.stream.outputs import json_text
from tests.benchmarking.examples import bench, row

FIXED = {
    "id", "runtime", "precision", "threads", "streams", "batch", "p50_ms", "p90_ms", "p95_ms", "p99_ms",
    "mean_ms", "fps", "rss_mb", "first_result_ms", "energy_mj", "stages_ms",
}  # fmt: skip


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command asks for; a benchmark made by hand is what it gets."""
    asked: dict[str, Any] = {"found": bench()}

    def benchmark(bundle: str, **options: Any) -> Benchmark:
        asked.update(options, bundle=bundle)
        if asked["found"].interrupted:
            raise Interrupted(asked["found"])
        return asked["found"]  # type: ignore[no-any-return]

    monkeypatch.setattr(package, "benchmark", benchmark)
    return asked


def test_report_for_people(measured: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "net.edge", "--runtime", "ort,openvino", "--threads", "3", "--seconds", "2"]) == 0
    out = capfd.readouterr().out
    assert out.startswith("onnx-fp32 on ort: 10.0 ms a frame, 100.0 fps\n")
    assert "frames: frames that were made up, 4 frames of 640×480" in out
    assert max(map(len, out.splitlines())) <= 120
    asked = {
        key: measured[key]
        for key in ("bundle", "runtime", "threads", "mode", "seconds", "precision", "source")
    }
    assert asked == {
        "bundle": "net.edge",
        "runtime": "ort,openvino",
        "threads": 3,
        "mode": "latency",
        "seconds": 2.0,
        "precision": "auto",
        "source": None,
    }


@pytest.mark.usefixtures("measured")
def test_json_on_standard_output_is_all_of_it(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "net.edge", "--json", "-"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert {"machine", "rows", "best"} <= set(found)
    assert set(found["machine"]) >= {"cpu", "cores", "governor", "ram_mb", "gpu", "jetpack", "versions"}
    assert set(found["rows"][0]) >= FIXED
    assert set(found["rows"][0]["stages_ms"]) == {"read", "geometry", "infer", "decode", "nms"}


@pytest.mark.usefixtures("measured")
def test_files_are_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = {kind: str(tmp_path / f"a.{kind}") for kind in ("json", "markdown", "html")}
    assert (
        main(["bench", "net.edge", *(word for kind, name in names.items() for word in (f"--{kind}", name))])
        == 0
    )
    assert json.loads(Path(names["json"]).read_text())["best"] == "onnx-fp32 on ort"
    assert Path(names["markdown"]).read_text().startswith("# net on Cortex-A76")
    assert Path(names["html"]).read_text().startswith("<!DOCTYPE html>")
    assert f"written: {names['html']}" in capfd.readouterr().out


@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (0.5, 0), (2.0, 1)])
def test_baseline_decides(
    measured: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str], factor: float, code: int
) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json_text(bench().to_json()))
    measured["found"] = bench(row(latencies_ms=(10.0 * factor,) * 40))
    assert main(["bench", "net.edge", "--baseline", str(old), "--json", str(new)]) == code
    captured = capfd.readouterr()
    assert f"takes {factor:.2f} times what it took" in captured.out
    assert ("slower than" in captured.err) == (code == 1)
    assert json.loads(new.read_text())["verdict"]["rows"][0]["ratio"]["value"] == pytest.approx(factor)


def test_baseline_is_refused_for_what_disturbed_this_run_and_the_figures_stay(
    measured: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    then = bench()
    old.write_text(json_text(then.to_json()))
    measured["found"] = replace(then, machine=replace(then.machine, others_share=0.5))
    assert main(["bench", "net.edge", "--baseline", str(old), "--json", str(new)]) == 2
    assert measured["baseline"] == then
    assert "other programs took 50% of the processors during this run" in capfd.readouterr().err
    assert json.loads(new.read_text())["best"] == "onnx-fp32 on ort"


def test_interrupt_writes_what_was_measured(
    measured: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    measured["found"] = bench(interrupted=True)
    assert main(["bench", "net.edge", "--json", str(tmp_path / "a.json")]) == 130
    assert json.loads((tmp_path / "a.json").read_text())["interrupted"] is True
    assert "interrupted" in capfd.readouterr().err


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    "options",
    [
        ["--json", "a.out", "--html", "a.out"],
        ["--json", "-", "--html", "-"],
        ["--json", "nowhere/a.json"],
        ["--html", "."],
        ["--json", "/dev/null"],
        ["--seconds", "0"],
        ["--threads", "0"],
        ["--mode", "fast"],
        ["--baseline", "none.json"],
    ],
)
def test_bad_usage(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "net.edge", *options]) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["nothing.edge", "."])
def test_no_bundle(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", name]) == 2
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_whole_command_on_a_bundle(color_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    assert (
        main(["bench", str(color_bundle), "--runtime", "ort", "--seconds", "0.05", "--json", str(out), "-q"])
        == 0
    )
    (found,) = json.loads(out.read_text())["rows"]
    assert found["first_result_ms"] > 0


def test_throughput_of_a_bundle(color_bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["bench", str(color_bundle), "--runtime", "ort", "--threads", "1", "--seconds", "0.05"]
    assert main([*words, "--mode", "both", "--json", "-"]) == 0
    one, many = json.loads(capfd.readouterr().out)["rows"]
    assert (one["mode"], one["streams"]) == ("latency", 1)
    assert (many["mode"], many["threads"], many["batch"]) == ("throughput", 1, 1)
    assert many["first_result_ms"] > 0
