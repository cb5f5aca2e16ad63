"""Reading prepared folders: where a batch comes from never changes it; damage is one line."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import prepare_tiny

from miles_repro.data import reader
from miles_repro.data.manifest import fingerprint, sha256_of
from miles_repro.data.reader import Part, PreparedData
from miles_repro.errors import UserError

CPU = torch.device("cpu")
N = 40
RNG = np.random.default_rng(0)
ARRAYS = {
    "image": RNG.integers(0, 256, (N, 3, 4, 5), dtype=np.uint8),
    "audio": RNG.normal(size=(N, 1, 6, 7)).astype(np.float16),
    "touch": RNG.normal(size=(N, 9)).astype(np.float32),
    "smell": RNG.normal(size=(N, 2)).astype(np.float16),
    "text": RNG.integers(0, 30000, (N, 11), dtype=np.int32),
}
STATS = {
    "image": (RNG.random((3, 1, 1), dtype=np.float32), RNG.random((3, 1, 1), dtype=np.float32) + 1),
    "audio": (RNG.random((1, 6, 7), dtype=np.float32), RNG.random((1, 6, 7), dtype=np.float32) + 1),
    "touch": (np.float32(0.5) * np.ones(1, np.float32), np.float32([2.0])),
}
LABELS = RNG.integers(0, 3, N)
ROWS = RNG.permutation(N)[:30]


def part_of(resident_mb: int, rows: Any = ROWS) -> Part:
    return Part(ARRAYS, LABELS, rows, STATS, CPU, resident_mb)


@pytest.fixture(scope="module")
def mapped_arrays(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("arrays")
    for name, array in ARRAYS.items():
        np.save(folder / f"{name}.npy", array)
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}


@given(st.permutations(range(30)), st.integers(1, 31))
def test_memory_mapped_and_resident_batches_are_the_same(
    mapped_arrays: dict[str, Any], order: list[int], size: int
) -> None:
    resident = part_of(1)
    mapped = Part(mapped_arrays, LABELS, ROWS, STATS, CPU, 0)
    assert resident._resident is not None
    assert mapped._resident is None
    index = torch.tensor(order)
    pairs = list(zip(resident.batches(index, size), mapped.batches(index, size), strict=True))
    assert len(pairs) == -(-30 // size)  # nothing is dropped
    for (x, y), (x2, y2) in pairs:
        assert torch.equal(y, y2)
        assert list(x) == list(x2) == list(ARRAYS)
        for m in x:
            assert x[m].dtype == x2[m].dtype
            assert torch.equal(x[m], x2[m])
    assert torch.equal(torch.cat([y for (_, y), _ in pairs]), torch.tensor(LABELS[ROWS])[index])


@pytest.mark.parametrize("resident_mb", [0, 1])
def test_a_batch_is_the_normalised_rows(resident_mb: int) -> None:
    index = torch.tensor([4, 0, 4])
    part = part_of(resident_mb)
    for _ in range(2):  # normalising in place must not eat the source
        x, y = part.batch(index)
        rows = ROWS[index.numpy()]
        for m, (mean, std) in STATS.items():
            expected = (ARRAYS[m][rows].astype(np.float32) - mean) / std
            assert x[m].dtype == torch.float32
            np.testing.assert_array_equal(x[m].numpy(), expected)
        assert x["smell"].dtype == torch.float32  # no statistics: as it is
        np.testing.assert_array_equal(x["smell"].numpy(), ARRAYS["smell"][rows].astype(np.float32))
        assert x["text"].dtype == torch.int64  # token ids
        np.testing.assert_array_equal(x["text"].numpy(), ARRAYS["text"][rows])
        np.testing.assert_array_equal(y.numpy(), LABELS[rows])
    only, _ = part.batch(index, only="audio")
    assert list(only) == ["audio"]
    assert torch.equal(only["audio"], x["audio"])


def test_large_sets_stay_memory_mapped(mapped_arrays: dict[str, Any]) -> None:
    part = Part(mapped_arrays, LABELS, ROWS, STATS, CPU, 0)
    assert not any(isinstance(a, np.ndarray | torch.Tensor) for a in part._stored.values())


def test_the_next_batch_is_read_while_one_is_used(mapped_arrays: dict[str, Any]) -> None:
    part = Part(mapped_arrays, LABELS, ROWS, STATS, CPU, 0)
    asked: list[tuple[int, str]] = []
    second = threading.Event()
    original = part.batch

    def batch(index: torch.Tensor, only: str | None = None) -> Any:
        asked.append((int(index[0]), threading.current_thread().name))
        if len(asked) == 2:
            second.set()
        return original(index, only)

    part.batch = batch  # type: ignore[method-assign]
    batches = part.batches(torch.arange(30), 10)
    next(batches)
    assert second.wait(5)  # the second was asked for before we came back for it
    assert len(list(batches)) == 2
    assert [first for first, _ in asked] == [0, 10, 20]
    assert threading.current_thread().name not in {name for _, name in asked}


def test_a_reader_s_error_reaches_the_training(mapped_arrays: dict[str, Any]) -> None:
    part = Part(mapped_arrays, LABELS, ROWS, STATS, CPU, 0)
    original = part.batch

    def batch(index: torch.Tensor, only: str | None = None) -> Any:
        if int(index[0]) == 10:
            raise OSError("disk gone")
        return original(index, only)

    part.batch = batch  # type: ignore[method-assign]
    before = threading.active_count()
    with pytest.raises(OSError, match="disk gone"):
        list(part.batches(torch.arange(30), 10))
    batches = part_of(0).batches(torch.arange(30), 3)
    next(batches)
    batches.close()  # a training that ends early leaves no thread behind
    assert threading.active_count() == before


def test_splits_scheme_and_fraction(tiny_data: Path) -> None:
    data = PreparedData(tiny_data / "tiny", "main", ["audio", "image"])
    sizes = {p: len(data.part(p, CPU, 100)) for p in ("train", "val", "test")}
    assert sizes == {"train": 26, "val": 14, "test": 12}
    whole, share = data.part("train", CPU, 100), data.part("train", CPU, 100, 0.2)
    assert len(share) == 5
    first, _ = whole.batch(torch.arange(5))
    again, _ = share.batch(torch.arange(5))
    assert torch.equal(first["image"], again["image"])  # the first of a shuffled split
    assert len(data.part("train", CPU, 100, 1e-9)) == 1
    assert list(first) == ["audio", "image"]
    labels = PreparedData(tiny_data / "tiny_labels", "main", ["image"]).part("val", CPU, 100).labels
    assert (labels.shape, labels.dtype) == ((14, 3), torch.uint8)
    x, _ = whole.batch(torch.arange(26))
    assert abs(float(x["image"].mean())) < 1e-5  # statistics of exactly the training rows
    assert float(x["image"].std(correction=0)) == pytest.approx(1, abs=1e-4)


# --- damage -----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prepare_tiny(tmp_path) / "tiny"


def refusal(folder: Path, scheme: str = "main", modalities: tuple[str, ...] = ("image",)) -> str:
    with pytest.raises(UserError) as error:
        PreparedData(folder, scheme, list(modalities)).part("train", CPU, 100)
    text = str(error.value)
    assert "\n" not in text
    return text


def rewrite_manifest(folder: Path, name: str) -> None:
    """Make the manifest agree with the file as it is now."""
    manifest = json.loads((folder / "manifest.json").read_text())
    path = folder / name
    manifest["files"][name] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    manifest["fingerprint"] = fingerprint(manifest["version"], manifest["files"])
    (folder / "manifest.json").write_text(json.dumps(manifest))


def flip_a_bit(path: Path, at: int = -7) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "name", ["image.npy", "audio.npy", "labels.npy", "splits.npz", "stats.npz"]
)
def test_a_changed_file_is_named(name: str, folder: Path) -> None:
    PreparedData(folder, "main", ["image"])
    flip_a_bit(folder / name)
    text = refusal(folder)
    assert f"{folder / name} does not match its sha256 in the manifest" in text
    assert "prepare it again with python scripts/prepare_data.py dataset=tiny --force" in text
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{name} has" in refusal(folder)
    path.unlink()
    assert f"{name} is missing" in refusal(folder)


def test_unknown_scheme_and_modality(folder: Path) -> None:
    assert "no split scheme 'other'; it has main and rotate" in refusal(folder, scheme="other")
    text = refusal(folder, modalities=("image", "smell", "taste"))
    assert "no modality smell, taste in this prepared set" in text


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "holds no prepared data (no manifest.json)"),
        ("{", "cannot be read"),
        ("[]", "not a manifest of schema 1"),
        ('{"schema": 99}', "not a manifest of schema 1"),
    ],
)
def test_a_bad_manifest(content: str | None, words: str, folder: Path) -> None:
    if content is None:
        (folder / "manifest.json").unlink()
    else:
        (folder / "manifest.json").write_text(content)
    assert words in refusal(folder)


@pytest.mark.parametrize("name", ["image.npy", "labels.npy", "splits.npz", "stats.npz"])
def test_files_that_are_no_arrays(name: str, folder: Path) -> None:
    (folder / name).write_bytes(b"PK\x03\x04 nonsense")
    rewrite_manifest(folder, name)
    assert f"{name} cannot be read" in refusal(folder)


def test_pickles_are_not_opened(folder: Path) -> None:
    np.save(folder / "labels.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    rewrite_manifest(folder, "labels.npy")
    assert "labels.npy cannot be read" in refusal(folder)


def test_hashes_are_checked_once_a_process_and_for_small_sets(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr(reader, "sha256_of", counted)
    for _ in range(3):
        PreparedData(folder, "main", ["image"])
    assert len(hashed) == len(set(hashed)) == 5
    flip_a_bit(folder / "audio.npy")
    with monkeypatch.context() as patch:
        patch.setattr(reader, "HASH_LIMIT", 0)
        PreparedData(folder, "main", ["image"])  # too large to hash: sizes alone
    assert len(hashed) == 5
    assert "does not match" in refusal(folder)


def test_a_damaged_archive_of_a_large_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not hashed, so the archive's own checksum has to speak."""
    monkeypatch.setattr(reader, "HASH_LIMIT", 0)
    flip_a_bit(folder / "splits.npz", 140)
    assert "splits.npz cannot be read" in refusal(folder)
