"""The public API of `import pneumo`."""

import inspect
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import pneumo
from pneumo import api
from pneumo.pipeline.data import phantom
from pneumo.pipeline.data.manifest import Dataset, Split
from pneumo.pipeline.runs.run import Run, Status
from pneumo.serving.contracts.errors import CheckFailedError, InputError
from tests.conftest import TINY
from tests.support.paths import CONFIGS, ROOT

HEAVY = ("numpy", "PIL", "pydantic", "yaml", "typer", "rich", "httpx", "fastapi", "torch", "ludwig", "ray", "pandas")
FUNCTIONS = ("load_config", "import_dataset", "train", "evaluate", "sweep", "export", "promote", "predict")


@pytest.mark.parametrize("statement", ["import pneumo", "import pneumo.api", "import pneumo; dir(pneumo)"])
def test_importing_pneumo_loads_nothing_heavy(statement: str) -> None:
    program = f"import sys; {statement}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


def test_every_public_name_is_listed_documented_and_there() -> None:
    assert set(pneumo.__all__) == {"__version__", "Bundle", "Client", *FUNCTIONS}
    assert set(pneumo.__all__) <= set(dir(pneumo))
    for name in pneumo.__all__:
        value = getattr(pneumo, name)
        assert name == "__version__" or len(inspect.getdoc(value) or "") > 50, name
    assert pneumo.__version__ == "0.1.0"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'pneumo' has no attribute 'trian'"):
        _ = pneumo.trian  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="cannot import name 'trian'"):
        exec("from pneumo import trian")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_is_documented(name: str) -> None:
    function: Callable[..., object] = getattr(api, name)
    text = inspect.getdoc(function) or ""
    for argument in inspect.signature(function).parameters:
        assert f"\n    {argument}: " in text, argument


def test_the_example_of_the_module_names_functions_and_arguments_that_exist() -> None:
    code = inspect.cleandoc((pneumo.__doc__ or "").split("\n\n", 1)[1].rsplit("\n\n", 1)[0])
    compile(code, "example", "exec")
    for name in ("import_dataset", "train", "promote", "predict"):
        assert f"pneumo.{name}(" in code


def test_a_config_is_loaded_with_overrides_and_refused_with_its_line(tmp_path: Path) -> None:
    assert pneumo.load_config(str(CONFIGS / "smoke.yaml"), overrides=TINY).config["trainer"]["epochs"] == 3
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((CONFIGS / "smoke.yaml").read_text().replace("learning_rate:", "learning_rte:"))
    with pytest.raises(InputError, match=r"wrong.yaml:\d+"):
        pneumo.load_config(wrong)


def test_overrides_are_for_a_file_not_for_a_loaded_config(dataset: Dataset) -> None:
    experiment = pneumo.load_config(CONFIGS / "smoke.yaml")
    with pytest.raises(InputError, match="give them to load_config"):
        pneumo.train(experiment, dataset, overrides=["trainer.epochs=1"])


def test_a_sweep_asks_for_a_config_or_auto(dataset: Dataset) -> None:
    with pytest.raises(InputError, match="auto=True"):
        pneumo.sweep(data=dataset)


def test_predictions_come_in_order_and_an_unreadable_file_has_its_reason(
    exported: Path, dataset: Dataset, tmp_path: Path
) -> None:
    image = dataset.path(dataset.select(Split.TEST)[0])
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")

    good, bad = pneumo.predict([broken, str(image)], exported)[::-1]

    assert good.prediction is not None
    assert good.prediction.label in ("NORMAL", "PNEUMONIA")
    assert (bad.path, bad.prediction) == (broken, None)
    assert bad.error
    (again,) = pneumo.predict(image, pneumo.Bundle.open(exported))
    assert again.prediction is not None
    assert again.prediction.probability == good.prediction.probability


def test_a_run_is_measured_again_as_the_command_does(trained: Run, tmp_path: Path) -> None:
    run = Run(tmp_path / trained.name)
    shutil.copytree(trained.folder, run.folder)

    report = pneumo.evaluate(trained.name, split="validation", policy="max accuracy", runs_dir=tmp_path)

    assert report.split == "validation"
    assert report.decisions.policy == "max accuracy"
    assert {Path(file) for file in report.files} == {run.folder / "decisions.json", run.metrics, run.report}


@pytest.mark.slow
def test_the_whole_way_from_images_to_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    phantom.write_phantoms(Path("raw"), phantom.Recipe(images=160, seed=1, size=64))
    said: list[str] = []

    data = pneumo.import_dataset("raw", size=64, fractions=(0.6, 0.2, 0.2))
    run = pneumo.train(str(CONFIGS / "smoke.yaml"), overrides=TINY, seed=7, write=said.append)
    assert run.info().status is Status.DONE
    assert run.folder.parent == Path("runs")
    assert said
    bundle = pneumo.export(run)
    assert bundle.folder == run.folder / "bundle"
    with pytest.raises(CheckFailedError, match="too few images to tell whether it is better than chance"):
        pneumo.promote(run)
    version = pneumo.promote(run, force="a test")
    assert (Path("models") / version.bundle / "model.onnx").is_file()
    assert version.digest == bundle.digest
    results = pneumo.predict("data/images")
    assert len(results) == len(data.rows)
    assert not [result.error for result in results if result.error]

    worse = pneumo.train(CONFIGS / "smoke.yaml", data, overrides=[*TINY, "trainer.epochs=1"], seed=8)
    Path("gate.yaml").write_text("parity: 1e-15\n")
    with pytest.raises(CheckFailedError, match="is not promoted to champion: parity"):
        pneumo.promote(worse, gate="gate.yaml")
    assert pneumo.promote(worse, gate="gate.yaml", force="a test").digest != version.digest


@pytest.mark.slow
@pytest.mark.lengthy
def test_a_sweep_leaves_what_the_command_leaves(dataset: Dataset, tmp_path: Path) -> None:
    space = {"trainer.batch_size": {"space": "choice", "categories": [16, 32]}}
    known = yaml.safe_load((CONFIGS / "smoke.yaml").read_text(encoding="utf-8"))
    section = {"goal": "maximize", "metric": "roc_auc", "output_feature": "label", "parameters": space}
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump(known | {"hyperopt": section}), encoding="utf-8")

    folder = pneumo.sweep(
        config,
        dataset,
        overrides=[*TINY, "trainer.epochs=1"],
        trials=2,
        concurrency=1,
        sweeps_dir=tmp_path / "sweeps",
    )

    record = folder.read()
    assert record.status == "done"
    assert {path.name for path in folder.folder.iterdir()} >= {"best.yaml", "trials.csv", "sweep.html"}
    assert len((folder.folder / "trials.csv").read_text().splitlines()) == 3
    winner = folder.run_of(next(trial for trial in record.trials if trial.name == record.winner))
    assert winner is not None
    assert winner.metrics.is_file()
    assert pneumo.load_config(folder.best).config["trainer"]["epochs"] == 1
