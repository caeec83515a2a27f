"""Reading and writing bundles: a directory whose files are all listed and hashed in its manifest.

Nothing is parsed before its sha256 was compared: `Bundle.read` hands out the very bytes that were
hashed, so that a file that changes afterwards changes nothing. A bundle is written beside its
destination and renamed into place when it is whole.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy.typing as npt

from edgecnn.errors import BundleError, InputError
from edgecnn.manifest import (
    MANIFEST_BYTES_MAX,
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    decode_manifest,
)
from edgecnn.npz import decode_npz
from edgecnn.paths import cannot_write
from edgecnn.plain_files import open_plain, walk, write_through
from edgecnn.signing import SIGNATURE_BYTES, check_signature, signature_of

__all__ = [
    "GOLDEN_INPUT",
    "GOLDEN_NAME",
    "GOLDEN_OUTPUT",
    "SIGNATURE_NAME",
    "Bundle",
    "BundleWriter",
    "check_destination",
    "checked_out",
    "write_bundle",
]

SIGNATURE_NAME = "manifest.sig"
GOLDEN_NAME = "golden.npz"
GOLDEN_INPUT = "input"
GOLDEN_OUTPUT = "output."
NOT_LISTED = {MANIFEST_NAME, SIGNATURE_NAME}
BUNDLE_FILES_MAX = 1000
BLOCK_BYTES = 1 << 20


class Bundle:
    """A bundle on disk whose every file was found unaltered.

    Attributes:
        path: The directory.
        manifest: What stands in it.
        signed_by: The public key, a PEM file, that its signature was last found to belong to; None where
            none was asked for.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, public_key: str | os.PathLike[str] | None = None
    ) -> None:
        """Open and check a bundle: names, links, sizes and hashes of all files, nothing parsed.

        Args:
            path: The directory.
            public_key: Of whoever has to have signed it, a PEM file; checked before anything else.

        Raises:
            BundleError: Missing, altered, unlisted, linked, unsafe, or not signed; names the file.
        """
        self.path = Path(path)
        self.signed_by: Path | None = None
        manifest_path = self.path / MANIFEST_NAME
        try:
            is_folder = self.path.is_dir()
        except OSError as error:
            raise BundleError(f"{self.path}: {error.strerror}") from error
        if not is_folder:
            raise BundleError(
                f"{self.path}: no such bundle; a bundle is a directory that edgecnn convert writes"
                if not self.path.exists()
                else f"{self.path}: not a bundle (a bundle is a directory NAME.edge)"
            )
        if not manifest_path.is_file():
            raise BundleError(f"{self.path}: not a bundle, it holds no {MANIFEST_NAME}")
        self._manifest_bytes = _read_manifest(manifest_path)
        if public_key is not None:
            self.check_signature(public_key)
        self.manifest: Manifest = decode_manifest(self._manifest_bytes, where=str(manifest_path))
        self._files = {entry.path: entry for entry in self.manifest.files}
        self._check_listing()
        for entry in self.manifest.files:
            self._check_file(entry)

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r})"

    def read(self, name: str) -> bytes:
        """The bytes of a listed file, compared with its sha256 just now.

        Raises:
            BundleError: Not listed, missing or altered.
        """
        entry = self._files.get(name)
        if entry is None:
            raise BundleError(f"{self.path}: {name!r} is not listed in {MANIFEST_NAME}")
        with self._opened(entry) as file:
            data = file.read(entry.bytes)
        self._compare(hashlib.sha256(data), entry)
        return data

    def file(self, name: str) -> FileEntry:
        """Size and hash of a listed file."""
        return self._files[name]

    def golden(self) -> dict[str, npt.NDArray[Any]] | None:
        """Inputs and reference outputs: ``input`` uint8 (n, h, w, c) and ``output.NAME``; None if absent."""
        if GOLDEN_NAME not in self._files:
            return None
        return decode_npz(self.read(GOLDEN_NAME), where=str(self.path / GOLDEN_NAME))

    def sign(self, key: str | os.PathLike[str]) -> Path:
        """Sign the manifest that was read, in place of an older signature.

        Args:
            key: A private Ed25519 key, a PEM file.

        Returns:
            The signature's path.

        Raises:
            InputError: There is no such key, or the bundle cannot be written to.
            Unavailable: The disk is full.
            MissingDependency: cryptography is not installed.
        """
        signature = signature_of(self._manifest_bytes, key)
        path = self.path / SIGNATURE_NAME
        # in the bundle it would be a file too many for whoever opens it at that moment
        folder = Path(os.path.realpath(self.path))
        beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        try:
            write_through(beside, signature)
            beside.replace(path)
        except OSError as error:
            raise cannot_write(path, error) from error
        finally:
            beside.unlink(missing_ok=True)
        return path

    def check_signature(self, public_key: str | os.PathLike[str]) -> None:
        """See that the manifest that was read is signed by the owner of a key.

        Args:
            public_key: A public Ed25519 key, a PEM file.

        Raises:
            BundleError: It is not signed, or by another key.
            InputError: There is no such key.
            MissingDependency: cryptography is not installed.
        """
        path = self.path / SIGNATURE_NAME
        if not os.path.lexists(path):
            raise BundleError(
                f"{self.path}: not signed (no {SIGNATURE_NAME}), and a signature by the key "
                f"{os.fspath(public_key)} is required"
            )
        with open_plain(path) as file:
            signature = file.read(SIGNATURE_BYTES + 1)
        check_signature(self._manifest_bytes, signature, public_key, str(path))
        self.signed_by = Path(public_key)

    def _check_file(self, entry: FileEntry) -> None:
        """Compare a file with its sha256; no more than a block of it is held."""
        digest = hashlib.sha256()
        with self._opened(entry) as file:
            for _ in range(0, entry.bytes, BLOCK_BYTES):
                digest.update(file.read(BLOCK_BYTES))
        self._compare(digest, entry)

    @contextmanager
    def _opened(self, entry: FileEntry) -> Iterator[BinaryIO]:
        path = self.path / entry.path
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry.bytes:
                raise BundleError(f"{path}: {size} bytes, the manifest says {entry.bytes}; copy it again")
            yield file

    def _compare(self, digest: hashlib._Hash, entry: FileEntry) -> None:
        if digest.hexdigest() != entry.sha256:
            path = self.path / entry.path
            raise BundleError(f"{path}: altered, its sha256 is not the manifest's; copy the bundle again")

    def _check_listing(self) -> None:
        if len(self._files) > BUNDLE_FILES_MAX:
            raise BundleError(
                f"{self.path}: {len(self._files)} files, a bundle has at most {BUNDLE_FILES_MAX}"
            )
        for name in self._files:
            _check_name(name, self.path)
        for artifact in self.manifest.artifacts:
            for path in artifact.paths:
                if path not in self._files:
                    raise BundleError(f"{self.path}: artifact {artifact.id} names {path}, not listed")
        listed = {*self._files, *NOT_LISTED}
        for file in walk(self.path):
            name = file.relative_to(self.path).as_posix()
            if name not in listed:
                raise BundleError(
                    f"{file}: not listed in {MANIFEST_NAME}; remove it or copy the bundle again"
                )


class BundleWriter:
    """Collects the files of a bundle in a directory beside its destination."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._entries: list[FileEntry] = []

    def add(self, name: str, data: bytes) -> FileEntry:
        """Write one file and remember its hash."""
        _check_name(name, self.directory)
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_through(path, data)
        entry = FileEntry(path=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        self._entries.append(entry)
        return entry

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """What was added so far, for the manifest."""
        return tuple(self._entries)

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest, the last file."""
        write_through(self.directory / MANIFEST_NAME, manifest.encode())


def check_destination(path: Path) -> None:
    """Refuse a place where a bundle would destroy or disturb something else.

    Raises:
        InputError: Something is there that is not a bundle, or holds more than a bundle; or the place lies
            inside a bundle; or the path cannot be used.
    """
    try:
        inside = next((parent for parent in path.parents if (parent / MANIFEST_NAME).is_file()), None)
        if inside is not None:
            raise InputError(f"{path}: lies inside the bundle {inside}; choose another place")
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        listed = {file.path for file in decode_manifest(_read_manifest(path / MANIFEST_NAME), "").files}
        strange = [
            found.name
            for found in walk(path)
            if found.relative_to(path).as_posix() not in listed | NOT_LISTED
        ]
    except BundleError as error:
        raise InputError(f"{path}: exists and is not a bundle; choose another name or remove it") from error
    if strange:
        raise InputError(f"{path}: holds {strange[0]}, which is not of its bundle; move it away first")


def checked_out(out: str | os.PathLike[str]) -> Path:
    """The path of a bundle to write, checked before anything is computed for it.

    Raises:
        InputError: Its name does not end in ``.edge``, nothing can be written there, or as
            `check_destination`.
    """
    path = Path(out)
    if path.suffix != ".edge":
        raise InputError(f"{path}: a bundle's name ends in .edge")
    place = Path(os.path.realpath(path))
    check_destination(place)
    above = next(parent for parent in place.parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        reason = "no permission to write there" if above.is_dir() else "not a folder"
        raise InputError(f"{path}: cannot be written ({above}: {reason})")
    return path


@contextmanager
def write_bundle(path: str | os.PathLike[str]) -> Iterator[BundleWriter]:
    """Write a bundle: all of it or nothing; an older one at the same place stays until then.

    Raises:
        InputError: As `check_destination`, or its parent cannot be written.
        Unavailable: The disk is full.
    """
    path = Path(os.path.realpath(path))
    check_destination(path)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.mkdir()
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield BundleWriter(beside)
        if not (beside / MANIFEST_NAME).is_file():
            raise RuntimeError("write_bundle: finish() was not called")
        _swap(beside, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _swap(new: Path, path: Path) -> None:
    """Put a new bundle into the place of an old one, which then has the new one's former name."""
    if not path.exists():
        new.rename(path)
    elif not _exchange(new, path):
        old = path.with_name(f"{new.name}.old")
        path.rename(old)
        try:
            new.rename(path)
        except BaseException:
            old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change their names in one step, so that no reader finds neither; False where Linux
    (3.15, glibc 2.28) or the file system cannot.
    """
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of <fcntl.h> and <linux/fs.h>
    return bool(renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _check_name(name: str, bundle: Path) -> None:
    parts = PurePosixPath(name).parts
    plain = name == "/".join(parts) and "\\" not in name and name.isprintable()
    if not parts or not plain or name.startswith("/") or ".." in parts or name in NOT_LISTED:
        raise BundleError(f"{bundle}: unsafe file name {name!r} in {MANIFEST_NAME}")


def _read_manifest(path: Path) -> bytes:
    with open_plain(path) as file:
        return file.read(MANIFEST_BYTES_MAX + 1)
