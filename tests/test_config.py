"""Configurations: what Hydra composes, trials and their draws, refusals in one line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_object
from omegaconf import OmegaConf
from support import (
    CONF,
    REPO,
    STRATEGIES,
    TEST_CONF,
    compose,
    settings,
    strategy_overrides,
)

from miles_repro import composing
from miles_repro.config import Config, build
from miles_repro.errors import UserError
from miles_repro.records import load_summaries
from miles_repro.run import run

DATASETS = sorted(p.stem for p in (CONF / "dataset").glob("*.yaml"))
BUDGETS = sorted(p.stem for p in (CONF / "budget").glob("*.yaml"))


def refused(data_dir: Path, runs_dir: Path, *overrides: str, **values: Any) -> str:
    """The one line that loading or starting this configuration gives."""
    with pytest.raises(UserError) as error:
        run(settings(data_dir, runs_dir, *overrides, **values), "test")
    text = str(error.value)
    assert "\n" not in text
    return text


def train_py(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    ours = (f"hydra.searchpath=[file://{TEST_CONF}]", "tracker=none")
    return subprocess.run(
        [sys.executable, str(REPO / "train.py"), *arguments, *ours],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=REPO,
        env={**os.environ, **environment},
    )


# --- the menu ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_data_set_composes_under_every_budget(dataset: str, tmp_path: Path) -> None:
    (tmp_path / dataset).mkdir()
    manifest = {"schema": 1, "fingerprint": "f"}
    (tmp_path / dataset / "manifest.json").write_text(json.dumps(manifest))
    for budget in BUDGETS:
        composed = compose(f"dataset={dataset}", f"budget={budget}")
        OmegaConf.update(composed, "runtime.data_dir", str(tmp_path))
        config = composing.load(composed)
        assert config.dataset.name == dataset
        assert {config.dataset.strong, config.dataset.weak} <= config.dataset.modalities.keys()
        for modality in config.dataset.modalities.values():
            assert callable(get_object(modality.encoder["_target_"]))
            if modality.augment:
                assert callable(build(modality.augment))


@pytest.mark.parametrize("group", ["optimizer", "precision", "budget", "tracker", "runtime"])
def test_every_choice_is_valid(group: str, tiny_data: Path, tmp_path: Path) -> None:
    for path in (CONF / group).glob("*.yaml"):
        config = settings(tiny_data, tmp_path, f"{group}={path.stem}")
        assert isinstance(config, Config)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_searched_values_are_hyperparameters_and_every_draw_is_valid(
    strategy: str, tiny_data: Path, tmp_path: Path
) -> None:
    space = compose(*strategy_overrides(strategy))["strategy"].get("search")
    assert space is not None  # at least `search: {}`
    drawn = []
    for trial in range(6):
        config = settings(tiny_data, tmp_path, *strategy_overrides(strategy), trial=trial)
        assert set(space) <= config.strategy.keys()
        assert "search" not in config.strategy
        build(config.strategy)
        drawn.append(config.optimizer.lr)
    assert drawn[0] == 0.02
    assert len(set(drawn)) == 6
    assert all(3e-4 <= lr <= 5e-3 for lr in drawn[1:])  # budget=mini
    assert drawn[1:] == [
        settings(tiny_data, tmp_path, "strategy=vanilla", trial=k).optimizer.lr for k in range(1, 6)
    ]


EXPERIMENTS = sorted(p.stem for p in (CONF / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_is_named_somewhere(name: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        whole = hydra_compose("config", [f"experiment={name}"], return_hydra_config=True)
    params = OmegaConf.to_container(whole.hydra.sweeper.params, resolve=True)
    assert isinstance(params, dict)
    assert params
    choices = {}
    for key, values in params.items():
        (sweep,) = OverridesParser.create().parse_overrides([f"{key}={values}"])
        some = sweep.sweep_string_iterator() if sweep.is_sweep_override() else [sweep.value()]
        choices[key] = [f"{key}={choice}" for choice in some]
    first = {key: some[0] for key, some in choices.items()}
    for key in ("strategy", "fusion"):
        for choice in choices.get(key, []):
            composed = compose(f"experiment={name}", *{**first, key: choice}.values())
            assert "experiment" not in composed  # its file has its package line
            assert get_object(composed["strategy"]["_target_"])
    pages = [REPO / "README.md", REPO / "Makefile", *(REPO / "docs").glob("*.md")]
    words = " ".join(page.read_text() for page in pages)
    assert re.search(rf"experiment={name}\b", words)


def test_help_has_a_line_for_every_choice() -> None:
    text = train_py("--help").stdout
    lines = [line for line in text.splitlines() if line.startswith("  ")]
    assert max(map(len, lines)) <= 80
    launchers = [path.stem for path in (CONF / "hydra" / "launcher").glob("*.yaml")]
    for name in (*STRATEGIES, *DATASETS, *launchers):
        assert any(re.match(rf"  {name} +\S", line) for line in lines), name
    assert any(re.match(r"  miles +learning rates: MILES$", line) for line in lines)


# --- draws ------------------------------------------------------------------------------------


def test_draws_do_not_depend_on_order_or_on_other_parameters(
    tiny_data: Path, tmp_path: Path
) -> None:
    def drawn(*overrides: str, trial: int) -> dict[str, Any]:
        config = settings(tiny_data, tmp_path, "strategy=miles", *overrides, trial=trial)
        return {**config.strategy, "lr": config.optimizer.lr, "pinned": config.pinned}

    backwards = {k: drawn(trial=k) for k in (7, 3, 1)}
    assert {k: drawn(trial=k) for k in (1, 3, 7)} == backwards
    assert len({json.dumps(v) for v in backwards.values()}) == 3
    for k, plain in backwards.items():
        more = drawn("+strategy.search.source=[val,train]", trial=k)
        assert {**more, "source": "val"} == plain
        fewer = drawn("strategy.search.mu=null", trial=k)
        assert fewer == {**plain, "mu": 0.5}
        fixed = drawn("strategy.tau=0.123", trial=k)
        assert fixed == {**plain, "tau": 0.123, "pinned": ["strategy.tau"]}
    unsearched = drawn("strategy.reset_other=false", trial=1)
    assert unsearched == {**backwards[1], "reset_other": False}  # not pinned: never searched
    assert drawn(trial=0)["tau"] == 0.2
    assert drawn(trial=0)["lr"] == 0.02


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
