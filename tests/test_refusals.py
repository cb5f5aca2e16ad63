"""Configurations that are refused, each in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from config_kit import train_py
from omegaconf import OmegaConf
from support import REPO, TEST_CONF, compose, settings

from miles_repro import composing
from miles_repro.errors import UserError
from miles_repro.records import load_summaries
from miles_repro.run import run


def refused(data_dir: Path, runs_dir: Path, *overrides: str, **values: Any) -> str:
    """The one line that loading or starting this configuration gives."""
    with pytest.raises(UserError) as error:
        run(settings(data_dir, runs_dir, *overrides, **values), "test")
    text = str(error.value)
    assert "\n" not in text
    return text


def test_unknown_kind_of_search_space(tiny_data: Path, tmp_path: Path) -> None:
    odd = {"strategy.search.tau": {"normal": [0, 1]}}
    text = refused(tiny_data, tmp_path, trial=1, **odd)
    assert "search space of strategy.tau: 'normal' is not a list, uniform or log_uniform" in text


# --- mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides, words",
    [
        (("optimizer.lr=abc",), ("optimizer.lr='abc'", "valid number")),
        (("optimizer.lr=0",), ("optimizer.lr=0", "greater than 0")),
        (("optimizer.clip_norm=-1",), ("optimizer.clip_norm=-1",)),
        (("optimizer.lr=inf",), ("optimizer.lr=inf", "finite")),
        (("optimizer.weight_decay=inf",), ("optimizer.weight_decay=inf", "finite")),
        (("optimizer.betas=[0.9,nan]",), ("optimizer.betas=nan", "finite")),
        (("strategy.tau=-inf",), ("strategy.tau=-inf", "finite")),
        (("optimizer.weight_decay=-1",), ("adam: Invalid weight_decay value: -1",)),
        (("seed=-1",), ("seed=-1", "whole number from 0")),
        (("epochs=0",), ("epochs=0",)),
        (("batch_size=1.5",), ("batch_size=1.5", "integer")),
        (("trial=-2",), ("trial=-2",)),
        (("trial=1.0",), ("trial=1.0",)),
        (("trial='1'",), ("trial='1'",)),
        (("trial=true",), ("trial=True",)),
        (("seed=true",), ("seed=True",)),
        (("seed=[0,1]",), ("seed=[0, 1]",)),
        (("fusion.name=../x",), ("fusion.name='../x'",)),
        (("strategy.name=/x",), ("strategy.name='/x'",)),
        (("fusion.name=a/b",), ("fusion.name='a/b'",)),
        (("dataset.name=null",), ("data set None is not prepared",)),
        (("dataset=tiny", "strategy={tau: -1}"), ("miles: tau=-1",)),
        (("dataset.strong=audio",), ("dataset.strong and dataset.weak are both audio",)),
        (("dataset.num_classes=20",), ("dataset.num_classes=20", "3 classes")),
        (("+pinned=[x]",), ("pinned",)),
        (("+stacked=true",), ("stacked",)),
        (("trial=worst",), ("trial='worst'",)),
        (("budget.data_fraction=1.5",), ("budget.data_fraction=1.5",)),
        (("precision.amp=int8",), ("precision.amp='int8'",)),
        (("dataset.task=regression",), ("dataset.task=regression", "multiclass")),
        (("dataset.strong=smell",), ("dataset.strong=smell", "(image, audio)")),
        (("strategy=unimodal",), ("strategy.modality",)),
        (("strategy=gblend", "strategy.holdout=1"), ("gblend: holdout=1", "below 1")),
        (("strategy=mses", "strategy.patience=0"), ("mses: patience=0",)),
        (("strategy=mses", "strategy.weight=0"), ("mses: weight=0", "above 0")),
        (("strategy=ogm", "strategy.alpha=-1"), ("ogm: alpha=-1",)),
        (("strategy=ogm", "strategy.ends=2"), ("ogm: ends=2",)),
        (("strategy=mslr_k", "strategy.rates=many"), ("mslr_k: rates='many'", "mapping")),
        (("strategy=mslr_k", "strategy.rates={image:-1,audio:1}"), ("image", "must be above 0")),
        (("strategy=mslr_k", "strategy.rates={image:1}"), ("rates has no entry for audio",)),
        (("strategy=mslr_s", "strategy.s=1.5", "strategy.rates={image:1,audio:1}"), ("s=1.5",)),
        (("strategy=modality_dropout", "strategy.p=0.7"), ("modality_dropout: p=0.7",)),
        (("strategy=static_lr", "strategy.modality=smell"), ("modality='smell' is not one of",)),
        (("+strategy.x=1",), ("miles: ", "unexpected keyword argument 'x'")),
        (("strategy._target_=nope.Nope",), ("_target_ 'nope.Nope' cannot be imported",)),
        (("fusion._target_=nope.Nope",), ("'nope.Nope' cannot be imported",)),
        (("runtime.device=warp",), ("runtime.device=warp cannot be used here",)),
        (("runtime.threads=0",), ("runtime.threads=0",)),
    ],
)
def test_a_wrong_value_is_one_clear_line(
    overrides: tuple[str, ...], words: tuple[str, ...], tiny_data: Path, tmp_path: Path
) -> None:
    device = {} if overrides[0].startswith("runtime.device") else {"runtime.device": "cpu"}
    composed = compose("dataset=tiny", *overrides)
    paths = {"runtime.data_dir": str(tiny_data), "runtime.runs_dir": str(tmp_path), **device}
    for key, value in paths.items():
        OmegaConf.update(composed, key, value)
    with pytest.raises(UserError) as error:
        run(composing.load(composed, overrides), "test")
    text = str(error.value)
    assert all(word in text for word in words), text
    assert "\n" not in text


def test_unprepared_data_names_the_command(tmp_path: Path) -> None:
    text = refused(tmp_path, tmp_path)
    assert "data set tiny is not prepared in" in text
    assert "python scripts/prepare_data.py dataset=tiny" in text


@pytest.mark.parametrize(
    "argument, words",
    [
        ("strategy=mile", ("no strategy 'mile'", "did you mean miles?")),
        ("strategy.taw=1", ("no key 'strategy.taw'",)),
    ],
)
def test_train_py_refuses_in_one_line(argument: str, words: tuple[str, ...]) -> None:
    outcome = train_py("dataset=tiny", argument)
    assert outcome.returncode == 2
    assert outcome.stdout == ""
    assert outcome.stderr.startswith("error: ")
    assert len(outcome.stderr.splitlines()) == 1
    assert all(word in outcome.stderr for word in words)


def test_a_failing_job_does_not_end_a_sweep(tiny_data: Path, tmp_path: Path) -> None:
    outcome = train_py(
        "-m",
        "dataset=tiny",
        "epochs=1",
        "strategy=vanilla,mslr_k,miles",
        f"runtime.runs_dir={tmp_path}",
        MILES_DATA=str(tiny_data),
    )
    assert outcome.returncode == 2
    assert "Traceback" not in outcome.stdout + outcome.stderr
    errors = [line for line in outcome.stdout.splitlines() if "error: " in line]
    assert len(errors) == 1
    assert "no finished run of dataset=tiny strategy=unimodal_image" in errors[0]
    assert {s["strategy"] for s in load_summaries(tmp_path)} == {"vanilla", "miles"}


def test_a_finished_run_is_skipped_without_torch(tiny_data: Path, tmp_path: Path) -> None:
    overrides = ["dataset=tiny", "strategy=vanilla", "epochs=1", "optimizer.lr=0.02"]
    composed = compose(*overrides)
    OmegaConf.update(composed, "runtime.data_dir", str(tiny_data))
    OmegaConf.update(composed, "runtime.runs_dir", str(tmp_path))
    run(composing.load(composed, overrides), "test")
    heavy = ["torch", "pandas", "scipy", "sklearn", "wandb", "matplotlib", "transformers"]
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({heavy})); sys.path.insert(0, '.'); "
        f"sys.argv = ['train.py', 'hydra.searchpath=[file://{TEST_CONF}]', 'tracker=none', "
        f"*{overrides}, 'runtime.runs_dir={tmp_path}']; "
        "runpy.run_path('train.py', run_name='__main__')"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=REPO,
        env={**os.environ, "MILES_DATA": str(tiny_data)},
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "already done" in outcome.stdout
