"""Configurations: what Hydra composes, trials and their draws."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from config_kit import train_py
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_object
from omegaconf import OmegaConf
from support import CONF, REPO, STRATEGIES, compose, settings, strategy_overrides

from miles_repro import composing
from miles_repro.config import Config, build

DATASETS = sorted(p.stem for p in (CONF / "dataset").glob("*.yaml"))


BUDGETS = sorted(p.stem for p in (CONF / "budget").glob("*.yaml"))


EXPERIMENTS = sorted(p.stem for p in (CONF / "experiment").glob("*.yaml"))


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
