"""Decisions fitted to validation images under changes: `decisions: {fit_on: shifts}` of a config.

Every second image is as it is, each other one under a change for fitting, of every family in turn: a prior on what
another place may send. Each image is one draw from it, so that the coverage of prediction sets holds for that mixture.
"""

from collections.abc import Sequence
from contextlib import suppress
from zipfile import BadZipFile

import numpy as np

from pneumo.pipeline.decisions import DecisionRules, Decisions, fit_decisions
from pneumo.pipeline.evaluation.cases import Scores, positive_column
from pneumo.pipeline.evaluation.run_dataset import read_run_dataset
from pneumo.pipeline.evaluation.stress.shifts import Shift, Use, list_shifts
from pneumo.pipeline.evaluation.stress.stored_images import StoredImages
from pneumo.pipeline.ludwig import runtime
from pneumo.pipeline.runs.run import Run, RunInfo
from pneumo.serving.contracts.arrays import Float64

FILE = "shifted_validation.npz"
"""Logits of the validation images under their changes in a run's folder, so that another policy needs no network."""


def fit_on_shifts(run: Run, info: RunInfo, validation: Scores, rules: DecisionRules) -> Decisions:
    """Fit decisions on validation images, half of them changed; an `InputError` without the model or its data set."""
    shifts = assign_shifts(len(validation.image), list_shifts(Use.FITTING, binary=info.positive is not None))
    causes = ", ".join(dict.fromkeys(str(shift.family) for shift in shifts if shift))
    return fit_decisions(
        _read_or_predict(run, info, validation, shifts),
        validation.truth,
        positive=positive_column(info.classes, info.positive),
        classes=info.classes,
        rules=rules,
        fitted_on=f"validation, half of it under changes ({causes})",
    )


def assign_shifts(images: int, shifts: Sequence[Shift]) -> list[Shift | None]:
    """Return a change for each of so many images: none for every second, else one of the next family, in turn."""
    families = [[each for each in shifts if each.family is family] for family in {each.family: 0 for each in shifts}]
    turns = ((families[n % len(families)], n // len(families)) for n in range(images // 2))
    chosen = [family[turn % len(family)] for family, turn in turns]
    return [chosen[n // 2] if n % 2 else None for n in range(images)]


def _read_or_predict(run: Run, info: RunInfo, validation: Scores, shifts: list[Shift | None]) -> Float64:
    """Return the logits [N, K] of images under their changes."""
    titles, path = [shift.title if shift else "" for shift in shifts], run.folder / FILE
    with suppress(OSError, ValueError, LookupError, BadZipFile), np.load(path) as kept:
        if kept["changes"].tolist() == titles and np.array_equal(kept["unchanged"], validation.logits):
            logits: Float64 = kept["logits"]
            return logits
    from pneumo.pipeline.ludwig.inference import load_model, predict_logits

    dataset = read_run_dataset(info)
    rows, places = {row.image: row for row in dataset.rows}, [n for n, shift in enumerate(shifts) if shift]
    stored = StoredImages.read(dataset, [rows[validation.image[n]] for n in places], info)
    with runtime.log_to_file(run.log):
        model = load_model(run)
    logits = validation.logits.copy()
    logits[places] = predict_logits(model, info, stored.change_each([shifts[n] for n in places]))
    np.savez(path, changes=titles, unchanged=validation.logits, logits=logits)
    return logits
