"""Signatures of bundles: whose they are, and that nothing else is loaded where one is required."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgecnn
from edgecnn.bundle import Bundle, write_bundle
from edgecnn.cli.main import main
from edgecnn.errors import BundleError, InputError, MissingDependency, Unavailable
from edgecnn.loading import open_bundle
from edgecnn.signing import new_key
from edgecnn.spec import ModelSpec
from tests.bundles import write_mean_color

pytest.importorskip("cryptography")

SPEC = ModelSpec(task="tensors", size_hw=(8, 8))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A private key; the public one is ``public(key)``."""
    new_key(tmp_path / "maker.pem")
    return tmp_path / "maker.pem"


def public(key: Path) -> Path:
    return key.with_suffix(".pub.pem")


@pytest.fixture
def signed(tmp_path: Path, key: Path) -> Path:
    bundle = write_mean_color(tmp_path / "a.edge", SPEC)
    bundle.sign(key)
    return bundle.path


def test_a_signed_bundle_is_one_like_any_other(signed: Path, key: Path) -> None:
    assert (signed / "manifest.sig").stat().st_size == 64
    assert Bundle(signed).manifest == Bundle(signed, public_key=public(key)).manifest
    edgecnn.load(signed, public_key=public(key), runtime="ort").close()
    edgecnn.open_model(signed, public_key=public(key), runtime="ort").close()
    assert edgecnn.verify(signed, public_key=public(key), runtime="ort").ok


def test_keys_are_private_and_never_replaced(key: Path) -> None:
    assert key.stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" in key.read_bytes()
    assert b"PRIVATE" not in public(key).read_bytes()
    with pytest.raises(InputError, match=r"maker\.pem: exists; a key is never replaced"):
        new_key(key)
    key.unlink()
    with pytest.raises(InputError, match=r"maker\.pub\.pem: exists"):
        new_key(key)
    assert not key.exists()
    with pytest.raises(InputError, match=r"k\.pem: cannot be written \(No such file"):
        new_key(key.parent / "nowhere" / "k.pem")


def test_nothing_is_parsed_of_a_bundle_of_another_maker(
    signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_key(tmp_path / "other.pem")
    monkeypatch.setattr("edgecnn.bundle.decode_manifest", None)
    with pytest.raises(
        BundleError, match=r"manifest\.sig: not a signature of its manifest by the key .*other\.pub\.pem; the"
    ):
        Bundle(signed, public_key=tmp_path / "other.pub.pem")


@pytest.mark.parametrize("content", [b"", b"x" * 63, b"x" * 64, b"x" * 65, b"x" * 10**6])
def test_other_bytes_are_no_signature(signed: Path, key: Path, content: bytes) -> None:
    (signed / "manifest.sig").write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.sig: not a signature"):
        open_bundle(signed, public(key))


def test_a_changed_manifest_is_refused_and_a_changed_file_too(signed: Path, key: Path) -> None:
    whole = (signed / "manifest.json").read_bytes()
    (signed / "manifest.json").write_bytes(whole.replace(b'"a"', b'"b"'))
    assert Bundle(signed)
    with pytest.raises(BundleError, match=r"manifest\.sig: not a signature"):
        open_bundle(signed, public(key))
    (signed / "manifest.json").write_bytes(whole)
    (signed / "model.onnx").write_bytes(bytes((signed / "model.onnx").stat().st_size))
    with pytest.raises(BundleError, match=r"model\.onnx: altered"):
        open_bundle(signed, public(key))


@pytest.mark.parametrize("kind", ["link", "hard link", "folder"])
def test_a_signature_is_a_plain_file(signed: Path, key: Path, kind: str) -> None:
    (signed / "manifest.sig").rename(signed.parent / "signature")
    if kind == "link":
        (signed / "manifest.sig").symlink_to(signed.parent / "signature")
    elif kind == "hard link":
        (signed / "manifest.sig").hardlink_to(signed.parent / "signature")
    else:
        (signed / "manifest.sig").mkdir()
    with pytest.raises(BundleError, match=r"manifest\.sig: (a link|a hard link|not a plain file)"):
        open_bundle(signed, public(key))


def test_the_variable_holds_wherever_a_bundle_is_loaded(
    signed: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECNN_REQUIRE_SIGNATURE", str(public(key)))
    with edgecnn.load(signed, runtime="ort"):
        pass
    opened = Bundle(signed)
    (signed / "manifest.sig").unlink()
    for call in (edgecnn.load, edgecnn.open_model, edgecnn.verify, edgecnn.benchmark, edgecnn.tune):
        for bundle in (signed, opened, "face"):
            with pytest.raises(
                BundleError, match=r"not signed \(no manifest\.sig\), and a signature by the key"
            ):
                call(bundle)
    monkeypatch.setenv("EDGECNN_REQUIRE_SIGNATURE", "")
    assert open_bundle(signed)


def test_a_predictor_that_travels_is_checked_where_it_arrives(
    signed: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pickle

    with edgecnn.load(signed, runtime="ort") as predictor:
        sent = pickle.dumps(predictor)
    (signed / "manifest.sig").unlink()
    monkeypatch.setenv("EDGECNN_REQUIRE_SIGNATURE", str(public(key)))
    with pytest.raises(BundleError, match="not signed"):
        pickle.loads(sent)


def test_a_bundle_that_is_written_again_has_no_signature(signed: Path, key: Path) -> None:
    manifest, content = Bundle(signed).manifest, Bundle(signed).read("model.onnx")
    golden = Bundle(signed).read("golden.npz")
    with write_bundle(signed) as writer:
        for name, data in (("model.onnx", content), ("golden.npz", golden)):
            writer.add(name, data)
        with pytest.raises(BundleError, match=r"unsafe file name 'manifest\.sig'"):
            writer.add("manifest.sig", b"x" * 64)
        writer.finish(manifest)
    with pytest.raises(BundleError, match=r"not signed \(no manifest\.sig\)"):
        open_bundle(signed, public(key))
    Bundle(signed).sign(key)
    assert open_bundle(signed, public(key))


def test_signing_fails_without_a_trace(signed: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (signed / "manifest.sig").read_bytes()

    def full(path: Path, data: bytes) -> None:
        path.write_bytes(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgecnn.bundle.write_through", full)
    with pytest.raises(Unavailable, match=r"manifest\.sig: cannot be written \(No space left on device\)"):
        Bundle(signed).sign(key)
    assert (signed / "manifest.sig").read_bytes() == before
    assert sorted(path.name for path in signed.parent.iterdir()) == ["a.edge", "maker.pem", "maker.pub.pem"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot be read as a key \(No such file"),
        (b"", "not a public key in PEM"),
        (
            b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n",
            "not a public key in PEM",
        ),
        ("private", "not a public key in PEM"),
        ("rsa", "not an Ed25519 key; edgecnn sign --new-key makes a pair"),
    ],
)
def test_keys_that_are_none(signed: Path, key: Path, tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "bad.pem"
    if content == "private":
        path = key
    elif content == "rsa":
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        path.write_bytes(
            rsa.generate_private_key(65537, 2048)
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{path.name}: {message}"):
        open_bundle(signed, path)
    with pytest.raises(InputError, match=r"(bad|maker\.pub)\.pem: (not a private|cannot be read)"):
        Bundle(signed).sign(public(key) if content == "private" else path)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_openssl_makes_and_checks_the_same(signed: Path, key: Path, tmp_path: Path) -> None:
    def openssl(*words: object) -> str:
        return subprocess.run(
            ["openssl", *map(str, words)], capture_output=True, text=True, check=True
        ).stdout

    files = ["-in", signed / "manifest.json", "-sigfile", signed / "manifest.sig"]
    assert "Verified" in openssl("pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", public(key), *files)
    openssl("genpkey", "-algorithm", "ed25519", "-out", tmp_path / "its.pem")
    openssl("pkey", "-in", tmp_path / "its.pem", "-pubout", "-out", tmp_path / "its.pub.pem")
    made = ["-in", signed / "manifest.json", "-out", signed / "manifest.sig"]
    openssl("pkeyutl", "-sign", "-rawin", "-inkey", tmp_path / "its.pem", *made)
    assert open_bundle(signed, tmp_path / "its.pub.pem")


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, key = write_mean_color(tmp_path / "a.edge", SPEC).path, tmp_path / "k.pem"
    check = ["verify", str(bundle), "--runtime", "ort", "--key", str(public(key))]
    assert main(["sign", "--new-key", str(key)]) == 0
    assert f"{public(key)}: for the devices" in capsys.readouterr().out
    assert main(check) == 2
    assert "not signed (no manifest.sig)" in capsys.readouterr().err
    assert main(["sign", str(bundle), "--key", str(key)]) == 0
    assert capsys.readouterr().out == f"{bundle}/manifest.sig: written\n"
    assert main(check) == 0


@pytest.mark.parametrize("words", [[], ["a.edge"], ["--key", "k"], ["a.edge", "--new-key", "k"]])
def test_commands_that_say_too_little_or_too_much(words: list[str]) -> None:
    assert main(["sign", *words]) == 2


def test_without_cryptography_the_cure_is_named(signed: Path, key: Path) -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None; sys.modules['cryptography.hazmat'] = None\n"
        "from edgecnn.cli.main import main; main(['verify', sys.argv[1], '--key', sys.argv[2]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(signed), str(public(key))], capture_output=True, text=True
    )
    assert done.stderr.endswith("try: pip install 'edgecnn[sign]'\n")
    assert issubclass(MissingDependency, ImportError)
