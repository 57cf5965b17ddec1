import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from pneumo.pipeline.data.manifest import Dataset, Split
from pneumo.pipeline.decisions import Policy, fit_decisions, read_decisions
from pneumo.pipeline.evaluation import evaluate_run
from pneumo.pipeline.evaluation.stress.shifted_validation import assign_shifts
from pneumo.pipeline.evaluation.stress.shifts import Family, Use, list_shifts
from pneumo.pipeline.evaluation.stress.stored_images import StoredImages
from pneumo.pipeline.ludwig.inference import load_model, predict_logits
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.errors import InputError

FAMILIES = [each for each in Family if each is not Family.MIXED]


@pytest.fixture(scope="module")
def shifted(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of the trained run whose decisions are fitted under changes."""
    run = Run(tmp_path_factory.mktemp("shifted") / trained.name)
    shutil.copytree(trained.folder, run.folder)
    (run.folder / "decisions.json").unlink()
    config = yaml.safe_load(run.config.read_text())
    config["decisions"]["fit_on"] = "shifts"
    run.config.write_text(yaml.safe_dump(config))
    evaluate_run(run, resamples=10)
    return run


def test_every_second_image_is_under_a_change_and_families_take_turns() -> None:
    shifts = list_shifts(Use.FITTING)
    assigned = assign_shifts(4 * len(FAMILIES) * 13, shifts)
    assert assigned[::2] == [None] * len(assigned[::2])
    changed = [shift for shift in assigned if shift is not None]
    assert [shift.family for shift in changed] == FAMILIES * (len(changed) // len(FAMILIES))
    assert {shift.title for shift in changed} == {shift.title for shift in shifts}
    assert assign_shifts(0, shifts) == []


def test_decisions_are_fitted_to_the_mixture(shifted: Run, dataset: Dataset) -> None:
    rows = dataset.select(Split.VALIDATION)
    frame = pd.read_parquet(shifted.predictions)
    logits = np.stack(frame[frame["split"] == "validation"]["logits"].to_list())
    info = shifted.info()
    model, stored = load_model(shifted), StoredImages.read(dataset, rows, info)
    for place, shift in enumerate(assign_shifts(len(rows), list_shifts(Use.FITTING))):
        if shift is not None:
            logits[place] = predict_logits(model, info, [stored.change(shift)[place]])[0]
    labels = np.array([info.classes.index(row.label) for row in rows])
    expected = fit_decisions(logits, labels, positive=1, classes=info.classes)
    found = read_decisions(shifted)
    assert found.threshold == pytest.approx(expected.threshold, abs=1e-4)
    assert found.temperature == pytest.approx(expected.temperature, rel=1e-4)
    assert found.conformal_limit == pytest.approx(expected.conformal_limit, abs=1e-4)
    assert (found.fit_on, found.images) == ("shifts", len(rows))
    assert all(family in found.fitted_on for family in FAMILIES)
    assert found.fitted_on in shifted.report.read_text()
    assert found.threshold != pytest.approx(
        fit_decisions(
            np.stack(frame[frame["split"] == "validation"]["logits"].to_list()),
            labels,
            positive=1,
            classes=info.classes,
        ).threshold,
        abs=1e-4,
    )


def test_another_policy_needs_no_network_unless_the_predictions_are_others(shifted: Run, tmp_path) -> None:
    run = Run(tmp_path / shifted.name)
    shutil.copytree(shifted.folder, run.folder)
    shutil.rmtree(run.model)
    assert evaluate_run(run, policy="max accuracy", resamples=10).decisions.fit_on == "shifts"
    assert Policy.parse(read_decisions(run).policy) == Policy("accuracy")
    with pytest.raises(InputError, match="trade both errors"):
        evaluate_run(run, policy="sensitivity >= 0.9", resamples=10)
    frame = pd.read_parquet(run.predictions)
    frame.assign(logits=[logits + 1 for logits in frame["logits"]]).to_parquet(run.predictions)
    with pytest.raises(InputError, match="no model in it yet"):
        evaluate_run(run, resamples=10)
