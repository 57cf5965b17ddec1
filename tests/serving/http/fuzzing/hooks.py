"""Loaded by schemathesis: most bytes of a request are real images, and a form's file is never anything but bytes."""

import io

import numpy as np
import schemathesis
from hypothesis import strategies as st
from PIL import Image


def _encode(kind: str) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


IMAGES = st.sampled_from([_encode(kind) for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP")])
BYTES = st.one_of(IMAGES, IMAGES, st.binary(max_size=200))

schemathesis.openapi.format("binary", BYTES)
for media_type in ("image/*", "application/dicom", "application/zip", "application/octet-stream"):
    schemathesis.openapi.media_type(media_type, BYTES)


@schemathesis.hook
def filter_case(context, case):
    """Leave out a form whose file was made a number or an object "of the wrong type": on the wire all are bytes."""
    return not (case.media_type == "multipart/form-data" and case.meta and case.meta.generation.mode.is_negative)
