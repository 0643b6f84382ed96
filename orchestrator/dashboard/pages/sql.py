"""The SQL page: one SELECT, its answer as a table and a chart, as files, and the same in Python."""

import pyarrow as pa

from jobs.errors import QueryError
from jobs.records import TABLES
from orchestrator.dashboard.answers import columns_of
from orchestrator.dashboard.pages.runs import study_of
from orchestrator.dashboard.questions import EXAMPLES
from orchestrator.dashboard.sandbox import Answer
from orchestrator.dashboard.view import Body, Params, View


def sql(view: View, params: Params) -> Body:
    """Return the editor's page, with the answer where a query stands in the URL; an error is an answer too."""
    study = study_of(view, params)
    text = params.get("q", "")
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
        "version": view.feed.shelf(study).version,
        "q": text,
        "answer": answer,
        "error": error,
        "python": f"seedbed.open({view.store_name!r}).sql({text!r}, study={study!r}).pandas()" if text else "",
        "command": f"seedbed query --store {view.store_name} --study {study} --format csv",
        "limits": {"seconds": limits.seconds, "rows": limits.rows, "memory_bytes": limits.memory_bytes},
        "examples": [{"title": title, "sql": example} for title, example in EXAMPLES],
        "tables": {name: schema.names for name, schema in TABLES.items()},
    }


def ask(view: View, params: Params) -> Answer:
    """Return the answer of the query in the URL, from the process that holds users' queries; raises QueryError."""
    study = study_of(view, params)
    return view.sandbox.ask(params.get("q", ""), view.feed.files(study))


def answer_table(view: View, params: Params) -> pa.Table:
    """Return the answer as a table for a file; raises QueryError where it would be cut."""
    answer = ask(view, params)
    if answer.cut:
        raise QueryError(
            f"the answer has more than {view.sandbox.limits.rows:,} rows, and half is no answer: ask for less, or use "
            "`seedbed query --out FILE`, which has no such limit"
        )
    return answer.table
