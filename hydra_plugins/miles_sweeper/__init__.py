"""How ``train.py -m`` becomes runs: a sweeper (conf/hydra/sweeper) and a launcher for Hydra.

As Hydra's basic ones, but the runs may come from a file (one sweep where grids would be many), each
cell is composed once in each process, and finished runs are reported without a launch.
"""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from miles_repro.errors import UserError
from miles_repro.grid import Grid

FREE = ("seed", "trial")
"""Keys that change nothing about how a cell is composed."""

_cells: dict[tuple[str, ...], bytes] = {}


def cell_of(overrides: Sequence[str]) -> tuple[str, ...]:
    """What of a run's overrides decides how it is composed."""
    return tuple(name if (name := text.split("=")[0]) in FREE else text for text in overrides)


class CellLoader:
    """Hydra's loader, asked once a process for each cell: composing takes a hundred times as long
    as the copy that each of its runs gets.

    sweep: a name of its own for each sweep, kept when it is sent to a worker.
    """

    def __init__(self, loader: Any, sweep: str = "") -> None:
        self._loader, self._sweep = loader, sweep or secrets.token_hex(8)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._loader, self._sweep)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def load_sweep_config(self, master: DictConfig, overrides: list[str]) -> DictConfig:
        """The configuration of one run, whose sweep is in one folder whatever its runs change."""
        found = self._load(master, overrides)
        found.hydra.sweep.dir = str(master.hydra.sweep.dir)
        return found

    def _load(self, master: DictConfig, overrides: list[str]) -> DictConfig:
        if "override_dirname" in OmegaConf.to_yaml(master.hydra.sweep):
            found: DictConfig = self._loader.load_sweep_config(master, overrides)
            return found
        free = {name: text for text in overrides if (name := text.split("=")[0]) in FREE}
        cell = (self._sweep, *cell_of(overrides))
        if cell not in _cells:
            _cells[cell] = pickle.dumps(self._loader.load_sweep_config(master, overrides))
        config: DictConfig = pickle.loads(_cells[cell])  # this process's own
        parser = OverridesParser.create()
        for name, text in free.items():
            config[name] = parser.parse_override(text).value()
        config.hydra.overrides.task = overrides
        return config


def _task(loader: Any, config: DictConfig, run: list[str]) -> DictConfig:
    """The configuration of one run, with Hydra's own part where :class:`HydraConfig` finds it."""
    found: DictConfig = loader.load_sweep_config(config, run)
    HydraConfig.instance().set_config(found)
    with open_dict(found):
        del found["hydra"]
    return found


class InProcess(Launcher):
    """One run after the other in this process (conf/hydra/launcher/in_process.yaml).

    Hydra's own copies each configuration several times, which takes longer than all else around a
    tiny run. What that is for, jobs' own folders, logs, environment and callbacks, is not in use.
    """

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.loader, self.config = hydra_context.config_loader, config
        self.task = task_function

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        before, found = HydraConfig.instance().cfg, []
        try:
            for run in map(list, job_overrides):
                status = self.task(_task(self.loader, self.config, run))
                found.append(JobReturn(run, status=JobStatus.COMPLETED, _return_value=status))
        finally:
            HydraConfig.instance().cfg = before
        return found


class RunSweeper(Sweeper):
    """params: key -> values; jobs: a file of runs; max_batch_size: runs a launch, None for all."""

    def __init__(
        self,
        params: Mapping[str, str] | None = None,
        jobs: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        self.params, self.jobs, self.max_batch_size = params or {}, jobs, max_batch_size

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        loader: Any = CellLoader(hydra_context.config_loader)
        hydra_context = HydraContext(config_loader=loader, callbacks=hydra_context.callbacks)
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Launch what is not done; returns the launcher's results, a list for each batch."""
        from miles_repro.sweep import launch

        assert self.hydra_context is not None
        assert self.config is not None
        assert self.launcher is not None
        self._check()
        params = [f"{key}={values}" for key, values in self.params.items()]
        grid = Grid(self.hydra_context.config_loader)
        if self.jobs is None:
            runs = grid.runs([*params, *arguments])
        else:
            runs = grid.listed(self.jobs, params, arguments)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        launch.expect(runs)
        if self.jobs is None:  # whoever lists runs knows them, and what is missing
            self._compose(runs)
            if not isinstance(self.launcher, InProcess):  # where a launch costs nothing
                runs = self._unfinished(runs, folder)
        size = self.max_batch_size or max(1, len(runs))
        found = []
        for start in range(0, len(runs), size):
            found.append(self.launcher.launch(runs[start : start + size], initial_job_idx=start))
            for result in found[-1]:
                result.return_value  # noqa: B018 - raises what its job raised
        return found

    def _check(self) -> None:
        """Raises UserError: what was set for the sweeper itself is of another type."""
        assert self.config is not None
        size, jobs = self.max_batch_size, self.config.hydra.launcher.get("n_jobs", 1)
        if type(jobs) is not int or jobs == 0:
            raise UserError(f"hydra.launcher.n_jobs={jobs}: how many processes, -1 for all cores")
        for key, value, fits, what in (
            (
                "params",
                self.params,
                isinstance(self.params, Mapping),
                "a mapping of keys to values",
            ),
            ("jobs", self.jobs, self.jobs is None or isinstance(self.jobs, str), "a file"),
            ("max_batch_size", size, size is None or (type(size) is int and size > 0), "from 1"),
        ):
            if not fits:
                raise UserError(f"hydra.sweeper.{key}={value}: {what}, or null")

    def _compose(self, runs: Sequence[list[str]]) -> None:
        """Raises where a cell cannot be composed, before anything trains."""
        assert self.hydra_context is not None
        assert self.config is not None
        for run in {cell_of(run): run for run in runs}.values():
            self.hydra_context.config_loader.load_sweep_config(self.config, run)

    def _unfinished(self, runs: Sequence[list[str]], folder: Path) -> list[list[str]]:
        """Report the finished runs; returns the others."""
        from miles_repro import job

        assert self.hydra_context is not None
        assert self.config is not None
        loader = self.hydra_context.config_loader
        return [
            run
            for run in runs
            if not job.report_finished(_task(loader, self.config, run), run, folder)
        ]
