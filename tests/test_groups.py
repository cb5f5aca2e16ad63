"""Jobs of a sweep that share a composition get what Hydra would compose for each."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from miles_repro import groups
from miles_repro.groups import GroupLoader
from miles_repro.places import CONF

JOBS = (
    ["strategy=miles", "seed=1", "trial=best", "epochs=2"],
    ["strategy=miles", "seed=25", "trial=3", "epochs=2"],
    ["seed=4", "strategy=vanilla"],
    ["seed=5", "strategy=vanilla"],
    ["seed=007", "strategy=vanilla"],
    ["seed='5'", "strategy=vanilla"],
    ["seed=${epochs}", "strategy=vanilla"],
    ["seed=1.0", "strategy=vanilla"],
)


@pytest.fixture
def loader() -> Iterator[Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def master(loader: Any) -> DictConfig:
    given = ["hydra.sweep.subdir=${hydra.job.override_dirname}", "seed=range(3)"]
    composed: DictConfig = loader.load_configuration("config", given, RunMode.MULTIRUN)
    return composed


def test_every_job_is_as_hydra_composes_it(loader: Any) -> None:
    top = master(loader)
    ours = GroupLoader(loader)
    for _ in range(2):  # to check the overrides, and when the job starts
        for job in JOBS:
            ours = pickle.loads(pickle.dumps(ours))  # as launchers send it
            found, plain = ours.load_sweep_config(top, job), loader.load_sweep_config(top, job)
            assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(plain)
            assert type(found.seed) is type(plain.seed)
            assert found.hydra.sweep.subdir == plain.hydra.sweep.subdir
            found.epochs = 99  # is nobody else's


def test_a_group_is_composed_once(loader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    top, ours = master(loader), GroupLoader(loader)
    ours.load_sweep_config(top, ["seed=0"])
    monkeypatch.setattr(groups.ConfigLoaderImpl, "load_sweep_config", None)
    assert [ours.load_sweep_config(top, [f"seed={n}"]).seed for n in range(3)] == [0, 1, 2]


def test_mistakes_stay_hydras(loader: Any) -> None:
    top, ours = master(loader), GroupLoader(loader)
    for _ in range(2):
        with pytest.raises(HydraException, match="nonsense"):
            ours.load_sweep_config(top, ["strategy=nonsense", "seed=1"])


def test_no_more_than_so_many_are_kept(loader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    top, ours = master(loader), GroupLoader(loader)
    monkeypatch.setattr(groups, "KEPT", 2)
    for epochs in range(1, 4):
        assert ours.load_sweep_config(top, [f"epochs={epochs}", "seed=0"]).epochs == epochs
        assert len(groups._composed) <= 2
