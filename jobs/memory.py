"""How much memory there is, and how much of it this process takes; 0 where the system does not tell."""

import os
from pathlib import Path

_PROCESS = Path("/proc/self")
_GROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def memory_bytes() -> int:
    """Return the memory of this machine, or of the container that this process is in, if that is less."""
    try:
        most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
    for group in _GROUPS:
        try:
            text = group.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():  # `max`: no limit
            most = min(most, int(text))
    return most


def resident_bytes() -> int:
    """Return the resident set of this process."""
    return _status("VmRSS")


def peak_resident_bytes() -> int:
    """Return the largest resident set since `forget_peak`, or since this process began."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Let the peak begin anew, where the system can do that."""
    try:
        (_PROCESS / "clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _status(name: str) -> int:
    try:
        lines = (_PROCESS / "status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)
