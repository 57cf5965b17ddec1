"""Consistent checkpoints of a run: weights, optimizer and progress that belong together.

Ludwig replaces these files one by one, and rewrites its progress file in place, so that a kill -9 can leave a mixture
that it refuses or misreads. pneumo copies them when they are consistent, into a folder that gets its name at the end.
"""

import os
import shutil
from pathlib import Path

from pneumo.pipeline.runs.run import Run

FOLDER = ".checkpoints"
_PROGRESS = "training_progress.json"
_TRAINING = "training_checkpoints"


def list_files(run: Run) -> list[Path]:
    """Return the files from which a training resumes."""
    files = [*sorted((run.model / _TRAINING).glob("*.ckpt*")), run.model / _PROGRESS, run.history]
    return [file for file in files if file.is_file()]


def keep_checkpoint(run: Run, step: int) -> None:
    """Keep Ludwig's current files as the checkpoint of a step, and remove the checkpoint before it."""
    root = run.folder / FOLDER
    partial, target = root / "partial", root / f"{step:09d}"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / _TRAINING).mkdir(parents=True)
    for file in (run.model / _TRAINING).glob("*.ckpt*"):
        os.link(file, partial / _TRAINING / file.name)  # Ludwig replaces these files and never writes into them
    shutil.copyfile(run.model / _PROGRESS, partial / _PROGRESS)
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    for old in root.iterdir():
        if old != target:
            shutil.rmtree(old, ignore_errors=True)


def find_latest(run: Run) -> Path | None:
    """Return the folder of the newest complete checkpoint."""
    return max((path for path in (run.folder / FOLDER).glob("[0-9]*") if path.is_dir()), default=None)


def restore_checkpoint(run: Run) -> bool:
    """Replace the files that Ludwig resumes from by the newest complete checkpoint; return False if there is none."""
    shutil.rmtree(run.model / _TRAINING, ignore_errors=True)
    (run.model / _PROGRESS).unlink(missing_ok=True)
    checkpoint = find_latest(run)
    if checkpoint is None:
        return False
    shutil.copytree(checkpoint / _TRAINING, run.model / _TRAINING)
    shutil.copyfile(checkpoint / _PROGRESS, run.model / _PROGRESS)
    return True


def find_best_weights(run: Run) -> Path | None:
    """Return the best weights of the newest complete checkpoint."""
    checkpoint = find_latest(run)
    path = checkpoint / _TRAINING / "best.ckpt.safetensors" if checkpoint else None
    return path if path and path.is_file() else None


def drop_checkpoints(run: Run) -> None:
    """Remove every checkpoint; a finished run needs none."""
    shutil.rmtree(run.folder / FOLDER, ignore_errors=True)
    shutil.rmtree(run.model / _TRAINING, ignore_errors=True)
