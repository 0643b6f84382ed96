"""The table of runs: filtered, grouped by a factor, with the numbers of each group."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import NotFound, QueryError
from orchestrator.answers import columns_of, rows_of
from orchestrator.dashboard import questions
from orchestrator.dashboard.charts import packed
from orchestrator.dashboard.feed import Shelf
from orchestrator.dashboard.filters import Columns, where
from orchestrator.dashboard.pages.study import metrics_of
from orchestrator.dashboard.view import Body, Params, View
from orchestrator.query import runs_with_factors

_HIDDEN = ("study", "condition_id", "factors")
MOST_CHOSEN = 200  # runs by their ids: what an address can hold
_SHOWN = ("run_id", "condition", "status", "score", "last_step", "attempts", "seed_init", "seed_data", "reason")


def runs(view: View, params: Params) -> Body:
    """Return what stands around the table: its columns, the filter's SQL, the groups where some were asked for."""
    shelf = view.feed.shelf(study_of(view, params))
    name = shelf.declared.name
    table = view.feed.ask(name, _rows_sql(shelf, "true"), at_last=True)
    columns = columns_of_runs(table)
    try:
        matching, error = where(params.get("filter", ""), columns, _texts(columns)), ""
    except QueryError as failure:  # it stands in the page's field, to be put right there
        matching, error = "false", str(failure)
    question = questions.Question("Runs", _rows_sql(shelf, matching), f"seedbed.open(STORE).runs({name!r}).pandas()")
    group = params.get("group", "")
    return {
        "title": f"Runs of {name}",
        "study": name,
        "studies": view.feed.names(),
        "version": shelf.version,
        "filter": params.get("filter", ""),
        "error": error,
        "columns": table.column_names,
        "shown": [c for c in params.get("columns", "").split(",") if c in table.column_names] or _default(table),
        "sort": params.get("sort", ""),
        "group": group,
        "groups": _groups(view, shelf, columns, matching, group) if group else None,
        "matching": view.feed.ask(name, f"SELECT count(*) AS n FROM ({question.sql})", at_last=True)["n"][0].as_py(),
        "launched": shelf.launched,
        "metric": params.get("metric") or shelf.summary.rule.metric,
        "metrics": metrics_of(shelf),
        "rule": shelf.summary.rule.model_dump(mode="json"),
        "question": question.links(name),
    }


def study_of(view: View, params: Params) -> str:
    """Return the study that is asked for, or the first; raises QueryError where there is none."""
    names = view.feed.names()
    if not names:
        raise QueryError("the store holds no study yet: seedbed run STUDY --store …")
    return params.get("study") or names[0]


def run_rows(view: View, params: Params) -> Body:
    """Return all rows that pass the filter, by columns."""
    return columns_of(run_table(view, params))


def run_table(view: View, params: Params) -> pa.Table:
    """Return all rows that pass the filter, as a table."""
    shelf = view.feed.shelf(study_of(view, params))
    name = shelf.declared.name
    columns = columns_of_runs(view.feed.ask(name, _rows_sql(shelf, "true"), at_last=True))
    return view.feed.ask(
        name, _rows_sql(shelf, where(params.get("filter", ""), columns, _texts(columns))), at_last=True
    )


def matching_rows(view: View, params: Params) -> Body:
    """Return the places of the rows that pass the filter, in the table of all rows."""
    shelf = view.feed.shelf(study_of(view, params))
    name = shelf.declared.name
    scored = view.feed.ask(name, _rows_sql(shelf, "true"), at_last=True)
    columns = columns_of_runs(scored)
    matching = where(params.get("filter", ""), columns, _texts(columns))
    placed = scored.append_column("place of row", pa.array(range(scored.num_rows), pa.int32()))
    found = view.feed.ask_rows(
        name, placed, f'SELECT "place of row" AS place FROM scored WHERE {matching} ORDER BY place'
    )
    return {"version": shelf.version, "places": found["place"].to_pylist()}


def chosen_question(view: View, params: Params) -> questions.Question:
    """Return the quantiles over chosen runs at every step: those of `run`, or all that pass the filter."""
    shelf = view.feed.shelf(study_of(view, params))
    name = shelf.declared.name
    if params.get("run"):
        ids = ", ".join(questions.text(run_id) for run_id in _chosen(shelf, params)["run_id"].to_pylist())
        chosen = f"SELECT run_id FROM runs WHERE run_id IN ({ids})"
    else:
        columns = columns_of_runs(view.feed.ask(name, _rows_sql(shelf, "true"), at_last=True))
        chosen = f"SELECT run_id FROM ({_rows_sql(shelf, where(params.get('filter', ''), columns, _texts(columns)))})"
    return questions.fan_of(name, params.get("metric") or shelf.summary.rule.metric, chosen)


def chosen_fan(view: View, params: Params) -> pa.Table:
    """Return the answer of `chosen_question`."""
    return view.feed.ask(study_of(view, params), chosen_question(view, params).sql)


def chosen_page(view: View, params: Params) -> Body:
    """Return the answer of `chosen_question`, and the question."""
    study = study_of(view, params)
    return columns_of(chosen_fan(view, params)) | {"question": chosen_question(view, params).links(study)}


def chosen_lines(view: View, params: Params) -> Iterator[bytes]:
    """Return the lines of the runs of `run`, as `charts.packed` does; raises NotFound, QueryError."""
    shelf = view.feed.shelf(study_of(view, params))
    return packed(view, shelf, _chosen(shelf, params), params)


def _chosen(shelf: Shelf, params: Params) -> pa.Table:
    asked = [run_id for run_id in params.get("run", "").split(",") if run_id]
    if len(asked) > MOST_CHOSEN:
        raise QueryError(f"at most {MOST_CHOSEN} runs are chosen one by one; a filter chooses any number")
    runs = shelf.tables["runs"]
    found = runs.filter(pc.is_in(runs["run_id"], pa.array(asked, pa.string())))
    if found.num_rows < len(set(asked)) or not asked:
        raise NotFound("run", f"names a run that {shelf.declared.name} does not have" if asked else "names no run")
    return found


def columns_of_runs(table: pa.Table) -> Columns:
    """Return the columns of the table of runs and which hold numbers."""
    kinds = {f.name: pa.types.is_integer(f.type) or pa.types.is_floating(f.type) for f in table.schema}
    return Columns(kinds)


def _texts(columns: Columns) -> list[str]:
    return [column for column, is_number in columns.numeric.items() if not is_number]


def _default(table: pa.Table) -> list[str]:
    return [column for column in _SHOWN if column in table.column_names]


def _rows_sql(shelf: Shelf, matching: str) -> str:
    rule = shelf.summary.rule
    names = runs_with_factors(shelf.tables["runs"].slice(0, 0)).column_names
    factors = sorted({name for c in shelf.declared.conditions for name in c.factors})
    own = [*(n for n in names if n not in _HIDDEN), *factors]
    picked = ", ".join(f"runs.{questions.name(column)}" for column in own)
    return (
        f"SELECT * FROM (SELECT {picked}, last.value AS score\nFROM runs LEFT JOIN metrics AS last ON "
        "last.run_id = runs.run_id AND last.step = runs.planned_steps\n"
        f"  AND last.metric = {questions.text(rule.metric)} AND runs.status = 'finished')\n"
        f"WHERE {matching}\nORDER BY condition, run_id"
    )


def _groups(view: View, shelf: Shelf, columns: Columns, matching: str, asked: str) -> Body:
    group, threshold = questions.name(columns.find(asked)), shelf.summary.rule.threshold
    text = (
        f"SELECT {group}, count(*) AS runs, count(score) AS n, avg(score) AS mean, stddev_samp(score) AS sd,\n"
        "  min(score) AS min, quantile_cont(score, 0.05) AS q05, quantile_cont(score, 0.25) AS q25,\n"
        "  quantile_cont(score, 0.5) AS q50, quantile_cont(score, 0.75) AS q75, quantile_cont(score, 0.95) AS q95,\n"
        f"  max(score) AS max, count(*) FILTER (score >= {threshold!r}) AS successes,\n"
        "  count(*) FILTER (status = 'diverged') AS diverged, count(*) FILTER (status = 'failed') AS failed\n"
        f"FROM ({_rows_sql(shelf, matching)})\nGROUP BY {group} ORDER BY {group}"
    )
    name = shelf.declared.name
    rows: list[dict[str, Any]] = rows_of(view.feed.ask(name, text, at_last=True))
    question = questions.Question("Groups", text, f"seedbed.open(STORE).sql({text!r}, study={name!r}).pandas()")
    return {"rows": rows, "question": question.links(name)}
