"""Fused, each modality alone, each missing, each with noise."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support import FUSIONS, build_fit, parameters, same_tensors, settings, strategy_overrides
from torch import Tensor

from miles_repro.data.reader import Part, PreparedData
from miles_repro.evaluate import (
    NOISE_LEVELS,
    noisy_feature,
    predict,
    robustness,
    score,
    utilization,
)
from miles_repro.loop import Fit


def trained(tiny_data: Path, tmp_path: Path, *overrides: str, **values: Any) -> tuple[Fit, Part]:
    config = settings(tiny_data, tmp_path, *overrides, **values)
    fit = build_fit(config)
    list(fit.epochs())
    folder = tiny_data / config.dataset.name
    data = PreparedData(folder, "main", fit.ctx.modalities)
    return fit, data.part("test", torch.device("cpu"), 100)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_predict_is_the_model_in_evaluation_mode(
    fusion: str, tiny_data: Path, tmp_path: Path
) -> None:
    fit, test = trained(tiny_data, tmp_path, *strategy_overrides("vanilla", fusion))
    fit.model.train()
    before = parameters(fit)
    found = predict(fit.model, test, 5)
    assert same_tensors(before, parameters(fit))  # no batch-norm statistics moved
    assert not any(module.training for module in fit.model.modules())
    x, y = test.batch(torch.arange(12))
    with torch.no_grad():
        out = fit.model(x)
    expected = {"fused": out.fused, **out.unimodal}
    assert list(found.logits) == list(expected)
    for k, v in expected.items():
        torch.testing.assert_close(found.logits[k], v)
    for m, z in out.features.items():
        torch.testing.assert_close(found.features[m], z)
    scores = score(fit.task, found.logits, y)
    assert scores["fused"]["metric"] == pytest.approx(
        float((out.fused.argmax(1) == y).float().mean())
    )


def scores(fused: float, **unimodal: float) -> dict[str, dict[str, float]]:
    return {k: {"metric": v} for k, v in {"fused": fused, **unimodal}.items()}


def test_utilization() -> None:
    assert utilization(scores(0.8, a=0.6, b=0.4)) == pytest.approx(
        {"a": 0.5, "b": 0.25, "delta": 0.25}
    )
    assert utilization(scores(0.8, a=0.8)) == {}
    assert all(math.isnan(v) for v in utilization(scores(0.0, a=0.1, b=0.0)).values())


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("strategy", ["vanilla", "miles"])
def test_robustness(strategy: str, fusion: str, tiny_data: Path, tmp_path: Path) -> None:
    fit, test = trained(tiny_data, tmp_path, *strategy_overrides(strategy, fusion))
    model, y = fit.model, test.labels
    val, predicted = predict(model, fit.val, 512), predict(model, test, 512)
    found = robustness(model, fit.task, val, test, predicted, 0)
    x, _ = test.batch(torch.arange(12))
    with torch.inference_mode():
        z = model.encode(x)
        for m in z:
            for kind, fill in (("zero", 0 * z[m]), ("mean", val.features[m].mean(0))):
                logits = model.fusion({**z, m: torch.zeros_like(z[m]) + fill})
                expected = fit.task.score(logits, y)
                assert found["missing"][m][kind] == pytest.approx(expected)
    assert found["noise"].keys() == found["missing"].keys() == z.keys()
    for levels in found["noise"].values():
        assert list(levels) == [str(level) for level in NOISE_LEVELS]
    assert found == robustness(model, fit.task, val, test, predicted, 0)
    assert found["noise"] != robustness(model, fit.task, val, test, predicted, 1)["noise"]


def test_noise_has_the_stated_level_and_hits_one_modality(tiny_data: Path, tmp_path: Path) -> None:
    fit, test = trained(tiny_data, tmp_path, *strategy_overrides("vanilla"))
    seen: list[Tensor] = []
    handle = fit.model.encoders["image"].register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    clean, _ = test.batch(torch.arange(12))
    for level in NOISE_LEVELS:
        noisy_feature(fit.model, test, "image", level, seed=3)
    handle.remove()
    noises = [x - clean["image"] for x in seen]
    for noise, level in zip(noises, NOISE_LEVELS, strict=True):
        n = noise.numel()
        assert float(noise.std()) == pytest.approx(level, rel=4 / math.sqrt(2 * n))
        assert abs(float(noise.mean())) < 4 * level / math.sqrt(n)
    none = noisy_feature(fit.model, test, "image", 0.0, seed=3)
    torch.testing.assert_close(none, predict(fit.model, test, 512).features["image"])


def test_token_ids_take_no_noise(tiny_data: Path, tmp_path: Path) -> None:
    fit, test = trained(tiny_data, tmp_path, *strategy_overrides("vanilla"), dataset="tiny_three")
    val, predicted = predict(fit.model, fit.val, 512), predict(fit.model, test, 512)
    original = test.batch

    def batch(index: Tensor, only: str | None = None) -> Any:
        x, y = original(index, only)
        return {m: v.long() if m == "text" else v for m, v in x.items()}, y

    test.batch = batch  # type: ignore[method-assign]
    found = robustness(fit.model, fit.task, val, test, predicted, 0)
    assert set(found["noise"]) == {"image", "audio"}
    assert set(found["missing"]) == {"image", "audio", "text"}


def test_one_modality_has_nothing_to_miss(tiny_data: Path, tmp_path: Path) -> None:
    fit, test = trained(tiny_data, tmp_path, "strategy=unimodal", "strategy.modality=audio")
    val, predicted = predict(fit.model, fit.val, 512), predict(fit.model, test, 512)
    found = robustness(fit.model, fit.task, val, test, predicted, 0)
    assert found == {"missing": {}, "noise": {}}
