"""W&B dashboards as code: one workspace for a project, one report per table of the paper.

Built offline; only :func:`save` talks to the server. Needs ``pip install miles-repro[dashboards]``.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from miles_repro.errors import UserError
from miles_repro.tracking import brief

VIEW = "milesrepro"  # name of the workspace in its address (?nw=...): saving again replaces it
SCORE, GAP = "test/fused/metric", "gap"
LOGGED = ["smnist_mini_mini", "cremad_paper", "smnist_paper", "luma_paper", "mmimdb_paper"]
"""Names of the comparison tables that ``reproduce.py tables --to-wandb`` logs, if all were run."""
UNIMODAL = ["unimodal_image", "unimodal_audio", "unimodal_video", "unimodal_text"]


@dataclass(frozen=True)
class PaperTable:
    """What a report shows: a logged table, and the runs behind it."""

    name: str
    title: str
    text: str
    where: dict[str, list[Any]]
    group: tuple[str, ...]
    ablation: bool = False

    def shown(self, logged: list[str]) -> list[str]:
        """Those logged tables that belong here: of its name, or comparisons of strategies."""
        return [t for t in logged if t == self.name or not (self.ablation or t in _NAMES)]


def _ablation(number: str, what: str, key: str) -> PaperTable:
    return PaperTable(
        f"table{number}",
        f"Table {number}: {what}",
        f"MILES with {what} varied and everything else at its chosen value.",
        {"strategy": ["miles"]},
        ("dataset", "fusion", key),
        ablation=True,
    )


def _fusion(number: str, fusion: str, word: str) -> PaperTable:
    return PaperTable(
        f"table{number}",
        f"Table {number}: balancing strategies, {word}",
        "Score of the fused prediction and of each modality's own head, and the gap between heads.",
        {"fusion": [fusion]},
        ("dataset", "strategy"),
    )


PAPER_TABLES = (
    PaperTable(
        "table1",
        "Table 1: unimodal models",
        "Each modality trained alone: what a head inside a multimodal model could reach.",
        {"strategy": UNIMODAL},
        ("dataset", "strategy"),
    ),
    _fusion("2", "concat", "concatenation"),
    _fusion("3", "sum", "summation"),
    _ablation("4", "the threshold tau", "strategy/tau"),
    _ablation("5", "the factor mu", "strategy/mu"),
    _ablation("6", "the source of the metric", "strategy/source"),
)


_NAMES = {table.name for table in PAPER_TABLES}


def _modules() -> tuple[Any, Any, Any]:
    try:
        from wandb_workspaces import expr
        from wandb_workspaces import workspaces as ws
        from wandb_workspaces.reports import v2 as wr
    except ImportError:
        raise UserError(
            "dashboards need wandb-workspaces: pip install 'miles-repro[dashboards]'"
        ) from None
    return ws, wr, expr


def build_workspace(entity: str, project: str) -> Any:
    """Runs grouped by fusion and strategy; panels for balance, learning rates and cost."""
    ws, wr, expr = _modules()

    def lines(title: str, pattern: str) -> Any:
        return wr.LinePlot(title=title, x="epoch", metric_regex=pattern, title_x="epoch")

    def bars(title: str, metric: str) -> Any:
        return wr.BarPlot(
            title=title,
            metrics=[metric],
            groupby=wr.Config("strategy"),
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
        )

    sections = {
        "Strategy x fusion": [
            bars("Test score, fused", SCORE),
            bars("Gap between the heads, strong - weak (test)", GAP),
            _scatter(wr),
        ],
        "Utilization": [
            lines("Utilization rate of each modality (validation)", "^utilization/u_.*"),
            lines("Difference of the rates (validation)", "^utilization/delta$"),
        ],
        "Learning rates": [lines("Learning rate of each parameter group", "^lr/.*")],
        "Learning": [
            lines("Validation score: fused and each head", "^val/.*/metric$"),
            lines("Training loss", "^train/.*/loss$"),
            lines("Validation loss", "^val/.*/loss$"),
            lines("What the strategy logs", "^strategy/.*"),
        ],
        "Cost": [
            bars("Wall time, s", "cost/wall_s"),
            bars("Training samples per second", "cost/train_samples_per_s"),
            bars("Peak memory, MB", "cost/peak_rss_mb"),
        ],
    }
    columns = [SCORE, GAP, "val/fused/metric", "best_epoch", "cost/wall_s"]
    return ws.Workspace(
        entity=entity,
        project=project,
        name="Balancing strategies",
        sections=[ws.Section(name=n, panels=p, is_open=True) for n, p in sections.items()],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=100),
        runset_settings=ws.RunsetSettings(
            groupby=[expr.Config(key) for key in ("dataset", "fusion", "strategy")],
            order=[expr.Ordering(expr.Summary(SCORE), ascending=False)],
            pinned_columns=[f"summary:{column}" for column in columns],
        ),
    )


def _scatter(wr: Any) -> Any:
    return wr.ScatterPlot(
        title="Gap against accuracy (test)",
        x=wr.SummaryMetric(SCORE),
        y=wr.SummaryMetric(GAP),
    )


def build_report(entity: str, project: str, table: PaperTable, logged: list[str]) -> Any:
    """The tables as they were computed from the records, and the runs behind them."""
    _, wr, expr = _modules()
    runs = wr.Runset(  # without a project it means the report's own, and needs no server to build
        name=table.title,
        filters=[expr.Config(key).isin(values) for key, values in table.where.items()],
        groupby=[f"config.{key}" for key in table.group],
    )
    bars = [
        wr.BarPlot(title=title, metrics=[metric], groupby_aggfunc="mean")
        for title, metric in (("Test score, fused", SCORE), ("Gap (test)", GAP))
    ]
    shown = [wr.WeavePanelSummaryTable(table_name=f"tables/{t}") for t in table.shown(logged)]
    computed = [
        wr.H1(text="As computed from the records"),
        wr.P(text="Best trial by validation, mean over seeds (reproduce.py tables --to-wandb)."),
        wr.PanelGrid(runsets=[wr.Runset(name="Tables")], panels=shown),
    ]
    return wr.Report(
        entity=entity,
        project=project,
        title=f"MILES reproduction, {table.title}",
        description=table.text,
        blocks=[
            *(computed if shown else []),
            wr.H1(text="All runs, every trial and seed"),
            wr.P(text="Plain means over all runs of a group, without any selection."),
            wr.PanelGrid(runsets=[runs], panels=[*bars, _scatter(wr)]),
        ],
    )


def spec(entity: str, project: str) -> dict[str, Any]:
    """Everything that :func:`save` would send, as plain JSON, once all tables were logged."""
    reports = [build_report(entity, project, table, LOGGED) for table in PAPER_TABLES]
    return {
        "workspace": _plain(build_workspace(entity, project)),
        "reports": [_plain(report) for report in reports],
    }


def _plain(view: Any) -> Any:
    return json.loads(view._to_model().model_dump_json(by_alias=True, exclude_none=True))


def save(entity: str | None, project: str) -> list[str]:
    """Create or replace the workspace and the reports; returns their addresses.

    Raises:
        UserError: the server refuses.
    """
    import wandb

    _modules()
    try:
        api = wandb.Api(timeout=60)
        owner = entity or str(api.default_entity)
        return [_save_workspace(owner, project), *_save_reports(api, owner, project)]
    except Exception as error:  # the client raises its own, plain and private kinds
        raise UserError(f"the dashboards cannot be saved: {brief(error)}") from None


def _save_workspace(entity: str, project: str) -> str:
    from wandb_workspaces.workspaces import internal

    workspace = build_workspace(entity, project)
    workspace._internal_name = internal._url_query_str_to_internal_name(VIEW)
    with suppress(ValueError):  # not there yet
        workspace._internal_id = internal.get_view_dict(entity, project, VIEW)["id"]
    workspace.save()
    return str(workspace.url)


def _save_reports(api: Any, entity: str, project: str) -> list[str]:
    known = {report.display_name: report.id for report in api.reports(f"{entity}/{project}")}
    runs = api.runs(f"{entity}/{project}", filters={"jobType": "tables"}, lazy=False)
    keys = {key for run in runs for key in run.summary_metrics if key.startswith("tables/")}
    logged = sorted(key.removeprefix("tables/") for key in keys)
    urls = []
    for table in PAPER_TABLES:
        report = build_report(entity, project, table, logged)
        report.id = known.get(report.title, "")
        report.save()
        urls.append(str(report.url))
    return urls
