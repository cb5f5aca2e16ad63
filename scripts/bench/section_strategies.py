"""2. What a strategy costs on top of the training it balances."""

from __future__ import annotations

from functools import partial

from bench.report import Goal, Section, Table
from bench.timing import Laps, Span, interleaved
from bench.work import NAMES, RATES, Encoder, Work
from miles_repro.run import run

AUX = {
    "miles": (),
    "mses": (),
    "gblend": ("strategy.mode=offline",),
    "static_lr": (),
    "random_lr": (),
    "mimo": (),
}
SINGLE = {
    "mslr_k": (RATES,),
    "mslr_s": (RATES,),
    "mslr_d": (RATES,),
    "ogm": ("strategy.ends=1.0",),
    "ogm_ge": ("strategy.ends=1.0",),
    "modality_dropout": (),
}
LIMITS = {
    **dict.fromkeys(("miles", "mslr_k", "mslr_s", "mslr_d", "mses"), 1.03),
    **dict.fromkeys(("ogm", "ogm_ge"), 1.12),
}
TEXT = """\
An epoch of each strategy over an epoch of the plain training with the same losses: `vanilla_aux`
for those that train unimodal heads (Eq. 3), `vanilla` for the others. OGM and OGM-GE modulate in
every epoch here, MSES has not stopped anything yet. G-Blend's epochs are those after its weights
are found; finding them costs a short training of one copy for each head, which the last column
shows in epochs of `vanilla_aux`.
"""


def measure(work: Work) -> Section:
    tables, goals, raw = [], [], {}
    for encoder in ("cnn", "mlp"):
        table = Table(
            [
                "strategy",
                "over",
                "epoch, ms",
                "ratio, CPU",
                "ratio, wall",
                "before epoch 1, epochs",
            ],
            title=NAMES[encoder],
        )
        for base, strategies in (("vanilla_aux", AUX), ("vanilla", SINGLE)):
            starts: dict[str, list[float]] = {}
            cases = {
                name: partial(epochs, work, encoder, name, overrides, starts)
                for name, overrides in {base: (), **strategies}.items()
            }
            series = interleaved(cases, work.size.repeats)
            raw[f"{encoder}/{base}"] = series.raw()
            epoch = series.median(base).cpu
            for name in strategies:
                ratio = series.ratio(name, base)
                before = (min(starts[name]) - min(starts[base])) / epoch
                table.add(
                    name,
                    base,
                    f"{1000 * series.median(name).cpu:.0f}",
                    ratio,
                    series.ratio(name, base, "wall"),
                    f"{max(0.0, before):.1f}",
                )
                if encoder == "cnn" and name in LIMITS:
                    goals.append(
                        Goal(f"{name} / {base}, {NAMES[encoder]}", ratio.median, LIMITS[name])
                    )
        tables.append(table)
    return Section("strategies", "The strategies' own cost", TEXT, tables, goals, raw)


def epochs(
    work: Work,
    encoder: Encoder,
    strategy: str,
    overrides: tuple[str, ...],
    starts: dict[str, list[float]],
) -> list[Span]:
    """Spans of the epochs after the first, and the first one's CPU time into ``starts``."""
    config = work.config(encoder, f"strategy={strategy}", f"epochs={work.size.epochs}", *overrides)
    laps = Laps(first=True)
    run(config, "bench", laps)
    starts.setdefault(strategy, []).append(laps.spans[0].cpu)
    return laps.spans[1:]
