"""Submissions: what is packed is what is read, by the published schema."""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import REPO, finish
from pydantic import ValidationError
from record_factory import population, record

from miles_repro import submission
from miles_repro.errors import UserError
from miles_repro.records import SUMMARY, Epochs, RunRecord, load_summaries
from miles_repro.records.disk import LARGEST_TEXT


def write_runs(root: Path, records: list[dict[str, Any]]) -> None:
    for one in records:
        names = [one[key] for key in ("dataset", "fusion", "strategy", "run_id")]
        RunRecord(root.joinpath(*names)).finish(one)


def test_packed_records_come_back_and_own_ones_win(tmp_path: Path) -> None:
    records = population(strategies=("vanilla", "miles"), seeds=(0, 1))
    submission.write(tmp_path / "theirs.json", records, "somebody")
    assert submission.read(tmp_path / "theirs.json").records == records
    own = [records[0] | {"command": "mine"}, record("ogm")]
    found = submission.beside(own, [tmp_path / "theirs.json"])
    assert found[:2] == own
    assert found[2:] == records[1:]


def test_a_study_goes_on_from_packed_records(tmp_path: Path) -> None:
    records = population(strategies=("vanilla", "miles"), seeds=(0, 1))
    rows: list[Any] = [{"epoch": 1, "val": {}}]
    file, runs = tmp_path / "theirs.json.xz", tmp_path / "runs"
    submission.write(file, records, "somebody", {records[0]["run_id"]: rows})
    write_runs(runs, [records[1] | {"command": "mine"}])
    assert submission.unpack([file], runs) == (len(records) - 1, 0)
    assert submission.unpack([file], runs) == (0, 0)
    found = {r["run_id"]: r for r in load_summaries(runs)}
    assert found == {r["run_id"]: r for r in records} | {
        records[1]["run_id"]: records[1] | {"command": "mine"}
    }
    shown = Epochs(runs, records)
    assert [len(shown[r["run_id"]]) for r in records] == [1] + [0] * (len(records) - 1)


def test_what_cannot_be_used_counts_as_none_and_what_is_trained_is_left(tmp_path: Path) -> None:
    file, runs = tmp_path / "theirs.json", tmp_path / "runs"
    records = population(strategies=("vanilla",), fusions=("concat",), seeds=(1, 2, 3))
    submission.write(file, records, "somebody")
    folders = [
        runs.joinpath(*(r[key] for key in ("dataset", "fusion", "strategy", "run_id")))
        for r in records
    ]
    damaged, training = RunRecord(folders[0]), RunRecord(folders[1])
    (damaged.folder / SUMMARY).write_text('{"schema": 2, "stat')
    with training.lease() as mine:
        assert mine
        script = [sys.executable, "scripts/reproduce.py", "unpack", str(file)]
        done = finish([*script, "--runs-dir", str(runs)])
    assert (done.returncode, done.stdout) == (
        0,
        f"2 runs put into {runs}, 1 left out that other processes are training: "
        "run goes on from them\n",
    )
    assert "3 of 3 done" in done.stderr
    assert sorted(r["seed"] for r in load_summaries(runs)) == [1, 3]


def test_costs_may_stay_at_home() -> None:
    """Times taken beside other work are no figures to share."""
    rows = [{"epoch": 1, "time": {"epoch_s": 1.0}}]
    (bare,), epochs = submission.without_costs([record()], {"x": rows})  # type: ignore[list-item, dict-item]
    assert record()["cost"]["wall_s"] is not None
    assert set(bare["cost"].values()) == {None}
    assert bare | {"cost": record()["cost"]} == record()
    assert epochs == {"x": [{"epoch": 1}]}


def test_the_schema_is_published() -> None:
    """After a change: python -m miles_repro.submission > docs/submission.schema.json."""
    published = json.loads((REPO / "docs" / "submission.schema.json").read_text())
    assert published == submission.schema()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: c["records"][0].update(seed=7), "sha256 differs"),
        (lambda c: c["records"][0].update(strategy="../../evil"), "records.0.strategy"),
        (lambda c: c["records"][0].pop("val"), "records.0.val: field required"),
        (lambda c: c["records"][0].update(status="failed"), "records.0.status"),
        (lambda c: c.update(more=1), "more: extra inputs"),
        (lambda c: c.update(by="<script>"), "by: "),
        (lambda c: c["records"].clear(), "records: list should have at least 1"),
        (lambda c: c["records"][0].update(modalities=["a", "a"]), "records.0: val has scores of"),
        (lambda c: c["records"][0].update(best_epoch=11), "records.0: best_epoch is larger"),
        (lambda c: c["records"][0]["config"]["optimizer"].clear(), "optimizer.lr: field required"),
    ],
)
def test_another_file_is_refused_in_one_line(damage: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "theirs.json"
    submission.write(path, [record()], "somebody")
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        submission.read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    path.write_text("{")
    with pytest.raises(UserError, match="invalid json"):
        submission.read(path)
    with pytest.raises(UserError, match="cannot be read"):
        submission.read(tmp_path / "nothing.json")


def test_the_first_mistake_is_enough() -> None:
    """Of a file of nothing but mistakes, a list of all would not fit into memory."""
    content = {"submission": 1, "records": [{}] * 1000, "epochs": {"a": [{}] * 1000}}
    with pytest.raises(ValidationError) as error:
        submission.Submission.model_validate_json(json.dumps(content))
    assert error.value.error_count() < 50


@pytest.mark.parametrize("name", ["theirs.json", "theirs.json.xz"])
def test_what_is_too_large_is_neither_written_nor_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    submission.write(path, [record()], "somebody")
    monkeypatch.setattr(submission, "LARGEST", 1000)
    with pytest.raises(UserError, match=r"cannot be read: .*(too large|more than)"):
        submission.read(path)
    path.unlink()
    with pytest.raises(UserError, match="pack fewer runs in a file"):
        submission.write(path, [record()], "somebody")
    assert list(tmp_path.iterdir()) == []


def test_what_is_too_large_for_one_record_is_read(tmp_path: Path) -> None:
    large = record() | {"more": "x" * LARGEST_TEXT}
    submission.write(tmp_path / "theirs.json", [large], "somebody")
    assert submission.read(tmp_path / "theirs.json").records == [large]


def test_a_large_file_is_compressed_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "PIECE", 1000)
    text = bytes(range(256)) * 20
    assert lzma.decompress(submission._compressed(tmp_path, text)) == text


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_a_folder_is_no_file_to_pack_into(name: str) -> None:
    done = finish([sys.executable, "scripts/reproduce.py", "submit", name])
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "name a file, not a folder" in line


def test_two_people_one_table(tmp_path: Path) -> None:
    """One packs what the other's tables then show beside their own."""
    mine, theirs, file = tmp_path / "mine", tmp_path / "theirs", tmp_path / "theirs.json"
    write_runs(mine, population(strategies=("vanilla", "vanilla_aux"), seeds=(0, 1, 2)))
    write_runs(theirs, population(strategies=("miles", "ogm"), seeds=(0, 1, 2)))
    script = [sys.executable, "scripts/reproduce.py"]
    packed = finish(
        [*script, "submit", str(file), "--runs-dir", str(theirs), "--strategy", "miles"]
    )
    assert packed.returncode == 0, packed.stderr
    assert packed.stdout.startswith("6 runs packed")
    places = ["--runs-dir", str(mine), "--results", str(tmp_path / "out"), "--tables-only"]
    done = finish([*script, "tables", *places, "--with", str(file)])
    assert done.returncode == 0, done.stderr
    text = "".join(p.read_text() for p in (tmp_path / "out" / "tables").glob("comparison*.md"))
    assert "MILES" in text
    assert "OGM | " not in text or "not yet run" in text
    less = ["--records", str(file), "--first", "1", "--eps", "2"]
    some = finish([*script, "tables", *places, *less])
    assert "4 runs ->" in some.stdout, some.stderr  # two fusions: the search and one seed
    text = "".join(p.read_text() for p in (tmp_path / "out" / "tables").glob("comparison*.md"))
    assert f"make tables RECORDS='{file}' ARGS='--first 1 --eps 2'" in " ".join(text.split())
