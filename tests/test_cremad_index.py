"""CREMA-D: the index against the official lists."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from cremad_kit import CLIPS, NAMES, labels_folder, listed, names_of

from miles_repro.data.cremad_index import EMOTIONS, PARTS, TAKES
from miles_repro.data.splits import stratified_split

SEED = 2025


def official_names(shared_data: Path) -> list[str]:
    with (labels_folder(shared_data) / "SentenceFilenames.csv").open() as file:
        return [row["Filename"] for row in csv.DictReader(file)]


def test_index_holds_the_official_clips(shared_data: Path) -> None:
    assert sorted(official_names(shared_data)) == NAMES
    assert len(NAMES) == 7442


@pytest.mark.parametrize(
    "scheme, sizes",
    [
        ("miles_70_15_15", {"train": 5210, "val": 1116, "test": 1116}),
        ("ogm_ge", {"train": 5954, "val": 744, "test": 744}),
        ("actor", {"train": 5158, "val": 1142, "test": 1142}),
    ],
)
def test_sizes(scheme: str, sizes: dict[str, int]) -> None:
    assert Counter(clip.parts[scheme] for clip in CLIPS) == sizes


def test_emotions_are_stratified() -> None:
    # of ogm_ge, validation within the literature's training list
    for scheme, parts in (
        ("miles_70_15_15", ("train", "val", "test")),
        ("ogm_ge", ("train", "val")),
    ):
        pool = [clip for clip in CLIPS if clip.parts[scheme] in parts]
        for part in parts:
            inside = Counter(clip.label for clip in pool if clip.parts[scheme] == part)
            for label, count in Counter(clip.label for clip in pool).items():
                share = sum(inside.values()) / len(pool)
                assert abs(inside[label] - share * count) < 1.5, (scheme, part, label)


def test_literature_lists(shared_data: Path) -> None:
    train, test = listed(shared_data, "train"), listed(shared_data, "test")
    assert (len(train), len(test)) == (6698, 744)
    assert set(names_of("ogm_ge", "test")) == set(test)
    assert {*names_of("ogm_ge", "train"), *names_of("ogm_ge", "val")} == set(train)
    for clip in CLIPS:
        assert EMOTIONS[clip.label] == (train | test)[clip.name]


def test_no_actor_in_two_parts() -> None:
    actors = {part: {name[:4] for name in names_of("actor", part)} for part in PARTS.values()}
    assert {part: len(ids) for part, ids in actors.items()} == {"train": 63, "val": 14, "test": 14}
    assert len(set().union(*actors.values())) == 91


def test_actors_are_balanced_by_sex(shared_data: Path) -> None:
    with (labels_folder(shared_data) / "VideoDemographics.csv").open() as file:
        sex = {row["ActorID"]: row["Sex"] for row in csv.DictReader(file)}
    for part in ("val", "test"):
        ids = {name[:4] for name in names_of("actor", part)}
        assert Counter(sex[i] for i in ids) == {"Male": 7, "Female": 7}


def test_the_committed_index_is_the_described_draw(shared_data: Path) -> None:
    emotion = np.array([clip.label for clip in CLIPS])
    sizes = {"train": 5210, "val": 1116, "test": 1116}
    for part, rows in stratified_split(emotion, sizes, SEED).items():
        assert sorted(NAMES[i] for i in rows) == names_of("miles_70_15_15", part)
    test = listed(shared_data, "test")
    rest = np.array([i for i, name in enumerate(NAMES) if name not in test])
    for part, rows in stratified_split(emotion[rest], {"train": 5954, "val": 744}, SEED).items():
        assert sorted(NAMES[i] for i in rest[rows]) == names_of("ogm_ge", part)
    with (labels_folder(shared_data) / "VideoDemographics.csv").open() as file:
        people = list(csv.DictReader(file))
    female = np.array([int(row["Sex"] == "Female") for row in people])
    parts = stratified_split(female, {"test": 14, "val": 14, "train": 63}, SEED)
    for part, rows in parts.items():
        ids = {people[i]["ActorID"] for i in rows}
        assert ids == {name[:4] for name in names_of("actor", part)}


def test_takes() -> None:
    assert len(TAKES) == len(set(TAKES)) == 82
    assert Counter(take.split("_")[2] for take in TAKES) == {"XX": 67, "LO": 5, "MD": 5, "HI": 5}
