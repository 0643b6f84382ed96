"""`seedbed stop`: ask whoever drives a study to save and leave."""

from jobs.lease import holder, sight
from jobs.requests import request_stop
from jobs.store import open_store
from orchestrator.cli.options import DEFAULT_STORE, AsJson, StoreFolder, StudyName
from orchestrator.cli.show import console, print_json
from orchestrator.library import Library


def command(study: StudyName = "", store: StoreFolder = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Ask the driver of a study, wherever it is, to let every pack save a checkpoint, and to leave.

    The request is a record in the store: it needs no connection to the cluster, and is honoured within seconds by a
    driver that lives, or by one that was submitted and has not begun. `seedbed resume` goes on afterwards.

    [bold]Example:[/bold] seedbed stop widths --store s3://bucket/studies
    """
    opened = open_store(store)
    name = Library(opened).only(study)
    Library(opened).declared(name)
    number = request_stop(opened, name)
    seen = sight(opened, name)
    driver = {} if seen.released else dict(holder(opened, name, seen.epoch))
    told = {"host": str(driver.get("host", "")), "pid": driver.get("pid")} if driver else None
    if as_json:
        print_json({"study": name, "request": number, "driver": told})
    elif told:
        console.print(f"{name}: asked process {told['pid']} on {told['host']} to stop", highlight=False, markup=False)
    else:
        console.print(f"{name}: nobody drives it; asked whoever was submitted to", highlight=False, markup=False)
