"""An S-MNIST set from MNIST and a folder of spoken digits, speaker-disjoint where it can be."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from miles_repro.data.smnist_raw import (
    COEFFICIENTS,
    FRAMES,
    Clip,
    Digits,
    clip_features,
    find_clips,
    read_mnist,
)
from miles_repro.data.splits import Rows, draw_evenly, frozen_random, stratified_split
from miles_repro.data.statistics import mean_and_std
from miles_repro.data.writer import Preparation
from miles_repro.errors import UserError

PARTS = ("train", "val", "test")


def build(
    prep: Preparation, mnist: Path, speech: Path, sizes: dict[str, int], settings: dict[str, Any]
) -> Digits:
    """Pair MNIST images with recordings of the same digit; parts share neither."""
    images = read_mnist(mnist)
    clips, strange = find_clips(speech)
    for path in strange:
        prep.skip(path, "not named <digit>_<speaker>_<take>.wav")
    layout = {"clips": ((1, FRAMES, COEFFICIENTS), "float32")}
    items = [(clip.path,) for clip in clips]
    kept = prep.fill(items, partial(clip_features, settings), layout, scratch=True)
    clips = [clips[at] for at in kept]
    digit_of = np.array([clip.digit for clip in clips])
    sides, disjoint = _sides(clips, digit_of, settings)
    digits_there = {side: set(digit_of[rows]) for side, rows in sides.items()}
    for side, there in digits_there.items():
        if len(there) < 10:
            raise UserError(
                f"{speech}: the {side} recordings lack the digits {sorted(set(range(10)) - there)}"
            )
    seed = settings["seed"]
    wanted = {part: sizes[part] for part in ("train", "val")}
    chosen = stratified_split(images["train"][1], wanted, seed)
    chosen |= stratified_split(images["test"][1], {"test": sizes["test"]}, seed + 1)
    pictures, sounds, labels = [], [], []
    for number, (part, rows) in enumerate(chosen.items()):
        pixels, truth = images["test" if part == "test" else "train"]
        recordings = sides[part]
        random = frozen_random(seed + 2 + number)
        heard = np.empty(len(rows), dtype=np.int64)
        for digit in range(10):
            at = np.flatnonzero(truth[rows] == digit)
            heard[at] = draw_evenly(recordings[digit_of[recordings] == digit], len(at), random)
        pictures.append(pixels[rows])
        sounds.append(heard)
        labels.append(truth[rows])
    ends = np.cumsum([len(part) for part in labels])
    features = np.asarray(prep.array("clips"))
    # the database's features come standardised; here by coefficient, over training recordings
    mean, std = mean_and_std(features, sides["train"], axes=(0, 1))
    digits = Digits(
        np.concatenate(pictures),
        ((features - mean) / std)[np.concatenate(sounds)],
        np.concatenate(labels),
        pool=int(ends[1]),
    )
    if disjoint:
        digits.speakers = np.array([clips[at].speaker for at in np.concatenate(sounds)])
        digits.schemes["speaker"] = {
            part: np.arange(end - len(rows), end)
            for (part, rows), end in zip(chosen.items(), ends.tolist(), strict=True)
        }
    names = {part: sorted({clips[at].speaker for at in rows}) for part, rows in sides.items()}
    digits.notes.append(
        f"built from {len(clips):,} recordings; speakers: "
        + "; ".join(f"{part} {', '.join(who)}" for part, who in names.items())
    )
    return digits


def _sides(
    clips: list[Clip], digit_of: Rows, settings: dict[str, Any]
) -> tuple[dict[str, Rows], bool]:
    """Recordings of each part, and whether no speaker is in two of them.

    With fewer than three speakers the recordings themselves are divided 4 : 1 : 1.
    """
    speaker_of = np.array([clip.speaker for clip in clips])
    known = sorted(set(speaker_of.tolist()))
    named = {
        part: [name for name in settings[f"{part}_speakers"].split(",") if name]
        for part in ("val", "test")
    }
    unknown = sorted({*named["val"], *named["test"]} - set(known))
    if unknown:
        raise UserError(f"no recordings of {', '.join(unknown)}: speakers are {', '.join(known)}")
    if len(known) < 3:
        sixth = len(clips) // 6
        sizes = {"test": sixth, "val": sixth, "train": len(clips) - 2 * sixth}
        return stratified_split(digit_of, sizes, settings["seed"]), False
    share = max(1, round(len(known) / 6))
    test = named["test"] or [n for n in known if n not in named["val"]][-share:]
    val = named["val"] or [n for n in known if n not in test][-share:]
    train = [name for name in known if name not in {*val, *test}]
    if set(val) & set(test) or not train:
        raise UserError(
            f"val_speakers={','.join(val)} and test_speakers={','.join(test)} must be different "
            f"people and leave somebody for training (speakers: {', '.join(known)})"
        )
    of_part = dict(zip(PARTS, (train, val, test), strict=True))
    return {part: np.flatnonzero(np.isin(speaker_of, of_part[part])) for part in PARTS}, True
