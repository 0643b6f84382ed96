"""`python -m workers.engines.fellow FOLDER RANK`: one of the processes that train runs together, not the first.

It does what the first process says, and keeps nothing but what it saves of a checkpoint. It ends when that one does:
its input is closed then.
"""

import json
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from jobs.errors import StoreError
from jobs.identity import canonical_json
from jobs.seeds import Seeds, Streams
from jobs.spec import Condition
from workers.determinism import make_deterministic
from workers.engines.fellows import HEADER, STORE_FAILED, Order
from workers.engines.modules import WHOLE, Told, carry_out, replicas_of, take_part, take_up
from workers.engines.replica import Replica, Shape, module_spec
from workers.engines.world import Meeting, World, joined
from workers.memory import keeping_freed_memory
from workers.part_saver import PartSaver, Place
from workers.writer import Writer


def main() -> int:
    """Carry out orders until there are no more."""
    # Ctrl-C, and a scheduler that ends an allocation, mean the first process: it saves, and needs this one for it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    threading.Thread(target=_end_with_the_first, name="parent", daemon=True).start()
    asked = json.loads((folder / "asked.json").read_text(encoding="utf-8"))
    condition = Condition.model_validate_json(canonical_json(asked["condition"]))
    streams = [Streams(Seeds(**seeds)) for seeds in asked["seeds"]]
    spec = module_spec(condition)
    make_deterministic(spec.threads, spec.threads)
    (folder / f"{rank}.ready").touch()
    meeting = Meeting(folder, *asked["meeting"])
    device = asked["device"]
    with keeping_freed_memory(), joined(meeting, rank, spec.processes, device) as world, Writer() as writer:
        replicas = replicas_of(condition, Shape(*asked["shape"]), streams, world)
        parts = PartSaver(rank, spec.processes)
        while _obey(replicas, world, parts, writer):
            pass
    return 0


def _end_with_the_first() -> None:
    while os.read(0, 1):  # not through sys.stdin, whose lock would be fatal to a process that ends with an error
        pass
    os._exit(1)


def _obey(replicas: list[Replica], world: World, parts: PartSaver, writer: Writer) -> bool:
    """Carry out the next order; returns whether there may be another."""
    said, slot, step, rows, length = world.tell(torch.zeros(HEADER, dtype=torch.int64)).tolist()
    order = Order(said)
    if order is Order.STOP:
        return False
    replica = replicas[slot]
    if order is Order.SAVE:
        place = Place.of(_said(world, length))
        writer.wait()
        job = take_part(replicas, parts, place, step)
        writer.submit(partial(_do_or_end, job))
    elif order in WHOLE:
        deque(WHOLE[order](replica), maxlen=0)  # this process is needed for it, and keeps nothing
    elif order is Order.LOAD and length:
        take_up(replica, world, _said(world, length))
    elif order is Order.LOAD:
        replica.load(Told(world, replica.layout.blanks()))
    else:
        told = [world.tell(torch.zeros(rows, length, dtype=torch.int64)) for _ in range(order.parts)]
        carry_out(order, step, replica, *told)
    return True


def _said(world: World, length: int) -> str:
    return bytes(world.tell(torch.zeros(length, dtype=torch.uint8)).tolist()).decode()


def _do_or_end(job: Callable[[], object]) -> None:
    """Do something, or end this process: the first one looks for nothing else while it waits for this part."""
    code = 1
    try:
        job()
        code = 0
    except StoreError as error:
        code = STORE_FAILED
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
    finally:
        if code == 1:
            traceback.print_exc()
        if code:
            os._exit(code)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Libraries' threads have been seen to abort a process that had done all its work.
    os._exit(code)
