"""Made-up studies with known numbers, as tables: what summaries, figures and reports are made from."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from jobs.records import AUDIT, METRICS, RUNS, Status
from jobs.seeds import Seeds
from jobs.study import SuccessRule
from orchestrator.declared import Declared, DeclaredCondition, DeclaredRun

STEPS = (0, 50, 100, 150, 200)
# Davies & Goldthwait: the yield of dyestuff, 6 batches of 5. Shrout & Fleiss 1979, table 2: 6 targets, 4 judges.
DYESTUFF = np.array(
    [
        [1545, 1440, 1440, 1520, 1580],
        [1540, 1555, 1490, 1560, 1495],
        [1595, 1550, 1605, 1510, 1560],
        [1445, 1440, 1595, 1465, 1545],
        [1595, 1630, 1515, 1635, 1625],
        [1520, 1455, 1450, 1480, 1445],
    ],
    float,
)
RATINGS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)


def made(
    shares: Sequence[float],
    seeds: int = 20,
    factor: str = "model.width",
    values: Sequence[object] = (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192),
    statuses: dict[tuple[int, int], Status] | None = None,
    name: str = "made",
    question: str = "is it so?",
) -> tuple[Declared, dict[str, pa.Table]]:
    """Return a study whose condition c has round(shares[c] · seeds) runs that break through, at step 100 or 150.

    statuses  (condition, seed) → another status than finished; such a run has rows up to step 50 only
    """
    conditions = tuple(
        DeclaredCondition(f"c{i}", f"{factor}={values[i]}", {factor: values[i]}, STEPS[-1]) for i in range(len(shares))
    )
    runs, run_rows, rows = [], [], []
    for index, (condition, share) in enumerate(zip(conditions, shares, strict=True)):
        for seed in range(seeds):
            status = (statuses or {}).get((index, seed), Status.FINISHED)
            run = DeclaredRun(f"r{index:02d}.{seed:03d}", condition, Seeds(seed, seed, seed, 0))
            runs.append(run)
            run_rows.append(_run_row(name, run, status))
            onset = (100 if seed % 2 else 150) if seed < round(share * seeds) else np.inf
            last = STEPS[-1] if status is Status.FINISHED else 50
            for step in STEPS if status is not Status.WAITING else ():
                if step <= last:
                    correct = 98 if step >= onset else 45 + seed % 10
                    rows.append((run.id, 1, step, "heldout.accuracy", correct / 100, correct, 100))
    columns = list(zip(*rows, strict=True)) or [[] for _ in METRICS.names]
    tables = {
        "runs": pa.Table.from_pylist(run_rows, schema=RUNS),
        "metrics": pa.table(dict(zip(METRICS.names, columns, strict=True)), schema=METRICS),
        "audit": AUDIT.empty_table(),
    }
    rule = SuccessRule(metric="heldout.accuracy", threshold=0.9, sustained=2)
    scale = factor if len(conditions) > 1 else ""
    text = f"study: {name}\n"
    declared = Declared(name, 1, "made.yaml", text, question, "", scale, rule, conditions, tuple(runs))
    return declared, tables


def _run_row(study: str, run: DeclaredRun, status: Status) -> dict[str, object]:
    return {
        "study": study,
        "run_id": run.id,
        "condition_id": run.condition.id,
        "condition": run.condition.label,
        "factors": "{}",
        **{f"seed_{name}": seed for name, seed in run.seeds.as_dict().items()},
        "status": str(status),
        "reason": "",
        "attempts": 1,
        "last_step": STEPS[-1],
        "planned_steps": STEPS[-1],
    }
