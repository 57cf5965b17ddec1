import contextlib
import functools
import io
import json
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.images.decode import read_gray
from pneumo.serving.images.size_limits import MAX_SCANS, MAX_STEPS, find_excess
from pneumo.serving.images.tiff import read_page
from tests.support.dicoms import make_dicom
from tests.support.paths import ROOT

MEGABYTES = 16

Fields = dict[int, int | list[int]]
"""Size of the bombs that are large themselves; a request may have 20."""


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes, side: int = 8) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(side * (side + 1)))) if side < 1000 else b""
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + data + chunk(b"IEND")


def jpeg(header: bytes = b"") -> bytes:
    content = encode(Image.new("L", (64, 64)), "JPEG")
    return content[:2] + header + content[2:]


def jpeg_of_scans(count: int) -> bytes:
    content = encode(Image.new("L", (2000, 2000)), "JPEG", progressive=True)
    last = content[content.rfind(b"\xff\xda") : -2]
    return content[:-2] + last * count + content[-2:]


def jpeg_of_size(width: int, height: int) -> bytes:
    content = bytearray(jpeg())
    at = content.find(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def jpeg2000_of_size(side: int) -> bytes:
    content = encode(Image.new("L", (64, 64)), "JPEG2000", no_jp2=True)
    return content[:8] + struct.pack(">II", side, side) + content[16:]


def tiff(fields: Fields, data: bytes = b"") -> bytes:
    """A TIFF of LONG values, with `data` at its end."""
    entries, values = b"", b""
    start = 8 + 2 + 12 * len(fields) + 4
    for tag, value in fields.items():
        numbers = [value] if isinstance(value, int) else value
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        entries += struct.pack("<HHI", tag, 4, len(numbers))
        entries += packed if len(numbers) == 1 else struct.pack("<I", start + len(values))
        values += packed if len(numbers) > 1 else b""
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4) + values + data


def tiff_of_strips(count: int) -> bytes:
    fields: Fields = {256: 1, 257: count, 258: 8, 259: 1, 262: 1, 273: [8] * count, 278: 1, 279: [1] * count}
    return tiff(fields)


def tiff_of_a_tile(side: int, tile: int) -> bytes:
    content = zlib.compress(bytes(tile * tile), 1)
    fields: Fields = {
        256: side,
        257: side,
        258: 8,
        259: 8,
        262: 1,
        277: 1,
        322: tile,
        323: tile,
        324: 0,
        325: len(content),
    }
    fields[324] = len(tiff(fields))
    return tiff(fields, content)


def big_tiff_of_tags(count: int) -> bytes:
    entry = struct.pack("<HHQQ", 256, 4, 1, 8)
    return b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, count) + entry * count + bytes(8)


def tiff_of_tags_at_one_place(count: int, size: int) -> bytes:
    """Tags that all have the same bytes for their value."""
    entries = b"".join(struct.pack("<HHII", tag, 7, size, 14 + 12 * count) for tag in range(count))
    return b"II*\0" + struct.pack("<IH", 8, count) + entries + bytes(4) + bytes(size)


def bmp(width: int, height: int, compression: int, data: bytes) -> bytes:
    start = 54 + 1024
    head = b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start)
    return (
        (head + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, compression, len(data), 0, 0, 256, 0))
        + bytes(1024)
        + data
    )


def riff(kind: bytes, body: bytes) -> bytes:
    content = b"WEBP" + kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(content)) + content


def dicom_with(element: bytes, *, implicit: bool = False) -> bytes:
    """A small radiograph with a raw element before all others."""
    syntax: dict[str, Any] = {"syntax": ImplicitVRLittleEndian, "implicit": True} if implicit else {}
    content = make_dicom(np.zeros((8, 8), np.uint8), **syntax)
    start = content.find(b"\x08\x00\x16\x00")
    return content[:start] + element + content[start:]


def implicit_element(group: int, element: int, value: bytes) -> bytes:
    return struct.pack("<HHI", group, element, len(value)) + value


def runs(segments: int, data: bytes) -> bytes:
    return struct.pack("<16I", segments, 64, *[0] * 14) + data


def frame_of(content: bytes, syntax: str) -> bytes:
    return make_dicom(np.zeros((8, 8), np.uint8), frame=content, syntax=syntax)


def zipped(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def zip_of_one_file_many_times(count: int) -> bytes:
    """Entries that all point to the same ten megabytes."""
    content = zipped(("a.png", bytes(10_000_000)))
    start = content.rfind(b"PK\x01\x02")
    end = content.rfind(b"PK\x05\x06")
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count % 2**16, count % 2**16, (end - start) * count, start, 0)
    return content[:start] + content[start:end] * count + tail


def lying(content: bytes) -> bytes:
    """A zip whose directory says that its file has ten bytes."""
    start = content.rfind(b"PK\x01\x02")
    return content[: start + 24] + struct.pack("<I", 10) + content[start + 28 :]


MILLION = 1_000_000


@functools.cache
def zeros(wbits: int = 15) -> bytes:
    """Two hundred megabytes, compressed."""
    packer = zlib.compressobj(1, wbits=wbits)
    return packer.compress(bytes(200 * MILLION)) + packer.flush()


BOMBS: dict[str, Callable[[], bytes]] = {
    "a png of 3,600 megapixels": lambda: png(side=60_000),
    "a png of 50 real megapixels": lambda: encode(Image.new("L", (10_000, 5_000)), "PNG"),
    "a png with text": lambda: png(chunk(b"zTXt", b"k\0\0" + zeros())),
    "a png with a colour profile": lambda: png(chunk(b"iCCP", b"k\0\0" + zeros())),
    "a png of chunks": lambda: png(chunk(b"aaAa") * (MEGABYTES * MILLION // 12)),
    "a png with exif": lambda: png(chunk(b"eXIf", tiff_of_tags_at_one_place(65_000, 8 * MILLION))),
    "a jpeg of 4,225 megapixels": lambda: jpeg_of_size(65_000, 65_000),
    "a jpeg of scans": lambda: jpeg_of_scans(20_000),
    "a jpeg of comments": lambda: jpeg(b"\xff\xfe\0\x02" * (MEGABYTES * MILLION // 4)),
    "a jpeg of restarts": lambda: jpeg(b"\xff\xd0" * (MEGABYTES * MILLION // 2)),
    "a jpeg of junk": lambda: jpeg(bytes(MEGABYTES * MILLION)),
    "a jpeg of padding": lambda: jpeg(b"\xff" * (MEGABYTES * MILLION)),
    "a tiff of 3,600 megapixels": lambda: tiff(
        {256: 60_000, 257: 60_000, 258: 8, 259: 1, 262: 1, 273: 8, 278: 60_000, 279: 9}
    ),
    "a tiff of strips": lambda: tiff_of_strips(2 * MILLION),
    "a tiff of strips that is cut off": lambda: tiff_of_strips(2 * MILLION)[: 2 + 12 * 7],
    "a tiff of a tile": lambda: tiff_of_a_tile(1000, 15_000),
    "a tiff of tags": lambda: big_tiff_of_tags(MEGABYTES * MILLION // 20),
    "a webp of 268 megapixels": lambda: riff(b"VP8L", b"\x2f" + struct.pack("<I", 16_382 * (1 + 2**14)) + bytes(99)),
    "a webp below pillow's limit": lambda: riff(b"VP8L", b"\x2f" + struct.pack("<I", 12_999 * (1 + 2**14)) + bytes(99)),
    "a webp with a canvas": lambda: riff(b"VP8X", b"\x10\0\0\0" + (16_382).to_bytes(3, "little") * 2),
    "a webp with a canvas below its limit": lambda: riff(b"VP8X", b"\2\0\0\0" + (12_999).to_bytes(3, "little") * 2),
    "a bmp of 3,600 megapixels": lambda: bmp(60_000, 60_000, 0, bytes(100)),
    "a bmp of runs": lambda: bmp(4000, 4000, 1, b"\1\0" * (MEGABYTES * MILLION // 2)),
    "a dicom of 3,600 megapixels": lambda: make_dicom(np.zeros((8, 8), np.uint8), Rows=60_000, Columns=60_000),
    "a dicom of short runs": lambda: make_dicom(
        np.zeros((8, 8), np.uint8),
        frame=runs(1, b"\0\1" * (MEGABYTES * MILLION // 2)),
        syntax=RLELossless,
        Rows=3000,
        Columns=3000,
    ),
    "a dicom of long runs": lambda: frame_of(runs(1, b"\x81\0" * (MEGABYTES * MILLION // 2)), RLELossless),
    "a deflated dicom": lambda: deflated(),
    "a dicom of elements": lambda: dicom_with(implicit_element(9, 1, b"") * (MEGABYTES * MILLION // 8), implicit=True),
    "a dicom of nested sequences": lambda: dicom_with(
        (struct.pack("<HHI", 0x28, 0x3010, 2**32 - 1) + struct.pack("<HHI", 0xFFFE, 0xE000, 2**32 - 1)) * MILLION,
        implicit=True,
    ),
    "a dicom of items": lambda: dicom_with(
        implicit_element(0x28, 0x3010, struct.pack("<HHI", 0xFFFE, 0xE000, 0) * (MEGABYTES * MILLION // 8)),
        implicit=True,
    ),
    "a dicom of windows": lambda: dicom_with(
        implicit_element(0x28, 0x1050, b"1\\" * (MEGABYTES * MILLION // 2)), implicit=True
    ),
    "a dicom of half a megabyte of windows": lambda: dicom_with(
        implicit_element(0x28, 0x1050, b"1\\" * 2**18) + implicit_element(0x28, 0x1051, b"1\\" * 2**18), implicit=True
    ),
    "a dicom of character sets": lambda: dicom_with(
        implicit_element(8, 5, b"a\\" * (MEGABYTES * MILLION // 2)), implicit=True
    ),
    "a dicom of half a megabyte of character sets": lambda: dicom_with(
        implicit_element(8, 5, b"a\\" * 2**18), implicit=True
    ),
    "a dicom of frame offsets": lambda: frame_of(b"\0\0", JPEGBaseline8Bit).replace(
        b"\xfe\xff\x00\xe0" + struct.pack("<II", 4, 0),
        b"\xfe\xff\x00\xe0" + struct.pack("<I", 12 * MILLION) + b"abcd" * (3 * MILLION),
    ),
    "a dicom around a large jpeg": lambda: frame_of(jpeg_of_size(12_000, 12_000), JPEGBaseline8Bit),
    "a dicom around a large jpeg 2000": lambda: frame_of(jpeg2000_of_size(9000), JPEG2000Lossless),
    "a zip of 200 megabytes": lambda: zipped(("a.png", bytes(200 * MILLION))),
    "a zip that lies": lambda: lying(zipped(("a.png", bytes(200 * MILLION)))),
    "a zip of one file many times": lambda: zip_of_one_file_many_times(30),
    "a zip of entries": lambda: zip_of_one_file_many_times(250_000),
}


HARMLESS = {"a png with exif", "a dicom of long runs"}
"""What is read: Pillow reads no tags that are more than their file, and decoding stops at the size of the image."""


def deflated() -> bytes:
    plain = make_dicom(np.zeros((8, 8), np.uint8), syntax=DeflatedExplicitVRLittleEndian)
    (length,) = struct.unpack_from("<I", plain, 140)  # of the attributes that are not deflated
    return plain[: 144 + length] + zeros(-15)


SCRIPT = """
import json, os, pathlib, re, sys, time
from pneumo.serving.http.archive import ArchiveError, read_members
from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.images.decode import read_gray

def memory(field):
    return int(re.search(field + r":\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) / 1024

def cost(path):
    data = path.read_bytes()
    memory("VmRSS")
    before, began = memory("VmRSS"), time.process_time()
    try:
        if path.suffix == ".zip":
            for member in read_members(data, max_bytes=20_000_000, max_files=32):
                del member
        else:
            read_gray(data)
        outcome = "read"
    except (ImageError, ArchiveError) as error:
        outcome = str(error)
    return memory("VmHWM") - before, time.process_time() - began, outcome

folder = pathlib.Path(sys.argv[1])
for name in (".png", ".jpeg", ".tiff", ".webp", ".bmp", ".dcm"):  # what is imported once is no cost of a bomb
    read_gray((folder / f"warm{name}").read_bytes())
for path in sorted(folder.glob("bomb*")):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, json.dumps([path.stem, *cost(path)]).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    print(os.read(reader, 10_000).decode(), flush=True)
"""


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float, float, str]]:
    """Megabytes, seconds and outcome of reading each bomb, each in a process of its own."""
    folder = tmp_path_factory.mktemp("bombs")
    names = {}
    for number, (name, make) in enumerate(BOMBS.items()):
        names[f"bomb{number}"] = name
        (folder / f"bomb{number}{'.zip' if ' zip ' in f' {name} ' else ''}").write_bytes(make())
    for format in ("png", "jpeg", "tiff", "webp", "bmp"):
        (folder / f"warm.{format}").write_bytes(encode(Image.new("RGB", (8, 8)), format))
    noise = np.random.default_rng(0).integers(0, 4096, (64, 64)).astype(np.uint16)
    (folder / "warm.dcm").write_bytes(make_dicom(noise, BitsStored=12))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return {names[stem]: cost for stem, *cost in map(json.loads, done.stdout.splitlines())}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_a_bomb_is_refused_for_little_memory_and_computation(costs):
    assert {name for name, (*_, outcome) in costs.items() if outcome == "read"} == HARMLESS
    assert {name: megabytes for name, (megabytes, *_) in costs.items() if megabytes >= 50} == {}
    assert {name: seconds for name, (_, seconds, _) in costs.items() if seconds >= 10} == {}  # of a processor


@pytest.mark.parametrize(
    "content",
    [
        encode(Image.effect_noise((900, 700), 40), "JPEG", progressive=True),
        jpeg_of_scans(MAX_SCANS - 12),
        jpeg(b"\xff\xe1\xff\xff" + bytes(65_533)),
        png(*[chunk(b"aaAa")] * 1000),
        tiff_of_strips(MAX_STEPS),
        tiff_of_a_tile(1000, 1024),
        tiff_of_a_tile(16, 2048),
        encode(Image.new("RGB", (300, 3000)), "TIFF", compression="tiff_lzw"),
        encode(Image.new("P", (300, 300)), "TIFF"),
        encode(Image.new("RGB", (30, 30)), "BMP"),
    ],
)
def test_ordinary_files_are_no_bombs(content):
    assert find_excess(content) is None
    read_gray(content)


def test_the_number_of_tags_is_checked_before_they_are_read():
    assert read_page(big_tiff_of_tags(MAX_STEPS)).tags == {256: (8,)}
    with pytest.raises(ImageError, match="tags"):
        read_page(big_tiff_of_tags(MAX_STEPS + 1)[:100])


@pytest.mark.parametrize("start", [b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"II+\0", b"BM", b""])
@given(st.binary(max_size=100))
def test_any_header_is_judged(start, data):
    assert isinstance(find_excess(start + data), str | None)
    with contextlib.suppress(ImageError):
        read_page(start + data)
