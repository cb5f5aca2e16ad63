"""A user's own table: what is left out, what has changed since, and that its commands run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import finish
from own_data import N, own, plain, prepare, table_of, write_table, written
from support import REPO

from miles_repro.data import command, table_read

__all__ = ["own"]  # a fixture


def pictures(folder: Path) -> None:
    """A column of files, three pictures in turn."""
    image = pytest.importorskip("PIL.Image")
    for i in range(3):
        image.fromarray(np.full((8, 8, 3), 60 * i, np.uint8)).save(folder / f"{i}.png")
    write_table(
        folder / "rows.csv", [row | {"seen": f"{i % 3}.png"} for i, row in enumerate(plain())]
    )


def test_what_is_not_asked_for_is_not_read(own: Path) -> None:
    write_table(own / "rows.csv", [row | {"age": "3", "../x": "?"} for row in plain()])
    np.save(own / "labels.npy", np.zeros(N))
    np.save(own / "other.npy", np.zeros((7, 2)))
    assert prepare(own) == 2
    assert prepare(own, "ignore=age,../x,labels,other") == 0
    assert prepare(own, "modalities=y,x", "--force") == 0
    assert list(written(own)[0]["modalities"]) == ["y", "x"]


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda folder: np.save(folder / "z.npy", np.ones((N, 2))), "z.npy has come or gone"),
        (lambda folder: (folder / "y.npy").unlink(), "y.npy has come or gone"),
        (lambda folder: np.save(folder / "y.lengths.npy", np.full(N, 2)), "come or gone"),
        (lambda folder: (folder / "1.png").write_bytes(b"other"), "a file of column seen of"),
        (lambda folder: (folder / "1.png").unlink(), "1.png: missing"),
    ],
)
def test_another_array_or_file_asks_for_force(
    own: Path, change: object, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(own)
    assert prepare(own, "size=8", "workers=1") == 0
    assert prepare(own, "size=8", "workers=1") == 0
    change(own)  # type: ignore[operator]
    capsys.readouterr()
    assert prepare(own, "size=8", "workers=1") == 2
    assert words in capsys.readouterr().err


def test_blanks_around_labels_and_blank_lines_mean_nothing(own: Path) -> None:
    label = ["cat | dog", "dog", "cat", "dog|cat "]
    write_table(own / "rows.csv", table_of(label=lambda i: label[i % 4]))
    with (own / "rows.csv").open("a") as file:
        file.write("\n\n")
    assert prepare(own) == 0
    manifest, _ = written(own)
    assert (manifest["classes"], manifest["rows"]) == (["cat", "dog"], N)
    labels = np.load(own.parent / "data/mine/labels.npy")
    assert labels[:4].tolist() == [[1, 1], [0, 1], [1, 0], [1, 1]]


def test_a_name_that_looks_like_a_number_keeps_its_place(own: Path) -> None:
    names = {"nan", "inf", "2", "10", "ant"}
    assert sorted(names, key=table_read._by_number) == ["ant", "inf", "nan", "2", "10"]


def test_cells_of_parquet_are_those_of_a_csv() -> None:
    cells = [["a", "b"], np.array(["a"]), None, float("nan"), pd.NA, pd.NaT, 3, "x"]
    assert [table_read._cell(cell) for cell in cells] == ["a|b", "a", *[""] * 4, "3", "x"]


def test_printed_commands_run_on_a_binary_task_in_folders_of_any_name(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(own / "rows.csv", table_of(label=lambda i: ["yes", "no"][i % 2]))
    root = own.parent / "it's a=b, ü"
    places = [f"out={root / 'data'}", f"conf_dir={root / 'conf'}"]
    given = ["dataset=mine", f"table={own / 'rows.csv'}", "task=binary", *places]
    assert command.main(given) == 0
    printed = next(
        line for line in capsys.readouterr().out.splitlines() if "strategy=vanilla,miles" in line
    )
    words = shlex.split(printed)[1:]
    assert words[0] == "train.py"
    words = [word for word in words if not word.startswith(("seed=", "strategy="))]
    more = ["strategy=vanilla,miles", "seed=1", "epochs=1", "tracker=none"]
    done = finish(
        [sys.executable, str(REPO / "train.py"), *words[1:], *more, f"runtime.runs_dir={own}/runs"]
    )
    assert done.returncode == 0, done.stderr
    assert len(list((own / "runs/mine").glob("*/*/*/summary.json"))) == 2
    two = [word for word in words[1:] if word != "-m"]
    done = finish(
        [sys.executable, str(REPO / "train.py"), *two, *more[2:], "dataset.num_classes=2"]
    )
    assert done.returncode != 0
    assert "a binary task, whose model has 1 output" in done.stdout
