"""Cores that this process may use, and whether 8-bit products are safe on this processor."""

import math
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath


def available_cores(root: Path = Path("/")) -> int:
    """Return the number of cores this process may use: its CPU affinity, at most its container's CPU quota.

    A quota of one and a half cores counts as two: one thread would leave a third of it unused, and two are throttled
    for a quarter of the time at most.

    Args:
        root: Folder that holds `proc` and `sys`.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min([cores, *_read_quotas(root)])))


def integers_overflow(root: Path = Path("/")) -> bool:
    """Return whether products of uint8 and int8 may overflow in the fastest kernels: on x64 without VNNI instructions.

    If the system does not list the processor's instructions, as outside Linux, they may.

    Args:
        root: Folder that holds `proc`.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return True
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return {"avx512_vnni", "avx_vnni"}.isdisjoint(flags)


def _read_quotas(root: Path) -> Iterator[float]:
    """Yield the CPU quota of each control group around this process, in cores; infinity for a group without one."""
    try:
        memberships = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for membership in memberships:
        _, controllers, group = [*membership.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        inside = PurePosixPath(group.lstrip("/"))
        for part in (inside, *inside.parents):  # a container may see only the last of these
            with suppress(OSError, ValueError, ZeroDivisionError):  # no quota at the top; groups outside a container
                yield _read_quota(mounted / part, version=1 if controllers else 2)


def _read_quota(folder: Path, *, version: int) -> float:
    names = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    quota, period = " ".join((folder / name).read_text(encoding="utf-8") for name in names).split()
    return math.inf if quota == "max" or int(quota) < 0 else int(quota) / int(period)
