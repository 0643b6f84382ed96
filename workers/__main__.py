"""`python -m workers STORE PACK`: carry out one pack in this process, without a cluster."""

import argparse
import signal
import sys
import threading

from jobs.errors import SeedbedError
from workers.pack import run_pack


def main() -> int:
    """Train one pack; return 0, or 1 after an error that the user can act on."""
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("store", help="the folder of the store")
    parser.add_argument("pack", help="the id of a pack whose request lies in the store")
    arguments = parser.parse_args()
    stop = threading.Event()
    # Slurm announces the end of an allocation by USR2 where it is asked to (`--signal=USR2@120`).
    for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(signal_number, lambda *_: stop.set())
    try:
        run_pack(arguments.store, arguments.pack, stop)
    except SeedbedError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
