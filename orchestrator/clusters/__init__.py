"""What the head may ask of a cluster: launch a pack, tell the news, stop one, close.

A cluster starts and watches processes and never holds the truth: a pack gets the store's address and its own
id, and everything that it measures goes to the store. One contract suite holds for all implementations:
`inline` (this process) and `ray`.
"""

from collections.abc import Sequence
from typing import Protocol

from jobs.pack import PackRun, SeedProof
from jobs.spec import Condition
from orchestrator.events import PackEnded, PackLost
from orchestrator.machine import ANYWHERE, Machine, Needs, Shape
from orchestrator.packing import Timing

News = PackEnded | PackLost


class Cluster(Protocol):
    """A place where packs train."""

    def machine(self) -> Machine:
        """Return what there is to fill with packs."""

    def room(self) -> Machine:
        """Return the part of it that is there for this head's packs now: what others use is left out."""

    def expect(self, waiting: Sequence[Shape], *, others_first: bool) -> None:
        """Hear which packs wait for room, every few seconds, so that idle processes go where none has for a while.

        They go at once where others have more important work. Raises ClusterError.
        """

    def calibrate(
        self,
        store_url: str,
        condition: Condition,
        most_runs: int,
        threads: tuple[int, ...],
        seconds: float,
        needs: Needs = ANYWHERE,
    ) -> list[Timing]:
        """Return measured timings for pack widths up to about `most_runs` and each number of threads.

        They are measured on a node that has what the packs need, and tell the memory that a pack takes.
        """

    def prove(self, store_url: str, condition: Condition, runs: Sequence[PackRun]) -> SeedProof:
        """Return what the seeds of these runs of the condition make, as digests; nothing is trained."""

    def launch(self, store_url: str, pack_id: str, threads: int, needs: Needs = ANYWHERE) -> None:
        """Start the pack whose request lies in the store, on a node that has what it needs; returns at once.

        Raises ClusterError.
        """

    def adopt(self, store_url: str, pack_id: str, threads: int, needs: Needs = ANYWHERE) -> bool:
        """Take over a pack that an earlier head launched: it is stopped, killed and told of like one's own.

        Returns whether its process was found; where it was not, only the store tells of it. Raises ClusterError.
        """

    def poll(self, timeout_s: float) -> list[News]:
        """Return what became of packs since the last call, waiting up to `timeout_s` for the first news.

        Every pack that was launched and not killed is in the news: ended with an outcome, or lost with an error. A
        cluster that loses news, or tells them twice, does no harm.
        """

    def stop(self, pack_id: str) -> None:
        """Ask a pack to save a checkpoint and end; it will be in the news as lost by StudyInterrupted."""

    def kill(self, pack_id: str) -> None:
        """End what is left of a pack that was given up; nothing happens where nothing is. It makes no news."""

    def close(self) -> None:
        """End what nobody could take over, at once; calling it twice does no harm.

        What trains on a cluster that outlives this process trains on, for the next head to adopt.
        """
