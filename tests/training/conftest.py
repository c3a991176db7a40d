"""The digits, decoded once for all tests here."""

import pytest

from imgclf_sweep import datasets
from imgclf_sweep.data.cache import prepare


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The prepared digits."""
    cache = tmp_path_factory.mktemp("cache")
    return prepare(datasets.digits(), cache=cache, data_dir=None, test=0.2, seed=0, note=lambda line: None)
