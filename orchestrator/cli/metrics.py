"""`seedbed metrics`: a store's figures for Prometheus."""

import threading
from typing import Annotated

import typer

from jobs.errors import QueryError
from jobs.store import open_store
from orchestrator.cli.options import DEFAULT_STORE, StoreFolder
from orchestrator.cli.show import console
from orchestrator.head_metrics import SavesReader, exposition, metrics_server
from orchestrator.library import Library


def command(
    store: StoreFolder = DEFAULT_STORE,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Serve on 127.0.0.1; else print once.")] = None,
) -> None:
    """Print the figures of all studies in Prometheus's text format, or serve them on this machine.

    Needs no cluster. The scrape configuration and a Grafana board are in infra/.

    [bold]Example:[/bold] seedbed metrics --store s3://bucket/studies --port 9464
    """
    library = Library(open_store(store))
    saves = SavesReader(library.store)
    lock = threading.Lock()  # two scrapes at once would collect twice

    def read() -> str:
        with lock:
            studies = {name: library.tables(name) for name in library.names()}
            return exposition(studies, {name: saves.saves(tables) for name, tables in studies.items()})

    if port is None:
        typer.echo(read(), nl=False)
        return
    try:
        server = metrics_server(port, read)
    except OSError as error:
        raise QueryError(f"port {port} cannot be had: {error.strerror}") from None
    console.print(f"http://127.0.0.1:{server.server_address[1]}/metrics", highlight=False)
    with server:
        server.serve_forever()
