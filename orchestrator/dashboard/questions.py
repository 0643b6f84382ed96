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


def fan_of(study: str, metric: str, chosen: str) -> Question:
    """Return the quantiles at every step over the runs that the SELECT `chosen` gives."""
    quantiles = ", ".join(f"quantile_cont(value, {q / 100}) AS q{q:02d}" for q in (5, 25, 50, 75, 95))
    sql = (
        f"WITH chosen AS ({chosen})\n"
        f"SELECT step, count(*) AS n, (SELECT count(*) FROM chosen) AS launched, avg(value) AS mean,\n  {quantiles}\n"
        f"FROM metrics JOIN chosen USING (run_id) WHERE metric = {text(metric)} AND NOT isnan(value)\n"
        "GROUP BY step ORDER BY step"
    )
    return Question(f"{metric}: quantiles over the chosen runs", sql, _python(study, sql))


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


def intervals(study: str) -> Question:
    """Return P(success) of each condition with its interval, as estimated."""
    sql = (
        "SELECT condition, value, low, high, method, level, launched, finished, diverged, censored\n"
        "FROM estimates WHERE question = 'success' ORDER BY condition"
    )
    return Question("P(success) with its interval", sql, f"seedbed.open(STORE).success_probability({study!r})")


def statuses(study: str) -> Question:
    """Return how many runs of each condition stand where."""
    sql = "SELECT condition, status, count(*) AS runs FROM runs GROUP BY ALL ORDER BY condition, status"
    return Question("Where the runs stand", sql, _python(study, sql))


def attempts(study: str) -> Question:
    """Return every attempt: its pack, the step it began at, and how it ended."""
    sql = (
        "SELECT pack_id, attempt, condition, run_id, attempts.first_step, attempts.status, attempts.reason\n"
        "FROM attempts JOIN runs USING (run_id) ORDER BY pack_id, run_id"
    )
    return Question("Every attempt", sql, _python(study, sql))


def attempts_of(study: str, run_id: str) -> Question:
    """Return the attempts of one run."""
    sql = f"SELECT * FROM attempts WHERE run_id = {text(run_id)} ORDER BY attempt"
    return Question("Its attempts", sql, _python(study, sql))


def cells(study: str) -> Question:
    """Return every run with where it stands."""
    sql = (
        "SELECT condition, seed_init, seed_data, run_id, status, reason FROM runs ORDER BY condition, seed_init, run_id"
    )
    return Question("Every run", sql, _python(study, sql))


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
    """Return the median onset of each condition with its interval, as estimated."""
    sql = (
        "SELECT condition, value, low, high, method, level, launched, finished, diverged, censored, note\n"
        "FROM estimates WHERE question = 'onset' ORDER BY condition"
    )
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
