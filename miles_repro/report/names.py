"""What things are called in tables, and in which order they appear."""

from __future__ import annotations

from miles_repro.selection import Study, is_unimodal

PAPER_ROWS = {
    "vanilla": "Vanilla",
    "mslr_k": "MSLR-K",
    "mslr_s": "MSLR-S",
    "mslr_d": "MSLR-D",
    "ogm": "OGM",
    "ogm_ge": "OGM-GE",
    "mses": "MSES",
    "gblend": "G-Blend",
    "miles": "MILES",
}
"""The nine rows of the paper's Tables II and III, in their order."""

BEYOND = {
    "vanilla_aux": "Vanilla + aux",
    "static_lr": "Static LR",
    "random_lr": "Random LR",
    "modality_dropout": "Modality dropout",
    "mimo": "MIMO",
}
"""Controls and methods the paper does not have."""

KINDS = {
    "single loss": ("vanilla", "mslr_k", "mslr_s", "mslr_d", "ogm", "ogm_ge"),
    "auxiliary losses": ("vanilla_aux", "mses", "gblend"),
    "control": ("static_lr", "random_lr"),
    "MILES": ("miles",),
}
"""What a strategy trains on: the difference that explains most of the weak heads."""

DATASETS = {"cremad": "CREMA-D", "smnist": "S-MNIST", "luma": "LUMA", "mmimdb": "MM-IMDb"}
"""The paper's data sets, in the order of its tables."""

FUSIONS = {"concat": "concatenation", "sum": "summation"}
"""The paper's two fusions (Tables II and III)."""

METRICS = {"accuracy": "accuracy", "f1_micro": "micro F1"}

NOT_RUN = "not yet run"


def strategy_label(strategy: str) -> str:
    if is_unimodal(strategy):
        return f"{strategy.removeprefix('unimodal_')} alone"
    return PAPER_ROWS.get(strategy) or BEYOND.get(strategy) or strategy


def strategy_order(strategy: str) -> tuple[int, str]:
    """Sort key: the paper's rows, then ours, then unimodal models."""
    known = [*PAPER_ROWS, *BEYOND]
    if strategy in known:
        return known.index(strategy), ""
    return (len(known) + is_unimodal(strategy), strategy)


def strategy_kind(strategy: str) -> str:
    return next((kind for kind, names in KINDS.items() if strategy in names), "other")


def dataset_label(dataset: str) -> str:
    return DATASETS.get(dataset, dataset)


def metric_label(study: Study) -> str:
    return METRICS.get(study.metric, study.metric)
