"""Average ranks of the strategies, with Nemenyi's critical difference."""

from __future__ import annotations

from collections.abc import Sequence

from miles_repro.report.measures import Values, values
from miles_repro.report.names import place, strategy_label, strategy_order
from miles_repro.report.provenance import Origin
from miles_repro.report.table import Sheet, Table, show_p
from miles_repro.selection import Study, is_unimodal
from miles_repro.stats import BOOTSTRAP_MIN, Ranks, average_ranks, bootstrap_ci

BOOTSTRAP_SEED = 0
NO_CI = "no CI"


def ranks(studies: Sequence[Study]) -> Ranks | None:
    """Average ranks by fused test metric.

    One study: blocks are its (fusion, seed) pairs, so the ranks speak of that data set only.
    Several: blocks are (data set, fusion) pairs of seed means, as Demsar (2006) recommends.
    Strategies are those every study has; only complete blocks count.
    """
    if not studies:
        return None
    shared = set.intersection(*({s for _, s in study.cells} for study in studies))
    strategies = sorted(
        (s for s in shared if not is_unimodal(s)), key=lambda s: strategy_order(studies[0], s)
    )
    scores: dict[str, list[float]] = {strategy: [] for strategy in strategies}
    for study in studies:
        for fusion in study.fusions:
            cells = {s: values(study, study.cells.get((fusion, s)), "fused") for s in strategies}
            for block in _blocks(cells, single=len(studies) == 1):
                for strategy in strategies:
                    scores[strategy].append(block[strategy])
    return average_ranks(scores) if strategies and scores[strategies[0]] else None


def _blocks(cells: dict[str, Values], *, single: bool) -> list[dict[str, float]]:
    if single:
        seeds = set.intersection(*(set(numbers) for numbers in cells.values())) if cells else set()
        return [{s: numbers[seed] for s, numbers in cells.items()} for seed in sorted(seeds)]
    if not all(cells.values()):
        return []
    return [{s: sum(numbers.values()) / len(numbers) for s, numbers in cells.items()}]


def rank_groups(studies: Sequence[Study]) -> dict[str, list[Study]]:
    """What is ranked: each study by itself, and per budget several data sets together."""
    groups = {place(s): [s] for s in studies}
    for budget in sorted({study.budget for study in studies}):
        same = [study for study in studies if study.budget == budget]
        if len(same) > 1:
            groups[f"{len(same)} data sets, budget {budget}"] = same
    return groups


def ranks_sheet(studies: Sequence[Study], origin: Origin) -> Sheet:
    """One table per group that can be ranked."""
    tables = []
    for title, group in rank_groups(studies).items():
        found = ranks(group)
        if found:
            tables.append(_table(title, group, found))
    return Sheet("ranks", "Average ranks by fused test metric", tables, [origin.note()])


def _table(title: str, group: Sequence[Study], found: Ranks) -> Table:
    name, rank, spread = ("", "strategy"), ("", "average rank"), ("", "95 % interval")
    table = Table(title, [name, rank, spread])
    distance = found.critical_difference
    for strategy, average in sorted(found.average.items(), key=lambda pair: pair[1]):
        interval = bootstrap_ci(found.per_block[strategy], random_state=BOOTSTRAP_SEED)
        between = NO_CI if interval.low is None else f"{interval.low:.2f} to {interval.high:.2f}"
        texts = (strategy_label(group[0], strategy), f"{average:.2f}", between)
        table.rows.append(dict(zip(table.columns, texts, strict=True)))
        table.data.append(
            {
                "table": "ranks",
                "group": title,
                "strategy": strategy,
                "average_rank": round(average, 4),
                "ci_low": interval.low,
                "ci_high": interval.high,
                "blocks": found.blocks,
                "friedman_p": found.friedman_p,
                "critical_difference": round(distance, 4),
            }
        )
    kind = "(fusion, seed) pairs" if len(group) == 1 else "(data set, fusion) pairs of seed means"
    table.notes = [
        f"1 = best; {found.blocks} blocks: {kind}.",
        f"Friedman p {show_p(found.friedman_p)}, for a number of blocks fixed beforehand. Ranks "
        f"closer than {distance:.2f} are not separated (Nemenyi, 5 %).",
        f"Interval: BCa bootstrap over blocks (seed {BOOTSTRAP_SEED}), from {BOOTSTRAP_MIN} on.",
    ]
    return table
