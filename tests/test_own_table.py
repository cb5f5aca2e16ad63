"""Anybody's table and arrays: one command to a prepared folder and a configuration."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_data import N, data_of, own, plain, prepare, table_of, write_table, written
from support import REPO

from miles_repro.config import build
from miles_repro.data import command
from miles_repro.encoders.check import check_inputs

CPU = torch.device("cpu")
__all__ = ["own"]  # a fixture


def test_arrays_and_a_table_become_a_prepared_set(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(own) == 0
    shown = capsys.readouterr().out
    assert "given 36 / 12 / 12" in shown
    commands = [line.strip() for line in shown.splitlines() if line.startswith("  python")]
    assert len(commands) == 3
    search = f"'hydra.searchpath=[file://{own.parent / 'conf'}]'"
    assert all("mine" in line and search in line for line in commands)
    manifest, configuration = written(own)
    assert manifest["classes"] == ["a", "b", "c"]
    assert set(manifest["parameters"]["sources"]) == {
        str(own / name) for name in ("rows.csv", "x.npy", "y.npy")
    }
    assert configuration["num_classes"] == 3
    assert (configuration["strong"], configuration["weak"]) == (None, None)
    part = data_of(own).part("train", CPU, 64)
    x, labels = part.batch(torch.arange(len(part)))
    assert x["x"].dtype == x["y"].dtype == torch.float32
    np.testing.assert_allclose(x["x"].mean(0), np.zeros(5), atol=1e-6)
    rows = data_of(own).rows["train"]
    np.testing.assert_array_equal(labels, rows % 3)
    assert prepare(own, "--verify") == 0
    assert prepare(own) == 0
    assert "already prepared" in capsys.readouterr().out


def test_the_configuration_composes_and_its_encoders_fit(own: Path) -> None:
    """Every encoder of every budget takes the prepared data and gives features."""
    np.save(own / "picture.npy", np.random.default_rng(0).integers(0, 255, (N, 3, 32, 32), "u1"))
    np.save(own / "words.npy", np.random.default_rng(0).integers(0, 50, (N, 7)))
    np.save(own / "grey.npy", np.random.default_rng(0).integers(0, 255, (N, 9, 8), "u1"))
    assert prepare(own) == 0
    _, configuration = written(own)
    part = data_of(own).part("train", CPU, 64)
    sample, _ = part.batch(torch.arange(1))
    assert sample["grey"].shape == (1, 1, 9, 8)
    kinds = {"x": "MLP", "y": "GRU", "picture": "SmallCNN", "grey": "SmallCNN", "words": "Bow"}
    for budget, nodes in configuration["encoders"].items():
        assert set(nodes) == set(kinds)
        encoders = {m: build(node) for m, node in nodes.items()}
        check_inputs(encoders, sample)
        if budget == "small":
            assert {m: type(e).__name__ for m, e in encoders.items()} == kinds
    own_conf = f"hydra.searchpath=[file://{own.parent / 'conf'}]"
    code = (
        "import sys; from hydra import compose, initialize_config_dir\n"
        f"with initialize_config_dir({str(REPO / 'conf')!r}, version_base='1.3'):\n"
        f"    c = compose('config', [{own_conf!r}, 'dataset=mine', 'tracker=none'])\n"
        "    print(c.dataset.modalities.x.encoder._target_, c.epochs, c.batch_size)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["miles_repro.encoders.mlp.MLP", "20", "64"]


def test_an_edited_configuration_is_kept_unless_forced(own: Path) -> None:
    prepare(own)
    path = own.parent / "conf/dataset/mine.yaml"
    path.write_text("batch_size: 7\n")
    prepare(own)
    assert path.read_text() == "batch_size: 7\n"
    prepare(own, "--force")
    assert "batch_size: 64" in path.read_text()


def test_missing_splits_are_drawn_stratified(own: Path) -> None:
    write_table(own / "rows.csv", table_of(label=lambda i: "ab"[i % 3 == 0]))
    assert prepare(own) == 0
    manifest, configuration = written(own)
    assert configuration["scheme"] == ["drawn", "#", "or", "rotate"][0]
    counts = manifest["schemes"]["drawn"]
    assert [counts[p] for p in ("train", "val", "test")] == [36, 12, 12]
    assert counts["per_class"] == {"train": [24, 12], "val": [8, 4], "test": [8, 4]}


def test_missing_splits_keep_groups_whole(own: Path) -> None:
    rows = table_of(label=lambda i: "ab"[i % 2], group=lambda i: f"speaker {i // 6}")
    write_table(own / "rows.csv", rows)
    assert prepare(own) == 0
    data = data_of(own, "drawn")
    assert data.groups is not None
    sides = [set(data.groups[rows]) for rows in data.rows.values()]
    assert sum(len(side) for side in sides) == len(set.union(*sides)) == 10
    turned = data_of(own, "rotate", seed=3)
    assert set(turned.rows["test"]) != set(data.rows["test"])


@pytest.mark.parametrize(
    "label, task, outputs",
    [
        (lambda i: ["a|b", "b", "c|a", ""][i % 4], "multilabel", 3),
        (lambda i: i / 7, "regression", 1),
        (lambda i: str(i % 3), "multiclass", 3),
    ],
)
def test_the_task_follows_from_the_labels(
    own: Path, label: Callable[[int], object], task: str, outputs: int
) -> None:
    write_table(own / "rows.csv", table_of(label=label))
    assert prepare(own) == 0
    manifest, configuration = written(own)
    assert (manifest["task"], configuration["task"]) == (task, task)
    assert configuration["num_classes"] == outputs
    labels = np.load(own.parent / "data/mine/labels.npy")
    if task == "multilabel":
        assert labels[:4].tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1], [0, 0, 0]]
    elif task == "regression":
        np.testing.assert_allclose(labels, np.arange(N, dtype=np.float32) / 7, rtol=1e-6)
    assert prepare(own, "--verify") == 0


def test_binary_and_named_classes(own: Path) -> None:
    write_table(own / "rows.csv", table_of(label=lambda i: ["yes", "no"][i % 2]))
    assert prepare(own, "task=binary", "classes=no,yes") == 0
    manifest, configuration = written(own)
    assert (manifest["classes"], configuration["num_classes"]) == (["no", "yes"], 1)
    assert np.load(own.parent / "data/mine/labels.npy")[:2].tolist() == [1, 0]


def test_the_column_row_says_which_row_of_the_arrays(own: Path) -> None:
    rows = plain()
    for at, row in enumerate(rows):
        row["row"] = N - 1 - at
    write_table(own / "rows.csv", rows)
    assert prepare(own) == 0
    stored = np.load(own.parent / "data/mine/x.npy")
    np.testing.assert_array_equal(stored, np.load(own / "x.npy")[::-1])


def test_lengths_become_padding_that_no_statistic_sees(own: Path) -> None:
    values = np.load(own / "y.npy")
    lengths = np.arange(N) % 4 + 1
    for row, n in enumerate(lengths):
        values[row, n:] = 1e6  # must not matter
    np.save(own / "y.npy", values)
    np.save(own / "y.lengths.npy", lengths)
    assert prepare(own) == 0
    data = data_of(own)
    train = data.rows["train"]
    real = np.concatenate([values[row, : lengths[row]] for row in train])
    np.testing.assert_allclose(data.statistics["y"][0][0], real.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(data.statistics["y"][1][0], real.std(0), rtol=1e-5)
    x, _ = data.part("train", CPU, 64).batch(torch.arange(len(train)))
    np.testing.assert_array_equal(x["y"].isnan().all(2).sum(1), 4 - lengths[train])
    encoder = build({"_target_": "miles_repro.encoders.sequence.GRU", "in_features": 3, "dim": 4})
    assert torch.isfinite(encoder(x["y"])).all()


def test_modalities_are_chosen_and_ordered(own: Path) -> None:
    np.save(own / "z.npy", np.ones((N, 2), np.float32))
    assert prepare(own, "modalities=y,x") == 0
    manifest, configuration = written(own)
    assert list(manifest["modalities"]) == list(configuration["modalities"]) == ["y", "x"]


def test_data_under_anothers_name_are_marked(own: Path) -> None:
    assert prepare(own) == 0
    assert not data_of(own).stand_in
    assert prepare(own, "stand_in=fewer rows", "--force") == 0
    assert data_of(own).stand_in
    assert "fewer rows" in written(own)[0]["report"]["notes"]


def test_suspicious_data_are_warned_about(own: Path) -> None:
    for name in ("x", "y"):
        values = np.load(own / f"{name}.npy")
        values[18:20] = values[0]  # a validation row and its like in training
        np.save(own / f"{name}.npy", values)
    np.save(own / "dead.npy", np.zeros((N, 2), np.float32))
    assert prepare(own) == 0
    notes = written(own)[0]["report"]["notes"]
    assert "warning: modality dead is zero" in notes
    assert any("2 row(s) of val or test also occur in an earlier part" in n for n in notes)


def test_a_change_of_the_sources_asks_for_force(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(own)
    np.save(own / "x.npy", np.load(own / "x.npy") + 1)
    assert prepare(own) == 2
    assert f"{own / 'x.npy'} has changed since" in capsys.readouterr().err


def test_files_named_in_columns(own: Path) -> None:
    from scipy.io import wavfile

    image = pytest.importorskip("PIL.Image")
    for i in range(N):
        pixels = np.full((9, 8, 3), i, np.uint8)
        image.fromarray(pixels).save(own / f"{i}.png")
        wave = np.sin(np.arange(4000) * (0.1 + i / 100)).astype(np.float32)
        wavfile.write(own / f"{i}.wav", 8000, wave)
        (own / f"{i}.txt").write_text(f"word{i % 3} common and rare{i}")
    rows = [
        {**row, "seen": f"{i}.png", "heard": f"{i}.wav", "read": f"{i}.txt"}
        for i, row in enumerate(plain())
    ]
    write_table(own / "rows.csv", rows)
    options = ("modalities=heard,read,seen", "size=16", "seconds=0.5", "n_mels=8", "length=5")
    assert prepare(own, *options, "sample_rate=8000", "workers=1") == 0
    manifest, configuration = written(own)
    shapes = {m: entry["shape"] for m, entry in manifest["modalities"].items()}
    assert shapes == {"heard": [1, 8, 50], "read": [5], "seen": [3, 16, 16]}
    stored = np.load(own.parent / "data/mine/seen.npy")
    assert (stored[7] == 7).all()
    part = data_of(own).part("val", CPU, 64)
    encoders = {m: build(node) for m, node in configuration["encoders"]["small"].items()}
    check_inputs(encoders, part.batch(torch.arange(1))[0])


@pytest.mark.parametrize(
    "name, rows, modalities",
    [
        ("ccv", (4063, 1355, 1355), ["view1", "view2", "view3"]),
        ("wikipedia", (1738, 435, 693), ["image", "text"]),
        ("prokaryotic", (330, 110, 111), ["genes", "proteome", "text"]),
        ("cremad_normal", None, ["audio", "video"]),
        ("cremad_ume", (422, 141, 141), ["audio", "video"]),
    ],
)
def test_published_feature_sets(
    shared_data: Path, tmp_path: Path, name: str, rows: Any, modalities: list[str]
) -> None:
    table = shared_data / "features" / name / "rows.csv"
    places = [f"out={tmp_path / 'data'}", f"conf_dir={tmp_path / 'conf'}"]
    assert command.main([f"dataset={name}", f"table={table}", *places]) == 0
    manifest = json.loads((tmp_path / "data" / name / "manifest.json").read_text())
    assert list(manifest["modalities"]) == modalities
    sizes = tuple(manifest["schemes"]["given"][p] for p in ("train", "val", "test"))
    assert rows is None or sizes == rows


def test_the_script_is_found_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "table=<csv or parquet> [arrays=<folder>]" in shown
    assert "<your own>: Your own data" in shown


def test_numbers_are_read_in_units_of_the_training_spread(own: Path) -> None:
    write_table(own / "rows.csv", table_of(label=lambda i: 1000 + i * 7.5))
    assert prepare(own) == 0
    train, val = (data_of(own, "drawn").part(p, CPU, 64).labels for p in ("train", "val"))
    assert train.dtype == torch.float32
    assert float(train.mean()) == pytest.approx(0, abs=1e-5)
    assert float(train.std(correction=0)) == pytest.approx(1, abs=1e-5)
    assert abs(float(val.mean())) > 0  # not its own mean: that of the training rows
