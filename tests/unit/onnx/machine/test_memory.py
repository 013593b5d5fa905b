"""Free memory is the least of what the system has and what each control group leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from phi4.errors import OutOfMemory
from phi4.onnx.machine.memory import FreeMemory, check_fits, free_bytes

MEMINFO = "MemTotal:       4000 kB\nMemFree:         100 kB\nMemAvailable:   2000 kB\n"


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_system_without_groups_tells_what_is_available(tmp_path: Path) -> None:
    assert free_bytes(system(tmp_path, {"proc/meminfo": MEMINFO})) == 2000 * 1024


def test_system_that_does_not_tell_is_unknown(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) is None
    assert free_bytes(system(tmp_path, {"proc/meminfo": "MemAvailable: much\nMemAvailable:\n"})) is None


@pytest.mark.parametrize(
    ("limit", "used", "cached", "free"),
    [
        ("1000000", "600000", "100000", 500_000),
        ("1000000", "1200000", "0", 0),
        ("max", "600000", "0", 2000 * 1024),
        ("99999999999", "0", "0", 2000 * 1024),
    ],
)
def test_group_of_version_2_limits(tmp_path: Path, limit: str, used: str, cached: str, free: int) -> None:
    group = "sys/fs/cgroup/work"
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "0::/work\n",
        f"{group}/memory.max": limit + "\n",
        f"{group}/memory.current": used + "\n",
        f"{group}/memory.stat": f"anon 5\ninactive_file {cached}\n",
    }
    assert free_bytes(system(tmp_path, files)) == free


def test_tightest_of_a_group_and_those_around_it_counts(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/a/b\n"}
    for group, limit in (("a", "300000"), ("a/b", "500000"), (".", "400000")):
        files |= {
            f"sys/fs/cgroup/{group}/memory.max": limit,
            f"sys/fs/cgroup/{group}/memory.current": "100000",
        }
    assert free_bytes(system(tmp_path, files)) == 200_000


def test_group_of_version_1_is_found_at_the_mount_when_its_own_folder_is_not_shown(tmp_path: Path) -> None:
    mount = "sys/fs/cgroup/memory"
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/docker/abc\n0::/\n",
        f"{mount}/memory.limit_in_bytes": "900000\n",
        f"{mount}/memory.usage_in_bytes": "500000\n",
        f"{mount}/memory.stat": "total_inactive_file 50000\ninactive_file 1\n",
    }
    assert free_bytes(system(tmp_path, files)) == 450_000


@pytest.mark.skipif(not Path("/proc/meminfo").is_file(), reason="this system does not tell")
def test_this_machine_has_no_more_free_than_it_has_at_all() -> None:
    found = free_bytes()
    assert found is not None
    assert 0 < found < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_system_is_asked_once_a_second_unless_it_matters() -> None:
    now, answers = 100.0, [5, 6, 7, None]
    free = FreeMemory(lambda: answers.pop(0), lambda: now)
    assert [free.recent(), free.recent()] == [5, 5]
    now += 0.9
    assert free.recent() == 5
    now += 0.2
    assert [free.recent(), free.recent()] == [6, 6]
    assert [free.now(), free.recent()] == [7, 7]
    now += 5
    assert [free.recent(), free.recent()] == [None, None] and not answers


def test_what_takes_more_than_its_share_of_the_free_memory_is_refused() -> None:
    check_fits("it", 900, 1000)
    check_fits("it", 10**12, None)
    with pytest.raises(OutOfMemory, match=r"it: 2,038 MB of memory are needed and 1,440 MB are free"):
        check_fits("it", 2_038_000_000, 1_440_000_000)
    with pytest.raises(OutOfMemory, match=r" and 0 MB are free"):
        check_fits("it", 1, -5)
