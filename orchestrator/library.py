"""A store as its readers see it: studies, tables that are up to date, summaries, queries.

The command line, the report and the notebook's door read a store through this and nothing else.
"""

from dataclasses import dataclass, field

import pyarrow as pa

from jobs.errors import QueryError
from jobs.records import TABLES
from jobs.store import Store
from orchestrator import declared
from orchestrator.collector import Collector, Tables
from orchestrator.declared import Declared
from orchestrator.imports.stored import imported_tables
from orchestrator.query import sql
from orchestrator.summary import StudySummary, summarise
from orchestrator.tables import commit_tables


@dataclass(slots=True)
class Library:
    """The studies of one store."""

    store: Store
    _collectors: dict[str, Collector] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Return the names of the studies, sorted."""
        return declared.studies(self.store)

    def only(self, name: str = "") -> str:
        """Return `name`, or without one the store's only study; raises QueryError where that is not clear."""
        names = self.names()
        if name:
            return name
        if len(names) == 1:
            return names[0]
        raise QueryError(
            f"say which study: the store holds {', '.join(names)}" if names else "the store holds no study"
        )

    def declared(self, name: str) -> Declared:
        """Return a study as it was submitted last; raises NotFound."""
        return declared.read_declared(self.store, name)

    def tables(self, name: str) -> Tables:
        """Return the tables of a study as the store stands now."""
        study = self.declared(name)
        if study.imported:
            return imported_tables(self.store, study)
        collector = self._collectors.get(name)
        if collector is None or collector.declared != study:
            collector = self._collectors[name] = Collector(self.store, study)
        return collector.collect()

    def collect(self, name: str) -> Tables:
        """Return the tables of a study, after committing them to the store."""
        tables = self.tables(name)
        commit_tables(self.store, name, tables)
        return tables

    def summary(self, name: str) -> StudySummary:
        """Return what a study shows so far."""
        return summarise(self.declared(name), self.tables(name))

    def sql(self, text: str, name: str = "") -> pa.Table:
        """Return the answer of one SELECT over the tables of one study, or of all studies of the store."""
        names = [name] if name else self.names()
        if not names:
            raise QueryError("the store holds no study")
        each = [self.tables(study) for study in names]
        return sql({table: _union([tables[table] for tables in each], table) for table in TABLES}, text)


def _union(tables: list[pa.Table], name: str) -> pa.Table:
    """Return the rows of several studies once each: runs differ by study, all else belongs to a run."""
    whole = pa.concat_tables(tables)
    if len(tables) == 1 or name == "runs":
        return whole
    return whole.group_by(whole.column_names, use_threads=False).aggregate([]).select(whole.column_names)
