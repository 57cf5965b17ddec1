"""Read the images of a request: into memory only, and never more than the limit.

Starlette's own form parser writes parts of more than a megabyte to temporary files, and images of patients have no
place on the disk of a service.
"""

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from serving.problems import ProblemError

FIELD = "file"
MAX_FILENAME = 255


@dataclass(frozen=True)
class Upload:
    """One image as sent.

    Attributes:
        filename: As the client named it, at most `MAX_FILENAME` characters, or None.
        data: The bytes.
    """

    filename: str | None
    data: bytes


async def read_uploads(request: Request, *, max_bytes: int, max_images: int) -> list[Upload]:
    """Read one image from the body, or one or many from the `file` fields of a form.

    Args:
        request: `multipart/form-data`, or an image as the raw body under its media type or `application/octet-stream`.
        max_bytes: Largest body.
        max_images: Most images.

    Raises:
        ProblemError: Another media type, too large, too many, not a form, or other fields.
    """
    media_type, parameters = parse_options_header(request.headers.get("content-type", ""))
    if media_type == b"multipart/form-data":
        return await _read_form(request, parameters.get(b"boundary", b""), max_bytes, max_images)
    if not (media_type.startswith(b"image/") or media_type == b"application/octet-stream"):
        raise ProblemError(
            "unsupported-media-type",
            "send multipart/form-data with the image in the field 'file', or the image itself under its media type "
            "(such as image/png) or application/octet-stream",
        )
    body = bytearray()
    await _read_body(request, max_bytes, body.extend)
    return [Upload(filename=None, data=bytes(body))]


async def _read_body(request: Request, max_bytes: int, take: Callable[[bytes], object]) -> None:
    too_large = ProblemError("too-large", f"the body is larger than {max_bytes:,} bytes; send fewer or smaller images")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise too_large
    received = 0
    try:
        async for chunk in request.stream():
            received += len(chunk)
            if received > max_bytes:
                raise too_large
            take(chunk)
    except ClientDisconnect:
        raise ProblemError("unreadable-body", "the connection closed before the whole body came") from None


async def _read_form(request: Request, boundary: bytes, max_bytes: int, max_images: int) -> list[Upload]:
    if not boundary:
        raise ProblemError(
            "unreadable-body", "multipart/form-data without a boundary; let the HTTP client set the type"
        )
    form = _Form(max_images)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": form.on_part_begin,
                "on_header_field": form.on_header_field,
                "on_header_value": form.on_header_value,
                "on_header_end": form.on_header_end,
                "on_headers_finished": form.on_headers_finished,
                "on_part_data": form.on_part_data,
                "on_end": form.on_end,
            },
        )
        await _read_body(request, max_bytes, parser.write)
    except FormParserError:
        raise ProblemError("unreadable-body", "not valid multipart/form-data") from None
    if not form.ended:
        raise ProblemError("unreadable-body", "the form is cut off: its last boundary is missing")
    if not form.parts:
        raise ProblemError("wrong-fields", f"no image; send it in the field '{FIELD}'")
    return [Upload(filename=filename, data=bytes(data)) for filename, data in form.parts]


class _Form:
    """Collects the file parts of a form as the parser finds them."""

    def __init__(self, max_images: int) -> None:
        self.parts: list[tuple[str | None, bytearray]] = []
        self.ended = False
        self._max_images = max_images
        self._field = bytearray()
        self._value = bytearray()
        self._disposition = b""

    def on_part_begin(self) -> None:
        self._disposition = b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = _text(options.get(b"name", b""))
        if name != FIELD:
            raise ProblemError("wrong-fields", f"unknown field {name[:80]!r}; images go in the field '{FIELD}'")
        if len(self.parts) == self._max_images:
            raise ProblemError("too-many-images", f"more than {self._max_images} images; send several requests")
        self.parts.append((_text(options.get(b"filename", b""))[:MAX_FILENAME] or None, bytearray()))

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1][1].extend(memoryview(data)[start:end])

    def on_end(self) -> None:
        self.ended = True


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
