"""The SQL behind every chart and every number that is counted: what the page shows is the answer of what it links to.

A question is a text that anyone can run again: on the SQL page, with `seedbed query`, or from a notebook.
"""

from dataclasses import dataclass
from urllib.parse import urlencode

from jobs.study import SuccessRule


@dataclass(frozen=True, slots=True)
class Question:
    """What a chart draws, as one SELECT; `python` is the same number, or the estimate over it, from a notebook.

    at_last  of `metrics` it reads no rows but those of the rule's metric at the last step
    """

    title: str
    sql: str
    python: str
    at_last: bool = False

    def links(self, study: str) -> dict[str, str]:
        """Return title, SQL, Python, and where the SQL page answers it."""
        href = "/sql?" + urlencode({"study": study, "q": self.sql})
        return {"title": self.title, "sql": self.sql, "python": self.python, "href": href}


def text(value: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + value.replace("'", "''").replace("\0", "") + "'"


def name(value: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + value.replace('"', '""').replace("\0", "") + '"'


def _python(study: str, sql: str) -> str:
    return f"seedbed.open(STORE).sql({sql!r}, study={study!r}).pandas()"


def fan(study: str, metric: str) -> Question:
    """Return the quantiles over runs at every step, with how many runs they are of."""
    sql = (
        "SELECT condition, step, n, launched, finished, diverged, mean, q05, q25, q50, q75, q95\n"
        f"FROM rollups WHERE metric = {text(metric)}\nORDER BY condition, step"
    )
    return Question(f"{metric}: quantiles over runs", sql, _python(study, sql))


def lines(study: str, metric: str, condition: str) -> Question:
    """Return every value of every run of one condition."""
    sql = (
        "SELECT run_id, step, value\nFROM metrics JOIN runs USING (run_id)\n"
        f"WHERE metric = {text(metric)} AND condition = {text(condition)}\nORDER BY run_id, step"
    )
    return Question(f"{metric}: every run", sql, _python(study, sql))


def scores(study: str, rule: SuccessRule) -> Question:
    """Return the last score of every run that finished; success is what the study declared it to be."""
    sql = (
        f"SELECT condition, run_id, seed_init, seed_data, value AS score, value >= {rule.threshold!r} AS success\n"
        "FROM metrics JOIN runs USING (run_id)\n"
        f"WHERE metric = {text(rule.metric)} AND step = planned_steps AND status = 'finished'\n"
        "ORDER BY condition, score, run_id"
    )
    return Question(f"{rule.metric} at the last step", sql, _python(study, sql), at_last=True)


def successes(study: str, rule: SuccessRule) -> Question:
    """Return k of n for each condition; the interval over it is Python's."""
    sql = (
        "WITH last AS (SELECT run_id, value FROM metrics JOIN runs USING (run_id)\n"
        f"  WHERE metric = {text(rule.metric)} AND step = planned_steps AND status = 'finished')\n"
        f"SELECT condition, count(*) FILTER (value >= {rule.threshold!r}) AS successes,\n"
        "  count(*) FILTER (value IS NOT NULL OR status = 'diverged') AS known, count(*) AS launched\n"
        "FROM runs LEFT JOIN last USING (run_id) GROUP BY condition ORDER BY condition"
    )
    return Question("P(success)", sql, f"seedbed.open(STORE).success_probability({study!r})", at_last=True)


def statuses(study: str) -> Question:
    """Return how many runs of each condition stand where."""
    sql = "SELECT condition, status, count(*) AS runs FROM runs GROUP BY ALL ORDER BY condition, status"
    return Question("Where the runs stand", sql, _python(study, sql))


def onset_brackets(study: str, metric: str) -> Question:
    """Return the bracket of every run's onset, and how it is censored."""
    sql = (
        "SELECT condition, run_id, low, high, censored, threshold, sustained\nFROM onsets JOIN runs USING (run_id)\n"
        f"WHERE metric = {text(metric)} AND direction = 'up'\nORDER BY condition, run_id"
    )
    return Question(f"Onsets of {metric}", sql, _python(study, sql))


def values(study: str, metric: str) -> Question:
    """Return every value of every run."""
    sql = (
        "SELECT condition, run_id, step, value\nFROM metrics JOIN runs USING (run_id)\n"
        f"WHERE metric = {text(metric)}\nORDER BY condition, run_id, step"
    )
    return Question(f"{metric}: every value", sql, _python(study, sql))


def onsets(study: str) -> Question:
    """Return the runs, whose median onset is an estimate of Python's: a bracket, since probes are a grid."""
    sql = "SELECT condition, run_id, status, last_step FROM runs ORDER BY condition, run_id"
    python = f"[(c.condition.label, c.onset) for c in seedbed.open(STORE).summary({study!r}).conditions]"
    return Question("Median onset", sql, python)


def curves_of_run(study: str, run_id: str) -> Question:
    """Return every value of one run."""
    sql = (
        "SELECT metric, step, value, correct, total, attempt\n"
        f"FROM metrics WHERE run_id = {text(run_id)}\nORDER BY metric, step"
    )
    return Question("All its rows", sql, _python(study, sql))


_LAST_SCORE = """\
SELECT condition, count(*) AS n, avg(value) AS mean, stddev(value) AS sd, quantile_cont(value, 0.5) AS median
FROM metrics JOIN runs USING (run_id)
WHERE metric = 'heldout.accuracy' AND step = planned_steps
GROUP BY condition ORDER BY condition"""
_FAN = """\
SELECT step, condition, n, q05, q50, q95 FROM rollups
WHERE metric = 'heldout.accuracy' ORDER BY condition, step"""
_AGAIN = """\
SELECT run_id, attempt, first_step, status, reason FROM attempts
WHERE attempt > 1 ORDER BY run_id, attempt"""
EXAMPLES = (
    ("Where the runs stand", "SELECT condition, status, count(*) AS runs FROM runs GROUP BY ALL ORDER BY ALL"),
    ("Last score by condition", _LAST_SCORE),
    ("A fan as numbers", _FAN),
    ("Runs that were tried again", _AGAIN),
    ("Checkpoints", "SELECT run_id, step, kind, sha256, key FROM checkpoints ORDER BY run_id, step LIMIT 100"),
    ("What does not fit together", "SELECT * FROM audit"),
    ("The tables and their columns", "SELECT table_name, column_name, data_type FROM duckdb_columns() ORDER BY ALL"),
)
