"""What the fault tests share: roots where the images are decoded already, and one finished sweep."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from fault_tools import SYNTHETIC, make_removable

from imgclf_sweep import datasets
from imgclf_sweep.data.cache import prepare

COMMAND = (*SYNTHETIC, "--pruner", "none", "--workers", 1)


@pytest.fixture(scope="session")
def decoded(tmp_path_factory) -> Path:
    """The digits, decoded once for all tests."""
    cache = tmp_path_factory.mktemp("decoded") / "cache"
    prepare(datasets.digits(), cache=cache, data_dir=None, test=0.2, seed=3, note=lambda line: None)
    return cache


@pytest.fixture
def cold(tmp_path, request):
    """The command on a root that does not exist yet."""
    return type(request.getfixturevalue("cli"))(tmp_path / "cold")


@pytest.fixture
def cli(cli, decoded):
    """The command on a root where the images are decoded already."""
    shutil.copytree(decoded, cli.root / "cache")
    return cli


@pytest.fixture(scope="session")
def kept(tmp_path_factory) -> Path:
    """Where the finished sweep is kept once a test has made it; the others take a copy."""
    return tmp_path_factory.mktemp("kept") / "root"


@pytest.fixture
def done(cli, digits_file, kept):
    """A finished sweep of six trials, and the command that made it."""
    command = ("run", digits_file, *COMMAND, "--trials", 6)
    if kept.exists():
        shutil.copytree(kept, cli.root, dirs_exist_ok=True)
    else:
        cli(*command)
        shutil.copytree(cli.root, kept)
    return command


@pytest.fixture
def open_place():
    """A directory that every user can look into, unlike pytest's own."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place
    make_removable(place)
