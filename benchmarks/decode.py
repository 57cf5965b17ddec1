"""Reading a JPEG as a data set stores it, 224 x 224 gray: ratios to a full decode by Pillow, measured in one run.

Decoders take turns, on one thread, and all but pyvips's thumbnail are followed by the same resize. Those that are not
installed are skipped by name; to measure them without installing them here::

    uv pip install --target /tmp/decoders opencv-python-headless simplejpeg pyvips pyvips-binary
    PYTHONPATH=/tmp/decoders python benchmarks/decode.py
"""

import io
import os
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec

os.environ["VIPS_CONCURRENCY"] = "1"

import numpy as np
from PIL import Image

from pneumo.pipeline.data.phantom import draw_radiograph
from pneumo.serving.images.decode import read_stored
from pneumo.serving.images.preparation import Storage, fit
from pneumo.serving.images.types import DECODING_RULES, Decode, Fit, Gray

SIZE = 224
REPEATS = {(SIZE, SIZE): 400, (1500, 1200): 60}
Reader = Callable[[bytes], Gray]


def film(width: int, height: int, mode: str) -> bytes:
    """A phantom radiograph as a JPEG, with the grain that a real one has."""
    pixels = np.asarray(
        Image.fromarray(draw_radiograph("PNEUMONIA", np.random.default_rng(0), size=max(width, height))).resize(
            (width, height)
        ),
        dtype=np.float64,
    )
    pixels += np.random.default_rng(0).normal(0, 2, pixels.shape)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert(mode).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def squash(gray: Gray) -> Gray:
    return fit(gray, SIZE, Fit.SQUASH)


def pillow(decode: Decode) -> Reader:
    return lambda data: read_stored(data, Storage(size=SIZE, decode=decode, rules=DECODING_RULES)).gray


def opencv(scaled: bool) -> Reader:
    import cv2

    cv2.setNumThreads(1)
    reduced = {2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 8: cv2.IMREAD_REDUCED_GRAYSCALE_8}

    def read(data: bytes) -> Gray:
        flag = cv2.IMREAD_GRAYSCALE
        if scaled:  # it does not say the size before it decodes
            with Image.open(io.BytesIO(data)) as image:
                scale = min(image.size) // SIZE
            flag = next((reduced[step] for step in (8, 4, 2) if scale >= step), flag)
        return squash(cv2.imdecode(np.frombuffer(data, np.uint8), flag))

    return read


def simplejpeg(scaled: bool) -> Reader:
    from simplejpeg import decode_jpeg

    least = {"min_height": SIZE, "min_width": SIZE, "min_factor": 1} if scaled else {}
    return lambda data: squash(decode_jpeg(data, colorspace="GRAY", **least)[:, :, 0])


def pyvips(scaled: bool) -> Reader:
    import pyvips as vips

    vips.cache_set_max(0)

    def thumbnail(data: bytes) -> Gray:
        image = vips.Image.thumbnail_buffer(data, SIZE, height=SIZE, size="force")
        return np.asarray(image.colourspace("b-w").numpy()).reshape(SIZE, SIZE)

    def whole(data: bytes) -> Gray:
        image = vips.Image.new_from_buffer(data, "", access="sequential").colourspace("b-w")
        return squash(np.asarray(image.numpy()).reshape(image.height, image.width))

    return thumbnail if scaled else whole


def readers() -> dict[str, Reader]:
    found = {"Pillow full": pillow(Decode.FULL), "Pillow scaled (chosen)": pillow(Decode.SCALED)}
    for name, module, make in (
        ("OpenCV", "cv2", opencv),
        ("simplejpeg", "simplejpeg", simplejpeg),
        ("pyvips", "pyvips", pyvips),
    ):
        if find_spec(module) is None:
            print(f"{name}: not installed, skipped")
            continue
        found |= {f"{name} {kind}": make(kind == "scaled") for kind in ("full", "scaled")}
    return found


def main() -> None:
    contenders = readers()
    print(f"{'JPEG':<18}{'decoder':<26}{'ms':>8}{'ratio':>8}{'mean diff':>11}{'max diff':>10}")
    for (width, height), repeats in REPEATS.items():
        for mode in ("L", "RGB"):
            data = film(width, height, mode)
            seconds: dict[str, list[float]] = {name: [] for name in contenders}
            for turn in range(repeats + 1):
                for name, read in contenders.items():
                    began = time.perf_counter()
                    read(data)
                    if turn:
                        seconds[name].append(time.perf_counter() - began)
            today = contenders["Pillow full"](data).astype(int)
            plain = statistics.median(seconds["Pillow full"])
            for name, read in contenders.items():
                apart = np.abs(read(data) - today)
                taken = statistics.median(seconds[name])
                print(
                    f"{f'{width} x {height} {mode}':<18}{name:<26}{taken * 1000:>8.2f}{taken / plain:>8.2f}"
                    f"{apart.mean():>11.2f}{apart.max():>10}"
                )


if __name__ == "__main__":
    main()
