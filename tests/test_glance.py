"""An overview's cache: never believed over the records, never in the way."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from record_factory import record_of

from miles_repro.protocol.overview import Overview, look
from miles_repro.records import RunRecord, disk_errors, glance

Seen = dict[str, Any]


def finish(runs: Path, run_id: str, **changes: Any) -> Path:
    folder = runs / "tiny" / "concat" / "miles" / run_id
    RunRecord(folder).finish(record_of(folder, **changes))
    return folder


def seen(found: Overview) -> Seen:
    """States, trials and budgets by cell, and what was left out."""
    return {
        **{" ".join(cell): (dict(n), found.trials[cell]) for cell, n in found.states.items()},
        "ignored": [str(item.path) for item in found.ignored],
    }


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for trial in range(3):
        finish(tmp_path, f"run{trial}", trial=trial)
    assert seen(look(tmp_path))["tiny mini concat miles"] == ({"done": 3}, {0, 1, 2})
    return tmp_path


def test_a_second_look_opens_no_summary(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = seen(look(runs))
    monkeypatch.setattr(glance, "read_summary", None)
    assert seen(look(runs)) == first


def test_changed_new_damaged_and_removed_runs_are_seen(runs: Path) -> None:
    finish(runs, "run0", trial=7, status="diverged")
    finish(runs, "run3", trial=3, budget="paper")
    (runs / "tiny/concat/miles/run1/summary.json").write_text("{}")
    (runs / "tiny/concat/miles/run2/summary.json").unlink()
    for _ in range(2):  # the damaged one is named every time
        assert seen(look(runs)) == {
            "tiny mini concat miles": ({"diverged": 1}, {7}),
            "tiny ? concat miles": ({"unfinished": 1}, set()),
            "tiny paper concat miles": ({"done": 1}, {3}),
            "ignored": [str(runs / "tiny/concat/miles/run1/summary.json")],
        }


def test_a_record_of_the_same_size_is_read_again_once_touched(runs: Path) -> None:
    path = runs / "tiny/concat/miles/run1/summary.json"
    path.write_text(path.read_text().replace('"trial": 1', '"trial": 8'))
    os.utime(path, ns=(1, 1))
    assert seen(look(runs))["tiny mini concat miles"] == ({"done": 3}, {0, 8, 2})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"a": 1}',
        "\0\xff",
        '{"tiny/concat/miles/run0": [1, 1, "done", "mini"]}',
        "[" * 9999,
    ],
)
def test_a_damaged_cache_is_made_anew(runs: Path, text: str) -> None:
    first, cache = seen(look(runs)), runs / glance.CACHE
    whole = cache.read_text()
    cache.write_text(text)
    assert seen(look(runs)) == first
    assert cache.read_text() == whole


@pytest.mark.parametrize("entry", [("done", "<b>", 0), ("won", "mini", 0), ("done", "mini", -1)])
def test_a_foreign_cache_says_nothing_that_a_record_could_not(runs: Path, entry: Any) -> None:
    first, cache = seen(look(runs)), runs / glance.CACHE
    known = json.loads(cache.read_text())
    place = "tiny/concat/miles/run0"
    cache.write_text(json.dumps(known | {place: [*known[place][:2], *entry]}))
    assert seen(look(runs)) == first


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_another_thing_of_its_name_is_left_alone(runs: Path, kind: str) -> None:
    cache = runs / glance.CACHE
    cache.unlink()
    if kind == "folder":
        cache.mkdir()
    elif kind == "pipe":
        os.mkfifo(cache)
    else:
        cache.symlink_to("nowhere")
    assert seen(look(runs))["tiny mini concat miles"] == ({"done": 3}, {0, 1, 2})


def test_a_folder_that_cannot_be_written_needs_none(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / glance.CACHE).unlink()

    def refuse(path: Path, text: str) -> None:
        with disk_errors(path):
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(glance, "write_atomic", refuse)
    assert seen(look(runs))["tiny mini concat miles"] == ({"done": 3}, {0, 1, 2})
    assert capsys.readouterr() == ("", "")
    assert not (runs / glance.CACHE).exists()


def test_a_run_that_ends_during_a_look_is_read_at_the_next(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's time is taken before it is read: a change in between only costs a reading."""
    (runs / glance.CACHE).unlink()
    read = glance.read_summary

    def replaced_after(folder: Path, *rest: Any) -> Any:
        found = read(folder, *rest)
        if folder.name == "run1":
            finish(runs, "run1", trial=9, label="another")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(glance, "read_summary", replaced_after)
        look(runs)
    assert seen(look(runs))["tiny mini concat miles"] == ({"done": 3}, {0, 9, 2})
