"""Errors of every command: one line, an exit code, and the traceback with --debug."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from pneumo.pipeline import training
from pneumo.pipeline.cli import app, sweep, train
from pneumo.pipeline.project import doctor
from pneumo.serving.contracts.errors import CheckFailedError
from tests.conftest import Outcome

Pneumo = Callable[..., Outcome]


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Make `pneumo doctor` raise an error."""

    def install(error: Exception) -> None:
        def examine() -> None:
            raise error

        monkeypatch.setattr(doctor, "examine_environment", examine)

    monkeypatch.delenv("PNEUMO_DEBUG", raising=False)
    return install


def test_a_misspelt_variable_is_warned_of_by_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PNEUMO_KEYFILE", str(tmp_path / "keys.yaml"))
    CliRunner().invoke(app, ["keys", "list", "--keys", str(tmp_path / "keys.yaml")])
    assert [record.getMessage() for record in caplog.records] == [
        "PNEUMO_KEYFILE: no such setting; did you mean PNEUMO_KEYS?"
    ]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("ludwig.api", "pneumo: ludwig.api is not installed; run `pip install '.[train]'` in a checkout of pneumo"),
        ("onnxruntime", "pneumo: onnxruntime is not installed; run `pip install '.[serve]'` in a checkout of pneumo"),
        ("evidently", "pneumo: evidently is not installed; run `pip install '.[drift]'` in a checkout of pneumo"),
        ("wandb", "pneumo: wandb is not installed; run `pip install 'wandb'`"),
    ],
)
def test_a_missing_module_is_named_with_the_extra_that_brings_it(
    pneumo: Pneumo, fail: Callable[[Exception], None], module: str, message: str
) -> None:
    fail(ModuleNotFoundError(f"No module named {module!r}", name=module))
    assert pneumo("doctor") == Outcome(3, "", f"{message}\n")


def test_a_broken_package_shows_its_own_message_in_one_line(pneumo: Pneumo, fail: Callable[[Exception], None]) -> None:
    fail(ImportError("libcudart.so.13: cannot open\nshared object file", name="torch"))
    outcome = pneumo("doctor")
    assert outcome.code == 3
    assert outcome.err == "pneumo: a package cannot be imported: libcudart.so.13: cannot open shared object file\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CheckFailedError("no"), 1),
        (ModuleNotFoundError("No module named 'ludwig'", name="ludwig"), 3),
        (ImportError("broken"), 3),
        (OSError(28, "No space left on device", "/x"), 3),
    ],
)
def test_debug_shows_the_traceback_before_the_line(
    pneumo: Pneumo,
    fail: Callable[[Exception], None],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: int,
) -> None:
    fail(error)
    plain = pneumo("doctor")
    assert (plain.code, plain.err.count("\n")) == (code, 1)

    shown = pneumo("--debug", "doctor")
    assert shown.code == code
    assert shown.err.startswith("Traceback (most recent call last):")
    assert ", in examine" in shown.err
    assert shown.err.endswith(plain.err)
    monkeypatch.setenv("PNEUMO_DEBUG", "1")
    assert ", in examine" in pneumo("doctor").err
    monkeypatch.setenv("PNEUMO_DEBUG", "0")
    assert pneumo("doctor").err == plain.err


def test_lists_of_commands_show_whole_sentences() -> None:
    groups: list[tuple[list[str], Any]] = [([], get_command(app))]
    while groups:
        path, group = groups.pop()
        shown = CliRunner().invoke(app, [*path, "--help"]).output.partition("Commands:")[2].splitlines()
        assert not [line for line in shown if line.endswith("...")]
        groups += [([*path, name], each) for name, each in group.commands.items() if hasattr(each, "commands")]


def test_the_default_seed_is_that_of_the_library() -> None:
    for command in (train.train, sweep.sweep):
        assert inspect.signature(command).parameters["seed"].default == training.SEED
