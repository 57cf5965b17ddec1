import json
from pathlib import Path

import pytest

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import DATASET
from pneumo.pipeline.data.shortcuts import Shortcut, ShortcutReport
from pneumo.pipeline.evaluation import evaluate_run, read_metrics
from pneumo.pipeline.evaluation.results import Bootstrap, Estimate
from pneumo.pipeline.evaluation.stress.stress_test import ShiftResult, StressReport, Summary
from pneumo.pipeline.export.model_card import render_card
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.population import Population
from pneumo.serving.images.preparation import Preparation
from pneumo.serving.model.bundle import BundleInfo, Conformal, Outlier, Parity

pytestmark = pytest.mark.usefixtures("no_pages")

CONFIG = """\
input_features:
  - name: image
    type: image
    encoder: {type: efficientnet_lite, pretrained: true}
    augmentation: [{type: random_noise}, {type: random_gamma}]
trainer: {epochs: 5, batch_size: 32}
"""


def described(run: Run, population: Population | None = None) -> str:
    """The card of an evaluated run."""
    info, metrics = run.info(), read_metrics(run)
    decisions = metrics.decisions
    bundle = BundleInfo(
        name="synthetic",
        version="1",
        classes=info.classes,
        positive_class=info.positive,
        preparation=Preparation.model_validate(info.preparation),
        temperature=decisions.temperature,
        thresholds={} if decisions.threshold is None else {"default": decisions.threshold},
        policy=decisions.policy,
        conformal=Conformal(level=decisions.conformal_level, limit=decisions.conformal_limit),
        outlier=Outlier(limit=3.0, quantile=decisions.outlier_quantile),
        metrics=metrics.model_dump(mode="json"),
        data_fingerprint=info.data_fingerprint,
        population=population,
        provenance={"run": run.name, "seed": info.seed},
        parity=Parity(images=64, max_probability_difference=1e-6, tolerance=1e-4),
    )
    return render_card(bundle, manifest.read_dataset(Path(info.data)).info, run)


def test_the_card_names_the_population_or_says_that_it_is_not_stated(synthesise_run) -> None:
    run = synthesise_run(images=60)
    run.config.write_text(CONFIG)
    evaluate_run(run, resamples=50)
    text = described(run)
    assert "trained on images of a population that is not stated" in section(text, "Intended use")
    assert "--population FILE" in section(text, "Population")
    text = described(run, Population(ages=(1, 5), sites=["North | South"]))
    assert "trained on chest X-rays of children of 1 to 5 years (North | South)." in section(text, "Intended use")
    assert "| ages | 1 to 5 years |" in section(text, "Population")
    assert "| sites | North \\| South |" in section(text, "Population")
    assert "| reference standard | not stated |" in section(text, "Population")


def section(text: str, name: str) -> str:
    return text.split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0]


def test_the_card_says_everything_that_a_user_of_the_model_must_know(synthesise_run) -> None:
    run = synthesise_run(images=600, groups=True)
    run.config.write_text(CONFIG)
    evaluate_run(run, policy="sensitivity >= 0.9", resamples=50)
    test = read_metrics(run).splits["test"]

    text = described(run)

    assert "not a medical device" in text
    assert "PNEUMONIA from NORMAL" in section(text, "Intended use")
    assert run.info().data_fingerprint in section(text, "Data")
    assert "`pneumo data check` measures it" in section(text, "Shortcuts")  # a data set without measurements
    auroc = test.metrics["auroc"]
    assert f"{auroc.value:.3f} ({auroc.low:.3f} to {auroc.high:.3f})" in section(text, "Results")
    point = section(text, "Operating point")
    assert "`sensitivity >= 0.9`" in point
    for name in ("sensitivity", "specificity", "ppv", "npv"):
        assert f"{test.metrics[name].value:.3f} ({test.metrics[name].low:.3f}" in point
    calibration = section(text, "Calibration")
    for name in ("ece_uncalibrated", "ece"):
        assert f"{test.metrics[name].value:.3f} ({test.metrics[name].low:.3f}" in calibration
    assert f"{test.metrics['uncertain'].value:.3f}" in section(text, "Uncertain images")
    for part in test.subgroups:
        assert f"| {part.group}: {part.value} | {part.images} ({part.patients}) |" in section(text, "Subgroups")
    assert str(test.worst_group) in section(text, "Subgroups")
    assert "97% of validation images pass" in " ".join(section(text, "Limitations").split())
    training = section(text, "Training")
    assert "efficientnet_lite (pretrained true)" in training
    assert "augmentation: random_noise, random_gamma" in training
    assert "seed 42" in training


def test_the_card_and_the_report_quote_the_shortcuts_of_the_data_set(synthesise_run, page) -> None:
    run = synthesise_run()
    found = Shortcut(
        name="file", classes=["NORMAL", "PNEUMONIA"], auroc=0.9, low=0.88, high=0.92, single={"bytes": 0.9}
    )
    path = Path(run.info().data) / DATASET
    path.write_text(
        json.dumps(
            json.loads(path.read_text())
            | {"shortcuts": ShortcutReport(images=120, patients=60, shortcuts=[found]).model_dump(mode="json")}
        )
    )
    evaluate_run(run, resamples=20)
    sentence = (
        "Size, format and dimensions of the original file alone tell NORMAL from PNEUMONIA with an AUROC of 0.900 "
        "(0.880 to 0.920); best: bytes 0.900."
    )
    assert sentence in section(described(run), "Shortcuts")
    assert f"<li>{sentence}</li>" in run.report.read_text()


def test_every_table_of_the_card_has_the_same_cells_in_each_row(synthesise_run) -> None:
    run = synthesise_run(("a|b", "c"), images=200, groups=True)
    run.config.write_text(CONFIG)
    evaluate_run(run, resamples=10)
    for block in described(run).split("\n\n"):
        rows = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1


def test_the_card_of_three_classes_has_no_threshold(synthesise_run) -> None:
    run = synthesise_run(("a", "b", "c"), images=200, splits=("train", "validation"))
    evaluate_run(run, resamples=10)
    text = described(run)
    assert "The most probable class is the prediction" in text
    assert "Sensitivity of b" in section(text, "Operating point")
    assert "names no subgroups" in section(text, "Subgroups")


def test_the_known_shift_says_what_a_stress_test_found_or_that_there_was_none(synthesise_run, page) -> None:
    run = synthesise_run(images=200)
    evaluate_run(run, resamples=10)
    assert "expect worse" in " ".join(section(described(run), "Distribution shift").split())
    assert "No stress test was run" in described(run)

    def changed(name: str, auroc: float) -> ShiftResult:
        metrics = {"auroc": Estimate(value=auroc, low=auroc - 0.01, high=auroc + 0.01)}
        metrics |= {f"coverage:{each}": Estimate(value=auroc / 2, low=0.4, high=0.5) for each in run.info().classes}
        return ShiftResult(name=name, strength="strongly", metrics=metrics, flagged=0.125)

    info = run.info()
    threshold = read_metrics(run).decisions.threshold
    report = StressReport(
        run=run.name,
        data="data",
        data_fingerprint=info.data_fingerprint,
        split="validation",
        images=66,
        patients=33,
        classes=info.classes,
        positive=info.positive,
        threshold=threshold,
        bootstrap=Bootstrap(resamples=10),
        unchanged=changed("unchanged", 0.97),
        shifts=[changed("darker", 0.91), changed("blurred", 0.81)],
        summary=Summary(
            mean_auroc=0.86,
            worst_auroc=0.81,
            worst_shift="blurred, strongly",
            changes=2,
            mean_specificity=0.625,
            mean_balanced_accuracy=None,
            worst_balanced_accuracy=None,
        ),
    )
    (run.folder / "stress.json").write_text(report.model_dump_json())
    rows = [line for line in section(described(run), "Distribution shift").splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[2:5]] == ["| none", "| blurred, strongly", "| darker, strongly"]
    assert "0.810 (0.800 to 0.820)" in rows[3]
    assert "12.5%" in rows[3]
    assert rows[3].count("0.405 (0.400 to 0.500)") == 2
    lowest = "The lowest coverage of a class is 0.405 (0.400 to 0.500), of NORMAL under the change blurred, strongly."
    assert lowest in described(run)
    assert "| all changes | 2 | 0.860 | 0.810 | - | 0.625 | blurred, strongly |" in described(run)
    assert "at the decision threshold of this card." in described(run)

    evaluate_run(run, policy="sensitivity >= 0.5", resamples=10)
    assert lowest in run.report.read_text()
    assert f"at a decision threshold of {100 * threshold:.4g}%, not that of this card." in described(run)

    (run.folder / "stress.json").write_text(json.dumps({"run": 1}))
    with pytest.raises(InputError, match=r"stress\.json: damaged"):
        described(run)
