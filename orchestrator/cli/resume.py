"""`seedbed resume`: go on with a study from what the store holds of it; no study file is needed."""

from functools import partial
from typing import Annotated

import typer

from jobs.requests import stops
from jobs.store import open_store
from orchestrator.cli.options import DEFAULT_STORE, Address, AsJson, Cpus, Insecure, StoreFolder, StudyName
from orchestrator.cli.run import ClusterKind, Manner, find_cluster, train
from orchestrator.cli.submit import submit
from orchestrator.library import Library
from orchestrator.stored_study import stored_study


def command(
    study: StudyName = "",
    store: StoreFolder = DEFAULT_STORE,
    address: Address = "",
    cluster: Annotated[ClusterKind, typer.Option(help="Without an address: an embedded Ray, or this process.")] = (
        ClusterKind.RAY
    ),
    cpus: Cpus = 0,
    insecure: Insecure = False,
    takeover: Annotated[
        bool, typer.Option("--takeover", help="Take the study from a driver that is stuck, without waiting for it.")
    ] = False,
    stops_seen: Annotated[int, typer.Option(hidden=True)] = -1,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no figures and no report.")] = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a study that was stopped, or whose cluster died, from the text that the store holds.

    With an address that begins with http it is submitted again, as by `seedbed submit`; else this process drives it,
    as by `seedbed run`.

    [bold]Example:[/bold] seedbed resume widths --store s3://bucket/studies --address http://head:8265
    """
    opened = open_store(store)
    name = Library(opened).only(study)
    seen = stops(opened, name) if stops_seen < 0 else stops_seen
    if address.startswith(("http://", "https://")):
        Library(opened).declared(name)
        submit(address, name, opened.url, seen, insecure=insecure, as_json=as_json)
        return
    place = partial(find_cluster, cluster, cpus, address, insecure=insecure)
    with stored_study(opened, name) as (checked, declared):
        manner = Manner(seen, takeover=takeover)
        train(checked, declared.file, store, place, manner, no_report=no_report, as_json=as_json)
