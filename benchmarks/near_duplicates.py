"""Measure the search for near duplicates: time over the number of hashes, and the exponent of its growth.

Hashes of X-rays are not random, so they are those of the real training images (`PNEUMO_REAL_DATA`; phantoms elsewhere)
and of copies that are turned, scaled, shifted, mirrored and given another gamma. All pairs are compared for the
smallest number only.
"""

import argparse
import math
import os
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageOps

from pneumo.pipeline.data import phantom
from pneumo.pipeline.data.audit.appearance import NEAR_DISTANCE, perceptual_hash
from pneumo.pipeline.data.audit.near_search import group_near, to_words
from pneumo.pipeline.data.sources import open_source
from pneumo.serving.images.decode import read_gray
from pneumo.serving.images.types import Gray


def change(gray: Gray, random: np.random.Generator) -> Gray:
    image = Image.fromarray(gray)
    if random.random() < 0.5:
        image = ImageOps.mirror(image)
    turn, scale = math.radians(random.normal(0, 6)), 1 + random.normal(0, 0.08)
    cosine, sine = scale * math.cos(turn), scale * math.sin(turn)
    x, y = image.width / 2, image.height / 2
    right, down = random.normal(0, 0.035, 2) * image.width
    matrix = (cosine, -sine, x - cosine * x + sine * y + right, sine, cosine, y - sine * x - cosine * y + down)
    moved = np.asarray(image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))
    return (255 * (moved / 255) ** np.exp(random.normal(0, 0.2))).astype(np.uint8)


def make_hashes(source: Path, count: int) -> list[bytes]:
    random = np.random.default_rng(1)
    with open_source(source) as opened:
        films = [read_gray(opened.read(item).data).gray for item in opened.items]
    own = [perceptual_hash(film) for film in films[:count]]
    return own + [perceptual_hash(change(films[n % len(films)], random)) for n in range(len(own), count)]


def count_plainly(hashes: list[bytes]) -> int:
    words = to_words(hashes)
    return sum(
        int((np.bitwise_count(words[row] ^ words[row + 1 :]).sum(axis=1) <= NEAR_DISTANCE).sum())
        for row in range(len(words))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[25_000, 50_000, 100_000, 200_000])
    sizes = sorted(parser.parse_args().sizes)
    root = Path(__file__).resolve().parent.parent
    real = Path(os.environ.get("PNEUMO_REAL_DATA", root.parent / "shared" / "data")) / "chest_xray_224_train.tar"
    with TemporaryDirectory() as folder:
        source = real
        if not real.is_file():
            source = Path(folder) / "phantoms"
            phantom.write_phantoms(source, phantom.Recipe(images=600))
        hashes = make_hashes(source, sizes[-1])
    print(f"{'hashes':>10}{'seconds':>10}{'groups':>10}{'exponent':>10}{'memory, MB':>12}")
    before: tuple[int, float] | None = None
    for size in sizes:
        began = time.process_time()
        groups = len(set(group_near(hashes[:size], NEAR_DISTANCE).tolist()))
        seconds = time.process_time() - began
        growth = f"{math.log(seconds / before[1]) / math.log(size / before[0]):.2f}" if before else "-"
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"{size:>10,}{seconds:>10.1f}{groups:>10,}{growth:>10}{memory:>12,}")
        before = size, seconds
    began = time.process_time()
    count_plainly(hashes[: sizes[0]])
    print(f"all pairs of {sizes[0]:,}: {time.process_time() - began:.1f} s")


if __name__ == "__main__":
    main()
