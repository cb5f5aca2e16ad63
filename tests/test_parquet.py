"""A table in parquet is the table it would be in csv."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from own_data import own, plain, prepare, written

__all__ = ["own"]


def test_parquet_and_csv_give_the_same_set(own: Path) -> None:
    pytest.importorskip("pyarrow", reason="parquet was not tested: pip install pyarrow")
    frame = pd.DataFrame(plain())
    frame["row"] = np.arange(len(frame))[::-1]
    frame.to_csv(own / "rows.csv", index=False)
    frame.to_parquet(own / "rows.parquet")
    made = []
    for table in ("rows.csv", "rows.parquet"):
        assert prepare(own, "--force", table=table) == 0
        manifest, _ = written(own)
        files = sorted((own.parent / "data/mine").glob("*.np[yz]"))
        made.append((manifest["schemes"], {p.name: p.read_bytes() for p in files}))
    assert made[0] == made[1]
    assert len(made[0][1]) >= 3


@pytest.mark.parametrize(
    "column, value, text",
    [
        ("label", None, "rows.parquet line 5: label is empty"),
        ("split", "valid", "rows.parquet line 5: split 'valid' is none of train, val, test"),
    ],
)
def test_a_fault_is_named_with_its_row(
    own: Path, column: str, value: object, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow", reason="parquet was not tested: pip install pyarrow")
    frame = pd.DataFrame(plain())
    frame.loc[3, column] = value
    frame.to_parquet(own / "rows.parquet")
    assert prepare(own, table="rows.parquet") == 2
    told = capsys.readouterr().err
    assert text in told
    assert told.count("\n") == 1


def test_a_damaged_file_is_one_line(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow", reason="parquet was not tested: pip install pyarrow")
    (own / "rows.parquet").write_bytes(b"PAR1 and no more")
    assert prepare(own, table="rows.parquet") == 2
    told = capsys.readouterr().err
    assert "rows.parquet: not readable as parquet (" in told
    assert told.count("\n") == 1


def test_without_the_package_a_line_names_it(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*args: object) -> None:
        raise ImportError("Unable to find a usable engine")

    monkeypatch.setattr(pd, "read_parquet", missing)
    (own / "rows.parquet").write_bytes(b"")
    assert prepare(own, table="rows.parquet") == 2
    told = capsys.readouterr().err
    assert "parquet needs the package pyarrow: pip install pyarrow" in told
    assert told.count("\n") == 1
