"""Pictures that would take too much memory are refused before they are decoded; the others take no
more than their kind is said to."""

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from dfc_jax.errors import PhotoError
from dfc_jax.photo import read_photo

# Reads each picture in a process of its own, and prints by how many bytes that one grew.
MEASURE = """
import os, sys
from dfc_jax.photo import read_photo

def memory(name):
    rows = [row for row in open("/proc/self/status") if row.startswith(name)]
    return int(rows[0].split()[1]) * 1024

for path in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        before = memory("VmRSS")
        read_photo(path)
        print(memory("VmHWM") - before, flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
# The strips that are converted at a time, and what a process needs besides.
SLACK_BYTES = 40_000_000


def peaks(paths: list[Path]) -> list[int]:
    """Peak memory of `read_photo`, in bytes."""
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is measured on Linux only")
    command = [sys.executable, "-c", MEASURE, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return [int(row) for row in done.stdout.split()]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def black_png(path: Path, width: int, height: int, pixel_bytes: int) -> Path:
    """A picture without colour, made without holding it: grey (1) or RGBA (4)."""
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 4: 6}[pixel_bytes], 0, 0, 0)
    packer, left = zlib.compressobj(1), height * (1 + width * pixel_bytes)
    packed = [packer.compress(bytes(1 << 20)) for _ in range(left >> 20)]
    packed += [packer.compress(bytes(left % (1 << 20))), packer.flush()]
    chunks = [(b"IHDR", header), (b"IDAT", b"".join(packed)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks))
    return path


def black_webp(path: Path, width: int, height: int) -> Path:
    """A picture of one colour, whose size stands in the header alone."""
    bits = (width - 1) | (height - 1) << 14 | 1 << 28
    data = b"\x2f" + struct.pack("<I", bits) + bytes.fromhex("071011118888fe07")
    chunk = b"VP8L" + struct.pack("<I", len(data)) + data + b"\0"
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk)
    return path


def tiled_tiff(path: Path, tile: int) -> Path:
    """A picture of 64 x 64 pixels in one far larger tile."""
    tags = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 324: 8, 325: 9}
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path.write_bytes(b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + rows + bytes(16))
    return path


def resized(path: Path, image: Image.Image, edge: int, **options) -> Path:
    """A small picture whose header says that it is a square of `edge` pixels; for reading heads."""
    image.save(path, **options)
    data = bytearray(path.read_bytes())
    if path.suffix == ".jpg":
        start = data.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0")
        data[start + 5 : start + 9] = struct.pack(">HH", edge, edge)
    elif path.suffix == ".gif":
        data[6:10] = struct.pack("<HH", edge, edge)
    else:
        for tag in (256, 257):  # of a TIFF
            entry = data.index(struct.pack("<HH", tag, 3))
            data[entry : entry + 12] = struct.pack("<HHII", tag, 4, 1, edge)
    path.write_bytes(data)
    return path


RGB, GREY = Image.new("RGB", (64, 64)), Image.new("L", (64, 64))
CMYK = Image.new("CMYK", (64, 64))
FLOAT = Image.fromarray(np.zeros((64, 64), np.float32))


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("wide.png", lambda p: black_png(p, 174_000_000, 1, 1), "an edge of more than 65535"),
        ("tall.png", lambda p: black_png(p, 1, 70_000, 1), "an edge of more than 65535"),
        ("rgba.png", lambda p: black_png(p, 10_500, 10_500, 1), "more than 110 megapixels"),
        ("screen.gif", lambda p: resized(p, GREY, 13_190), "more than 110 megapixels"),
        ("screen65535.gif", lambda p: resized(p, GREY, 65_535), "more than 110 megapixels"),
        ("plain.jpg", lambda p: resized(p, RGB, 10_500), "more than 110 megapixels"),
        (
            "progressive.jpg",
            lambda p: resized(p, RGB, 9_800, progressive=True, subsampling=0),
            "more than 95 megapixels",
        ),
        ("cmyk.jpg", lambda p: resized(p, CMYK, 9_000), "more than 79 megapixels"),
        ("large.webp", lambda p: black_webp(p, 8_000, 6_000), "more than 47 megapixels"),
        (
            "float.tiff",
            lambda p: resized(p, FLOAT, 13_190, compression="tiff_lzw", tiffinfo={278: 4}),
            "more than 110 megapixels",
        ),
        (
            "strip.tiff",
            lambda p: resized(p, FLOAT, 7_000, compression="tiff_lzw", tiffinfo={278: 2**32 - 1}),
            "more than 45 megapixels",
        ),
        ("tile.tiff", lambda p: tiled_tiff(p, 20_000), "megapixels"),
    ],
)
def test_what_would_take_a_gigabyte_is_refused_before_it_is_decoded(
    tmp_path, monkeypatch, name, make, words
):
    path = make(tmp_path / name)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(PhotoError, match=words) as caught:
        read_photo(path)
    assert name in str(caught.value)


def test_photographs_of_a_hundred_megapixels_are_not_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it was decoded"))
    kinds = {
        "plain.jpg": {"subsampling": 0},
        "usual.jpg": {"progressive": True},
        "strips.tiff": {"compression": "tiff_lzw", "tiffinfo": {278: 4}},
    }
    for name, options in kinds.items():
        path = resized(tmp_path / name, RGB, 10_000, **options)
        with pytest.raises(pytest.fail.Exception, match="it was decoded"):
            read_photo(path)


def test_a_file_of_gigabytes_is_refused_unread(tmp_path):
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(3_000_000_000)  # no blocks on the disk
    with pytest.raises(PhotoError, match=r"huge\.png: a file of more than 700 MB"):
        read_photo(path)


def test_metadata_that_unpacks_to_gigabytes_is_refused(tmp_path):
    path = black_png(tmp_path / "text.png", 8, 8, 1)
    text = zlib.compress(bytes(100 << 20), 9)
    for name, data in ((b"iCCP", b"x\0\0" + text), (b"iTXt", b"x\0\x01\0\0\0" + text)):
        start = path.read_bytes().index(b"IDAT") - 4
        whole = path.read_bytes()
        made = tmp_path / f"{name.decode()}.png"
        made.write_bytes(whole[:start] + png_chunk(name, data) + whole[start:])
        with pytest.raises(PhotoError, match="damaged"):
            read_photo(made)


@pytest.mark.slow
def test_reading_takes_no_more_memory_than_a_kind_is_said_to(tmp_path):
    edge = 3000
    stripes = np.zeros((edge, edge, 3), np.uint8)
    stripes[::2] = (200, 90, 30)
    image = Image.fromarray(stripes)
    indexed, grey = image.quantize(8), image.convert("L")
    strip = {"compression": "tiff_lzw", "tiffinfo": {278: edge, 274: 6}}
    turned = Image.Exif()
    turned[274] = 6
    kinds = [
        ("rgba.png", image.convert("RGBA"), 7.0, {"compress_level": 1}),
        ("transparent.gif", indexed, 7.0, {"transparency": 1, "disposal": 2}),
        ("grey16.png", Image.fromarray(np.asarray(grey).astype(np.uint16) * 200), 7.0, {}),
        ("turned.jpg", image, 7.0, {"exif": turned, "subsampling": 0}),
        ("progressive.jpg", image, 10.0, {"progressive": True, "subsampling": 0}),
        ("cmyk.jpg", image.convert("CMYK"), 12.0, {"progressive": True, "subsampling": 0}),
        ("float.tiff", Image.fromarray(np.asarray(grey).astype(np.float32)), 8.0, {}),
        ("strip.tiff", image, 21.0, strip),
        ("lossy.webp", image, 20.0, {"quality": 5, "method": 0}),
    ]
    for name, picture, _, options in kinds:
        picture.save(tmp_path / name, **options)
    found = peaks([tmp_path / name for name, *_ in kinds])
    for (name, _, pixel_bytes, _), peak in zip(kinds, found, strict=True):
        assert peak < pixel_bytes * edge**2 + SLACK_BYTES, name


@pytest.mark.slow
def test_the_largest_pictures_are_read_within_a_gigabyte(tmp_path):
    paths = [
        black_png(tmp_path / "rgba.png", 11_648, 9_440, 4),
        black_webp(tmp_path / "large.webp", 6_900, 6_880),
    ]
    assert all(os.path.getsize(path) < 3_000_000 for path in paths)
    assert max(peaks(paths)) < 1_000_000_000
