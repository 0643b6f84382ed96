"""How exported runs are called: `<study>-<condition>-seed<N>`, as Pythia's are."""

import json
import re
from collections import Counter
from collections.abc import Sequence

from orchestrator.declared import DeclaredCondition, DeclaredRun

_MOST = 80  # characters of a condition; the hub takes 96 of a whole name


def run_names(study: str, runs: Sequence[DeclaredRun]) -> dict[str, str]:
    """Return run → name; where two would be called alike, or a name would be too long, their ids tell them apart."""
    names = {run.id: _name(study, run) for run in runs}
    often = Counter(names.values())
    return {run: name if often[name] == 1 else f"{name}-{run}" for run, name in names.items()}


def _name(study: str, run: DeclaredRun) -> str:
    own = {name: number for name, number in run.seeds.as_dict().items() if name != "evaluation"}
    seeds = [f"seed{run.seeds.init}"] if len(set(own.values())) == 1 else [f"{n}{number}" for n, number in own.items()]
    return "-".join(part for part in (_safe(study), _condition(run.condition), *seeds) if part)


def _condition(condition: DeclaredCondition) -> str:
    text = "-".join(
        _safe(name.rpartition(".")[2] + (value if isinstance(value, str) else json.dumps(value, sort_keys=True)))
        for name, value in condition.factors.items()
    )
    return text if len(text) <= _MOST else condition.id


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")
