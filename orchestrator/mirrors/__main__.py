"""One round of one mirror, as a process.

    python -m orchestrator.mirrors MIRROR STORE STUDY FOLDER

Tells on standard output, a JSON object a line, how many runs have news, how many of them were sent, and rows; at the
end whether all of them were, or why not. It ends when its standard input does, wherever it stands: whoever started it
is gone, and what was not noted as sent is sent again.
"""

import fcntl
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from jobs.errors import MirrorError, SeedbedError
from jobs.store import open_store
from orchestrator.library import Library
from orchestrator.mirrors import open_mirror
from orchestrator.mirrors.sending import send_news

_NICENESS = 10  # what trains goes first


def main(name: str, url: str, study: str, folder: Path) -> int:
    """Send all news of a study to a mirror; returns 0, or 1 where it did not take them."""
    os.nice(_NICENESS)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            _hold(lock.fileno(), name)
            mirror = open_mirror(name, folder)
            try:
                send_news(Library(open_store(url)), study, name, mirror, _tell_counts)
            finally:
                mirror.abandon()
            mirror.close()
    except (SeedbedError, OSError) as error:
        _tell({"error": str(error)})
        return 1
    _tell({"error": ""})
    return 0


def _hold(file: int, name: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise MirrorError(f"{name}: another process sends this study just now") from None


def _tell_counts(runs: int, sent: int, rows: int) -> None:
    _tell({"runs": runs, "sent": sent, "rows": rows})


def _tell(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _end_with_the_parent() -> None:
    sys.stdin.read()
    os.killpg(0, 9)  # a tracker's own processes, too: this one leads a group of its own


if __name__ == "__main__":
    code = main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    sys.stdout.flush()
    os._exit(code)  # a tracker's threads are not waited for
