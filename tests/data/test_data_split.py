"""Splits and samples: stratified, repeatable, duplicates together."""

from types import SimpleNamespace

import numpy as np
import pytest

from imgclf_sweep.data.split import hold_out, parts, sample
from imgclf_sweep.errors import BadInput


def unique(labels):
    return np.arange(len(labels))


def counts(labels, indices):
    return np.bincount(labels[indices], minlength=labels.max() + 1).tolist()


def test_a_hold_out_keeps_the_shares_and_parts_everything():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [500, 300, 200]))
    kept, held = hold_out(labels, unique(labels), 0.2, seed=0)
    assert counts(labels, held) == [100, 60, 40]
    assert sorted([*kept, *held]) == list(range(1000))
    assert np.all(np.diff(kept) > 0)
    assert np.all(np.diff(held) > 0)


def test_the_seed_decides_the_split():
    labels = np.repeat([0, 1], 50)
    first, again, other = (hold_out(labels, unique(labels), 0.3, seed)[1].tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_the_split_of_a_seed_never_changes():
    """A continued sweep must find the same validation images: these came from the first version of this code."""
    labels = np.tile([0, 1], 10)
    assert hold_out(labels, unique(labels), 0.3, seed=7)[1].tolist() == [1, 2, 3, 10, 11, 18]
    assert sample(labels, unique(labels), 6, seed=7).tolist() == [5, 7, 8, 10, 11, 14]


def test_sizes_add_up_where_classes_do_not_divide():
    labels = np.repeat(np.arange(10), 6)
    assert len(hold_out(labels, unique(labels), 0.2, seed=0)[1]) == 12
    assert min(counts(labels, hold_out(labels, unique(labels), 0.2, seed=0)[1])) == 1


def test_duplicates_stay_in_one_part():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 100)
    groups = labels * 100 + rng.integers(0, 40, 300)
    for seed in range(20):
        kept, held = hold_out(labels, groups, 0.25, seed)
        assert not set(groups[kept]) & set(groups[held])
        assert all(15 <= n <= 25 for n in counts(labels, held))


def test_one_huge_group_of_duplicates_stays_in_training():
    labels = np.repeat([0, 1], [100, 10])
    groups = np.concatenate([np.zeros(99, int), [99], 100 + np.arange(10)])
    for seed in range(5):
        kept, held = hold_out(labels, groups, 0.2, seed)
        assert counts(labels, held) == [1, 2]
        assert counts(labels, kept) == [99, 8]


@pytest.mark.parametrize("part", [0.001, 0.5, 0.999])
def test_every_class_is_in_both_parts(part):
    labels = np.repeat([0, 1, 2], [2, 3, 400])
    kept, held = hold_out(labels, unique(labels), part, seed=0)
    assert min(counts(labels, held)) >= 1
    assert min(counts(labels, kept)) >= 1


def test_so_many_distinct_images_are_kept():
    labels = np.repeat([0, 1], [3, 100])
    kept, held = hold_out(labels, unique(labels), 0.9, seed=0, keep=2)
    assert counts(labels, held) == [1, 90]
    assert counts(labels, kept) == [2, 10]


def test_a_class_of_duplicates_alone_is_named():
    labels = np.repeat([0, 1], 5)
    groups = np.array([0, 1, 2, 3, 4, 5, 5, 5, 5, 5])
    with pytest.raises(BadInput, match="class 'do\\\\x07g' has 1 distinct images"):
        hold_out(labels, groups, 0.2, 0, classes=["cat", "do\ag"])


def test_a_class_whose_images_all_belong_to_another_is_named():
    labels, groups = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 0, 1])
    with pytest.raises(BadInput, match="class '1' has 0 distinct"):
        hold_out(labels, groups, 0.2, 0)


def test_a_sample_is_stratified_and_can_be_split():
    labels = np.repeat(np.arange(3), [1000, 100, 10])
    chosen = sample(labels, unique(labels), 111, seed=0)
    assert len(chosen) == len(set(chosen)) == 111
    assert counts(labels, chosen) in ([99, 10, 2], [100, 9, 2])
    assert sample(labels, unique(labels), 1110, seed=0).tolist() == list(range(1110))
    assert len(sample(labels, unique(labels), 10**9, seed=0)) == 1110


def test_a_sample_takes_distinct_images_before_duplicates():
    labels = np.repeat([0, 1], 50)
    groups = np.concatenate([np.zeros(49, int), [49], 50 + np.arange(50)])
    for seed in range(10):
        chosen = sample(labels, groups, 4, seed)
        assert sorted(groups[chosen[labels[chosen] == 0]]) == [0, 49]


def test_a_sample_too_small_for_two_images_a_class_is_refused():
    labels = np.repeat(np.arange(10), 20)
    with pytest.raises(BadInput, match="limit of 19 is too small: 10 classes need at least 20"):
        sample(labels, unique(labels), 19, seed=0)
    assert counts(labels, sample(labels, unique(labels), 20, seed=0)) == [2] * 10


def test_parts_index_the_whole_training_part():
    labels = np.repeat(np.arange(10), 50)
    prepared = SimpleNamespace(labels=lambda: labels, groups=lambda: unique(labels), classes=list("abcdefghij"))
    whole = parts(prepared, 0.2, 0)
    assert (len(whole.train), len(whole.validation)) == (400, 100)
    assert whole.both.tolist() == list(range(500))
    cut = parts(prepared, 0.2, 0, limit_images=60)
    assert (len(cut.train), len(cut.validation)) == (48, 12)
    assert counts(labels, cut.both) == [6] * 10
    assert not set(cut.train) & set(cut.validation)


def test_the_last_images_are_held_out_only_where_each_part_has_every_class():
    labels = np.tile([0, 1, 2], 20)
    prepared = SimpleNamespace(labels=lambda: labels, groups=lambda: unique(labels), classes=["cat", "dog", "eel"])
    last = parts(prepared, 0.2, 0, part="last")
    assert last.train.tolist() == list(range(48)) and last.validation.tolist() == list(range(48, 60))
    labels = np.repeat([0, 1, 2], 20)  # as a folder lists them
    with pytest.raises(BadInput, match="no image of class 'cat' to validate on"):
        parts(prepared, 0.2, 0, part="last")
    with pytest.raises(BadInput, match="no image of class 'eel' to train on"):
        parts(prepared, 0.4, 0, part="last")
