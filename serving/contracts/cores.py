"""What this machine's processor has to give: how many cores, and whether 8-bit products are safe."""

import math
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath


def available_cores(root: Path = Path("/")) -> int:
    """Cores this process may use; fewer than the machine has where it was pinned, or where its container has a quota.

    A quota of one and a half cores counts as two: one thread would leave a third of it unused, and two are throttled
    for a quarter of the time at most.

    Args:
        root: Where `proc` and `sys` lie.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(quota) for quota in _quotas(root))]))


def integers_overflow(root: Path = Path("/")) -> bool:
    """Whether products of uint8 and int8 may overflow in the fastest kernels: on x64 without the VNNI instructions.

    Where the system does not say what the processor has, as outside Linux, they may.

    Args:
        root: Where `proc` lies.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return True
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return {"avx512_vnni", "avx_vnni"}.isdisjoint(flags)


def _quotas(root: Path) -> Iterator[float]:
    """Cores that each control group around this process may use, those without a quota left out."""
    try:
        memberships = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return
    mounted = root / "sys/fs/cgroup"
    for membership in memberships:
        _, _, named = membership.partition(":")
        controllers, _, group = named.partition(":")
        if not controllers:  # version 2
            yield from _each(mounted, group, _quota)
        elif "cpu" in controllers.split(","):  # version 1
            yield from _each(mounted / "cpu", group, _quota_of_version_1)


def _each(mounted: Path, group: str, read: Callable[[Path], float | None]) -> Iterator[float]:
    """Quotas of a group and of those above it; a container may see only the last of these, as the top."""
    inside = PurePosixPath(group.lstrip("/"))
    for part in (inside, *inside.parents):
        try:
            quota = read(mounted / part)
        except (OSError, ValueError, ZeroDivisionError):  # the top has none; a container sees no groups around it
            continue
        if quota is not None:
            yield quota


def _quota(folder: Path) -> float | None:
    quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
    return None if quota == "max" else int(quota) / int(period)


def _quota_of_version_1(folder: Path) -> float | None:
    quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8")) for name in ("quota", "period"))
    return None if quota < 0 else quota / period
