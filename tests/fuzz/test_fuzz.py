"""A slice of what `make fuzz` runs, and that its machinery sees what it is there for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.errors import BundleError, SpecError
from edgecnn.manifest import decode_manifest
from edgecnn.spec import ModelSpec
from edgecnn.vision import VideoReader
from tests.fuzz import campaign, run
from tests.fuzz.campaign import Tally
from tests.fuzz.containers import AVI, MATROSKA, MP4, Form, written
from tests.fuzz.mutation import mutant
from tests.fuzz.targets import CORPUS, TARGETS

MANIFEST = json.loads((CORPUS / "manifest" / "small.json").read_bytes())
SPEC = MANIFEST["spec"]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize("name", TARGETS)
def test_mutants_are_answered_or_refused(name: str) -> None:
    tally = campaign.run(name, TARGETS[name].slice, seed=1)
    assert tally.bad == {}
    assert tally.outcomes.total() == tally.done == TARGETS[name].slice
    # the corpus is alive: some get through, and not all do
    assert 0 < tally.outcomes["ok"] < tally.done


@pytest.mark.parametrize("name", TARGETS)
def test_the_files_that_mutants_are_made_of_are_good(name: str, tmp_path: Path) -> None:
    for number, data in enumerate(TARGETS[name].seeds):
        folder = tmp_path / str(number)
        folder.mkdir()
        if name != "bundle":  # whose other files are damaged by chance
            TARGETS[name].parse(data, folder)


def test_a_mutant_is_given_by_its_number() -> None:
    target = TARGETS["image"]
    one, again, other = (mutant(target.seeds, target.changes, "image", 0, n) for n in (5, 5, 6))
    assert one == again != other


@pytest.mark.parametrize(
    ("name", "form"), [("a.mp4", MP4), ("a.avi", AVI), ("a.mkv", MATROSKA), ("vp8.webm", MATROSKA)]
)
def test_a_container_is_written_as_it_was_read(name: str, form: Form, tmp_path: Path) -> None:
    data = (CORPUS / "video" / name).read_bytes()
    parts = list(form.read(data))
    assert any(isinstance(part.body, list) for part in parts)
    (tmp_path / name).write_bytes(written(parts, form))
    with VideoReader(tmp_path / name) as same, VideoReader(CORPUS / "video" / name) as whole:
        assert [image.tobytes() for image in same] == [image.tobytes() for image in whole]
    if form is not MATROSKA:  # which has more than one way to write a length
        assert (tmp_path / name).read_bytes() == data


@given(st.sampled_from(sorted(MANIFEST)), values)
def test_any_value_of_any_field_of_a_manifest(field: str, value: object) -> None:
    _decoded(MANIFEST | {field: value})


@given(st.sampled_from(sorted(SPEC)), values)
def test_any_value_of_any_field_of_a_spec(field: str, value: object) -> None:
    _decoded(MANIFEST | {"spec": SPEC | {field: value}})
    try:
        ModelSpec.from_dict(SPEC | {field: value})
    except SpecError as error:
        assert "\n" not in str(error)  # noqa: PT017


def _decoded(tree: object) -> None:
    try:
        decode_manifest(json.dumps(tree).encode("utf-8", "surrogatepass"), "m")
    except BundleError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A worker of a target whose mutants 3, 5 and 7 kill it, hang it, and raise what is not edgecnn's."""
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import os, sys, time\n"
        "for n in range(int(sys.argv[3]), int(sys.argv[4])):\n"
        "    print(n, 'begins', 0, 0, flush=True)\n"
        "    if n == 3: os.abort()\n"
        "    if n == 5: time.sleep(60)\n"
        "    print(n, 'foreign:KeyError' if n == 7 else 'ok', 0.25, 50, flush=True)\n"
    )
    monkeypatch.setattr(campaign, "WORKER", (str(worker),))
    monkeypatch.setattr(campaign, "LIMIT_S", 1.0)
    return worker


def test_deaths_hangs_and_other_errors_are_counted_and_gone_over(faulty: Path) -> None:
    tally = campaign.run("image", 10)
    assert tally.bad == {3: "died", 5: "hung", 7: "foreign:KeyError"}
    assert (tally.done, tally.outcomes["ok"], tally.slowest_s, tally.peak_mb) == (10, 7, 0.25, 50)


def test_a_run_goes_on_where_it_was_stopped(faulty: Path, tmp_path: Path) -> None:
    def stop(tally: Tally) -> None:
        tally.save(tmp_path / "kept.json")
        if tally.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        campaign.run("image", 10, on_progress=stop)
    kept = Tally.load(tmp_path / "kept.json")
    assert kept.bad == {3: "died"}
    whole = campaign.run("image", 10, tally=kept)
    assert whole.bad == {3: "died", 5: "hung", 7: "foreign:KeyError"}


def test_the_page_says_what_was_broken() -> None:
    good, broken = Tally(10), Tally(10, bad={1: "died", 4: "foreign:KeyError", 5: "foreign:OSError"})
    good.outcomes.update(ok=4, MediaError=6)
    text = run.page({"image": good, "onnx": broken}, {"spec": "fine"}, 0)
    assert "| 10 | 4 | MediaError 6 | 0 | 0 | 0 | 0.00 | 0 |" in text
    assert "| 10 | 0 |  | 1 | 0 | 2 | 0.00 | 0 |" in text
