"""No library writes to the service's log, or to its file descriptors, what it finds in a file."""

import logging
import struct

import pytest

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.images.decode import read_gray
from pneumo.serving.images.library_warnings import has_codec
from tests.support.rasters import draw_shares, quantise, write_plain_tiff, write_tiff

SHARES = draw_shares()
FILES = {
    f"{codec} {dtype}": write_tiff(quantise(SHARES, white, dtype), compression=codec)
    for codec in ("lzw", "zlib", "packbits", "zstd", "lzma")
    for dtype, white in (("u1", 255), ("u2", 65_535))
} | {
    "jpeg": write_tiff(quantise(SHARES, 255, "u1"), compression="jpeg"),
    "fax": write_plain_tiff({256: 64, 257: 64, 258: 1, 259: 4, 262: 0, 277: 1, 278: 64}, bytes(range(256))),
    "samples": write_plain_tiff({256: 8, 257: 8, 258: 8, 259: 1, 262: 2, 277: 70_000, 278: 8}, bytes(64)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_leaves_no_line_on_any_descriptor_or_log(name, capfd, caplog):
    content = FILES[name]
    for damage in range(16, len(content), 61):
        damaged = content[:damage] + bytes(40) + content[damage + 40 :]
        for data in (damaged, content[:damage]):
            try:
                read_gray(data)
            except ImageError as error:
                assert "\n" not in str(error)
    assert capfd.readouterr() == ("", "")
    assert caplog.record_tuples == []
    assert not logging.getLogger("PIL.TiffImagePlugin").isEnabledFor(logging.ERROR)


def test_the_codecs_of_pillows_libtiff_are_known():
    assert [has_codec(compression) for compression in (1, 5, 7, 8, 34661)] == [True, True, True, True, False]


def test_a_tiff_that_is_read_warns_of_nothing(capfd, recwarn):
    odd = write_tiff(quantise(SHARES, 255, "u1"), compression="lzw", extratags=[(50_000, "s", 0, "private", False)])
    assert read_gray(odd.replace(struct.pack("<HHI", 50_000, 2, 8), struct.pack("<HHI", 50_000, 2, 2**31))).gray.size
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
