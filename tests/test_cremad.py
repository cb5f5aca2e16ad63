"""CREMA-D: index against the official lists, spectrogram, raw folder -> prepared folder."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from support import settings

from miles_repro.data import cremad
from miles_repro.data.command import main
from miles_repro.data.cremad_index import EMOTIONS, PARTS, SCHEMES, TAKES, official_clips
from miles_repro.data.media import BadFile, read_wav
from miles_repro.data.splits import stratified_split
from miles_repro.errors import UserError
from miles_repro.run import run

av = pytest.importorskip("av")

SEED = 2025
CONF = Path(__file__).resolve().parents[1] / "conf" / "dataset" / "cremad.yaml"
DEFAULTS = yaml.safe_load(CONF.read_text())["preparation"]
SETTINGS = cremad.Settings(**DEFAULTS)
CLIPS = official_clips()
NAMES = [clip.name for clip in CLIPS]


# ---- the index --------------------------------------------------------------------------------


def labels_folder(shared_data: Path) -> Path:
    return shared_data / "cremad_labels"


def official_names(shared_data: Path) -> list[str]:
    with (labels_folder(shared_data) / "SentenceFilenames.csv").open() as file:
        return [row["Filename"] for row in csv.DictReader(file)]


def listed(shared_data: Path, part: str) -> dict[str, str]:
    with (labels_folder(shared_data) / f"{part}.csv").open() as file:
        return {row[0]: row[1] for row in csv.reader(file)}


def names_of(scheme: str, part: str) -> list[str]:
    return [clip.name for clip in CLIPS if clip.parts[scheme] == part]


def test_index_holds_the_official_clips(shared_data: Path) -> None:
    assert sorted(official_names(shared_data)) == NAMES
    assert len(NAMES) == 7442


@pytest.mark.parametrize(
    "scheme, sizes",
    [
        ("miles_70_15_15", {"train": 5210, "val": 1116, "test": 1116}),
        ("ogm_ge", {"train": 5954, "val": 744, "test": 744}),
        ("actor", {"train": 5158, "val": 1142, "test": 1142}),
    ],
)
def test_sizes(scheme: str, sizes: dict[str, int]) -> None:
    assert Counter(clip.parts[scheme] for clip in CLIPS) == sizes


def test_emotions_are_stratified() -> None:
    # of ogm_ge, validation within the literature's training list
    for scheme, parts in (
        ("miles_70_15_15", ("train", "val", "test")),
        ("ogm_ge", ("train", "val")),
    ):
        pool = [clip for clip in CLIPS if clip.parts[scheme] in parts]
        for part in parts:
            inside = Counter(clip.label for clip in pool if clip.parts[scheme] == part)
            for label, count in Counter(clip.label for clip in pool).items():
                share = sum(inside.values()) / len(pool)
                assert abs(inside[label] - share * count) < 1.5, (scheme, part, label)


def test_literature_lists(shared_data: Path) -> None:
    train, test = listed(shared_data, "train"), listed(shared_data, "test")
    assert (len(train), len(test)) == (6698, 744)
    assert set(names_of("ogm_ge", "test")) == set(test)
    assert {*names_of("ogm_ge", "train"), *names_of("ogm_ge", "val")} == set(train)
    for clip in CLIPS:
        assert EMOTIONS[clip.label] == (train | test)[clip.name]


def test_no_actor_in_two_parts() -> None:
    actors = {part: {name[:4] for name in names_of("actor", part)} for part in PARTS.values()}
    assert {part: len(ids) for part, ids in actors.items()} == {"train": 63, "val": 14, "test": 14}
    assert len(set().union(*actors.values())) == 91


def test_actors_are_balanced_by_sex(shared_data: Path) -> None:
    with (labels_folder(shared_data) / "VideoDemographics.csv").open() as file:
        sex = {row["ActorID"]: row["Sex"] for row in csv.DictReader(file)}
    for part in ("val", "test"):
        ids = {name[:4] for name in names_of("actor", part)}
        assert Counter(sex[i] for i in ids) == {"Male": 7, "Female": 7}


def test_the_committed_index_is_the_described_draw(shared_data: Path) -> None:
    emotion = np.array([clip.label for clip in CLIPS])
    sizes = {"train": 5210, "val": 1116, "test": 1116}
    for part, rows in stratified_split(emotion, sizes, SEED).items():
        assert sorted(NAMES[i] for i in rows) == names_of("miles_70_15_15", part)
    test = listed(shared_data, "test")
    rest = np.array([i for i, name in enumerate(NAMES) if name not in test])
    for part, rows in stratified_split(emotion[rest], {"train": 5954, "val": 744}, SEED).items():
        assert sorted(NAMES[i] for i in rest[rows]) == names_of("ogm_ge", part)
    with (labels_folder(shared_data) / "VideoDemographics.csv").open() as file:
        people = list(csv.DictReader(file))
    female = np.array([int(row["Sex"] == "Female") for row in people])
    parts = stratified_split(female, {"test": 14, "val": 14, "train": 63}, SEED)
    for part, rows in parts.items():
        ids = {people[i]["ActorID"] for i in rows}
        assert ids == {name[:4] for name in names_of("actor", part)}


def test_takes() -> None:
    assert len(TAKES) == len(set(TAKES)) == 82
    assert Counter(take.split("_")[2] for take in TAKES) == {"XX": 67, "LO": 5, "MD": 5, "HI": 5}


# ---- the spectrogram --------------------------------------------------------------------------


def tone(hertz: float, seconds: float = 3.0, level: float = 0.3) -> np.ndarray:
    t = np.arange(int(seconds * SETTINGS.rate)) / SETTINGS.rate
    return (level * np.sin(2 * np.pi * hertz * t)).astype(np.float32)


def log_power(samples: np.ndarray) -> np.ndarray:
    return cremad.log_power(samples, SETTINGS)


def spectrogram(samples: np.ndarray) -> np.ndarray:
    return cremad.spectrogram(samples, SETTINGS)


def test_spectrogram_has_the_papers_size_and_low_frequencies_first() -> None:
    power = log_power(tone(1000))
    assert power.shape == (257, 299)
    assert set(power.argmax(axis=0)) == {32}  # 1000 Hz / (16000 Hz / 512)


def test_spectrogram_values_from_the_definition() -> None:
    from scipy.signal.windows import tukey

    samples = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    window = tukey(512, 0.25, sym=False)
    at = 7 * (512 - 353)
    piece = samples[at : at + 512].astype(np.float64)
    power = np.abs(np.fft.rfft((piece - piece.mean()) * window)) ** 2
    power /= SETTINGS.rate * (window**2).sum()
    power[1:-1] *= 2  # one-sided
    np.testing.assert_allclose(log_power(samples)[:, 7], np.log(power + 1e-12), rtol=0, atol=1e-2)


def test_short_audio_is_repeated_and_long_audio_cut() -> None:
    one = tone(440, seconds=1.0)
    np.testing.assert_array_equal(log_power(one), log_power(np.tile(one, 3)))
    long = np.concatenate([tone(440), tone(3000)])
    np.testing.assert_array_equal(log_power(long), log_power(tone(440)))


def test_silence_is_finite() -> None:
    out = spectrogram(np.zeros(1, np.float32))
    assert out.shape == (1, 224, 224)
    assert out.dtype == np.float16
    np.testing.assert_allclose(out.astype(float), np.log(1e-12), rtol=1e-3)


def test_resizing_keeps_place_and_level() -> None:
    out = spectrogram(tone(4000)).astype(np.float32)[0]
    assert abs(int(out.mean(axis=1).argmax()) - 128 * 224 / 257) <= 1
    whole = log_power(tone(4000))
    assert abs(out.mean() - whole.mean()) < 0.05


def test_other_rates_and_stereo_are_brought_to_16_khz_mono(tmp_path: Path) -> None:
    t = np.arange(44_100) / 44_100
    left = 0.5 * np.sin(2 * np.pi * 1000 * t)
    soundfile.write(tmp_path / "a.wav", np.stack([left, 0 * left], axis=1), 44_100)
    samples = read_wav(tmp_path / "a.wav", 16_000)
    assert samples.shape == (16_000,)
    assert abs(np.abs(samples[2000:-2000]).max() - 0.25) < 0.01
    assert np.abs(np.fft.rfft(samples)).argmax() == 1000


# ---- raw -> prepared --------------------------------------------------------------------------


def write_video(path: Path, frames: int, codec: str = "flv", fps: int = 30) -> None:
    """Frame i is grey of level 10 i."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(frames):
            picture = np.full((48, 64, 3), 10 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def chosen_clips() -> list[str]:
    """Two clips for every part of every scheme: several actors, every emotion."""
    chosen: list[str] = []
    for scheme in SCHEMES:
        for part in PARTS.values():
            names = names_of(scheme, part)
            chosen += [names[len(names) // 3], names[2 * len(names) // 3]]
    return sorted({*chosen, NAMES[0]})


CHOSEN = chosen_clips()
HERTZ = {name: 300 + 200 * i for i, name in enumerate(CHOSEN)}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The official layout with real wav and flv files, a few clips of it."""
    raw = tmp_path_factory.mktemp("cremad")
    (raw / "AudioWAV").mkdir()
    (raw / "VideoFlash").mkdir()
    write_video(raw / "video.flv", frames=24)
    for name in CHOSEN:
        soundfile.write(raw / "AudioWAV" / f"{name}.wav", tone(HERTZ[name], 1.2), SETTINGS.rate)
        shutil.copy(raw / "video.flv", raw / "VideoFlash" / f"{name}.flv")
    (raw / "video.flv").unlink()
    return raw


@pytest.fixture
def raw(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "raw"))


def prepare(raw: Path, out: Path, **options: Any) -> dict[str, Any]:
    return cremad.prepare(raw, out, **{**DEFAULTS, "partial": True, "workers": 1, **options})


def arrays(out: Path) -> dict[str, np.ndarray]:
    return {name: np.load(out / f"{name}.npy") for name in ("video", "audio", "labels")}


@pytest.fixture(scope="module")
def prepared(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "cremad"
    prepare(original, out)
    return out


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


def fingerprint(out: Path) -> tuple[str, str]:
    manifest = json.loads((out / "manifest.json").read_text())
    return manifest["fingerprint"], json.dumps(manifest["files"])


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
