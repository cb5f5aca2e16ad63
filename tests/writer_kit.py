"""A toy set to prepare."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from miles_repro.data.splits import shuffled
from miles_repro.data.writer import Card, Preparation, Refuse, Skip

CARD = Card("toy", 1, "multiclass", ("a", "b"), "made up", "none", {"seed": 0})


LAYOUT = {"image": ((3, 2, 2), "uint8"), "audio": ((1, 4), "float32")}


def decode(folder: Path, item: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Worker: sample of a number; notes each call, skips and refuses where files say so."""
    (number,) = item
    with (folder / "calls").open("a") as calls:
        calls.write(f"{number}\n")
    if (folder / f"skip{number}").exists():
        raise Skip(f"file{number}", "empty")
    if (folder / f"refuse{number}").exists():
        raise Refuse(f"file{number}", "has 2 channels")
    if (folder / f"lost{number}").exists():
        (folder / f"gone{number}").read_bytes()
    image = np.full((3, 2, 2), number % 251, np.uint8)
    return {"image": image, "audio": np.full((1, 4), number / 7, np.float32)}


def make(
    out: Path, folder: Path, n: int = 40, workers: int = 1, chunk: int = 8, card: Card = CARD
) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    with Preparation(out, card, workers) as prep:
        kept = prep.fill([(i,) for i in range(n)], partial(decode, folder), LAYOUT, chunk)
        prep.write("labels", kept % 2)
        rows = shuffled(np.arange(len(kept)), seed=0)
        prep.split("random", train=rows[:-10], val=rows[-10:-5], test=rows[-5:])
        prep.normalise("image", axes=(1, 2))
        prep.normalise("audio")
        prep.note("made by a test")
        return prep.finish()


def calls(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "calls").read_text().split()]
