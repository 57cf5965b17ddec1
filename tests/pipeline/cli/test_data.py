import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from pneumo.pipeline.cli import data as commands
from pneumo.pipeline.data.audit import NEAR_DISTANCE
from pneumo.pipeline.data.import_settings import ImportSettings, SplitMethod
from pneumo.serving.contracts.errors import CheckFailedError, InputError
from pneumo.serving.images.types import Decode, Fit


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
