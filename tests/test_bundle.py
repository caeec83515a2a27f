"""Bundles: what is written is what is read, and nothing else is accepted."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.bundle import Bundle, checked_out, write_bundle
from edgecnn.errors import BundleError, InputError
from edgecnn.manifest import (
    ArtifactEntry,
    Calibration,
    Fidelity,
    FileEntry,
    Layer,
    Manifest,
    Network,
    TensorInfo,
    decode_manifest,
)
from edgecnn.npz import encode_npz
from edgecnn.spec import ModelSpec, WindowGeometry

GOLDEN = Path(__file__).parent / "golden" / "manifest_v1.json"

SPEC = ModelSpec(
    task="window_detection",
    size_hw=(64, 48),
    activation="sigmoid",
    labels=("face",),
    class_thresholds={"face": 0.75},
    window=WindowGeometry(stride=8, min_size=40),
)


def manifest(files: tuple[FileEntry, ...]) -> Manifest:
    return Manifest(
        name="tiny",
        created="2026-01-02T03:04:05Z",
        spec=SPEC,
        inputs=(TensorInfo(name="image", dtype="uint8", shape=("batch", 64, 48, 3)),),
        outputs=(TensorInfo(name="scores", dtype="float32", shape=("batch", 1)),),
        artifacts=(
            ArtifactEntry(id="onnx-fp32", format="onnx", precision="fp32", path="model.onnx", build_s=1.5),
        ),
        files=files,
        calibration=Calibration(source="photos (3 images)", n=3, generated=False),
        fidelity=(
            Fidelity(
                id="onnx-fp32", runtime="ort", n=3, max_abs=1e-6, mean_abs=1e-7, cosine=1.0, agreement=1.0
            ),
        ),
        network=Network(
            params=10,
            macs=20,
            layers=(Layer(name="conv", op="Conv", output_shape=("batch", 1), params=10, macs=20),),
        ),
        provenance={"model": "net.py:make"},
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.edge"
    with write_bundle(path) as writer:
        writer.add("model.onnx", b"weights")
        writer.add("golden.npz", encode_npz({"input": np.zeros((1, 2), np.uint8)}))
        writer.finish(manifest(writer.files))
    return path


def edit(bundle: Path, **changes: object) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_written_bundle_reads_back(bundle: Path) -> None:
    opened = Bundle(bundle)
    assert opened.read("model.onnx") == b"weights"
    assert opened.manifest.spec == SPEC
    assert opened.file("model.onnx").bytes == 7
    golden = opened.golden()
    assert golden is not None
    assert golden["input"].shape == (1, 2)


def test_manifest_bytes_are_the_golden_ones() -> None:
    """The encoded form is part of the contract: a change of these bytes is a change of the schema."""
    files = (FileEntry(path="model.onnx", bytes=7, sha256="0" * 64),)
    assert manifest(files).encode() == GOLDEN.read_bytes()
    assert decode_manifest(GOLDEN.read_bytes(), "golden") == manifest(files)


def test_missing_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no\.edge: no such bundle"):
        Bundle(tmp_path / "no.edge")
    (tmp_path / "file.edge").write_text("x")
    with pytest.raises(BundleError, match="a bundle is a directory"):
        Bundle(tmp_path / "file.edge")
    with pytest.raises(BundleError, match=r"not a bundle, it holds no manifest\.json"):
        Bundle(tmp_path)


def test_altered_byte_in_the_model(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"weightz")
    with pytest.raises(BundleError, match=r"model\.onnx: altered, its sha256 is not the manifest's"):
        Bundle(bundle)


def test_altered_after_opening_is_seen(bundle: Path) -> None:
    opened = Bundle(bundle)
    (bundle / "model.onnx").write_bytes(b"weightz")
    with pytest.raises(BundleError, match="altered"):
        opened.read("model.onnx")


def test_truncated_file(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"wei")
    with pytest.raises(BundleError, match=r"model\.onnx: 3 bytes, the manifest says 7"):
        Bundle(bundle)


def test_missing_file(bundle: Path) -> None:
    (bundle / "golden.npz").unlink()
    with pytest.raises(BundleError, match=r"golden\.npz: No such file"):
        Bundle(bundle)


def test_unlisted_file(bundle: Path) -> None:
    (bundle / "extra.bin").write_text("x")
    with pytest.raises(BundleError, match=r"extra\.bin: not listed in manifest\.json"):
        Bundle(bundle)


@pytest.mark.parametrize("kind", ["file", "folder", "manifest"])
def test_links_are_refused(bundle: Path, tmp_path: Path, kind: str) -> None:
    if kind == "file":
        (tmp_path / "elsewhere").write_bytes(b"weights")
        (bundle / "model.onnx").unlink()
        (bundle / "model.onnx").symlink_to(tmp_path / "elsewhere")
    elif kind == "folder":
        (bundle / "more").symlink_to(tmp_path)
    else:
        (bundle / "manifest.json").rename(tmp_path / "manifest.json")
        (bundle / "manifest.json").symlink_to(tmp_path / "manifest.json")
    with pytest.raises(BundleError, match="a link; a bundle holds plain files only"):
        Bundle(bundle)


def test_hard_links_are_refused(bundle: Path, tmp_path: Path) -> None:
    os.link(bundle / "model.onnx", tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=r"model\.onnx: a hard link, .*copy the bundle \(cp -r\)"):
        Bundle(bundle)
    os.link(bundle / "manifest.json", tmp_path / "manifest")
    with pytest.raises(BundleError, match=r"manifest\.json: a hard link"):
        Bundle(bundle)


def test_hard_links_of_installers_are_no_danger(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uv and conda link a package's files to their store, ostree all of a read-only system."""
    os.link(bundle / "model.onnx", tmp_path / "elsewhere")
    with monkeypatch.context() as patch:
        patch.setattr("edgecnn.plain_files.SHIPPED", tmp_path)
        assert Bundle(bundle)
    found = os.statvfs(bundle)
    read_only = os.statvfs_result((*found[:8], found.f_flag | os.ST_RDONLY, found[9]))
    monkeypatch.setattr(os, "fstatvfs", lambda handle: read_only)
    assert Bundle(bundle)


def test_a_deep_folder_of_nothing_that_is_listed(bundle: Path) -> None:
    """Deeper than Python's recursion goes; a path of one piece would be too long."""
    here = Path.cwd()
    os.chdir(bundle)
    try:
        for _ in range(1500):
            os.mkdir("d")  # noqa: PTH102
            os.chdir("d")
        Path("f").touch()
        os.chdir(here)
        with pytest.raises(BundleError, match=r"/d/f: not listed"):
            Bundle(bundle)
    finally:
        os.chdir(here)
        subprocess.run(["rm", "-r", bundle], check=True)  # pytest could not


def test_what_is_opened_is_not_held_in_memory(tmp_path: Path) -> None:
    """A sparse file of 256 MiB: hashed block by block."""
    path = tmp_path / "big.edge"
    with write_bundle(path) as writer:
        writer.add("model.onnx", b"weights")
        writer.finish(manifest(writer.files))
    os.truncate(path / "model.onnx", 2**28)
    digest = hashlib.sha256((path / "model.onnx").read_bytes()).hexdigest()
    edit(path, files=[{"path": "model.onnx", "bytes": 2**28, "sha256": digest}])
    code = (
        "import resource, sys; from edgecnn.bundle import Bundle\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak(); Bundle(sys.argv[1]); print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64


def test_bytes_that_were_hashed_are_the_bytes_that_are_given_out(bundle: Path) -> None:
    """A file that is written to while it is read is refused, or given out as it was listed."""
    opened, stop = Bundle(bundle), threading.Event()

    def write() -> None:
        while not stop.is_set():
            for content in (b"weights", b"poisons"):
                (bundle / "model.onnx").write_bytes(content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            with suppress(BundleError):
                assert opened.read("model.onnx") == b"weights"
    finally:
        stop.set()
        writer.join()


def test_a_folder_in_the_place_of_a_file(bundle: Path) -> None:
    (bundle / "model.onnx").unlink()
    (bundle / "model.onnx").mkdir()
    with pytest.raises(BundleError, match=r"model\.onnx: not a plain file"):
        Bundle(bundle)


def test_fifo_does_not_hang(bundle: Path) -> None:
    (bundle / "model.onnx").unlink()
    os.mkfifo(bundle / "model.onnx")
    with pytest.raises(BundleError, match=r"model\.onnx: not a plain file"):
        Bundle(bundle)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a\\b",
        "",
        "a//b",
        "./a",
        "manifest.json",
        "a\nb",
        "a\x1b[2J",
        "a\0",
    ],
)
def test_unsafe_names_are_refused_before_they_are_opened(bundle: Path, name: str) -> None:
    edit(bundle, files=[{"path": name, "bytes": 1, "sha256": "0" * 64}], artifacts=[])
    with pytest.raises(BundleError, match="unsafe file name"):
        Bundle(bundle)


def test_newer_version(bundle: Path) -> None:
    edit(bundle, schema_version=99, something_new=True)
    with pytest.raises(
        BundleError, match=r"schema version 99 was written by a newer edgecnn .*upgrade edgecnn"
    ):
        Bundle(bundle)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a valid manifest"),
        ("{}", "missing required field `format`"),
        ("[" * 200_000, "not a valid manifest"),
        ('{"format": "zip", "schema_version": 1}', "format is 'zip', not 'edgecnn-bundle'"),
        (" " * (8 * 1024 * 1024 + 1), "a manifest has at most"),
        ('{"format": "edgecnn-bundle", "schema_version": 1, "name": "\ud800"}', "not a valid manifest"),
        (GOLDEN.read_text().replace('"name": "tiny"', '"a\\nb": 1'), "unknown field `a"),
    ],
)
def test_bad_manifests(bundle: Path, text: str, message: str) -> None:
    (bundle / "manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(BundleError, match=message) as caught:
        Bundle(bundle)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_as_a_manifest(data: bytes) -> None:
    with pytest.raises(BundleError):
        decode_manifest(data, "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": []}, "inputs and outputs must not be empty"),
        ({"schema_version": -5}, "schema_version"),
        ({"files": [{"path": "a", "bytes": 10**14, "sha256": "0" * 64}], "artifacts": []}, "bytes"),
        (
            {"files": [{"path": "a", "bytes": 2**63, "sha256": "0" * 64}], "artifacts": []},
            "bytes|not a valid",
        ),
        ({"files": [{"path": "a", "bytes": -1, "sha256": "0" * 64}], "artifacts": []}, "bytes"),
        (
            {"files": [{"path": "a", "bytes": 1, "sha256": "0" * 64}] * 2, "artifacts": []},
            "files names one twice",
        ),
    ],
)
def test_manifest_that_cannot_be_meant(bundle: Path, change: dict[str, object], message: str) -> None:
    edit(bundle, **change)
    with pytest.raises(BundleError, match=message):
        Bundle(bundle)


def test_artifact_ids_are_unique(bundle: Path) -> None:
    raw = json.loads((bundle / "manifest.json").read_text())
    edit(bundle, artifacts=raw["artifacts"] * 2)
    with pytest.raises(BundleError, match="artifacts names one twice"):
        Bundle(bundle)


def test_name_that_is_too_long() -> None:
    with pytest.raises(BundleError, match="File name too long"):
        Bundle("x" * 300)


def test_spec_in_a_manifest_is_checked(bundle: Path) -> None:
    raw = json.loads((bundle / "manifest.json").read_text())
    edit(bundle, spec=raw["spec"] | {"mean": [0.1, 0.2]})
    with pytest.raises(BundleError, match="mean has 2 values but color 'rgb' has 3 channels"):
        Bundle(bundle)


def test_artifact_must_be_listed(bundle: Path) -> None:
    raw = json.loads((bundle / "manifest.json").read_text())
    edit(bundle, artifacts=[raw["artifacts"][0] | {"path": "other.onnx"}])
    with pytest.raises(BundleError, match=r"artifact onnx-fp32 names other\.onnx, not listed"):
        Bundle(bundle)


def test_failed_write_leaves_the_old_bundle_and_nothing_beside(bundle: Path) -> None:
    def broken() -> None:
        with write_bundle(bundle) as writer:
            writer.add("model.onnx", b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert Bundle(bundle).read("model.onnx") == b"weights"
    assert [p.name for p in bundle.parent.iterdir()] == ["tiny.edge"]


def test_interrupt_while_the_bundle_is_put_into_place(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where names cannot be exchanged in one step: between the two renames the old bundle comes back."""
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if target == bundle and not self.name.endswith(".old"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr("edgecnn.bundle._exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), write_bundle(bundle) as writer:
        writer.add("model.onnx", b"new")
        writer.finish(manifest(writer.files))
    monkeypatch.undo()
    assert Bundle(bundle).read("model.onnx") == b"weights"
    assert [p.name for p in bundle.parent.iterdir()] == ["tiny.edge"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_reader_finds_a_bundle_at_any_moment(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    """At the moment of the exchange there is no time without a manifest; the fallback still replaces it."""
    if not exchange:
        monkeypatch.setattr("edgecnn.bundle._exchange", lambda one, other: False)
    gone, stop = [], threading.Event()

    def look() -> None:
        while not stop.is_set():
            if not (bundle / "manifest.json").exists():
                gone.append(True)

    reader = threading.Thread(target=look)
    reader.start()
    for index in range(60):
        with write_bundle(bundle) as writer:
            writer.add("model.onnx", str(index).encode())
            writer.finish(manifest(writer.files))
    stop.set()
    reader.join()
    assert Bundle(bundle).read("model.onnx") == b"59"
    assert [p.name for p in bundle.parent.iterdir()] == ["tiny.edge"]
    if exchange and sys.platform == "linux":
        assert gone == []


def test_bundle_without_a_manifest_replaces_nothing(bundle: Path) -> None:
    with pytest.raises(RuntimeError, match=r"finish\(\) was not called"), write_bundle(bundle) as writer:
        writer.add("model.onnx", b"new")
    assert Bundle(bundle).read("model.onnx") == b"weights"


def test_link_to_a_bundle_is_followed(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "current.edge").symlink_to(bundle)
    with write_bundle(tmp_path / "current.edge") as writer:
        writer.add("model.onnx", b"new")
        writer.finish(manifest(writer.files))
    assert (tmp_path / "current.edge").is_symlink()
    assert Bundle(bundle).read("model.onnx") == b"new"


def test_rewrite_replaces_the_whole(bundle: Path) -> None:
    with write_bundle(bundle) as writer:
        writer.add("model.onnx", b"new")
        writer.finish(manifest(writer.files))
    assert Bundle(bundle).read("model.onnx") == b"new"
    assert sorted(p.name for p in bundle.iterdir()) == ["manifest.json", "model.onnx"]
    assert [p.name for p in bundle.parent.iterdir()] == ["tiny.edge"]


def test_a_folder_that_is_no_bundle_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.edge").mkdir()
    (tmp_path / "thesis.edge" / "chapter1").write_text("years of work")
    with (
        pytest.raises(InputError, match=r"thesis\.edge: exists and is not a bundle"),
        write_bundle(tmp_path / "thesis.edge"),
    ):
        pass
    assert (tmp_path / "thesis.edge" / "chapter1").read_text() == "years of work"


def test_folder_with_some_manifest_is_not_overwritten(tmp_path: Path) -> None:
    """Other programs call files manifest.json too."""
    (tmp_path / "web.edge").mkdir()
    (tmp_path / "web.edge" / "manifest.json").write_text("{}")
    (tmp_path / "web.edge" / "mine.txt").write_text("mine")
    with (
        pytest.raises(InputError, match=r"web\.edge: exists and is not a bundle"),
        write_bundle(tmp_path / "web.edge"),
    ):
        pass
    assert (tmp_path / "web.edge" / "mine.txt").read_text() == "mine"


def test_bundle_with_something_else_in_it_is_not_overwritten(bundle: Path) -> None:
    (bundle / "notes.txt").write_text("mine")
    with (
        pytest.raises(InputError, match=r"holds notes\.txt, which is not of its bundle"),
        write_bundle(bundle),
    ):
        pass
    assert (bundle / "notes.txt").read_text() == "mine"


def test_altered_bundle_may_be_replaced(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"rotten")
    with write_bundle(bundle) as writer:
        writer.add("model.onnx", b"new")
        writer.finish(manifest(writer.files))
    assert Bundle(bundle).read("model.onnx") == b"new"


def test_bundle_is_not_written_into_another(bundle: Path) -> None:
    with (
        pytest.raises(InputError, match=r"lies inside the bundle .*tiny\.edge"),
        write_bundle(bundle / "in" / "a.edge"),
    ):
        pass
    assert Bundle(bundle)


@pytest.mark.parametrize("place", ["file/a.edge", "file/b/a.edge"])
def test_destination_in_a_file_is_refused_before_any_work(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"a\.edge: cannot be written"):
        checked_out(tmp_path / place)
    assert checked_out(tmp_path / "new" / "folder" / "a.edge").parent == tmp_path / "new" / "folder"


def test_destination_in_a_locked_folder_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(InputError, match=r"a\.edge: cannot be written \(.*: no permission to write there\)"):
        checked_out(tmp_path / "new" / "a.edge")


def test_destination_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(InputError, match=r"a\.edge: cannot be written"),
        write_bundle(tmp_path / "file" / "a.edge"),
    ):
        pass
