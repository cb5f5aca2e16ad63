"""Damaged raw files of the published sets: one line each that names the file, nothing written."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import luma_kit
import mmimdb_kit
import numpy as np
import pytest
import smnist_kit
import soundfile
import test_mmimdb_hdf5

from miles_repro.data import media
from miles_repro.data.command import prepare_dataset
from miles_repro.data.media import BadFile, read_image, read_wav
from miles_repro.data.words import WordPieces
from miles_repro.errors import UserError

luma_raw, hdf5, smnist_raw = luma_kit.raw, test_mmimdb_hdf5.hdf5, smnist_kit.raw
tokenizer = mmimdb_kit.tokenizer


def header(shape: str, kind: str = "<f4") -> bytes:
    words = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    words += b" " * (117 - len(words)) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(words)) + words


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def flip(path: Path) -> None:
    """Change bytes in the middle: an archive's CRC does not fit any more."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4] = bytes(b ^ 0xFF for b in content[middle : middle + 4])
    path.write_bytes(bytes(content))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


# --- one file ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite(tmp_path: Path, value: float) -> None:
    samples = np.zeros(800, np.float32)
    samples[400] = value
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype="FLOAT")
    with pytest.raises(BadFile, match="NaN or infinite"):
        read_wav(tmp_path / "a.wav", 8000)


@pytest.mark.parametrize("rate", [1, 999, 4_000_000_000])
def test_an_absurd_sampling_rate(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(800, np.float32), 8000)
    content = bytearray(path.read_bytes())
    content[24:28] = struct.pack("<I", rate)
    path.write_bytes(bytes(content))
    with pytest.raises(BadFile, match=r"sampling rate|not readable as audio"):
        read_wav(path, 16_000)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    for read in (lambda p: read_wav(p, 8000), lambda p: read_image(p, 8), media.image_mode):
        with pytest.raises(BadFile, match="not an ordinary file"):
            read(tmp_path / "a.wav")


def test_postscript_behind_a_jpeg_starts_no_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was called"))
    path = tmp_path / "a.jpeg"
    path.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(BadFile, match="not readable as a picture"):
        read_image(path, 8)


def test_a_picture_s_absurd_size(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "a.png"
    Image.new("L", (4, 4)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
    path.write_bytes(bytes(content))
    with pytest.raises(BadFile, match="not readable as a picture"):
        read_image(path, 8)


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff"])
def test_a_tokenizer_s_damaged_settings(tokenizer: Path, content: bytes) -> None:
    (tokenizer / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"tokenizer_config\.json is not a json object"):
        WordPieces(tokenizer)


# --- luma ----------------------------------------------------------------------------------------

IMAGES, LIST = "image_data_unprocessed.npz", "audio_data_unprocessed.csv"


def latin(raw: Path) -> None:
    text = (raw / LIST).read_text().replace("television", "télévision")
    (raw / LIST).write_bytes(text.encode("latin-1"))


def away(raw: Path) -> None:
    text = (raw / LIST).read_text().replace("cv_audio/3.wav", "../../elsewhere.wav")
    (raw / LIST).write_text(text)


def absolute(raw: Path) -> None:
    (raw / LIST).write_text((raw / LIST).read_text().replace("cv_audio/3.wav", "/etc/passwd"))


def huge_images(raw: Path) -> None:
    import zipfile

    with zipfile.ZipFile(raw / IMAGES, "w") as archive:
        archive.writestr("image.npy", header("(999999999, 32, 32, 3)", "|u1"))
        archive.writestr("label.npy", header("(3,)"))


LUMA: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated npz": (lambda raw: cut(raw / IMAGES), IMAGES),
    "empty npz": (lambda raw: empty(raw / IMAGES), IMAGES),
    "bad CRC": (lambda raw: flip(raw / IMAGES), IMAGES),
    "a pipe as npz": (lambda raw: pipe(raw / IMAGES), "is not a LUMA folder"),
    "absurd header": (huge_images, IMAGES),
    "one array": (
        lambda raw: np.save((raw / IMAGES).open("wb"), np.zeros(3)),
        IMAGES,
    ),
    "other names": (lambda raw: np.savez(raw / IMAGES, pictures=[1], label=["a"]), IMAGES),
    "one picture": (lambda raw: np.savez(raw / IMAGES, image=3, label=["a"]), IMAGES),
    "objects": (
        lambda raw: np.savez(raw / IMAGES, image=np.array([{}]), label=["a"]),
        "Python objects",
    ),
    "latin-1": (latin, f"{LIST}: not readable as csv in UTF-8"),
    "leads out": (away, "leads out of"),
    "an absolute path": (absolute, "'/etc/passwd' leads out of"),
    "nul": (lambda raw: (raw / LIST).write_bytes(b"path,label\na\0,b\n"), LIST),
    "empty list": (lambda raw: empty(raw / LIST), f"{LIST} needs the columns"),
}


@pytest.mark.parametrize("case", LUMA)
def test_luma_files(case: str, luma_raw: Path, tmp_path: Path) -> None:
    spoil, words = LUMA[case]
    spoil(luma_raw)
    refused(words, lambda: luma_kit.prepare(luma_raw, tmp_path / "data"), tmp_path / "data/luma")


def test_luma_classes_twice(luma_raw: Path, tmp_path: Path) -> None:
    twice = ",".join([luma_kit.NAMES[0], *luma_kit.NAMES])
    refused(
        f"{luma_kit.NAMES[0]} more than once",
        lambda: luma_kit.prepare(luma_raw, tmp_path / "data", classes=twice),
        tmp_path / "data/luma",
    )


def refused(words: str, prepare: Callable[[], object], out: Path) -> None:
    with pytest.raises(UserError) as error:
        prepare()
    text = str(error.value)
    assert words in text
    assert "\n" not in text
    assert not out.exists()


# --- mmimdb, hdf5 --------------------------------------------------------------------------------


def change(action: Callable[[Any], object]) -> Callable[[Path], object]:
    def spoil(path: Path) -> None:
        import h5py

        with h5py.File(path, "r+") as file:
            action(file)

    return spoil


def replaced(name: str, make: Callable[[Any], object]) -> Callable[[Path], object]:
    def action(file: Any) -> None:
        attributes = dict(file[name].attrs)
        del file[name]
        made = make(file)
        if made is not None:
            file[name] = made
            file[name].attrs.update(attributes)

    return change(action)


HDF5: dict[str, Callable[[Path], object]] = {
    "truncated": cut,
    "empty": empty,
    "not hdf5": lambda path: path.write_bytes(b"hello"),
    "images are a group": replaced("images", lambda file: file.create_group("images") and None),
    "no genres": replaced("genres", lambda file: None),
    "genres of one axis": replaced("genres", lambda file: np.zeros(12, np.int32)),
    "fewer genres": replaced("genres", lambda file: np.zeros((9, 23), np.int32)),
    "genres are text": replaced("genres", lambda file: np.full((12, 23), b"x", "S1")),
    "more ids": replaced("imdb_ids", lambda file: np.arange(20)),
    "sequences are numbers": replaced("sequences", lambda file: np.zeros(12, np.int32)),
    "names are no json": change(lambda file: file["genres"].attrs.update(target_names="[")),
    "names are a number": change(lambda file: file["genres"].attrs.update(target_names=3)),
    "split is a text": change(lambda file: file.attrs.update(split="train")),
    "split is numbers": change(lambda file: file.attrs.update(split=np.arange(3))),
}


@pytest.mark.parametrize("case", HDF5)
def test_another_hdf5_layout(case: str, hdf5: Path, tmp_path: Path) -> None:
    HDF5[case](hdf5)
    out = tmp_path / "mmimdb"
    refused("multimodal_imdb.hdf5", lambda: mmimdb_kit.prepare(hdf5.parent, out, length=4), out)


# --- smnist --------------------------------------------------------------------------------------

ROWS = "split_index.npz"
SMNIST: dict[str, tuple[Callable[[Path], object], str]] = {
    "absurd header": (
        lambda raw: (raw / "data_wr_train.npy").write_bytes(header("(9999999999999, 784)")),
        "data_wr_train.npy cannot be read",
    ),
    "an archive": (
        lambda raw: np.savez((raw / "labels_test.npy").open("wb"), a=np.arange(3)),
        "labels_test.npy cannot be read",
    ),
    "a pipe": (lambda raw: pipe(raw / "labels_test.npy"), "lacks labels_test.npy"),
    "no rows": (
        lambda raw: np.save(raw / "labels_train.npy", np.zeros(0, int)),
        "labels_train.npy holds no row",
    ),
    "one label": (lambda raw: np.save(raw / "labels_train.npy", 3), "labels_train.npy has 1"),
    "split without rows": (
        lambda raw: np.savez(raw / ROWS, train=np.zeros(0, int), val=[1]),
        f"{ROWS}: train and val must be lists",
    ),
    "split of fractions": (
        lambda raw: np.savez(raw / ROWS, train=[0.5], val=[1]),
        f"{ROWS}: train and val must be lists",
    ),
    "empty split": (lambda raw: empty(raw / ROWS), ROWS),
}


@pytest.mark.parametrize("case", SMNIST)
def test_smnist_files(case: str, smnist_raw: Path, tmp_path: Path) -> None:
    spoil, words = SMNIST[case]
    spoil(smnist_raw)
    sizes = {"train": "200", "val": "50", "test": "50"}
    refused(
        words,
        lambda: prepare_dataset("smnist", smnist_raw, tmp_path / "data", sizes),
        tmp_path / "data/smnist",
    )
