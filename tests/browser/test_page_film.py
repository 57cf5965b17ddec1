"""Files that a browser shows wrongly: the page shows what the model sees."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pneumo.serving.access.api_keys import add_key
from pneumo.serving.images.decode import read_gray

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)").expect
pytestmark = pytest.mark.browser

EXPLAIN = "**/v1/explain*"
SIDE = 64
PIXELS = """async element => {
    await element.decode();
    const canvas = new OffscreenCanvas(element.naturalWidth, element.naturalHeight);
    const context = canvas.getContext("2d");
    context.drawImage(element, 0, 0);
    const { data, width, height } = context.getImageData(0, 0, canvas.width, canvas.height);
    return [height, width, btoa(String.fromCharCode(...data.filter((value, index) => index % 4 === 0)))];
}"""


def chest() -> np.ndarray:
    """Return 12 bits of a bright disk on a slope, uint16 [SIDE, SIDE]."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    disk = 2500 * (np.hypot(rows - 30, columns - 34) < 20)
    return (300 + 20 * columns + disk).clip(0, 4095).astype(np.uint16)


def png16(pixels: np.ndarray) -> bytes:
    """Write uint16 [h, w] or [h, w, 3] as a PNG of 16 bits."""
    height, width, *colours = pixels.shape
    rows = pixels.astype(">u2").reshape(height, -1)
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 16, 2 if colours else 0, 0, 0, 0),
        b"IDAT": zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)),
        b"IEND": b"",
    }
    chunks = (
        struct.pack(">I", len(each)) + kind + each + struct.pack(">I", zlib.crc32(kind + each))
        for kind, each in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff16(pixels: np.ndarray, photometric: int) -> bytes:
    """Write uint16 [h, w] as a TIFF of 16 bits, little-endian, in one strip."""
    height, width = pixels.shape
    data = pixels.astype("<u2").tobytes()
    entries = [
        (256, width),
        (257, height),
        (258, 16),
        (259, 1),
        (262, photometric),
        (273, 8),
        (277, 1),
        (278, height),
        (279, len(data)),
    ]
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(entries)) + table + bytes(4)


def hot() -> np.ndarray:
    pixels = chest()
    pixels[0, 0] = 4096
    return pixels


FILES = {
    "twelve.png": lambda: png16(chest()),
    "hot.png": lambda: png16(hot()),
    "full.png": lambda: png16(chest() * 16),
    "white0.tif": lambda: tiff16(65535 - chest() * 16, 0),
    "black0.tif": lambda: tiff16(chest() * 16, 1),
}


def shown(screen, selector: str) -> np.ndarray:
    height, width, pixels = screen.locate(selector).evaluate(PIXELS)
    return np.frombuffer(base64.b64decode(pixels), dtype=np.uint8).reshape(height, width)


@pytest.mark.parametrize("name", FILES)
def test_a_deep_image_is_shown_as_the_model_sees_it_in_the_list_and_large(screen, site, name):
    data = FILES[name]()
    expected = read_gray(data).gray
    screen.choose((name, data))
    screen.settled(1)
    expect(screen.locate(".picture")).to_be_visible()
    np.testing.assert_array_equal(shown(screen, ".picture"), expected)
    assert expected.max() > 150  # not the black that browsers make of it
    np.testing.assert_array_equal(shown(screen, ".film-picture"), expected)
    assert not any(name.encode() in body for body in site.bodies)


def test_a_deep_image_is_shown_where_keys_are_required(open_screen, bundle, serve_bundle, tmp_path):
    _, key = add_key(tmp_path / "keys.yaml", "ward")
    with serve_bundle(bundle, auth="on", keys=tmp_path / "keys.yaml") as locked:
        screen = open_screen(locked.address)
        screen.choose(("twelve.png", png16(chest())))
        expect(screen.locate("#key")).to_be_focused()
        screen.page.keyboard.type(key)
        screen.page.keyboard.press("Enter")
        screen.settled(1)
        expect(screen.locate(".picture")).to_be_visible()
        np.testing.assert_array_equal(shown(screen, ".picture"), read_gray(png16(chest())).gray)
        screen.page.close()


def test_an_ordinary_image_costs_no_second_request(screen):
    asked = []
    screen.page.on("request", lambda request: asked.append(request.url.rpartition("/v1/")[2]))
    screen.choose("a.png")
    screen.settled(1)
    expect(screen.locate(".picture")).to_be_visible()
    screen.page.wait_for_timeout(300)
    assert [path for path in asked if path.startswith("explain")] == []


def test_an_image_with_a_remark_is_shown_as_the_model_sees_it(screen):
    screen.answer_with(remarks=["a remark"])
    screen.page.unroute(EXPLAIN)
    image = Image.fromarray(np.dstack([chest() >> 4, chest() >> 5, chest() >> 6]).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    with screen.page.expect_response(EXPLAIN):
        screen.choose(("colour.png", buffer.getvalue()))
    expected = read_gray(buffer.getvalue()).gray
    screen.page.wait_for_function("() => document.querySelector('.picture').complete")
    np.testing.assert_array_equal(shown(screen, ".picture"), expected)


def test_a_picture_that_the_service_cannot_give_is_said(screen):
    screen.refuse(EXPLAIN, 500, "Internal Server Error", "the service failed")
    screen.choose(("twelve.png", png16(chest())))
    screen.settled(1)
    expect(screen.locate(".heat-words")).to_have_text("No picture: The service failed")
    expect(screen.locate(".picture")).to_be_hidden()
    expect(screen.locate(".no-film")).to_be_visible()
