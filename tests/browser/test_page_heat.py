"""Where the evidence lies, over the film."""

import io
import re

import numpy as np
import pytest

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)").expect
pytestmark = pytest.mark.browser

EXPLAIN = "**/v1/explain*"
SIZE = "element => element.decode().then(() => [element.naturalWidth, element.naturalHeight])"


@pytest.fixture
def dicom() -> bytes:
    """A DICOM image of 120 x 96 pixels."""
    pydicom = pytest.importorskip("pydicom")
    image = pydicom.Dataset()
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    image.SOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    image.SOPInstanceUID = pydicom.uid.generate_uid()
    image.Modality = "DX"
    image.PhotometricInterpretation = "MONOCHROME2"
    image.SamplesPerPixel, image.PixelRepresentation = 1, 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.Rows, image.Columns = 96, 120
    image.PixelData = np.random.default_rng(0).integers(0, 4096, (96, 120)).astype("<u2").tobytes()
    buffer = io.BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def test_the_slider_says_how_strongly_the_map_covers_the_film(screen):
    screen.locate("#sample").click()
    screen.settled(1)
    heat, film = screen.locate(".film-heat"), screen.locate(".film-picture")
    expect(heat).to_be_hidden()
    screen.locate(".show-heat").click()
    expect(heat).to_be_visible()
    expect(screen.locate(".heat-words")).to_contain_text("PNEUMONIA")
    assert heat.evaluate(SIZE) == film.evaluate(SIZE) == [256, 256]
    assert heat.bounding_box() == film.bounding_box()
    screen.page.get_by_role("slider", name="Heat map").fill("25")
    expect(heat).to_have_css("opacity", "0.25")
    screen.locate(".show-heat").click()
    expect(heat).to_be_hidden()


def test_a_heat_map_once_wanted_comes_with_the_next_image_too(screen):
    screen.choose("a.png", "b.png")
    screen.settled(2)
    screen.open("a.png")
    screen.locate(".show-heat").click()
    expect(screen.locate(".film-heat")).to_be_visible()
    first = screen.locate(".film-heat").get_attribute("src")
    screen.open("b.png")
    expect(screen.locate(".film-heat")).to_be_visible()
    assert screen.locate(".film-heat").get_attribute("src") != first
    screen.locate(".show-heat").click()
    expect(screen.locate(".film-heat")).to_be_hidden()


def test_window_zoom_and_pan_follow_the_pointer_and_another_image_starts_anew(screen):
    screen.choose("a.png", "b.png")
    screen.settled(2)
    screen.open("a.png")
    stage = screen.locate(".film-stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    view = "() => document.querySelector('.film-picture').style.transform"
    mouse = screen.page.mouse
    mouse.move(x, y)
    mouse.wheel(0, -1)  # scrolls the page: the image was not chosen
    assert "scale(1)" in screen.page.evaluate(view)
    stage.focus()
    box = stage.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse.move(x, y)
    mouse.wheel(0, -100)
    expect(screen.locate(".film-picture")).to_have_css("transform", re.compile(r"matrix\(1\.25, 0, 0, 1\.25,"))
    mouse.down()
    mouse.move(x + 10, y + 5)
    mouse.up()
    moved = re.search(r"translate\((\S+)px, (\S+)px\)", screen.page.evaluate(view))
    assert [float(each) for each in moved.groups()] == pytest.approx([10, 5], abs=1)
    screen.page.keyboard.down("Shift")
    mouse.down()
    mouse.move(x + 50, y + 45)
    mouse.up()
    screen.page.keyboard.up("Shift")
    slope = screen.locate(".film-filter feFuncR")
    expect(slope).to_have_attribute("slope", str(100 / 110))
    screen.page.get_by_role("slider", name="Level").fill("25")
    screen.page.get_by_role("slider", name="Window").fill("50")
    expect(slope).to_have_attribute("slope", "2")
    expect(slope).to_have_attribute("intercept", "0")  # gray 0 to 0.5 becomes 0 to 1
    screen.page.get_by_role("button", name="Invert").click()
    expect(slope).to_have_attribute("slope", "-2")
    expect(slope).to_have_attribute("intercept", "1")
    screen.open("b.png")
    expect(slope).to_have_attribute("slope", "1")
    assert "scale(1)" in screen.page.evaluate(view)


def test_a_heat_map_that_fails_says_so_and_can_be_asked_for_again(screen):
    screen.refuse(EXPLAIN, 500, "Internal Server Error", "the service failed")
    screen.choose("a.png")
    screen.settled(1)
    screen.locate(".show-heat").click()
    expect(screen.locate(".heat-words")).to_have_text("No heat map: The service failed")
    screen.page.unroute(EXPLAIN)
    screen.locate(".show-heat").click()
    expect(screen.locate(".film-heat")).to_be_visible()


@pytest.mark.parametrize("name", ["film.tif", "IM0001"])
def test_a_file_that_browsers_cannot_show_is_drawn_by_the_service(screen, film, dicom, name):
    screen.choose((name, film(kind="TIFF") if name == "film.tif" else dicom))
    screen.settled(1)
    expect(screen.locate(".picture")).to_be_visible()
    expect(screen.locate(".film-heat")).to_be_hidden()
    assert screen.locate(".picture").evaluate(SIZE) == [120, 96]
