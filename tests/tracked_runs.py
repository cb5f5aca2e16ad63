"""A process that records made-up runs and mirrors them, as a training process does.

``python tracked_runs.py '{"root": ..., "runs": 20}'`` prints one JSON line of timings at the end.
Options: ``runs``, ``epochs``, ``first`` (number of the first run), ``config`` (tracker group),
``kill_at`` (SIGKILL itself after that epoch of the first run), ``forget`` (recorded epochs that
a resumed run trains again), ``fail_at`` (the same, but a
failure), ``pause`` (seconds an epoch takes).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from miles_repro import tracking
from miles_repro.records import RunRecord, load_rows


def row(number: int, epoch: int) -> dict[str, Any]:
    """A row with awkward floats, an undefined utilization and keys with dots."""
    x = (number + 1) / (epoch + 2)
    scores = {"loss": x, "metric": 0.3 + 0.01 * min(epoch, 3)}
    return {
        "epoch": epoch,
        "train": {"fused": scores, "image": {"loss": x * 3, "metric": 0.1}},
        "val": {"fused": scores, "image": {"loss": x / 3, "metric": 0.2}},
        "utilization": {"image": x / 7, "audio": None, "delta": -x},
        "lr": {"encoder.image": 1e-3, "fusion": 1e-3 / 3},
        "strategy": {"tau": 0.2},
        "time": {"epoch_s": 0.1, "elapsed_s": 0.1 * epoch},
    }


WANDB = "miles_repro.tracking.wandb_run.open_run"
COSTS = (
    "wall_s",
    "cpu_s",
    "train_samples_per_s",
    "peak_rss_mb",
    "peak_gpu_mb",
    "energy_j",
)


AT_START = ("commit", "dirty", "seeds")  # what a header has beside the record's keys


def header(number: int) -> dict[str, Any]:
    return {
        "run_id": f"{number:012x}",
        "dataset": "toy",
        "fusion": "concat",
        "strategy": "miles",
        "label": "MILES",
        "family": "learning rates",
        "trial": number,
        "seed": 0,
        "budget": "smoke",
        "metric": "accuracy",
        "pinned": [],
        "commit": "abc1234",
        "dirty": False,
        "seeds": 5,
        "config": {
            "seed": 0,
            "strategy": {"name": "miles", "tau": 0.1 * number, "mu": None},
            "optimizer": {"lr": 0.001},
            **{key: {} for key in ("dataset", "fusion", "budget")},
        },
        "command": f"python train.py trial={number}",
    }


def summary(number: int, epochs: int) -> dict[str, Any]:
    last = row(number, epochs)
    scores = {"fused": {"loss": 0.1, "metric": 2 / 3}, "image": {"loss": 0.2, "metric": 0.5}}
    tool = {"image": {"loss": 0.3, "metric": 0.6}, "audio": {"loss": 0.4, "metric": None}}
    own = {key: value for key, value in header(number).items() if key not in AT_START}
    return {
        "schema": 2,
        "status": "done",
        **own,
        "keep": [],
        "code": {},
        "unimodal_source": "trained",
        "instruments": {name: {"val": tool, "test": tool} for name in ("split", "probe")},
        "data_fingerprint": "feed",
        "modalities": ["image", "audio"],
        "strong": "image",
        "weak": "audio",
        "epochs": epochs,
        "best_epoch": min(epochs, 3),
        "val": last["val"],
        "test": scores,
        "gap": 1 / 3,
        "utilization": {"val": last["utilization"], "test": {"image": 0.1, "delta": None}},
        "missing": {"image+audio": {"zero": {"loss": 0.9, "metric": 0.4}}},
        "noise": {"image": {"0.5": {"loss": 0.8, "metric": 0.45}}},
        "cost": dict.fromkeys(COSTS, 1.5) | {"peak_gpu_mb": None},
        "environment": {"device": "cpu", "commit": "abc1234", "dirty": False},
        "finished": "2026-01-01T00:00:00Z",
    }


def folder(root: Path, number: int) -> Path:
    return root / "toy" / "concat" / "miles" / header(number)["run_id"]


def main(options: dict[str, Any]) -> dict[str, Any]:
    root, epochs = Path(options["root"]), options.get("epochs", 4)
    config = {"_target_": WANDB, "project": "demo", "entity": None, "mode": "auto", "tags": ["t"]}
    if own := options.get("config"):
        config = own if "_target_" in own else config | own
    spent: dict[str, list[float]] = {"start": [], "log": [], "finish": []}

    def timed(name: str, function: Any, *args: Any) -> Any:
        begin = time.perf_counter()
        result = function(*args)
        spent[name].append(time.perf_counter() - begin)
        return result

    first = options.get("first", 0)
    begin = time.perf_counter()
    for number in range(first, first + options.get("runs", 1)):
        run_dir = folder(root, number)
        record = RunRecord(run_dir)
        record.write_config(header(number)["config"])
        history = load_rows(run_dir) if (run_dir / "metrics.jsonl").exists() else []
        history = history[: len(history) - options.get("forget", 0)]
        record.rewrite_rows(history)
        tracker = timed("start", tracking.start, config, header(number), run_dir, history)
        for epoch in range(len(history) + 1, epochs + 1):
            time.sleep(options.get("pause", 0))
            record.append(row(number, epoch))
            timed("log", tracker.log, row(number, epoch))
            if epoch == options.get("kill_at"):
                time.sleep(0.3)  # let the client send what it has, as in a real epoch
                os.kill(os.getpid(), signal.SIGKILL)
            if epoch == options.get("fail_at"):
                break
        if options.get("fail_at"):
            record.fail("Traceback ...\nValueError: made up")
            timed("finish", tracker.finish, None, "ValueError: made up")
        else:
            record.finish(summary(number, epochs))
            timed("finish", tracker.finish, summary(number, epochs))
    return spent | {"all": time.perf_counter() - begin, "wandb": "wandb" in sys.modules}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
