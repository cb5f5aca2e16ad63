"""What a finished run predicts on the test split, class by class.

    python scripts/evaluate.py results/runs/smnist_mini/concat/miles/0123456789ab
    python scripts/evaluate.py 0123456789ab

Prints precision, recall, F1 and support of every class for the fused prediction and each
modality's own, and writes them (scores.csv) with a picture: confusion matrices, or true and
predicted values of a regression. Needs a run that was trained with keep=[predictions], or with
keep=[weights] and its data.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miles_repro import kept, metrics, provenance
from miles_repro.errors import UserError, ended

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from miles_repro.config import Config

RUNS, RESULTS = Path("results/runs"), Path("results/local/evaluation")


def main() -> int:
    return ended(partial(evaluate, parser().parse_args()))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("run", help="a run's folder, or its id")
    top.add_argument("--runs-dir", type=Path, default=RUNS, help=f"where ids are ({RUNS})")
    top.add_argument(
        "--data-dir",
        type=Path,
        default=Path(os.environ.get("MILES_DATA", "data")),
        help="prepared data (default: $MILES_DATA, data)",
    )
    top.add_argument("--device", default="cpu", help="for predictions from weights (cpu)")
    top.add_argument("--out", type=Path, default=RESULTS, help=f"a folder a run there ({RESULTS})")
    return top


def evaluate(args: argparse.Namespace) -> int:
    try:
        _evaluate(args)
    except OSError as error:
        raise UserError(f"{error.filename or args.out}: {error.strerror}") from None
    return 0


def _evaluate(args: argparse.Namespace) -> None:
    import pandas as pd

    from miles_repro.plots import canvas

    folder, summary = kept.find(args.run, args.runs_dir)
    config = kept.config_of(folder, summary, args.data_dir, args.device)
    if stale := provenance.changed(summary["code"], config):
        print(f"warning: changed since this run was made: {', '.join(stale)}", file=sys.stderr)
    found, source = kept.predictions(folder, config, summary)
    labels = found.pop("labels")
    task = config.dataset.task
    if task not in SCORES:
        raise UserError(f"{folder}: its task ({task}) has no scores by class")
    classes = _classes(config)
    tables = {head: SCORES[task](logits, labels, classes, config) for head, logits in found.items()}
    title = " ".join(summary[k] for k in ("dataset", "fusion", "label"))
    title = f"{title}, seed {summary['seed']}: {len(labels)} test samples"
    out = args.out / "__".join(folder.parts[-4:])
    out.mkdir(parents=True, exist_ok=True)
    scores = pd.concat(tables, names=["head"])
    scores.to_csv(out / "scores.csv")
    print(f"{title}\n{source}; trained by: {summary['command']}")
    for head, table in tables.items():
        print(f"\n{head}\n{table.to_string(float_format=lambda v: f'{v:.3f}')}")
    written = [out / "scores.csv"]
    if task == "regression":
        from miles_repro.plots.predictions import scatter

        figure = scatter({head: logits[:, 0] for head, logits in found.items()}, labels, title)
        written += canvas.save(figure, out / "errors")
    elif task != "multilabel":
        from miles_repro.plots.predictions import confusion

        matrices = {head: _confusion(logits, labels) for head, logits in found.items()}
        written += canvas.save(confusion(matrices, classes, title), out / "confusion")
    print(f"\nwritten: {', '.join(map(str, written))}")


def _classes(config: Config) -> list[str]:
    """Their names, where the prepared data is at hand."""
    from miles_repro.data.manifest import read_manifest

    n = 2 if config.dataset.task == "binary" else config.dataset.num_classes
    try:
        names = read_manifest(config.runtime.data_dir / config.dataset.name).get("classes", [])
    except UserError:
        names = []
    return list(map(str, names)) if len(names) == n else list(map(str, range(n)))


def _predicted(logits: np.ndarray) -> np.ndarray:
    """Class (N,) that logits (N, C) name; of one logit: yes or no."""
    return logits.argmax(1) if logits.shape[1] > 1 else (logits[:, 0] > 0).astype(int)


def _confusion(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts (C, C) of true class (row) and predicted class (column)."""
    import numpy as np

    n = max(logits.shape[1], 2)
    matrix = np.zeros((n, n), np.int64)
    np.add.at(matrix, (labels.astype(int), _predicted(logits)), 1)
    return matrix


def _of_one_class(
    logits: np.ndarray, labels: np.ndarray, classes: list[str], config: Config
) -> pd.DataFrame:
    import numpy as np

    every = np.arange(len(classes))
    return _table(_predicted(logits)[:, None] == every, labels[:, None] == every, classes)


def _of_labels(
    logits: np.ndarray, labels: np.ndarray, classes: list[str], config: Config
) -> pd.DataFrame:
    predicted = metrics.above(logits, config.dataset.threshold)
    return _table(predicted, labels.astype(bool), classes)


def _of_numbers(
    logits: np.ndarray, labels: np.ndarray, classes: list[str], config: Config
) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([metrics.regression(logits[:, 0], labels)], index=["all"])


def _table(predicted: np.ndarray, truth: np.ndarray, classes: list[str]) -> pd.DataFrame:
    import pandas as pd

    by: Mapping[str, Any] = metrics.by_class(predicted, truth)
    return pd.DataFrame(by, index=pd.Index(classes, name="class"))


SCORES = {
    "multiclass": _of_one_class,
    "binary": _of_one_class,
    "multilabel": _of_labels,
    "regression": _of_numbers,
}


if __name__ == "__main__":
    sys.exit(main())
