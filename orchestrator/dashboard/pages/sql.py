"""The SQL page: one SELECT, its answer as a table and a chart, as files, and the same in Python."""

import shlex

import pyarrow as pa

from jobs.errors import QueryError
from jobs.records import ESTIMATES, TABLES
from orchestrator.answers import columns_of
from orchestrator.dashboard.pages.runs import study_of
from orchestrator.dashboard.questions import EXAMPLES
from orchestrator.dashboard.sandbox import Answer
from orchestrator.dashboard.view import Body, Params, View
from orchestrator.library import NAMES_ESTIMATES


def sql(view: View, params: Params) -> Body:
    """Return the editor's page, with the answer where a query stands in the URL; an error is an answer too."""
    study = params.get("study", "")
    text = params.get("q", "")
    study_of(view, params)  # a store without any has nothing to ask
    answer, error = None, ""
    if text.strip():
        try:
            found = ask(view, params)
            answer = columns_of(found.table) | {"cut": found.cut}
        except QueryError as failure:
            error = str(failure)
    limits = view.sandbox.limits
    return {
        "title": "SQL",
        "study": study,
        "studies": view.feed.names(),
        "version": max(view.feed.versions().values()),
        "q": text,
        "answer": answer,
        "error": error,
        "python": f"seedbed.open({view.store_name!r}).sql({text!r}{f', study={study!r}' if study else ''}).pandas()",
        "command": f"seedbed query --store {shlex.quote(view.store_name)}"
        f"{f' --study {shlex.quote(study)}' if study else ''} --format csv {shlex.quote(text)}",
        "limits": {"seconds": limits.seconds, "rows": limits.rows, "memory_bytes": limits.memory_bytes},
        "examples": [{"title": title, "sql": example} for title, example in EXAMPLES],
        "tables": {name: schema.names for name, schema in (TABLES | {"estimates": ESTIMATES}).items()},
    }


def ask(view: View, params: Params) -> Answer:
    """Return the answer of the query in the URL, from the process that holds users' queries; raises QueryError."""
    text, study = params.get("q", ""), params.get("study", "")
    names = [view.feed.shelf(study).declared.name] if study else view.feed.names()
    shelves = [view.feed.shelf(name) for name in names]  # their files last as long as these do
    wanted = bool(NAMES_ESTIMATES.search(text))
    return view.sandbox.ask(text, *(view.feed.files(s.declared.name, with_estimates=wanted) for s in shelves))


def answer_table(view: View, params: Params) -> pa.Table:
    """Return the answer as a table for a file; raises QueryError where it would be cut."""
    answer = ask(view, params)
    if answer.cut:
        raise QueryError(
            f"the answer has more than {view.sandbox.limits.rows:,} rows, and half is no answer: ask for less, or use "
            "`seedbed query --out FILE`, which has no such limit"
        )
    return answer.table
