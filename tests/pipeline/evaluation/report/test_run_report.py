import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.evaluation import evaluate_run
from pneumo.pipeline.evaluation.report.history import read_curves
from pneumo.pipeline.evaluation.report.points import THRESHOLDS, net_benefit
from pneumo.pipeline.evaluation.results import EvaluationReport, title
from pneumo.pipeline.runs.run import Run
from tests.pipeline.conftest import build_run


class Page(HTMLParser):
    """Tags and ids of a page; fails on tags that do not nest."""

    void = frozenset({"meta", "img", "br", "link", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href"):
                self.sources.append(value or "")
        if tag not in self.void:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.void:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> tuple[Run, EvaluationReport]:
    """An evaluated run of 400 images, which tests only read."""
    run = build_run(tmp_path_factory.mktemp("page"), images=400)
    return run, evaluate_run(run, resamples=20)


@pytest.fixture
def text(evaluated) -> str:
    return evaluated[0].report.read_text()


def test_the_report_needs_nothing_but_itself(text) -> None:
    page = Page(text)
    assert page.sources
    assert all(source.startswith(("#", "data:image/png;base64,")) for source in page.sources)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "url(http" not in text
    assert "@import" not in text


def test_ids_are_unique_and_every_reference_has_its_target(text) -> None:
    ids = Page(text).ids
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', text)) <= set(ids)


def test_the_report_says_what_it_is_and_shows_every_part(evaluated, text) -> None:
    report = evaluated[1]
    assert "not a medical device" in text
    assert "Shortcuts" in text
    for part in ("ROC curve", "Precision-recall curve", "Reliability diagram", "Learning curves", "Confusion matrix"):
        assert part in text
    assert f"{report.result.metrics['auroc'].value:.3f}" in text
    assert "epochs: 3" in text
    assert "pneumo train synthetic.yaml" in text
    assert "prefers-color-scheme: dark" in text
    assert "#0400" not in text  # a colour that was meant to become a CSS variable
    assert "Decision curve" in text
    assert "train 61.0 s" in text


def test_the_summary_counts_what_was_called_right_and_all_else_is_folded(evaluated, text) -> None:
    result = evaluated[1].result
    (missed, found), sensitivity = result.confusion.counts[1], result.metrics["sensitivity"]
    interval = f"{sensitivity.low:.3f} to {sensitivity.high:.3f}"
    words = f"{found} of {missed + found} PNEUMONIA images were called PNEUMONIA: sensitivity {sensitivity.value:.3f}"
    assert f"<li>{words} ({interval}).</li>" in text
    summary, folded = text[: text.index("<details")], text[text.index("<details") :]
    assert "Confusion matrix" in summary
    for heading in ("All metrics", "Subgroups", "Curves", "Calibration", "Learning", "Misclassified", "Provenance"):
        assert heading not in summary
    assert folded.count("<details") == folded.count("<summary>")
    assert "details::details-content { content-visibility: visible" in text  # print


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> tuple[str, EvaluationReport]:
    """Text and figures of a report of few images of three classes, of which resamples often lack one."""
    folder = tmp_path_factory.mktemp("three")
    run = build_run(folder, ("COVID", "NORMAL", "VIRUS"), images=30, shift=2.0, groups=True, seed=3)
    run.config.write_text("trainer: {validation_metric: loss}\n")
    run.model.mkdir()
    progress = {"best_eval_metric_steps": 20, "best_eval_metric_value": 0.6}
    (run.model / "training_progress.json").write_text(json.dumps(progress))
    report = evaluate_run(run, resamples=200)
    return run.report.read_text(), report


def test_cells_of_tables_do_not_run_together_when_copied(three, text) -> None:
    for page in (three[0], text):
        for table in re.findall(r"<table.*?</table>", page, re.DOTALL):
            plain = re.sub(r"<small>", "", re.sub(r"</t[dh]>|</tr>", "\n", table))  # as text that is copied
            assert not re.search(r"\d\.\d{3}\(|\d\.\d{3}\d\.\d", re.sub(r"<[^>]+>", "", plain))


def test_undefined_resamples_are_a_mark_with_a_note(three) -> None:
    page, report = three
    dropped = max(each.dropped for each in report.result.metrics.values())
    assert dropped > 0
    assert "resamples undefined" not in page
    assert re.search(r"\)\*</small>", page)
    assert "*: undefined in some resamples" in page


def test_each_class_is_measured_against_all_others(three) -> None:
    page, report = three
    section = page[page.index("Each class against all others") : page.index("Subgroups, test")]
    for name in report.classes:
        (row,) = re.findall(rf'<th scope="row">{name}</th>(.*?)</tr>', section, re.DOTALL)
        figures = re.findall(r"<td>([\d.]+|-) ?<", row)
        sensitivity = report.result.metrics[f"sensitivity:{name}"].value
        assert int(figures[0]) == report.result.counts[name]
        assert figures[2] == f"{sensitivity:.3f}"
    assert page.count('aria-label="Reliability diagram"') == 4
    assert page.count('aria-label="Decision curve"') == 3


def test_the_kept_epoch_and_the_rule_are_named(three, text) -> None:
    assert "Weights of epoch 2 of 3 were kept: lowest loss on validation, 0.600." in three[0]
    assert ">kept<" in three[0]  # in the learning curves
    assert "were kept" not in text  # of a run that does not know


def test_the_net_benefit_is_that_of_vickers_and_elkin() -> None:
    truth = np.array([True, True, False, False, False])
    called = np.broadcast_to([True, False, True, False, False], (len(THRESHOLDS), 5))
    place = int(np.argmin(np.abs(THRESHOLDS - 0.2)))
    assert net_benefit(called, truth)[place] == pytest.approx(1 / 5 - 1 / 5 * 0.2 / 0.8)


def test_the_table_of_figures_has_one_row_a_metric(evaluated, text) -> None:
    report = evaluated[1]
    table = text[text.index("Images (patients)") : text.index("</table>", text.index("Images (patients)"))]
    rows = re.findall(r'<th scope="row">([^<]+)</th>', table)
    assert sorted(rows) == sorted(title(name) for name in report.result.metrics)


def test_users_strings_are_escaped_everywhere(synthesise_run) -> None:
    evil = "<img src=x onerror=alert(1)>$x_{$"
    run = synthesise_run(("NORMAL", evil), images=200, config=evil, command=[evil], hardware={evil: evil})
    run.config.write_text(f"trainer: {{}}  # {evil}\n")
    frame = pd.read_parquet(run.predictions)
    frame["image"] = [f"{evil}{number}" for number in range(len(frame))]
    frame.to_parquet(run.predictions)
    evaluate_run(run, resamples=20)
    text = run.report.read_text()
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror" in text


def test_classes_of_more_than_two_are_escaped_in_the_curves(synthesise_run) -> None:
    run = synthesise_run(("_a", "</svg><script>", "c&d"), images=200)
    evaluate_run(run, resamples=20)
    assert "script" not in Page(run.report.read_text()).tags


def test_the_worst_mistakes_come_first_with_their_pictures(evaluated, text) -> None:
    run, report = evaluated
    assert text.count("data:image/png;base64,") == 12
    frame = pd.read_parquet(run.predictions)
    test = frame[frame["split"] == "test"]
    logit = np.stack(list(test["logits"]))[:, 1]
    truth = test["label"] == "PNEUMONIA"
    wrong = (1 / (1 + np.exp(-logit / report.decisions.temperature)) >= report.decisions.threshold) != truth
    own = np.where(truth, logit, -logit)
    names = list(test.assign(own=own)[wrong].sort_values("own")["image"][:12])
    assert re.findall(r"<br>(images/\d+\.png)</figcaption>", text) == names


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: shutil.rmtree(data), "was moved or deleted"),
        (
            lambda data: (data / "dataset.json").write_text(
                json.dumps(json.loads((data / "dataset.json").read_text()) | {"fingerprint": "0"})
            ),
            "has changed since",
        ),
    ],
)
def test_thumbnails_are_left_out_with_the_reason(synthesise_run, spoil, message) -> None:
    run = synthesise_run(images=200)
    spoil(Path(run.info().data))
    evaluate_run(run, resamples=20)
    text = run.report.read_text()
    assert text.count(message) == 2  # for the pictures and for the shortcuts
    assert "data:image/png" not in text
    assert "images/0" in text


def test_one_unreadable_image_costs_one_thumbnail(synthesise_run, text) -> None:
    run = synthesise_run(images=400)  # the same as the one that tests share
    first = re.findall(r"<br>(images/\d+\.png)</figcaption>", text)[0]
    (Path(run.info().data) / first).write_bytes(b"")
    evaluate_run(run, resamples=20)
    text = run.report.read_text()
    assert text.count("data:image/png;base64,") == 11
    assert "not readable" in text


def test_pictures_outside_of_the_data_set_are_never_read(synthesise_run) -> None:
    run = synthesise_run(images=200)
    data = Path(run.info().data)
    (data.parent / "secret.png").write_bytes((data / "images/0000.png").read_bytes())
    frame = pd.read_parquet(run.predictions)
    frame["image"] = "../secret.png"
    frame.to_parquet(run.predictions)
    evaluate_run(run, resamples=20)
    assert "data:image/png" not in run.report.read_text()


@pytest.mark.parametrize(
    "history", [None, "not json", "{}", "[1, null]", '[{"epoch": 1, "validation": {"loss": null}}]']
)
def test_a_history_that_cannot_be_used_has_no_curves(tmp_path, history) -> None:
    run = Run(tmp_path)
    if history is not None:
        run.history.write_text(history)
    assert read_curves(run) == []


def test_a_perfect_run_without_history_has_neither_mistakes_nor_learning_curves(synthesise_run) -> None:
    run = synthesise_run(shift=20.0)
    run.history.unlink()
    evaluate_run(run, split=Split.TRAIN, resamples=10)
    text = run.report.read_text()
    assert "No misclassified images in this split" in text
    assert "No learning curves were recorded" in text
    assert "Confusion matrix, train" in text  # the split that was asked for leads
