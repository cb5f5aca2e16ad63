"""One modality trained alone (Table I of MILES).

Loss      L_m: the model is built for that modality only, so its "fused" prediction is its own.
Search    the learning rate; MSLR-K and MSLR-S read the best one from these runs.
Supports  any task. There is nothing to fuse: the run always uses ``fusion=concat``, which for
          one modality is a linear classifier on its features.
"""

from __future__ import annotations

from typing import ClassVar

from miles_repro.strategy import Needs, Strategy


class Unimodal(Strategy):
    """Vanilla training of a model that has one modality."""

    needs: ClassVar[Needs] = Needs(fusions=frozenset({"concat"}), min_modalities=1)

    modality: str

    def restrict(self, modalities: list[str]) -> list[str]:
        if self.modality not in modalities:
            raise ValueError(f"modality={self.modality!r} is not one of {modalities}")
        return [self.modality]
