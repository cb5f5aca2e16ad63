"""miles-repro: the paper MILES (arXiv 2510.17394) reproduced, balanced learning compared.

``from miles_repro import MILES`` gives the scheduler alone, for any training loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from miles_repro.scheduler import MILES

__version__ = "0.1.0"
__all__ = ["MILES", "__version__"]


def __getattr__(name: str) -> Any:
    # Importing torch takes seconds; commands that only read records never need it.
    if name == "MILES":
        from miles_repro.scheduler import MILES

        return MILES
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
