"""Scheme rotate: another held-out side for every seed, nothing shared, statistics of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import REPO
from reach import reachable_arrays
from support import prepare_tiny

from miles_repro.data.manifest import part_sizes, read_manifest
from miles_repro.data.reader import Part, PreparedData
from miles_repro.data.splits import rotated
from miles_repro.data.writer import Card, Preparation
from miles_repro.errors import UserError

CPU = torch.device("cpu")
SIZES = {"train": 80, "val": 20, "test": 20}


def grouped(folder: Path, groups: np.ndarray | None) -> Path:
    """120 rows; x holds the row's number, so that a batch says where it comes from."""
    n = 120
    card = Card("g", 1, "multiclass", ("a", "b"), "", "")
    with Preparation(folder, card, workers=1) as prep:
        prep.write("x", np.arange(n, dtype=np.float32)[:, None])
        prep.write("labels", np.arange(n) % 2)
        at = np.arange(n)
        prep.split("fixed", train=at[:80], val=at[80:100], test=at[100:])
        prep.normalise("x")
        if groups is not None:
            prep.group("speaker", groups, [f"s{i}" for i in range(6)])
        prep.finish()
    return folder


def test_every_group_is_held_out_once_a_round_and_never_on_two_sides() -> None:
    groups = np.repeat(np.arange(6), 20)
    tested, validated = [], []
    for seed in range(12):
        parts = rotated(np.arange(120) % 2, groups, SIZES, seed)
        sides = {part: set(groups[rows]) for part, rows in parts.items()}
        assert {part: len(rows) for part, rows in parts.items()} == SIZES
        assert len(set.union(*sides.values())) == sum(map(len, sides.values())) == 6
        tested.append(sides["test"].pop())
        validated.append(sides["val"].pop())
    assert tested == [5, 4, 3, 2, 1, 0] * 2
    assert validated == [4, 3, 2, 1, 0, 5, 3, 2, 1, 0, 5, 4]
    again = rotated(np.arange(120) % 2, groups, SIZES, 3)
    for part, rows in rotated(np.arange(120) % 2, groups, SIZES, 3).items():
        np.testing.assert_array_equal(rows, again[part])


def test_many_groups_are_dealt_to_folds_of_about_a_held_out_part() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 1200)
    sizes = {"train": 800, "val": 200, "test": 200}
    everything: list[int] = []
    for seed in range(6):
        parts = rotated(np.zeros(1200, int), groups, sizes, seed)
        assert all(180 <= len(parts[p]) <= 220 for p in ("val", "test"))
        assert not set(groups[parts["test"]]) & set(groups[parts["train"]])
        assert not set(groups[parts["val"]]) & set(groups[parts["train"]])
        everything += parts["test"].tolist()
    assert sorted(everything) == list(range(1200))  # after a round every row was tested once


def test_two_groups_cannot_rotate() -> None:
    with pytest.raises(UserError, match="2 group"):
        rotated(np.zeros(10, int), np.arange(10) % 2, SIZES, 0)


@pytest.mark.parametrize("kind", ["classes", "numbers", "sets"])
def test_without_groups_a_seed_draws_the_sizes_anew_stratified(kind: str) -> None:
    labels: Any = np.repeat([0, 1, 2], [60, 30, 30])
    if kind == "numbers":
        labels = np.linspace(-1, 1, 120)
    if kind == "sets":
        labels = np.eye(3, dtype=np.uint8)[labels]
    first, second = (rotated(labels, None, SIZES, seed) for seed in (1, 2))
    assert {p: len(r) for p, r in first.items()} == SIZES
    assert len(np.unique(np.concatenate(list(first.values())))) == 120
    assert set(first["test"]) != set(second["test"])
    if kind == "classes":
        assert np.bincount(labels[first["test"]]).tolist() == [10, 5, 5]
    if kind == "numbers":
        assert abs(labels[first["test"]].mean()) < 0.1


def test_statistics_and_groups_follow_the_draw(tmp_path: Path) -> None:
    groups = np.tile(np.arange(6), 20)
    folder = grouped(tmp_path / "g", groups)
    for seed in range(3):
        data = PreparedData(folder, "rotate", ["x"], seed)
        train = data.part("train", CPU, 100)
        x, _ = train.batch(torch.arange(len(train)))
        assert abs(float(x["x"].mean())) < 1e-6
        assert float(x["x"].std(correction=0)) == pytest.approx(1, abs=1e-6)
        assert train.groups is not None
        assert train.groups.dtype == torch.int64
        np.testing.assert_array_equal(train.groups, groups[data.rows["train"]])
        assert len(set(train.groups.tolist())) == 4
    fixed = [PreparedData(folder, "fixed", ["x"], seed).rows["test"] for seed in (0, 5)]
    np.testing.assert_array_equal(*fixed)  # a published split stays
    assert part_sizes(read_manifest(folder), "rotate") == SIZES


def test_sets_without_groups_say_so_and_constants_stay(tmp_path: Path) -> None:
    data = PreparedData(prepare_tiny(tmp_path) / "tiny", "rotate", ["image"], 4)
    assert data.part("train", CPU, 1).groups is None
    assert sorted(len(r) for r in data.rows.values()) == [12, 14, 26]
    with Preparation(tmp_path / "c", Card("c", 1, "multiclass", ("a",), "", ""), 1) as prep:
        prep.write("x", np.ones((9, 2), np.float32))
        prep.write("labels", np.zeros(9, np.int64))
        prep.split("s", train=np.arange(5), val=np.arange(5, 7), test=np.arange(7, 9))
        prep.normalise("x", constants=(np.full(2, 3.0), np.full(2, 2.0)))
        prep.finish()
    x, _ = (
        PreparedData(tmp_path / "c", "rotate", ["x"], 1).part("val", CPU, 1).batch(torch.arange(2))
    )
    assert (x["x"] == -1).all()


# --- a training part leads to training rows only ------------------------------------------------


@pytest.mark.parametrize("resident_mb", [0, 64])
def test_a_training_part_leads_to_no_array_with_test_rows(tmp_path: Path, resident_mb: int) -> None:
    folder = grouped(tmp_path / "g", np.repeat(np.arange(6), 20))
    data = PreparedData(folder, "fixed", ["x"])
    whole = reachable_arrays(data)
    assert any(a.shape == (120, 1) for a in whole)  # the walk finds what there is
    part = data.part("train", CPU, resident_mb)
    assert isinstance(part, Part)
    batch, _ = part.batch(torch.arange(80))
    mean, std = data.statistics["x"]
    expected = (np.arange(80, dtype=np.float32)[:, None] - mean) / std
    np.testing.assert_array_equal(batch["x"].numpy(), expected)
    arrays = reachable_arrays(part)
    assert any(len(a) == 80 for a in arrays if a.ndim)
    assert max(a.shape[0] for a in arrays if a.ndim) == 80
    held = [a for a in arrays if a.ndim == 1 and a.dtype == np.int64]
    assert all(a.max() < 100 for a in held)  # no row numbers of the test split either


def test_a_change_of_data_and_its_manifest_entry_is_noticed(tmp_path: Path) -> None:
    import json

    from miles_repro.data.manifest import sha256_of

    folder = grouped(tmp_path / "g", None)
    np.save(folder / "x.npy", np.load(folder / "x.npy") + 1)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["x.npy"]["sha256"] = sha256_of(folder / "x.npy")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="fingerprint that does not fit its files"):
        PreparedData(folder, "fixed", ["x"])


def test_the_real_digits_rotate_their_six_speakers() -> None:
    folder = Path(os.environ.get("MILES_DATA", REPO / "data")) / "smnist_mini"
    if not (folder / "groups.npy").exists():
        pytest.skip(f"{folder} is not prepared: run scripts/prepare_data.py dataset=smnist_mini")
    names = read_manifest(folder)["groups"]["names"]
    image = np.load(folder / "image.npy", mmap_mode="r")
    audio = np.load(folder / "audio.npy", mmap_mode="r")
    tested = []
    for seed in range(6):
        data = PreparedData(folder, "rotate", ["image", "audio"], seed)
        assert data.groups is not None
        seen: dict[str, set[bytes]] = {}
        for part, rows in data.rows.items():
            for m, array in (("image", image), ("audio", audio)):
                content = {array[row].tobytes() for row in rows}
                others = [v for k, v in seen.items() if k.startswith(m)]
                assert not any(content & other for other in others)
                seen[f"{m}.{part}"] = content
        tested.append(names[data.groups[data.rows["test"]][0]])
    assert sorted(tested) == sorted(names)
    published = PreparedData(folder, "speaker", ["image"])
    assert set(PreparedData(folder, "rotate", ["image"]).rows["test"]) == set(
        published.rows["test"]
    )
