"""The cores that may be used, by affinity and by the container's share, as the kernel writes them."""

import os

import pytest

from imgclf_sweep import cores as module
from imgclf_sweep.cores import cores


@pytest.fixture
def eight_cores(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(module, "CGROUPS", tmp_path)
    return tmp_path


def test_affinity_is_kept():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert 1 <= cores() <= len(before)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max 100000", 8), ("250000 100000", 3), ("50000 100000", 1), ("1600000 100000", 8), ("", 8)],
)
def test_a_container_held_to_a_share_of_time(eight_cores, text, expected):
    (eight_cores / "cpu.max").write_text(text)
    assert cores() == expected


@pytest.mark.parametrize(("quota", "expected"), [(-1, 8), (200_000, 2)])
def test_a_container_of_cgroups_version_1(eight_cores, quota, expected):
    (eight_cores / "cpu").mkdir()
    (eight_cores / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (eight_cores / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores() == expected


def test_without_cgroups_and_affinity(eight_cores, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1
