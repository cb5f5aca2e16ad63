"""The suite in Python: run, sweep, records, curves.

    import miles_repro as mr

    mr.run(dataset="mfeat", strategy="miles", seed=0)
    mr.sweep(dataset="mfeat", strategy=["vanilla", "miles"], seed=[1, 2, 3])
    mr.records()

Keywords are the overrides of train.py; runs and records are the ones that it makes. Text is written
as it is there (``trial="range(0,8)"``), all else as Python has it; keys with a dot go through a
mapping: ``**{"strategy.tau": 0.1}``.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from miles_repro import places

if TYPE_CHECKING:
    import pandas as pd

RUNS = "results/runs"


class Verb(ModuleType):
    """A module of this package that is also the function of its name here."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return globals()[self.__name__.rpartition(".")[2]](*args, **kwargs)


def run(**overrides: Any) -> Mapping[str, Any]:
    """Train and test one configuration, or read its record where it is finished.

    Returns:
        The record, as ``summary.json`` holds it.

    Raises:
        UserError: a wrong key, choice or value, data not prepared, or trained elsewhere just now.
    """
    from miles_repro import composing, job
    from miles_repro.errors import UserError
    from miles_repro.run import run as train

    words = [f"{key}={_text(value)}" for key, value in overrides.items()]
    config = job.checked(composing.compose(words), words)
    outcome = train(config, f"{places.command('train')} {' '.join(words)}", job.EpochLines())
    if outcome.summary is None:
        raise UserError(job.describe(outcome))
    print(f"{job.label(config)}: {job.describe(outcome)}", flush=True)
    return outcome.summary


def sweep(**overrides: Any) -> pd.DataFrame:
    """One run for each combination of the values given as lists, as ``train.py -m`` does.

    Finished runs are skipped; ``**{"hydra/launcher": "local"}`` works in several processes. A
    value that is a list itself goes into another: ``keep=[["weights"]]``.

    Returns:
        The records of these runs, as :func:`records` has them.

    Raises:
        UserError: the sweep could not begin, or a run failed: the others are on record.
    """
    from miles_repro import composing
    from miles_repro.errors import UserError
    from miles_repro.records import read_summary

    words = [f"{key}={_choices(key, value)}" for key, value in overrides.items()]
    where = [word for word in words if word.startswith(("runtime", "hydra.searchpath"))]
    name = f"python-{secrets.token_hex(8)}"
    last = _train(["-m", *words], {"MILES_SWEEP": name})
    folder = Path(composing.compose(where)["runtime"]["runs_dir"]) / ".sweeps" / name
    if last:
        raise UserError(last)
    found = [read_summary(Path(entry["folder"])) for entry in _journal(folder)]
    return _frame([summary for summary in found if summary])


def records(runs_dir: str | Path = RUNS) -> pd.DataFrame:
    """All finished runs, a row each, in the order they lie in.

    Columns are named by their way through ``summary.json``: ``test.fused.metric``, ``gap``,
    ``instruments.probe.val.audio.metric``, ``cost.wall_s``, ``config.strategy.tau``. Metrics are
    shares (1 is 100 %), NaN where a run has no such number.
    """
    from miles_repro.records import load_summaries

    return _frame(load_summaries(Path(runs_dir)))


def curves(run_id: str, runs_dir: str | Path = RUNS) -> pd.DataFrame:
    """The epochs of a run, finished or not, a row each: ``val.fused.metric``,
    ``lr.encoder.audio``.

    Raises:
        UserError: no such run, or no epoch of it yet.
    """
    import pandas as pd

    from miles_repro.errors import UserError
    from miles_repro.records import load_rows, run_folders

    for folder in run_folders(Path(runs_dir)):
        if folder.name == run_id:
            if not (rows := load_rows(folder)):
                raise UserError(f"{folder} has no epoch yet")
            return pd.json_normalize(list(map(dict, rows))).set_index("epoch")
    raise UserError(f"no run {run_id!r} in {runs_dir}: records()['run_id'] lists the finished ones")


def _frame(summaries: list[Any]) -> pd.DataFrame:
    """Numbers and names of records; sources, sentences and lists stay in the files."""
    import pandas as pd

    frame = pd.json_normalize([{k: v for k, v in s.items() if k != "code"} for s in summaries])
    plain = [key for key in frame if not frame[key].map(lambda v: isinstance(v, list)).any()]
    return frame[plain]


def _train(arguments: list[str], environment: Mapping[str, str]) -> str:
    """train.py in a process of its own, its lines shown here. Returns why it failed, or nothing."""
    from miles_repro.machine import PARENT

    mine = {**os.environ, PARENT: str(os.getpid()), **environment}
    pipe = subprocess.PIPE
    command = [*places.TRAIN, *arguments]
    with subprocess.Popen(command, env=mine, stdout=pipe, stderr=subprocess.STDOUT, text=True) as p:
        assert p.stdout is not None
        line = ""
        try:
            for line in p.stdout:
                print(line, end="", flush=True)
        except BaseException:
            p.terminate()
            raise
    return line.strip() if p.returncode else ""


def _journal(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("journal.*.jsonl")):
        yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())


def _choices(key: str, value: Any) -> str:
    """A list is swept over, but for Hydra's own keys."""
    if isinstance(value, (list, tuple, range)) and not key.lstrip("+~").startswith("hydra"):
        return ",".join(map(_text, value))
    return _text(value)


def _text(value: Any) -> str:
    """A value as Hydra's grammar writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}:{_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple, range)):
        return "[" + ",".join(map(_text, value)) + "]"
    if isinstance(value, Path):
        return "'" + str(value).replace("'", "\\'") + "'"
    return str(value)
