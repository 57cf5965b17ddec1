"""Provenance of a result: versions, commit, hardware."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from pneumo.serving.contracts.cores import available_cores

PACKAGES = (
    "pneumo",
    "ludwig",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "pandas",
    "pillow",
    "scikit-learn",
    "onnxruntime",
)
"""Packages that can change a result."""


def read_versions() -> dict[str, str]:
    """Return the versions of Python and of the installed `PACKAGES`."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def read_git_commit(folder: Path) -> str | None:
    """Return the commit of the git repository of `folder`, with `-dirty` if tracked files differ; None outside git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return f"{commit}-dirty" if git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def read_hardware() -> dict[str, Any]:
    """Return processor, cores, memory in GiB, accelerators and threads. Imports torch."""
    import torch

    return {
        "processor": read_processor(),
        "cores": available_cores(),
        "memory_gib": _read_memory(),
        "accelerators": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "torch_threads": torch.get_num_threads(),
    }


def read_processor() -> str:
    """Return the name of this machine's processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _read_memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
