"""Bad tables and arrays: each refused with one line that names row and file; nothing written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from own_data import N, own, plain, prepare, write_table

from miles_repro.data import command
from miles_repro.data.manifest import file_table, fingerprint

Spoil = Callable[[Path], None]
__all__ = ["own"]  # a fixture


def cell(row: int, column: str, value: str) -> Spoil:
    """Put a value into the table; line = row + 2."""

    def spoil(folder: Path) -> None:
        rows = plain()
        for other in rows:
            other.setdefault(column, "")
        rows[row][column] = value
        write_table(folder / "rows.csv", rows)

    return spoil


def column(name: str, *values: str) -> Spoil:
    def spoil(folder: Path) -> None:
        rows = plain()
        for at, row in enumerate(rows):
            row[name] = values[at % len(values)]
        write_table(folder / "rows.csv", rows)

    return spoil


SECONDS = [f"{1_700_000_000 + i}.5" for i in range(N)]


def text(content: bytes) -> Spoil:
    return lambda folder: (folder / "rows.csv").write_bytes(content) and None


def entry(name: str, at: tuple[int, ...], value: float) -> Spoil:
    def spoil(folder: Path) -> None:
        array = np.load(folder / f"{name}.npy")
        array[at] = value
        np.save(folder / f"{name}.npy", array)

    return spoil


def array(name: str, value: object) -> Spoil:
    return lambda folder: np.save(folder / f"{name}.npy", np.asarray(value), allow_pickle=True)


def raw_array(content: bytes) -> Spoil:
    return lambda folder: (folder / "x.npy").write_bytes(content) and None


def header(shape: str) -> bytes:
    words = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    words += b" " * (117 - len(words)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(words).to_bytes(2, "little") + words


def pipe(folder: Path) -> None:
    (folder / "rows.csv").unlink()
    os.mkfifo(folder / "rows.csv")


def a_folder(folder: Path) -> None:
    (folder / "rows.csv").unlink()
    (folder / "rows.csv").mkdir()


def no_class(part: str) -> Spoil:
    def spoil(folder: Path) -> None:
        rows = [row | ({"label": "a"} if row["split"] == part else {}) for row in plain()]
        write_table(folder / "rows.csv", rows)

    return spoil


def no_part(folder: Path) -> None:
    write_table(folder / "rows.csv", [row | {"split": "train"} for row in plain()])


def away(folder: Path) -> None:
    (folder.parent / "secret.png").write_bytes(b"x")
    column("seen", "../secret.png")(folder)


def link(folder: Path) -> None:
    (folder.parent / "secret.png").write_bytes(b"x")
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    column("seen", "link.png")(folder)


def file_pipe(folder: Path) -> None:
    os.mkfifo(folder / "p.wav")
    column("heard", "p.wav")(folder)


def no_picture(folder: Path) -> None:
    (folder / "p.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    column("seen", "p.png")(folder)


def latin_text(folder: Path) -> None:
    (folder / "p.txt").write_bytes("é".encode("latin-1"))
    column("said", "p.txt")(folder)


def two_groups(folder: Path) -> None:
    rows = [{"label": row["label"], "group": f"g{i % 2}"} for i, row in enumerate(plain())]
    write_table(folder / "rows.csv", rows)


CASES: dict[str, tuple[Spoil, str]] = {
    "nan": (entry("x", (7, 2), np.nan), "x.npy row 7: holds nan"),
    "infinite": (entry("x", (9, 0), np.inf), "x.npy row 9: holds inf"),
    "nan in a sequence": (entry("y", (3, 1, 1), np.nan), "y.npy row 3: holds nan"),
    "sequence without a step": (entry("y", (4,), np.nan), "y.npy row 4: a sequence without a step"),
    "too large for float32": (entry("y", (5, 0, 0), 1e300), "y.npy row 5: holds inf"),
    "too few rows": (array("x", np.zeros((N - 1, 5))), "x.npy holds (59,) rows, the table has 60"),
    "no rows": (array("x", np.float32(3)), "x.npy holds () rows"),
    "no width": (array("x", np.zeros((N, 0))), "samples of shape (0,)"),
    "five axes": (array("x", np.zeros((N, 1, 1, 1, 1))), "samples of shape (1, 1, 1, 1)"),
    "objects": (
        array("x", np.array([{}] * N, object)),
        "x.npy cannot be read as an array: it holds",
    ),
    "texts": (array("x", np.array([["a"]] * N)), "x.npy: <U1 of shape"),
    "complex": (array("x", np.ones((N, 2), complex)), "x.npy: complex128"),
    "negative token": (array("x", np.full((N, 3), -1)), "x.npy row 0: a negative token id"),
    "huge token": (array("x", np.full((N, 3), 2**40)), "token ids beyond"),
    "a token for a thousand embeddings": (
        array("x", np.full((N, 3), 2**31 - 5)),
        "token ids beyond",
    ),
    "integer pictures": (array("x", np.ones((N, 3, 4, 4), int)), "x.npy: int64 of shape"),
    "truncated": (raw_array(header("(60, 5)") + b"\0" * 100), "x.npy cannot be read"),
    "empty array file": (raw_array(b""), "x.npy cannot be read"),
    "absurd header": (raw_array(header("(60, 999999999999999)")), "x.npy cannot be read"),
    "overflowing header": (raw_array(header("(60, 10**30)")), "x.npy cannot be read"),
    "negative header": (raw_array(header("(60, -5)")), "x.npy cannot be read"),
    "not an array": (raw_array(b"hello"), "x.npy cannot be read"),
    "reserved name": (array("labels", np.zeros((N, 2))), "'labels' cannot name a modality"),
    "bad name": (array("a b", np.zeros((N, 2))), "'a b' cannot name a modality: letters, digits"),
    "a word of yaml": (array("on", np.zeros((N, 2))), "'on' cannot name a modality: that word"),
    "a column named fused": (column("fused", "p.png"), "line 1: 'fused' cannot name a modality"),
    "a column with a blank": (column("the image", "p.png"), "'the image' cannot name a modality"),
    "a column elsewhere": (column("../x", "p.png"), "'../x' cannot name a modality"),
    "a column named by a number": (column("1", "p.png"), "'1' cannot name a modality"),
    "lengths beyond": (array("y.lengths", np.full(N, 5)), "y.lengths.npy row 0: length 5 of 4"),
    "lengths of vectors": (array("x.lengths", np.full(N, 2)), "x.lengths.npy must hold"),
    "lengths not whole": (array("y.lengths", np.full(N, 2.0)), "y.lengths.npy must hold"),
    "unknown split": (cell(4, "split", "valid"), "rows.csv line 6: split 'valid' is none of"),
    "empty split": (cell(4, "split", ""), "rows.csv line 6: split '' is none of"),
    "empty part": (no_part, "no row for val"),
    "class missing in train": (no_class("train"), "no train row of class b, c (2 in all)"),
    "class missing in test": (no_class("test"), "no test row of class b, c"),
    "empty label": (cell(2, "label", ""), "rows.csv line 4: label is empty"),
    "a class for every row": (column("label", *map(str, range(N))), "60 classes in 60 rows"),
    "one class": (column("label", "a"), "labels need 2 classes, there are 1"),
    "numbers and names": (column("label", "1.5", "2.5", "x"), "line 4: label 'x' is not a finite"),
    "beyond float32": (column("label", "1.5", "1e39"), "line 3: label 1e+39 is beyond float32"),
    "timestamps": (
        column("label", *SECONDS),
        "subtract an offset",
    ),
    "a number among names": (cell(4, "label", "1.5"), "no val row of class 1.5"),
    "nan among names": (cell(4, "label", "nan"), "no val row of class nan"),
    "endless digits": (column("row", "1" * 5000), "must be a number from 0 to 59, once"),
    "infinite label": (column("label", "1.5", "inf"), "line 3: label 'inf' is not a finite"),
    "empty group": (column("group", "g", ""), "rows.csv line 3: group is empty"),
    "two groups": (two_groups, "2 group(s) cannot rotate"),
    "row twice": (column("row", "1"), "line 3: row='1' must be a number from 0 to 59, once"),
    "row beyond": (column("row", "60"), "line 2: row='60' must be"),
    "latin-1": (text("label\n\xe9\n".encode("latin-1")), "not text in UTF-8"),
    "ragged": (text(b"label,split\na,train\nb\n"), "line 3: 1 values under 2 columns"),
    "a column twice": (text(b"label,label\na,b\n"), "line 1: columns without or with the same"),
    "empty table": (text(b""), "line 1: columns without"),
    "header alone": (text(b"label\n"), "has a header and no row"),
    "no label": (text(b"name\na\n"), "has no column label: it has name"),
    "nul": (text(b"label\na\0\n"), "rows.csv"),
    "open quote": (text(b'label\n"a\n'), "not readable as csv"),
    "a pipe": (pipe, "is not a file"),
    "a folder": (a_folder, "is not a file"),
    "a column that is none": (column("age", "3"), "line 2: age='3' is not the name of a picture"),
    "two kinds": (
        column("seen", "a.png", "b.wav"),
        "line 3: seen='b.wav' is not the name of a pic",
    ),
    "missing file": (column("seen", "no.png"), "no.png: missing"),
    "a file elsewhere": (away, "'../secret.png' leads out of"),
    "an absolute path": (column("seen", "/etc/x.png"), "'/etc/x.png' leads out of"),
    "a link elsewhere": (link, "'link.png' leads out of"),
    "a pipe as file": (file_pipe, "p.wav: is not an ordinary file"),
    "postscript": (no_picture, "p.png: not readable as a picture"),
    "a text in latin-1": (latin_text, "p.txt: not text in UTF-8"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_files_are_one_line_and_nothing_is_written(
    case: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, words = CASES[case]
    spoil(own)
    assert prepare(own, "workers=1") == 2
    error = capsys.readouterr().err.splitlines()
    lines = [line for line in error if line.startswith("error: ")]
    assert len(lines) == 1
    assert len(error) <= 2  # a line of progress may stand before
    assert words in lines[0]
    assert not (own.parent / "data/mine").exists()
    assert not (own.parent / "conf").exists()


@pytest.mark.parametrize(
    "options, words",
    [
        (["task=ranking"], "task=ranking: one of auto"),
        (["size=0"], "size=0 must be from 1 to 4,096"),
        (["seconds=inf"], "seconds=inf must be from 0.05 to 3,600"),
        (["seconds=0.001"], "seconds=0.001 must be from"),
        (["sample_rate=10"], "sample_rate=10 must be from 1,000"),
        (["seed=-1"], "seed=-1 must be from 0 to"),
        (["seed=99999999999"], "seed=99999999999 must be from 0 to"),
        (["size=big"], "size='big': input should be a valid integer"),
        (["modalities=x,z"], "'z' is not one (once) of x, y"),
        (["modalities=x,x"], "'x' is not one (once)"),
        (["classes=a,b"], "line 4: label 'c' is not one of a, b"),
        (["task=binary"], "binary labels need 2 classes, there are 3"),
        (["task=regression"], "line 2: label 'a' is not a finite number"),
        (["arrays=/nowhere"], "arrays=/nowhere is not a folder"),
        (["colour=red"], "has no option 'colour'"),
    ],
)
def test_bad_options(
    own: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(own, *options) == 2
    assert words in capsys.readouterr().err
    assert not (own.parent / "data/mine").exists()


@pytest.mark.parametrize("name", ["smnist_mini", "../x", "", "a b", "x" * 99, "007", "null", "On"])
def test_a_name_that_is_taken_or_none(
    own: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([f"dataset={name}", f"table={own / 'rows.csv'}", "out=/nowhere"]) == 2
    assert "dataset=" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, spoil, words",
    [
        ("x.npy", entry("x", (7, 2), np.nan), "x.npy row 7: holds nan"),
        ("labels.npy", entry("labels", (0,), 9), "labels.npy holds labels outside"),
        ("labels.npy", lambda f: np.save(f / "labels.npy", np.zeros(N, int)), "no train row of"),
    ],
)
def test_verify_checks_the_same(
    own: Path, name: str, spoil: Spoil, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(own) == 0
    folder = own.parent / "data/mine"
    spoil(folder)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"] |= file_table(folder, [name])
    manifest["fingerprint"] = fingerprint(manifest["version"], manifest["files"])
    path.write_text(json.dumps(manifest))
    assert prepare(own, "--verify") == 2
    assert words in capsys.readouterr().err
