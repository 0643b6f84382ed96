"""The proof of seeds of a script: what each seed has made, as the script has seen it, compared over its runs.

Nobody can draw for a script before it starts, so it says what it drew (`seedbed.prove`), before its first step. Within
a condition a seed and its digest belong to each other, one to one: each is put under the other's name where nothing
is, so that whoever comes second sees the difference, whichever pack or node it is on.
"""

from collections.abc import Mapping

from jobs.errors import AlreadyExists
from jobs.identity import canonical_json, condition_spec, sha256
from jobs.layout import seen_key
from jobs.pack import PackRun
from jobs.spec import Condition
from jobs.store import Store, get_record, put_record

_SCOPE_DIGITS = 20


def witness(store: Store, condition: Condition, run: PackRun, digests: Mapping[str, str]) -> str:
    """Put what a run's seeds made into the store, by factor; returns what does not fit to another run, or nothing."""
    scope = sha256(canonical_json(condition_spec(condition)))[:_SCOPE_DIGITS]
    seeds = run.seeds.seeds().as_dict()
    for factor, digest in sorted(digests.items()):
        seed = seeds[factor]
        said = {"seed": seed, "digest": digest, "run_id": run.run_id}
        of_seed = _first(store, seen_key(scope, factor, f"seed-{seed}"), said)
        if of_seed["digest"] != digest:
            return f"{factor} seed {seed} made something else in run {of_seed['run_id']}: there is chance beside it"
        of_digest = _first(store, seen_key(scope, factor, f"digest-{digest}"), said)
        if of_digest["seed"] != seed:
            other = f"{of_digest['seed']} of run {of_digest['run_id']}"
            return f"{factor} seed {seed} made the same as seed {other}: the seed is ignored"
    return ""


def _first(store: Store, key: str, said: dict[str, object]) -> Mapping[str, object]:
    """Return the record under `key`, which is `said` where nobody was there before."""
    try:
        put_record(store, key, said)
    except AlreadyExists:
        return get_record(store, key)
    return said
