"""LUMA's tables: which recordings and which images there are, of which class, on which side."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miles_repro.data.arrays import read_npz
from miles_repro.data.media import BadFile, inside
from miles_repro.errors import UserError

# (recordings, images) of the forms a LUMA folder takes, the unprocessed dump first; the name before
# a bar is the training side, the one behind it the test side
FORMS = (
    ("audio_data_unprocessed.csv", "image_data_unprocessed"),
    ("audio/datalist_train.csv|audio/datalist_test.csv", "image_data_train|image_data_test"),
    ("audio/datalist.csv", "image_data|image_data_test"),
)
SIDE = 32  # CIFAR images are 32 x 32 x 3
CONVERT = (
    'convert it once where you trust it: python -c "import numpy as np, pandas as pd; '
    "d = pd.read_pickle('{pickle}'); np.savez('{npz}', image=np.stack(d['image']), "
    "label=d['label'].to_numpy(str))\""
)


@dataclass
class Table:
    """One modality: class name of each item, and whether it is on the raw data's test side.

    Either ``paths`` of wavs or ``pictures`` uint8 (N, 32, 32, 3); ``sided``: there is a test side.
    """

    labels: NDArray[np.str_]
    test: NDArray[np.bool_]
    sided: bool
    paths: list[Path] = field(default_factory=list)
    pictures: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, SIDE, SIDE, 3), "u1"))
    skipped: list[tuple[str, str]] = field(default_factory=list)


def read_tables(raw: Path, allow_pickle: bool) -> tuple[Table, Table]:
    """Recordings and images of a LUMA folder.

    Images come from ``.npz`` (arrays image and label); a ``.pickle`` is read only when
    ``allow_pickle`` is set, since unpickling runs whatever code the file holds.

    Raises:
        UserError: no known form, a file that cannot be read, columns that are missing.
    """
    for audio, image in FORMS:
        lists = [raw / name for name in audio.split("|")]
        pictures = [_image_file(raw / name) for name in image.split("|")]
        if all(path.is_file() for path in lists) and all(pictures):
            return (
                _recordings(lists, raw / "audio"),
                _images([path for path in pictures if path is not None], allow_pickle),
            )
    forms = "; ".join(f"{a} with {i}.npz or .pickle" for a, i in FORMS).replace("|", " + ")
    raise UserError(f"{raw} is not a LUMA folder: expected {forms}, and the wavs under audio/")


def _image_file(stem: Path) -> Path | None:
    both = (stem.with_name(stem.name + end) for end in (".npz", ".pickle"))
    return next((path for path in both if path.is_file()), None)


def _recordings(lists: list[Path], root: Path) -> Table:
    paths: list[Path] = []
    labels: list[str] = []
    test: list[bool] = []
    for side, path in enumerate(lists):
        for line, name, label in _lines(path):
            try:
                paths.append(inside(root, name))
            except BadFile as bad:
                raise UserError(f"{path} line {line}: {bad.path}: {bad.reason}") from None
            labels.append(label)
            test.append(side == 1)
    return Table(np.array(labels), np.array(test), sided=len(lists) == 2, paths=paths)


def _lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, path, label) of a list of recordings."""
    line = 1
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file, strict=True)
            if not {"path", "label"} <= set(rows.fieldnames or ()):
                raise UserError(f"{path} needs the columns path and label, has {rows.fieldnames}")
            for row in rows:
                line = rows.line_num
                if not row["path"] or not row["label"]:
                    raise UserError(f"{path} line {line}: path or label is empty")
                yield line, row["path"], row["label"]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise UserError(
            f"{path}: not readable as csv in UTF-8 after line {line} ({error})"
        ) from None


def _images(files: list[Path], allow_pickle: bool) -> Table:
    parts = []
    skipped: list[tuple[str, str]] = []
    for path in files:
        pixels, labels = _read_images(path, allow_pickle, skipped)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (SIDE, SIDE, 3):
            raise UserError(
                f"{path}: images are {pixels.dtype} {pixels.shape[1:]}, expected uint8 (32, 32, 3)"
            )
        if len(pixels) != len(labels):
            raise UserError(f"{path} holds {len(pixels):,} images but {len(labels):,} labels")
        parts.append((pixels, labels))
    test = np.repeat(np.arange(len(parts)) == 1, [len(labels) for _, labels in parts])
    return Table(
        np.concatenate([labels for _, labels in parts]).astype(str),
        test,
        sided=len(files) == 2,
        pictures=np.concatenate([pixels for pixels, _ in parts]),
        skipped=skipped,
    )


def _read_images(
    path: Path, allow_pickle: bool, skipped: list[tuple[str, str]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    if path.suffix == ".npz":
        stored, names = read_npz(path, ["image", "label"])
        if stored.ndim != 4 or names.ndim != 1:
            raise UserError(
                f"{path}: image {stored.shape} and label {names.shape} must be (N, 32, 32, 3), (N,)"
            )
        return stored, names
    if not allow_pickle:
        how = CONVERT.format(pickle=path, npz=path.with_suffix(".npz"))
        raise UserError(
            f"{path} is a pickle, and reading a pickle runs any code inside it: {how}; or add "
            f"allow_pickle=true"
        )
    import pandas as pd

    try:
        table = pd.read_pickle(path)
        pixels, labels = list(table["image"]), table["label"].to_numpy(str)
    except Exception as error:  # whatever the file's own code raises
        raise UserError(f"{path} is not LUMA's table of images ({error})") from None
    good = []
    for at, picture in enumerate(pixels):
        if getattr(picture, "shape", None) == (SIDE, SIDE, 3) and picture.dtype == np.uint8:
            good.append(at)
        else:
            shape = getattr(picture, "shape", None)
            skipped.append((f"{path} row {at}", f"image of shape {shape}, expected (32, 32, 3)"))
    if not good:
        raise UserError(f"{path} holds no 32 x 32 x 3 image")
    return np.stack([pixels[at] for at in good]), labels[good]
