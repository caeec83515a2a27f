"""Signatures of bundles: whose they are, and that nothing else is loaded where one is required."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import edgecnn
from edgecnn.bundle import Bundle, write_bundle
from edgecnn.cli.main import main
from edgecnn.errors import BundleError, InputError, MissingDependency, Unavailable
from edgecnn.loading import open_bundle
from edgecnn.signing import new_key
from edgecnn.spec import ModelSpec
from tests.bundles import write_mean_color
from tests.stream.fakes import write_picture
from tests.stream.test_supervision import wait_for_lines, wait_for_text

pytest.importorskip("cryptography")

SPEC = ModelSpec(task="tensors", size_hw=(8, 8))
COLORS = ModelSpec(task="classification", size_hw=(8, 8), labels=("red", "green", "blue"), activation="none")


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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
@pytest.mark.parametrize("last", ["k.pem", "k.pub.pem"])
def test_a_full_disk_keeps_neither_key(
    tmp_path: Path, last: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def opened(path: Path, flags: int, mode: int, real: Callable[..., int] = os.open) -> int:
        number = real(path, flags, mode)
        if path.name != last:
            return number
        os.close(number)
        return real("/dev/full", os.O_WRONLY)

    with monkeypatch.context() as patch:
        patch.setattr("edgecnn.signing.os.open", opened)
        assert main(["sign", "--new-key", str(tmp_path / "k.pem")]) == 3
    [line] = capsys.readouterr().err.splitlines()
    assert f"{last}: cannot be written (No space left on device); free some space" in line
    assert list(tmp_path.iterdir()) == []
    assert main(["sign", "--new-key", str(tmp_path / "k.pem")]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--new-key", ""], "--new-key is empty"),
        (["--new-key", "."], "'.': not the name of a file"),
        (["--new-key", "/"], "'/': not the name of a file"),
        (["a.edge", "--key", ""], "--key is empty"),
        (["", "--key", "k.pem"], "BUNDLE is empty"),
    ],
)
def test_names_that_are_none(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sign", *words]) == 2
    assert message in capsys.readouterr().err
    with pytest.raises(InputError, match="'': not the name of a file"):
        new_key("")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without FIFOs")
def test_a_key_is_a_plain_file_or_a_link_to_one(signed: Path, key: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pem")
    with pytest.raises(InputError, match=r"pipe\.pem: cannot be read as a key \(not a plain file\)"):
        open_bundle(signed, tmp_path / "pipe.pem")
    (tmp_path / "link.pem").symlink_to(public(key))
    assert open_bundle(signed, tmp_path / "link.pem")


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


def test_a_key_that_is_given_goes_before_that_of_the_variable(
    signed: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_key(tmp_path / "other.pem")
    monkeypatch.setenv("EDGECNN_REQUIRE_SIGNATURE", str(tmp_path / "other.pub.pem"))
    for opens in (edgecnn.load, edgecnn.open_model):
        with opens(signed, runtime="ort", public_key=public(key)):
            pass
        with pytest.raises(BundleError, match="not a signature of its manifest by the key"):
            opens(signed, runtime="ort")


def test_an_empty_variable_is_an_error_and_no_device_that_loads_anything(
    signed: Path, key: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGECNN_REQUIRE_SIGNATURE", "")
    for call in (edgecnn.load, edgecnn.open_model, edgecnn.verify):
        with pytest.raises(
            InputError, match=r"^EDGECNN_REQUIRE_SIGNATURE is empty; name the file of a public"
        ):
            call(signed)
    assert open_bundle(signed, public(key))
    assert main(["bench", str(signed), "--runtime", "ort"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "EDGECNN_REQUIRE_SIGNATURE is empty" in line


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_a_predictor_that_travels_is_checked_where_it_arrives(
    signed: Path, key: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with edgecnn.load(
        signed, runtime="ort", public_key=public(key) if how == "argument" else None
    ) as predictor:
        sent = pickle.dumps(predictor)
    pickle.loads(sent).close()
    (signed / "manifest.sig").unlink()
    if how == "variable":
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
        ("private", r"a PRIVATE key, .* give the public one, as maker\.pub\.pem"),
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


@pytest.fixture
def classifier(tmp_path: Path, key: Path) -> Path:
    """A signed bundle that can be run, timed, tuned and evaluated."""
    bundle = write_mean_color(tmp_path / "colors.edge", COLORS)
    bundle.sign(key)
    return bundle.path


def arguments(command: str, bundle: Path) -> list[str]:
    """A command that loads a bundle and is soon done."""
    folder = bundle.parent / "pictures"
    for name in COLORS.labels:
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_picture(folder / name / "a.png")
    return {
        "run": ["run", str(bundle), "--source", str(folder), "--runtime", "ort", "-q"],
        "bench": ["bench", str(bundle), "--runtime", "ort", "--seconds", "0.01", "-q"],
        "eval": ["eval", str(bundle), "--data", str(folder), "--runtime", "ort", "-q"],
        "tune": ["tune", str(bundle), "--runtime", "ort", "--seconds", "0.01", "--threads", "1", "-q"],
    }[command]


COMMANDS = ("run", "bench", "eval", "tune")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_option_lets_a_bundle_of_its_maker_through_whatever_the_variable_says(
    classifier: Path, key: Path, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_key(tmp_path / "other.pem")
    monkeypatch.setenv("EDGECNN_REQUIRE_SIGNATURE", str(tmp_path / "other.pub.pem"))
    assert main(arguments(command, classifier)) == 2
    monkeypatch.chdir(tmp_path)
    assert main([*arguments(command, classifier), "--require-signature", public(key).name]) == 0
    assert os.environ["EDGECNN_REQUIRE_SIGNATURE"] == str(tmp_path / "other.pub.pem")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("unsigned", "not signed (no manifest.sig), and a signature by the key"),
        ("altered", "manifest.sig: not a signature of its manifest by the key"),
        ("another maker", "manifest.sig: not a signature of its manifest by the key"),
        ("no key file", "other.pub.pem: cannot be read as a key (No such file or directory)"),
        ("no key", "other.pub.pem: not a public key in PEM"),
    ],
)
def test_the_option_refuses_what_its_maker_has_not_signed_before_anything_is_parsed(
    classifier: Path,
    key: Path,
    tmp_path: Path,
    command: str,
    wrong: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wanted = public(key)
    if wrong == "unsigned":
        (classifier / "manifest.sig").unlink()
    elif wrong == "altered":
        with (classifier / "manifest.json").open("ab") as file:
            file.write(b" ")
    else:
        wanted = new_key(tmp_path / "other.pem")
        if wrong == "no key file":
            wanted.unlink()
        elif wrong == "no key":
            wanted.write_bytes(b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA maker")
    monkeypatch.setattr("edgecnn.bundle.decode_manifest", None)
    assert main([*arguments(command, classifier), "--require-signature", str(wanted)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert "EDGECNN_REQUIRE_SIGNATURE" not in os.environ


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--require-signature", ""], "empty; name the file of a public key"),
        (["--require-signature", "a.pem", "--require-signature", "b.pem"], "given more than once"),
    ],
)
def test_an_option_that_would_require_nothing_is_refused(
    classifier: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments("run", classifier), *more]) == 2
    assert message in capsys.readouterr().err
    with pytest.raises(InputError, match="cannot be read as a key"):
        edgecnn.load(classifier, public_key="")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a system without SIGHUP")
def test_a_reload_is_checked_too(classifier: Path, key: Path, tmp_path: Path) -> None:
    frame, out = np.full((8, 8, 3), (0, 0, 200), np.uint8).tobytes(), tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "edgecnn", "run", str(classifier), "--runtime", "ort", "--service"]
    command += ["--source", "-", "--frame-size", "8x8", "--json", str(out)]
    command += ["--require-signature", public(key).name]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(frame)
            process.stdin.flush()
            wait_for_lines(out, 1)
            (classifier / "manifest.sig").unlink()
            process.send_signal(signal.SIGHUP)
            wait_for_text(process, b"not reloaded, the old bundle stays: ")
            Bundle(classifier).sign(key)
            process.send_signal(signal.SIGHUP)
            wait_for_text(process, b"reloaded ")
            process.stdin.close()
            assert process.wait(60) == 0
        finally:
            process.kill()


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
