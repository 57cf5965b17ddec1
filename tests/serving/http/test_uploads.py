import base64
import io
import json
import tempfile
import threading
import tracemalloc
import zipfile
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from starlette.requests import Request

from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.http.uploads import MAX_FILENAME, read_uploads
from pneumo.serving.inference.decoding import Upload

LIMITS = {"max_bytes": 100_000, "max_images": 4}


def received(media_type: str, body: bytes, **limits: int) -> list[Upload]:
    """What becomes of a body that comes in two pieces."""
    pieces = [body[: len(body) // 2], body[len(body) // 2 :]]

    async def receive():
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def read():
        request = Request({"type": "http", "headers": [(b"content-type", media_type.encode())]}, receive)
        return await read_uploads(request, **(LIMITS | limits))

    return anyio.run(read)


def refused(kind: str, media_type: str, body: bytes, **limits: int) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        received(media_type, body, **limits)
    assert caught.value.kind == kind
    assert "\n" not in caught.value.detail
    return caught.value


def form(*files: tuple[str, bytes]) -> tuple[str, bytes]:
    parts = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\n%b\r\n' % (name.encode(), content)
        for name, content in files
    )
    return "multipart/form-data; boundary=x", parts + b"--x--\r\n"


def zipped(*files: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return buffer.getvalue()


def as_json(*images: dict[str, Any]) -> bytes:
    return json.dumps({"images": images}).encode()


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


JSON, ZIP = "application/json", "application/zip"


@pytest.mark.parametrize("media_type", ["image/png", "application/dicom", "application/octet-stream"])
def test_a_raw_body_is_one_image_without_a_name(media_type):
    assert received(media_type, b"pixels") == [Upload(None, b"pixels")]


def test_images_in_base64_come_with_their_names():
    body = as_json({"filename": "a.png", "data": b64(b"\0\xff one")}, {"data": b64(b"two")})
    assert received(JSON + "; charset=utf-8", body) == [Upload("a.png", b"\0\xff one"), Upload(None, b"two")]


def test_data_urls_are_taken():
    assert received(JSON, as_json({"data": f"data:image/png;base64,{b64(b'x')}"})) == [Upload(None, b"x")]


@pytest.mark.parametrize("text", ["eA", "e A=", "eA==\n", "eA==eA==", "-_-_", "höchst", "data:image/png,eA==", "x" * 9])
def test_what_is_not_strictly_base64_is_refused_with_its_place(text):
    body = as_json({"data": b64(b"good")}, {"filename": "bad.png", "data": text})
    problem = refused("wrong-fields", JSON, body)
    assert (problem.index, problem.filename) == (1, "bad.png")
    assert "images.1.data" in problem.detail


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "unreadable-body"),
        (b"{", "unreadable-body"),
        (b"\xff\xfe", "unreadable-body"),
        (b"[" * 1000, "unreadable-body"),
        (b'{"images": [{"data": "\\ud800"}]}', "unreadable-body"),
        (b"[]", "wrong-fields"),
        (b"null", "wrong-fields"),
        (b"{}", "wrong-fields"),
        (b'{"images": []}', "wrong-fields"),
        (b'{"images": {"data": ""}}', "wrong-fields"),
        (b'{"images": [{"data": 1}]}', "wrong-fields"),
        (b'{"images": [{"data": null}]}', "wrong-fields"),
        (b'{"images": [{"filename": "a.png"}]}', "wrong-fields"),
        (b'{"images": [{"data": "", "threshold": 1}]}', "wrong-fields"),
        (b'{"images": [{"data": ""}], "model": "x"}', "wrong-fields"),
    ],
)
def test_other_json_is_refused(body, kind):
    refused(kind, JSON, body)


def test_a_wrong_json_field_is_named():
    assert "threshold" in refused("wrong-fields", JSON, b'{"images": [{"data": "", "threshold": 1}]}').detail


def test_more_images_in_json_than_allowed_are_refused():
    assert len(received(JSON, as_json(*[{"data": b64(b"x")}] * 4))) == 4
    refused("too-many-images", JSON, as_json(*[{"data": b64(b"x")}] * 5))


@pytest.mark.parametrize("piece", [b"[],", b"{},", b"0,", b'{"data":""},', b"[["])
def test_json_of_many_values_takes_no_memory(piece):
    body = b'{"images":[' + piece * (8_000_000 // len(piece))
    tracemalloc.start()
    refused("too-many-images", JSON, body, max_bytes=10_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * len(body)


@pytest.mark.parametrize("media_type", [ZIP, "application/x-zip-compressed", "application/octet-stream"])
def test_a_zip_as_the_body_becomes_its_files(media_type):
    body = zipped(("a/one.png", b"1"), ("__MACOSX/a/._one.png", b"?"), ("two.dcm", b"2"))
    assert received(media_type, body) == [Upload("a/one.png", b"1"), Upload("two.dcm", b"2")]


def test_a_zip_in_a_form_becomes_its_files_in_its_place():
    archive = zipped(("b.png", b"2"), ("c.png", b"3"))
    uploads = received(*form(("a.png", b"1"), ("misnamed.png", archive), ("d.png", b"4")))
    assert uploads == [
        Upload(f"{name}.png", content) for name, content in zip("abcd", (b"1", b"2", b"3", b"4"), strict=True)
    ]


def test_a_zip_in_a_zip_stays_a_file_that_is_no_image():
    inner = zipped(("a.png", b"1"))
    assert received(ZIP, zipped(("inner.zip", inner))) == [Upload("inner.zip", inner)]


def test_long_names_in_a_zip_keep_their_end():
    (upload,) = received(ZIP, zipped(("folder/" * 100 + "a.png", b"1")))
    assert upload.filename is not None
    assert len(upload.filename) == MAX_FILENAME
    assert upload.filename.endswith("folder/a.png")


@pytest.mark.parametrize(
    ("media_type", "body", "kind"),
    [
        (ZIP, b"not a zip", "unreadable-body"),
        (ZIP, b"", "unreadable-body"),
        (ZIP, zipped(("a.png", b"1"))[:-4], "unreadable-body"),
        (ZIP, zipped(), "wrong-fields"),
        (ZIP, zipped((".hidden", b"")), "wrong-fields"),
        (ZIP, zipped(*[(f"{number}.png", b"") for number in range(5)]), "too-many-images"),
        (ZIP, zipped(("a.png", bytes(100_001))), "too-large"),
        (*form(("a.zip", zipped(("a.png", bytes(60_000)))), ("b.zip", zipped(("b.png", bytes(60_000))))), "too-large"),
        (
            *form(("a.zip", zipped(("1", b""), ("2", b""), ("3", b""))), ("b.zip", zipped(("4", b""), ("5", b"")))),
            "too-many-images",
        ),
        (*form(*[("a.zip", zipped(("a.png", b"")))] * 5), "too-many-images"),
    ],
)
def test_zips_that_are_too_much_or_no_zips_are_refused(media_type, body, kind):
    refused(kind, media_type, body)


def test_other_media_types_are_refused_with_what_to_send():
    detail = refused("unsupported-media-type", "text/plain", b"x").detail
    for media_type in ("multipart/form-data", "application/json", "image/png", "application/dicom", "application/zip"):
        assert media_type in detail


def test_much_is_taken_apart_beside_the_loop(monkeypatch, png):
    threads = []

    def count(_upload):
        threads.append(threading.current_thread())
        return 0

    monkeypatch.setattr(Upload, "pixels", property(count))
    received("image/png", png)
    received("image/png", png + bytes(300_000), max_bytes=1_000_000)
    received(ZIP, zipped(("a.png", png)))
    received("application/dicom", b"no header that is read quickly")
    assert [thread is threading.main_thread() for thread in threads] == [True, False, False, False]


def blank(width: int, height: int, image_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("1" if image_format == "PNG" else "L", (width, height)).save(buffer, image_format)
    return buffer.getvalue()


def test_images_of_too_many_pixels_together_are_refused_by_their_headers(monkeypatch):
    images = [blank(100, 100), blank(60, 50, "JPEG"), blank(200, 50, "TIFF"), blank(10, 100, "BMP")]
    monkeypatch.setattr(Image.Image, "load", lambda _image: pytest.fail("an image was decoded"))
    files = [(f"{index}.png", image) for index, image in enumerate(images)]
    total = 10_000 + 3_000 + 10_000 + 1_000
    for media_type, body in ((ZIP, zipped(*files)), form(*files), (JSON, as_json(*[{"data": b64(i)} for i in images]))):
        assert len(received(media_type, body, max_pixels=total)) == 4
        problem = refused("too-large", media_type, body, max_pixels=total - 1)
        assert f"{total:,} pixels" in problem.detail
        assert f"{total - 1:,} (PNEUMO_MAX_REQUEST_PIXELS)" in problem.detail


def test_a_small_zip_of_huge_images_is_refused():
    film = blank(8000, 5000)
    body = zipped(*[(f"{index}.png", film) for index in range(32)])
    assert len(body) < 100_000
    problem = refused("too-large", ZIP, body, max_images=32, max_bytes=20_000_000)
    assert "1,280,000,000 pixels together" in problem.detail


def test_nothing_touches_the_disk(monkeypatch):
    def never(*_args, **_options):
        raise AssertionError("a temporary file was made")

    for name in ("TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile", "mkstemp", "mkdtemp"):
        monkeypatch.setattr(tempfile, name, never)
    received(ZIP, zipped(("a.png", bytes(3_000_000))), max_bytes=4_000_000)
    received(JSON, as_json({"data": b64(bytes(3_000_000))}), max_bytes=5_000_000)


BODIES = [
    (JSON, as_json({"filename": "a", "data": b64(b"abc")}, {"data": b64(b"def")})),
    (ZIP, zipped(("a.png", b"abc"), ("b.png", b"def" * 30))),
    form(("a.zip", zipped(("a.png", b"abc"))), ("b.png", b"def")),
]


@given(st.sampled_from(BODIES), st.data())
def test_damaged_bodies_give_images_or_a_problem(case, data):
    media_type, body = case
    content = bytearray(body)
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        uploads = received(media_type, bytes(content[: data.draw(st.integers(0, len(content)))]))
    except ProblemError:
        return
    assert 1 <= len(uploads) <= LIMITS["max_images"]
