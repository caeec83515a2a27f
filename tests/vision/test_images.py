from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest

from edgecnn.errors import MediaError
from edgecnn.vision import IMAGE_SUFFIXES, check_frame, list_images, read_image
from edgecnn.vision.image_headers import read_header
from edgecnn.vision.opencv import IMAGE_PIXELS_MAX, cv2
from tests.paths import data

pillow = pytest.importorskip("PIL.Image")


@pytest.fixture
def photo() -> np.ndarray:
    """RGB (24, 36), smooth so that JPEG keeps it."""
    y, x = np.mgrid[0:24, 0:36]
    return np.stack([x * 7, y * 10, 255 - x * 5], axis=2).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".webp", ".jpg"])
def test_formats(tmp_path: Any, photo: Any, suffix: Any) -> None:
    path = tmp_path / f"photo{suffix}"
    pillow.fromarray(photo).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    frame = read_image(path)
    check_frame(frame)
    expected = np.asarray(pillow.open(path).convert("RGB"))[:, :, ::-1].astype(int)
    assert np.abs(frame - expected).max() <= (12 if suffix == ".jpg" else 0)


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGBA", "RGB"])
def test_png_modes_become_bgr(tmp_path: Any, photo: Any, mode: Any) -> None:
    path = tmp_path / "image.png"
    image = pillow.fromarray(photo).convert(mode)
    image.save(path)
    frame = read_image(path)
    check_frame(frame)
    np.testing.assert_array_equal(frame, np.asarray(image.convert("RGB"))[:, :, ::-1])


def test_alpha_is_dropped_and_the_stored_colours_show(tmp_path: Any) -> None:
    path = tmp_path / "clear.png"
    pillow.fromarray(np.full((4, 4, 4), (200, 100, 50, 0), np.uint8)).save(path)
    assert read_image(path)[0, 0].tolist() == [50, 100, 200]


def test_palette_with_transparency(tmp_path: Any, photo: Any) -> None:
    path = tmp_path / "palette.png"
    image = pillow.fromarray(photo).quantize(16)
    image.save(path, transparency=3)
    np.testing.assert_array_equal(read_image(path), np.asarray(image.convert("RGB"))[:, :, ::-1])


def test_sixteen_bit_gray_is_rounded(tmp_path: Any) -> None:
    path = tmp_path / "deep.png"
    deep = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    pillow.fromarray(deep).save(path)
    assert read_image(path)[:, :, 0].tolist() == [[0, 0, 1, 1, 128, 255]]


def test_cmyk_jpeg(tmp_path: Any, photo: Any) -> None:
    path = tmp_path / "print.jpg"
    image = pillow.fromarray(photo).convert("CMYK")
    image.save(path, quality=98)
    frame = read_image(path)
    check_frame(frame)
    assert np.abs(frame - photo[:, :, ::-1].astype(int)).mean() < 4


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda x: x),
        (3, lambda x: x[::-1, ::-1]),
        (6, lambda x: np.rot90(x, -1)),
        (8, lambda x: np.rot90(x)),
        (2, lambda x: x[:, ::-1]),
    ],
)
def test_exif_rotation_is_applied(tmp_path: Any, photo: Any, orientation: Any, upright: Any) -> None:
    path = tmp_path / "phone.jpg"
    exif = pillow.Exif()
    exif[0x0112] = orientation
    pillow.fromarray(photo).save(path, exif=exif, quality=98)
    frame = read_image(path)
    expected = upright(photo)[:, :, ::-1]
    assert frame.shape == expected.shape
    assert np.abs(frame - expected.astype(int)).mean() < 6


def test_names_of_any_characters(tmp_path: Any, photo: Any) -> None:
    path = tmp_path / "фото 猫 100%d.png"
    pillow.fromarray(photo).save(path)
    assert read_image(str(path)).shape == (24, 36, 3)


def test_one_pixel(tmp_path: Any) -> None:
    pillow.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "dot.png")
    assert read_image(tmp_path / "dot.png").tolist() == [[[3, 2, 1]]]


def test_what_is_not_an_image_is_refused(tmp_path: Any) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_text("not an image")
    for name, message in [
        ("empty.jpg", r"empty.jpg: the file is empty \(0 bytes\)"),
        ("text.png", "text.png: not an image that can be read"),
        ("gone.png", r"gone.png: cannot be read \(No such file or directory\)"),
        (".", r"cannot be read \(Is a directory\)"),
    ]:
        with pytest.raises(MediaError, match=message) as raised:
            read_image(tmp_path / name)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
@pytest.mark.filterwarnings("ignore")
def test_an_image_that_is_cut_short_is_refused(tmp_path: Any, photo: Any, suffix: Any, part: Any) -> None:
    path = tmp_path / f"cut.{suffix}"
    pillow.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    assert read_header(whole).complete
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(MediaError, match=rf"cut.{suffix}: the (JPEG|PNG) is cut short"):
        read_image(path)


def test_a_thumbnail_does_not_end_the_photo(tmp_path: Any, photo: Any) -> None:
    path = tmp_path / "camera.jpg"
    pillow.fromarray(photo).save(path)
    plain = path.read_bytes()
    app1 = b"Exif\0\0" + plain  # an embedded JPEG, with its own end mark
    photo_bytes = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(app1) + 2) + app1 + plain[2:]
    assert read_header(photo_bytes).complete
    assert not read_header(photo_bytes[:-2]).complete
    assert read_header(photo_bytes).size_hw == (24, 36)


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


def tiff_claiming(order: str, big: bool, tags: dict[int, int]) -> bytes:
    head = (b"II" if order == "<" else b"MM") + struct.pack(
        order + ("HHHQ" if big else "HI"), *((43, 8, 0, 16) if big else (42, 8))
    )
    entry = order + ("HHQQ" if big else "HHII")
    return (
        head
        + struct.pack(order + ("Q" if big else "H"), len(tags))
        + b"".join(struct.pack(entry, tag, 16 if big else 4, 1, value) for tag, value in tags.items())
    )


def saved(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pillow.new("RGB", (24, 36)).save(buffer, kind, **options)
    return buffer.getvalue()


def patched(data: bytes, place: int, content: bytes) -> bytes:
    return data[:place] + content + data[place + len(content) :]


def jpeg_claiming(height: int, width: int) -> bytes:
    whole = saved("JPEG")
    return patched(whole, whole.index(b"\xff\xc0") + 5, struct.pack(">HH", height, width))


WEBP_LARGEST = 16383
BOMBS = {
    "png": (png_claiming(60_000, 50_000), (50_000, 60_000)),
    "jpeg": (jpeg_claiming(50_000, 60_000), (50_000, 60_000)),
    "bmp": (patched(saved("BMP"), 18, struct.pack("<ii", 60_000, -50_000)), (50_000, 60_000)),
    "bmp of OS/2": (b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 60_000, 50_000, 1, 24), (50_000, 60_000)),
    "ppm": (b"P6\n# a comment\n60000 50000\n255\n", (50_000, 60_000)),
    "pgm": (b"P2 60000\t50000 255\n", (50_000, 60_000)),
    "tiff": (tiff_claiming("<", False, {256: 60_000, 257: 50_000}), (50_000, 60_000)),
    "tiff of Motorola": (tiff_claiming(">", False, {256: 60_000, 257: 50_000}), (50_000, 60_000)),
    "tiff of 64 bits": (tiff_claiming("<", True, {256: 60_000, 257: 50_000}), (50_000, 60_000)),
    "tiff with a tile": (
        tiff_claiming("<", False, {256: 1, 257: 1, 322: 60_000, 323: 50_000}),
        (50_000, 60_000),
    ),
    "webp": (patched(saved("WEBP"), 26, struct.pack("<HH", WEBP_LARGEST, WEBP_LARGEST)), (WEBP_LARGEST,) * 2),
    "webp without loss": (patched(saved("WEBP", lossless=True), 21, b"\xff" * 4), (WEBP_LARGEST + 1,) * 2),
    "webp with more": (
        b"RIFF"
        + bytes(4)
        + b"WEBPVP8X"
        + bytes(8)
        + (59_999).to_bytes(3, "little")
        + (49_999).to_bytes(3, "little"),
        (50_000, 60_000),
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_an_image_that_claims_to_be_enormous_is_refused_before_decoding(
    tmp_path: Any, name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, (height, width) = BOMBS[name]
    monkeypatch.setattr(cv2, "imdecode", None)
    (tmp_path / "bomb.png").write_bytes(content)  # the suffix says nothing
    with pytest.raises(
        MediaError,
        match=rf"{height}×{width} px is more than the {IMAGE_PIXELS_MAX} pixels allowed \(OPENCV_IO_MAX",
    ):
        read_image(tmp_path / "bomb.png")


@pytest.mark.parametrize("kind", ["BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_sizes_are_those_of_the_picture(kind: str) -> None:
    header = read_header(saved(kind))
    assert header is not None
    assert (header.size_hw, header.complete) == ((36, 24), True)
    assert header.kind.upper() == kind.replace("PPM", "PNM")


def test_the_first_of_two_sizes_is_the_one_that_is_decoded() -> None:
    large, small = png_claiming(60_000, 60_000), png_claiming(2, 2)
    assert read_header(large[:33] + small[8:]).size_hw == (60_000, 60_000)


def test_a_photo_of_a_thousand_scans_is_refused(tmp_path: Any) -> None:
    """Each takes as long to decode as the whole picture."""
    whole = saved("JPEG", progressive=True)
    scan = whole.index(b"\xff\xda")
    (tmp_path / "slow.jpg").write_bytes(whole[:scan] + whole[scan:-2] * 1000 + whole[-2:])
    with pytest.raises(MediaError, match=r"slow\.jpg: damaged JPEG"):
        read_image(tmp_path / "slow.jpg")


@pytest.mark.parametrize("start", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_endless_empty_parts_are_not_followed(start: bytes) -> None:
    header = read_header(start + (b"\0\0\0\0tEXt\0\0\0\0" if b"PNG" in start else b"\xff") * 2_000_000)
    assert header is not None
    assert not header.complete


def test_other_formats_are_left_to_others(tmp_path: Any) -> None:
    """OpenCV has more decoders than an image folder needs."""
    (tmp_path / "a.png").write_bytes(saved("GIF"))
    assert cv2.imread(str(tmp_path / "a.png")) is not None
    with pytest.raises(
        MediaError, match=r"not an image that can be read \(BMP, JPEG, PNG, PNM, TIFF, WebP\)"
    ):
        read_image(tmp_path / "a.png")


def test_a_file_larger_than_any_picture_is_not_read(tmp_path: Any) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(8 * IMAGE_PIXELS_MAX + 1)
    with pytest.raises(MediaError, match=rf"{8 * IMAGE_PIXELS_MAX + 1} bytes are more than"):
        read_image(tmp_path / "a.png")


def test_a_pipe_is_not_waited_for(tmp_path: Any) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(MediaError, match=r"a\.png: the file is empty"):
        read_image(tmp_path / "a.png")


def limited(limit: str, code: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run code in a process where the variable has this value."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"OPENCV_IO_MAX_IMAGE_PIXELS": limit},
        capture_output=True,
        text=True,
    )


def test_the_limit_is_a_variable(tmp_path: Any) -> None:
    """Also where OpenCV was imported before, and has its own idea of it."""
    (tmp_path / "a.png").write_bytes(saved("PNG"))
    code = (
        "import cv2, sys; from edgecnn.errors import EdgeCnnError\n"
        "try:\n    from edgecnn.vision import read_image; print(read_image(sys.argv[1]).shape)\n"
        "except EdgeCnnError as error: print(error)"
    )
    assert limited("864", code, tmp_path / "a.png").stdout == "(36, 24, 3)\n"
    assert "36×24 px is more than the 863 pixels allowed" in limited("863", code, tmp_path / "a.png").stdout
    for wrong in ("", "many", "-1", "0"):
        assert limited(wrong, code.replace("cv2, ", ""), tmp_path / "a.png").stdout == (
            f"OPENCV_IO_MAX_IMAGE_PIXELS is {wrong!r}; it has to be a number of pixels\n"
        )


def test_a_megabyte_that_becomes_gigabytes_takes_no_memory(tmp_path: Any) -> None:
    """32768² pixels, which OpenCV by itself decodes: 2 GB."""
    side = 32768
    packed = zlib.compressobj(1)
    rows = (
        b"".join(packed.compress(bytes(1 + side // 8) * 1024) for _ in range(side // 1024)) + packed.flush()
    )
    bomb = png_claiming(side, side)
    bomb = (
        bomb[:24]
        + b"\x01\x00"
        + bomb[26:29]
        + struct.pack(">I", zlib.crc32(bomb[12:24] + b"\x01\x00" + bomb[26:29]))
        + bomb[33:]
    )
    idat = struct.pack(">I", len(rows)) + b"IDAT" + rows + struct.pack(">I", zlib.crc32(b"IDAT" + rows))
    (tmp_path / "bomb.png").write_bytes(bomb[:33] + idat + bomb[-12:])
    code = (
        "import resource, sys; from edgecnn.vision import read_image; from edgecnn.errors import MediaError\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak()\ntry: read_image(sys.argv[1])\nexcept MediaError: print(peak() - before)"
    )
    assert int(limited(str(2**27), code, tmp_path / "bomb.png").stdout) < 32


def test_headers_of_damaged_files_do_not_raise() -> None:
    rng = np.random.default_rng(5)
    png = png_claiming(3, 2)
    for start in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", png[:30]):
        for length in range(40):
            header = read_header(start + rng.bytes(length))
            assert header is not None
    assert read_header(b"GIF89a") is None
    assert read_header(png).size_hw == (2, 3)


def test_folders_are_listed_sorted_recursive_and_without_hidden_files(tmp_path: Any) -> None:
    for name in (
        "b.JPG",
        "a.png",
        "sub/c.Jpeg",
        "notes.txt",
        ".hidden.png",
        ".cache/d.png",
        "sub/deep/e.TIFF",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert found == ["a.png", "b.JPG", "sub/c.Jpeg", "sub/deep/e.TIFF"]


def test_folders_without_images_are_refused(tmp_path: Any) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(MediaError, match=r"holds no image \(\.bmp, \.jpeg, \.jpg") as raised:
        list_images(tmp_path)
    assert all(suffix in str(raised.value) for suffix in IMAGE_SUFFIXES)
    with pytest.raises(MediaError, match="no such folder"):
        list_images(tmp_path / "gone")
    with pytest.raises(MediaError, match="not a folder"):
        list_images(tmp_path / "notes.txt")


def test_folder_that_cannot_be_listed_is_named(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.png").touch()
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    # no permission can be taken from root, who may run this
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(MediaError, match=r"closed: cannot be listed \(Permission denied\)"):
        list_images(tmp_path)


def test_real_photos_as_pillow() -> None:
    paths = list_images(data("coco128/images"))
    assert len(paths) == 128
    for path in paths[:6]:
        expected = np.asarray(pillow.open(path).convert("RGB"))[:, :, ::-1].astype(int)
        assert np.abs(read_image(path) - expected).mean() < 2
