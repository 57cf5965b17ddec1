"""Two runs side by side, in the terminal, as JSON and as a page."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pneumo.pipeline.comparing.side_by_side import compare_runs
from pneumo.pipeline.data import manifest
from pneumo.pipeline.evaluation import evaluate_run, read_metrics
from pneumo.pipeline.evaluation.cases import Cases, read_predictions, to_scores
from pneumo.pipeline.evaluation.paired import compare_models
from pneumo.pipeline.evaluation.results import Bootstrap
from pneumo.serving.contracts.errors import InputError
from tests.support.paths import ROOT

pytestmark = pytest.mark.usefixtures("no_pages")


@pytest.fixture
def runs(synthesise_run):
    """Two evaluated runs on the same data, the second one better."""
    first, second = synthesise_run(seed=4, shift=0.4, images=240), synthesise_run(seed=4, shift=1.6, images=240)
    second.config.write_text("trainer:\n  epochs: 9\n  early_stop: 2\n")
    for run in (first, second):
        evaluate_run(run, resamples=20)
    return [first, second]


def test_figures_are_those_of_the_runs_differences_those_of_the_same_images_and_settings_go_key_by_key(runs):
    found = compare_runs(*runs, resamples=100)
    cases = []
    for run in runs:
        info = run.info()
        scores = to_scores(read_predictions(run), info.classes, place="").select("test")
        cases.append(Cases.make(scores, read_metrics(run).decisions, 1))
    first, second = cases
    wanted = compare_models(first, second, runs[0].info().classes, Bootstrap(resamples=100))
    assert found.differences == wanted
    auroc = next(each for each in found.differences if each.metric == "auroc")
    assert auroc.first == read_metrics(runs[0]).splits["test"].metrics["auroc"].value
    assert auroc.value > 0.1
    assert auroc.p < 0.05
    assert found.images == read_metrics(runs[0]).splits["test"].images
    assert found.notes == []
    assert next(each.first for each in found.facts if each.name == "seconds of train") == 61.0
    settings = {each.name: (each.first, each.second) for each in found.settings}
    assert settings == {"trainer.epochs": (3, 9), "trainer.early_stop": (None, 2)}


def test_images_that_flipped_are_those_called_differently_and_have_their_names(runs):
    found = compare_runs(*runs, resamples=10)
    first, second = (read_predictions(run).query("split == 'test'").set_index("image") for run in runs)
    called = [
        (1 / (1 + np.exp(-np.stack(list(frame["logits"]))[:, 1] / decisions.temperature)) >= decisions.threshold)
        for frame, decisions in zip((first, second), (read_metrics(run).decisions for run in runs), strict=True)
    ]
    assert found.flips
    assert {flip.image for flip in found.flips} == set(first.index[called[0] != called[1]])
    assert all(flip.first != flip.second and flip.label == first["label"][flip.image] for flip in found.flips)
    changes = [abs(flip.second_probability - flip.first_probability) for flip in found.flips]
    assert changes == sorted(changes, reverse=True)
    better, worse = (
        [flip for flip in found.flips if flip.verdict == f"right only in {letter}"] for letter in ("B", "A")
    )
    assert all(flip.second == flip.label for flip in better)
    assert all(flip.first == flip.label for flip in worse)
    assert len(better) + len(worse) == len(found.flips)  # with two classes one of them is right
    right = [read_metrics(run).splits["test"].metrics["accuracy"].value * found.images for run in runs]
    assert len(better) - len(worse) == round(right[1] - right[0])


def test_a_run_compared_with_itself_says_so(runs, pneumo):
    again = pneumo("runs", "compare", runs[0].folder, runs[0].name, "--runs-dir", runs[0].folder.parent)
    assert again.code == 0, again.err
    assert f"{runs[0].name} is compared with itself" in again.err
    assert "0 images have another predicted class in B" in again.out
    assert "itself" not in " ".join(compare_runs(*runs, resamples=10).notes)


def test_runs_on_other_data_are_compared_on_the_images_that_both_held_back(synthesise_run):
    first = synthesise_run(seed=4, shift=0.4, images=240)
    second = synthesise_run(seed=4, shift=1.6, images=240, data="elsewhere", data_fingerprint="0" * 64)
    for run in (first, second):
        evaluate_run(run, resamples=10)
    unknown = compare_runs(first, second, resamples=10)
    assert unknown.images == 0
    assert "elsewhere" in unknown.notes[0]
    assert {each.p for each in unknown.differences} == {None}
    assert unknown.differences[0].first == read_metrics(first).splits["test"].metrics["auroc"].value


def test_images_are_told_by_their_digest_where_data_sets_differ(synthesise_run):
    first, second = (synthesise_run(seed=4, shift=shift, images=240) for shift in (0.4, 1.6))
    dataset = manifest.read_dataset(Path(first.info().data))
    other = dataset.folder.with_name("other")
    shutil.copytree(dataset.folder, other)
    moved = [row for row in dataset.rows if row.patient != "person2"]
    changed = dataset.info.model_copy(update={"fingerprint": manifest.compute_fingerprint(moved, dataset.info)})
    manifest.write_dataset(other, moved, changed)
    second.save(second.info().model_copy(update={"data": str(other), "data_fingerprint": changed.fingerprint}))
    frame = read_predictions(second)
    frame[frame["patient"] != "person2"].to_parquet(second.predictions)
    for run in (first, second):
        evaluate_run(run, resamples=10)
    found = compare_runs(first, second, resamples=50)
    counts = [read_metrics(run).splits["test"].images for run in (first, second)]
    assert (counts[0] - counts[1], found.images) == (2, counts[1])
    assert f"of {counts[0]} and {counts[1]}" in found.notes[0]
    assert found.differences[0].p is not None


def test_models_of_other_classes_are_not_compared(synthesise_run):
    with pytest.raises(InputError, match="cannot be compared"):
        compare_runs(synthesise_run(seed=1), synthesise_run(("A", "B", "C"), seed=2))


def test_a_run_that_was_not_evaluated_is_named(synthesise_run):
    with pytest.raises(InputError, match="not evaluated yet"):
        compare_runs(synthesise_run(seed=4), synthesise_run(seed=4))


class Page(HTMLParser):
    """What a page loads, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[Any] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def test_the_command_prints_tables_json_and_a_page_in_the_look_of_a_report_that_loads_nothing(
    page, runs, pneumo, tmp_path
):
    names = [run.name for run in runs]
    runs_dir = ("--runs-dir", runs[0].folder.parent)
    shown = pneumo("runs", "compare", *names, *runs_dir, "--html", tmp_path / "new" / "page.html")
    assert shown.code == 0, shown.err
    for part in ("trainer.epochs", "AUROC", "difference", "A: synthetic", "B: synthetic", *names):
        assert part in shown.out
    assert "equal in both" in shown.err
    page = Page((tmp_path / "new" / "page.html").read_text())
    assert page.links
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    for part in ("trainer.epochs", "AUROC", "not a medical device", *names):
        assert part in page.text
    document = json.loads(pneumo("runs", "compare", *names, *runs_dir, "--json").out)
    assert document["differences"][0]["metric"] == "auroc"
    assert f"{document['differences'][0]['value']:+.3f}" in shown.out
    for sheet in ("pipeline/evaluation/report/report.css", "serving/pages/web/colours.css"):
        style = (ROOT / sheet).read_text().strip()
        for text in ((tmp_path / "new" / "page.html").read_text(), runs[0].report.read_text()):
            assert style in text

    runs[1].config.write_text("note: '<script>alert(1)</script>'\n")  # what a config says cannot become markup
    assert pneumo("runs", "compare", *names, *runs_dir, "--html", tmp_path / "page.html").code == 0
    assert "<script>" not in (tmp_path / "page.html").read_text()
