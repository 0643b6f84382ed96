"""`python -m tests.sim SEED` replays one history; `--seeds N` runs the first N of them, on all cores."""

import argparse
import logging
import resource
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.sim.world import World


def histories(seeds: range) -> tuple[int, Counter[str], list[str]]:
    """Run these seeds; returns how many events there were, which faults, and what failed."""
    logging.disable(logging.ERROR)
    events, injected, failures = 0, Counter[str](), []
    for seed in seeds:
        world = World(seed)
        try:
            world.run()
        except AssertionError as failure:
            failures.append(str(failure))
        events += world.events
        injected += world.injected
    return events, injected, failures


def main() -> int:
    """Run what was asked for; 1 if a history failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("seed", nargs="?", type=int)
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    if given.seed is not None:
        World(given.seed).run()
        sys.stdout.write(f"seed {given.seed} holds\n")
        return 0
    began, size = time.monotonic(), 100
    end = given.first + given.seeds
    blocks = [range(start, min(start + size, end)) for start in range(given.first, end, size)]
    events, injected, failures = 0, Counter[str](), []
    with ProcessPoolExecutor(given.processes) as pool:
        for more, of_block, failed in pool.map(histories, blocks):
            events, injected = events + more, injected + of_block
            failures += failed
            for failure in failed:
                sys.stdout.write(f"{failure}\n  python -m tests.sim {failure.split()[1].rstrip(':')}\n")
    seconds, own = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    took = f"{seconds:.0f} s, {own.ru_utime + own.ru_stime:.0f} CPU-s"
    sys.stdout.write(f"{given.seeds:,} histories, {events:,} events, {took}; faults: {dict(injected)}\n")
    sys.stdout.write(f"{len(failures)} failed\n")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
