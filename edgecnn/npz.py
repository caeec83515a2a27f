"""Reading and writing npz files of plain arrays, with a bound on what they unpack to."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edgecnn.errors import BundleError, EdgeCnnError, InputError, first_line

__all__ = ["decode_npz", "encode_npz", "open_npz"]

DECODED_BYTES_MAX = 2**30


def encode_npz(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """An npz whose bytes depend on the arrays alone (numpy's own writes the time of day)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, member.getvalue())
    return buffer.getvalue()


def decode_npz(data: bytes, where: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an npz of a bundle; objects (pickles) are refused.

    Raises:
        BundleError: Not an npz of plain arrays, or it unpacks to more than 1 GiB.
    """
    with open_npz(io.BytesIO(data), where, BundleError, DECODED_BYTES_MAX) as arrays:
        return dict(arrays)


@contextmanager
def open_npz(
    file: BinaryIO, where: str, error: type[InputError], bytes_max: int
) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
    """The arrays of an npz by name, each read when it is asked for; objects (pickles) are refused.

    Args:
        file: Where it is read from.
        where: Its name, for messages.
        error: What to raise.
        bytes_max: All of it unpacked has no more than this.

    Raises:
        InputError: As ``error``: not an npz of plain arrays, or too large.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            # what is read of a member ends at the size that stands here, whatever its data unpack to
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > bytes_max:
            raise error(f"{where}: unpacks to {unpacked} bytes, at most {bytes_max} are read")
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            yield _Plain(arrays)
    except EdgeCnnError:
        raise
    except Exception as reason:  # what zipfile, its decompressors and numpy raise has no class in common
        raise error(f"{where}: not an npz of plain arrays ({first_line(reason)})") from reason


class _Plain(Mapping[str, npt.NDArray[Any]]):
    """The members of an npz that numpy reads; those that are no arrays are not handed out as bytes."""

    def __init__(self, archive: Mapping[str, Any]) -> None:
        self._archive = archive

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        value = self._archive[name]
        if not isinstance(value, np.ndarray):
            raise ValueError(f"{name} is no array")
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._archive)

    def __len__(self) -> int:
        return len(self._archive)
