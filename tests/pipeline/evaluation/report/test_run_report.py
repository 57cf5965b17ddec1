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
