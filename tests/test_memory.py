"""Peak memory of training on a data set of CREMA-D's true size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import REPO

from miles_repro.data.cremad_index import EMOTIONS, official_clips
from miles_repro.data.writer import Card, Preparation

LIMIT_GIB = 4.0


def sample(item: tuple[int, int]) -> dict[str, np.ndarray]:
    """Noise around a level that follows the label: quick to draw, and not all alike."""
    row, label = item
    noise = np.random.default_rng(row).integers(0, 60, (3, 224, 224), dtype=np.uint8)
    return {
        "video": noise + np.uint8(20 * label),
        "audio": (noise[:1] / np.float16(30) - np.float16(label)).astype(np.float16),
    }


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared ``cremad`` of 7,442 clips, 1.9 GB."""
    folder = tmp_path_factory.mktemp("data")
    clips = official_clips()
    card = Card("cremad", 1, "multiclass", EMOTIONS, "synthetic", "none")
    with Preparation(folder / "cremad", card, workers=1) as prep:
        prep.fill(
            [(row, clip.label) for row, clip in enumerate(clips)],
            sample,
            {"video": ((3, 224, 224), "uint8"), "audio": ((1, 224, 224), "float16")},
        )
        prep.write("labels", np.array([clip.label for clip in clips]))
        part = np.array([clip.parts["miles_70_15_15"] for clip in clips])
        rows = {p: np.flatnonzero(part == p) for p in ("train", "val", "test")}
        prep.split("miles_70_15_15", **rows)
        prep.normalise("video", constants=(np.full((3, 1, 1), 80), np.full((3, 1, 1), 40)))
        prep.normalise("audio", constants=(np.zeros((1, 1, 1)), np.ones((1, 1, 1))))
        prep.finish()
    assert sum(f.stat().st_size for f in folder.rglob("*.npy")) > 1.8e9
    return folder


def peak_gib(command: list[str], log: Path) -> float:
    """Run a command; its peak resident memory, mapped file pages counted in."""
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=REPO, stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, log.read_text()[-2000:]
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_maxrss * unit / 2**30


@pytest.mark.slow
def test_a_whole_epoch_stays_below_the_limit(data_dir: Path, tmp_path: Path) -> None:
    """All rows of all parts, with narrow encoders: what is measured is the data's way, not them."""
    runs = tmp_path / "runs"
    command = [
        *(sys.executable, "train.py", "dataset=cremad", "budget=smoke", "strategy=miles"),
        *("budget.data_fraction=1.0", "epochs=1", "tracker=none", "runtime.device=cpu"),
        *("dataset.encoders.small.video.channels=2", "dataset.encoders.small.audio.channels=2"),
        *(f"runtime.data_dir={data_dir}", f"runtime.runs_dir={runs}"),
    ]
    peak = peak_gib(command, tmp_path / "log")
    print(f"peak RSS {peak:.2f} GiB")
    assert list(runs.rglob("summary.json")), (tmp_path / "log").read_text()[-2000:]
    assert peak < LIMIT_GIB
