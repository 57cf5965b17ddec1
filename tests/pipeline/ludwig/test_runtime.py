import importlib
import logging
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.ludwig import runtime
from tests.support.paths import CONFIGS


def test_what_ludwig_says_goes_to_the_file_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.txt"
    logging.getLogger("ludwig").setLevel(logging.ERROR)  # as LudwigModel.load leaves it
    with runtime.log_to_file(log):
        logging.getLogger("ludwig.trainers").warning("from Ludwig")
        warnings.warn("from a library", stacklevel=1)
        print("printed")

    text = log.read_text(encoding="utf-8")
    assert "WARNING ludwig.trainers: from Ludwig" in text
    assert "UserWarning: from a library" in text
    assert "printed" in text
    out, err = capfd.readouterr()
    assert out == err == ""


def test_a_service_in_this_process_takes_no_warning_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        warnings, "formatwarning", lambda *_: "left out"
    )  # as `pneumo.serving.telemetry.logs.configure` leaves it
    before = warnings.showwarning
    with runtime.log_to_file(tmp_path / "log.txt"):
        warnings.warn("from a library", stacklevel=1)

    assert "from a library" in (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert warnings.showwarning is before


def test_loggers_are_as_before_after_an_error(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = root.handlers[:]
    with pytest.raises(RuntimeError), runtime.log_to_file(tmp_path / "log.txt"):
        raise RuntimeError

    assert root.handlers == before


def test_threads_take_turns_to_log_to_a_file(tmp_path: Path) -> None:
    """Out of order, the first would put back the second's file, which is closed by then."""
    before = sys.stdout
    entered, may_leave = threading.Event(), threading.Event()

    def work(name: str) -> None:
        with runtime.log_to_file(tmp_path / name):
            entered.set()
            may_leave.wait(60)
            print(name)

    threads = [threading.Thread(target=work, args=[name]) for name in ("one", "two")]
    threads[0].start()
    assert entered.wait(60)
    threads[1].start()
    may_leave.set()
    for thread in threads:
        thread.join(60)

    assert sys.stdout is before
    assert [(tmp_path / name).read_text(encoding="utf-8") for name in ("one", "two")] == ["one\n", "two\n"]


def test_ludwigs_own_check_is_spared_only_inside_the_context(ludwig: ModuleType) -> None:
    base: Any = importlib.import_module("ludwig.schema.model_types.base")
    before = base.check_schema
    with runtime.skip_schema_check():
        assert base.check_schema is not before
    assert base.check_schema is before


@pytest.mark.slow
def test_ludwigs_training_command_takes_a_config_as_it_is(ludwig: ModuleType, dataset: Dataset, tmp_path: Path) -> None:
    """`ludwig train -c FILE --dataset MANIFEST`, in this process."""
    from ludwig.train import cli

    document = yaml.safe_load((CONFIGS / "smoke.yaml").read_text(encoding="utf-8"))
    document["trainer"]["epochs"] = 1
    file = tmp_path / "smoke.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")

    with runtime.log_to_file(tmp_path / "log.txt"):
        cli(
            [
                *("--config", str(file), "--dataset", str(dataset.folder / "manifest.csv")),
                *("--output_directory", str(tmp_path / "results"), "--skip_save_processed_input"),
            ]
        )

    assert list((tmp_path / "results").rglob("model_weights*"))


@pytest.mark.slow
@pytest.mark.lengthy
def test_the_ludwig_command_knows_our_encoder_in_a_process_of_its_own(dataset: Dataset, tmp_path: Path) -> None:
    """Rely on torch's entry point alone: nothing imports pneumo there, and Ludwig knows `efficientnet_lite`."""
    document = yaml.safe_load((CONFIGS / "efficientnet_lite0.yaml").read_text(encoding="utf-8"))
    document["trainer"]["epochs"] = 1
    document["input_features"][0]["preprocessing"] |= {"height": 32, "width": 32}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    command = [
        *(str(Path(sys.executable).with_name("ludwig")), "train", "--config", str(file)),
        *("--dataset", str(dataset.folder / "manifest.csv"), "--output_directory", str(tmp_path / "results")),
        "--skip_save_processed_input",
    ]

    done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=tmp_path, env=dict(os.environ))

    assert done.returncode == 0, done.stderr[-2000:]
    assert list((tmp_path / "results").rglob("model_weights*"))
