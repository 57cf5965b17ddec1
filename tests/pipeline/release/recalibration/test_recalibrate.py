"""Recalibration for a site whose images are brighter, so that a network that looks at brightness calls all positive."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.decisions import Decisions
from pneumo.pipeline.decisions.transfer import LabelledLogits, transfer_decisions
from pneumo.pipeline.release.gate import Gate, judge_candidate
from pneumo.pipeline.release.gate.decide import GateContext
from pneumo.pipeline.release.recalibration import recalibrate_bundle
from pneumo.pipeline.release.recalibration.recalibrate import FLAGGED
from pneumo.pipeline.release.recalibration.site import PRIOR, Site, read_decisions
from pneumo.pipeline.release.registry import promote
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.population import Population
from pneumo.serving.drift.samples import REFERENCE, read_reference
from pneumo.serving.model.bundle import MODEL, Bundle
from pneumo.serving.model.predictor import Predictor
from tests.pipeline.release.conftest import write_dataset


def read_rows(bundle: Bundle) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(bundle.read(REFERENCE)))


def test_the_threshold_follows_the_site_and_the_network_stays(base: Bundle, site: Dataset, tmp_path: Path) -> None:
    done = recalibrate_bundle(base, site, out=tmp_path / "new")
    new = Bundle.open(tmp_path / "new")
    fit = new.info.recalibration
    assert fit is not None
    assert (fit.base, fit.data, fit.images, fit.patients) == ("tiny:1", "elsewhere", 160, 80)
    assert fit.counts == {"NORMAL": 80, "PNEUMONIA": 80}
    assert fit.before["specificity"].value < 0.5
    assert fit.after["balanced_accuracy"].value > fit.before["balanced_accuracy"].value + 0.1
    assert fit.after["auroc"] == fit.before["auroc"]
    assert new.info.thresholds["default"] > base.info.thresholds["default"]

    image = np.random.default_rng(0).random((3, 1, 16, 16), dtype=np.float32)
    before, after = (Predictor(bundle).run(image).logits for bundle in (base, new))
    np.testing.assert_array_equal(before, after)
    entries = {entry.key: entry.value for entry in onnx.load(new.folder / MODEL).metadata_props}
    assert json.loads(entries["threshold"]) == new.info.thresholds["default"]
    assert json.loads(entries["temperature"]) == new.info.temperature

    assert len(read_reference(new)) == 160
    assert sorted(read_rows(new)["split"].unique()) == [PRIOR, "validation"]
    card = new.read("card.md").decode()
    assert card.startswith(f"# tiny {new.info.version}\n")
    assert "80 NORMAL, 80 PNEUMONIA" in card
    assert new.info.origin in card
    assert any("80 NORMAL images of 40 patients show specificity >= 0.9" in remark for remark in done.remarks)


def test_a_recalibrated_model_says_whose_images_its_decisions_were_fitted_to(
    base: Bundle, site: Dataset, tmp_path: Path
) -> None:
    adults = site.info.model_copy(update={"population": Population(ages=(18, 90), sites=["Ward 3"])})
    of_adults = "chest X-rays of adults of 18 to 90 years (Ward 3)"
    cases = [(adults, True, of_adults), (site.info, True, "another place"), (adults, False, None)]
    for info, labelled, place in cases:
        done = recalibrate_bundle(base, replace(site, info=info), out=tmp_path / "new", labelled=labelled)
        trained = "trained on images of a population that is not stated"
        assert done.info.origin == (f"{trained}; decisions fitted to {place}" if place else trained)


def test_recalibrated_twice_is_recalibrated_once(base: Bundle, site: Dataset, tmp_path: Path) -> None:
    once = recalibrate_bundle(base, site, out=tmp_path / "once").info
    twice = recalibrate_bundle(Bundle.open(tmp_path / "once"), site, out=tmp_path / "once").info
    assert twice.thresholds["default"] == pytest.approx(once.thresholds["default"])
    assert twice.temperature == pytest.approx(once.temperature, rel=1e-4)
    assert twice.recalibration is not None
    assert twice.recalibration.base == once.id
    assert twice.version.count("-site-") == 1
    assert Bundle.open(tmp_path / "once").read("card.md").decode().count("## Recalibration") == 1


def test_twenty_images_of_the_same_place_do_no_harm(base: Bundle, bright: Dataset, tmp_path: Path) -> None:
    losses = []
    for seed in range(4):
        few = write_dataset(tmp_path / f"few{seed}", test=-20, seed=seed + 20)
        info = recalibrate_bundle(base, few, out=tmp_path / "new").info
        new = Site.measure(base, write_dataset(tmp_path / f"many{seed}", test=160, seed=seed + 50))
        old, moved = (
            new.apply(read_decisions(base.info).model_copy(update=update)).correct.mean()
            for update in ({}, {"threshold": info.thresholds["default"], "temperature": info.temperature})
        )
        losses.append(old - moved)
    assert len(few.rows) == 20
    assert np.mean(losses) < 0.01


def test_no_image_is_judged_by_decisions_that_its_patient_took_part_in(
    base: Bundle, site: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[set[str]] = []
    measured = Site.measure(base, site)
    patient_of = dict(zip(measured.scores.logits[:, 1].tolist(), measured.scores.patient, strict=True))

    def spy(images: LabelledLogits, prior: LabelledLogits, **options: Any) -> Decisions:
        fitted.append({patient_of[logit] for logit in images.logits[:, 1].tolist()})
        return transfer_decisions(images, prior, **options)

    monkeypatch.setattr(f"{Site.__module__}.transfer_decisions", spy)
    measured.cross_fit(measured.rules(None))
    everyone = set(measured.scores.patient)
    judged = [everyone - patients for patients in fitted]
    assert len(judged) == 5
    assert set.union(*judged) == everyone
    assert sum(map(len, judged)) == len(everyone)


def test_without_labels_only_the_limit_and_the_reference_change(base: Bundle, site: Dataset, tmp_path: Path) -> None:
    done = recalibrate_bundle(base, site, out=tmp_path / "new", labelled=False)
    kept = ("thresholds", "temperature", "conformal", "policy", "metrics", "classes")
    assert done.info.model_dump(include=set(kept)) == base.info.model_dump(include=set(kept))
    assert done.info.outlier.limit != base.info.outlier.limit
    assert done.info.recalibration is not None
    assert done.info.recalibration.counts == {}
    assert done.info.recalibration.after[FLAGGED].value <= 0.02
    assert "without labels" in done.remarks[-1]
    rows = read_rows(Bundle.open(tmp_path / "new"))
    assert set(rows[rows["split"] == "validation"]["label"]) == {""}


def test_the_gate_judges_it_on_the_site_with_cross_fitted_decisions(
    base: Bundle, site: Dataset, tmp_path: Path
) -> None:
    promote(base.folder, root=tmp_path / "models")
    recalibrate_bundle(base, site, out=tmp_path / "new")
    gate = Gate(resamples=200)
    verdict = judge_candidate(tmp_path / "new", "champion", gate, GateContext(tmp_path / "models", site.folder))
    assert verdict.passed, verdict.objections
    assert verdict.split == "cross-fitted"
    fit = Bundle.open(tmp_path / "new").info.recalibration
    assert fit is not None
    balanced = next(each.difference for each in verdict.figures if each.difference.metric == "balanced_accuracy")
    assert balanced.second == pytest.approx(fit.after["balanced_accuracy"].value)
    refused = judge_candidate(tmp_path / "new", "champion", gate, GateContext(tmp_path / "models"))
    assert "with --data" in refused.objections[0]


def test_images_that_cannot_be_used_are_refused_in_one_line(
    base: Bundle, bright: Dataset, site: Dataset, tmp_path: Path
) -> None:
    few = write_dataset(tmp_path / "few", test=-32)
    for dataset, labelled, policy, message in (
        (bright, True, None, "was trained on these images"),
        (few, True, None, "8 images"),
        (site, False, "max accuracy", "without labels"),
        (site, True, "sensitivity > 1", "not a rule"),
    ):
        with pytest.raises(InputError, match=message) as error:
            recalibrate_bundle(base, dataset, out=tmp_path / "new", labelled=labelled, policy=policy)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()


def test_the_command_prints_figures_and_the_next_step(pneumo, base, site, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = pneumo("recalibrate", base.folder, "--data", site.folder, "--policy", "sensitivity >= 0.9")
    assert shown.code == 0, shown.err
    assert "160 images of 80 patients, 80 NORMAL, 80 PNEUMONIA" in shown.out
    assert "pneumo promote ./recalibrated --data" in shown.err
    document = json.loads(pneumo("recalibrate", base.folder, "--data", site.folder, "--unlabelled", "--json").out)
    assert document["recalibration"]["base"] == "tiny:1"
    assert document["thresholds"] == {"default": 0.5}
    assert manifest.read_dataset(site.folder).info.fingerprint == document["recalibration"]["data_fingerprint"]
