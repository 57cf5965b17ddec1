"""The whole loop through the command line, as a person would type it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pneumo.pipeline.project.demo import serve_once
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.errors import CheckFailedError
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from tests.conftest import Outcome

Pneumo = Callable[..., "Outcome"]
TINY = ("-o", "trainer.epochs=2", "-o", "input_features.0.preprocessing.height=32", "-o")
TINY_WIDTH = "input_features.0.preprocessing.width=32"


def test_from_images_to_a_prediction_over_http(pneumo: Pneumo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    smoke = ROOT / "ludwig_configs" / "smoke.yaml"

    assert pneumo("data", "phantom", "raw", "--images", "160", "--size", "64").code == 0
    imported = pneumo("data", "import", "raw", "--size", "64", "--json")
    assert imported.code == 0
    assert json.loads(imported.out)["classes"] == ["NORMAL", "PNEUMONIA"]
    assert pneumo("data", "check").code == 0
    assert pneumo("config", "validate", smoke).code == 0

    trained = pneumo("train", smoke, *TINY, TINY_WIDTH, "--seed", "5", "--json")
    assert trained.code == 0, trained.err
    run = json.loads(trained.out)["run"]
    assert pneumo("train", "--resume", run).code == 2
    listed = pneumo("runs", "list", "--json")
    assert run in listed.out
    evaluated = pneumo("evaluate", run, "--split", "validation", "--json")
    assert evaluated.code == 0
    again = pneumo("evaluate", run, "--data", "data", "--split", "test", "--json")
    assert again.code == 0, again.err
    exported = pneumo("export", run, "--json")
    assert exported.code == 0, exported.err
    assert json.loads(exported.out)["parity"]["max_probability_difference"] < 1e-4
    assert pneumo("promote", run).code == 1, "two epochs are at chance"
    promoted = pneumo("promote", run, "--force", "to see the rest of the loop", "--json")
    assert promoted.code == 0, promoted.err
    assert pneumo("models", "list").code == 0

    image = next((tmp_path / "data" / "images" / "test" / "PNEUMONIA").iterdir())
    served = serve_once(Path("models"), image)["predictions"][0]
    offline = pneumo("predict", image, "--json")
    assert offline.code == 0
    (predicted,) = json.loads(offline.out)["predictions"]
    assert predicted["probability"] == pytest.approx(served["probability"], abs=1e-6)
    assert predicted["label"] == served["label"]


@pytest.mark.slow
def test_what_stored_predictions_can_tell_is_told_without_ludwig_or_torch(synthesise_run: Callable[..., Run]) -> None:
    first, second = synthesise_run(seed=1), synthesise_run(seed=2)
    commands = [["evaluate", first.folder], ["evaluate", second.folder], ["runs", "show", first.folder]]
    commands += [["runs", "compare", first.folder, second.folder], ["runs", "list", "--runs-dir", first.folder.parent]]
    program = f"""
import sys
from typer.testing import CliRunner
from pneumo.pipeline.cli import app
for command in {[[str(word) for word in command] for command in commands]}:
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
loaded = [name for name in ("ludwig", "torch", "ray") if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.lengthy
@pytest.mark.slow
def test_the_demo_is_idempotent(
    pneumo: Pneumo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: object
) -> None:
    from pneumo.pipeline.project import demo

    monkeypatch.setattr(demo, "IMAGES", 160)
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "ludwig_configs" / "smoke.yaml").read_text(encoding="utf-8")
    config = tmp_path / "short.yaml"
    config.write_text(text.replace("epochs: 25", "epochs: 1"), encoding="utf-8")
    folder = tmp_path / "demo"

    first = pneumo("demo", "--folder", folder, "--config", config, "--json")
    assert first.code == 0, first.err
    second = pneumo("demo", "--folder", folder, "--config", config)

    assert second.code == 0, second.err
    assert len(list((folder / "runs").iterdir())) == 1
    assert len(list((folder / "models").glob("*/*"))) == 1
    assert json.loads(first.out)["drift"]["images"] == len(list((folder / "data" / "images" / "test").rglob("*.png")))
    assert "root_metric" in (folder / "drift-report" / "report.html").read_text(encoding="utf-8")  # Evidently's page
    assert not Path("predictions.sqlite3").exists()
    for part in ("results", "try next", "not a medical device", json.loads(first.out)["run"]):
        assert part in second.out


def test_a_service_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError, match=r"the service ended at once: pneumo: .*champion"):
        serve_once(tmp_path, tmp_path / "none.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train",), "give either a CONFIG or --resume RUN"),
        (("train", "nowhere.yaml"), "nowhere.yaml: no such file"),
        (("train", ROOT / "ludwig_configs" / "smoke.yaml", "--data", "nowhere"), "no manifest.csv here"),
        (("train", ROOT / "ludwig_configs" / "smoke.yaml", "-o", "trainer.epoch=1"), "did you mean 'epochs'?"),
        (("train", "--resume", "x", "-o", "a=1"), "--resume continues a run as it was; leave out --override"),
        (("train", "--resume", "x"), "x: no such run"),
        (("export", "x"), "x: no such run"),
        (("config", "validate", "nowhere.yaml"), "no such file"),
        (("data", "import", "nowhere"), "nowhere"),
        (("promote", "nowhere"), "nowhere"),
        (("predict", "nowhere.png"), "champion"),
        (("train", "--no-such-option"), "No such option"),
    ],
)
def test_wrong_input_is_one_line_with_exit_code_2(
    pneumo: Pneumo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)

    outcome = pneumo(*arguments)

    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""


def test_a_full_disk_is_one_line_with_exit_code_3(
    pneumo: Pneumo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pneumo.pipeline.data import phantom

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "x.png"))

    monkeypatch.setattr(phantom, "write_phantoms", full)

    outcome = pneumo("data", "phantom", tmp_path / "raw", "--images", "2")

    assert outcome.code == 3
    assert outcome.err.strip().endswith("x.png: No space left on device")
