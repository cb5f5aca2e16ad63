"""Records and tables to and from W&B, for reports."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miles_repro.errors import UserError
from miles_repro.records import PLACE, SUMMARY, Ignored, NotASummary, Summary, parse_summary, tell
from miles_repro.tracking import brief
from miles_repro.tracking.connection import (
    choose_mode,
    prepare_environment,
    require_server,
    settings,
)
from miles_repro.tracking.mirror import artifact_name

if TYPE_CHECKING:
    import pandas as pd


DOWNLOADS = 16


def project_runs(
    entity: str | None, project: str, *, lazy: bool, filters: dict[str, Any] | None = None
) -> Iterable[Any]:
    """The runs of a project, newest first; none where the project does not exist.

    Raises:
        UserError: the server cannot be read.
    """
    import wandb

    try:
        api = wandb.Api(timeout=60)
        path = f"{entity or api.default_entity}/{project}"
        order = "-created_at"
        return list(api.runs(path, filters, order=order, per_page=200, lazy=lazy))
    except ValueError as error:
        if "Could not find project" in str(error):
            return []
        raise
    except wandb.Error as error:
        raise UserError(f"cannot read {project} from W&B: {brief(error)}") from None


def records_from_wandb(entity_project: str, ignored: list[Ignored] | None = None) -> list[Summary]:
    """The summaries of all finished runs of ``entity/project`` (or ``project``), each run id once.

    They equal the local ``summary.json`` files, in the same order, so tables built from them are
    the same too. ``ignored`` gets the runs whose record cannot be used, and why.

    Raises:
        UserError: no key, no answer, or a project without finished runs.
    """
    entity, _, project = entity_project.rpartition("/")
    require_server()
    runs = project_runs(entity or None, project, lazy=False)
    ended = [run for run in runs if {"status", "metric"} <= set(run.summary_metrics)]
    found: dict[str, Summary] = {}
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(DOWNLOADS) as pool:
        read = [pool.submit(_record, run, Path(scratch) / run.id) for run in ended]
        for run, future in zip(ended, read, strict=True):
            try:
                record = future.result()
                found.setdefault(record["run_id"], record)
            except NotASummary as error:
                item = Ignored(Path(f"W&B run {run.id}"), str(error), harmless=error.older)
                ignored.append(item) if ignored is not None else tell([item])
    if not found:
        raise UserError(
            f"W&B project {entity_project} holds no finished runs of this suite: check the name, "
            "or upload some with scripts/sync_wandb.py"
        )
    return sorted(
        found.values(),
        key=lambda record: [str(record[name]) for name in PLACE],  # type: ignore[literal-required]
    )


def _record(run: Any, folder: Path) -> Summary:
    """The ``summary.json`` in the artifact of a finished run.

    Raises:
        NotASummary: there is none that this version can use.
    """
    import wandb

    try:
        version = f"{artifact_name(run.config)}:{run.config['run_id']}"
        artifact = wandb.Api(timeout=60).artifact(f"{run.entity}/{run.project}/{version}")
        path = Path(artifact.get_entry(SUMMARY).download(str(folder)))
    except (wandb.Error, ValueError, LookupError, OSError) as error:
        raise NotASummary(f"its record cannot be read ({brief(error)})") from None
    return parse_summary(path.read_bytes())


def log_results(paths: Sequence[Path], where: str) -> str:
    """What a report wrote, into ``[entity/]project``; returns where it can be seen."""
    tables = {path.stem: read_table(path) for path in paths if path.suffix == ".csv"}
    shown = [path for path in paths if path.parent.name != "tables"]
    entity, _, project = where.rpartition("/")
    return log_tables(tables, shown, project, entity or None)


def log_tables(
    tables: dict[str, pd.DataFrame],
    figures: list[Path],
    project: str,
    entity: str | None = None,
    *,
    mode: str = "auto",
    folder: Path = Path("results/runs/.tables"),
) -> str:
    """Log tables and figures as one summary run; the same tables are the same run.

    Each table becomes ``tables/<name>``, each PNG ``figures/<name>``, and all figures together the
    artifact ``report``. Returns where they can be seen: an address, or the offline run's folder.
    Needs Pillow for PNG figures.

    Raises:
        UserError: the server refuses, or the folder cannot be written.
    """
    import wandb

    prepare_environment(folder)
    chosen, _ = choose_mode(mode)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with wandb.init(
            project=project,
            entity=entity,
            mode=chosen,
            dir=folder,
            id=f"tables-{_content_hash(tables)}",
            name="tables",
            job_type="tables",
            resume="allow" if chosen == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(**settings({})),
        ) as run:
            run.log(
                {
                    f"tables/{name}": wandb.Table(dataframe=df)
                    for name, df in tables.items()
                    if len(df)
                }
            )
            images = [path for path in figures if path.suffix == ".png"]
            if images:
                run.log({f"figures/{path.stem}": wandb.Image(str(path)) for path in images})
            if figures:
                artifact = wandb.Artifact("report", type="report")
                for path in figures:
                    artifact.add_file(str(path), name=path.name)
                run.log_artifact(artifact)
            return run.url or f"{run.dir} (offline; upload with: wandb sync {Path(run.dir).parent})"
    except (wandb.Error, OSError, TimeoutError) as error:
        raise UserError(f"the tables cannot be sent to W&B: {brief(error)}") from None


def read_table(path: Path) -> pd.DataFrame:
    """A table of the report as its CSV file holds it, None for gaps; run ids stay text."""
    import pandas as pd

    text = dict.fromkeys(("run_ids", "commit", "strategy", "rival"), str)
    try:
        table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    return table.astype(object).where(table.notna(), None)


def _content_hash(tables: dict[str, pd.DataFrame]) -> str:
    text = "".join(f"{name}\n{tables[name].to_csv(index=False)}" for name in sorted(tables))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
