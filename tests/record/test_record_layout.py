"""Names that are safe everywhere, and places that never leave the root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imgclf_sweep.errors import BadInput
from imgclf_sweep.record.layout import SweepDir, all_sweeps, check_name, find, write_whole

BAD = [
    "../x",
    "/abs",
    "..",
    ".",
    "",
    "a/b",
    "a\\b",
    "x" * 300,
    "x" * 65,
    "a\0b",
    "a\nb",
    "a\n",
    " a",
    "-a",
    ".a",
    "ä",
    "\x1b[2J",
]


@pytest.mark.parametrize("name", [*BAD, "con", "CON", "nul.txt", "aux", "prn", "com1", "LPT9.tar.gz"])
def test_an_unsafe_name_is_refused_in_one_line_and_nothing_is_made(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput) as error:
        SweepDir(tmp_path, name)
    assert str(error.value).isprintable() and len(str(error.value)) < 250
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a", "7", "gray-kt", "cifar_gray.v2", "x" * 64, "com", "com10", "console"])
def test_a_plain_name_is_taken(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("place", ["sweeps/s", "logs/s", "sweeps", "logs"])
def test_a_link_out_of_the_root_is_refused(tmp_path: Path, place: str) -> None:
    elsewhere, root = tmp_path / "elsewhere", tmp_path / "root"
    elsewhere.mkdir()
    link = root / place
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    with pytest.raises(BadInput, match="leads out of"):
        SweepDir(root, "s")
    assert os.listdir(elsewhere) == []


def test_a_root_that_is_itself_a_link_is_no_way_out(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "real")
    assert SweepDir(tmp_path / "root", "s").path == tmp_path / "root" / "sweeps" / "s"


def test_the_places_lie_in_the_sweeps_own_directories(tmp_path: Path) -> None:
    d = SweepDir(tmp_path, "s")
    inside = [d.database, d.lock, d.declaration, d.checkpoints, d.checkpoint(3), d.best, d.retrained(3), d.worker_logs]
    assert all(path.is_relative_to(tmp_path / "sweeps" / "s") for path in inside) and len(set(inside)) == len(inside)
    assert d.logs == tmp_path / "logs" / "s"


def test_sweeps_are_listed_oldest_first_and_found_by_name(tmp_path: Path, opened) -> None:
    root = tmp_path / "r"
    assert all_sweeps(root) == []
    with pytest.raises(BadInput, match="there are no sweeps in"):
        find(root, "a")
    for name in ("zebra", "ant", "mole"):
        opened(at=SweepDir(root, name)).close()
    (root / "sweeps" / "empty").mkdir()
    (root / "sweeps" / "no sweep's name").mkdir()
    (root / "sweeps" / "README.md").touch()
    (root / "sweeps" / "away").symlink_to(tmp_path)
    assert [d.name for d in all_sweeps(root)] == ["zebra", "ant", "mole"]
    SweepDir(root, "ant").declaration.write_text("{}")  # then the time of the file has to do
    assert {d.name for d in all_sweeps(root)} == {"zebra", "ant", "mole"}
    assert find(root, "ant") == SweepDir(root, "ant")
    with pytest.raises(BadInput, match="unknown sweep 'moles'; allowed: zebra, .*did you mean 'mole'"):
        find(root, "moles")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def refused(*_: object) -> None:
        raise OSError("no rename today")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(OSError, match="no rename"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]
    monkeypatch.undo()
    write_whole(path, b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["file"]
