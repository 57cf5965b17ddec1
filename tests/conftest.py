"""Fixtures of many tests: real images, an imported phantom data set, one tiny model trained for all."""

import contextlib
import functools
import io
import os
import re
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from pneumo.pipeline import config, training
from pneumo.pipeline.config import Experiment
from pneumo.pipeline.data import importer, phantom
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.export import bundle_export
from pneumo.pipeline.ludwig import runtime
from pneumo.pipeline.runs.run import Run
from tests.support.paths import CONFIGS, ROOT

# No example fails for being slow. By day every run tries the same few, so that none fails by chance; by night many new.
settings.register_profile("day", max_examples=40, derandomize=True, database=None, deadline=None)
settings.register_profile("night", max_examples=300, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "day"))

TINY = (
    "trainer.epochs=3",
    "trainer.batch_size=16",
    "input_features.0.preprocessing.height=32",
    "input_features.0.preprocessing.width=32",
    "input_features.0.encoder.conv_layers=[{out_channels: 8, kernel_size: 3, pool_kernel_size: 2, norm: batch}]",
    "input_features.0.encoder.fc_layers=[{output_size: 16, dropout: 0.1}]",
)
"""Turns smoke.yaml into a model that trains in a second or two."""


@dataclass(frozen=True)
class Outcome:
    """Result of a command: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


SHARED = re.compile(r"^def \w+\([^)]*\b(ludwig|dataset|tiny|trained|exported)\b|^\s+from torchmetrics\b", re.MULTILINE)
"""A test or a fixture that asks for Ludwig, for what is made once a session with it, or for torch."""


class LudwigTogether(LoadFileScheduling):
    """Gives all files whose tests share Ludwig to one process of pytest-xdist, and every other file to any.

    Ludwig takes 20 s to import, and each process would train the session's model anew.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "ludwig" if shares_ludwig(self.config.rootpath / file) else file


@functools.cache
def shares_ludwig(file: Path) -> bool:
    return SHARED.search(file.read_text(encoding="utf-8")) is not None


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return LudwigTogether(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(autouse=True)
def _hooks_as_before() -> Iterator[None]:
    """A service that runs in this process takes warnings and failing threads over for good; a test must not."""
    before = threading.excepthook, warnings.formatwarning
    yield
    threading.excepthook, warnings.formatwarning = before


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of the real X-rays; skip the test if there is none."""
    folder = Path(os.environ.get("PNEUMO_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "chest_xray_224_train.tar").is_file():
        pytest.skip(f"real X-rays are not at {folder} (set PNEUMO_REAL_DATA)")
    return folder


@pytest.fixture(scope="session")
def ludwig() -> ModuleType:
    """Ludwig, imported once for all tests."""
    return runtime.load_ludwig()


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 200 phantom images in Kermany's layout."""
    out = tmp_path_factory.mktemp("phantoms") / "raw"
    phantom.write_phantoms(out, phantom.Recipe(images=200, seed=1, size=64))
    return out


@pytest.fixture(scope="session")
def dataset(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The phantoms, imported at 64 pixels. Tests only read it."""
    return importer.import_dataset(
        phantoms, tmp_path_factory.mktemp("data") / "data", importer.ImportSettings(size=64), workers=1
    )


@pytest.fixture(scope="session")
def tiny() -> Experiment:
    """An experiment that trains in a second or two."""
    return config.load_config(CONFIGS / "smoke.yaml", TINY)


@pytest.fixture(scope="session")
def trained(tiny: Experiment, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of the tiny model. Tests only read it."""
    return training.train(tiny, dataset, root=tmp_path_factory.mktemp("runs"), seed=7, command=["pneumo", "train"])


@pytest.fixture(scope="session")
def exported(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's bundle. Tests only read it."""
    return bundle_export.export_run(trained, out=tmp_path_factory.mktemp("export") / "bundle")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium. It lasts a module: as long as it is open, no other event loop can run in this thread."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    sync_api.expect.set_options(timeout=30_000)  # for what hangs: a busy machine is no reason to fail
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def pneumo(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """`pneumo("data", "check", folder)`: the command line in this process, as a shell would see it."""

    def run(*arguments: str | Path) -> Outcome:
        from pneumo.pipeline.cli import main

        monkeypatch.setattr(sys, "argv", ["pneumo", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
                code: object = 0
            except SystemExit as end:
                code = end.code
        return Outcome(code if isinstance(code, int) else int(code is not None), out.getvalue(), err.getvalue())

    return run
