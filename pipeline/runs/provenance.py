"""Where a result came from: versions, commit, hardware."""

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


def read_versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def read_git_commit(folder: Path) -> str | None:
    """Commit of the working tree around `folder`, `-dirty` where tracked files differ, None outside of git."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return f"{commit}-dirty" if git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def read_hardware() -> dict[str, Any]:
    """Processor, cores, memory in GiB, accelerators, threads. Needs torch to be installed."""
    import torch

    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "processor": processor(),
        "cores": available_cores(),
        "memory_gib": _memory_gib(),
        "accelerators": cuda,
        "torch_threads": torch.get_num_threads(),
    }


def processor() -> str:
    """Name of this machine's processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
