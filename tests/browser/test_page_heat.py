"""Where the evidence lies, over the film."""

import io

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
    heat, film = screen.locate(".card .heat"), screen.locate(".card .picture")
    expect(heat).to_be_hidden()
    screen.locate(".show-heat").click()
    expect(heat).to_be_visible()
    expect(screen.locate(".heat-words")).to_contain_text("PNEUMONIA")
    assert heat.evaluate(SIZE) == film.evaluate(SIZE) == [256, 256]
    assert heat.bounding_box() == film.bounding_box()
    slider = screen.locate(".card input[type=range]")
    slider.fill("25")
    expect(heat).to_have_css("opacity", "0.25")
    screen.locate(".film").click()
    expect(screen.locate("#viewer-heat")).to_have_css("opacity", "0.25")
    screen.locate("#viewer-strength").fill("80")
    expect(screen.locate("#viewer-heat")).to_have_css("opacity", "0.8")
    screen.locate("#viewer-close").click()
    expect(heat).to_have_css("opacity", "0.8")
    screen.locate(".show-heat").click()
    expect(heat).to_be_hidden()


def test_heat_maps_for_all_reach_images_that_come_later_too(screen):
    screen.choose("a.png", "b.png")
    screen.settled(2)
    screen.locate("#heat-all").check()
    expect(screen.locate(".card .heat:visible")).to_have_count(2)
    screen.choose("c.png")
    expect(screen.locate(".card .heat:visible")).to_have_count(3)
    screen.locate("#heat-all").uncheck()
    expect(screen.locate(".card .heat:visible")).to_have_count(0)


def test_a_heat_map_that_fails_says_so_and_can_be_asked_for_again(screen):
    screen.refuse(EXPLAIN, 500, "Internal Server Error", "the service failed")
    screen.choose("a.png")
    screen.settled(1)
    screen.locate(".show-heat").click()
    expect(screen.locate(".heat-words")).to_have_text("No heat map: The service failed")
    screen.page.unroute(EXPLAIN)
    screen.locate(".show-heat").click()
    expect(screen.locate(".card .heat")).to_be_visible()


@pytest.mark.parametrize("name", ["film.tif", "IM0001"])
def test_a_file_that_browsers_cannot_show_is_drawn_by_the_service(screen, film, dicom, name):
    screen.choose((name, film(kind="TIFF") if name == "film.tif" else dicom))
    screen.settled(1)
    expect(screen.locate(".picture")).to_be_visible()
    expect(screen.locate(".card .heat")).to_be_hidden()
    assert screen.locate(".picture").evaluate(SIZE) == [120, 96]
    expect(screen.locate(".film")).to_be_enabled()
