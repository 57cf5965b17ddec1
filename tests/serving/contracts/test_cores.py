import os
import platform
from pathlib import Path

import pytest

from pneumo.serving.contracts.cores import available_cores, integers_overflow


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin a process")
def test_a_process_that_was_pinned_has_only_the_cores_it_was_pinned_to():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert available_cores() == len(before)


def test_where_a_process_cannot_be_pinned_every_core_counts(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert available_cores(tmp_path) == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores(tmp_path) == 1


@pytest.fixture
def sixteen_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)


def write(root: Path, **files: str) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.mark.usefixtures("sixteen_cores")
@pytest.mark.parametrize(
    ("quota", "cores"),
    [("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), ("3200000 100000", 16), ("max 100000", 16)],
)
def test_a_quota_of_the_container_counts_rounded_up(quota, cores, tmp_path):
    write(tmp_path, **{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": quota + "\n"})
    assert available_cores(tmp_path) == cores


@pytest.mark.usefixtures("sixteen_cores")
@pytest.mark.parametrize(("quota", "cores"), [("400000", 4), ("250000", 3), ("-1", 16)])
def test_a_quota_of_an_older_kernel_counts_too(quota, cores, tmp_path):
    write(
        tmp_path,
        **{
            "proc/self/cgroup": "11:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n1:cpuset:/docker/ab\n",
            "sys/fs/cgroup/cpu/docker/ab/cpu.cfs_quota_us": quota + "\n",
            "sys/fs/cgroup/cpu/docker/ab/cpu.cfs_period_us": "100000\n",
        },
    )
    assert available_cores(tmp_path) == cores


@pytest.mark.usefixtures("sixteen_cores")
def test_the_narrowest_of_the_groups_around_a_process_counts(tmp_path):
    write(
        tmp_path,
        **{
            "proc/self/cgroup": "0::/pods/one/web\n",
            "sys/fs/cgroup/pods/cpu.max": "800000 100000\n",
            "sys/fs/cgroup/pods/one/cpu.max": "300000 100000\n",
            "sys/fs/cgroup/pods/one/web/cpu.max": "max 100000\n",
        },
    )
    assert available_cores(tmp_path) == 3


@pytest.mark.usefixtures("sixteen_cores")
def test_a_container_that_does_not_see_its_own_group_finds_its_quota_at_the_top(tmp_path):
    write(tmp_path, **{"proc/self/cgroup": "0::/../../pods/x\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"})
    assert available_cores(tmp_path) == 2


@pytest.mark.usefixtures("sixteen_cores")
@pytest.mark.parametrize("content", ["", "rubbish", "0 0", "1 2 3"])
def test_a_quota_that_cannot_be_read_is_none(content, tmp_path):
    write(tmp_path, **{"proc/self/cgroup": "0::/\n\nodd\n", "sys/fs/cgroup/cpu.max": content})
    assert available_cores(tmp_path) == 16


@pytest.mark.parametrize(
    ("machine", "flags", "overflow"),
    [
        ("x86_64", "fpu avx2 avx512f avx512_vnni", False),
        ("AMD64", "fpu avx2 avx_vnni", False),
        ("x86_64", "fpu avx2 avx512f", True),
        ("aarch64", "asimd", False),
    ],
)
def test_integers_overflow_on_x64_without_vnni(machine, flags, overflow, tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    write(tmp_path, **{"proc/cpuinfo": f"model name\t: some processor\nflags\t\t: {flags}\nbugs\t\t:\n"})
    assert integers_overflow(tmp_path) is overflow


@pytest.mark.parametrize("content", [None, ""])
def test_integers_are_taken_to_overflow_where_x64_does_not_say_what_it_has(content, tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    if content is not None:
        write(tmp_path, **{"proc/cpuinfo": content})
    assert integers_overflow(tmp_path)
