"""Train and test one configuration, or with -m every combination of several; see --help."""

from __future__ import annotations

import os
import sys
import time

os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to the handler below, which prints one line
os.environ.setdefault("MILES_SWEEP", f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from miles_repro import sweep
from miles_repro.errors import UserError
from miles_repro.machine import cores
from miles_repro.places import CONF

OmegaConf.register_new_resolver("workers", lambda threads: max(1, cores() // threads), replace=True)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def job(composed: DictConfig) -> str:
    return sweep.job(composed)


def first_lines(error: Exception) -> str:
    """Hydra's message up to its list of search paths, on one line."""
    text = str(error).split("Config search path")[0]
    return " ".join(text.split())


def main() -> int:
    """Exit status: 0 all done, 2 a mistake or a failure, 3 runs left to others, 130 interrupted."""
    try:
        job()
    except (HydraException, OmegaConfBaseException, UserError) as e:
        print(f"error: {first_lines(e)}", file=sys.stderr)
        return 2
    except Exception as e:  # the launcher's own: a job keeps its errors to itself
        if not sweep.break_off(f"{type(e).__name__}: {first_lines(e)}"):
            raise
    except KeyboardInterrupt:
        sweep.break_off("interrupted")
        print("interrupted: the same command continues where this stopped", file=sys.stderr)
        return 130
    return 2 if sweep.failures else 3 if sweep.elsewhere else 0


if __name__ == "__main__":
    sys.exit(main())
