"""miles-repro: the paper MILES (arXiv 2510.17394) reproduced, balanced learning compared.

``from miles_repro import MILES`` gives the scheduler alone, for any training loop; ``run``,
``sweep``, ``records`` and ``curves`` the suite (:mod:`miles_repro.api`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from miles_repro.api import curves, records, run, sweep
    from miles_repro.scheduler import MILES

__version__ = "0.1.0"
__all__ = ["MILES", "__version__", "curves", "records", "run", "sweep"]


def __getattr__(name: str) -> Any:
    # Importing torch or pydantic takes seconds; what does not need them never waits for them.
    if name == "MILES":
        return import_module("miles_repro.scheduler").MILES
    if name == "curves":
        return import_module("miles_repro.api").curves
    if name in ("run", "sweep", "records"):  # modules, which can be called: miles_repro.api
        return import_module(f"miles_repro.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
