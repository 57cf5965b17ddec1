"""Measure the import of images against the plainest loop that prepares the same pixels, as a ratio in one run.

The loop decodes, turns to gray, resizes and encodes with Pillow in one process; it makes no manifest, digest or split.
Takes the real training images where they are (`PNEUMO_REAL_DATA`), phantoms elsewhere.
"""

import io
import os
import tarfile
import tempfile
import time
from pathlib import Path

from PIL import Image

from pneumo.pipeline.data import phantom
from pneumo.pipeline.data.importer import ImportSettings, import_dataset

SIZE = 224


def plain_loop(source: Path, out: Path) -> int:
    out.mkdir()
    count = 0
    for name, content in contents(source):
        image = Image.open(io.BytesIO(content)).convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        image.save(out / f"{count:06d}-{Path(name).stem}.png", compress_level=2)
        count += 1
    return count


def contents(source: Path) -> list[tuple[str, bytes]]:
    if source.is_dir():
        return [(path.name, path.read_bytes()) for path in sorted(source.rglob("*.png"))]
    with tarfile.open(source) as tar:
        files = [(item.name, tar.extractfile(item)) for item in tar if item.isfile()]
        return [(name, file.read()) for name, file in files if file and name.endswith(".jpeg")]


def main() -> None:
    root = Path(__file__).resolve().parent.parent
    real = Path(os.environ.get("PNEUMO_REAL_DATA", root.parent / "shared" / "data")) / "chest_xray_224_train.tar"
    with tempfile.TemporaryDirectory() as folder:
        source = real
        if not real.is_file():
            source = Path(folder) / "phantoms"
            phantom.write_phantoms(source, phantom.Recipe(images=600))
        began = time.perf_counter()
        count = plain_loop(source, Path(folder) / "plain")
        plain = time.perf_counter() - began
        began = time.perf_counter()
        imported = len(import_dataset(source, Path(folder) / "data", ImportSettings(size=SIZE)).rows)
        ours = time.perf_counter() - began
    print(f"{'what':<44}{'images':>8}{'seconds':>10}{'images/s':>10}")
    print(f"{'pneumo data import':<44}{imported:>8}{ours:>10.1f}{imported / ours:>10.0f}")
    print(f"{'a plain Pillow loop, one process, no splits':<44}{count:>8}{plain:>10.1f}{count / plain:>10.0f}")
    print(f"ratio of rates: {(imported / ours) / (count / plain):.2f}")


if __name__ == "__main__":
    main()
