import contextlib
import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, JpegImagePlugin, TiffImagePlugin

from pneumo.serving.contracts.errors import ImageError, InputError
from pneumo.serving.images.decode import prepare, read_gray, read_stored
from pneumo.serving.images.preparation import Preparation, Storage
from pneumo.serving.images.types import DECODING_RULES, Decode, Fit, Picture
from tests.support.paths import ROOT

RAMP = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (48, 1))
PREPARATION = Preparation(size=32, height=24, width=28)


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def store(data: bytes, size: int, how: Fit, decode: Decode) -> Picture:
    return read_stored(data, Storage(size=size, fit=how, decode=decode, rules=DECODING_RULES))


def reason_of(data: bytes, **options: int) -> str:
    with pytest.raises(ImageError) as caught:
        read_gray(data, **options)
    assert isinstance(caught.value, InputError)
    assert "\n" not in str(caught.value)
    return caught.value.reason


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


SAMPLES = {
    "png gray": encode(Image.fromarray(RAMP), "PNG"),
    "png 16 bit": encode(Image.fromarray(RAMP.astype(np.uint16) * 257), "PNG"),
    "png palette": encode(Image.fromarray(RAMP).convert("P"), "PNG"),
    "png rgba": encode(Image.fromarray(RAMP).convert("RGBA"), "PNG"),
    "jpeg gray": encode(Image.fromarray(RAMP), "JPEG"),
    "jpeg rgb": encode(Image.fromarray(RAMP).convert("RGB"), "JPEG", progressive=True),
    "jpeg cmyk": encode(Image.fromarray(RAMP).convert("RGB").convert("CMYK"), "JPEG"),
    "bmp": encode(Image.fromarray(RAMP), "BMP"),
    "tiff": encode(Image.fromarray(RAMP), "TIFF"),
    "tiff lzw 16 bit": encode(Image.fromarray(RAMP.astype(np.uint16)), "TIFF", compression="tiff_lzw"),
    "tiff float": encode(Image.fromarray(RAMP.astype(np.float32) / 255), "TIFF"),
    "webp": encode(Image.fromarray(RAMP).convert("RGB"), "WEBP", lossless=True),
}


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_gray_pixels_of_lossless_formats_come_through_unchanged(format):
    picture = read_gray(encode(Image.fromarray(RAMP), format))
    np.testing.assert_array_equal(picture.gray, RAMP)
    assert (picture.format, picture.mode, picture.width, picture.height) == (format, "L", 64, 48)


def test_a_gray_jpeg_is_close_to_what_was_saved():
    picture = read_gray(encode(Image.fromarray(RAMP), "JPEG", quality=95))
    assert picture.gray.dtype == np.uint8
    assert np.abs(picture.gray.astype(int) - RAMP).max() <= 6


@pytest.mark.parametrize("name", ["png palette", "png rgba", "jpeg rgb", "jpeg cmyk", "webp"])
def test_gray_in_a_colour_container_is_the_same_gray(name):
    assert np.abs(read_gray(SAMPLES[name]).gray.astype(int) - RAMP).max() <= 8


def test_colour_becomes_luma():
    pure = Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], dtype=np.uint8))
    assert read_gray(encode(pure, "PNG")).gray.tolist() == [[76, 150, 29]]


def test_sixteen_bits_keep_the_whole_range():
    pixels = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    picture = read_gray(encode(Image.fromarray(pixels), "PNG"))
    np.testing.assert_allclose(picture.gray, pixels / 257, atol=0.51)
    assert picture.mode.startswith("I")


def test_sixteen_bits_in_big_endian_tiff_are_read_in_the_right_order():
    pixels = np.array([[0, 1000], [30000, 65535]], dtype=">u2")
    content = encode(Image.frombytes("I;16B", (2, 2), pixels.tobytes()), "TIFF")
    assert read_gray(content).gray.tolist() == [[0, 4], [117, 255]]


def test_twelve_bits_in_a_sixteen_bit_container_are_not_dark():
    pixels = np.linspace(0, 4095, 256).astype(np.uint16).reshape(16, 16)
    gray = read_gray(encode(Image.fromarray(pixels), "PNG")).gray
    assert gray.min() == 0
    assert gray.max() == 255
    np.testing.assert_allclose(gray, pixels * (255 / 4095), atol=0.51)


@pytest.mark.parametrize("kind", ["png", "tiff", "tiff big endian", "int", "float", "unit float"])
def test_deep_pixels_are_scaled_and_rounded_alike_in_every_band(kind, monkeypatch):
    monkeypatch.setattr("pneumo.serving.images.grayscale._BAND", 1000)  # 3 rows a band; the last has 2
    for highest in (0, 1, 255, 260, 1000, 4095, 16_383, 16_600, 65_535):
        check_deep_pixels(kind, highest)


def check_deep_pixels(kind: str, highest: int) -> None:
    pixels = np.random.default_rng(highest).integers(0, highest + 1, (50, 300))
    pixels[-1] = highest  # what decides on the scale comes last
    white: float = next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if highest < 2**bits)
    if kind == "png":
        content = encode(Image.fromarray(pixels.astype(np.uint16)), "PNG")
    elif kind == "tiff":
        content = encode(Image.fromarray(pixels.astype(np.uint16)), "TIFF")
    elif kind == "tiff big endian":
        content = encode(Image.frombytes("I;16B", (300, 50), pixels.astype(">u2").tobytes()), "TIFF")
    elif kind == "int":
        content = encode(Image.fromarray(pixels.astype(np.int32)), "TIFF")
    elif kind == "float":
        content = encode(Image.fromarray(pixels.astype(np.float32)), "TIFF")
        white = 1.0 if highest <= 1 else white
    else:
        pixels = (pixels / 65_535).astype(np.float32).astype(np.float64)
        content, white = encode(Image.fromarray(pixels.astype(np.float32)), "TIFF"), 1.0
    expected = np.rint(pixels * (255 / white)).astype(np.uint8)
    np.testing.assert_array_equal(read_gray(content).gray, expected, err_msg=f"{kind} up to {highest}")


TURNS: list[Callable[[Any], Any]] = [np.array, np.fliplr, lambda a: np.rot90(a, 2), np.flipud]
TURNS += [np.transpose, lambda a: np.rot90(a, -1), lambda a: np.rot90(a, 2).T, np.rot90]


@pytest.mark.parametrize("mode", ["L", "I;16", "RGB", "RGBA", "P"])
def test_orientation_and_bands_change_no_pixel(mode, monkeypatch):
    rng = np.random.default_rng(0)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65_536, (40, 30)).astype(np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 256, (40, 30, 4)).astype(np.uint8)).convert(mode)
    upright = read_gray(encode(image, "PNG")).gray
    monkeypatch.setattr("pneumo.serving.images.grayscale._BAND", 100)
    for orientation, turn in enumerate(TURNS, start=1):
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned = read_gray(encode(image, "PNG", exif=exif)).gray
        np.testing.assert_array_equal(turned, turn(upright), err_msg=f"orientation {orientation}")


MEMORY = """
import os, pathlib, re, sys
from pneumo.serving.images.decode import read_gray

def memory(field):
    return int(re.search(field + r":\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024

small, *paths = map(pathlib.Path, sys.argv[1:])
read_gray(small.read_bytes())
for path in paths:
    if os.fork() == 0:
        data = path.read_bytes()
        before = memory("VmRSS")
        picture = read_gray(data)
        print(path.name, (memory("VmHWM") - before) / picture.gray.size, flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_decoding_takes_little_more_memory_than_the_pixels(tmp_path):
    side = 2500
    deep, unit = np.full((side, side), 4000, np.uint16), np.full((side, side), 0.5, np.float32)
    deflate = {"compression": "tiff_adobe_deflate"}
    files = {
        "small": SAMPLES["tiff lzw 16 bit"],
        "deep.png": encode(Image.fromarray(deep), "PNG", compress_level=1),
        "deep.tiff": encode(Image.fromarray(deep), "TIFF", **deflate),
        "float.tiff": encode(Image.fromarray(unit), "TIFF", **deflate),
        "rgba.png": encode(Image.fromarray(np.full((side, side, 4), 100, np.uint8)), "PNG", compress_level=1),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    command = [sys.executable, "-c", MEMORY, *(str(tmp_path / name) for name in files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    bytes_a_pixel = {name: float(value) for name, value in map(str.split, done.stdout.splitlines())}
    limits = {"deep.png": 4.0, "deep.tiff": 4.0, "float.tiff": 7.0, "rgba.png": 6.5}
    assert bytes_a_pixel.keys() == limits.keys()
    assert {name: used for name, used in bytes_a_pixel.items() if used >= limits[name]} == {}


def test_a_constant_deep_image_does_not_divide_by_zero():
    assert read_gray(encode(Image.fromarray(np.zeros((4, 4), np.uint16)), "PNG")).gray.max() == 0


def test_palette_transparency_lies_on_black():
    image = Image.new("P", (2, 1))
    image.putpalette([200, 200, 200, 100, 100, 100])
    image.putdata([0, 1])
    assert read_gray(encode(image, "PNG")).gray.tolist() == [[200, 100]]
    assert read_gray(encode(image, "PNG", transparency=0)).gray.tolist() == [[0, 100]]


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_lies_on_black(mode):
    image = Image.new("L", (3, 1), 200).convert(mode)
    image.putalpha(Image.fromarray(np.array([[0, 128, 255]], dtype=np.uint8)))
    gray = read_gray(encode(image, "PNG")).gray
    assert gray[0, 0] == 0
    assert abs(int(gray[0, 1]) - 100) <= 1
    assert gray[0, 2] == 200


def test_a_gray_level_that_means_transparent_lies_on_black():
    content = encode(Image.fromarray(RAMP), "PNG", transparency=252)
    expected = np.where(RAMP == 252, 0, RAMP)
    np.testing.assert_array_equal(read_gray(content).gray, expected)


def test_exif_orientation_turns_the_image_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to view
    content = encode(Image.fromarray(RAMP), "PNG", exif=exif)
    picture = read_gray(content)
    assert (picture.width, picture.height) == (48, 64)
    np.testing.assert_array_equal(picture.gray, np.rot90(RAMP, k=-1))


def test_bilevel_images_are_black_and_white():
    content = encode(Image.fromarray(RAMP > 100), "PNG")
    assert set(np.unique(read_gray(content).gray)) == {0, 255}


def test_float_tiff_from_zero_to_one_is_scaled_to_gray():
    np.testing.assert_array_equal(read_gray(SAMPLES["tiff float"]).gray, RAMP)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_float_tiff_with_impossible_values_is_refused(value):
    pixels = np.full((4, 4), 0.5, dtype=np.float32)
    pixels[1, 1] = value
    assert reason_of(encode(Image.fromarray(pixels), "TIFF")) == "unreadable"


@pytest.mark.parametrize("format", ["TIFF", "PNG", "WEBP"])
def test_several_frames_are_refused(format):
    frames = [Image.fromarray(RAMP).convert("RGB"), Image.fromarray(RAMP[:, ::-1].copy()).convert("RGB")]
    content = encode(frames[0], format, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="several frames") as caught:
        read_gray(content)
    assert caught.value.reason == "unreadable"


@pytest.mark.parametrize("decode", Decode)
def test_of_the_pictures_that_a_phone_embeds_in_a_jpeg_the_first_is_read(decode):
    first, second = Image.fromarray(RAMP), Image.fromarray(RAMP[:, ::-1].copy())
    content = encode(first, "MPO", save_all=True, append_images=[second], quality=95)
    assert getattr(Image.open(io.BytesIO(content)), "n_frames", 1) == 2
    picture = store(content, 64, Fit.PAD, decode)
    alone = store(encode(first, "JPEG", quality=95), 64, Fit.PAD, decode)
    np.testing.assert_array_equal(picture.gray, alone.gray)
    assert (picture.format, picture.rules) == ("JPEG", 1)


@pytest.mark.parametrize("format", ["TIFF", "PNG", "WEBP", "MPO"])
def test_a_single_frame_in_a_format_that_can_hold_several_is_read(format):
    content = encode(Image.fromarray(RAMP).convert("RGB"), format, save_all=True)
    assert read_gray(content).gray.shape == RAMP.shape


def test_a_tiff_of_many_frames_is_refused_without_reading_their_directories(monkeypatch):
    loaded = []
    load = TiffImagePlugin.ImageFileDirectory_v2.load

    def watched_load(self, file):
        loaded.append(1)
        return load(self, file)

    monkeypatch.setattr(TiffImagePlugin.ImageFileDirectory_v2, "load", watched_load)
    assert reason_of(tiff_of(32_000)) == "unreadable"
    assert len(loaded) <= 4


def tiff_of(frames: int) -> bytes:
    """A TIFF of gray frames of one pixel, which all lie at the same place."""
    fields = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 4, 278: 1, 279: 1}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
    size = 2 + len(entries) + 4
    directories = (
        struct.pack("<H", len(fields)) + entries + struct.pack("<I", 8 + number * size if number < frames else 0)
        for number in range(1, frames + 1)
    )
    return b"II*\0" + struct.pack("<I", 8) + b"".join(directories)


def test_the_handmade_tiff_of_one_frame_is_an_image():
    assert read_gray(tiff_of(1)).gray.shape == (1, 1)


def test_an_empty_file_is_unreadable():
    assert reason_of(b"") == "unreadable"


@pytest.mark.parametrize(
    "content", [b"hello, I am text", b"<svg/>", b"%PDF-1.7", b"\0" * 500, b"GIF89a" + b"\0" * 50, b"RIFF\0\0\0\0WAVE"]
)
def test_what_is_no_image_is_named_so(content):
    assert reason_of(content) == "not-an-image"


def cut(content: bytes, share: float) -> bytes:
    return content[: max(14, int(len(content) * share))]


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_truncated_image_is_unreadable(share):
    for name, content in SAMPLES.items():
        assert reason_of(cut(content, share)) == "unreadable", name


def test_an_image_that_lacks_its_end_is_unreadable_or_whole():
    assert reason_of(cut(SAMPLES["webp"], 0.9)) == "unreadable"
    for name, content in SAMPLES.items():
        with contextlib.suppress(ImageError):  # where all pixels were there, only trailing metadata was cut
            np.testing.assert_array_equal(read_gray(cut(content, 0.9)).gray, read_gray(content).gray, err_msg=name)


def test_an_image_cut_inside_its_header_is_unreadable_rather_than_no_image():
    for name in SAMPLES.keys() - {"bmp"}:
        assert reason_of(SAMPLES[name][:14]) == "unreadable", name


def test_fifty_megapixels_are_refused_before_pixels_take_memory():
    content = png_header(10_000, 5_000)
    tracemalloc.start()
    assert reason_of(content) == "too-large"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_a_bomb_beyond_pillows_own_limit_is_too_large():
    assert reason_of(png_header(60_000, 60_000)) == "too-large"


def test_the_pixel_limit_can_be_set():
    assert reason_of(SAMPLES["png gray"], max_pixels=64 * 48 - 1) == "too-large"
    assert read_gray(SAMPLES["png gray"], max_pixels=64 * 48).gray.shape == (48, 64)


def test_a_webp_may_have_a_third_of_the_pixels_since_one_takes_three_times_the_memory():
    assert reason_of(SAMPLES["webp"], max_pixels=3 * 64 * 48 - 1) == "too-large"
    assert read_gray(SAMPLES["webp"], max_pixels=3 * 64 * 48).gray.shape == (48, 64)


def smooth(height: int, width: int) -> np.ndarray:
    """Gray that differs everywhere, without the noise that a scaled decode averages otherwise."""
    y, x = np.mgrid[:height, :width]
    return (128 + 60 * np.sin(7 * x / width) + 60 * np.cos(5 * y / height) * x / width).astype(np.uint8)


@pytest.mark.parametrize("how", Fit)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_scaled_decode_keeps_place_and_brightness(how, mode):
    for height, width in ((523, 777), (777, 523), (401, 401), (64, 900), (900, 130)):
        content = encode(Image.fromarray(smooth(height, width)).convert(mode), "JPEG", quality=95)
        full, scaled = (store(content, 96, how, decode) for decode in Decode)
        apart = np.abs(full.gray.astype(int) - scaled.gray)
        assert apart.mean() < 0.5, (height, width)
        assert apart.max() <= 6, (height, width)
        assert (scaled.width, scaled.height, scaled.mode, scaled.format) == (width, height, mode, "JPEG")


@given(st.sampled_from(list(Fit)), st.integers(8, 900), st.integers(8, 900), st.integers(8, 120))
def test_a_scaled_decode_is_never_coarser_than_the_square_needs(how, height, width, size):
    content = encode(Image.new("L", (width, height), 90), "JPEG")
    drafted = []
    draft = JpegImagePlugin.JpegImageFile.draft

    def spy(self, mode, wanted):
        result = draft(self, mode, wanted)
        drafted.append(self.size)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JpegImagePlugin.JpegImageFile, "draft", spy)
        stored = store(content, size, how, Decode.SCALED)
    needed = size / (max(height, width) if how is Fit.PAD else min(height, width))
    for whole, kept in zip((width, height), drafted[0], strict=True):
        assert kept == whole or kept >= np.floor((size if how is Fit.SQUASH else whole * needed) - 0.5)
    assert stored.gray.shape == (size, size)


def test_a_large_jpeg_is_decoded_at_a_fraction(monkeypatch):
    content = encode(Image.fromarray(smooth(1200, 1500)), "JPEG")
    loaded = []
    load = JpegImagePlugin.JpegImageFile.load

    def watched_load(self):
        loaded.append(self.size)
        return load(self)

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", watched_load)
    store(content, 224, Fit.SQUASH, Decode.SCALED)
    assert set(loaded) == {(375, 300)}


@pytest.mark.parametrize("how", Fit)
@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_scaled_decode_turns_the_image_upright(how, mode):
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = encode(Image.fromarray(smooth(523, 777)).convert(mode), "JPEG", quality=95, exif=exif)
        full, scaled = (store(content, 96, how, decode) for decode in Decode)
        assert (full.width, full.height) == (scaled.width, scaled.height)
        assert (full.width, full.height) == ((777, 523) if orientation < 5 else (523, 777)), orientation
        assert np.abs(full.gray[:, 2:-2].astype(int) - scaled.gray[:, 2:-2]).mean() < 1.5, orientation


@pytest.mark.parametrize("how", Fit)
def test_files_of_other_formats_are_the_same_however_jpegs_are_decoded(how):
    for name in SAMPLES.keys() - {"jpeg gray", "jpeg rgb"}:
        full, scaled = (store(SAMPLES[name], 16, how, decode) for decode in Decode)
        np.testing.assert_array_equal(full.gray, scaled.gray, err_msg=name)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_gray_jpeg_of_the_stored_size_is_the_same_however_it_is_decoded(mode):
    content = encode(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96)).astype(np.uint8)).convert(mode), "JPEG"
    )
    full, scaled = (store(content, 96, Fit.SQUASH, decode) for decode in Decode)
    np.testing.assert_array_equal(full.gray, scaled.gray)


@given(st.binary(max_size=4000))
def test_arbitrary_bytes_give_an_image_or_an_image_error(data):
    gray_or_error(data)


@given(
    st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"RIFF\x10\0\0\0WEBPVP8 "]),
    st.binary(max_size=400),
)
def test_arbitrary_bytes_behind_a_known_signature_give_an_image_or_an_image_error(signature, data):
    gray_or_error(signature + data)


@given(st.sampled_from(sorted(SAMPLES)), st.sampled_from(sorted(SAMPLES)), st.data())
def test_spliced_files_give_an_image_or_an_image_error(one, other, data):
    head, tail = SAMPLES[one], SAMPLES[other]
    gray_or_error(head[: data.draw(st.integers(0, len(head)))] + tail[data.draw(st.integers(0, len(tail))) :])


@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_damaged_files_give_an_image_or_an_image_error(name, data):
    content = bytearray(SAMPLES[name])
    for _ in range(data.draw(st.integers(0, 4))):
        # Headers are short and hold what parsers trip over, so half of the damage goes there.
        end = data.draw(st.sampled_from([min(120, len(content)), len(content)]))
        content[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    gray_or_error(bytes(content[: data.draw(st.integers(0, len(content)))]))


def gray_or_error(data: bytes) -> None:
    for decode in Decode:
        try:
            prepared = prepare(data, PREPARATION.model_copy(update={"decode": decode}), max_pixels=1_000_000)
        except ImageError:
            continue
        assert prepared.shape == (1, 24, 28)
        assert 0 <= prepared.min() <= prepared.max() <= 1
