import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from pneumo.pipeline.cli import app
from pneumo.pipeline.cli import data as commands
from pneumo.pipeline.data.audit import NEAR_DISTANCE
from pneumo.pipeline.data.import_settings import ImportSettings, SplitMethod
from pneumo.serving.contracts.errors import CheckFailedError, InputError
from pneumo.serving.images.types import Decode, Fit
from tests.pipeline.conftest import SynthesiseRun


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(commands.app, [str(argument) for argument in arguments])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number in range(20):
        path = tmp_path / "raw" / ["NORMAL", "[b]ODD"][number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path / "raw"


def test_import_then_check_passes_and_says_what_was_left_out(source: Path, tmp_path: Path) -> None:
    for number in range(12):
        (source / f"NORMAL/broken{number:02}.png").write_bytes(b"broken")
    result = run("import", source, "--out", tmp_path / "data", "--size", "64")
    assert result.exit_code == 0
    assert "[b]ODD" in result.stdout
    assert result.stderr.count("skipped: NORMAL/broken") == 10
    assert "12 files skipped" in result.stderr
    assert run("check", tmp_path / "data").exit_code == 0


def test_images_that_count_as_their_own_patient_are_told_on_standard_error(source: Path, tmp_path: Path) -> None:
    result = run("import", source, "--out", tmp_path / "data", "--size", "64")
    told = " ".join(result.stderr.split())
    assert "20 of 20 images" in told
    assert "--patient-regex groups them" in told
    grouped = run("import", source, "--out", tmp_path / "grouped", "--size", "64", "--patient-regex", r"/(\d+)")
    assert "--patient-regex groups them" not in " ".join(grouped.stderr.split())


def test_json_is_one_document_on_standard_output(source: Path, tmp_path: Path) -> None:
    made = json.loads(run("import", source, "--out", tmp_path / "data", "--size", "64", "--json").stdout)
    assert made["classes"] == ["NORMAL", "[b]ODD"]
    assert made["folder"] == str(tmp_path / "data")
    assert json.loads(run("check", tmp_path / "data", "--json").stdout)["passed"] is True


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_check_shows_its_report_and_then_says_no(source: Path, options: list[str]) -> None:
    (source / "[b]ODD/copy.png").write_bytes((source / "NORMAL/0.png").read_bytes())
    result = run("check", source, *options)
    assert isinstance(result.exception, CheckFailedError)
    assert "identical-across-labels" in str(result.exception)
    assert "identical-across-labels" in result.stdout


def test_label_errors_are_a_warning_with_a_table_and_a_ranking(
    synthesise_run: SynthesiseRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = synthesise_run()
    monkeypatch.chdir(tmp_path)
    options: list[str | Path] = ["--label-errors", "latest", "--out", "ranking.csv"]
    result = run("check", trained.info().data, *options, "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    errors, finding = document["label_errors"], document["findings"][-1]
    assert errors["predictions"] == trained.name
    assert (finding["kind"], finding["severity"], finding["count"]) == ("label-errors", "warning", errors["likely"])
    assert len(errors["ranking"]) == 80
    assert (tmp_path / "ranking.csv").read_text().splitlines()[1].startswith(f"1,{errors['ranking'][0]['image']},")
    shown = run("check", trained.info().data, *options)
    assert shown.exit_code == 0
    assert [suspect["image"] in shown.stdout for suspect in errors["ranking"][:11]] == [True] * 10 + [False]
    assert f"next: pneumo cases {trained.name}" in shown.stdout
    refused = run("check", trained.info().data, "--out", "ranking.csv")
    assert isinstance(refused.exception, InputError)
    assert "--out: is for a ranking of label errors; give --label-errors RUN" in str(refused.exception)


def test_corrections_are_imported_and_told(source: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("source,label\nNORMAL/0.png,[b]ODD\nNORMAL/2.png,NORMAL\n")
    (tmp_path / "bad.csv").write_text("source\nNORMAL/4.png\n")
    options: list[str | Path] = [
        "--relabel",
        tmp_path / "labels.csv",
        "--exclude",
        tmp_path / "bad.csv",
        "--size",
        "64",
    ]
    result = run("import", source, "--out", tmp_path / "data", *options)
    assert result.exit_code == 0
    assert "labels.csv: 2 images listed, 1 label changed" in result.stderr
    assert "bad.csv: 1 image listed, 1 image left out" in result.stderr
    assert "skipped: NORMAL/4.png: left out by bad.csv" in result.stderr
    (tmp_path / "labels.csv").write_text("source,label\nNORMAL/none.png,NORMAL\n")
    refused = run("import", source, "--out", tmp_path / "other", *options, "--dry-run")
    assert isinstance(refused.exception, InputError)
    assert "labels.csv:2: no such image in the source: 'NORMAL/none.png'" in str(refused.exception)


def test_options_reach_the_import(source: Path, tmp_path: Path) -> None:
    options = [
        "--size",
        "32",
        "--fit",
        "crop",
        "--decode",
        "full",
        "--seed",
        "7",
        "--fractions",
        "50,25,25",
        "--patient-regex",
        r"/(\d)",
    ]
    made = json.loads(run("import", source, "--out", tmp_path / "data", *options, "--json").stdout)
    assert (made["size"], made["fit"], made["decode"], made["split"]["seed"]) == (32, "crop", "full", 7)
    assert made["split"]["fractions"] == {"train": 0.5, "validation": 0.25, "test": 0.25}
    assert r"/(\d)" in made["split"]["patients_from"]
    assert isinstance(run("import", source, "--out", tmp_path / "data").exception, InputError)
    assert run("import", source, "--out", tmp_path / "data", "--force", "--size", "32").exit_code == 0


def test_phantoms_are_drawn_imported_and_checked(tmp_path: Path) -> None:
    drawn = run("phantom", tmp_path / "phantom", "--images", "24", "--size", "64", "--noise", "3", "--json")
    assert json.loads(drawn.stdout)["images"] == 24
    assert run("import", tmp_path / "phantom", "--out", tmp_path / "data", "--size", "64").exit_code == 0
    assert run("check", tmp_path / "data").exit_code == 0


def test_the_choices_and_defaults_are_those_of_the_library(source: Path, tmp_path: Path) -> None:
    for choice, kind in {
        commands.FitChoice: Fit,
        commands.DecodeChoice: Decode,
        commands.SplitChoice: SplitMethod,
    }.items():
        assert list(get_args(choice)) == [each.value for each in kind]
    made = json.loads(run("import", source, "--out", tmp_path / "data", "--json").stdout)
    settings = ImportSettings()
    assert (made["size"], made["fit"], made["decode"]) == (settings.size, settings.fit.value, settings.decode.value)
    assert made["split"]["seed"] == settings.seed
    assert list(made["split"]["fractions"].values()) == [0.7, 0.15, 0.15]
    assert f"default: {NEAR_DISTANCE}" in run("check", "--help").stdout


@pytest.fixture
def hospitals(tmp_path: Path) -> Path:
    """Two classes below two hospitals, and a table of the wrong labels beside them."""
    for number, folder in enumerate(["north/NORMAL", "north/TB", "south/NORMAL", "south/Normal", "south/TB"]):
        for shot in range(4):
            path = tmp_path / "raw" / folder / f"{shot}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(10 * number + shot).integers(0, 255, (40, 40), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    return tmp_path / "raw"


def test_an_import_that_is_not_certain_stops_and_names_the_options(hospitals: Path, tmp_path: Path) -> None:
    refused = run("import", hospitals, "--out", tmp_path / "data")
    assert isinstance(refused.exception, InputError)
    assert refused.exception.exit_code == 2
    assert "--layout patient/class or any/class (classes 'NORMAL', 'Normal' and 1 more)" in str(refused.exception)
    assert "north (8), south (12)" in refused.stderr
    assert not (tmp_path / "data").exists()
    told = run("import", hospitals, "--dry-run", "--json")
    assert isinstance(told.exception, InputError)
    assert len(json.loads(told.stdout)["understood"]["ambiguities"]) == 1
    assert isinstance(run("check", hospitals).exception, InputError)


def test_a_dry_run_shows_what_an_import_understands_and_writes_nothing(hospitals: Path, tmp_path: Path) -> None:
    options = ("--layout", "any/class", "--rename", "TB=TUBERCULOSIS")
    before = sorted(tmp_path.rglob("*"))
    for path in hospitals.rglob("*.png"):
        path.chmod(0)
    dry = run("import", hospitals, "--out", tmp_path / "data", *options, "--dry-run")
    assert dry.exit_code == 0
    assert dry.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before
    assert "any/class, such as north/NORMAL/0.png" in dry.stderr
    assert "NORMAL (12), TUBERCULOSIS (8)" in dry.stderr
    assert "the class 'Normal' (4 images) counts as 'NORMAL'" in dry.stderr
    for path in hospitals.rglob("*.png"):
        path.chmod(0o644)
    understood = json.loads(run("import", hospitals, *options, "--dry-run", "--json").stdout)["understood"]
    made = run("import", hospitals, "--out", tmp_path / "data", "--size", "32", *options, "--json")
    assert json.loads(made.stdout)["understood"] == understood
    assert json.loads((tmp_path / "data/dataset.json").read_text())["understood"] == understood
    assert made.stderr.index("is understood so") < made.stderr.index("importing")
    assert run("check", hospitals, *options).stdout != ""


def test_a_table_and_its_columns_are_chosen_by_options(hospitals: Path, tmp_path: Path) -> None:
    rows = [
        f"{number};{hospital}/{name}/{number}.png;{name};{hospital}{number};{'test' if number else 'train'}"
        for hospital in ("north", "south")
        for name in ("NORMAL", "TB")
        for number in range(4)
    ]
    (tmp_path / "mine.csv").write_text("\n".join(["nr;file;dx;who;fold", *rows]))
    columns = ("--image-column", "file", "--label-column", "dx", "--patient-column", "who", "--split-column", "fold")
    options = ("--out", tmp_path / "data", "--size", "32", "--split", "given", "--table", tmp_path / "mine.csv")
    made = json.loads(run("import", hospitals, *options, *columns, "--json").stdout)
    assert made["counts"]["test"] == {"NORMAL": 6, "TB": 6}
    assert (
        made["understood"]["splits_from"]
        == made["understood"]["labels_from"]
        == f"{tmp_path / 'mine.csv'} (image: file, label: dx, patient: who, split: fold)"
    )
    assert "a patient column or folder: 16 images" in made["understood"]["patients_from"]


def test_a_rare_class_and_one_patient_for_all_are_told(tmp_path: Path) -> None:
    rows = ["image,label,patient,split"]
    (tmp_path / "raw").mkdir()
    for number in range(60):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"raw/{number}.png")
        split = ("train", "test")[number % 2]
        label = "TB" if number in (1, *range(0, 40, 2)) else "NORMAL"
        rows.append(f"{number}.png,{label},unknown,{split}")
    (tmp_path / "raw/list.csv").write_text("\n".join(rows))
    result = run("import", tmp_path / "raw", "--out", tmp_path / "data", "--size", "32", "--split", "given")
    assert result.exit_code == 0
    assert "one patient has 60 of 60 images" in result.stderr
    assert "class 'TB' is nearly absent from the test split: 1 of 30 images" in result.stderr


def test_the_help_lists_options_under_headings() -> None:
    text = CliRunner().invoke(app, ["data", "import", "--help"]).stdout
    places = [text.index(heading) for heading in ("Arguments:", "Options:", "What the source means:", "Splits:")]
    assert places == sorted(places)
    assert text.index("What the source means:") < text.index("--layout LEVELS") < text.index("Splits:")
