"""The Arrow schema of every table, and the statuses of a run.

Workers write METRICS rows into shards; the collector writes all tables. Column names and types are a
contract with everything that reads a store without Seedbed (DuckDB, Polars, pandas, Spark).
"""

from enum import StrEnum

import pyarrow as pa


class Status(StrEnum):
    """Where a run stands; the last three are terminal, and all of them are rows of the `runs` table."""

    WAITING = "waiting"  # declared, no attempt yet
    RUNNING = "running"  # an attempt is at work, or was cut off and will be taken up again
    FINISHED = "finished"  # trained to its last step
    DIVERGED = "diverged"  # its loss stopped being finite: an outcome, never retried
    FAILED = "failed"  # its attempts are used up, or its task raised: no outcome is known

    @property
    def is_terminal(self) -> bool:
        """Return whether nothing more will be done for a run in this status."""
        return self in (Status.FINISHED, Status.DIVERGED, Status.FAILED)

    @property
    def is_final(self) -> bool:
        """Return whether the run is never trained again; a failed one is, by the next drive."""
        return self in (Status.FINISHED, Status.DIVERGED)


METRICS = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("step", pa.int64(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("correct", pa.int64()),  # k of an accuracy-like metric, else null
        pa.field("total", pa.int64()),  # m of an accuracy-like metric, else null
    ]
)

RUNS = pa.schema(
    [
        pa.field("study", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("condition_id", pa.string(), nullable=False),
        pa.field("condition", pa.string(), nullable=False),  # the factors, readable: "model.width=8"
        pa.field("factors", pa.string(), nullable=False),  # the factors as JSON, keys sorted
        pa.field("seed_init", pa.int64(), nullable=False),
        pa.field("seed_data", pa.int64(), nullable=False),
        pa.field("seed_dropout", pa.int64(), nullable=False),
        pa.field("seed_evaluation", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # why it failed or diverged; else empty
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("last_step", pa.int64(), nullable=False),  # the last step with a row; -1 without any
        pa.field("planned_steps", pa.int64(), nullable=False),
        pa.field("parent_run", pa.string(), nullable=False),  # where a fork begins; empty for a fresh run
        pa.field("toward_run", pa.string(), nullable=False),  # the other end of the line on which it begins; else empty
        pa.field("first_step", pa.int64(), nullable=False),  # of the parent, at which it begins; 0 for a fresh run
        pa.field("mixed_environment", pa.bool_(), nullable=False),  # its parts were trained under several fingerprints
    ]
)

ATTEMPTS = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("pack_id", pa.string(), nullable=False),
        pa.field("first_step", pa.int64(), nullable=False),  # the step it resumed from; 0 for a fresh start
        pa.field("resumed_pack", pa.string(), nullable=False),  # whose checkpoint it resumed from; else empty
        pa.field("environment", pa.string(), nullable=False),  # digest of the fingerprint it trained under
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)

CHECKPOINTS = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("step", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # milestone or rolling
        pa.field("key", pa.string(), nullable=False),  # of the pack's file in the store
        pa.field("slot", pa.int32(), nullable=False),  # the run's index along the leading axis
        pa.field("sha256", pa.string(), nullable=False),
    ]
)

FACTORS = ("init", "data", "dropout", "evaluation")

PROBES_OF_SEEDS = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("factor", pa.string(), nullable=False),  # init, data, dropout or evaluation
        pa.field("scope", pa.string(), nullable=False),  # what else decides the digest
        pa.field("seed", pa.string(), nullable=False),  # the seed; of a fork's weights, parent@step
        pa.field("digest", pa.string(), nullable=False),  # SHA-256 of what the seed makes; empty: the task failed
    ]
)

# The onset lies in (low, high]. A bound that was not seen is infinite and never null: SQL leaves nulls out of a
# median, and so would leave out the runs without onset.
ONSETS = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("threshold", pa.float64(), nullable=False),
        pa.field("sustained", pa.int32(), nullable=False),  # probes in a row
        pa.field("direction", pa.string(), nullable=False),  # up: from below the threshold; down: from above
        pa.field("low", pa.float64(), nullable=False),  # the last probe before; -inf without any
        pa.field("high", pa.float64(), nullable=False),  # the first probe from which on; inf where it was not seen
        pa.field("censored", pa.string(), nullable=False),  # interval; left, right: low, high is infinite; whole: both
    ]
)

AUDIT = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),  # empty where a whole file is meant
        pa.field("step", pa.int64(), nullable=False),  # -1 where no step is meant
        pa.field("finding", pa.string(), nullable=False),  # disagreement, corrupt, …
        pa.field("key", pa.string(), nullable=False),  # the file in the store
        pa.field("detail", pa.string(), nullable=False),
    ]
)

QUANTILES = {f"q{percent:02d}": percent / 100 for percent in (5, 10, 25, 50, 75, 90, 95)}

ROLLUPS = pa.schema(
    [
        pa.field("condition_id", pa.string(), nullable=False),
        pa.field("condition", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("step", pa.int64(), nullable=False),
        pa.field("launched", pa.int64(), nullable=False),  # runs of the condition, measured here or not
        pa.field("n", pa.int64(), nullable=False),  # runs with a value here that is a number: those of the quantiles
        pa.field("finished", pa.int64(), nullable=False),  # how many of the n finished in the end
        pa.field("diverged", pa.int64(), nullable=False),  # how many of the n diverged in the end
        pa.field("mean", pa.float64()),
        pa.field("sd", pa.float64()),  # with n - 1; null for one run
        pa.field("min", pa.float64()),
        *(pa.field(name, pa.float64()) for name in QUANTILES),  # over the n runs, as numpy.quantile
        pa.field("max", pa.float64()),
    ]
)

# No table of the collector: it is computed when a query names it. A bound that the data do not give is infinite.
ESTIMATES = pa.schema(
    [
        pa.field("study", pa.string(), nullable=False),
        pa.field("question", pa.string(), nullable=False),  # as of `seedbed estimate`
        pa.field("condition_id", pa.string(), nullable=False),  # empty where the whole study is meant
        pa.field("condition", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),  # what of the answer; of a mean, the metric
        pa.field("value", pa.float64()),  # null where no run has an outcome yet
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
        pa.field("method", pa.string(), nullable=False),
        pa.field("level", pa.float64(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),
        pa.field("stopping_rule", pa.string(), nullable=False),
        pa.field("cohort", pa.string(), nullable=False),
        *(
            pa.field(name, pa.int64(), nullable=False)
            for name in ("launched", "finished", "diverged", "censored", "mixed", "disputed")
        ),
        pa.field("note", pa.string(), nullable=False),
    ]
)

TABLES = {
    "runs": RUNS,
    "metrics": METRICS,
    "attempts": ATTEMPTS,
    "checkpoints": CHECKPOINTS,
    "probes_of_seeds": PROBES_OF_SEEDS,
    "onsets": ONSETS,
    "rollups": ROLLUPS,
    "audit": AUDIT,
}
