"""The first 20 steps of every full configuration: the work's own model, at a small batch, trains."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from jobs.records import Status
from jobs.store import open_store
from jobs.study import Study
from jobs.study_file import read_study
from orchestrator.clusters.inline import InlineCluster
from orchestrator.collector import Collector
from orchestrator.declared import declare, register
from orchestrator.machine import Machine
from orchestrator.plan import plan
from orchestrator.scheduler import drive
from orchestrator.store_state import read_standings

FULL = Path(__file__).parents[2] / "jobs" / "studies" / "full"
STEPS, BATCH, ITEMS, HALF = 20, 2, 8, 10
FILES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(FULL.glob("*.yaml"))}
BEFORE = {name: file["fork"]["study"].removesuffix(".yaml") for name, file in FILES.items() if "fork" in file}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def cut(name: str) -> dict[str, Any]:
    """Return a full configuration with its largest model, 20 steps, one run, and a little of what is measured."""
    study = copy.deepcopy(FILES[name])
    study["training"] |= {"steps": STEPS, "batch_size": BATCH}
    study["probes"] = {"every": STEPS}
    study["checkpoints"] = {"milestones": [HALF]} if "fork" not in study else {}
    study["execution"] = {}
    study["task"] |= {"test_size": ITEMS} | ({"trees": ITEMS} if "trees" in study["task"] else {})
    study["task"] |= {"validation": BATCH} if "validation" in study["task"] else {}
    for asked in (one["shapley"] for one in study.get("measure", ()) if isinstance(one, dict) and "shapley" in one):
        asked |= {"items": BATCH, "window": 4}  # 32 subsets, where 8 sentences of 8 words are 2,048
    if "polca" in study:
        study["polca"] |= {"steps": {"every": HALF}, "basis": {"every": STEPS}, "items": ITEMS}
    if study["task"]["name"] == "planted":
        study["task"] |= {"span": STEPS, "exposures": [0, 1, 2], "strings": 4}
        study["success"]["metric"] = "seen_2.accuracy"
    if "grid" in study:
        blocks = study["grid"] if isinstance(study["grid"], list) else [study["grid"]]
        last = {factor: values[-1:] for factor, values in blocks[-1].items() if factor != "training.steps"}
        study["grid"] = last or {}
        for again in (value for value in last.get("training.fast_forward", []) if value):
            again |= {"items": BATCH, "most": BATCH}  # 100 passes over 32 sentences take longer than all of the rest
    if "fork" in study and isinstance(study["fork"]["steps"][0], int):
        study["fork"]["steps"] = [HALF]
    if "fork" in study and "line" in study["fork"]:
        study["fork"]["line"]["points"] = 3
    seeds = study["seeds"]
    pairs = seeds["design"] == "data_only"  # children of one parent, between which lines are drawn
    seeds |= {count: 2 if pairs else 1 for count in ("count", "init", "data") if count in seeds}
    return dict(study)


def largest(study: Study) -> int:
    """Return the parameters of the largest model."""
    machine = Machine(1, packs_at_once=1, device="cpu")
    return max(condition.parameters for condition in plan(study, None, machine).conditions)


def chain_of(name: str) -> tuple[str, ...]:
    """Return what belongs together: a fork is trained after those that it begins from."""
    return (*(chain_of(BEFORE[name]) if name in BEFORE else ()), name)


@pytest.mark.parametrize("name", sorted(set(FILES) - set(BEFORE.values())))
def test_the_first_20_steps_of_a_full_configuration(name: str, tmp_path: Path) -> None:
    store, cluster = open_store(tmp_path / "store", create=True), InlineCluster(cpus=1)
    chain = chain_of(name)
    for each in chain:
        (tmp_path / f"{each}.yaml").write_text(yaml.safe_dump(cut(each), sort_keys=False))
    for each in chain:
        study = read_study(tmp_path / f"{each}.yaml")
        assert largest(study) == largest(read_study(FULL / f"{each}.yaml"))
        register(store, study, f"{each}.yaml")
        drive(study, store, cluster, calibrate=False)
        standings = read_standings(store, [run.id for run in study.runs])
        assert {it.status for it in standings.values()} == {Status.FINISHED}
        assert {it.step for it in standings.values()} == {STEPS}
        metrics = Collector(store, declare(study, f"{each}.yaml")).collect()["metrics"]
        assert np.isfinite(metrics["value"].to_numpy()).all()
    cluster.close()
