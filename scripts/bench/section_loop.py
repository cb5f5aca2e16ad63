"""1. Our loop against a bare hand-written one."""

from __future__ import annotations

import math

from bench import bare
from bench.report import Goal, Section, Table
from bench.timing import Laps, Span, interleaved
from bench.work import NAMES, Encoder, Work
from miles_repro.records import load_rows
from miles_repro.run import run

LIMITS: dict[Encoder, float] = {"cnn": 1.03, "mlp": 1.05}
TEXT = """\
An epoch of training and validation on smnist_mini (3,500 and 500 samples, batches of 64), in one
process at one thread. Both loops start from the same weights, take the same batches, losses and
fused Adam, and must arrive at the same fused validation metric in every epoch and the same test
metric at the best one, bit for bit, or this section fails.

- **Bare**: written by hand for this one model. The sum of the losses, one parameter group, the
  fused metric on validation, a copy of the best weights.
- **Ours**: all of that, and the hooks; loss and metric of every head on training and validation;
  utilization; a rate for every part of the model; the epoch's row in `metrics.jsonl`; the state to
  resume from (at most once a second).

With the fused loss alone the bare loop never computes a modality's own logits; ours computes them
for every training batch, because the record holds their training metric.
"""


def measure(work: Work) -> Section:
    table = Table(["encoders", "losses", "bare, ms", "ours, ms", "ratio, CPU", "ratio, wall"])
    goals, raw = [], {}
    for encoder, limit in LIMITS.items():
        for strategy, losses in (("vanilla_aux", "fused + unimodal"), ("vanilla", "fused")):
            pair = Pair(work, encoder, strategy)
            repeats = work.size.repeats * (1 if encoder == "cnn" else 4)
            series = interleaved({"ours": pair.ours, "bare": pair.bare}, repeats)
            ratio = series.ratio("ours", "bare")
            table.add(
                NAMES[encoder],
                losses,
                f"{1000 * series.median('bare').cpu:.0f}",
                f"{1000 * series.median('ours').cpu:.0f}",
                ratio,
                series.ratio("ours", "bare", "wall"),
            )
            raw[f"{encoder}/{strategy}"] = series.raw()
            what = f"our loop / bare loop, {NAMES[encoder]}, {losses} loss"
            note = "the unimodal training metrics (see text)" if strategy == "vanilla" else ""
            goals.append(Goal(what, ratio.median, limit, note=note))
    return Section("loop", "Our loop and a bare loop", TEXT, [table], goals, raw)


class Pair:
    """Both loops on one configuration; refuses to time loops that do not compute the same."""

    def __init__(self, work: Work, encoder: Encoder, strategy: str) -> None:
        self.work, self.encoder, self.strategy = work, encoder, strategy
        self.found: dict[str, tuple[list[float], float]] = {}

    def ours(self) -> list[Span]:
        config = self.work.config(
            self.encoder, f"strategy={self.strategy}", f"epochs={self.work.size.epochs}"
        )
        laps = Laps()
        summary = run(config, "bench", laps).summary
        assert summary is not None
        val = [row["val"]["fused"]["metric"] or math.nan for row in load_rows(config.run_dir)]
        self._check("ours", val, summary["test"]["fused"]["metric"])
        return laps.spans

    def bare(self) -> list[Span]:
        config = self.work.config(
            self.encoder, f"strategy={self.strategy}", f"epochs={self.work.size.epochs}"
        )
        laps = Laps()
        result = bare.train(config, self.strategy == "vanilla_aux", laps)
        self._check("bare", result.val, result.test)
        return laps.spans

    def _check(self, who: str, val: list[float], test: float) -> None:
        self.found[who] = (val, test)
        if len(self.found) == 2 and self.found["ours"] != self.found["bare"]:
            raise RuntimeError(f"the two loops do not train the same model: {self.found}")
