"""Overrides with several values, and files of runs, become lists of runs."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from hydra_plugins import miles_sweeper
from miles_repro.errors import UserError
from miles_repro.grid import Grid
from miles_repro.places import CONF


@pytest.mark.parametrize(
    ("texts", "runs"),
    [
        (["seed=1"], ["seed=1"]),
        ([], [""]),
        (["a=1,2", "b=range(0,2)"], ["a=1 b=0", "a=1 b=1", "a=2 b=0", "a=2 b=1"]),
        (
            ["seed=0,1,2", "strategy=miles,ogm", "seed=5"],
            ["seed=5 strategy=miles", "seed=5 strategy=ogm"],
        ),
        (["seed=range(0,0)", "a=1"], []),
        (["keep=[a,b],[c]"], ["keep=[a,b]", "keep=[c]"]),
    ],
)
def test_combinations_as_hydra_makes_them(texts: list[str], runs: list[str]) -> None:
    assert [" ".join(run) for run in Grid().runs(texts)] == runs


def test_an_interval_is_refused() -> None:
    with pytest.raises(UserError, match=r"^lr=interval\(0,1\): list the values"):
        Grid().runs(["lr=interval(0,1)"])


def test_lines_of_a_file_are_runs(tmp_path: Path) -> None:
    file = tmp_path / "jobs.txt"
    file.write_text("strategy=ogm seed=1,2  # two runs\n\nstrategy='miles' seed=3\n")
    found = Grid().listed(str(file), ["seed=9"], ["budget=mini"])
    assert [" ".join(run) for run in found] == [
        "seed=1 strategy=ogm budget=mini",
        "seed=2 strategy=ogm budget=mini",
        "seed=3 strategy=miles budget=mini",
    ]
    file.write_text("\ufeffseed=1\nseed=(\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"jobs.txt, line 2: "):
        Grid().listed(str(file), [], [])
    file.write_text("seed='1")
    for broken in (file, tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match=r"^hydra.sweeper.jobs=.*: "):
            Grid().listed(str(broken), [], [])


def test_a_sweep_without_end_is_refused() -> None:
    for texts in (["seed=range(0,100000000)"], ["a=range(0,10000)", "b=range(0,10000)"]):
        with pytest.raises(UserError, match="at most 1,000,000 runs"):
            Grid().runs(texts)


def test_all_runs_of_a_sweep_report_in_one_folder() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = miles_sweeper.CellLoader(GlobalHydra.instance().config_loader())
        master = compose("config", ["hydra.mode=MULTIRUN"], return_hydra_config=True)
        found = loader.load_sweep_config(master, ["runtime.runs_dir=elsewhere"])
    assert found.runtime.runs_dir == "elsewhere"
    assert found.hydra.sweep.dir == master.hydra.sweep.dir


class Composing:
    """Stands for Hydra's loader; counts."""

    count = 0

    def load_sweep_config(self, master: DictConfig, overrides: list[str]) -> DictConfig:
        Composing.count += 1
        own = dict(override.split("=") for override in overrides)
        return OmegaConf.create(
            {"twice": "${seed}", "hydra": {"overrides": {"task": overrides}, "sweep": {}}, **own}
        )


@pytest.mark.parametrize(("folder", "composed"), [(".", 3), ("${hydra.job.override_dirname}", 5)])
def test_a_cell_is_composed_once_in_a_process(
    monkeypatch: pytest.MonkeyPatch, folder: str, composed: int
) -> None:
    monkeypatch.setattr(Composing, "count", 0)
    loader = miles_sweeper.CellLoader(Composing())  # Hydra's scan of plugins makes classes anew
    sent = pickle.loads(pickle.dumps(loader))  # to a worker
    master = OmegaConf.create({"hydra": {"sweep": {"dir": "all", "subdir": folder}}})
    for runs, which in (
        (("a=1 seed=1", "a=1 seed=2 trial=best", "a=2 seed=3"), loader),
        (("a=1 seed=4", "a=2 seed=5"), sent),
    ):
        for run in runs:
            overrides = run.split()
            found = which.load_sweep_config(master, overrides)
            assert found.hydra.overrides.task == overrides
            asked = dict(override.split("=") for override in overrides)
            assert {key: str(found[key]) for key in asked} == asked
            assert found.twice == found.seed
    assert Composing.count == composed


def test_a_launch_in_this_process_leaves_hydra_as_it_was() -> None:
    """Each run sees its own configuration, without Hydra's part; what broke breaks the sweep."""
    seen: list[tuple[int, list[str], bool]] = []

    def task(config: DictConfig) -> str:
        seen.append((config.seed, list(HydraConfig.get().overrides.task), "hydra" in config))
        if config.seed == 3:
            raise KeyboardInterrupt
        return "done"

    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = compose("config", ["hydra.mode=MULTIRUN"], return_hydra_config=True)
    before = HydraConfig.instance().cfg
    launcher = miles_sweeper.InProcess()
    context = HydraContext(config_loader=loader, callbacks=None)
    launcher.setup(hydra_context=context, task_function=task, config=master)
    runs = [["seed=1"], ["seed=2", "fusion=sum"]]
    found = launcher.launch(runs, 0)
    assert [(r.overrides, r.return_value) for r in found] == [(run, "done") for run in runs]
    assert seen == [(1, runs[0], False), (2, runs[1], False)]
    with pytest.raises(KeyboardInterrupt):
        launcher.launch([["seed=3"], ["seed=4"]], 2)
    assert len(seen) == 3
    assert HydraConfig.instance().cfg is before
