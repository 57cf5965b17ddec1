"""The gate, on bundles that run: passes, refusals and their reasons."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pneumo.pipeline.data.audit import AuditReport, Finding, Kind, Severity
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.data.shortcuts import ShortcutReport
from pneumo.pipeline.release.gate import Gate, Verdict, judge_candidate
from pneumo.pipeline.release.gate.decide import GateContext
from pneumo.pipeline.release.registry import promote
from pneumo.serving.contracts.errors import CheckFailedError, InputError
from pneumo.serving.model.bundle import Bundle, Conformal, seal_bundle
from pneumo.serving.model.registry import read_registry
from tests.pipeline.release.conftest import PREPARATION, write_dataset
from tests.support.bundles import make_bundle, make_network

GATE = Gate(resamples=200)

MakeBundle = Callable[..., Bundle]
Judge = Callable[..., Verdict]


@pytest.fixture
def root(tmp_path: Path, bright: Dataset, bundle_of: MakeBundle) -> Path:
    """A registry whose champion looks at brightness, as it should."""
    promote(bundle_of(bright, "1").folder, root=tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def judged(root: Path, bright: Dataset, audited: AuditReport) -> Judge:
    """`judged(bundle, alias=..., gate=..., data=..., audit=...)`: the verdict."""

    def run(bundle: Bundle, alias: str = "champion", gate: Gate = GATE, **context: object) -> Verdict:
        given = {"root": root, "data": bright.folder, "audit": audited} | context
        return judge_candidate(bundle.folder, alias, gate, GateContext(**given))  # type: ignore[arg-type]

    return run


def outcomes(verdict: Verdict) -> dict[str, str]:
    return {figure.difference.metric: figure.outcome for figure in verdict.figures}


def test_a_challenger_that_is_as_good_passes(judged, bright, bundle_of):
    verdict = judged(bundle_of(bright, "2", noise=0.1))
    assert verdict.passed, verdict.objections
    assert (verdict.champion, verdict.model, verdict.compared) == ("tiny:1", "tiny:2", True)
    assert (verdict.images, verdict.patients, verdict.split) == (400, 400, "test")
    assert set(outcomes(verdict).values()) == {"good"}
    assert all(figure.difference.first > 0.85 for figure in verdict.figures)


def test_a_challenger_that_ranks_worse_is_refused(judged, bright, bundle_of):
    verdict = judged(bundle_of(bright, "2", blind=True))
    assert not verdict.passed
    assert outcomes(verdict)["auroc"] == "worse"
    assert any("AUROC changes by -0." in why for why in verdict.objections)


def test_a_challenger_at_a_worse_operating_point_is_refused_though_it_ranks_the_same(judged, bright, bundle_of):
    verdict = judged(bundle_of(bright, "2", threshold=0.9))
    assert outcomes(verdict) == {"auroc": "good", "sensitivity": "worse", "specificity": "good"}
    (why,) = verdict.objections
    assert "Sensitivity changes by -0." in why
    assert "at most 0.03 lower is allowed" in why


def test_few_images_are_no_proof_unless_the_gate_lets_the_undecided_pass(tmp_path, bundle_of):
    few = write_dataset(tmp_path / "few", test=24)
    promote(bundle_of(few, "1").folder, root=tmp_path / "models")
    context = GateContext(tmp_path / "models", few.folder)
    challenger = bundle_of(few, "2", noise=0.01).folder
    strict = judge_candidate(challenger, "champion", GATE, context)
    assert "undecided" in outcomes(strict).values()
    assert any("too few images to tell" in why for why in strict.objections)
    assert judge_candidate(challenger, "champion", Gate(resamples=200, undecided="pass"), context).passed


def test_the_same_network_passes_with_few_images_since_it_is_the_same(tmp_path, bundle_of):
    few = write_dataset(tmp_path / "few", test=24)
    promote(bundle_of(few, "1").folder, root=tmp_path / "models")
    again = bundle_of(few, "2", policy="max accuracy")
    assert judge_candidate(again.folder, "champion", GATE, GateContext(tmp_path / "models", few.folder)).passed


def test_the_first_champion_is_measured_and_compared_with_nothing(tmp_path, bright, audited, bundle_of):
    context = GateContext(tmp_path / "none", bright.folder, audit=audited)
    verdict = judge_candidate(bundle_of(bright, "2").folder, "champion", GATE, context)
    assert verdict.passed
    assert not verdict.compared
    assert [check.name for check in verdict.checks] == ["files", "parity", "card", "data audit", "images"]
    assert [(each.metric, each.limit, each.outcome) for each in verdict.limits] == [
        ("auroc", 0.5, "good"),
        ("balanced_accuracy", 0.5, "good"),
    ]


def test_three_classes_at_chance_are_no_champion(pneumo, tmp_path, bundle_of, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no gate.yaml here: the defaults
    classes = ("COVID", "NORMAL", "PNEUMONIA")
    three = write_dataset(tmp_path / "three", classes=classes, signal=0.0)
    network = make_network(1, 3, 0, bright=True)
    given: dict[str, Any] = {
        "classes": list(classes),
        "positive_class": None,
        "thresholds": {},
        "preparation": PREPARATION,
    }
    given |= {"conformal": Conformal(level=0.9, limit=[0.4, 0.4, 0.4]), "data_fingerprint": three.info.fingerprint}
    bundle = make_bundle(tmp_path / "bundle", network=network, temperature=1.0, **given)
    told = pneumo("promote", bundle.folder, "--data", three.folder)
    assert told.code == 1, told.err
    for metric, value in (("AUROC", "0\\.[45]"), ("Balanced accuracy", "0\\.3")):
        outcome = "required:|too few images to tell whether it is"
        assert re.search(rf"{metric} is {value}\d+ \(.*?\); ({outcome}) better than chance", told.err), told.err
    assert not read_registry(tmp_path / "models").versions


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({"sensitivity": 0.5, "specificity": 0.5, "coverage": 0.5, "auroc": 0.8}, None),
        ({"sensitivity": 0.999}, r"Sensitivity is 0\.\d+ \(0\.\d+ to 0\.\d+\); required: 0.999 or more"),
        ({"specificity": 0.87}, "too few images to tell whether it is 0.87 or more"),
        ({"coverage": 0.999}, "coverage of PNEUMONIA is"),
        ({"worst_group_auroc": 0.7}, "Worst-group AUROC is undefined: not measured on these images"),
        ({"stress.worst_auroc": 0.7}, "stress.worst_auroc is undefined: no current stress test in the bundle; run"),
    ],
)
def test_limits_are_absolute_and_hold_for_the_first_champion(tmp_path, bright, audited, bundle_of, limits, why):
    context = GateContext(tmp_path / "none", bright.folder, audit=audited)
    gate = Gate(resamples=200, limits=limits)
    objections = judge_candidate(bundle_of(bright, "2").folder, "champion", gate, context).objections
    assert (objections == []) == (why is None), objections
    assert why is None or re.search(why, "; ".join(objections)), objections


@pytest.mark.parametrize(
    ("threshold", "limits", "why"),
    [
        (0.5, {"stress.mean_auroc": 0.9, "stress.worst_auroc": 0.6, "stress.worst_coverage": 0.5}, None),
        (0.5, {"stress.worst_auroc": 0.7}, "stress.worst_auroc is 0.650; required: 0.7 or more"),
        (0.5, {"stress.worst_coverage": 0.8}, "stress.worst_coverage is 0.700; required: 0.8"),
        (0.4, {"stress.worst_balanced_accuracy": 0.5}, "the stress test in the bundle is of another threshold"),
        (0.4, {"stress.worst_auroc": 0.6}, None),
    ],
)
def test_limits_under_stress_are_of_the_test_in_the_bundle(
    tmp_path, bright, audited, bundle_of, threshold, limits, why
):
    bundle = bundle_of(bright, "2", threshold=threshold)
    shift = {"name": "blur", "strength": "", "metrics": {"coverage:PNEUMONIA": {"value": 0.7}}, "flagged": 0.0}
    summary = {"mean_auroc": 0.95, "worst_auroc": 0.65, "worst_shift": "blur"}
    summary |= {"mean_balanced_accuracy": 0.9, "worst_balanced_accuracy": 0.6}
    about = {"run": "r", "data": "d", "data_fingerprint": "f", "split": "validation", "images": 9, "patients": 9}
    about |= {"classes": bundle.info.classes, "positive": "PNEUMONIA", "threshold": 0.5, "bootstrap": {}}
    stress = {**about, "unchanged": shift, "shifts": [shift], "summary": summary}
    (bundle.folder / "stress.json").write_text(json.dumps(stress))
    seal_bundle(bundle.folder, bundle.info)
    context = GateContext(tmp_path / "none", bright.folder, audit=audited)
    objections = judge_candidate(bundle.folder, "champion", Gate(resamples=200, limits=limits), context).objections
    assert (why or "") in "; ".join(objections)
    assert (objections == []) == (why is None)


def test_an_alias_that_is_not_guarded_is_judged_by_the_bundle_alone(judged, bright, bundle_of):
    verdict = judged(bundle_of(bright, "2", blind=True), alias="challenger")
    assert verdict.passed
    assert "not guarded" in verdict.notes[0]
    unproven = bundle_of(bright, "3", parity={"images": 0, "max_probability_difference": 0, "tolerance": 1e-4})
    assert not judged(unproven, alias="challenger").passed


def test_what_is_champion_already_passes(judged, root):
    verdict = judged(Bundle.open(root / "tiny" / "1"))
    assert verdict.passed
    assert "already" in verdict.notes[0]


@pytest.mark.parametrize("parity", [{"images": 0}, {"max_probability_difference": 0.01, "tolerance": 0.05}])
def test_a_bundle_without_proof_of_parity_is_refused(judged, bright, bundle_of, parity):
    given = {"images": 64, "max_probability_difference": 1e-6, "tolerance": 1e-4} | parity
    (why,) = judged(bundle_of(bright, "2", parity=given)).objections
    assert why.startswith("parity: ")
    assert "export it again" in why


def test_a_bundle_without_a_card_is_refused(judged, bright, bundle_of):
    bundle = bundle_of(bright, "2")
    (bundle.folder / "card.md").unlink()
    seal_bundle(bundle.folder, bundle.info)
    (why,) = judged(bundle).objections
    assert why.startswith("card: no card.md")


def test_a_bundle_whose_files_changed_is_refused_by_name(judged, bright, bundle_of):
    bundle = bundle_of(bright, "2")
    (bundle.folder / "model.onnx").write_bytes(b"x")
    (why,) = judged(bundle).objections
    assert why.startswith("files: ")
    assert "model.onnx" in why


def test_a_data_set_that_fails_its_audit_is_refused(judged, bright, bundle_of, tmp_path):
    defect = Finding(Kind.PATIENT_ACROSS_SPLITS, Severity.DEFECT, "1 patients in more than one split", (("a", "b"),))
    spoilt = AuditReport("data", 440, {}, {}, (defect,), ShortcutReport(images=440, patients=200))
    (why,) = judged(bundle_of(bright, "2", noise=0.1), audit=spoilt).objections
    assert "1 patients in more than one split" in why


def test_a_changed_image_is_found_by_the_audit_of_the_gate(judged, bright, bundle_of, tmp_path):
    shutil.copytree(bright.folder, tmp_path / "copy")
    (tmp_path / "copy" / "images" / "0001.png").write_bytes((bright.folder / "images" / "0003.png").read_bytes())
    verdict = judged(bundle_of(bright, "2"), data=tmp_path / "copy", audit=None)
    assert [check.name for check in verdict.checks if not check.passed] == ["data audit", "images"]
    assert "images/0001.png" in verdict.objections[0]


def test_a_missing_data_set_is_an_objection_that_names_the_option(judged, bright, bundle_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verdict = judged(bundle_of(bright, "2"), data=None)
    (why,) = verdict.objections
    assert why.startswith("data: not found (none in data)")
    assert "--data" in why
    assert verdict.champion == "tiny:1"


def test_data_in_the_usual_place_or_named_by_the_run_are_found(judged, bright, bundle_of, tmp_path, monkeypatch):
    (tmp_path / "data").symlink_to(bright.folder)
    monkeypatch.chdir(tmp_path)
    assert judged(bundle_of(bright, "2", noise=0.1), data=None).passed


def test_another_data_set_is_refused_since_the_challenger_may_have_learned_from_it(judged, bright, bundle_of):
    with pytest.raises(InputError, match="not the data set that tiny:2 was trained on"):
        judged(bundle_of(bright, "2", data_fingerprint="f" * 64))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"classes": ["NORMAL", "COVID"], "positive_class": "COVID"}, "the classes of tiny:1 are NORMAL, PNEUMONIA"),
        (
            {"positive_class": "NORMAL"},
            "the positive class of tiny:1 is PNEUMONIA; the positive class of tiny:2 is NORMAL",
        ),
    ],
)
def test_models_that_answer_other_questions_are_not_compared(judged, bright, bundle_of, changes, why):
    (said,) = judged(bundle_of(bright, "2", **changes)).objections
    assert said.startswith("images: ")
    assert why in said


def test_classes_in_another_order_are_compared_by_name(judged, bright, bundle_of):
    flipped = bundle_of(bright, "2", classes=["PNEUMONIA", "NORMAL"])
    auroc = judged(flipped).figures[0].difference
    assert auroc.second == pytest.approx(1 - auroc.first, abs=1e-6)


def test_a_champion_of_other_data_is_run_on_the_challengers_images_and_that_is_said(
    tmp_path, bright, audited, bundle_of
):
    promote(bundle_of(bright, "1", data_fingerprint="f" * 64).folder, root=tmp_path / "models")
    context = GateContext(tmp_path / "models", bright.folder, audit=audited)
    verdict = judge_candidate(bundle_of(bright, "2", noise=0.1).folder, "champion", GATE, context)
    assert verdict.passed
    assert "not compared: images under change" in verdict.notes[0]
    assert "another data set" in verdict.notes[1]


def test_a_champion_that_is_damaged_is_named(judged, root, bright, bundle_of):
    (root / "tiny" / "1" / "model.onnx").unlink()
    (why,) = judged(bundle_of(bright, "2")).objections
    assert why.startswith("champion: ")


def test_what_was_forced_is_recorded_with_the_reason_and_the_objections(judged, root, bright, bundle_of):
    bundle = bundle_of(bright, "2", threshold=0.9)
    verdict = judged(bundle)
    promote(bundle.folder, root=root, admission=verdict.admission("the ward asked for fewer alarms"))
    (record,) = read_registry(root).list_promotions("tiny:2")
    assert (record.forced, record.before, record.compared) == ("the ward asked for fewer alarms", "tiny:1", True)
    assert record.objections == verdict.objections


def test_a_reason_that_was_not_needed_is_not_recorded(judged, root, bright, bundle_of):
    bundle = bundle_of(bright, "2", noise=0.1)
    promote(bundle.folder, root=root, admission=judged(bundle).admission("just in case"))
    (record,) = read_registry(root).list_promotions("tiny:2")
    assert (record.forced, record.objections) == (None, [])


def test_a_champion_that_changed_since_the_gate_looked_stops_the_promotion(judged, root, bright, bundle_of):
    bundle = bundle_of(bright, "2", noise=0.1)
    verdict = judged(bundle)
    promote(bundle_of(bright, "3").folder, root=root)
    before = (root / "registry.yaml").read_bytes()
    with pytest.raises(CheckFailedError, match="champion is tiny:3 by now, the gate judged against tiny:1"):
        promote(bundle.folder, root=root, admission=verdict.admission(None))
    assert (root / "registry.yaml").read_bytes() == before
