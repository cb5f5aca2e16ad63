"""Edited code does not pass as done already: told on a skip, named in tables, repeated."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from record_factory import population
from support import finished, lasting, rows_without_time, settings

from miles_repro import provenance
from miles_repro.records import SUMMARY, read_summary
from miles_repro.report.provenance import code_note, study_notes
from miles_repro.run import run
from miles_repro.selection import studies

LOOP, OLD, OTHER = "miles_repro.loop", "0" * 64, "1" * 64


def made_by(records: list[dict[str, Any]], **code: str) -> list[dict[str, Any]]:
    return [{**r, "code": {k.replace("__", "."): v for k, v in code.items()}} for r in records]


def test_today_is_what_a_run_records(tiny_data: Path, tmp_path: Path) -> None:
    found = provenance.code(settings(tiny_data, tmp_path))
    assert LOOP in found
    assert found == {module: provenance.today(module) for module in found}
    for module in (
        "antigravity",
        "miles_repro.nothing",
        "miles_repro/../conftest",
        "miles_repro..a",
    ):
        assert provenance.today(module) is None


def test_tables_name_runs_of_other_code() -> None:
    records = population()
    now = provenance.today(LOOP)
    assert now is not None
    fresh, stale = (
        made_by(records[2:], miles_repro__loop=now),
        made_by(records[:2], miles_repro__loop=OLD),
    )
    assert code_note(fresh) == []
    (line,) = code_note(stale + fresh)
    assert line.startswith("Made by other code than today's: 2 runs (")
    assert records[0]["run_id"] in line
    assert f"; {LOOP}); rerun=true repeats them." in line
    (study, *_) = studies(stale + fresh)
    assert line in study_notes(dataclasses.replace(study, records=tuple(stale + fresh)))
    whole = made_by(records, miles_repro__loop=OLD)
    assert f"{len(records)} runs" in code_note(whole)[0]  # alike, but not today's


def test_runs_of_somebody_s_own_module_are_held_against_most() -> None:
    """Their sources are not here: nothing is imported to look."""
    records = population()
    most, few = made_by(records[1:], their_rules=OLD), made_by(records[:1], their_rules=OTHER)
    (line,) = code_note(few + most)
    assert f"1 run ({records[0]['run_id']}; their_rules)" in line


@pytest.mark.parametrize("strategy", ["miles", "ogm_ge"])
def test_a_rerun_gives_the_same_bits_and_today_s_code(
    strategy: str, tiny_data: Path, tmp_path: Path
) -> None:
    config = settings(tiny_data, tmp_path, f"strategy={strategy}")
    first, rows = finished(config), rows_without_time(config.run_dir)
    path = config.run_dir / SUMMARY
    path.write_text(json.dumps({**first, "code": {**first["code"], LOOP: OLD}}))
    skipped = run(config, "test")
    assert (skipped.status, skipped.stale) == ("skipped", (LOOP,))
    again = run(config.model_copy(update={"rerun": True}), "test")
    assert again.status == "done"
    assert rows_without_time(config.run_dir) == rows
    written = read_summary(config.run_dir)
    assert written is not None
    assert lasting(dict(written)) == lasting(first)
    assert run(config, "test").stale == ()
