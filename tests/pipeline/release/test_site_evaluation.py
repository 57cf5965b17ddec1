"""`pneumo evaluate BUNDLE --data SITE`, at a site whose images are brighter, so that a network calls more positive."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pneumo.pipeline.data.manifest import Dataset, Split
from pneumo.pipeline.evaluation.sample_size import find_detectable_rate
from pneumo.pipeline.release.recalibration import recalibrate_bundle
from pneumo.pipeline.release.recalibration.site import Site, read_decisions
from pneumo.pipeline.release.registry import promote
from pneumo.pipeline.release.site_evaluation import evaluate_bundle
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.registry import resolve
from tests.conftest import Outcome
from tests.pipeline.release.conftest import MakeBundle, write_dataset


def test_a_report_says_what_the_images_can_show_before_what_they_show(
    pneumo: Callable[..., Outcome], base: Bundle, site: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    promote(base.folder)
    sealed = sorted(path.name for path in base.folder.iterdir())
    told = pneumo("evaluate", "champion", "--data", site.folder, "--policy", "specificity >= 0.9")
    assert told.code == 0, told.err
    detectable = find_detectable_rate(40, 0.9)
    first = f"80 NORMAL images of 40 patients show specificity >= 0.9 with a chance of 80% if it is {detectable:.3f}"
    assert told.out.index(first) < told.out.index("AUROC")
    shipped, fitted = re.findall(r"Specificity +│ +(0\.\d{3}) │ 0\.\d{3} to 0\.\d{3}", told.out)
    assert float(shipped) < 0.5 < 0.8 < float(fitted)
    assert "view: lateral" in told.out
    assert re.search(r"\nAUROC is 0\.\d{3} \(.*\); reached: better than chance\.\n", told.out)
    assert "note: AUROC" not in told.err
    (page,) = (tmp_path / "evaluations").glob("tiny-1-*.html")
    text = page.read_text()
    assert text.index(first.replace(">", "&gt;")) < text.index("Headline figures")
    assert "; reached: better than chance.</li>" in text
    assert "with the policy specificity &gt;= 0.9, fitted to these images, the threshold would be 0." in text
    assert text.count('<img src="data:image/png;base64,') == 12
    report = json.loads(page.with_suffix(".json").read_text())
    assert report["run"] == "tiny:1"
    assert {part["value"] for part in report["result"]["subgroups"]} == {"frontal", "lateral"}
    assert report["refit_threshold"] > report["decisions"]["threshold"] == 0.5
    assert report["refit"]["metrics"]["auroc"] == report["result"]["metrics"]["auroc"]
    assert sorted(path.name for path in resolve("champion").iterdir()) == sealed


def test_an_unknown_name_is_sought_among_runs_bundles_and_registered_names(
    pneumo: Callable[..., Outcome], site: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = pneumo("evaluate", "nobody", "--data", site.folder)
    assert refused.code == 2
    assert "nobody: no such run in runs" in refused.err
    assert (
        "nor is it a bundle folder, or an alias or version in models, which `pneumo models list` shows" in refused.err
    )


def test_metrics_are_those_of_the_shipped_decisions(base: Bundle, site: Dataset, tmp_path: Path) -> None:
    report = evaluate_bundle(base, site, out=tmp_path)
    cases = Site.run(base, site, site.rows).apply(read_decisions(base.info))
    assert report.result.metrics["accuracy"].value == pytest.approx(float(cases.correct.mean()))
    assert report.refit is None
    some = evaluate_bundle(base, site, out=tmp_path, split=Split.TEST)
    assert (some.split, some.result.images, report.result.images) == ("test", 120, 160)


def test_a_recalibrated_bundle_is_cross_fitted_where_it_was_fitted_and_not_elsewhere(
    base: Bundle, site: Dataset, tmp_path: Path
) -> None:
    done = recalibrate_bundle(base, site, out=tmp_path / "new")
    new = Bundle.open(tmp_path / "new")
    report = evaluate_bundle(new, site, out=tmp_path)
    fit = done.info.recalibration
    assert fit is not None
    for metric in ("sensitivity", "specificity", "auroc", "coverage:NORMAL"):
        assert report.result.metrics[metric].value == pytest.approx(fit.after[metric].value), metric
    assert any("cross-fitted decisions" in remark for remark in report.remarks)
    plain = Site.run(new, site, site.rows).apply(read_decisions(new.info))
    assert not np.array_equal(plain.answer, Site.run(new, site, site.rows).judge().answer)
    other = write_dataset(tmp_path / "other", test=40, seed=77, brighter=45)
    assert not any("cross-fitted" in remark for remark in evaluate_bundle(new, other, out=tmp_path).remarks)


@pytest.mark.parametrize(
    ("limits", "code", "why"),
    [
        ("{auroc: 0.7, sensitivity: 0.5}", 0, ""),
        (
            "{specificity: 0.9}",
            1,
            r"does not meet its limits on .*: Specificity is 0\.\d+ \(.*\); required: 0.9 or more",
        ),
        ("{coverage: 0.99}", 1, "coverage of NORMAL"),
    ],
)
def test_a_missed_limit_exits_1_and_is_in_the_report(
    pneumo: Callable[..., Outcome],
    base: Bundle,
    site: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limits: str,
    code: int,
    why: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gate.yaml").write_text(f"limits: {limits}\n")
    told = pneumo("evaluate", base.folder, "--data", site.folder, "--limits", "gate.yaml", "--json")
    assert told.code == code, told.err
    assert re.search(why, told.err), told.err
    document = json.loads(told.out)
    assert bool(document["objections"]) == bool(code)
    assert {each["chance"] for each in document["limits"]} == {True, False}
    (page,) = Path("evaluations").glob("*.html")
    assert ("required: 0.9" in page.read_text()) == bool(code)


def test_images_that_are_no_evidence_are_refused_or_named(base: Bundle, bright: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"was trained on these images, which are no evidence: .* --split test"):
        evaluate_bundle(base, bright, out=tmp_path)
    report = evaluate_bundle(base, bright, out=tmp_path, split=Split.TEST)
    assert any("say nothing about another place" in remark for remark in report.remarks)
    again = write_dataset(tmp_path / "again", test=380)  # the same images under other splits, so another fingerprint
    assert again.info.fingerprint != bright.info.fingerprint
    with pytest.raises(InputError, match="420 of 420 images are among those that tiny:1 was trained on"):
        evaluate_bundle(base, again, out=tmp_path)


def test_few_images_of_one_class_are_measured_and_said_to_show_nothing(base: Bundle, tmp_path: Path) -> None:
    three = write_dataset(tmp_path / "three", test=-37, seed=9, classes=("PNEUMONIA",))
    report = evaluate_bundle(base, three, out=tmp_path)
    assert report.result.images == 3
    assert report.power[0].startswith("3 PNEUMONIA images of 3 patients cannot show sensitivity >= 0.9")
    assert "0 NORMAL images of 0 patients cannot show" in report.power[1]
    auroc = report.result.metrics["auroc"]
    assert (auroc.value, auroc.reason) == (None, "no NORMAL images in this split")
    gate = tmp_path / "gate.yaml"
    gate.write_text("limits: {sensitivity: 0.5}\n")
    missed = evaluate_bundle(base, three, out=tmp_path, limits=gate).objections
    assert "AUROC is undefined: no NORMAL images in this split" in missed
    with pytest.raises(InputError, match="NORMAL has 0 patients, and 5 are the fewest"):
        evaluate_bundle(base, three, out=tmp_path, policy="max accuracy")


def test_wrong_input_is_refused_in_one_line(
    pneumo: Callable[..., Outcome], base: Bundle, site: Dataset, bundle_of: MakeBundle, bright: Dataset, tmp_path: Path
) -> None:
    others = write_dataset(tmp_path / "others", test=-30, classes=("COVID", "NORMAL"))
    (tmp_path / "scans.zip").write_bytes(b"PK")
    (tmp_path / "scans").mkdir()
    broken = bundle_of(bright, "9")
    (broken.folder / "model.onnx").write_bytes(b"x")
    (tmp_path / "gate.yaml").write_text("limits: {recall: 0.5}\n")
    data = ("--data", site.folder)
    for arguments, message in (
        ((base.folder, "--data", others.folder), "class 'COVID' is unknown to tiny:1, which has NORMAL, PNEUMONIA"),
        ((base.folder, "--data", tmp_path / "scans.zip"), f"pneumo data import {tmp_path}/scans.zip --out"),
        ((base.folder, "--data", tmp_path / "scans"), f"data import {tmp_path}/scans --out {tmp_path}/scans-data"),
        ((base.folder, "--data", tmp_path / "nowhere"), "nowhere: no manifest.csv here"),
        ((broken.folder, *data), "model.onnx: changed since the bundle was sealed"),
        ((base.folder, *data, "--policy", "best"), "--policy 'best': not a rule"),
        ((base.folder, *data, "--split", "validation", "--limits", tmp_path / "gate.yaml"), "limits.recall"),
        ((base.folder, *data, "--out", base.folder / "report"), "lies in the bundle, which is sealed"),
        ((base.folder, *data, "--out", tmp_path / "gate.yaml"), "gate.yaml: cannot be written"),
        ((base.folder, *data, "--tables", tmp_path / "t"), "leave out --tables"),
        ((base.folder, "--limits", tmp_path / "gate.yaml"), "a site needs --data; leave out --limits"),
        ((base.folder,), "a bundle needs --data"),
        (("nothing", *data), "nothing: no such run"),
    ):
        told = pneumo("evaluate", *arguments)
        assert told.code == 2, (arguments, told.out, told.err)
        assert message in told.err, told.err
        assert told.err.count("pneumo: ") == 1
        assert "Traceback" not in told.err


def test_a_model_at_chance_is_called_so(base: Bundle, tmp_path: Path) -> None:
    same = write_dataset(tmp_path / "same", test=60, seed=3, signal=0.0)
    report = evaluate_bundle(base, same, out=tmp_path)
    assert any(remark.endswith("better than chance") and "reached" not in remark for remark in report.remarks)
