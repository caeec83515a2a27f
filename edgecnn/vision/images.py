"""Image files to frames."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecnn.errors import MediaError, first_line
from edgecnn.vision.color import to_bgr
from edgecnn.vision.image_headers import Header, read_header
from edgecnn.vision.opencv import IMAGE_PIXELS_MAX, check_pixels, cv2

__all__ = ["IMAGE_SUFFIXES", "decode_image", "list_images", "read_image"]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
KINDS = "BMP, JPEG, PNG, PNM, TIFF, WebP"
PIXEL_BYTES_MAX = 8  # four channels of 16 bits, not compressed


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Find the images under a folder, at any depth, sorted by path; hidden ones are left out.

    Raises:
        MediaError: No such folder, no image in it, or a folder below it that cannot be listed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MediaError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    found = []
    try:
        for root, folders, files in os.walk(folder, onerror=_unreadable):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [
                Path(root, name)
                for name in files
                if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
            ]
    except RecursionError as error:  # of os.walk before Python 3.12
        raise MediaError(f"{folder}: its folders are too deep to be listed") from error
    if not found:
        raise MediaError(f"{folder}: holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return sorted(found)


def _unreadable(error: OSError) -> None:
    raise MediaError(f"{error.filename}: cannot be listed ({error.strerror})") from error


def read_image(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Read an image file.

    Gray, palette and CMYK images become BGR, 16 bits become 8 (``x / 257``, rounded), the EXIF
    rotation is applied, and alpha is dropped: the stored colours show, on no background.

    Returns:
        uint8 (H, W, 3) BGR.

    Raises:
        MediaError: Missing, empty, not an image, cut short, or larger than `IMAGE_PIXELS_MAX`.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > IMAGE_PIXELS_MAX * PIXEL_BYTES_MAX:
            raise MediaError(f"{path}: {size} bytes are more than {IMAGE_PIXELS_MAX} pixels can take")
        data = path.read_bytes() if size or path.is_dir() else b""  # a pipe would be waited for
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror})") from error
    return decode_image(data, str(path))


def decode_image(data: bytes, where: str) -> npt.NDArray[np.uint8]:
    """The image in the bytes of a file, as `read_image`; messages start with ``where``."""
    if not data:
        raise MediaError(f"{where}: the file is empty (0 bytes)")
    header = read_header(data)
    if header is None:
        raise MediaError(f"{where}: not an image that can be read ({KINDS})")
    _check(header, where)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except (cv2.error, MemoryError) as error:
        raise MediaError(f"{where}: cannot be decoded ({first_line(error)})") from error
    if image is None:
        raise MediaError(f"{where}: damaged {header.kind}")
    if image.dtype not in (np.uint8, np.uint16):
        raise MediaError(f"{where}: {image.dtype} pixels; images of 8 or 16 bits can be read")
    return to_bgr(image, "bgr")


def _check(header: Header, where: str) -> None:
    """Whether a decoder may be given it: it makes room for the size that the header claims."""
    if not header.complete:
        raise MediaError(f"{where}: the {header.kind} is cut short (the file ends before the image does)")
    if header.size_hw is None:
        raise MediaError(f"{where}: damaged {header.kind}")
    check_pixels(header.size_hw, where)
