"""`seedbed logs`: what packs said, from the store."""

import threading
from collections.abc import Sequence
from typing import Annotated

import typer

from jobs.claims import attempts_of
from jobs.errors import NotFound
from jobs.layout import PackKeys, parse_attempt_key
from jobs.store import Store, get_record, open_store
from orchestrator.cli.options import DEFAULT_STORE, StoreFolder
from orchestrator.cli.show import console
from orchestrator.declared import read_declared, studies
from orchestrator.store_state import read_standings

_LOOK_S = 1.0
_LAST_LINES = 200
Known = dict[str, frozenset[str]]  # a pack's request → its runs


def command(
    what: Annotated[str, typer.Argument(metavar="STUDY|RUN|PACK", help="Whose logs; a run by its first digits.")],
    store: StoreFolder = DEFAULT_STORE,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing until all of it has ended.")] = False,
    last: Annotated[int, typer.Option("--last", "-n", min=0, help="Lines of each log; 0: all.")] = _LAST_LINES,
) -> None:
    """Print the logs of a study's packs, of a run's, or of one pack; needs no cluster.

    A pack on a bucket puts its log there every few seconds.

    [bold]Example:[/bold] seedbed logs widths -f --store s3://bucket/studies
    """
    opened = open_store(store)
    printed: dict[str, int] = {}
    known: Known = {}
    pause = threading.Event()
    while True:
        is_over = not follow or _is_over(opened, what, known)  # asked first: what is said until the end is printed
        for pack in _packs(opened, what, known):
            _print_new(opened, pack, printed, last)
        if is_over:
            return
        pause.wait(_LOOK_S)


def _packs(store: Store, what: str, known: Known) -> Sequence[str]:
    """Return the packs meant, sorted; raises NotFound."""
    if store.exists(PackKeys(what).request):
        return [what]
    names = studies(store)
    if what in names:
        runs_of_study = {run.id for run in read_declared(store, what).runs}
        requests = (key for key in store.keys("packs/") if key.endswith("/request.json"))
        return [key.split("/")[1] for key in requests if not runs_of_study.isdisjoint(_runs_of(store, key, known))]
    runs = {found[0] for key in store.keys(f"attempts/{what}") if (found := parse_attempt_key(key))}
    if len(runs) != 1:
        told = f"begins the ids of {len(runs)} runs" if runs else "is no study, no run and no pack of this store"
        raise NotFound(what, f"{told}; it holds {', '.join(names) or 'none yet'}")
    return [attempt.pack_id for attempt in attempts_of(store, runs.pop())]


def _runs_of(store: Store, request: str, known: Known) -> frozenset[str]:
    """Return the runs that a pack was asked to train; a request never changes, and is read once."""
    if request not in known:
        known[request] = frozenset(str(run["run_id"]) for run in get_record(store, request)["runs"])
    return known[request]


def _is_over(store: Store, what: str, known: Known) -> bool:
    if what in studies(store):
        runs = [run.id for run in read_declared(store, what).runs]
        return all(standing.status.is_terminal for standing in read_standings(store, runs).values())
    return all(store.exists(PackKeys(pack).outcome) for pack in _packs(store, what, known))


def _print_new(store: Store, pack: str, printed: dict[str, int], last: int) -> None:
    try:
        text = store.get(PackKeys(pack).log).decode(errors="replace")
    except NotFound:
        return
    if pack not in printed:
        console.print(f"==> {pack}", style="bold", highlight=False, markup=False)
        whole = text.splitlines(keepends=True)
        new = "".join(whole[-last:] if last else whole)
    else:
        new = text[printed[pack] :]
    printed[pack] = len(text)
    # What a task prints may hold what a terminal obeys.
    shown = "".join(sign for sign in new if sign.isprintable() or sign in "\n\t")
    if shown.strip():
        console.print(shown.rstrip("\n"), highlight=False, markup=False, soft_wrap=True)
