"""Every random number of a run comes from a seed derived by name from the run's seed.

Nothing therefore depends on the order of events: a resumed run needs no generator state, and
two strategies see the same initial weights and the same batches.
"""

from __future__ import annotations

import hashlib


def derive(seed: int, *names: object) -> int:
    """A 63-bit seed for the thing called ``names`` in the run with ``seed``."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
