"""Scaling fitted to images."""

import json

import numpy as np
import pytest

from imgclf_sweep.data.preprocess import Affine, fit_affine, histogram
from imgclf_sweep.errors import BadInput

X = np.random.default_rng(0).integers(20, 201, (300, 6, 5, 3), np.uint8)


def test_minmax_uses_one_smallest_and_largest_value():
    x = X.copy()
    x[..., 1] //= 2
    y = fit_affine(x, "minmax").apply(x)
    assert y.dtype == np.float32
    assert (y.min(), y.max()) == (0, pytest.approx(1, abs=1e-6))
    np.testing.assert_allclose(y, (x.astype(float) - x.min()) / (int(x.max()) - int(x.min())), atol=1e-6)


def test_standard_is_exact_a_channel():
    x = (X.astype(float) * [1.0, 0.5, 0.1]).astype(np.uint8)
    y = fit_affine(x, "standard").apply(x)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=1e-4)


def test_unit_and_none():
    assert fit_affine(X, "unit").apply(np.uint8([[[[255, 0, 51]]]])).ravel().tolist() == pytest.approx([1, 0, 0.2])
    np.testing.assert_array_equal(fit_affine(X, None).apply(X), X)


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("scale", ["minmax", "standard"])
def test_images_of_one_value_become_zero(scale, value):
    x = np.full((4, 3, 3, 1), value, np.uint8)
    assert fit_affine(x, scale).apply(x).tolist() == np.zeros_like(x).tolist()


def test_only_the_images_asked_for_count():
    x = X.copy()
    x[7] = 255
    chosen = np.setdiff1d(np.arange(300), [7])
    for scale in ("minmax", "standard"):
        assert fit_affine(x, scale, chosen) == fit_affine(x[chosen], scale)
        assert fit_affine(x, scale, chosen) != fit_affine(x, scale)


def test_counting_in_blocks_is_exact(monkeypatch):
    monkeypatch.setattr("imgclf_sweep.data.preprocess.BLOCK", 1000)
    expected = [[int((X[..., c] == v).sum()) for v in range(256)] for c in range(3)]
    assert histogram(X).tolist() == expected
    assert histogram(X, np.arange(300)[::-1]).tolist() == expected


def test_no_images_and_unknown_scales_are_refused():
    with pytest.raises(BadInput, match="no images"):
        fit_affine(X[:0], "minmax")
    with pytest.raises(BadInput, match="unknown scale 'minmx'"):
        fit_affine(X, "minmx")


def test_json_keeps_every_digit():
    affine = fit_affine(X, "standard")
    assert Affine.from_json(json.loads(json.dumps(affine.to_json()))) == affine
