import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from pneumo.pipeline.cli import app
from pneumo.pipeline.cli.evaluate import _show_stress_test as show
from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.evaluation import read_metrics
from pneumo.pipeline.evaluation.results import Estimate
from pneumo.pipeline.evaluation.stress.shifts import Use, list_shifts
from pneumo.pipeline.evaluation.stress.stress_test import (
    FILE,
    ShiftResult,
    StressReport,
    run_stress_test,
    summarise_shifts,
)
from pneumo.pipeline.export.bundle_export import export_run
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.model.bundle import Bundle

if TYPE_CHECKING:
    from tests.conftest import Outcome


@pytest.fixture(scope="module")
def own(trained: Run, exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of the trained run with its bundle, which tests may write into."""
    run = Run(tmp_path_factory.mktemp("stress") / trained.name)
    shutil.copytree(trained.folder, run.folder)
    shutil.copytree(exported, run.folder / "bundle")
    return run


@pytest.fixture(scope="module")
def said(own: Run) -> Result:
    """What the command says: the one pass over all images that the tests share."""
    return CliRunner().invoke(app, ["evaluate", str(own.folder), "--stress", "--json"], catch_exceptions=False)


@pytest.fixture(scope="module")
def report(said: Result) -> StressReport:
    return StressReport.model_validate_json(said.stdout)


def test_unchanged_images_have_the_metrics_of_the_run(report: StressReport, own: Run) -> None:
    expected = read_metrics(own).splits["validation"].metrics
    for name in ("auroc", "balanced_accuracy", "sensitivity", "specificity"):
        assert report.unchanged.metrics[name].value == pytest.approx(expected[name].value, abs=1e-9)
    # Each conformal limit is the score of one of these images, which the last bit of a logit decides about.
    two_images = 2 / report.images + 1e-9
    more = report.unchanged.metrics["uncertain"].value - expected["uncertain"].value
    assert -two_images <= more <= report.unchanged.flagged + two_images  # an out-of-distribution image is uncertain
    reference = pd.read_parquet(own.folder / "bundle" / "reference.parquet")
    scores = reference[reference["split"] == "validation"]["outlier_score"]
    limit = Bundle.open(own.folder / "bundle").info.outlier.limit
    assert report.unchanged.flagged == pytest.approx((scores > limit).mean())


def test_every_shift_is_measured_and_some_hurt(report: StressReport) -> None:
    assert [result.title for result in report.shifts] == [shift.title for shift in list_shifts()]
    for result in report.shifts:
        auroc = result.metrics["auroc"]
        assert auroc.low <= auroc.value <= auroc.high
        assert 0 <= result.flagged <= 1
    assert report.summary.worst_auroc < report.unchanged.metrics["auroc"].value
    assert len({result.metrics["auroc"].value for result in report.shifts}) > 5


def test_the_report_is_kept_in_the_run_and_progress_is_told(said: Result, report: StressReport, own: Run) -> None:
    assert said.exit_code == 0
    assert StressReport.model_validate_json((own.folder / FILE).read_text(encoding="utf-8")) == report
    told = [line for line in said.stderr.splitlines() if line in {shift.title for shift in list_shifts()}]
    assert told == [shift.title for shift in list_shifts()]
    assert "wrote" in said.stderr


@pytest.mark.lengthy
@pytest.mark.slow
def test_a_run_without_a_bundle_has_the_shares_flagged_that_its_bundle_will_tell_of(
    trained: Run, exported: Path, own: Run, tmp_path: Path
) -> None:
    run = Run(tmp_path / trained.name)
    shutil.copytree(trained.folder, run.folder)
    found = run_stress_test(run, images=8, resamples=5)
    assert (found.images, found.unchanged.flagged) == (8, 0)
    assert max(result.flagged or 0 for result in found.shifts) > 0
    assert found == run_stress_test(own, images=8, resamples=5)

    bundle = Bundle.open(export_run(run))
    assert StressReport.model_validate_json(bundle.read(FILE)) == found
    card = bundle.read("card.md").decode()
    assert "8 validation images, changed" in card
    assert "| out-of-distribution |" in card
    assert bundle.info.version != Bundle.open(exported).info.version


def result(name: str, auroc: float | None, balanced: float | None) -> ShiftResult:
    metrics = {"auroc": Estimate(value=auroc), "balanced_accuracy": Estimate(value=balanced)}
    return ShiftResult(name=name, strength="1", metrics=metrics, flagged=None)


def test_the_summary_has_mean_and_worst_and_leaves_out_what_is_undefined() -> None:
    summary = summarise_shifts([result("a", 0.9, 0.8), result("b", 0.7, 0.6), result("c", None, None)])
    assert summary.mean_auroc == pytest.approx(0.8)
    assert (summary.worst_auroc, summary.worst_shift) == (0.7, "b, 1")
    assert summary.mean_balanced_accuracy == pytest.approx(0.7)
    assert summary.worst_balanced_accuracy == 0.6
    assert summarise_shifts([result("c", None, None)]).worst_shift is None


def test_the_summary_has_the_changes_of_each_family_and_those_for_the_report_alone(report: StressReport) -> None:
    families = report.families
    assert list(families) == [*dict.fromkeys(shift.family for shift in list_shifts()), "report"]
    assert sum(part.changes for name, part in families.items() if name != "report") == len(report.shifts)
    reserved = [result for result in report.shifts if result.use == "report"]
    assert families["report"].changes == len(reserved) == len(list_shifts(Use.REPORT))
    assert families["report"].mean_specificity == pytest.approx(
        np.mean([result.metrics["specificity"].value for result in reserved])
    )
    assert min(part.worst_auroc for part in families.values()) == report.summary.worst_auroc


def test_a_data_set_that_changed_is_refused(trained: Run, dataset: Dataset, tmp_path: Path) -> None:
    run = Run(tmp_path / trained.name)
    shutil.copytree(trained.folder, run.folder)
    folder = tmp_path / "data"
    shutil.copytree(dataset.folder, folder)
    manifest.write_dataset(folder, dataset.rows, dataset.info.model_copy(update={"fingerprint": "0" * 64}))
    run.save(trained.info().model_copy(update={"data": str(folder)}))
    with pytest.raises(InputError, match="fingerprint differs"):
        run_stress_test(run)


def test_a_person_gets_a_table_of_all_changes(report: StressReport, capsys: pytest.CaptureFixture[str]) -> None:
    show(report)
    shown = capsys.readouterr().out
    for shift in list_shifts():
        assert shift.title in shown
    for name, part in report.families.items():
        assert f"│ {name} " in shown
        assert f"{part.mean_auroc:.3f}" in shown
    assert report.summary.worst_shift in shown


def test_options_that_stress_would_ignore_are_refused(pneumo: Callable[..., "Outcome"], own: Run) -> None:
    refused = pneumo("evaluate", own.folder, "--stress", "--policy", "sensitivity >= 0.9")
    assert refused.code == 2
    assert "leave out --policy" in refused.err
    alone = pneumo("evaluate", own.folder, "--stress-images", "10")
    assert alone.code == 2
    assert "--stress-images needs --stress" in alone.err
