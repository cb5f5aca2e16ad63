"""Modality dropout: who loses what."""

import pytest
import torch
from rows import Row, Vector

from miles_repro.strategies.modality_dropout import dropped


def modality_dropout(v: Vector) -> None:
    i, want = v["inputs"], v["expected"]
    generator = torch.Generator().manual_seed(0)
    lost = dropped(i["n_samples"], i["n_modalities"], i["p"], generator)
    share = torch.bincount(lost, minlength=3) / i["n_samples"]
    assert float(share[0]) == pytest.approx(want["P_drop_A"], abs=v["abs_tol"])
    assert float(share[1]) == pytest.approx(want["P_drop_B"], abs=v["abs_tol"])
    assert float(share.sum()) == pytest.approx(1)  # one index a sample: never both


ROW = Row(
    touches=[{"encoder.image", "encoder.audio", "fusion"}],
    neutral=[({"strategy.p": 0.0}, "vanilla")],
    golden={"modality_dropout": modality_dropout},
)
