"""Vanilla joint training.

Loss      L_AB, the fused head's loss alone (MILES sec. III-B; the paper's first row).
Search    the learning rate only.
Supports  any fusion, task and number of modalities. Unimodal numbers come from the logit split.
"""

from __future__ import annotations

from miles_repro.strategy import Strategy


class Vanilla(Strategy):
    """The base strategy as it stands."""
