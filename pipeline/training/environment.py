"""The temporary folder of a training."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pneumo.pipeline.ludwig import runtime


@contextlib.contextmanager
def use_scratch_folder(folder: Path) -> Iterator[None]:
    """Give Ludwig a temporary folder inside the run's.

    Ludwig leaves files in it, takes one lock in it for all trainings of a machine, and moves checkpoints out of it,
    which is only atomic on the same file system. wandb, which timm imports if it is installed, would go on writing to
    the folder after it is removed. So wandb is hidden meanwhile, unless tracking has imported it. All of this holds for
    the whole process: call it inside `log_to_file`, where threads take turns.
    """
    scratch = folder / ".scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        with runtime.replace_attribute(tempfile, "tempdir", str(scratch.resolve())), runtime.hide_packages("wandb"):
            yield
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
