"""`seedbed submit`: a study to a cluster, whose own head drives it; this machine may be switched off."""

from typing import Annotated

import typer

from jobs.requests import stops
from jobs.store import open_store
from orchestrator.cli.options import DEFAULT_STORE, AsJson, Insecure, StoreFolder, StudyFile, find_study
from orchestrator.cli.show import console, print_json
from orchestrator.declared import register

Dashboard = Annotated[
    str, typer.Option("--address", "-a", metavar="ADDRESS", envvar="RAY_DASHBOARD", help="Of Ray: http://head:8265.")
]


def command(
    study: StudyFile,
    address: Dashboard = "",
    store: StoreFolder = DEFAULT_STORE,
    insecure: Insecure = False,
    as_json: AsJson = False,
) -> None:
    """Put a study into the store and start its head on a cluster through Ray Jobs; returns at once.

    The study, your own tasks and what it forks from go into the store; Seedbed itself is installed on the cluster
    (infra/). Every node needs the store's credentials in its own environment: none are sent. Look on with `seedbed
    status`, `logs -f`, `stop` and `resume`, from any machine that reaches the store. Without an address the study is
    put into the store and started by nobody: for a cluster that fetches it, such as a Slurm job (infra/).

    [bold]Example:[/bold] seedbed submit study.yaml --address http://head:8265 --store s3://bucket/studies
    """
    checked, file = find_study(study)
    opened = open_store(store, create=True)
    register(opened, checked, file)
    if not address:
        _say_stored(checked.name, opened.url, as_json=as_json)
        return
    submit(address, checked.name, opened.url, stops(opened, checked.name), insecure=insecure, as_json=as_json)


def _say_stored(study: str, store_url: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"job": None, "study": study, "store": store_url, "address": None})
    else:
        told = f"{study} is in the store, and nobody trains it yet: seedbed resume {study} --store {store_url}"
        console.print(told, highlight=False, markup=False, soft_wrap=True)


def submit(address: str, study: str, store_url: str, stops_seen: int, *, insecure: bool, as_json: bool) -> None:
    """Start the head of a study that lies in the store, and print the id of the job."""
    from orchestrator.clusters.ray_jobs import submit_job  # Ray takes half a second to import

    job = submit_job(address, study, store_url, stops_seen, insecure=insecure)
    if as_json:
        print_json({"job": job, "study": study, "store": store_url, "address": address})
        return
    console.print(f"{study} is on its way: {job}", highlight=False, markup=False)
    for verb in ("status", "logs -f", "stop"):
        console.print(f"  seedbed {verb} {study} --store {store_url}", highlight=False, markup=False, soft_wrap=True)
