"""A store as its readers see it: studies, tables that are up to date, summaries, queries.

The command line, the report and the notebook's door read a store through this and nothing else.
"""

import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from jobs.errors import Corrupt, NotFound, QueryError
from jobs.store import Store
from orchestrator import declared
from orchestrator.collected import Collected, Map, Tables, on_threads, together
from orchestrator.collector import Collector
from orchestrator.declared import Declared
from orchestrator.imports.stored import imported_tables
from orchestrator.plain_parts import collected_from
from orchestrator.query import sql
from orchestrator.questions.asked import Options, Question, Watch, unwatched
from orchestrator.summary import StudySummary, summarise
from orchestrator.tables import commit_tables, newest_tables

NAMES_ESTIMATES = re.compile(r"\bestimates\b", re.IGNORECASE)


@dataclass(slots=True)
class Library:
    """The studies of one store.

    map   how the parts of a collection are made: on threads of this process, or as tasks of a cluster
    sink  the prefix in the store where parts are left until they are committed; empty: a folder of this machine
    """

    store: Store
    map: Map = on_threads
    sink: str = ""
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

    def tables(self, name: str) -> Collected:
        """Return the tables of a study as the store stands now; nothing is written into the store."""
        study = self.declared(name)
        if study.imported:
            return collected_from(imported_tables(self.store, study), study.success)
        collector = self._collectors.get(name)
        if collector is None or collector.declared != study:
            sink = (self.store, self.sink) if self.sink else None
            collector = self._collectors[name] = Collector(self.store, study, self.map, sink)
            # Where nothing was collected, or that is no longer what was committed, the shards are read.
            with suppress(NotFound, Corrupt):
                collector.knows(newest_tables(self.store, name))
        return collector.collect()

    def collect(self, name: str) -> Collected:
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
        studies = [self.tables(study) for study in names]  # their files last as long as these do
        views = together([tables.views() for tables in studies])
        if NAMES_ESTIMATES.search(text):
            views["estimates"] = self._estimates(names, studies, text)
        return sql(views, text)

    def _estimates(self, names: list[str], studies: list[Collected], text: str) -> list[pa.Table]:
        """Return the standing estimates of the studies, and the answers to questions that a statement names."""
        from orchestrator.questions.standing import answered, named_in

        asked = [Question(self.declared(name), tables, Options()) for name, tables in zip(names, studies, strict=True)]
        found = [standing_of(question.declared, question.tables) for question in asked]
        for name in named_in(text):
            answers, errors = [], []
            for question in asked:
                try:
                    answers.append(answered(question, name))
                except QueryError as error:
                    errors.append(f"{question.declared.name}: {error}")
            if not answers:
                raise QueryError(f"the statement asks for '{name}', which has no answer here; {'; '.join(errors)}")
            found += answers
        return found

    def ask(self, question: str, name: str, options: Options | None = None, watch: Watch = unwatched) -> Any:
        """Return the answer to a question of `orchestrator/questions`; raises QueryError where it has none."""
        from orchestrator.questions.registry import ask  # all estimates, and with them most of scipy, take a second

        return ask(question, self.declared(name), self.tables(name), options, watch)

    def question(self, name: str) -> Question:
        """Return the study as the functions in `orchestrator/questions` take it, with no option chosen."""
        return Question(self.declared(name), self.tables(name), Options())

    def estimates(self, name: str) -> pa.Table:
        """Return the standing estimates of a study; the schema is ESTIMATES."""
        return standing_of(self.declared(name), self.tables(name))


def standing_of(study: Declared, tables: Tables) -> pa.Table:
    """Return the standing estimates of these tables; the schema is ESTIMATES."""
    from orchestrator.questions.standing import standing

    return standing(Question(study, tables, Options()))
