"""TIFFs of every kind are read as tifffile reads them, or refused by name."""

import io
import itertools
import struct
from typing import Any

import numpy as np
import pytest
import tifffile

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.images.decode import read_gray
from pneumo.serving.images.samples import CLIPPED, CURVE
from pneumo.serving.images.tiff import read_page
from tests.support.rasters import PALE, draw_shares, quantise, to_luma, write_plain_tiff, write_tiff

SHARES = draw_shares()
DEPTHS = {"u1": 255, "u2": 65_535, "i4": 65_535, "f4": 1}
OTHER_DEPTHS = {"u4": 2**32 - 1, "i2": 32_767, "f2": 1, "f8": 1}
CODECS = [(None, False), ("lzw", False), ("lzw", True), ("zlib", True), ("packbits", False), ("zstd", True)]
LAYOUTS: list[dict[str, Any]] = [{"rowsperstrip": 10}, {"tile": (16, 32)}]


def reason_of(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        read_gray(data)
    return str(caught.value)


def assert_near(gray: np.ndarray, expected: np.ndarray, tolerance: float = 0.51) -> None:
    np.testing.assert_allclose(gray, expected, atol=tolerance)


@pytest.mark.parametrize("dtype", DEPTHS)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_gray_of_every_depth_order_layout_and_compression_is_what_tifffile_reads(dtype, order, photometric):
    white = DEPTHS[dtype]
    shares = 1 - SHARES if photometric == "miniswhite" else SHARES
    for (codec, predictor), layout, big in itertools.product(CODECS, LAYOUTS, [False, True]):
        samples = quantise(shares, white, dtype)
        content = write_tiff(
            samples,
            order=order,
            big=big,
            photometric=photometric,
            compression=codec,
            predictor=predictor or None,
            **layout,
        )
        if order == ">" and (big or (dtype in ("i4", "f4") and codec)):  # Pillow and libtiff disagree about these
            assert reason_of(content).startswith("unsupported: a TIFF with ")
            continue
        decoded = tifffile.imread(io.BytesIO(content)).astype(float) / white
        picture = read_gray(content)
        assert_near(picture.gray, 255 * (1 - decoded if photometric == "miniswhite" else decoded), 0.75)
        assert_near(picture.gray, 255 * SHARES, 0.75 if white > 255 or white == 1 else 1.1)
        assert picture.remarks == ()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_colours_of_every_order_layout_and_compression_are_what_tifffile_reads(order, planes):
    colours = quantise(SHARES[..., np.newaxis] * PALE, 255, "u1")
    for (codec, predictor), layout in itertools.product(CODECS, LAYOUTS):
        content = write_tiff(
            colours if planes == "contig" else np.moveaxis(colours, -1, 0),
            order=order,
            photometric="rgb",
            planarconfig=planes,
            compression=codec,
            predictor=predictor or None,
            **layout,
        )
        decoded = tifffile.imread(io.BytesIO(content)).astype(float)
        decoded = decoded if planes == "contig" else np.moveaxis(decoded, 0, -1)
        assert_near(read_gray(content).gray, to_luma(decoded), 2)


@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_cmyk_is_read_in_either_arrangement(planes):
    inks = SHARES[..., np.newaxis] * (0.3, 0.2, 0.1, 0.4)
    stored = quantise(inks if planes == "contig" else np.moveaxis(inks, -1, 0), 255, "u1")
    content = write_tiff(stored, photometric="separated", planarconfig=planes)
    assert_near(read_gray(content).gray, 255 * to_luma((1 - inks[..., :3]) * (1 - inks[..., 3:])), 3)


def test_other_deep_samples_are_refused_by_their_depth():
    deep: list[tuple[np.ndarray, dict[str, Any]]] = [
        *((quantise(SHARES, white, dtype), {}) for dtype, white in OTHER_DEPTHS.items()),
        *((quantise(SHARES, 2**bits - 1, "u2"), {"bitspersample": bits}) for bits in (10, 12, 14)),
        (quantise(np.dstack([SHARES] * 3), 65_535, "u2"), {"photometric": "rgb"}),
        (quantise(np.dstack([SHARES] * 2), 65_535, "u2"), {"planarconfig": "contig", "extrasamples": ["unassalpha"]}),
    ]
    for samples, options in deep:
        bits = options.get("bitspersample", 8 * samples.itemsize)
        content = write_tiff(samples, **options)
        assert reason_of(content).startswith(f"unsupported: a TIFF with such samples of {bits} bits"), (bits, options)


def test_twins_of_white_and_black_are_the_same_picture_and_the_white_one_follows_new_rules():
    black = read_gray(write_tiff(quantise(SHARES, 65_535, "u2")))
    white = read_gray(write_tiff(quantise(1 - SHARES, 65_535, "u2"), photometric="miniswhite"))
    assert np.abs(black.gray.astype(int) - white.gray).max() <= 1
    assert (black.rules, white.rules) == (1, 2)
    shallow = read_gray(write_tiff(quantise(1 - SHARES, 255, "u1"), photometric="miniswhite"))
    assert shallow.rules == 1


@pytest.mark.parametrize("dtype", ["u2", "f4"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_a_few_bright_pixels_do_not_change_a_guessed_depth(dtype, bits):
    samples = quantise(SHARES, 2**bits - 1, dtype)
    plain = read_gray(write_tiff(samples))
    samples[5, :8] = 32_767
    hot = read_gray(write_tiff(samples))
    assert_near(plain.gray, 255 * SHARES, 0.75 if bits > 8 else 1.1)
    assert np.array_equal(np.delete(hot.gray, 5, axis=0), np.delete(plain.gray, 5, axis=0))
    assert (hot.gray[5, :8] == 255).all()
    guessed = f"depth not declared, taken as {bits} bits"
    assert (plain.remarks, hot.remarks) == ((guessed,), (guessed, CLIPPED))
    assert (plain.rules, hot.rules) == (1, 2)


def test_a_black_border_does_not_change_a_guessed_depth():
    samples = np.zeros((400, 400), "u2")
    samples[10:47, 10:63] = quantise(SHARES, 65_535, "u2")
    assert_near(read_gray(write_tiff(samples)).gray[10:47, 10:63], 255 * SHARES)


@pytest.mark.parametrize("tag", [341, 281])
@pytest.mark.parametrize("bits", [10, 12])
def test_a_declared_maximum_is_the_depth_of_a_dark_image(tag, bits):
    dark = quantise(SHARES / 8, 2**bits - 1, "u2")
    dark[5, 5] = 2**bits
    content = write_tiff(dark, extratags=[(tag, "H", 1, 2**bits - 1, False)])
    picture = read_gray(content)
    assert_near(np.delete(picture.gray, 5, axis=0), np.delete(dark * (255 / (2**bits - 1)), 5, axis=0))
    assert picture.remarks == (CLIPPED,)


@pytest.mark.parametrize("maximum", [255, 3021])
def test_a_declared_maximum_that_is_no_depth_or_is_exceeded_is_not_believed(maximum):
    content = write_tiff(quantise(SHARES, 4095, "u2"), extratags=[(341, "H", 1, maximum, False)])
    picture = read_gray(content)
    assert_near(picture.gray, 255 * SHARES, 0.75)
    assert picture.remarks == ("depth not declared, taken as 12 bits",)


def test_floats_slightly_above_one_are_white():
    samples = SHARES.astype("f4")
    samples[5, 5] = 1.001
    picture = read_gray(write_tiff(samples))
    assert_near(np.delete(picture.gray, 5, axis=0), np.delete(255 * SHARES, 5, axis=0))
    assert (picture.remarks, picture.rules) == ((CLIPPED,), 2)


def test_floats_of_a_declared_maximum_are_scaled_by_it():
    content = write_tiff((SHARES * 200).astype("f4"), extratags=[(341, "f", 1, 1000.0, False)])
    assert_near(read_gray(content).gray, 51 * SHARES)


@pytest.mark.parametrize("samples", [SHARES.astype("f4") * 1e6, SHARES.astype("f8") * 1e300, np.full((4, 4), -1, "i2")])
def test_samples_without_a_scale_are_unsupported(samples):
    assert reason_of(write_tiff(samples)).startswith("unsupported")


@pytest.mark.parametrize("order", "<>")
def test_a_palette_of_8_bit_values_is_read_as_viewers_do(order):
    indices = quantise(SHARES, 255, "u1")
    levels = np.tile(np.arange(256, dtype="u2"), (3, 1))
    twins = [
        read_gray(write_tiff(indices, order=order, photometric="palette", colormap=colours))
        for colours in (levels * 257, levels)
    ]
    for picture in twins:
        np.testing.assert_array_equal(picture.gray, indices)
    assert [picture.rules for picture in twins] == [1, 2]


@pytest.mark.parametrize("extra", ["unassalpha", "assocalpha", "unspecified"])
@pytest.mark.parametrize("colours", [1, 3])
def test_extra_samples_are_alpha_only_if_the_file_says_so(extra, colours):
    alpha = np.where(np.arange(SHARES.shape[1]) < 20, 0.5, 1.0) * np.ones_like(SHARES)
    shown = SHARES * (alpha if extra != "unspecified" else 1)
    stored = SHARES * alpha if extra == "assocalpha" else SHARES
    samples = quantise(np.dstack([stored] * colours + [alpha]), 255, "u1")
    options: dict[str, Any] = {"photometric": "rgb" if colours == 3 else "minisblack", "extrasamples": [extra]}
    picture = read_gray(write_tiff(samples, planarconfig="contig", **options))
    assert_near(picture.gray, 255 * shown, 3)
    assert bool(picture.remarks) == (extra != "unspecified")


def test_a_response_curve_is_remarked():
    content = write_tiff(quantise(SHARES, 255, "u1"), extratags=[(291, "H", 256, list(range(256)), False)])
    assert read_gray(content).remarks == (CURVE,)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_pages_are_turned_upright_as_shallow_ones(orientation):
    tag = [(274, "H", 1, orientation, False)]
    shallow = read_gray(write_tiff(quantise(SHARES, 255, "u1"), extratags=tag))
    deep = read_gray(write_tiff(quantise(SHARES, 255, "u1").astype("u2") * 257, extratags=tag))
    np.testing.assert_array_equal(deep.gray, shallow.gray)
    assert (deep.width, deep.height) == (shallow.width, shallow.height)


GRAY = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 277: 1, 278: 8}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({259: 6, 262: 6, 277: 3, 258: (8, 8, 8)}, "old-style JPEG"),
        ({259: 34676, 262: 32844, 258: 16}, "LogLuv"),
        ({259: 34712}, "JPEG 2000"),
        ({259: 34887}, "LERC"),
        ({259: 34661, 258: 1}, "JBIG"),
        ({259: 4242}, "unknown compression"),
        ({262: 8, 277: 3, 258: (8, 8, 8)}, "CIELab"),
        ({262: 32845, 258: 32}, "LogLuv"),
        ({262: 32803, 258: 16}, "colour filter"),
        ({262: 4}, "a mask"),
        ({259: 7, 258: 12}, "12 bits"),
        ({259: 7, 258: 16}, "this compression"),
        ({262: 3, 258: 16}, "16 bits"),
        ({262: 6, 277: 3, 258: (8, 8, 8), 530: (2, 2)}, "stored in this way"),
        ({262: 5, 277: 4, 258: (8, 8, 8, 8), 332: 2}, "stored in this way"),
        ({277: 2, 258: (8, 8)}, "number of samples"),
        ({262: 2, 277: 3, 258: (5, 6, 5)}, "type"),
        ({339: 6, 258: 64}, "type"),
        ({258: 16, 266: 2}, "order of bits"),
    ],
)
def test_what_is_not_read_is_named(fields, named):
    reason = reason_of(write_plain_tiff(GRAY | fields, bytes(4096)))
    assert reason.startswith("unsupported: a TIFF with "), reason
    assert named in reason


def test_a_tiff_that_does_not_say_what_its_samples_mean_is_refused():
    fields = {tag: value for tag, value in GRAY.items() if tag != 262}
    assert "not declared" in reason_of(write_plain_tiff(fields, bytes(64)))


def test_a_tiff_compressed_by_what_pillow_lacks_is_unsupported():
    samples = quantise(np.dstack([SHARES] * 3), 255, "u1")
    content = write_tiff(samples, photometric="rgb", compression="webp", compressionargs={"lossless": True})
    assert "WebP compression" in reason_of(content)


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "rgb", "ycbcr"])
def test_jpeg_in_a_tiff_is_read(photometric):
    gray = quantise(SHARES, 255, "u1")
    samples = {"rgb": np.dstack([gray] * 3), "ycbcr": np.dstack([gray, gray * 0 + 128, gray * 0 + 128])}
    content = write_tiff(samples.get(photometric, gray), photometric=photometric, compression="jpeg", tile=(16, 16))
    decoded = tifffile.imread(io.BytesIO(content)).astype(float)
    decoded = to_luma(decoded) if decoded.ndim == 3 else decoded
    assert_near(read_gray(content).gray, 255 - decoded if photometric == "miniswhite" else decoded, 3)


FULL, SMALL = quantise(SHARES, 255, "u1"), np.full((8, 8), 77, "u1")
MASK = SHARES > 0.5
KINDS = {kind: {"subfiletype": kind, "photometric": "mask" if kind & 4 else "minisblack"} for kind in range(5)}


@pytest.mark.parametrize(("big", "order"), [(False, "<"), (False, ">"), (True, "<")])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("kinds", [(0, 1), (1, 0), (0, 4), (4, 1, 0), (1, 1, 0, 4), (2, 1), (1, 1, 1, 0)], ids=str)
def test_the_page_that_is_neither_reduced_nor_a_mask_is_read(kinds, deep, order, big):
    full = FULL.astype("u2") * 257 if deep else FULL
    pages = [MASK if kind & 4 else SMALL if kind & 5 else full for kind in kinds]
    content = write_tiff(*pages, order=order, big=big, each=[KINDS[kind] for kind in kinds])
    np.testing.assert_array_equal(read_gray(content).gray, FULL)


def test_old_subfile_types_count_too():
    each = [{"extratags": [(255, "H", 1, kind, False)]} for kind in (2, 1)]
    np.testing.assert_array_equal(read_gray(write_tiff(SMALL, FULL, each=each)).gray, FULL)


def test_a_full_page_below_a_thumbnail_is_read_and_reduced_ones_below_a_full_page_are_not():
    for kinds in ((1, 0), (0, 1)):
        buffer = io.BytesIO()
        with tifffile.TiffWriter(buffer) as writer:
            writer.write(SMALL if kinds[0] else FULL, subfiletype=kinds[0], subifds=1, metadata=None)
            writer.write(SMALL if kinds[1] else FULL, subfiletype=kinds[1], metadata=None)
        np.testing.assert_array_equal(read_gray(buffer.getvalue()).gray, FULL)


@pytest.mark.parametrize("kinds", [(0, 0), (1, 0, 1, 0), (1, 1), (2, 2), (4, 1)], ids=str)
def test_several_full_pages_or_none_among_several_are_refused(kinds):
    content = write_tiff(*[MASK if kind & 4 else FULL for kind in kinds], each=[KINDS[kind] for kind in kinds])
    assert reason_of(content) == "several frames; send one image per file"


def test_an_only_page_is_read_even_if_it_says_to_be_reduced():
    np.testing.assert_array_equal(read_gray(write_tiff(SMALL, subfiletype=1)).gray, SMALL)


def test_images_that_imagej_writes_behind_the_only_page_are_several_frames():
    for count, several in ((1, False), (2, True), (10, True)):
        content = write_tiff(FULL, description=f"ImageJ=1.54f\nimages={count}\nslices={count}\n")
        if several:
            assert "several frames" in reason_of(content)
        else:
            np.testing.assert_array_equal(read_gray(content).gray, FULL)


def test_a_chain_of_pages_that_never_ends_is_refused_or_read_in_few_steps(monkeypatch):
    directory = struct.pack("<HHHII", 1, 254, 4, 1, 1)  # a reduced image
    loop = b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 8)
    assert read_page(loop).following == 8
    chain = b"II*\0" + struct.pack("<I", 8)
    for number in range(1, 1000):
        chain += directory + struct.pack("<I", 8 + number * 18)
    with pytest.raises(ImageError, match="several frames"):
        read_page(chain)


def test_strips_that_are_missing_or_outside_the_file_are_damage():
    good = write_tiff(quantise(SHARES, 65_535, "u2"), rowsperstrip=10)
    page = read_page(good)
    for old, new in ((page.tags[273][1], len(good) + 5), (page.tags[279][0], 10)):
        changed = good.replace(struct.pack("<I", old), struct.pack("<I", new))
        if old == page.tags[273][1]:
            assert reason_of(changed).startswith("damaged")
    lzw = write_tiff(quantise(SHARES, 65_535, "u2"), rowsperstrip=10, compression="lzw")
    assert reason_of(lzw[:-900]).startswith("damaged") or "header" in reason_of(lzw[:-900])


def test_values_that_are_no_numbers_do_not_count_as_sizes():
    fields = struct.pack("<HHII", 322, 2, 20_000, 8) + struct.pack("<HHII", 323, 4, 1, 2**32 - 1)
    content = b"II*\0" + struct.pack("<IH", 8, 2) + fields + bytes(20_000)
    assert read_page(content).tags == {323: (2**32 - 1,)}
