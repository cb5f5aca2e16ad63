"""The rule of MILES (arXiv 2510.17394): Eq. 4, Eq. 5 and Algorithm 1, in plain numbers.

Two modalities and more; a metric that is better the larger it is (accuracy, F1), or with
``mode="min"`` the smaller (error rate, loss), where every difference changes its sign.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

Mode = Literal["max", "min"]
Rule = Literal["largest_pair", "all_pairs"]

SLACK = 1e-12
"""delta equal to tau up to rounding counts as delta <= tau."""


def conditional_utilization(
    fused: float, unimodal: Mapping[str, float], mode: Mode = "max"
) -> dict[str, float]:
    """u_m for every modality m (MILES Eq. 4).

    u_m is the relative loss of metric when the fused prediction ``fused`` is replaced by the
    other modality's own prediction; with more than two, by the best of the others (ours). NaN
    for every modality where ``fused`` is not positive and finite.
    """
    if not _defined(fused, unimodal):
        return dict.fromkeys(unimodal, math.nan)
    top, value = _oriented(fused, unimodal, mode)
    return {m: (top - max(v for k, v in value.items() if k != m)) / fused for m in value}


def utilization_gap(fused: float, unimodal: Mapping[str, float]) -> float:
    """delta = |u_A - u_B| (MILES Eq. 5), of the most distant pair; NaN where undefined.

    The paper places it in [0, 1]; it exceeds 1 when the fused metric is small.
    """
    if not _defined(fused, unimodal):
        return math.nan
    return (max(unimodal.values()) - min(unimodal.values())) / fused


def lr_factors(
    fused: float,
    unimodal: Mapping[str, float],
    tau: float,
    mu: float,
    rule: Rule = "largest_pair",
    mode: Mode = "max",
) -> dict[str, float]:
    """Factor on the global rate for each modality's next epoch: 1, or ``mu`` where slowed.

    Algorithm 1 is written for two modalities; beyond two it is applied to

    - ``largest_pair``: the pair with the largest delta, so at most one modality is slowed;
    - ``all_pairs``: every pair, so each modality that dominates another one by more than tau is
      slowed (for three modalities the paper only sketches "by pairs").

    For two modalities the rules are the same, and for more they act in the same epochs.
    """
    strongest = dominant(fused, unimodal, tau, mode)
    if strongest is None:
        return dict.fromkeys(unimodal, 1.0)
    if rule == "largest_pair":
        slowed = {strongest}
    else:  # whoever dominates any modality dominates the weakest one
        weakest = _weakest(fused, unimodal, mode)
        pairs = ({m: unimodal[m], weakest: unimodal[weakest]} for m in unimodal if m != weakest)
        slowed = {m for pair in pairs if (m := dominant(fused, pair, tau, mode)) is not None}
    return {m: mu if m in slowed else 1.0 for m in unimodal}


def dominant(
    fused: float, unimodal: Mapping[str, float], tau: float, mode: Mode = "max"
) -> str | None:
    """The modality Algorithm 1 slows in the most distant pair, or None: no action."""
    if not _defined(fused, unimodal) or utilization_gap(fused, unimodal) <= tau + SLACK:
        return None
    top, value = _oriented(fused, unimodal, mode)
    if top < min(value.values()):  # both u < 0: the fused head does not lead yet
        return None
    return max(value, key=value.__getitem__)


def _weakest(fused: float, unimodal: Mapping[str, float], mode: Mode) -> str:
    _, value = _oriented(fused, unimodal, mode)
    return min(value, key=value.__getitem__)


def _oriented(
    fused: float, unimodal: Mapping[str, float], mode: Mode
) -> tuple[float, dict[str, float]]:
    """The metrics with the sign that makes larger better."""
    sign = 1 if mode == "max" else -1
    return sign * fused, {m: sign * v for m, v in unimodal.items()}


def _defined(fused: float, unimodal: Mapping[str, float]) -> bool:
    values = (fused, *unimodal.values())
    return len(unimodal) >= 2 and fused > 0 and all(math.isfinite(v) for v in values)
