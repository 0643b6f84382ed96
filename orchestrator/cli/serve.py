"""`seedbed serve`: the dashboard in a browser."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from jobs.errors import QueryError
from jobs.store import open_store
from orchestrator.cli.options import DEFAULT_STORE, AsJson, StoreFolder
from orchestrator.cli.show import console, print_json

ForControl = Annotated[
    bool, typer.Option("--control", help="Let the printed link stop, resume and extend studies, not only read.")
]
DriveAt = Annotated[
    str,
    typer.Option(
        metavar="PLACE",
        help="Where resume and extend start a driver: inline or ray (this machine), or a Ray's address. "
        "Without it, the page shows the command.",
    ),
]
_POLITE = 10  # of nice: looking at a study takes nothing from what trains on the same machine


def command(
    store: Annotated[Path | None, typer.Argument(metavar="[STORE]", help="The folder of the store.")] = None,
    store_option: StoreFolder = DEFAULT_STORE,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="The port to listen at.")] = 8765,
    host: Annotated[str, typer.Option(help="The address to listen at; any but this machine's own needs --tokens.")] = (
        "127.0.0.1"
    ),
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A further name under which browsers call the server; repeatable.")
    ] = None,
    tokens: Annotated[Path | None, typer.Option(help="The file of the tokens (mode 0600); made where missing.")] = None,
    new_link: Annotated[
        bool, typer.Option("--new-link", help="Print a new link for a server that runs already, and end.")
    ] = False,
    control: ForControl = False,
    drive_at: DriveAt = "",
    sql_seconds: Annotated[float, typer.Option(min=0.05, max=600, help="How long one SQL query may take.")] = 1.0,
    alert_file: Annotated[Path | None, typer.Option(help="A file that gets a line of JSON for each alert.")] = None,
    alert_webhook: Annotated[str, typer.Option(help="An address that gets a POST of JSON for each alert.")] = "",
    stall_minutes: Annotated[
        float, typer.Option(min=0.01, help="Minutes without news after which a running study is stalled.")
    ] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Show a store's studies in a browser, live: curves, distributions, runs, SQL.

    Only this machine reaches it. From elsewhere: ssh -L 8765:127.0.0.1:8765 HOST, and open the printed link there.

    [bold]Example:[/bold] seedbed serve --store demo-store
    """
    try:
        from orchestrator.dashboard.sandbox import Limits
        from orchestrator.dashboard.server import Dashboard, Settings, link_to
        from orchestrator.dashboard.tokens import Scope, default_token_file, load_tokens, make_link_code
    except ModuleNotFoundError as error:
        raise QueryError(f"{error.name} is missing: pip install 'seedbed[dashboard]'") from None
    settings = Settings(
        host=host,
        port=port,
        names=tuple(allow_host or ()),
        limits=Limits(seconds=sql_seconds),
        alert_file=alert_file,
        webhook=alert_webhook,
        stall_s=stall_minutes * 60,
        drive_at=drive_at,
    )
    _check(host, alert_webhook, needs_tokens=not settings.is_loopback and tokens is None)
    read = load_tokens(tokens or default_token_file())
    scope = Scope.CONTROL if control else Scope.READ
    if new_link:
        _say(link_to(settings, make_link_code(read, scope, time.time())), as_json=as_json)
        return
    dashboard = Dashboard(open_store(store or store_option), settings, read)
    _say(dashboard.link(scope), as_json=as_json)
    if not as_json:
        _explain(host, is_loopback=settings.is_loopback)
    _settle(drive_at)
    dashboard.serve()


def _settle(drive_at: str) -> None:
    # uvicorn raises a signal again when it has left; the default would end the process before it has tidied up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if not drive_at:
        os.nice(_POLITE)  # what is watched goes first; drivers that a page starts would inherit it


def _check(host: str, webhook: str, *, needs_tokens: bool) -> None:
    if webhook and urlsplit(webhook).scheme not in ("http", "https"):
        raise QueryError(f"--alert-webhook is an http or https address, not {webhook!r}")
    if needs_tokens:
        raise QueryError(
            f"at {host} everybody who reaches this machine could try to come in, and nothing is encrypted. If that is "
            "meant, name a file of tokens with --tokens FILE and put TLS before it; else use ssh -L, as --help shows"
        )


def _explain(host: str, *, is_loopback: bool) -> None:
    if not is_loopback:
        told = f"Listening at {host}: all who reach it with a token see every study of the store; nothing is encrypted."
        console.print(told, style="yellow")
    told = "The link works once, within 10 minutes; `seedbed serve --new-link` makes another. Ctrl-C ends it."
    console.print(told, highlight=False)


def _say(link: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"link": link})
        sys.stdout.flush()
    else:
        console.print(link, highlight=False, markup=False, soft_wrap=True)
