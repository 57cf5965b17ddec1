"""Swap some labels of the real X-rays and see how early `pneumo data check --label-errors` ranks them.

    python benchmarks/label_errors.py

Predictions are out of fold, five folds by patient, of a logistic regression that is trained with the swapped labels:
on the features of ImageNet's weights (EfficientNet-Lite0 at 96 pixels), or with --pixels on 28 x 28 pixels. Features
take two minutes on two quiet cores, each draw of swapped labels some seconds. The last table is the top of the ranking
of the labels as they are: whether those are wrong only a radiologist can say.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from leave_source_out import embed
from PIL import Image
from scipy import stats
from variants import ROOT

from pneumo.pipeline.data import importer, manifest
from pneumo.pipeline.data.import_settings import ImportSettings
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.evaluation.label_errors import rank_labels

COLUMNS = (
    "in the first 5%",
    "in the first 10%",
    "in the first 20%",
    "called likely",
    "called likely, swapped",
    "found",
)


def read_pixels(dataset: Dataset, side: int = 28) -> np.ndarray:
    """Return the pixels [N, side * side] of the images of a data set, reduced to a few."""
    paths = [dataset.path(row) for row in dataset.rows]
    return np.stack([np.asarray(Image.open(path).resize((side, side), Image.Resampling.BOX)).ravel() for path in paths])


def predict_out_of_fold(features: np.ndarray, labels: np.ndarray, patients: np.ndarray, seed: int) -> np.ndarray:
    """Return probabilities [N, 2] of logistic regressions, each on the patients of the other folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    return cross_val_predict(model, features, labels, groups=patients, cv=folds, method="predict_proba")


def measure_draw(features: np.ndarray, truth: np.ndarray, patients: np.ndarray, share: float, seed: int) -> list[float]:
    """Return the values of `COLUMNS` for one draw of swapped labels."""
    swapped = np.zeros(len(truth), dtype=bool)
    swapped[np.random.default_rng(seed).permutation(len(truth))[: round(share * len(truth))]] = True
    labels = np.where(swapped, 1 - truth, truth)
    order, _, likely = rank_labels(labels, predict_out_of_fold(features, labels, patients, seed))
    early = [swapped[order[: round(part * len(truth))]].sum() / swapped.sum() for part in (0.05, 0.1, 0.2)]
    return [*early, likely.sum(), swapped[likely].mean(), likely[swapped].mean()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, default=ROOT.parent / "shared" / "data" / "chest_xray_224_train.tar")
    parser.add_argument("--data", type=Path, help="data set that is imported already")
    parser.add_argument("--pixels", action="store_true", help="28 x 28 pixels in place of features")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.1], help="shares of the labels to swap")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--top", type=int, default=20, help="rows of the last table")
    options = parser.parse_args()
    data = options.data or Path(tempfile.mkdtemp(prefix="label-errors-")) / "data"
    if not (data / manifest.MANIFEST).is_file():
        importer.import_dataset(options.archive, data, ImportSettings())
    dataset = manifest.read_dataset(data)
    features = read_pixels(dataset) if options.pixels else embed(dataset)
    truth = np.array([dataset.info.classes.index(row.label) for row in dataset.rows])
    patients = np.array([row.patient for row in dataset.rows])
    print(f"{len(truth)} images of {len(set(patients))} patients")
    print("| swapped | " + " | ".join(COLUMNS) + " |")
    print("| --- " * (1 + len(COLUMNS)) + "|", flush=True)
    for share in options.shares:
        draws = [measure_draw(features, truth, patients, share, seed) for seed in range(options.draws)]
        mean, error = np.mean(draws, axis=0), stats.sem(draws, axis=0)
        half = stats.t.ppf(0.975, options.draws - 1) * error
        cells = " | ".join(f"{m:.4g} ({m - h:.4g} to {m + h:.4g})" for m, h in zip(mean, half, strict=True))
        print(f"| {share:.0%} | {cells} |", flush=True)
    probabilities = predict_out_of_fold(features, truth, patients, 0)
    order, _, likely = rank_labels(truth, probabilities)
    print(f"labels as they are: {likely.sum()} called likely; the first {options.top}:")
    print("| image | label | probability of the label |\n| --- | --- | --- |")
    for place in order[: options.top]:
        row = dataset.rows[place]
        print(f"| {row.source} | {row.label} | {probabilities[place, truth[place]]:.4f} |")


if __name__ == "__main__":
    main()
