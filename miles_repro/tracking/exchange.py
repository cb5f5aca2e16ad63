"""Records and tables to and from W&B, for reports."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miles_repro.errors import UserError
from miles_repro.records import PLACE, Ignored, NotASummary, Summary, tell
from miles_repro.tracking import brief
from miles_repro.tracking.connection import (
    choose_mode,
    prepare_environment,
    require_server,
    settings,
)
from miles_repro.tracking.mirror import record_of

if TYPE_CHECKING:
    import pandas as pd


def project_runs(entity: str | None, project: str, *, lazy: bool) -> Iterable[Any]:
    """The runs of a project through the public API; none where the project does not exist.

    Raises:
        UserError: the server cannot be read.
    """
    import wandb

    try:
        api = wandb.Api(timeout=60)
        path = f"{entity or api.default_entity}/{project}"
        return list(api.runs(path, per_page=200, lazy=lazy))
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
    found: dict[str, Summary] = {}
    for run in project_runs(entity or None, project, lazy=False):
        try:
            record = record_of(dict(run.summary_metrics))
        except NotASummary as error:
            item = Ignored(Path(f"W&B run {run.id}"), str(error), harmless=error.older)
            ignored.append(item) if ignored is not None else tell([item])
            continue
        if record is not None:
            found.setdefault(record["run_id"], record)
    if not found:
        raise UserError(
            f"W&B project {entity_project} holds no finished runs of this suite: check the name, "
            "or upload some with scripts/sync_wandb.py"
        )
    return sorted(
        found.values(),
        key=lambda record: [str(record[name]) for name in PLACE],  # type: ignore[literal-required]
    )


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
    flat = {name: _plain(table) for name, table in tables.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with wandb.init(
            project=project,
            entity=entity,
            mode=chosen,
            dir=folder,
            id=f"tables-{_content_hash(flat)}",
            name="tables",
            job_type="tables",
            resume="allow" if chosen == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(**settings({})),
        ) as run:
            run.log({f"tables/{name}": wandb.Table(dataframe=df) for name, df in flat.items()})
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


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """One header line of strings, the index as columns where it has names, None for gaps."""
    named = [name for name in table.index.names if name is not None]
    plain = table.reset_index() if named else table.copy()
    plain.columns = [
        " ".join(str(part) for part in column if str(part))
        if isinstance(column, tuple)
        else str(column)
        for column in list[Any](plain.columns)
    ]
    return plain.astype(object).where(plain.notna(), None)


def _content_hash(tables: dict[str, pd.DataFrame]) -> str:
    text = "".join(f"{name}\n{tables[name].to_csv(index=False)}" for name in sorted(tables))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
