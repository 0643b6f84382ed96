"""A store that was opened for reading, as `import seedbed` shows it (`__init__.py`)."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from jobs.errors import NotFound, QueryError
from jobs.layout import attempt_key
from jobs.store import Store, open_store
from orchestrator.collected import metric_names, rows_of
from orchestrator.estimates.estimate import Estimate
from orchestrator.estimates.success import METHODS, success_probability
from orchestrator.library import Library
from orchestrator.query import runs_with_factors
from orchestrator.questions.asked import Options
from orchestrator.summary import StudySummary

if TYPE_CHECKING:
    import pandas as pd
    import torch


@dataclass(frozen=True, slots=True)
class Answer:
    """A table, as Arrow or as pandas."""

    table: pa.Table

    def arrow(self) -> pa.Table:
        """Return the table as Arrow."""
        return self.table

    def pandas(self) -> "pd.DataFrame":
        """Return the table as a pandas data frame."""
        return self.table.to_pandas()

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def _repr_html_(self) -> str:
        return str(self.pandas()._repr_html_())


@dataclass(frozen=True, slots=True)
class RunOfStore:
    """One run; every step of it is a checkpoint."""

    store: Store
    run_id: str

    def weights(self, step: int) -> dict[str, "torch.Tensor"]:
        """Return the parameters by name at `step`, trained from the nearest checkpoint where none is there."""
        from workers.replay import replay  # torch takes seconds to import

        return replay(self.store, self.run_id, step).weights

    def files(self, step: int, folder: str | Path) -> Path:
        """Lay the files of a script's checkpoint out in `folder`, and return that; raises NotFound without one."""
        from workers.replay_script import files_at

        files_at(self.store, self.run_id, step, Path(folder))
        return Path(folder)

    def module(self, step: int) -> "torch.nn.Module":
        """Return the model at `step` as an ordinary torch module: int64 tokens [batch, length] → logits."""
        from workers.replay import plain_module, replay
        from workers.stored import load_task

        replayed = replay(self.store, self.run_id, step)
        return plain_module(replayed, load_task(self.store, replayed.run.condition.task))


@dataclass(frozen=True, slots=True)
class Results:
    """A store that was opened for reading; every call sees what is in it by then."""

    library: Library

    def studies(self) -> list[str]:
        """Return the names of the studies, sorted."""
        return self.library.names()

    def run(self, run_id: str) -> "RunOfStore":
        """Return one run by its id, for its weights at any step; raises NotFound where it was never started."""
        if not self.library.store.exists(attempt_key(run_id, 1)):
            raise NotFound(run_id, "is no run of this store, or was never started")
        return RunOfStore(self.library.store, run_id)

    def runs(self, study: str = "") -> Answer:
        """Return one row per declared run, with a column for each factor; a store's only study needs no name."""
        return Answer(runs_with_factors(self.library.tables(self.library.only(study))["runs"]))

    def metrics(self, metric: str, study: str = "") -> Answer:
        """Return every row of one metric; raises QueryError for one that the study does not have."""
        tables = self.library.tables(self.library.only(study))
        found = rows_of(tables, metric)
        names = metric_names(tables)
        if not found.num_rows and names:
            raise QueryError(f"no metric is called {metric!r}; there are {', '.join(names)}")
        return Answer(found)

    def sql(self, text: str, study: str = "") -> Answer:
        """Return the answer of one SELECT over the views that `orchestrator/query.py` names; raises QueryError."""
        return Answer(self.library.sql(text, study))

    def summary(self, study: str = "") -> StudySummary:
        """Return what a study shows so far, with curves and scores."""
        return self.library.summary(self.library.only(study))

    def success_probability(self, study: str = "", method: str = "wilson", level: float = 0.95) -> dict[str, Estimate]:
        """Return P(success) of each condition by its label; method: wilson, jeffreys or clopper-pearson."""
        if method not in METHODS:
            raise QueryError(f"no interval is called {method!r}; there are {', '.join(METHODS)}")
        return {
            condition.condition.label: success_probability(condition.successes, condition.success.cohort, method, level)
            for condition in self.summary(study).conditions
        }

    def estimate(
        self,
        question: str,
        study: str = "",
        metric: str = "",
        condition: str | Sequence[str] = (),
        at: float | Sequence[float] = (),
        **options: Any,
    ) -> Any:
        """Return the answer to a question, a frozen dataclass, such as `estimate("predict", at=512).at[512]`.

        Where every condition has an answer of its own, take it by the condition's label. Options are the fields of
        `orchestrator.questions.asked.Options`. Raises QueryError for what has no answer, and says what it needs.
        """
        known = [field.name for field in fields(Options)]
        if unknown := sorted(set(options) - set(known)):
            raise QueryError(f"no option is called {unknown[0]!r}; there are {', '.join(known)}")
        conditions = (condition,) if isinstance(condition, str) else tuple(condition)
        places = (float(at),) if isinstance(at, int | float) else tuple(map(float, at))
        asked = Options(metric=metric, conditions=conditions, at=places, **options)
        return self.library.ask(question, self.library.only(study), asked)

    def estimates(self, study: str = "") -> Answer:
        """Return the standing estimates of a study, as the SQL table `estimates` has them."""
        return Answer(self.library.estimates(self.library.only(study)))


def open(path: str | Path) -> Results:  # noqa: A001
    """Return the store at `path`, a folder or such as s3://bucket/prefix; raises ForeignStore where there is none."""
    return Results(Library(open_store(path)))
