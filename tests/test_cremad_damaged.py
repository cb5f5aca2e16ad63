"""CREMA-D: every kind of bad clip and folder, in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from cremad_kit import (
    CHOSEN,
    CLIPS,
    SETTINGS,
    names_of,
    original,
    prepare,
    prepared,
    raw,
    tone,
)
from support import settings

from miles_repro.data import cremad
from miles_repro.data.command import main
from miles_repro.data.cremad_index import EMOTIONS
from miles_repro.data.media import BadFile, read_wav
from miles_repro.errors import UserError
from miles_repro.run import run

__all__ = ["original", "prepared", "raw"]  # fixtures

VICTIM = CHOSEN[3]


def spoil(raw: Path, how: str) -> tuple[Path, str]:
    """Damage one file; returns it and a word of the reason expected."""
    wav = raw / "AudioWAV" / f"{VICTIM}.wav"
    flv = raw / "VideoFlash" / f"{VICTIM}.flv"
    content = {
        "cut wav": (wav, wav.read_bytes()[:5000], "truncated"),
        "text wav": (wav, b"no audio at all", "not readable as audio"),
        "pointer wav": (wav, b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        "nothing in wav": (wav, b"", "empty file"),
        "unreadable video": (flv, b"rubbish" * 99, "not readable as a video"),
        "pointer video": (flv, b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        "cut video": (flv, flv.read_bytes()[: flv.stat().st_size // 3], "0.5 s"),
    }
    if how == "no samples":
        soundfile.write(wav, np.zeros(0, np.float32), SETTINGS.rate)
        return wav, "no audio sample"
    if how == "sound only":
        flv.write_bytes(wav.read_bytes())
        return flv, "no video stream"
    if how == "missing wav":
        wav.unlink()
        return wav, "missing"
    path, data, reason = content[how]
    path.write_bytes(data)
    return path, reason


SPOILS = [
    *("cut wav", "text wav", "pointer wav", "nothing in wav", "no samples", "missing wav"),
    *("unreadable video", "pointer video", "cut video", "sound only"),
]


@pytest.mark.parametrize("how", SPOILS)
def test_damaged_files_are_named_and_left_out_when_allowed(
    raw: Path, tmp_path: Path, how: str
) -> None:
    path, reason = spoil(raw, how)
    manifest = prepare(raw, tmp_path / "cremad")
    entries = [e for e in manifest["report"]["skipped"] if e["file"] == str(path)]
    assert len(entries) == 1
    assert reason in entries[0]["reason"]
    assert manifest["rows"] == len(CHOSEN) - 1
    rest = [EMOTIONS.index(n.split("_")[2]) for n in CHOSEN if n != VICTIM]
    assert np.load(tmp_path / "cremad" / "labels.npy").tolist() == rest


@pytest.mark.parametrize("how", SPOILS)
def test_damaged_files_are_refused_otherwise(
    raw: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cremad, "official_clips", lambda: [c for c in CLIPS if c.name in CHOSEN])
    path, reason = spoil(raw, how)
    with pytest.raises(UserError) as error:
        prepare(raw, tmp_path / "cremad", partial=False)
    assert str(path) in str(error.value)
    assert reason in str(error.value)
    assert "1 file(s) refused" in str(error.value)
    assert not (tmp_path / "cremad").exists()


def test_an_incomplete_folder_is_refused(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{2 * (7442 - len(CHOSEN)) - 1} file\(s\) refused"):
        prepare(raw, tmp_path / "cremad", partial=False)
    listed = json.loads((tmp_path / "cremad.partial" / "refused.json").read_text())
    assert len(listed) == 2 * (7442 - len(CHOSEN)) - 1


@pytest.mark.parametrize("wav", ["empty", "missing", "fine"])
def test_the_known_bad_clip(raw: Path, tmp_path: Path, wav: str) -> None:
    shutil.copy(raw / "VideoFlash" / f"{VICTIM}.flv", raw / "VideoFlash/1076_MTI_SAD_XX.flv")
    path = raw / "AudioWAV" / "1076_MTI_SAD_XX.wav"
    if wav != "missing":
        soundfile.write(path, tone(500) if wav == "fine" else np.zeros(0), SETTINGS.rate)
    manifest = prepare(raw, tmp_path / "cremad")
    assert manifest["rows"] == len(CHOSEN) + 1
    notes = [note for note in manifest["report"]["notes"] if "1076_MTI_SAD_XX" in note]
    assert len(notes) == 1
    audio = np.load(tmp_path / "cremad" / "audio.npy")[
        sorted([*CHOSEN, cremad.KNOWN_BAD]).index(cremad.KNOWN_BAD)
    ]
    silent = np.unique(audio).size == 1
    assert silent == (wav != "fine")
    assert ("silence" in notes[0]) == silent


def test_the_known_bad_clip_without_a_picture_is_left_out(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {*CHOSEN, cremad.KNOWN_BAD}
    monkeypatch.setattr(cremad, "official_clips", lambda: [c for c in CLIPS if c.name in names])
    flv = raw / "VideoFlash" / "1076_MTI_SAD_XX.flv"
    flv.write_bytes(b"rubbish")
    manifest = prepare(raw, tmp_path / "cremad", partial=False)
    assert [entry["file"] for entry in manifest["report"]["skipped"]] == [str(flv)]
    assert manifest["rows"] == len(CHOSEN)


def test_strangers_are_reported(raw: Path, tmp_path: Path) -> None:
    soundfile.write(raw / "AudioWAV" / "1040_ITH_SAD_X.wav", tone(500), SETTINGS.rate)
    notes = prepare(raw, tmp_path / "cremad")["report"]["notes"]
    assert any("1040_ITH_SAD_X.wav" in note and note.startswith("1 wav") for note in notes)


def test_a_scheme_without_clips_is_left_out(raw: Path, tmp_path: Path) -> None:
    for name in CHOSEN:
        if name in names_of("actor", "val"):
            (raw / "AudioWAV" / f"{name}.wav").unlink()
    manifest = prepare(raw, tmp_path / "cremad")
    assert "actor" not in manifest["schemes"]
    assert any("actor" in n and "val" in n for n in manifest["report"]["notes"])


def test_too_few_clips(raw: Path, tmp_path: Path) -> None:
    for name in CHOSEN[1:]:
        (raw / "AudioWAV" / f"{name}.wav").unlink()
    with pytest.raises(UserError, match="too few"):
        prepare(raw, tmp_path / "cremad")


@pytest.mark.parametrize(
    "gone, reason",
    [("AudioWAV", "no folder AudioWAV"), ("VideoFlash", "none of the folders VideoFlash")],
)
def test_missing_folders(raw: Path, tmp_path: Path, gone: str, reason: str) -> None:
    shutil.rmtree(raw / gone)
    with pytest.raises(UserError, match=reason):
        prepare(raw, tmp_path / "cremad")


def test_without_pyav(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"package av: pip install"):
        prepare(raw, tmp_path / "cremad")


@pytest.mark.parametrize("option", [{"size": 0}, {"overlap": 512}, {"overlap": -1}, {"rate": 0}])
def test_senseless_options(original: Path, tmp_path: Path, option: dict[str, int]) -> None:
    with pytest.raises(UserError, match="must be positive"):
        prepare(original, tmp_path / "cremad", **option)


def test_command(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["dataset=cremad", f"raw={raw}", f"out={tmp_path}", "partial=true", "workers=1"]
    assert main(command) == 0
    assert f"left out, missing: {2 * (7442 - len(CHOSEN)) - 1:,}" in capsys.readouterr().out
    assert main(["dataset=cremad", f"out={tmp_path}", "--verify"]) == 0
    assert main(["dataset=cremad", f"raw={raw}/none", f"out={tmp_path}/b"]) == 2
    assert main(["dataset=cremad", f"out={tmp_path}/b"]) == 2
    assert main(["dataset=cremad", f"raw={raw}", f"out={tmp_path}/b", "frame=last"]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in errors if line.startswith("error: ")]) == 3


def test_a_bad_file_says_which(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"gone\.wav"):
        read_wav(tmp_path / "gone.wav", 16_000)


@pytest.mark.parametrize("scheme", ["miles_70_15_15", "actor"])
def test_two_training_epochs(prepared: Path, tmp_path: Path, scheme: str) -> None:
    overrides = ("budget=smoke", "budget.data_fraction=1.0", "epochs=2")
    values = {"batch_size": 4, "dataset.scheme": scheme}
    config = settings(prepared.parent, tmp_path, *overrides, dataset="cremad", **values)
    assert config.dataset.scheme == scheme
    summary = run(config, "test").summary
    assert summary is not None
    assert summary["status"] == "done"
    assert summary["epochs"] == 2
    assert (summary["strong"], summary["weak"]) == ("audio", "video")
    assert set(summary["test"]) >= {"fused", "audio", "video"}
    assert np.isfinite([part["loss"] for part in summary["test"].values()]).all()
