"""Train and test one configuration, or with -m every combination of several; see --help."""

from __future__ import annotations

import os
import secrets
import sys
import textwrap
import time
from typing import Any

os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to `launch`, which prints one line
# Containers may share clock, process ids and results: the name of a sweep needs more.
os.environ.setdefault(
    "MILES_SWEEP", f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{secrets.token_hex(4)}"
)

import hydra
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

from hydra_plugins import miles_sweeper
from miles_repro.machine import cores
from miles_repro.places import CONF
from miles_repro.sweep import launch


def menu(group: str) -> str:
    """One line for each choice of a group of conf/, for --help: its first comment, or its label
    and family."""
    lines = []
    for path in sorted((CONF / group).glob("*.yaml")):
        head = path.read_text(encoding="utf-8").splitlines()[:4]
        said = dict(line.split(": ", 1) for line in head if ": " in line and line[0] != "#")
        label = said.get("label", path.stem).strip("\"'")
        text = head[0].lstrip("# ") if head[0].startswith("#") else label
        if "family" in said:
            text = f"{said['family']}: {path.stem if '$' in label else label}"
        lines.append(f"  {path.stem:21} {textwrap.shorten(text, 56, placeholder=' ..')}")
    return "\n".join(lines)


def groups() -> str:
    """One line for each group of conf/ with its choices, for --help."""
    found: dict[str, list[str]] = {}
    for path in sorted(CONF.rglob("*/*.yaml")):
        group = path.parent.relative_to(CONF).as_posix()
        if not group.startswith("hydra"):
            found.setdefault(group, []).append(path.stem)
    return "\n".join(f"{group}: {', '.join(names)}" for group, names in sorted(found.items()))


def workers(threads: Any) -> int:
    """Processes of so many threads that this machine carries; runs refuse what is no number."""
    return max(1, cores() // threads) if type(threads) is int and threads > 0 else 1


OmegaConf.register_new_resolver("menu", menu, replace=True)
OmegaConf.register_new_resolver("groups", groups, replace=True)
OmegaConf.register_new_resolver("workers", workers, replace=True)


plugins = Plugins.instance()  # which runs the modules it finds, and so makes their classes anew
for plugin in (miles_sweeper.InProcess, miles_sweeper.RunSweeper):
    plugins.register(plugin)  # Hydra does not look into editable installs


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def job(composed: DictConfig) -> str:
    from miles_repro import job

    return job.job(composed)


def main() -> int:
    """Exit status: 0 all done, 2 a mistake or a failure, 3 runs left to others, 130 interrupted."""
    if sys.argv[1:] in (["--help"], ["-h"]):  # Hydra composes for most of a second first
        print(OmegaConf.load(CONF / "config.yaml").hydra.help.template)
        return 0
    return launch.run(job)


if __name__ == "__main__":
    sys.exit(main())
