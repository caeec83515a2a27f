"""npz files: plain arrays go in and come out, and nothing else is read."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgecnn.calibration import draw_samples
from edgecnn.errors import BundleError, MediaError
from edgecnn.npz import decode_npz, encode_npz, open_npz
from edgecnn.spec import ModelSpec

SPEC = ModelSpec(task="classification", size_hw=(8, 8))


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def claiming(shape: str) -> bytes:
    """A zip of one npy whose header names a shape and that ends there."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return archive({"input.npy": b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header})


def test_bytes_depend_on_the_arrays_alone() -> None:
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.float32([1.5])}
    assert encode_npz(arrays) == encode_npz(arrays)
    back = decode_npz(encode_npz(arrays), "x")
    assert all(np.array_equal(back[k], v) and back[k].dtype == v.dtype for k, v in arrays.items())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no archive",
        npy(np.zeros(3)),
        encode_npz({"a": np.zeros(9)})[:-30],
        archive({"a.npy": npy(np.array([{"x": 1}], dtype=object))}),
        archive({"input.npy": b"no array"}),
        claiming(str((2**60,))),
        claiming(str((2**30, 2**30, 2**30))),
        claiming("(-1,)"),
        claiming("(" * 90),
    ],
    ids=[
        "empty",
        "text",
        "npy",
        "cut",
        "pickle",
        "bytes",
        "claims too much",
        "overflows",
        "negative",
        "deep",
    ],
)
def test_what_is_not_plain_arrays_is_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"^where: not an npz of plain arrays") as caught:
        decode_npz(data, "where")
    assert "\n" not in str(caught.value)
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(MediaError, match=r"a\.npz: not an npz of plain arrays"):
        draw_samples(tmp_path / "a.npz", SPEC)


def test_what_unpacks_to_too_much_is_refused_before_it_is_unpacked() -> None:
    bomb = encode_npz({"input": np.zeros(2**20, np.uint8)})
    assert len(bomb) < 2**20 // 500
    with (
        pytest.raises(MediaError, match="where: unpacks to 1048704 bytes, at most 1000000 are read"),
        open_npz(io.BytesIO(bomb), "where", MediaError, 10**6),
    ):
        pass
