"""Which process is it, and is it surely dead? For records that outlive the process that wrote them.

A process is named by its host's boot, its namespace of process numbers, its number and when it started, so
that neither a reused number nor a container with the same host name is taken for it. Where the system does not
tell (no /proc), nothing is sure.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PROC = Path("/proc")
_START_FIELD = 19  # of /proc/PID/stat after the name in brackets: clock ticks from boot to the process's start
_ZOMBIE = "Z"


def this_process() -> dict[str, Any]:
    """Return the names of this process, as a record holds them."""
    named = {"host": socket.gethostname(), "pid": os.getpid()}
    return named | {"boot": _boot(), "namespace": _namespace(), "started": _state_and_start(os.getpid())[1]}


def is_surely_dead(process: Mapping[str, Any]) -> bool:
    """Return whether the process ran where this one does and runs no more; False where that cannot be known."""
    here = {"boot": _boot(), "namespace": _namespace()}
    if not all(here.values()) or any(process.get(name) != value for name, value in here.items()):
        return False
    state, started = _state_and_start(int(process["pid"]))
    return started != process.get("started") or state == _ZOMBIE


def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return str((_PROC / "self/ns/pid").readlink())
    except OSError:
        return ""


def _state_and_start(pid: int) -> tuple[str, int]:
    """Return the state and the start of a process; ("", -1) where there is none."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return "", -1
    return fields[0], int(fields[_START_FIELD])
