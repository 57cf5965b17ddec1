"""What each change of the stress test does to the scores, and what fitting the decisions under changes is worth.

    python benchmarks/shifts.py --bundle BUNDLE --data DATA --out logits.npz

Held-out images of the bundle's own data set, as many normal as positive ones, are predicted under every change; the
logits are kept in --out, so that the tables can be printed again. The first table has the changes by how much they
raise the scores of negatives. The second compares decisions that are fitted to half of the patients, as they are or
also under the changes for fitting without one family, on the other half under all changes of that family.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.decisions import DecisionRules, Decisions, Policy, fit_decisions
from pneumo.pipeline.evaluation.stress.shifted_validation import assign_shifts
from pneumo.pipeline.evaluation.stress.shifts import Family, Shift, Use, list_shifts
from pneumo.pipeline.release.recalibration.site import read_decisions
from pneumo.serving.images.decode import read_stored
from pneumo.serving.images.preparation import to_input
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.calibration import build_prediction_sets, calibrate_logits
from pneumo.serving.model.predictor import BATCH, Predictor

FAMILIES = [each for each in Family if each is not Family.MIXED]
STRATEGIES = {
    "validation, sensitivity >= 0.95": ("sensitivity >= 0.95", "validation"),
    "validation, max balanced accuracy": ("max balanced accuracy", "validation"),
    "shifts, max balanced accuracy": ("max balanced accuracy", "shifts"),
    "validation, cost FN:FP = 1:2": ("cost FN:FP = 1:2", "validation"),
    "shifts, cost FN:FP = 1:2": ("cost FN:FP = 1:2", "shifts"),
}
"""Policy, and what it is fitted on."""


@dataclass(frozen=True)
class Scene:
    """Logits [S, N, 2] of N images, unchanged first and then under each change, with labels [N] and patients [N]."""

    logits: np.ndarray
    labels: np.ndarray
    patients: np.ndarray
    classes: list[str]

    def find(self, shifts: Iterable[Shift]) -> list[int]:
        """Return the places of changes."""
        titles = [shift.title for shift in list_shifts()]
        return [1 + titles.index(shift.title) for shift in shifts]


def predict(bundle: Bundle, data: Path, splits: list[Split], per_class: int, out: Path) -> Scene:
    """Predict images under every change, or read what was predicted before."""
    predictor, dataset = Predictor(bundle), manifest.read_dataset(data)
    preparation, classes = bundle.info.preparation, bundle.info.classes
    random, rows = np.random.default_rng(0), []
    for name in classes:
        own = [row for row in dataset.rows if row.split in splits and row.label == name]
        rows += [own[place] for place in random.permutation(len(own))[:per_class]]
    titles = ["unchanged", *(shift.title for shift in list_shifts())]
    kept = dict(np.load(out)) if out.is_file() else {}
    known = dict(zip(kept.get("titles", np.array([])).tolist(), kept.get("logits", ()), strict=True))
    stored = [read_stored(dataset.path(row).read_bytes(), preparation).gray for row in rows]
    for shift in (None, *list_shifts()):
        title = shift.title if shift else "unchanged"
        if title in known:
            continue
        logits = []
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            inputs = []
            for gray, row in zip(stored[part], rows[part], strict=True):
                positive = row.label == bundle.info.positive_class
                changed = shift.apply(gray, row.image, positive=positive) if shift else gray
                inputs.append(to_input(changed, preparation))
            logits.append(predictor.run(np.stack(inputs)).logits)
        known[title] = np.concatenate(logits).astype(np.float64)
        np.savez(out, titles=list(known), logits=np.stack(list(known.values())))
    labels = np.array([classes.index(row.label) for row in rows])
    return Scene(np.stack([known[title] for title in titles]), labels, np.array([row.patient for row in rows]), classes)


def rates(decisions: Decisions, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return sensitivity, specificity, coverage of negatives and positives, and the share of uncertain images."""
    probabilities = calibrate_logits(logits, decisions.temperature)
    answer = decisions.predict(probabilities, 1)
    sets = build_prediction_sets(probabilities, decisions.conformal_limit)
    certain = (sets.sum(axis=1) == 1) & sets[np.arange(len(answer)), answer]
    own = [sets[labels == each, each].mean() for each in (0, 1)]
    return np.array([answer[labels == 1].mean(), 1 - answer[labels == 0].mean(), *own, 1 - certain.mean()])


def show_changes(scene: Scene, decisions: Decisions) -> None:
    """Print what each change does to the scores, those that raise the scores of negatives most first."""
    from sklearn.metrics import roc_auc_score

    margin = scene.logits[:, :, 1] - scene.logits[:, :, 0]
    negative, positive = scene.labels == 0, scene.labels == 1
    lifts = [(float(np.median((margin[place] - margin[0])[negative])), place) for place in range(len(margin))]
    print(
        "| change | family | used for | AUROC | negatives raised by | positives raised by | sensitivity | specificity |"
    )
    print("| --- " * 8 + "|")
    shifts = (None, *list_shifts())
    for lift, place in sorted(lifts, reverse=True):
        shift = shifts[place]
        title, family, use = (shift.title, shift.family, shift.use) if shift else ("unchanged", "", "")
        other = float(np.median((margin[place] - margin[0])[positive]))
        found = rates(decisions, scene.logits[place], scene.labels)
        auroc = roc_auc_score(scene.labels, margin[place])
        cells = f"{auroc:.3f} | {lift:+.2f} | {other:+.2f} | {found[0]:.3f} | {found[1]:.3f}"
        print(f"| {title} | {family} | {use} | {cells} |")
    for use in (None, *Use):
        found = np.mean([rates(decisions, scene.logits[at], scene.labels) for at in scene.find(list_shifts(use))], 0)
        print(f"mean of {use or 'all'}: sensitivity {found[0]:.3f}, specificity {found[1]:.3f}")


def fit(scene: Scene, half: np.ndarray, strategy: str, without: Family | None) -> Decisions:
    """Fit decisions to some images as a strategy says, without the changes of a family."""
    policy, fit_on = STRATEGIES[strategy]
    places = np.flatnonzero(half)
    if fit_on == "shifts":
        allowed = [shift for shift in list_shifts(Use.FITTING) if shift.family is not without]
        at = [scene.find([shift])[0] if shift else 0 for shift in assign_shifts(len(places), allowed)]
    else:
        at = [0] * len(places)
    rules = DecisionRules(Policy.parse(policy))
    return fit_decisions(scene.logits[at, places], scene.labels[places], positive=1, classes=scene.classes, rules=rules)


def compare(scene: Scene, repetitions: int) -> None:
    """Print the strategies by what they are judged on; each value is the mean over halves of the patients."""
    patients = np.unique(scene.patients)
    judged: dict[str, tuple[Family | None, list[int]]] = {"unchanged": (None, [0])}
    for family in Family:
        shifts = [shift for shift in list_shifts() if shift.family is family]
        judged[family] = (family, scene.find(shifts))
        judged[f"{family}, reserved"] = (family, scene.find(each for each in shifts if each.use is Use.REPORT))
    judged["all reserved, none left out"] = (None, scene.find(list_shifts(Use.REPORT)))
    table = {}
    for strategy in STRATEGIES:
        found: dict[str, list[np.ndarray]] = {name: [] for name in judged}
        for repetition in range(repetitions):
            chosen = np.random.default_rng(repetition).permutation(patients)[: len(patients) // 2]
            half = np.isin(scene.patients, chosen)
            for part in (half, ~half):
                fitted = {without: fit(scene, part, strategy, without) for without in (None, *FAMILIES)}
                for name, (family, places) in judged.items():
                    decisions = fitted[family if family in FAMILIES else None]
                    each = [rates(decisions, scene.logits[place, ~part], scene.labels[~part]) for place in places]
                    found[name].append(np.array(each))
        table[strategy] = found
    for name, (_, places) in judged.items():
        print(
            f"\n{name} ({len(places)}): balanced accuracy (worst), sensitivity, specificity, coverage N, P, uncertain"
        )
        for strategy, found in table.items():
            mean = np.mean(found[name], axis=0)  # changes x rates
            balanced = mean[:, :2].mean(axis=1)
            cells = " ".join(f"{value:.3f}" for value in mean.mean(axis=0))
            print(f"  {strategy:38} {balanced.mean():.4f} ({balanced.min():.3f})  {cells}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="data set of the bundle")
    parser.add_argument("--splits", nargs="+", default=["validation"], help="splits to take images from")
    parser.add_argument("--images", type=int, default=200, help="most images of each class")
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True, help="file that keeps the logits")
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    splits = [Split[name.upper()] for name in options.splits]
    scene = predict(bundle, options.data, splits, options.images, options.out)
    show_changes(scene, read_decisions(bundle.info))
    compare(scene, options.repetitions)


if __name__ == "__main__":
    main()
