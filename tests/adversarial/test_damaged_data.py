"""Damaged raw and prepared data sets: one line that names the file, or a preparation that holds.

Raw files are damaged copies of the stand-ins (`shared_data`); prepared ones are synthetic.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from harness import REPO, attempt, digests, judge, lost

from miles_repro import (
    job,  # noqa: F401 - loaded once, for all forks
    training,  # noqa: F401
)

pytestmark = pytest.mark.slow
RAW, PREPARED = "raw files", "prepared files"
Damage = Callable[[Path, random.Random], None]


def cut(path: Path, draw: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])


def flipped(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(draw.choice([1, 20])):
        data[draw.randrange(min(len(data), draw.choice([100, 10**9])))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def empty(path: Path, draw: random.Random) -> None:
    path.write_bytes(b"")


def noise(path: Path, draw: random.Random) -> None:
    path.write_bytes(draw.randbytes(draw.choice([1, 500, 20_000])))


def longer(path: Path, draw: random.Random) -> None:
    path.write_bytes(path.read_bytes() + draw.randbytes(999))


def latin(path: Path, draw: random.Random) -> None:
    path.write_bytes("é;ü\n".encode("latin-1") + path.read_bytes()[:2000])


def absurd_header(path: Path, draw: random.Random) -> None:
    """An array of 10^15 rows, or of Python objects."""
    forms = ("(1000000000000000, 784)", "<f8"), ("(-5,)", "<f8"), ("(3,)", "|O")
    shape, kind = draw.choice(forms)
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (117 - len(header)) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())


def postscript(path: Path, draw: random.Random) -> None:
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(pwned) (w) file\n%%EOF\n")


def pickled(path: Path, draw: random.Random) -> None:
    path.write_bytes(
        b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93."
    )


def missing(path: Path, draw: random.Random) -> None:
    path.unlink()


def pipe(path: Path, draw: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()


def loop(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.name)


def not_finite(path: Path, draw: random.Random) -> None:
    """An array of the same shape with NaN or infinity in it, else of noise."""
    try:
        array = np.load(path, allow_pickle=False).astype(np.float32)
        array.flat[draw.randrange(array.size)] = draw.choice([np.nan, np.inf])
    except (ValueError, OSError, AttributeError):
        noise(path, draw)
    else:
        with path.open("wb") as file:
            np.save(file, array)


DAMAGES: tuple[Damage, ...] = (
    *(cut, flipped, empty, noise, longer, latin, absurd_header, postscript, pickled, missing),
    *(pipe, folder, loop, not_finite),
)


def copy(source: Path, target: Path) -> None:
    """A folder of links; what is damaged is made a file of its own."""
    for path in source.rglob("*"):
        if path.is_file():
            new = target / path.relative_to(source)
            new.parent.mkdir(parents=True, exist_ok=True)
            new.symlink_to(path)


def own(path: Path) -> Path:
    real = path.resolve()
    path.unlink()
    shutil.copyfile(real, path)
    return path


def cases(root: Path, count: int, draw: random.Random) -> Iterator[tuple[Path, Damage]]:
    """(file, damage): every damage alike; files by kind, so that rare kinds have their turn."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        several = sum(p.suffix == path.suffix for p in path.parent.iterdir()) > 20
        kinds.setdefault(path.suffix if several else path.name, []).append(path.relative_to(root))
    for number in range(count):
        names = draw.choice(list(kinds.values()))
        yield draw.choice(names), DAMAGES[number % len(DAMAGES)]


def small_posters(shared_data: Path, target: Path) -> Path:
    """Sixty of the stand-in's posters."""
    split = json.loads((shared_data / "mmimdb_like" / "split.json").read_text())
    few = {part: names[:n] for (part, names), n in zip(split.items(), (40, 10, 10), strict=True)}
    (target / "dataset").mkdir(parents=True)
    (target / "split.json").write_text(json.dumps(few))
    for name in (name for names in few.values() for name in names):
        for suffix in (".json", ".jpeg"):
            found = shared_data / "mmimdb_like" / "dataset" / f"{name}{suffix}"
            (target / "dataset" / found.name).symlink_to(found)
    return target


@pytest.mark.parametrize(("dataset", "count"), [("smnist", 28), ("mmimdb", 42), ("luma", 14)])
def test_raw(shared_data: Path, tmp_path: Path, dataset: str, count: int) -> None:
    if dataset == "mmimdb":
        original = small_posters(shared_data, tmp_path / "original")
    else:
        original = shared_data / {"smnist": "smnist_wsd", "luma": "luma_like"}[dataset]
    draw = random.Random(140)
    problems = {}
    for number, (name, damage) in enumerate(cases(original, count, draw)):
        place = tmp_path / str(number)
        copy(original, place / "raw")
        damage(own(place / "raw" / name), draw)
        options = [f"dataset={dataset}", f"raw={place / 'raw'}", f"out={place / 'data'}"]
        end = attempt("scripts/prepare_data.py", [*options, "workers=1"], cwd=place, limit_s=180)
        problem = judge(end, RAW, out_counts=False)
        if not problem and end.code and (place / "data" / dataset / "manifest.json").exists():
            problem = "refused, yet there is a prepared set"
        if problem:
            problems[f"{dataset}: {name} {damage.__name__}"] = problem
        shutil.rmtree(place)
    assert not problems, "\n".join(f"{case}: {why}" for case, why in problems.items())


def test_prepared(tiny_data: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    search = f"hydra.searchpath=[file://{REPO / 'tests' / 'conf'}]"
    base = [search, "tracker=none", "runtime.device=cpu", "dataset=tiny", "epochs=1"]
    base += [f"runtime.runs_dir={runs}", "strategy=vanilla"]
    good = [*base, f"runtime.data_dir={tiny_data}"]
    assert attempt("train.py", [*good, "seed=100000"], cwd=tmp_path).code == 0
    finished = digests(runs)
    draw = random.Random(150)
    problems = {}
    for number, (name, damage) in enumerate(cases(tiny_data / "tiny", 84, draw)):
        place = tmp_path / str(number)
        shutil.copytree(tiny_data / "tiny", place / "tiny")
        damage(place / "tiny" / name, draw)
        refused = None if damage in (flipped, longer) else True
        arguments = [*base, f"runtime.data_dir={place}", f"seed={number}"]
        end = attempt("train.py", arguments, cwd=tmp_path)
        problem = judge(end, PREPARED, refused=refused) or lost(PREPARED, finished, digests(runs))
        if problem:
            problems[f"{name} {damage.__name__}"] = problem
        shutil.rmtree(place)
    assert not problems, "\n".join(f"{case}: {why}" for case, why in problems.items())


def test_data_changed_together_with_its_manifest_entry(tiny_data: Path, tmp_path: Path) -> None:
    """The fingerprint is of the files: it does not vouch for others."""
    from miles_repro.data.manifest import sha256_of

    shutil.copytree(tiny_data / "tiny", tmp_path / "data" / "tiny")
    path = tmp_path / "data" / "tiny" / "audio.npy"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    manifest = path.with_name("manifest.json")
    known = json.loads(manifest.read_text())
    known["files"]["audio.npy"]["sha256"] = sha256_of(path)
    manifest.write_text(json.dumps(known))
    search = f"hydra.searchpath=[file://{REPO / 'tests' / 'conf'}]"
    where = [f"runtime.data_dir={tmp_path / 'data'}", f"runtime.runs_dir={tmp_path / 'runs'}"]
    arguments = [search, "tracker=none", "runtime.device=cpu", "dataset=tiny", "epochs=1", *where]
    end = attempt("train.py", arguments, cwd=tmp_path)
    assert not judge(end, PREPARED, refused=True)
