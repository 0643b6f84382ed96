"""A study with a stop rule, batch by batch: train, look, decide, keep the decision, train what it says.

A decision is in the store before a run of it starts, so a head that dies is followed by one that goes on with the
same decisions. A study without a rule is one batch.
"""

import dataclasses
import re
from collections.abc import Callable

from jobs.errors import AlreadyExists, Fault, StudyError
from jobs.layout import decision_key
from jobs.store import Store, get_record, put_record
from jobs.study import Study
from orchestrator.adaptive import Decision, as_record, decide, looks_of, of_record
from orchestrator.declared import register
from orchestrator.library import Library
from orchestrator.state import State
from orchestrator.stop_rules import rule_id

_DECISION = re.compile(r"^decisions/(?P<name>.+)\.(?P<number>\d{4})\.json$")


def _ignore(decision: Decision) -> None:
    """Say nothing."""


def as_decided(study: Study, store: Store | None, file: str) -> Study:
    """Return the study with the seeds that its rule has given it so far.

    Raises StudyError where the store holds decisions of another rule: an interval is certified for one rule.
    """
    decisions = read_decisions(store, study.name) if store else []
    if not decisions:
        return study
    stop = study.settings.stop
    rule = rule_id(stop, study.first_batch) if stop else "a fixed number of seeds"
    if decisions[-1].rule != rule:
        told = f"the store holds seeds that were given by “{decisions[-1].rule}”, not by “{rule}”"
        raise StudyError((Fault(file, 0, "stop", f"{told}: no interval holds for both; give the study another name"),))
    return dataclasses.replace(study, counts=decisions[-1].counts)


def read_decisions(store: Store, study: str) -> list[Decision]:
    """Return the decisions of the study's rule, oldest first; raises Corrupt."""
    found = [match for key in store.keys(f"decisions/{study}.") if (match := _DECISION.match(key))]
    return [of_record(get_record(store, match[0])) for match in found if match["name"] == study]


def train_rounds(
    study: Study,
    library: Library,
    file: str,
    train: Callable[[Study], State],
    on_decision: Callable[[Decision], None] = _ignore,
) -> State:
    """Train batch after batch until the rule gives no more seeds; returns the state at the end of the last one.

    train        trains what the store does not hold of a study
    on_decision  hears each decision when it is in the store; the last one says that no condition gets more
    """
    while True:
        study = as_decided(study, library.store, file)
        register(library.store, study, file)
        state = train(study)
        stop, decisions = study.settings.stop, read_decisions(library.store, study.name)
        if stop is None or (decisions and decisions[-1].is_last):
            return state
        looks = looks_of(library.summary(study.name))
        decision = decide(stop, study.name, study.first_batch, looks, len(decisions) + 1)
        put_decision(library.store, study.name, decision)
        on_decision(decision)
        if decision.is_last:
            return state


def put_decision(store: Store, study: str, decision: Decision) -> None:
    """Keep a decision; where the same number is there already, that one stands."""
    try:
        put_record(store, decision_key(study, decision.number), as_record(decision, study))
    except AlreadyExists:
        return
