"""What things are called in tables and files, and in which order they appear."""

from __future__ import annotations

from miles_repro.paper import DATASETS, PAPER_ROWS
from miles_repro.selection import Study, is_unimodal

METRICS = {
    "accuracy": "accuracy",
    "f1_micro": "micro F1",
    "f1_macro": "macro F1",
    "f1_samples": "samples F1",
    "f1_weighted": "weighted F1",
}
NOT_RUN = "not yet run"
STAND_IN = "stand-in"


def strategy_label(study: Study | None, strategy: str) -> str:
    """As the strategy's records call it, or the paper where it has not run."""
    if is_unimodal(strategy):
        return f"{strategy.removeprefix('unimodal_')} alone"
    if study and strategy in study.names:
        return study.names[strategy][1]
    return PAPER_ROWS.get(strategy, strategy)


def family(study: Study, strategy: str) -> str:
    return study.names[strategy][0]


def strategy_order(study: Study, strategy: str) -> tuple[bool, str, str]:
    """Sort key: by family, then by name; unimodal models last."""
    return is_unimodal(strategy), *study.names.get(strategy, ("", strategy))


def strategies(study: Study, fusion: str) -> list[str]:
    """What has run with a fusion, in that order; unimodal models have none."""
    found = [s for f, s in study.cells if f == fusion and not is_unimodal(s)]
    return sorted(found, key=lambda strategy: strategy_order(study, strategy))


def dataset_label(dataset: str, stand_in: bool = False) -> str:
    return DATASETS.get(dataset, dataset) + f" ({STAND_IN})" * stand_in


def place(study: Study) -> str:
    """`S-MNIST (stand-in), budget mini`"""
    return f"{dataset_label(study.dataset, study.stand_in)}, budget {study.budget}"


def stem(study: Study) -> str:
    """`smnist-stand-in__mini`: the study in file names."""
    return f"{study.dataset}{f'-{STAND_IN}' * study.stand_in}__{study.budget}"


def metric_label(study: Study) -> str:
    return METRICS.get(study.metric, study.metric)
