"""The rows of the table `onsets`: when each run's metric breaks through, as a bracket of its probes.

One row per run and rule, whether the onset was seen or not: a run without rows has the whole line as its bracket.
"""

import numpy as np
import pyarrow as pa

from jobs.records import ONSETS
from jobs.study import SuccessRule
from orchestrator.estimates.onset import Direction, onsets
from orchestrator.summary import Curves


def onsets_of(curves: Curves, rule: SuccessRule, direction: Direction = "up") -> pa.Table:
    """Return the onsets of these runs by the rule, in the order of `curves.run_ids`; its schema is ONSETS.

    `curves` holds the values of `rule.metric`.
    """
    low, high = onsets(curves.steps, curves.values, rule.threshold, rule.sustained, direction)
    runs = len(curves.run_ids)
    left, right = np.isinf(low), np.isinf(high)
    columns = {
        "run_id": pa.array(curves.run_ids, pa.string()),
        "metric": pa.array([rule.metric] * runs, pa.string()),
        "threshold": np.full(runs, rule.threshold),
        "sustained": np.full(runs, rule.sustained, np.int32),
        "direction": pa.array([direction] * runs, pa.string()),
        "low": low,
        "high": high,
        "censored": np.select([left & right, left, right], ["whole", "left", "right"], "interval"),
    }
    return pa.table(columns, schema=ONSETS)
