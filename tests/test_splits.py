"""Splits: stratified, grouped, exact, frozen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miles_repro.data.splits import (
    draw_evenly,
    frozen_random,
    grouped_split,
    pair_by_label,
    proportional,
    stratified_split,
)
from miles_repro.errors import UserError


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.data())
@settings(max_examples=60, deadline=None)
def test_proportional_shares(counts: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(0, sum(counts)))
    shares = proportional(np.array(counts), total)
    assert shares.sum() == total
    assert (shares <= counts).all()
    if sum(counts):
        assert (np.abs(shares - total * np.array(counts) / sum(counts)) < 1).all()


def test_a_stratified_split_is_exact_disjoint_and_frozen() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 21])
    parts = stratified_split(labels, {"train": 60, "val": 20, "test": 11}, seed=5)
    assert [len(rows) for rows in parts.values()] == [60, 20, 11]
    assert len(np.unique(np.concatenate(list(parts.values())))) == 91
    assert np.bincount(labels[parts["train"]]).tolist() == [30, 18, 12]
    # RandomState's stream is frozen, so these numbers hold on every machine
    assert parts["test"].tolist() == [27, 8, 95, 62, 39, 94, 63, 80, 36, 9, 61]
    with pytest.raises(UserError, match="only 101"):
        stratified_split(labels, {"train": 100, "val": 2}, seed=0)


def test_pairs_agree_in_class_and_use_everything_equally() -> None:
    first = np.repeat([0, 1], [6, 6])
    second = np.repeat([1, 0], [4, 3])
    left, right = pair_by_label(first, second, per_class=6, seed=1)
    assert (first[left] == second[right]).all()
    assert sorted(left) == list(range(12))
    uses = np.bincount(right, minlength=7)
    assert uses.tolist() == [*uses[:4], 2, 2, 2]
    assert sorted(uses[:4]) == [1, 1, 2, 2]
    with pytest.raises(UserError, match=r"\[2\]"):
        pair_by_label(np.array([0, 2]), np.array([0]), 1, 0)


def test_draw_evenly_repeats_nothing_before_all_were_used() -> None:
    drawn = draw_evenly(np.arange(10, 15), 12, frozen_random(0))
    assert sorted(drawn[:5]) == sorted(drawn[5:10]) == list(range(10, 15))
    assert len(set(drawn[10:])) == 2


@given(st.integers(0, 2**31), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_a_grouped_split_never_divides_a_group(seed: int, largest: int) -> None:
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(60), random.integers(1, largest + 1, 60))
    labels = (groups % 3).astype(np.int64)
    labels[0] = 2 if groups[0] == groups[1] else labels[0]  # a group of two classes
    sizes = {"train": len(groups) // 2, "val": len(groups) // 5}
    parts = grouped_split(labels, groups, sizes, seed % 1000)
    assert {part: len(rows) for part, rows in parts.items()} == sizes
    assert not set(groups[parts["train"]]) & set(groups[parts["val"]])
    shares = np.bincount(labels[parts["val"]]) / sizes["val"]
    assert np.abs(shares - np.bincount(labels) / len(labels)).max() <= 1 / sizes["val"]


def test_a_grouped_split_that_cannot_be_says_so() -> None:
    with pytest.raises(UserError, match="class 0 has"):
        grouped_split(np.zeros(10, int), np.zeros(10, int), {"train": 5, "val": 5}, 0)
