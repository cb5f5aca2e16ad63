"""How ``train.py -m`` becomes runs: a sweeper for Hydra (conf/hydra/sweeper/runs.yaml).

As Hydra's basic one, but the runs may come from a file (one sweep where grids would be many), each
cell is composed once to see that it is legal, and finished runs are reported without a launch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from miles_repro.errors import UserError
from miles_repro.grid import Grid

FREE = ("seed", "trial")
"""Keys that change nothing about how a cell is composed."""


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
        if self.jobs is None:  # whoever lists runs knows what is missing
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
        size = self.max_batch_size
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

    def _unfinished(self, runs: Sequence[list[str]], folder: Path) -> list[list[str]]:
        """Report the finished runs. Raises where a cell cannot be composed."""
        from miles_repro import job

        assert self.hydra_context is not None
        assert self.config is not None
        cells = defaultdict(list)
        for run in runs:
            free = {o.split("=")[0]: o for o in run if o.split("=")[0] in FREE}
            cells[tuple(o for o in run if o not in free.values()), tuple(free)].append((run, free))
        done = set()
        parser = OverridesParser.create()
        for members in cells.values():
            config = self.hydra_context.config_loader.load_sweep_config(self.config, members[0][0])
            HydraConfig.instance().set_config(config)
            with open_dict(config):
                del config["hydra"]
            for run, free in members:
                for key, text in free.items():
                    config[key] = parser.parse_override(text).value()
                if job.report_finished(config, run, folder):
                    done.add(tuple(run))
        return [run for run in runs if tuple(run) not in done]
