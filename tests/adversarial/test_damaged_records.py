"""Trees of records with damage of every kind: what is whole is used, what is not is named."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import attempt, digests, judge, lost
from record_factory import epoch_rows, record_of

from miles_repro import report  # noqa: F401 - loaded once, for all forks
from miles_repro.records import RunRecord

pytestmark = pytest.mark.slow
CAMPAIGN = "damaged record trees"
TREES = 110
STRATEGIES = ("miles", "vanilla", "ogm", "mses")


def change(**changes: Any) -> Callable[[Path, random.Random], None]:
    """A summary with other values, in a folder of its own."""

    def damage(cell: Path, draw: random.Random) -> None:
        folder = new_run(cell, draw)
        (folder / "summary.json").write_text(json.dumps(record_of(folder) | changes))

    return damage


def content(data: bytes) -> Callable[[Path, random.Random], None]:
    def damage(cell: Path, draw: random.Random) -> None:
        (new_run(cell, draw) / "summary.json").write_bytes(data)

    return damage


def new_run(cell: Path, draw: random.Random) -> Path:
    folder = cell / f"bad{draw.randrange(10**6)}"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def without_a_key(cell: Path, draw: random.Random) -> None:
    folder = new_run(cell, draw)
    summary = record_of(folder)
    del summary[draw.choice([k for k in summary if k not in ("schema", "status")])]
    (folder / "summary.json").write_text(json.dumps(summary))


def of_another_type(cell: Path, draw: random.Random) -> None:
    folder = new_run(cell, draw)
    summary = record_of(folder)
    key = draw.choice([k for k in summary if k not in ("command", "finished", "strong", "weak")])
    summary[key] = draw.choice([3.5, -1, [None], {"x": {"y": "z"}}, "<b>"])
    (folder / "summary.json").write_text(json.dumps(summary))


def a_byte_changed(cell: Path, draw: random.Random) -> None:
    folder = new_run(cell, draw)
    data = bytearray(json.dumps(record_of(folder)).encode())
    for _ in range(3):
        data[draw.randrange(len(data))] = draw.randrange(128, 256)
    (folder / "summary.json").write_bytes(data)


def cut(cell: Path, draw: random.Random) -> None:
    folder = new_run(cell, draw)
    data = json.dumps(record_of(folder))
    (folder / "summary.json").write_text(data[: draw.randrange(1, len(data) - 1)])


def in_the_wrong_place(cell: Path, draw: random.Random) -> None:
    folder = new_run(cell, draw)
    (folder / "summary.json").write_text(json.dumps(record_of(folder, run_id="other")))


def a_pipe(cell: Path, draw: random.Random) -> None:
    os.mkfifo(new_run(cell, draw) / "summary.json")


def a_folder_for_a_file(cell: Path, draw: random.Random) -> None:
    (new_run(cell, draw) / "summary.json").mkdir()


def a_link_to_itself(cell: Path, draw: random.Random) -> None:
    (new_run(cell, draw) / "summary.json").symlink_to("summary.json")


def a_folder_that_loops(cell: Path, draw: random.Random) -> None:
    (draw.choice([cell, cell.parent, cell.parents[1]]) / "loop").symlink_to("loop")


def a_name_of_any_bytes(cell: Path, draw: random.Random) -> None:
    place = draw.choice([cell, cell.parent, cell.parents[1], cell.parents[2]])
    (place / os.fsdecode(draw.choice([b"\xff\xfe", b"a b", b"<i>", b"[red]", b"x\x1b[2J"]))).mkdir()


def stray(cell: Path, draw: random.Random) -> None:
    place = draw.choice([cell, cell.parent, cell.parents[1], cell.parents[2]])
    name = draw.choice(["error.txt", "config.json", "metrics.jsonl", "summary.json", "notes"])
    (place / name).write_bytes(draw.choice([b"", b"{}", b"\xff"]))


def strange_side_files(cell: Path, draw: random.Random) -> None:
    """A run that has not ended, with files of any bytes."""
    folder = new_run(cell, draw)
    for name in ("error.txt", "metrics.jsonl", "config.json", "last.pt", "last.sha256"):
        if draw.random() < 0.5:
            (folder / name).unlink(missing_ok=True)
            (folder / name).write_bytes(draw.randbytes(draw.choice([0, 1, 300])))
    if draw.random() < 0.3:
        (folder / "config.json").unlink(missing_ok=True)
        os.mkfifo(folder / "config.json")


def strange_rows(cell: Path, draw: random.Random) -> None:
    """A finished run whose epochs cannot be read."""
    folder = new_run(cell, draw)
    RunRecord(folder).finish(record_of(folder))
    rows = draw.choice([b"\xff", b'{"epoch": 1}\n', b'{"epoch": 1, "val": []}\n', b"[[", b"null\n"])
    (folder / "metrics.jsonl").write_bytes(rows)


def mark(cell: Path, draw: random.Random) -> None:
    """What says that a run is mirrored, of any content."""
    folder = new_run(cell, draw)
    (folder / "wandb").mkdir()
    text = draw.choice(["[]", "{}", '{"tracker": 1}', '{"tracker": {}, "header": {}}', "\x00"])
    (folder / "wandb" / "mirror.json").write_text(text)
    (folder / "error.txt").write_text("bad luck")


DAMAGES: dict[Callable[[Path, random.Random], None], str] = {
    change(budget="../../x"): "bad",
    change(budget="<script>alert(1)</script>"): "bad",
    change(modalities=["<img src=x onerror=alert(1)>", "audio"]): "bad",
    change(schema=3): "bad",
    change(schema=1): "harmless",
    change(status="running"): "bad",
    change(metric="a" * 300): "bad",
    change(label="<b>"): "bad",
    change(test={}): "bad",
    change(best_epoch=10**9): "bad",
    change(config={}): "bad",
    change(seed=10**400): "bad",
    content(b""): "bad",
    content(b'{"status": "done"}'): "bad",
    content(b"[" * 10**6): "bad",
    content(b'{"a":' * 10**5): "bad",
    content(b"NaN"): "bad",
    content(b"\x80\x04\x95cos\nsystem\n"): "bad",
    without_a_key: "bad",
    of_another_type: "bad",
    a_byte_changed: "bad",
    cut: "bad",
    in_the_wrong_place: "bad",
    a_pipe: "bad",
    a_folder_for_a_file: "bad",
    a_link_to_itself: "bad",
    a_folder_that_loops: "bad",
    a_name_of_any_bytes: "bad",
    stray: "harmless",
    strange_side_files: "harmless",
    strange_rows: "finished",
    mark: "harmless",
}


def test_damaged_trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    draw = random.Random(130)
    kinds = list(DAMAGES)
    problems = {}
    for number in range(TREES):
        runs = tmp_path / f"tree{number}" / "runs"
        cells = [runs / "smnist_mini" / fusion / s for s in STRATEGIES for fusion in ("concat",)]
        good = 0
        for cell in cells:
            for seed in range(2):
                folder = cell / f"{number:08x}{seed:04x}"
                summary = record_of(folder, seed=seed)
                RunRecord(folder).finish(summary)
                RunRecord(folder).rewrite_rows(epoch_rows(summary, 3))
                good += 1
        before = digests(runs)
        chosen = [kinds[number // 2 % len(kinds)], *draw.sample(kinds, draw.randrange(3))]
        for damage in chosen:
            damage(draw.choice(cells), draw)
            good += DAMAGES[damage] == "finished"
        bad = any(DAMAGES[damage] == "bad" for damage in chosen)
        names = ", ".join(getattr(d, "__qualname__", "") for d in chosen)
        for command in ("status", ("tables", "sync")[number % 2]):
            end = run(command, runs)
            problem = judge(end, CAMPAIGN, out_counts=False)
            if not problem and command != "sync" and (end.code == 1) != bad:
                problem = f"exit {end.code} with {'' if bad else 'no '}damage: {end.err}"
            if not problem and command == "status" and f"{good} done" not in end.out:
                problem = f"not {good} done: {end.out[-200:]}"
            if not problem and command == "tables" and f"{good} runs ->" not in end.out:
                problem = f"not {good} runs: {end.out[-200:]}"
            problem = problem or lost(CAMPAIGN, before, digests(runs))
            if problem:
                problems[f"tree {number}, {command}: {names}"] = problem
        if any(p.name not in ("runs", "results") for p in runs.parent.iterdir()):
            problems[f"tree {number}: {names}"] = "wrote outside its folders"
    assert not problems, "\n".join(f"{case}: {why}" for case, why in problems.items())


def run(command: str, runs: Path) -> Any:
    if command == "sync":
        return attempt("scripts/sync_wandb.py", [str(runs), "--all", "--dry-run"], cwd=runs.parent)
    more = (
        ["--results", str(runs.parent / "results"), "--tables-only"] if command == "tables" else []
    )
    arguments = [command, "--runs-dir", str(runs), *more]
    return attempt("scripts/reproduce.py", arguments, cwd=runs.parent)
