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
    fit_probe,
    instruments,
    missing,
    noise,
    noisy_feature,
    results,
    score,
    utilization,
)
from miles_repro.loop import Fit
from miles_repro.tasks import Multiclass


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
    fit.model.encoders["audio"].eval()  # as a frozen part is
    found = fit.ctx.look(test)
    assert same_tensors(before, parameters(fit))  # no batch-norm statistics moved
    assert fit.model.training
    assert not fit.model.encoders["audio"].training
    fit.model.eval()
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
    model, y = fit.model.eval(), test.labels
    val, seen = fit.ctx.observe("val"), fit.ctx.look(test)
    lost, noisy = missing(fit.ctx, val, seen), noise(fit.ctx, test, seen, 0)
    x, _ = test.batch(torch.arange(12))
    with torch.no_grad():
        z = model.encode(x)
        for m in z:
            for kind, fill in (("zero", 0 * z[m]), ("mean", val.features[m].mean(0))):
                logits = model.fusion({**z, m: torch.zeros_like(z[m]) + fill})
                expected = fit.task.score(logits, y)
                assert lost[m][kind] == pytest.approx(expected)
    assert noisy.keys() == lost.keys() == z.keys()
    for levels in noisy.values():
        assert list(levels) == [str(level) for level in NOISE_LEVELS]
    assert noisy == noise(fit.ctx, test, seen, 0)
    assert noisy != noise(fit.ctx, test, seen, 1)


def test_every_subset_of_three_modalities_is_left_out(tiny_data: Path, tmp_path: Path) -> None:
    fit, test = trained(tiny_data, tmp_path, *strategy_overrides("vanilla"), dataset="tiny_three")
    found = missing(fit.ctx, fit.ctx.observe("val"), fit.ctx.look(test))
    pairs = ["image+audio", "image+text", "audio+text"]
    assert list(found) == ["image", "audio", "text", *pairs]
    x, y = test.batch(torch.arange(12))
    z = fit.model.eval().encode(x)
    only_text = {m: f if m == "text" else torch.zeros_like(f) for m, f in z.items()}
    expected = fit.task.score(fit.model.fusion(only_text).detach(), y)
    assert found["image+audio"]["zero"] == pytest.approx(expected)


# --- the two instruments ----------------------------------------------------------------------


def test_a_probe_is_a_converged_linear_classifier() -> None:
    """Against scikit-learn's, with the same penalty."""
    from sklearn.linear_model import LogisticRegression

    generator = torch.Generator().manual_seed(0)
    z = 3 * torch.randn(300, 4, generator=generator) + 7
    y = (z[:, 0] - z[:, 1] + torch.randn(300, generator=generator) > 0).long()
    y += ((z[:, 2] > 8) & (y == 1)).long()
    probe = fit_probe(Multiclass(3), z, y)
    scaled = ((z - z.mean(0)) / z.std(0, correction=0)).numpy()
    theirs = LogisticRegression(C=1 / (2 * 1e-3 * len(z)), tol=1e-8, max_iter=1000)
    expected = theirs.fit(scaled, y.numpy()).predict_proba(scaled)
    torch.testing.assert_close(
        probe(z).softmax(1), torch.tensor(expected, dtype=torch.float32), atol=2e-3, rtol=0
    )


@pytest.mark.parametrize("strategy", ["vanilla", "miles", "ogm"])
def test_instruments_read_and_move_nothing(strategy: str, tiny_data: Path, tmp_path: Path) -> None:
    fit, test = trained(tiny_data, tmp_path, *strategy_overrides(strategy))
    before, generator = parameters(fit), torch.get_rng_state()
    train, seen = fit.ctx.observe("train"), fit.ctx.look(test)
    found = instruments(fit.ctx, train, {"test": seen})
    assert same_tensors(before, parameters(fit))
    assert torch.equal(generator, torch.get_rng_state())
    for kind in ("split", "probe"):
        assert set(found[kind]["test"]) == {"image", "audio"}
    with torch.no_grad():
        split = fit.model.eval().fusion.unimodal(seen.features)
    for m, logits in split.items():
        assert found["split"]["test"][m] == pytest.approx(fit.task.score(logits, test.labels))
    fitted = fit_probe(fit.task, train.features["audio"], train.labels)
    expected = fit.task.score(fitted(seen.features["audio"]), test.labels)
    assert found["probe"]["test"]["audio"] == expected


def test_a_probe_of_a_diverged_run_is_a_number_at_chance() -> None:
    z = torch.full((30, 4), math.nan)
    y = torch.arange(30) % 3
    assert Multiclass(3).score(fit_probe(Multiclass(3), z, y)(z), y)["metric"] == 1 / 3


def test_noise_has_the_stated_level_and_hits_one_modality(tiny_data: Path, tmp_path: Path) -> None:
    fit, test = trained(tiny_data, tmp_path, *strategy_overrides("vanilla"))
    seen: list[Tensor] = []
    handle = fit.model.encoders["image"].register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    clean, _ = test.batch(torch.arange(12))
    for level in NOISE_LEVELS:
        noisy_feature(fit.ctx, test, "image", level, seed=3)
    handle.remove()
    noises = [x - clean["image"] for x in seen]
    for added, level in zip(noises, NOISE_LEVELS, strict=True):
        n = added.numel()
        assert float(added.std()) == pytest.approx(level, rel=4 / math.sqrt(2 * n))
        assert abs(float(added.mean())) < 4 * level / math.sqrt(n)
    none = noisy_feature(fit.ctx, test, "image", 0.0, seed=3)
    torch.testing.assert_close(none, fit.ctx.look(test).features["image"])


def test_token_ids_take_no_noise(tiny_data: Path, tmp_path: Path) -> None:
    fit, test = trained(tiny_data, tmp_path, *strategy_overrides("vanilla"), dataset="tiny_three")
    seen = fit.ctx.look(test)
    original = test.batch

    def batch(index: Tensor, only: str | None = None) -> Any:
        x, y = original(index, only)
        return {m: v.long() if m == "text" else v for m, v in x.items()}, y

    test.batch = batch  # type: ignore[method-assign]
    assert set(noise(fit.ctx, test, seen, 0)) == {"image", "audio"}


def test_one_modality_has_nothing_to_miss(tiny_data: Path, tmp_path: Path) -> None:
    fit, test = trained(tiny_data, tmp_path, "strategy=unimodal", "strategy.modality=audio")
    found = results(fit.ctx, fit.best_scores, test, 0)
    assert (found["missing"], found["noise"]) == ({}, {})
    assert set(found["instruments"]["probe"]["test"]) == {"audio"}
