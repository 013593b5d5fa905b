"""Threads follow affinity and control groups; a wish overrides both."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from phi4.errors import InvalidRequest
from phi4.onnx.machine.threads import available_cpus, scheduled_cpus, thread_count


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_groups_affinity_decides(tmp_path: Path) -> None:
    assert available_cpus(tmp_path, affinity=6) == 6


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("max 100000", 8), ("broken", 8)],
)
def test_quota_of_version_2_is_rounded_up(tmp_path: Path, quota: str, cpus: int) -> None:
    files = {"proc/self/cgroup": "0::/work\n", "sys/fs/cgroup/work/cpu.max": quota + "\n"}
    assert available_cpus(system(tmp_path, files), affinity=8) == cpus


def test_tightest_group_around_the_process_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/a/b/c\n",
        "sys/fs/cgroup/a/cpu.max": "300000 100000",
        "sys/fs/cgroup/a/b/c/cpu.max": "500000 100000",
    }
    assert available_cpus(system(tmp_path, files), affinity=8) == 3


def test_quota_at_the_mount_counts_where_the_groups_own_folder_is_not_shown(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/../../elsewhere\n", "sys/fs/cgroup/cpu.max": "200000 100000"}
    assert available_cpus(system(tmp_path, files), affinity=8) == 2


@pytest.mark.parametrize("folder", ["cpu,cpuacct", "cpu"])
def test_quota_of_version_1_is_found_under_both_names_of_its_folder(tmp_path: Path, folder: str) -> None:
    files = {
        "proc/self/cgroup": "5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n",
        f"sys/fs/cgroup/{folder}/docker/x/cpu.cfs_quota_us": "250000\n",
        f"sys/fs/cgroup/{folder}/docker/x/cpu.cfs_period_us": "100000\n",
    }
    assert available_cpus(system(tmp_path, files), affinity=8) == 3


def test_version_1_without_a_quota_says_minus_one(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:cpu,cpuacct:/\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    }
    assert available_cpus(system(tmp_path, files), affinity=8) == 8


def test_affinity_wins_over_a_wider_quota(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "900000 100000"}
    assert available_cpus(system(tmp_path, files), affinity=2) == 2


def test_quota_only_takes_away_from_the_affinity_of_this_machine() -> None:
    assert 1 <= available_cpus() <= scheduled_cpus() <= (os.cpu_count() or 1)


def test_argument_wins_over_variable_and_variable_over_the_machine() -> None:
    assert thread_count(3, {"PHI4_THREADS": "5"}) == 3
    assert thread_count(None, {"PHI4_THREADS": " 5 "}) == 5
    assert thread_count(None, {}) == thread_count(None, {"PHI4_THREADS": ""}) == available_cpus()


@pytest.mark.parametrize("value", ["0", "-2", "two", "1.5", "5000"])
def test_impossible_variable_is_refused_with_its_name_and_value(value: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"PHI4_THREADS is '?{value}'?; give a whole number from 1"):
        thread_count(None, {"PHI4_THREADS": value})


@pytest.mark.parametrize("value", [0, -1, True, 2.0])
def test_impossible_argument_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequest, match="threads is"):
        thread_count(value)  # type: ignore[arg-type]
