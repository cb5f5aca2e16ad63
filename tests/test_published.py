"""The committed results: rebuilt from the committed records, and quoted as they are."""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

import pytest
from commands import REPO, finish

RESULTS = REPO / "results"
README, TABLES = RESULTS / "README.md", RESULTS / "tables"
BETTER = ("fused", "better")
RECORDS = sorted((RESULTS / "records").glob("*.json.xz"))


def rebuilt(out: Path, *more: str) -> Path:
    packed = [word for path in RECORDS for word in ("--records", str(path))]
    command = [sys.executable, "scripts/reproduce.py", "tables", *packed, "--tables-only", *more]
    done = finish([*command, "--results", str(out)])
    assert done.returncode == 0, done.stderr
    return out / "tables"


@pytest.mark.slow
def test_every_published_number_comes_from_the_packed_records(tmp_path: Path) -> None:
    """Byte for byte; notes may name another commit, so the CSV files are compared."""
    published = {path.name: path.read_bytes() for path in TABLES.glob("*.csv")}
    assert {p.name: p.read_bytes() for p in rebuilt(tmp_path).glob("*.csv")} == published


@pytest.mark.slow
def test_the_quoted_count_of_fewer_seeds_is_that_of_their_tables(tmp_path: Path) -> None:
    (text,) = re.findall(r"The first (\d+) seeds alone decide (\d+) and (\d+)", README.read_text())
    assert text[1:] == tuple(map(str, decided(compared(rebuilt(tmp_path, "--first", text[0])))))


def quoted(text: str) -> dict[tuple[str, str, str], str]:
    """(data set, fusion, strategy) -> text of its entry in a README's table of differences."""
    head, _, *rows = (
        [cell.strip(" `") for cell in line.strip("|").split("|")] for line in text.splitlines()
    )
    return {
        (row[0], row[1], name): cell
        for row in rows
        for name, cell in zip(head[2:], row[2:], strict=True)
    }


def compared(tables: Path = TABLES) -> list[dict[str, str]]:
    """Every strategy minus vanilla_aux, of all data sets."""
    found = []
    for path in sorted(tables.glob("contrasts__*.csv")):
        with path.open(encoding="utf-8") as file:
            found += [line for line in csv.DictReader(file) if line["rival"] == "vanilla_aux"]
    return found


def verdicts(lines: list[dict[str, str]]) -> tuple[list[str], list[str]]:
    """Of the fused metric, and of the probes."""
    fused = [line["verdict"] for line in lines if line["quantity"] == "fused"]
    return fused, [
        line["verdict"] for line in lines if line["quantity"] not in ("fused", "abs_gap")
    ]


def decided(lines: list[dict[str, str]]) -> list[int]:
    return [sum(word != "undecided" for word in found) for found in verdicts(lines)]


def test_quoted_counts_are_those_of_the_tables() -> None:
    (text,) = re.findall(r"\*Decided\*: (\d+) of (\d+) fused.*?(\d+) of (\d+) by probes",
                         README.read_text())  # fmt: skip
    fused, probes = verdicts(compared())
    counts = decided(compared())
    assert [int(n) for n in text] == [counts[0], len(fused), counts[1], len(probes)]
    (text,) = re.findall(r"\*Better than `vanilla_aux`\*: (.*?)\.\s", README.read_text(), re.DOTALL)
    better = [line for line in compared() if (line["quantity"], line["verdict"]) == BETTER]
    assert sorted(re.findall(r"`(\w+)`", text)) == sorted({line["strategy"] for line in better})


@pytest.mark.parametrize("readme", [REPO / "README.md", README])
def test_quoted_differences_are_the_published_ones(readme: Path) -> None:
    (block,) = re.findall(
        r"<!-- fused differences -->\n(.*?)\n<!-- end -->", readme.read_text(), re.DOTALL
    )
    lines = {
        (line["dataset"], line["fusion"], line["strategy"]): line
        for line in compared()
        if line["quantity"] == "fused"
    }
    found = quoted(block)
    assert {place[:2] for place in found} == {place[:2] for place in lines}
    for place, text in found.items():
        line = lines[place]
        numbers = [float(line[name]) for name in ("difference", "ci_low", "ci_high")]
        mean, low, high = (f"{number:+.1f}".replace("-0.0", "+0.0") for number in numbers)
        assert text == f"{mean} [{low}, {high}] {line['verdict']}, n {line['n']}", place
