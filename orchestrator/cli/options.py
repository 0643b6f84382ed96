"""Arguments and options that several verbs share."""

import os
from pathlib import Path
from typing import Annotated

import typer

from jobs import studies
from jobs.errors import Fault, SeedbedError, StudyError
from jobs.store import open_store
from jobs.study import Study
from jobs.study_file import read_study

_SHIPPED = Path(studies.__file__).parent


def _complete_study(incomplete: str) -> list[str]:
    here = [str(path) for path in sorted(Path().glob("*.yaml"))]
    shipped = [path.stem for path in sorted(_SHIPPED.glob("*.yaml"))]
    return [name for name in [*here, *shipped] if name.startswith(incomplete)]


StudyFile = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="A study file, or the name of a shipped study such as [bold]demo[/bold].",
        autocompletion=_complete_study,
    ),
]


def _complete_stored(context: typer.Context, incomplete: str) -> list[str]:
    from orchestrator.declared import studies as stored

    try:
        names = stored(open_store(str(context.params.get("store") or os.environ.get("SEEDBED_STORE") or DEFAULT_STORE)))
    except SeedbedError:  # a shell that completes says nothing
        return []
    return [name for name in names if name.startswith(incomplete)]


StudyName = Annotated[
    str,
    typer.Argument(metavar="[STUDY]", help="The name of a study in the store.", autocompletion=_complete_stored),
]
StoreFolder = Annotated[
    str,
    typer.Option(
        "--store",
        "-s",
        metavar="STORE",
        envvar="SEEDBED_STORE",
        help="The store: a folder, or s3://bucket/prefix, gs://…, az://…; credentials come from the environment.",
        show_default=True,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Cpus = Annotated[int, typer.Option("--cpus", min=0, help="CPUs to use; 0: all of this machine's.")]
Address = Annotated[
    str,
    typer.Option("--address", "-a", metavar="ADDRESS", help="A running Ray: auto, host:port or ray://host:port."),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Go on with a Ray that lets everyone in, or is older than 2.54.")
]
DEFAULT_STORE = "seedbed-store"


def find_study(name: str) -> tuple[Study, str]:
    """Return the study of a file, or the shipped one of that name, and the file; raises StudyError."""
    path = Path(name)
    shipped = _SHIPPED / f"{name}.yaml"
    if not path.exists() and path.name == name and shipped.exists():
        path = shipped
    elif path.is_dir():
        raise StudyError((Fault(name, 0, "", "is a folder, not a study file"),))
    return read_study(path), str(path)


def is_shipped(file: str) -> bool:
    """Return whether a study file is one that comes with Seedbed."""
    return Path(file).resolve().parent == _SHIPPED.resolve()
