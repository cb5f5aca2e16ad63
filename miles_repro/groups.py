"""A sweep's configurations, composed once for all jobs that differ in trial and seed alone.

Hydra composes every job of a sweep by itself, and twice: before the first job starts, which finds
mistakes early, and when the job does. Copies of one composition with other numbers are the same.
"""

from __future__ import annotations

import pickle
import re
import secrets
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

NUMBER = re.compile(r"\A(seed|trial)=(0|[1-9]\d*|best)\Z")
"""Overrides that set a value and choose nothing. Any other way to say it is left to Hydra."""
KEPT = 1024
"""Compositions in memory, some 20 kB each."""

_composed: dict[tuple[str, ...], bytes] = {}


class GroupLoader(ConfigLoaderImpl):
    """Hydra's loader, for one sweep. Launchers send it to their workers."""

    def __init__(self, loader: ConfigLoaderImpl) -> None:
        vars(self).update(vars(loader))
        self.sweep = secrets.token_hex(8)  # a worker may serve several

    def load_sweep_config(
        self, master_config: DictConfig, sweep_overrides: list[str]
    ) -> DictConfig:
        own = {m[1]: m[2] for o in sweep_overrides if (m := NUMBER.match(o))}
        group = (self.sweep, *(NUMBER.sub(r"\1", o) for o in sweep_overrides))
        if group not in _composed:
            composed = super().load_sweep_config(master_config, sweep_overrides)
            if len(_composed) >= KEPT:
                _composed.clear()
            _composed[group] = pickle.dumps(composed, pickle.HIGHEST_PROTOCOL)
            return composed
        config: DictConfig = pickle.loads(_composed[group])
        OmegaConf.copy_cache(from_config=master_config, to_config=config)
        _set(config, own)
        return config


def _set(config: DictConfig, own: Mapping[str, str]) -> None:
    """Give a copy its own numbers, and what Hydra derives from its overrides."""
    for key, text in own.items():
        config[key] = text if text == "best" else int(text)
    # as typed: an interpolation refers to the run's configuration, not to Hydra's
    typed: list[Any] = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)  # type: ignore[assignment]
    keys = [line.partition("=")[0] for line in typed]
    lines = [f"{k}={own[k]}" if k in own else o for k, o in zip(keys, typed, strict=True)]
    config.hydra.overrides.task = lines
    job = config.hydra.job
    named: list[Any] = [
        SimpleNamespace(input_line=o, key_or_group=re.split("[@=]", o)[0]) for o in lines
    ]
    job.override_dirname = get_overrides_dirname(overrides=named, **job.config.override_dirname)


def compose_in_groups() -> None:
    """From now on, for the sweep that is about to start."""
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    assert isinstance(hydra.config_loader, ConfigLoaderImpl)
    hydra.config_loader = GroupLoader(hydra.config_loader)
