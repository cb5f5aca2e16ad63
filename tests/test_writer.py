"""The writer of prepared folders: same bytes always, nothing lost in silence, resumable."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miles_repro.data import manifest as manifest_module
from miles_repro.data import progress as progress_module
from miles_repro.data import statistics
from miles_repro.data.manifest import file_table, fingerprint, read_manifest, verify
from miles_repro.data.pool import THREADS, in_parallel
from miles_repro.data.progress import Progress, duration
from miles_repro.data.splits import (
    draw_evenly,
    frozen_random,
    grouped_split,
    pair_by_label,
    proportional,
    shuffled,
    stratified_split,
)
from miles_repro.data.writer import Card, Preparation, Refuse, Skip
from miles_repro.errors import UserError

CARD = Card("toy", 1, "multiclass", ("a", "b"), "made up", "none", {"seed": 0})
LAYOUT = {"image": ((3, 2, 2), "uint8"), "audio": ((1, 4), "float32")}


def decode(folder: Path, item: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Worker: sample of a number; notes each call, skips and refuses where files say so."""
    (number,) = item
    with (folder / "calls").open("a") as calls:
        calls.write(f"{number}\n")
    if (folder / f"skip{number}").exists():
        raise Skip(f"file{number}", "empty")
    if (folder / f"refuse{number}").exists():
        raise Refuse(f"file{number}", "has 2 channels")
    if (folder / f"lost{number}").exists():
        (folder / f"gone{number}").read_bytes()
    image = np.full((3, 2, 2), number % 251, np.uint8)
    return {"image": image, "audio": np.full((1, 4), number / 7, np.float32)}


def make(
    out: Path, folder: Path, n: int = 40, workers: int = 1, chunk: int = 8, card: Card = CARD
) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    with Preparation(out, card, workers) as prep:
        kept = prep.fill([(i,) for i in range(n)], partial(decode, folder), LAYOUT, chunk)
        prep.write("labels", kept % 2)
        rows = shuffled(np.arange(len(kept)), seed=0)
        prep.split("random", train=rows[:-10], val=rows[-10:-5], test=rows[-5:])
        prep.normalise("image", axes=(1, 2))
        prep.normalise("audio")
        prep.note("made by a test")
        return prep.finish()


def calls(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "calls").read_text().split()]


def hashes(out: Path) -> dict[str, str]:
    return {name: entry["sha256"] for name, entry in read_manifest(out)["files"].items()}


def test_a_prepared_folder_holds_what_the_contract_says(tmp_path: Path) -> None:
    manifest = make(tmp_path / "toy", tmp_path / "raw")
    assert verify(tmp_path / "toy") == manifest == read_manifest(tmp_path / "toy")
    assert sorted(path.name for path in (tmp_path / "toy").iterdir()) == [
        *("audio.npy", "image.npy", "labels.npy", "manifest.json", "splits.npz", "stats.npz")
    ]
    assert not (tmp_path / "toy.partial").exists()
    image = np.load(tmp_path / "toy" / "image.npy", mmap_mode="r")
    assert image.shape == (40, 3, 2, 2)
    assert (image[:, 0, 0, 0] == np.arange(40)).all()
    assert manifest["modalities"]["audio"] == {"shape": [1, 4], "dtype": "float32"}
    assert manifest["schemes"]["random"]["train"] == 30
    assert sum(map(sum, manifest["schemes"]["random"]["per_class"].values())) == 40
    assert manifest["fingerprint"] == fingerprint(1, manifest["files"])
    assert manifest["report"] == {"skipped": [], "notes": ["made by a test"], "stand_in": False}
    with np.load(tmp_path / "toy" / "stats.npz") as stats:
        train = np.load(tmp_path / "toy" / "splits.npz")["random.train"]
        expected = image[train].mean(axis=(0, 2, 3)).reshape(3, 1, 1)
        np.testing.assert_allclose(stats["random.image.mean"], expected, rtol=1e-6)
        assert stats["random.audio.std"].shape == (1, 4)


def test_the_same_inputs_give_the_same_bytes_with_any_number_of_processes(tmp_path: Path) -> None:
    first = make(tmp_path / "a" / "toy", tmp_path / "raw")
    again = make(tmp_path / "b" / "toy", tmp_path / "raw", workers=2)
    assert first == again
    assert (
        first["fingerprint"] != make(tmp_path / "c" / "toy", tmp_path / "raw", n=41)["fingerprint"]
    )


def test_skipped_items_leave_no_row_and_are_reported(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for number in (3, 17, 39):
        (raw / f"skip{number}").touch()
    manifest = make(tmp_path / "toy", raw)
    assert manifest["rows"] == 37
    assert manifest["report"]["skipped"] == [
        {"file": f"file{number}", "reason": "empty"} for number in (17, 3, 39)
    ]
    image = np.load(tmp_path / "toy" / "image.npy")
    assert image[:, 0, 0, 0].tolist() == [n for n in range(40) if n not in (3, 17, 39)]
    verify(tmp_path / "toy")


def test_refused_files_stop_it_after_all_were_looked_at(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "refuse5").touch()
    (raw / "lost30").touch()
    with pytest.raises(UserError, match=r"2 file\(s\) refused") as error:
        make(tmp_path / "toy", raw)
    listing = json.loads((tmp_path / "toy.partial" / "refused.json").read_text())
    assert [entry["reason"] for entry in listing] == ["No such file or directory", "has 2 channels"]
    assert str(tmp_path / "toy.partial" / "refused.json") in str(error.value)
    assert not (tmp_path / "toy").exists()
    assert len(calls(raw)) == 40
    (raw / "refuse5").unlink()
    (raw / "lost30").unlink()
    make(tmp_path / "toy", raw)
    assert sorted(calls(raw)[40:]) == [*range(8), *range(24, 32)]  # only their chunks again
    assert hashes(tmp_path / "toy") == hashes_of_clean_run(tmp_path)


def hashes_of_clean_run(tmp_path: Path) -> dict[str, str]:
    make(tmp_path / "clean" / "toy", tmp_path / "clean-raw")
    return hashes(tmp_path / "clean" / "toy")


def test_problems_of_the_index_count_like_those_of_the_workers(tmp_path: Path) -> None:
    with Preparation(tmp_path / "toy", CARD, 1) as prep:
        prep.refuse(tmp_path / "x.json", "has no genre")
        with pytest.raises(UserError, match=r"x\.json: has no genre"):
            prep.fill([(1,)], partial(decode, tmp_path), LAYOUT)
    assert not (tmp_path / "calls").exists()


KILLED = """
import sys, time
from pathlib import Path
import test_writer as t

decode = t.decode

def slow(folder, item):
    time.sleep(0.02)
    return decode(folder, item)

if __name__ == "__main__":
    t.decode = slow
    t.make(Path(sys.argv[1]), Path(sys.argv[2]), n=200, workers=2)
"""


def test_killed_midway_it_goes_on_and_ends_with_the_same_hashes(tmp_path: Path) -> None:
    out, raw = tmp_path / "toy", tmp_path / "raw"
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    here = Path(__file__).resolve().parent
    paths = os.pathsep.join([str(here), str(here.parent)])
    run = subprocess.Popen(
        [sys.executable, str(script), str(out), str(raw)],
        env={**os.environ, "PYTHONPATH": paths},
        stderr=subprocess.DEVNULL,
    )
    log = tmp_path / "toy.partial" / "image+audio.progress"
    deadline = time.monotonic() + 60
    while not (log.exists() and len(log.read_text().splitlines()) > 6):
        assert run.poll() is None, "the preparation ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    seen = wait_for_silence(raw)
    done = len(log.read_text().splitlines()) - 1
    assert 0 < done < 25
    assert not out.exists()
    # what the plan is made of does not name the worker, so this process goes on from there
    manifest = make(out, raw, n=200)
    assert len(calls(raw)) - seen == 200 - 8 * done
    assert manifest == make(tmp_path / "clean" / "toy", tmp_path / "clean-raw", n=200)


def wait_for_silence(raw: Path) -> int:
    """The workers of a killed parent end by themselves: their calls stop coming."""
    for _ in range(100):
        before = len(calls(raw))
        time.sleep(0.3)
        if len(calls(raw)) == before:
            return before
    raise AssertionError("worker processes outlived their parent")


def test_an_interruption_while_arrays_are_settled_is_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "skip3").touch()
    from miles_repro.data import writer

    settle = writer.settle

    def stop_at_audio(path: Path, kept: Any) -> None:
        if path.name == "audio.rows":
            raise KeyboardInterrupt
        settle(path, kept)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "settle", stop_at_audio)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "toy", raw)
    manifest = make(tmp_path / "toy", raw)
    assert len(calls(raw)) == 40  # nothing was decoded twice
    assert manifest == make(tmp_path / "again" / "toy", raw)


def touch(item: tuple[Path]) -> dict[str, np.ndarray]:
    with item[0].with_name("calls").open("a") as calls:
        calls.write("1\n")
    if item[0].name == "stop":
        raise Refuse(item[0], "stop here")
    return {"x": np.frombuffer(item[0].read_bytes()[:1], np.uint8)}


def test_a_file_changed_meanwhile_starts_anew(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a", "b", "stop")]
    for file in files:
        file.write_bytes(b"1")
    for changed, expected in ((False, 4), (True, 3)):
        before = len(calls(tmp_path)) if (tmp_path / "calls").exists() else 0
        if changed:
            files[0].write_bytes(b"22")
        with (
            Preparation(tmp_path / "toy", CARD, 1) as prep,
            pytest.raises(UserError, match="stop here"),
        ):
            prep.fill([(file,) for file in files], touch, {"x": ((1,), "uint8")}, chunk=1)
        if not changed:  # once more: only the refused one is looked at
            with (
                Preparation(tmp_path / "toy", CARD, 1) as prep,
                pytest.raises(UserError, match="stop here"),
            ):
                prep.fill([(file,) for file in files], touch, {"x": ((1,), "uint8")}, chunk=1)
        assert len(calls(tmp_path)) - before == expected


def test_a_worker_that_breaks_its_word_is_a_programming_error(tmp_path: Path) -> None:
    with (
        Preparation(tmp_path / "toy", CARD, 1) as prep,
        pytest.raises(TypeError, match="declared uint8"),
    ):
        prep.fill([(1,)], partial(decode, tmp_path), {"image": ((3, 3, 3), "uint8")})


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_is_one_line_and_keeps_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(UserError, match=os.strerror(number)):
            make(tmp_path / "toy", tmp_path / "raw")
    make(tmp_path / "toy", tmp_path / "raw")


def test_an_unwritable_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="choose another folder"):
        make(tmp_path / "file" / "toy", tmp_path / "raw")


def test_two_processes_cannot_prepare_the_same_folder(tmp_path: Path) -> None:
    with (
        Preparation(tmp_path / "toy", CARD, 1),
        pytest.raises(UserError, match="another process"),
        Preparation(tmp_path / "toy", CARD, 1),
    ):
        pass
    with Preparation(tmp_path / "toy", CARD, 1):
        pass


def test_the_old_folder_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    make(tmp_path / "toy", tmp_path / "raw")
    before = hashes(tmp_path / "toy")
    (tmp_path / "raw" / "refuse1").touch()
    with pytest.raises(UserError):
        make(tmp_path / "toy", tmp_path / "raw")
    verify(tmp_path / "toy")
    assert hashes(tmp_path / "toy") == before
    (tmp_path / "raw" / "refuse1").unlink()
    make(tmp_path / "toy", tmp_path / "raw", n=20)
    assert read_manifest(tmp_path / "toy")["rows"] == 20
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw", "toy"]


def resign(out: Path) -> None:
    """Make hashes fit again after an array was changed, so that deeper checks are reached."""
    manifest = read_manifest(out)
    manifest["files"] = file_table(out, list(manifest["files"]))
    manifest["fingerprint"] = fingerprint(manifest["version"], manifest["files"])
    (out / "manifest.json").write_text(json.dumps(manifest))


def break_byte(out: Path) -> None:
    content = bytearray((out / "image.npy").read_bytes())
    content[-1] ^= 1
    (out / "image.npy").write_bytes(content)


def break_rows(out: Path) -> None:
    np.save(out / "audio.npy", np.load(out / "audio.npy")[:-1])
    resign(out)


def break_labels(out: Path) -> None:
    np.save(out / "labels.npy", np.load(out / "labels.npy") + 1)
    resign(out)


def break_split(out: Path, change: Any) -> None:
    with np.load(out / "splits.npz") as splits:
        parts = {name: splits[name].copy() for name in splits.files}
    change(parts)
    np.savez(out / "splits.npz", **parts)
    resign(out)


@pytest.mark.parametrize(
    "damage,complaint",
    [
        (lambda out: (out / "manifest.json").unlink(), "no manifest.json"),
        (lambda out: (out / "manifest.json").write_text("{"), "cannot be read"),
        (lambda out: (out / "manifest.json").write_text('{"schema": 9}'), "schema 1"),
        (lambda out: (out / "audio.npy").unlink(), "audio.npy is missing"),
        (lambda out: (out / "audio.npy").write_bytes(b"x"), "audio.npy has 1 bytes"),
        (break_byte, "image.npy has another sha256"),
        (break_rows, "audio.npy holds float32"),
        (break_labels, "labels.npy holds labels outside"),
        (
            lambda out: break_split(out, lambda p: p["random.val"].__setitem__(0, 999)),
            "a row that does not exist",
        ),
        (
            lambda out: break_split(
                out, lambda p: p["random.val"].__setitem__(0, p["random.test"][0])
            ),
            "uses a row twice",
        ),
        (
            lambda out: break_split(out, lambda p: p.update({"random.val": p["random.val"][1:]})),
            "'val': 4",
        ),
    ],
)
def test_verify_names_what_is_damaged(tmp_path: Path, damage: Any, complaint: str) -> None:
    make(tmp_path / "toy", tmp_path / "raw")
    damage(tmp_path / "toy")
    with pytest.raises(UserError, match=complaint):
        verify(tmp_path / "toy")


def test_verify_checks_the_fingerprint(tmp_path: Path) -> None:
    manifest = make(tmp_path / "toy", tmp_path / "raw")
    manifest["version"] = 2
    (tmp_path / "toy" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="fingerprint"):
        verify(tmp_path / "toy")


def test_multilabel_counts_labels(tmp_path: Path) -> None:
    card = Card("toy", 1, "multilabel", ("a", "b", "c"), "", "")
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]], np.uint8)
    with Preparation(tmp_path / "toy", card, 1) as prep:
        prep.write("x", np.zeros((3, 1), np.float32))
        prep.write("labels", labels)
        prep.split("s", train=np.array([0, 1]), val=np.array([2]), test=np.array([], int))
        manifest = prep.finish()
    assert manifest["schemes"]["s"]["per_class"] == {
        "train": [2, 1, 0],
        "val": [0, 1, 0],
        "test": [0, 0, 0],
    }
    verify(tmp_path / "toy")


def test_other_data_than_the_papers_are_marked_with_the_reason(tmp_path: Path) -> None:
    with Preparation(tmp_path / "toy", CARD, 1) as prep:
        prep.write("labels", np.zeros(3, np.int64))
        prep.stand_in("half of the rows")
        report = prep.finish()["report"]
    assert report == {"skipped": [], "notes": ["half of the rows"], "stand_in": True}


def test_rows_and_parts_must_fit(tmp_path: Path) -> None:
    with Preparation(tmp_path / "toy", CARD, 1) as prep:
        prep.write("x", np.zeros((3, 1), np.float32))
        prep.write("labels", np.zeros(4, np.int64))
        with pytest.raises(ValueError, match="train"):
            prep.split("s", train=np.arange(4))
        with pytest.raises(ValueError, match="x has 3 rows, labels have 4"):
            prep.finish()


def test_statistics_are_numpys_in_any_number_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    array = random.normal(1e4, 1, (50, 3, 4, 5)).astype(np.float32)
    array[:, 2] = 7
    rows = random.permutation(50)[:33]
    monkeypatch.setattr(statistics, "BLOCK_BYTES", 8 * 60 * 5)
    mean, std = statistics.mean_and_std(array, rows, (1, 2))
    chosen = array[rows].astype(np.float64)
    np.testing.assert_allclose(mean[:, 0, 0], chosen.mean(axis=(0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(std[:2, 0, 0], chosen[:, :2].std(axis=(0, 2, 3)), rtol=1e-6)
    assert std[2] == 1  # a channel that never changes divides by 1
    assert statistics.mean_and_std(array, rows, ())[0].shape == (3, 4, 5)
    with pytest.raises(ValueError, match="no training rows"):
        statistics.mean_and_std(array, rows[:0], ())


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.data())
@settings(max_examples=60, deadline=None)
def test_proportional_shares(counts: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(0, sum(counts)))
    shares = proportional(np.array(counts), total)
    assert shares.sum() == total
    assert (shares <= counts).all()
    if sum(counts):
        assert (np.abs(shares - total * np.array(counts) / sum(counts)) < 1).all()


def test_a_stratified_split_is_exact_disjoint_and_frozen() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 21])
    parts = stratified_split(labels, {"train": 60, "val": 20, "test": 11}, seed=5)
    assert [len(rows) for rows in parts.values()] == [60, 20, 11]
    assert len(np.unique(np.concatenate(list(parts.values())))) == 91
    assert np.bincount(labels[parts["train"]]).tolist() == [30, 18, 12]
    # RandomState's stream is frozen, so these numbers hold on every machine
    assert parts["test"].tolist() == [27, 8, 95, 62, 39, 94, 63, 80, 36, 9, 61]
    with pytest.raises(UserError, match="only 101"):
        stratified_split(labels, {"train": 100, "val": 2}, seed=0)


def test_pairs_agree_in_class_and_use_everything_equally() -> None:
    first = np.repeat([0, 1], [6, 6])
    second = np.repeat([1, 0], [4, 3])
    left, right = pair_by_label(first, second, per_class=6, seed=1)
    assert (first[left] == second[right]).all()
    assert sorted(left) == list(range(12))
    uses = np.bincount(right, minlength=7)
    assert uses.tolist() == [*uses[:4], 2, 2, 2]
    assert sorted(uses[:4]) == [1, 1, 2, 2]
    with pytest.raises(UserError, match=r"\[2\]"):
        pair_by_label(np.array([0, 2]), np.array([0]), 1, 0)


def test_draw_evenly_repeats_nothing_before_all_were_used() -> None:
    drawn = draw_evenly(np.arange(10, 15), 12, frozen_random(0))
    assert sorted(drawn[:5]) == sorted(drawn[5:10]) == list(range(10, 15))
    assert len(set(drawn[10:])) == 2


@given(st.integers(0, 2**31), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_a_grouped_split_never_divides_a_group(seed: int, largest: int) -> None:
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(60), random.integers(1, largest + 1, 60))
    labels = (groups % 3).astype(np.int64)
    labels[0] = 2 if groups[0] == groups[1] else labels[0]  # a group of two classes
    sizes = {"train": len(groups) // 2, "val": len(groups) // 5}
    parts = grouped_split(labels, groups, sizes, seed % 1000)
    assert {part: len(rows) for part, rows in parts.items()} == sizes
    assert not set(groups[parts["train"]]) & set(groups[parts["val"]])
    shares = np.bincount(labels[parts["val"]]) / sizes["val"]
    assert np.abs(shares - np.bincount(labels) / len(labels)).max() <= 1 / sizes["val"]


def test_a_grouped_split_that_cannot_be_says_so() -> None:
    with pytest.raises(UserError, match="class 0 has"):
        grouped_split(np.zeros(10, int), np.zeros(10, int), {"train": 5, "val": 5}, 0)


def test_plain_progress_says_what_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "PLAIN_EVERY_S", 0.0)
    now = iter([0.0, 10.0, 40.0, 40.0])
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(now))
    with Progress("toy", 100, done=20) as bar:
        bar.advance(20)
        bar.advance(60)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "toy: 20 of 100 were done before; going on from there",
        "toy: 40 of 100 (40%), about 30 s left",
        "toy: 100 of 100 done in 40 s",
    ]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress("toy", 10) as bar:
        bar.advance(10)
    assert "10/10" in screen.getvalue()


def test_durations() -> None:
    assert [duration(s) for s in (0.4, 59, 61, 3725)] == ["0 s", "59 s", "1 min 01 s", "1 h 02 min"]


def ask_environment(_: int) -> str:
    return os.environ["OMP_NUM_THREADS"]


def die(_: int) -> None:
    os._exit(9)


def test_workers_compute_with_one_thread_and_leave_no_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = {name: os.environ.get(name) for name in THREADS}
    assert dict(in_parallel(ask_environment, [1, 2], 2)) == {0: "1", 1: "1"}
    assert {name: os.environ.get(name) for name in THREADS} == before


def test_a_killed_worker_is_one_line() -> None:
    with pytest.raises(UserError, match="out of memory"):
        list(in_parallel(die, [1, 2], 2))


def test_hashing_does_not_depend_on_the_order_of_names(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    table = file_table(tmp_path, ["b", "a"])
    assert list(table) == ["a", "b"]
    assert fingerprint(1, table) == fingerprint(1, dict(reversed(table.items())))
    assert fingerprint(1, table) != fingerprint(2, table)
    assert manifest_module.sha256_of(tmp_path / "a").startswith("ca978112")
