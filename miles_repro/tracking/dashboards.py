"""W&B dashboards as code: the workspaces of a project, its reports, and its interval plot.

Built offline; only :func:`save` talks to the server. Needs the extra ``dashboards``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from miles_repro.errors import UserError
from miles_repro.report.names import METRICS
from miles_repro.tracking import brief, intervals, say
from miles_repro.tracking.exchange import project_runs
from miles_repro.tracking.pages import REPORTED, Page, pages

SCORE, GAP, VAL = "test/score", "test/gap", "val/score"
CELL = ("dataset", "budget", "fusion", "strategy")
HEADLINES = "|".join((*METRICS, "fit"))
PAIRS = "contrasts"  # the kind of table that the interval plot reads


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


def build_workspaces(entity: str, project: str) -> dict[str, Any]:
    """Name in the address (``?nw=...``) -> workspace: one of the runs that count, one of the
    search. Runs are grouped by data set, budget, fusion and strategy, and so are the panels."""
    _, wr, _ = _modules()

    def lines(title: str, pattern: str) -> Any:
        return wr.LinePlot(title=title, x="epoch", metric_regex=pattern, title_x="epoch")

    def bars(title: str, metric: str) -> Any:
        spread = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
        return wr.BarPlot(title=title, metrics=[metric], **spread)

    reported = {
        "Strategies": [
            bars("Test score, fused", SCORE),
            bars("Gap between the modalities, strong - weak (test)", GAP),
            _scatter(wr, "Gap against score (test)", wr.SummaryMetric(SCORE), GAP),
        ],
        "Utilization": [
            lines("Utilization rate of each modality (validation)", "^utilization/u_.*"),
            lines("Difference of the rates (validation)", "^utilization/delta$"),
        ],
        "Learning rates": [lines("Learning rate of each parameter group", "^lr/.*")],
        "Learning": [
            lines("Validation score: fused and each modality", f"^val/[^/]+/({HEADLINES})$"),
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
    search = {
        "Random search": [
            _scatter(wr, "Validation score by rate", wr.Config("optimizer/lr"), VAL),
            wr.ParameterImportancePlot(with_respect_to=VAL),
            lines("Validation score", f"^val/fused/({HEADLINES})$"),
        ]
    }
    columns = [SCORE, GAP, VAL, "best_epoch", "status", "cost/wall_s"]
    return {
        "milesrepro": _workspace(
            entity, project, "Balancing strategies", REPORTED, reported, columns
        ),
        "milessearch": _workspace(entity, project, "Search", ("search",), search, [VAL]),
    }


def _workspace(
    entity: str,
    project: str,
    name: str,
    jobs: tuple[str, ...],
    sections: dict[str, list[Any]],
    columns: list[str],
) -> Any:
    ws, _, expr = _modules()
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[ws.Section(name=n, panels=p, is_open=True) for n, p in sections.items()],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=100),
        runset_settings=ws.RunsetSettings(
            filters=expr.And(expr.Metric("JobType").isin(list(jobs))),
            groupby=[expr.Config(key) for key in CELL],
            order=[expr.Ordering(expr.Summary(columns[0]), ascending=False)],
            pinned_columns=[f"summary:{column}" for column in columns],
        ),
    )


def _scatter(wr: Any, title: str, x: Any, y: str) -> Any:
    return wr.ScatterPlot(title=title, x=x, y=wr.SummaryMetric(y))


def build_report(entity: str, project: str, page: Page, source: str, chart: str | None) -> Any:
    """The tables of a page as they were computed from the records, and the runs behind them.

    source: id of the W&B run that holds the tables; chart: id of the interval plot.
    """
    _, wr, expr = _modules()
    runs = wr.Runset(  # without a project it means the report's own, and needs no server to build
        name=page.title,
        filters=expr.And(
            expr.Metric("JobType").isin(list(page.jobs)),
            *(expr.Config(key).isin(values) for key, values in page.where.items()),
        ),
        groupby=[f"config.{key}" for key in page.group],
    )
    bars = [
        wr.BarPlot(title=title, metrics=[metric], groupby_aggfunc="mean")
        for title, metric in (("Test score, fused", SCORE), ("Gap (test)", GAP))
    ]
    scatter = _scatter(wr, "Gap against score (test)", wr.SummaryMetric(SCORE), GAP)
    shown = [wr.WeavePanelSummaryTable(table_name=f"tables/{name}") for name in page.tables]
    if chart:
        shown += [
            wr.CustomChart(
                query={"summaryTable": {"tableKey": f"tables/{name}"}},
                chart_name=chart,
                chart_fields=intervals.FIELDS,
                chart_strings={"quantity": "fused"},
            )
            for name in page.tables
            if name.startswith(f"{PAIRS}__")
        ]
    logged = wr.Runset(name="Tables", filters=expr.And(expr.Metric("ID") == source))
    computed = [
        wr.H1(text="As computed from the records"),
        wr.P(text="Best trial by validation, mean over seeds (reproduce.py tables --to-wandb)."),
        wr.PanelGrid(runsets=[logged], panels=shown),
    ]
    return wr.Report(
        entity=entity,
        project=project,
        title=f"MILES reproduction, {page.title}",
        description=page.text,
        blocks=[
            *(computed if shown else []),
            wr.H1(text="The runs"),
            wr.P(text="Plain means over the runs of a group, without any selection."),
            wr.PanelGrid(runsets=[runs], panels=[*bars, scatter]),
        ],
    )


def spec(entity: str, project: str, logged: Iterable[str]) -> dict[str, Any]:
    """What :func:`save` sends where the tables of these names were logged, as plain JSON."""
    views = build_workspaces(entity, project).values()
    chart = f"{entity}/{intervals.name()}"
    made = [build_report(entity, project, page, "tables", chart) for page in pages(logged)]
    return {
        "workspaces": [_plain(view) for view in views],
        "reports": [_plain(report) for report in made],
        "charts": [intervals.SPEC],
    }


def _plain(view: Any) -> Any:
    return json.loads(view._to_model().model_dump_json(by_alias=True, exclude_none=True))


def save(entity: str | None, project: str) -> list[str]:
    """Create or replace the workspaces and the reports; returns their addresses.

    Raises:
        UserError: the server refuses.
    """
    import wandb

    _modules()
    try:
        api = wandb.Api(timeout=60)
        owner = entity or str(api.default_entity)
        chart = _save_chart(api, owner)
        return [*_save_workspaces(owner, project), *_save_reports(api, owner, project, chart)]
    except Exception as error:  # the client raises its own, plain and private kinds
        raise UserError(f"the dashboards cannot be saved: {brief(error)}") from None


def _save_chart(api: Any, entity: str) -> str | None:
    """The id of the interval plot; None where the server has no charts of one's own."""
    name, title = intervals.name(), "Paired differences with intervals"
    try:
        api.create_custom_chart(entity, name, title, "vega2", "private", intervals.SPEC)
    except Exception as error:  # the client's private kinds
        if "exist" not in str(error):
            say("chart", f"reports without the interval plot ({brief(error)})")
            return None
    return f"{entity}/{name}"


def _save_workspaces(entity: str, project: str) -> list[str]:
    from wandb_workspaces.workspaces import internal

    urls = []
    for view, workspace in build_workspaces(entity, project).items():
        workspace._internal_name = internal._url_query_str_to_internal_name(view)
        with suppress(ValueError):  # not there yet
            workspace._internal_id = internal.get_view_dict(entity, project, view)["id"]
        workspace.save()
        urls.append(str(workspace.url))
    return urls


def _save_reports(api: Any, entity: str, project: str, chart: str | None) -> list[str]:
    """The reports of the tables that were logged last."""
    known = {report.display_name: report.id for report in api.reports(f"{entity}/{project}")}
    runs = project_runs(entity, project, lazy=False, filters={"jobType": "tables"})
    source = next(iter(runs), None)
    keys = [k for k in source.summary_metrics if k.startswith("tables/")] if source else []
    urls = []
    for page in pages(sorted(key.removeprefix("tables/") for key in keys)):
        report = build_report(entity, project, page, source.id if source else "", chart)
        report.id = known.get(report.title, "")
        report.save()
        urls.append(str(report.url))
    return urls
