"""CREMA-D: raw folder -> prepared folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cremad_kit import CHOSEN, CLIPS, HERTZ, original, prepare, prepared, raw, write_video

from miles_repro.data.cremad_index import EMOTIONS, PARTS, SCHEMES

__all__ = ["original", "prepared", "raw"]  # fixtures


def arrays(out: Path) -> dict[str, np.ndarray]:
    return {name: np.load(out / f"{name}.npy") for name in ("video", "audio", "labels")}


def fingerprint(out: Path) -> tuple[str, str]:
    manifest = json.loads((out / "manifest.json").read_text())
    return manifest["fingerprint"], json.dumps(manifest["files"])


def test_fixture_is_varied() -> None:
    assert len({name[:4] for name in CHOSEN}) >= 8
    assert {name.split("_")[2] for name in CHOSEN} == set(EMOTIONS)


def test_arrays_line_up_with_the_clips(prepared: Path) -> None:
    data = arrays(prepared)
    assert data["video"].shape == (len(CHOSEN), 3, 224, 224)
    assert data["video"].dtype == np.uint8
    assert data["audio"].shape == (len(CHOSEN), 1, 224, 224)
    assert data["audio"].dtype == np.float16
    assert data["labels"].tolist() == [EMOTIONS.index(n.split("_")[2]) for n in CHOSEN]
    for i, name in enumerate(CHOSEN):
        bin_257 = HERTZ[name] / 31.25
        assert abs(data["audio"][i, 0].mean(axis=1).argmax() - bin_257 * 224 / 257) < 1.5
        assert abs(float(data["video"][i].mean()) - 150) < 3  # frame 15 of 30 per second: 0.5 s


def test_splits_follow_the_index(prepared: Path) -> None:
    parts = {clip.name: clip.parts for clip in CLIPS}
    with np.load(prepared / "splits.npz") as splits:
        for scheme in SCHEMES:
            rows = np.concatenate([splits[f"{scheme}.{part}"] for part in PARTS.values()])
            assert sorted(rows) == list(range(len(CHOSEN)))
            for part in PARTS.values():
                for row in splits[f"{scheme}.{part}"]:
                    assert parts[CHOSEN[row]][scheme] == part


def test_statistics(prepared: Path) -> None:
    data = arrays(prepared)
    with np.load(prepared / "stats.npz") as stats, np.load(prepared / "splits.npz") as splits:
        for scheme in SCHEMES:
            train = data["audio"][np.sort(splits[f"{scheme}.train"])].astype(np.float64)
            assert stats[f"{scheme}.audio.mean"].shape == (1, 1, 1)
            np.testing.assert_allclose(stats[f"{scheme}.audio.mean"].item(), train.mean(), 1e-5)
            np.testing.assert_allclose(stats[f"{scheme}.audio.std"].item(), train.std(), 1e-5)
            mean, std = stats[f"{scheme}.video.mean"], stats[f"{scheme}.video.std"]
            np.testing.assert_allclose(mean.ravel() / 255, [0.485, 0.456, 0.406], rtol=1e-6)
            np.testing.assert_allclose(std.ravel() / 255, [0.229, 0.224, 0.225], rtol=1e-6)


def test_manifest_says_what_was_left_out(prepared: Path) -> None:
    manifest = json.loads((prepared / "manifest.json").read_text())
    skipped = manifest["report"]["skipped"]
    # wav and flv of every other clip, but of the clip known for its audio only the flv
    assert len(skipped) == 2 * (7442 - len(CHOSEN)) - 1
    assert {entry["reason"] for entry in skipped} == {"missing"}
    assert manifest["rows"] == len(CHOSEN)
    assert manifest["classes"] == list(EMOTIONS)


def test_twice_the_same(original: Path, prepared: Path, tmp_path: Path) -> None:
    prepare(original, tmp_path / "cremad")
    assert fingerprint(tmp_path / "cremad") == fingerprint(prepared)


@pytest.mark.slow
def test_processes_change_nothing(original: Path, prepared: Path, tmp_path: Path) -> None:
    prepare(original, tmp_path / "cremad", workers=2)
    assert fingerprint(tmp_path / "cremad") == fingerprint(prepared)


def test_middle_frame(original: Path, tmp_path: Path) -> None:
    prepare(original, tmp_path / "cremad", frame="middle")
    assert abs(float(np.load(tmp_path / "cremad" / "video.npy").mean()) - 120) < 3  # frame 12 of 24


def test_mp4_gives_the_same_frame(raw: Path, tmp_path: Path) -> None:
    shutil.rmtree(raw / "VideoFlash")
    (raw / "VideoMP4").mkdir()
    for name in CHOSEN:
        write_video(raw / "VideoMP4" / f"{name}.mp4", frames=20, codec="mpeg4")
    prepare(raw, tmp_path / "cremad")
    assert abs(float(np.load(tmp_path / "cremad" / "video.npy").mean()) - 150) < 3


@pytest.mark.parametrize("frame, level", [("first", 40), ("middle", 80)])
def test_extracted_frames_are_taken_in_sorted_order(
    raw: Path, tmp_path: Path, frame: str, level: int
) -> None:
    from PIL import Image

    shutil.rmtree(raw / "VideoFlash")
    for name in CHOSEN:
        folder = raw / "Image-01-FPS" / name
        folder.mkdir(parents=True)
        for i in (3, 1, 2):  # written out of order
            picture = Image.new("RGB", (64, 48), (40 * i,) * 3)
            picture.save(folder / f"frame_{i:05d}.jpg")
    prepare(raw, tmp_path / "cremad", frame=frame)
    assert abs(float(np.load(tmp_path / "cremad" / "video.npy").mean()) - level) < 2
