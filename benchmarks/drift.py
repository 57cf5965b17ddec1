"""Measure false alarms and power of the drift check on real images.

Windows are drawn from a data set's test split; the reference are its validation images, other patients. Contenders
look at the same windows: Evidently's default preset, as it judges a whole data set (half of the columns must drift)
and by any column, and what a careful person would do without knowing of patients (Kolmogorov-Smirnov and Fisher's exact
test, corrected by Holm).

Every image is predicted once under each change: five to ten minutes on two cores for the 782 test images of
chest_xray_224_train.tar, imported with `--fractions 0.7,0.15,0.15`. With `--sites` only the figures of several sites
are measured, of which one changes, under fewer changes.
"""

import argparse
import functools
import json
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.drift.changed_images import PredictedImages, Scene, predict_changes
from pneumo.pipeline.drift.grades import Grade, list_grades, load_photographs
from pneumo.pipeline.drift.simulation import measure_grade
from pneumo.pipeline.drift.simulation_result import HARM, SURE
from pneumo.serving.drift.column_tests import ColumnTests, adjust_p_values
from pneumo.serving.drift.samples import Sample, read_reference
from pneumo.serving.drift.verdict import Verdict, find_worst
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.predictor import Predictor

SIZES = (50, 100, 200)
HALVES = 20
SITES = ((1, 100), (5, 80), (5, 40), (20, 25))
"""Numbers of sites, and images of each."""
SITE_CHANGES = (
    *("darker, -5 levels", "darker, -10 levels", "darker, -20 levels", "blur, sigma 0.3 px", "blur, sigma 0.5 px"),
    *("noise, 20000 photons", "noise, 8000 photons", "rotation, 2 degrees", "rotation, 5 degrees"),
    *("another scanner, 10%", "another scanner, 25%", "more positives, 90% of images", "more positives, 97% of images"),
)
MIX = (0.62, 0.9)
"""Share of pneumonia in the reference and in the window of the change of the class mix."""

PNEUMO, UNGROUPED, KOLMOGOROV = "pneumo", "pneumo, patients not known", "KS and Fisher, Holm"
PRESET, ANY = "Evidently's preset", "Evidently's preset, any column"


class Contenders:
    """Every way to raise the alarm."""

    def __init__(self, reference: Sample) -> None:
        os.environ.setdefault("DO_NOT_TRACK", "1")
        self.known = columns_of(reference)
        self.judges = {PNEUMO: ColumnTests(reference, positive_class="PNEUMONIA")}
        if reference.groups is not None:
            self.judges[UNGROUPED] = ColumnTests(replace(reference, groups=None), positive_class="PNEUMONIA")

    def alarms(self, window: Sample) -> dict[str, bool]:
        """Detectors that raise the alarm, by name."""
        found = {name: judge.compare(window)[0] is not Verdict.OK for name, judge in self.judges.items()}
        return found | self.others(window)

    def others(self, window: Sample) -> dict[str, bool]:
        """Detectors that raise it besides pneumo."""
        columns = columns_of(window)
        share = self.evidently(columns)
        return {KOLMOGOROV: self.kolmogorov(columns), PRESET: share >= 0.5, ANY: share > 0}

    def evidently(self, columns: dict[str, np.ndarray]) -> float:
        """Share of columns that drift in Evidently's default preset: by the tests that it chooses for them."""
        import pandas as pd
        from evidently.legacy.calculations.stattests.registry import get_stattest
        from evidently.legacy.core import ColumnType

        drifted = []
        for name, values in columns.items():
            kind = ColumnType.Categorical if values.dtype == bool else ColumnType.Numerical
            before, now = pd.Series(self.known[name]), pd.Series(values)
            drifted.append(get_stattest(before, now, kind, None)(before, now, kind, None).drifted)
        return float(np.mean(drifted))

    def kolmogorov(self, columns: dict[str, np.ndarray]) -> bool:
        """Kolmogorov-Smirnov for numbers and Fisher's exact test for shares, corrected by Holm."""
        from scipy.stats import fisher_exact, ks_2samp

        p_values = []
        for name, now in columns.items():
            before = self.known[name]
            if now.dtype == bool:
                table = [[values.sum(), (~values).sum()] for values in (before, now)]
                p_values.append(float(fisher_exact(table).pvalue))
            else:
                p_values.append(float(ks_2samp(before, now, method="asymp").pvalue))
        return min(adjust_p_values(p_values)) < 0.05


def columns_of(sample: Sample) -> dict[str, np.ndarray]:
    """Return the columns that vary between images, without the embedding."""
    constant = ("aspect", "width", "height")
    numbers = {name: values for name, values in sample.numbers.items() if name not in constant}
    return {**numbers, **sample.shares}


def of_patients(patients: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of whole patients, in random order, until a window is full."""
    rows: list[int] = []
    for patient in rng.permutation(np.unique(patients)):
        rows += np.flatnonzero(patients == patient).tolist()
        if len(rows) >= size:
            break
    return np.array(rows[:size])


def null_windows(
    reference: Sample, scene: Scene, size: int, count: int
) -> Iterator[tuple[str, Sample, Iterator[Sample]]]:
    """Windows in which nothing has changed: how they were drawn, the reference, and the windows."""
    plain = scene.plain.sample
    yield (
        "test images",
        reference,
        (plain.take(np.random.default_rng((size, n)).choice(len(plain), size, replace=False)) for n in range(count)),
    )
    if reference.groups is None:
        return
    both = reference.join(plain)
    own = np.unique(scene.patients, return_inverse=True)[1] + reference.groups.max() + 1
    patients = np.concatenate([reference.groups, own])
    for half in range(HALVES):
        rng = np.random.default_rng((size, half))
        known = np.isin(patients, rng.permutation(np.unique(patients))[: len(np.unique(patients)) // 2])
        first = replace(both.take(np.flatnonzero(known)), groups=patients[known])
        rest = np.flatnonzero(~known)
        each = range(count // HALVES)
        yield "halves, images", first, (both.take(rng.choice(rest, size, replace=False)) for _ in each)
        yield "halves, patients", first, (both.take(rest[of_patients(patients[rest], size, rng)]) for _ in each)


def false_alarms(reference: Sample, scene: Scene, count: int) -> dict[str, dict[str, list[float]]]:
    """Share of unchanged windows with an alarm: by contender, by how they were drawn, for each size."""
    found: dict[str, dict[str, list[float]]] = {}
    for size in SIZES:
        raised: dict[tuple[str, str], list[bool]] = {}
        for drawn, known, windows in null_windows(reference, scene, size, count):
            contenders = Contenders(known)
            for window in windows:
                for name, alarm in contenders.alarms(window).items():
                    raised.setdefault((name, drawn), []).append(alarm)
            print(".", end="", file=sys.stderr, flush=True)
        for (name, drawn), values in raised.items():
            found.setdefault(name, {}).setdefault(drawn, []).append(float(np.mean(values)))
    print(file=sys.stderr)
    return found


def judge_sites(judge: ColumnTests, parts: list[Sample]) -> list[Verdict]:
    """Verdict on all images of some sites together, and on each of several sites, under one correction."""
    windows = [functools.reduce(Sample.join, parts), *(parts if len(parts) > 1 else [])]
    return [verdict for verdict, _ in judge.compare_all(windows)]


def site_false_alarms(reference: Sample, scene: Scene, count: int) -> dict[str, dict[str, float]]:
    """Share of unchanged windows of several sites with any alarm, by how they were drawn."""
    found: dict[str, dict[str, float]] = {}
    for sites, size in SITES:
        raised: dict[str, list[bool]] = {}
        judge = ColumnTests(reference, positive_class="PNEUMONIA")
        for drawn, known, windows in null_windows(reference, scene, sites * size, count):
            if judge.reference is not known:
                judge = ColumnTests(known, positive_class="PNEUMONIA")
            for window in windows:
                parts = [window.take(np.arange(size) + size * site) for site in range(sites)]
                raised.setdefault(drawn, []).append(find_worst(judge_sites(judge, parts)) is not Verdict.OK)
            print(".", end="", file=sys.stderr, flush=True)
        found[f"{sites} x {size}"] = {drawn: float(np.mean(values)) for drawn, values in raised.items()}
    print(file=sys.stderr)
    return found


def part_of(scene: Scene, grade: Grade, rows: np.ndarray) -> Scene:
    """Some images of a scene, unchanged and under one change."""

    def take(images: PredictedImages) -> PredictedImages:
        return PredictedImages(images.sample.take(rows), images.right[rows])

    changed = {grade.change.title: take(scene.select(grade))} if grade.change else {}
    positive = None if scene.positive is None else scene.positive[rows]
    return Scene(take(scene.plain), changed, None, scene.patients[rows], positive)


def site_power(reference: Sample, scene: Scene, grades: list[Grade], count: int) -> dict[str, dict[str, list[float]]]:
    """For each grade at one of several sites, by sites: shares of windows with an alarm.

    Of all images where sites are not known, with sites, and with an alarm at the changed site and at no other.
    """
    judge = ColumnTests(reference, positive_class="PNEUMONIA")
    found: dict[str, dict[str, list[float]]] = {}
    for grade in grades:
        for sites, size in SITES[1:]:
            hits = []
            for number in range(count):
                rng = np.random.default_rng((sites, size, number))
                rows = of_patients(scene.patients, len(scene), rng)
                others, rest = np.split(rows, [(sites - 1) * size])
                first = part_of(scene, grade, rest).draw_window(grade, size, rng)
                parts = [first, *(scene.plain.sample.take(each) for each in others.reshape(-1, size))]
                verdicts = [verdict is not Verdict.OK for verdict in judge_sites(judge, parts)]
                alone = judge.compare(functools.reduce(Sample.join, parts))[0] is not Verdict.OK
                hits.append([alone, any(verdicts), verdicts[1] and not any(verdicts[2:])])
            found.setdefault(grade.title, {})[f"{sites} x {size}"] = np.mean(hits, axis=0).tolist()
            shares = "".join(f"{share:>8.2f}" for share in np.mean(hits, axis=0))
            print(f"{grade.title:<36}{sites:>3} x {size:<6}{shares}", flush=True)
    return found


def power(
    reference: Sample, scene: Scene, grades: list[Grade], count: int, size: int
) -> list[dict[str, str | float | None]]:
    """For each grade the AUROC and the share of windows with an alarm, by contender."""
    contenders = Contenders(reference)
    found = []
    for grade in grades:
        point = measure_grade(scene, contenders.judges[PNEUMO], grade, count, size, 0)
        row: dict[str, str | float | None] = {
            "kind": grade.kind,
            "label": grade.label,
            "auroc": point.auroc,
            "accuracy": point.accuracy,
        }
        row |= {PNEUMO: point.alarms, "drift": point.drifts, "columns": " ".join(point.columns)}
        windows = (scene.draw_window(grade, size, np.random.default_rng((0, number))) for number in range(count))
        raised = [contenders.others(window) for window in windows]
        row |= {name: float(np.mean([each[name] for each in raised])) for name in raised[0]}
        found.append(row)
        print(
            f"{grade.title:<36}{_number(point.auroc):>8}{point.alarms:>8.2f}{point.drifts:>8.2f}"
            + "".join(f"{row[name]:>10.2f}" for name in raised[0])
            + f"  {row['columns']}",
            flush=True,
        )
    return found


def class_mix(reference: Sample, scene: Scene, count: int) -> dict[str, dict[int, float]]:
    """Print alarms if the share of pneumonia goes from `MIX[0]` in the reference to `MIX[1]`, and if it stays."""
    rng = np.random.default_rng(0)
    said = reference.shares["decision"]
    patients = np.arange(len(reference)) if reference.groups is None else reference.groups
    wanted = int((~said).sum() * MIX[0] / (1 - MIX[0]))
    positives = np.flatnonzero(said)
    chosen = positives[of_patients(patients[positives], wanted, rng)]
    known = reference.take(np.concatenate([np.flatnonzero(~said), chosen]))
    judge = ColumnTests(known, positive_class="PNEUMONIA")
    return {
        f"{share:.0%}": {
            size: measure_grade(scene, judge, Grade("mix", "", positive=share), count, size, 0).alarms
            for size in SIZES
            if scene.has_enough(Grade("mix", "", positive=share), size)
        }
        for share in MIX
    }


def harmed(rows: list[dict[str, str | float | None]], unchanged: float) -> None:
    """Print for each kind of change the mildest grade at which the model is harmed, and the alarms there."""
    print(f"\nwhere the AUROC has fallen by {HARM:g} (aim: alarms in {SURE:.0%} of windows)")
    for kind in dict.fromkeys(row["kind"] for row in rows):
        of_kind = [row for row in rows if row["kind"] == kind and row["auroc"] is not None]
        first = next((row for row in of_kind if unchanged - float(row["auroc"] or 0) >= HARM), None)
        sure = next((row for row in of_kind if float(row[PNEUMO] or 0) >= SURE), None)
        harm = f"at {first['label']}: alarms {first[PNEUMO]:.2f}" if first else "not in this range"
        print(f"{kind!s:<20}{harm:<40}alarm in {SURE:.0%} from {sure['label'] if sure else '-'}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("real/bundle"))
    parser.add_argument("--data", type=Path, default=Path("real/data"))
    parser.add_argument("--windows", type=int, default=200, help="unchanged windows of each size")
    parser.add_argument("--shifted", type=int, default=60, help="windows of each change and strength")
    parser.add_argument("--size", type=int, default=100, help="images in a changed window")
    parser.add_argument("--images", type=int, default=10_000, help="test images at most, of whole patients")
    parser.add_argument("--sites", action="store_true", help="measure the figures of several sites alone")
    parser.add_argument("--out", type=Path, help="write all figures here, as JSON")
    options = parser.parse_args()
    if not (options.bundle / "bundle.json").is_file():  # `make bench` runs every benchmark
        print(f"{options.bundle}: no bundle; `make real-model` makes one, or give --bundle and --data")
        return
    warnings.filterwarnings("ignore")
    bundle, dataset = Bundle.open(options.bundle), manifest.read_dataset(options.data)
    reference = read_reference(bundle)
    rows = list(dataset.select(Split.TEST))
    if options.images < len(rows):
        patients = np.array([row.patient for row in rows])
        rows = [rows[place] for place in sorted(of_patients(patients, options.images, np.random.default_rng(0)))]
    grades = [grade for grade in list_grades() if not options.sites or grade.title in SITE_CHANGES]
    size = bundle.info.preparation.size
    scene = predict_changes(
        Predictor(bundle),
        dataset,
        rows,
        grades,
        photographs=[] if options.sites else load_photographs(size),
        progress=lambda title: print(title, file=sys.stderr, flush=True),
    )
    found: dict[str, object] = {**run_sites(reference, scene, grades, options)}
    if not options.sites:
        found |= run(bundle, reference, scene, grades, options)
    if options.out:
        options.out.write_text(json.dumps({"model": bundle.info.id, **found}, indent=1) + "\n", encoding="utf-8")


def run_sites(
    reference: Sample, scene: Scene, grades: list[Grade], options: argparse.Namespace
) -> dict[str, dict[str, object]]:
    """Print the tables of several sites."""
    alarms = site_false_alarms(reference, scene, options.windows)
    print(
        f"{'false alarms of unchanged sites, sites x images':<52}"
        + "".join(f"{name:>20}" for name in alarms["1 x 100"])
    )
    for name, kinds in alarms.items():
        print(f"{name:<52}" + "".join(f"{value:>20.3f}" for value in kinds.values()))
    print(f"\n{'one site changes':<36}{'sites':>8}  without  any  that one alone")
    chosen = [grade for grade in grades if grade.title in SITE_CHANGES]
    return {"site_false_alarms": {**alarms}, "site_power": {**site_power(reference, scene, chosen, options.shifted)}}


def run(
    bundle: Bundle, reference: Sample, scene: Scene, grades: list[Grade], options: argparse.Namespace
) -> dict[str, object]:
    """Print all tables for images that were seen."""
    patients = "unknown" if reference.groups is None else len(np.unique(reference.groups))
    print(
        f"{bundle.info.id}: reference {len(reference)} images of {patients} patients, "
        f"windows from {len(scene)} test images of {len(np.unique(scene.patients))} patients"
    )
    alarms = false_alarms(reference, scene, options.windows)
    print(f"\n{'false alarms, windows of':<52}" + "".join(f"{size:>8}" for size in SIZES))
    for name, kinds in alarms.items():
        for drawn, values in kinds.items():
            print(f"{name:<32}{drawn:<20}" + "".join(f"{value:>8.3f}" for value in values))
    mix = class_mix(reference, scene, options.windows)
    print(f"\n{'pneumonia ' + f'{MIX[0]:.0%} in the reference, in the window':<52}" + "".join(f"{n:>8}" for n in SIZES))
    for share, found in mix.items():
        print(f"{share:<52}" + "".join(f"{found.get(size, float('nan')):>8.3f}" for size in SIZES))
    print(f"\nalarms in {options.shifted} windows of {options.size} images")
    print(f"{'change':<36}{'AUROC':>8}{'pneumo':>8}{'drift':>8}{'KS Holm':>10}{'Evid.':>10}{'Ev. any':>10}  columns")
    judge = ColumnTests(reference, positive_class="PNEUMONIA")
    unchanged = measure_grade(scene, judge, None, options.shifted, options.size, 0)
    print(f"{'unchanged':<36}{_number(unchanged.auroc):>8}{unchanged.alarms:>8.2f}{unchanged.drifts:>8.2f}", flush=True)
    grades = [grade for grade in grades if scene.has_enough(grade, options.size)]
    points = power(reference, scene, grades, options.shifted, options.size)
    harmed(points, unchanged.auroc or 0.0)
    return {"false_alarms": alarms, "class_mix": mix, "power": points}


if __name__ == "__main__":
    main()
