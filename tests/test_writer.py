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
from writer_kit import CARD, LAYOUT, calls, decode, make

from miles_repro.data.manifest import fingerprint, read_manifest, verify
from miles_repro.data.writer import Preparation, Refuse
from miles_repro.errors import UserError


def hashes(out: Path) -> dict[str, str]:
    return {name: entry["sha256"] for name, entry in read_manifest(out)["files"].items()}


def hashes_of_clean_run(tmp_path: Path) -> dict[str, str]:
    make(tmp_path / "clean" / "toy", tmp_path / "clean-raw")
    return hashes(tmp_path / "clean" / "toy")


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


def wait_for_silence(raw: Path) -> int:
    """The workers of a killed parent end by themselves: their calls stop coming."""
    for _ in range(100):
        before = len(calls(raw))
        time.sleep(0.3)
        if len(calls(raw)) == before:
            return before
    raise AssertionError("worker processes outlived their parent")


def touch(item: tuple[Path]) -> dict[str, np.ndarray]:
    with item[0].with_name("calls").open("a") as calls:
        calls.write("1\n")
    if item[0].name == "stop":
        raise Refuse(item[0], "stop here")
    return {"x": np.frombuffer(item[0].read_bytes()[:1], np.uint8)}


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


def test_problems_of_the_index_count_like_those_of_the_workers(tmp_path: Path) -> None:
    with Preparation(tmp_path / "toy", CARD, 1) as prep:
        prep.refuse(tmp_path / "x.json", "has no genre")
        with pytest.raises(UserError, match=r"x\.json: has no genre"):
            prep.fill([(1,)], partial(decode, tmp_path), LAYOUT)
    assert not (tmp_path / "calls").exists()


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
