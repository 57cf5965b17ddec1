"""The images of a request, read into memory with limits.

Starlette's own form parser writes parts of more than a megabyte to temporary files. Images of patients must not reach
the disk of a service, and it checks field names only after the whole body has arrived.
"""

import binascii
import math
import re
from collections.abc import Callable, Iterable
from functools import partial

import anyio.to_thread
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from python_multipart import FormParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field as FormField
from python_multipart.multipart import File, parse_options_header

from pneumo.serving.contracts.errors import first_problem
from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.contracts.setting_types import MAX_REQUEST_PIXELS
from pneumo.serving.http.archive import ArchiveError, TooLargeError, TooManyError, is_zip, read_members
from pneumo.serving.images.declared_size import is_quick
from pneumo.serving.inference.decoding import Upload

FIELD = "file"
MAX_FILENAME = 255

_ZIP_TYPES = frozenset({b"application/zip", b"application/x-zip-compressed"})
_RAW_TYPES = frozenset({b"application/octet-stream", b"application/dicom", *_ZIP_TYPES})
_MARKS = (b"{", b"[", b",")
_MARKS_PER_IMAGE = MAX_FILENAME + 10
"""Marks that begin a JSON value: an image has few, and up to as many as fit into its file name."""
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,")
_BASE64 = rf"^({_DATA_URL.pattern})?([A-Za-z0-9+/]{{4}})*([A-Za-z0-9+/]{{2}}==|[A-Za-z0-9+/]{{3}}=)?$"
_LONG = 2**18
"""Bytes that take longer to convert than a thread takes to start."""


class JsonImage(BaseModel):
    """One image in base64 or as a data URL."""

    model_config = ConfigDict(extra="forbid", strict=True)

    filename: str | None = None
    data: str = Field(json_schema_extra={"contentEncoding": "base64", "pattern": _BASE64, "minLength": 4})


class JsonImages(BaseModel):
    """The JSON body of a request with images."""

    model_config = ConfigDict(extra="forbid", strict=True)

    images: list[JsonImage] = Field(min_length=1)


async def read_uploads(
    request: Request, *, max_bytes: int, max_images: int, max_pixels: int = MAX_REQUEST_PIXELS
) -> list[Upload]:
    """Read the images of a request: one as the raw body, or several in a form, a JSON list or a zip.

    A file in a form may be a zip too; zips are recognised by their first bytes. `max_bytes` limits the body, and the
    bytes of all files in zips; `max_pixels` limits the pixels that all images together declare.
    """
    expand = partial(_expand, max_bytes=max_bytes, max_images=max_images, max_pixels=max_pixels)
    media_type, parameters = parse_options_header(request.headers.get("content-type", ""))
    if media_type == b"multipart/form-data":
        parts = await _read_form(request, parameters.get(b"boundary", b""), max_bytes, max_images)
        return await expand(parts)
    if not (media_type.startswith(b"image/") or media_type in _RAW_TYPES or media_type == b"application/json"):
        raise ProblemError(
            "unsupported-media-type",
            "send multipart/form-data with the image in the field 'file', application/json with images in base64, or "
            "the image itself under its media type (such as image/png, application/dicom) or application/octet-stream, "
            "or several images as application/zip",
        )
    body = await read_body(request, max_bytes)
    if media_type == b"application/json":
        parts = await _run_aside(partial(_read_json, body, max_images), len(body))
        return await expand(parts)
    if media_type in _ZIP_TYPES and not is_zip(body):
        raise ProblemError("unreadable-body", "not a zip")
    return await expand([Upload(filename=None, data=body)])


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Read a whole body of at most `max_bytes`."""
    chunks: list[bytes] = []
    await receive_chunks(request, max_bytes, chunks.append)
    return b"".join(chunks)  # a single one is not copied


async def receive_chunks(request: Request, max_bytes: int, take: Callable[[bytes], object]) -> None:
    """Pass each chunk of a body of at most `max_bytes` to `take`."""
    declared = request.headers.get("content-length", "")
    too_large = f"the body is larger than {max_bytes:,} bytes; send fewer or smaller images"
    if declared.isdecimal() and int(declared) > max_bytes:
        raise ProblemError("too-large", too_large)
    received, more = 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ProblemError("unreadable-body", "the connection closed before the end of the body")
        chunk, more = message.get("body", b""), message.get("more_body", False)
        received += len(chunk)
        if received > max_bytes:
            raise ProblemError("too-large", too_large)
        take(chunk)


async def _run_aside[T](work: Callable[[], T], size: int) -> T:
    """Run work on many bytes in a thread, so that the event loop stays free."""
    return await anyio.to_thread.run_sync(work) if size > _LONG else work()


async def _expand(parts: list[Upload], *, max_bytes: int, max_images: int, max_pixels: int) -> list[Upload]:
    """Replace each zip by its files, and refuse images of too many pixels together before one is decoded."""

    def expand() -> list[Upload]:
        zips = any(is_zip(part.data) for part in parts)
        uploads = _expand_zips(parts, max_bytes, max_images) if zips else parts
        pixels = sum(upload.pixels for upload in uploads)
        if pixels > max_pixels:
            limit = f"a request may hold {max_pixels:,} (PNEUMO_MAX_REQUEST_PIXELS)"
            detail = f"the images hold {pixels:,} pixels together, {limit}; send fewer or smaller images"
            raise ProblemError("too-large", detail)
        return uploads

    quick = all(is_quick(part.data) for part in parts)
    return await _run_aside(expand, sum(len(part.data) for part in parts) if quick else _LONG + 1)


def _expand_zips(parts: Iterable[Upload], max_bytes: int, max_images: int) -> list[Upload]:
    uploads: list[Upload] = []
    left = max_bytes
    try:
        for part in parts:
            if not is_zip(part.data):
                uploads.append(part)
                continue
            for member in read_members(part.data, max_bytes=left, max_files=max_images):
                left -= len(member.data)
                uploads.append(Upload(member.name[-MAX_FILENAME:], member.data))
    except TooLargeError:
        detail = f"the files in the zip are larger than {max_bytes:,} bytes together; send several requests"
        raise ProblemError("too-large", detail) from None
    except TooManyError:
        raise _too_many("the zip holds", max_images) from None
    except ArchiveError as error:
        raise ProblemError("unreadable-body", f"{error}; create it again") from None
    if len(uploads) > max_images:
        raise _too_many("the request holds", max_images)
    if not uploads:
        raise ProblemError("wrong-fields", "no image in the zip")
    return uploads


def _too_many(subject: str, max_images: int) -> ProblemError:
    return ProblemError("too-many-images", f"{subject} more than {max_images} images; send several requests")


def _read_json(body: bytes, max_images: int) -> list[Upload]:
    # Parsed, twenty million bytes of `[[],[],[],` would be a gigabyte of lists before the first check.
    if sum(body.count(mark) for mark in _MARKS) > _MARKS_PER_IMAGE * (max_images + 1):
        detail = f"more values than {max_images} images have; send several requests"
        raise ProblemError("too-many-images", detail)
    try:
        images = JsonImages.model_validate_json(body).images
    except ValidationError as error:
        if error.errors(include_input=False)[0]["type"] == "json_invalid":
            raise ProblemError("unreadable-body", "not valid JSON") from None
        raise ProblemError("wrong-fields", first_problem(error)[:200]) from None
    if len(images) > max_images:
        raise _too_many("the request holds", max_images)
    uploads = []
    for index, image in enumerate(images):
        name = (image.filename or "")[:MAX_FILENAME] or None
        start = match.end() if (match := _DATA_URL.match(image.data)) else 0
        try:
            data = binascii.a2b_base64(image.data[start:], strict_mode=True)
        except ValueError:  # includes binascii.Error, and text that is not ASCII
            detail = f"images.{index}.data: not base64 (RFC 4648, section 4, without line breaks)"
            raise ProblemError("wrong-fields", detail, filename=name, index=index) from None
        uploads.append(Upload(name, data))
    return uploads


async def _read_form(request: Request, boundary: bytes, max_bytes: int, max_images: int) -> list[Upload]:
    if not boundary:
        detail = "multipart/form-data without a boundary; let the HTTP client set the content type"
        raise ProblemError("unreadable-body", detail)
    uploads: list[Upload] = []
    ended = False

    def take(part: FormField | File) -> None:
        name = _decode_text(part.field_name or b"")
        if name != FIELD:
            raise ProblemError("wrong-fields", f"unknown field {name[:80]!r}; images belong in the field '{FIELD}'")
        if len(uploads) == max_images:
            raise _too_many("the request holds", max_images)
        if isinstance(part, File):
            part.file_object.seek(0)
            filename = _decode_text(part.file_name or b"")[:MAX_FILENAME] or None
            uploads.append(Upload(filename, part.file_object.read()))
        else:
            uploads.append(Upload(None, part.value or b""))

    def end() -> None:
        nonlocal ended
        ended = True

    in_memory = {"MAX_MEMORY_FILE_SIZE": math.inf}  # larger parts would be written to disk
    try:
        parser = FormParser("multipart/form-data", take, take, end, boundary=boundary, config=in_memory)
        await receive_chunks(request, max_bytes, parser.write)
    except FormParserError:
        detail = f"not valid multipart/form-data; send each image as a part with the name '{FIELD}'"
        raise ProblemError("unreadable-body", detail) from None
    if not ended:
        raise ProblemError("unreadable-body", "the form is cut off: its last boundary is missing")
    if not uploads:
        raise ProblemError("wrong-fields", f"no image; send it in the field '{FIELD}'")
    return uploads


def _decode_text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
