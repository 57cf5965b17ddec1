import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pneumo.pipeline.sweep.record import Round, Sweep, SweepFolder
from pneumo.pipeline.sweep.report.importance import measure_importance
from pneumo.pipeline.sweep.report.sweep_report import describe_progress, domain, page_data, write_report
from pneumo.pipeline.sweep.report.table import write_table
from pneumo.pipeline.sweep.seed_repeats import choose_winner
from tests.support.paths import ROOT

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&\"'"


class Page(HTMLParser):
    """Tags, text and links of a page; fails on tags that do not nest."""

    void = frozenset({"meta", "img", "br", "link", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.sources: list[str] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.policy = ""
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"] or ""
        assert not any(name.startswith("on") for name in found)
        if tag not in self.void:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.scripts if self._open and self._open[-1] == "script" else self.words).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def data(self) -> dict:
        return json.loads(self.scripts[0])


def written(folder: Path, sweep: Sweep) -> Page:
    path = write_report(SweepFolder(folder), sweep)
    assert path == folder / "sweep.html"
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True, scope="module")
def _importance_once() -> Iterator[None]:
    """Measure the importance of parameters once a sweep: it takes longer than the page."""
    known: dict[str, Any] = {}

    def measure(sweep: Sweep) -> Any:
        key = sweep.model_dump_json()
        if key not in known:
            known[key] = measure_importance(sweep)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pneumo.pipeline.sweep.report.sweep_report.measure_importance", measure)
        yield


@pytest.fixture
def full(synthesise_sweep) -> Sweep:
    """A sweep of everything: done, stopped, failed, never run, repeated."""
    return synthesise_sweep(12, stopped=4, failed=2, waiting=1, top=2, seeds=3)


def test_the_report_needs_nothing_but_itself(full, tmp_path) -> None:
    page = written(tmp_path, full)
    assert not {"link", "iframe", "img", "object"} & set(page.tags)
    assert all(source.startswith("./") for source in page.sources)
    text = (tmp_path / "sweep.html").read_text()
    assert "@import" not in text
    assert "url(" not in text
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}
    assert len(page.ids) == len(set(page.ids))


def test_only_the_reports_own_script_may_run(full, tmp_path) -> None:
    page = written(tmp_path, full)
    assert len(page.scripts) == 2
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page.policy
    assert page.policy.startswith("default-src 'none'")


def test_parameters_errors_and_names_cannot_break_out(full, tmp_path) -> None:
    full.metric, full.config, full.data, full.error, full.status = EVIL, EVIL, EVIL, EVIL, "failed"
    for trial in full.trials:
        trial.parameters["image.encoder.norm"] = EVIL
        trial.parameters[EVIL] = {EVIL: [EVIL]}
        trial.error = EVIL
    full.space = {EVIL: {"space": "choice", "categories": [EVIL, 1]}} | full.space
    page = written(tmp_path, full)
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    assert page.data["metric"] == f"validation/{EVIL}"
    assert EVIL in page.text


def test_the_headline_tells_winner_parameters_and_what_was_spent(full, tmp_path) -> None:
    text = written(tmp_path, full).text
    choice = choose_winner(full)
    assert choice is not None
    assert f"Winner: {choice.trial.name}" in text
    assert f"{choice.family.mean.value:.3f}" in text
    assert "16 done, 4 stopped, 2 failed" in text
    assert f"trainer.learning_rate {choice.trial.parameters['trainer.learning_rate']:.4g}" in text
    assert f"Training {(16 * 48 + 4 * 16) / (2 * full.seconds):.0%}" in text
    assert "divided by wall seconds times the number of trials" in text
    assert "Research software, not a medical device: not for diagnosis" in text


def test_a_dict_that_won_is_shown_whole(synthesise_sweep, tmp_path) -> None:
    sweep = synthesise_sweep(1)
    sweep.trials[0].parameters["image.augmentation"] = [{"type": "random_rotate", "degree": 10}] * 6
    assert ", ".join(["random_rotate degree 10"] * 6) in written(tmp_path, sweep).text


@pytest.mark.parametrize(
    "made",
    [
        {"trials": 0},
        {"trials": 0, "failed": 3},
        {"trials": 0, "waiting": 3, "status": "interrupted"},
        {"trials": 1},
        {"trials": 1, "goal": "minimize", "failed": 1},
        {"trials": 9, "space": {"image.encoder.norm": {"space": "grid_search", "values": ["batch", None]}}},
    ],
)
def test_any_number_of_trials_makes_a_page(synthesise_sweep, tmp_path, made) -> None:
    sweep = synthesise_sweep(**made)
    page = written(tmp_path, sweep)
    assert "All trials" in page.text
    assert len(page.data["trials"]) == sum(trial.status.value != "waiting" for trial in sweep.trials)


def test_trials_that_diverged_leave_no_nan(synthesise_sweep, tmp_path) -> None:
    sweep = synthesise_sweep(3)
    nan = Round(epoch=7, step=70, value=float("nan"), seconds=70, at=70)
    sweep.trials[0].rounds.append(nan)
    sweep.trials[1].rounds = [nan]
    sweep.trials[2].parameters["trainer.learning_rate"] = float("nan")
    sweep.trials[2].rounds = [nan.model_copy(update={"value": 0.98046875})]  # its half goes to the even digit
    data = written(tmp_path, sweep).data
    assert [trial["value"] is None for trial in data["trials"]] == [False, True, False]
    assert [trial["figure"] for trial in data["trials"]][1:] == ["-", "0.980"]
    assert len(data["trials"][0]["rounds"]) == 6


def test_every_trial_has_a_row_with_its_reason_and_the_link_to_its_run(full, tmp_path) -> None:
    done = full.trials[0]
    assert done.run
    run = tmp_path / done.run
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    (run / "report.html").write_text("")
    page = written(tmp_path, full)
    text = (tmp_path / "sweep.html").read_text()
    assert len(re.findall(r'<tr data-trial="(t\d+)"', text)) == len(full.trials)
    assert page.text.count("out of memory: 3.2 GiB asked for") >= 2
    assert f"./{done.run}/report.html" in page.sources
    assert sum(source.endswith("report.html") for source in page.sources) == 1


def test_a_run_elsewhere_is_not_linked(full, tmp_path) -> None:
    full.trials[0].run = "javascript://alert(1)"
    assert not any("javascript" in source for source in written(tmp_path, full).sources)


def test_files_of_the_folder_are_linked_where_they_are(full, tmp_path) -> None:
    assert "./trials.csv" not in written(tmp_path, full).sources
    write_table(SweepFolder(tmp_path), full)
    assert "./trials.csv" in written(tmp_path, full).sources


def test_seeds_have_a_section_only_where_there_are_several(full, synthesise_sweep, tmp_path) -> None:
    assert "Repeats with other seeds" in written(tmp_path, full).text
    assert "Repeats with other seeds" not in written(tmp_path, synthesise_sweep(3)).text


def test_a_winner_of_the_best_mean_is_the_one_that_is_marked(full) -> None:
    choice = choose_winner(full)
    assert choice is not None
    data: Any = page_data(full, choice, measure_importance(full))
    marked = {trial["name"] for trial in data["trials"] if trial["winner"]}
    assert marked == {trial.name for trial in choice.family.trials}


def test_the_parameter_that_matters_is_drawn_first(synthesise_sweep) -> None:
    sweep = synthesise_sweep(24)
    sweep.space = dict(reversed(sweep.space.items()))
    data: Any = page_data(sweep, choose_winner(sweep), measure_importance(sweep))
    assert data["axes"][0]["name"] == "trainer.learning_rate"
    assert data["axes"][0]["kind"] == "log"
    rate = data["trials"][0]["places"][0]
    assert rate == sweep.trials[0].parameters["trainer.learning_rate"]


def test_the_best_so_far_only_gets_better_and_ends_at_the_best(synthesise_sweep) -> None:
    for goal, sign in (("maximize", 1), ("minimize", -1)):
        sweep = synthesise_sweep(12, stopped=3, goal=goal)
        found = describe_progress(sweep)
        for points in found.values():
            values = [sign * value for _, value, _ in points]
            assert values == sorted(values)
            assert points[-1][1:] == (sweep.ranked()[0].value(goal), sweep.ranked()[0].name)
            assert [place for place, _, _ in points] == sorted(place for place, _, _ in points)


def test_the_frame_leaves_out_what_diverged_but_never_the_best() -> None:
    usual = [0.5 + 0.01 * step for step in range(10)]
    low, high = domain([*usual, 1e6], "minimize")
    assert (low < 0.5, high < 1) == (True, True)
    low, high = domain([*usual, 1e6], "maximize")
    assert high >= 1e6
    assert domain([], "maximize") == (0.0, 1.0)
    low, high = domain([1.0, 1.0], "maximize")
    assert low < 1 < high


def test_it_has_the_style_of_the_service_and_of_other_reports(full, tmp_path) -> None:
    page = write_report(SweepFolder(tmp_path), full).read_text()
    for sheet in ("serving/pages/web/colours.css", "pipeline/evaluation/report/report.css"):
        assert (ROOT / sheet).read_text().strip() in page


@pytest.mark.browser
def test_a_browser_draws_every_chart(full, tmp_path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    path = write_report(SweepFolder(tmp_path), full)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    command = [browser, *options, f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    drawn = re.findall(r"<svg[^>]*aria-label=\"([^\"]*)\"", done.stdout)
    assert len(drawn) == 2 + 1 + len(full.space) + 1 + 1
    begun = [trial.name for trial in full.trials if trial.status.value != "waiting" and not trial.repeats]
    lines = set(re.findall(r'class="line[^"]*" data-trial="(t\d+)"', done.stdout))
    assert set(begun) <= lines
    assert not re.findall(r'="[^"]*NaN[^"]*"', done.stdout)
