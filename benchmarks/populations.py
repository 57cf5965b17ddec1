"""Measure which share of images of another population the out-of-distribution score flags, and of held-out ones.

Fits the score as an export does, with a bundle's network on its data set, and judges test images, films of another
population in a folder, phantoms, and test images upside down or negative. Files of the other population are also judged
as the data set's files are made: as JPEG of quality 75 at the stored size, and after a cut to a wide format, since
squashed wide films look tall. Views and quantile must be chosen on the other kinds: the folder may hold few films.
"""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pneumo.pipeline.data.manifest import Split, read_dataset
from pneumo.pipeline.data.phantom import Recipe, Scanner, write_phantoms
from pneumo.pipeline.decisions.outlier_limit import OutlierLimit, sample_rows
from pneumo.pipeline.evaluation.exact_intervals import share_bounds
from pneumo.pipeline.export.graph_outputs import run_graph
from pneumo.serving.images.decode import read_gray
from pneumo.serving.images.preparation import fit, to_input
from pneumo.serving.images.types import Gray
from pneumo.serving.model.bundle import MODEL, Bundle
from pneumo.serving.model.outlier_score import ImageFeatures, OutlierScorer
from pneumo.serving.model.predictor import Predictor

FORMATS = (1.0, 1.15, 1.3, 1.45)
"""Width over height to which films are cut."""


def recompress(gray: Gray) -> Gray:
    """Return an image as JPEG of quality 75 keeps it."""
    buffer = io.BytesIO()
    Image.fromarray(gray).save(buffer, format="JPEG", quality=75)
    return np.asarray(Image.open(buffer))


def cut(gray: Gray, ratio: float) -> Gray:
    """Cut top and bottom to a ratio of width to height."""
    height = min(gray.shape[0], int(gray.shape[1] / ratio))
    top = (gray.shape[0] - height) // 2
    return gray[top : top + height]


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Return the AUROC of outside against inside."""
    more, equal = outside[:, None] > inside[None], outside[:, None] == inside[None]
    return float((more + 0.5 * equal).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="data set that the bundle was trained on")
    parser.add_argument("--others", type=Path, required=True, help="folder of films of another population")
    parser.add_argument("--images", type=int, default=600, help="most training and test images")
    parser.add_argument("--quantiles", type=float, nargs="*", default=[0.99, 0.98, 0.97, 0.96])
    parser.add_argument("--out", type=Path, required=True, help="folder for phantoms")
    options = parser.parse_args()
    bundle, dataset = Bundle.open(options.bundle), read_dataset(options.data)
    preparation, graph, predictor = bundle.info.preparation, bundle.read(MODEL), Predictor(bundle)

    def measure(split: Split) -> tuple[ImageFeatures, list[str]]:
        rows = sample_rows(dataset.select(split), options.images)
        outputs = run_graph(graph, dataset, rows, preparation)
        return outputs.features, [row.patient for row in rows]

    (training, _), (held_out, _), (test, patients) = (measure(split) for split in Split)
    rows = sample_rows(dataset.select(Split.TEST), options.images)[::6]
    films = [read_gray(dataset.path(row).read_bytes()).gray for row in rows]
    others = [read_gray(path.read_bytes()).gray for path in sorted(options.others.iterdir())]
    kinds: dict[str, Sequence[Gray]] = {"others, as they are": others}
    for ratio in FORMATS:
        kinds[f"others, JPEG, {ratio:g} wide"] = [
            recompress(fit(cut(film, ratio), preparation.size, preparation.fit)) for film in others
        ]
    for name, scanner in {"phantoms": Scanner(), "phantoms, dark": Scanner(contrast=0.8, gamma=1.3, noise=3)}.items():
        folder = options.out / name.replace(", ", "-")
        if not folder.exists():
            write_phantoms(folder, Recipe(images=60, seed=5, scanner=scanner))
        kinds[name] = [read_gray(path.read_bytes()).gray for path in sorted(folder.rglob("*.png"))]
    kinds |= {"upside down": [film[::-1].copy() for film in films], "negative": [255 - film for film in films]}
    seen = {}
    for name, images in kinds.items():
        stored = (fit(each, preparation.size, preparation.fit) for each in images)
        seen[name] = predictor.run(np.stack([to_input(each, preparation) for each in stored]))

    for quantile in options.quantiles:
        limit = OutlierLimit.fit(training, held_out, quantile=quantile)
        older = OutlierScorer(
            limit.outlier_scorer.embedding, limit.outlier_scorer.thumbnail, limit.outlier_scorer.scale[:3]
        )
        before = max(1.0, float(np.quantile(older.score(held_out.embeddings, held_out.thumbnails), quantile)))
        for words, scorer, above in (("3 views", older, before), ("4 views", limit.outlier_scorer, limit.limit)):
            inside = scorer.score(test.embeddings, test.thumbnails)
            share = float((inside > above).mean())
            low, high = share_bounds(share, len(set(patients)), 0.95)
            print(f"quantile {quantile:g}, {words}: {share:.3f} ({low:.3f} to {high:.3f}) of {len(inside)} test images")
            for name, outputs in seen.items():
                scores = scorer.score(outputs.embedding, outputs.thumbnails)
                share = float((scores > above).mean())
                low, high = share_bounds(share, len(scores), 0.95)
                print(f"  {name:24}{auroc(inside, scores):.3f}  {share:.3f} ({low:.3f} to {high:.3f}) of {len(scores)}")


if __name__ == "__main__":
    main()
