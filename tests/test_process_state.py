"""A notebook finds its process as it was, after it has trained and exported in it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pneumo.pipeline.data.manifest import Dataset
from tests.conftest import TINY
from tests.support.paths import CONFIGS, ROOT


@pytest.mark.lengthy
@pytest.mark.slow
def test_the_public_api_leaves_the_process_as_it_was(dataset: Dataset, phantoms: Path, tmp_path: Path) -> None:
    overrides = json.dumps([*TINY, "trainer.epochs=1"])
    program = [sys.executable, "-m", "tests.support.process_snapshot"]
    arguments = [CONFIGS / "smoke.yaml", dataset.folder, next(phantoms.rglob("*.png")).parent, tmp_path]

    done = subprocess.run(
        [*program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=ROOT,
        env=os.environ | {"PNEUMO_TEST_OVERRIDES": overrides},
    )

    assert done.returncode == 0, done.stderr[-3000:]
    changed = json.loads(done.stdout)
    assert changed == {}, json.dumps(changed, indent=1)[:5000]
    assert done.stderr == ""
