"""One drive of one study, turn by turn: news become events, commands become calls.

Nothing is decided here (`state.py`, `policy.py`, `packing.py`) and nothing is kept here (the store): a head that
dies is replaced by one that reads the store. A turn that the store or the cluster fails is taken again: whatever was
not done stays in its queue, and doing it twice does no harm. News may be lost, late or doubled; a pack that does not
beat is given up, and what it committed counts, not what was said of it.

Not here: waiting, signals and threads (`scheduler.py`).
"""

import heapq
import logging
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from jobs.beats import LATE_S, PACK_SILENT_S, Clock, Silences, newest_beats, stalled
from jobs.errors import (
    AlreadyExists,
    ClusterError,
    LeaseLost,
    NodeLost,
    NotFound,
    PackSilent,
    PackStalled,
    RunEnded,
    StoreError,
    StudyInterrupted,
    Superseded,
)
from jobs.layout import PackKeys, beat_key
from jobs.lease import Lease
from jobs.pack import PackRequest, SeedDigests, get_request, put_request
from jobs.store import Store
from jobs.study import Run, Study
from orchestrator.clusters import Cluster
from orchestrator.events import (
    AdoptPack,
    Command,
    DriverReplaced,
    Event,
    Finish,
    KillPack,
    LaunchPack,
    MachineChanged,
    PackEnded,
    PackLaunched,
    PackLost,
    RecordLoss,
    StopPack,
    StopRequested,
)
from orchestrator.policy import Blame, blame
from orchestrator.prepare import Prepared
from orchestrator.rivals import Rivals, wishes
from orchestrator.seed_audit import pack_run
from orchestrator.state import State, opened, transition
from orchestrator.store_state import ends_of_others, find_outcome, give_up, holding_pack, record_loss, resume_steps

LOOK_S = 2.0  # between two looks at the beats of all packs: one listing
START_S = 180.0  # a pack that has never beaten waits for its turn, or imports torch from a slow disk
_LONGEST_TROUBLE_S = 600.0  # of a store or a cluster that answers nothing but errors
log = logging.getLogger(__name__)

News = PackEnded | PackLost


@dataclass(slots=True)
class Driver:
    """Drives one study under a lease.

    clock   seconds that only go forward
    strict  whether packs refuse checkpoints of another environment
    """

    study: Study
    store: Store
    cluster: Cluster
    lease: Lease
    clock: Clock
    prepared: Prepared
    strict: bool = False
    state: State = field(init=False)
    proofs: Mapping[str, SeedDigests] = field(init=False)
    _commands: deque[Command] = field(default_factory=deque)
    _news: deque[News] = field(default_factory=deque)
    _later: list[tuple[float, int, LaunchPack]] = field(default_factory=list)
    _launches: int = 0
    _own: set[str] = field(default_factory=set)
    _unseen: set[str] = field(default_factory=set)  # of an earlier head, and not found on the cluster
    _silences: Silences = field(init=False)
    _rivals: Rivals = field(init=False)
    _next_look: float = float("-inf")
    _trouble_since: float | None = None
    _trouble: str = ""
    _runs: Mapping[str, Run] = field(init=False)

    def __post_init__(self) -> None:
        self._runs = {run.id: run for run in self.study.runs}
        self.proofs = self.prepared.proofs
        self._silences = Silences(self.clock)
        self._rivals = Rivals(self.store, self.study.name, self.study.settings.execution.priority, self.clock)
        opening = self.prepared.opening
        if self._rivals.waiting():
            opening = replace(opening, machine=opening.machine.at_most(0))
        self.state, commands = opened(opening)
        self._commands.extend(commands)

    def turn(self, wait_s: float) -> None:
        """Carry out what is due, take the news, waiting up to `wait_s` for the first, and look after the packs.

        Raises what store or cluster raise if they have done nothing else for ten minutes, and what no waiting mends.
        """
        try:
            self._carry_out_due()
            if not self.state.finished:
                self._news.extend(self.cluster.poll(0.0 if self._commands or self._news else wait_s))
                self._take_news()
                self._look_after_packs()
                self._carry_out_due()
        except LeaseLost as error:
            self._commands.clear()
            self.feed(DriverReplaced(error))
        except (StoreError, ClusterError) as error:
            if isinstance(error, StoreError) and blame(error, 1) is not Blame.OUTSIDE:
                raise
            self._bear(error, wait_s)
        else:
            self._trouble_since, self._trouble = None, ""

    def feed(self, event: Event) -> None:
        """Let the state take an event, and queue the commands that follow."""
        self.state, commands = transition(self.state, event)
        self._commands.extend(commands)

    def request_stop(self) -> None:
        """Ask every pack to save and end; launch nothing more."""
        self.feed(StopRequested())

    def close(self) -> None:
        """Carry out what is left when the state is finished, such as the record of the last loss; may raise."""
        self._carry_out_due()

    def _bear(self, error: BaseException, wait_s: float) -> None:
        if str(error) != self._trouble:
            log.warning("this turn again: %s", error)
        self._trouble = str(error)
        if self._trouble_since is None:
            self._trouble_since = self.clock()
        elif self.clock() - self._trouble_since > _LONGEST_TROUBLE_S:
            raise error
        time.sleep(wait_s)  # what fails at once would be tried as fast as the processor can

    def _carry_out_due(self) -> None:
        while self._later and self._later[0][0] <= self.clock():
            self._commands.append(replace(heapq.heappop(self._later)[2], pause_s=0.0))
        while self._commands:
            self._carry_out(self._commands[0])
            self._commands.popleft()

    def _carry_out(self, command: Command) -> None:
        match command:
            case LaunchPack():
                self._launch(command)
            case AdoptPack():
                seen = self.cluster.adopt(self.store.url, command.pack_id, command.pack.threads, command.pack.needs)
                if not seen:
                    self._unseen.add(command.pack_id)
            case StopPack():
                self.cluster.stop(command.pack_id)
            case KillPack():
                self.lease.check()  # a later driver may have adopted it
                give_up(self.store, command.pack_id)
                self.cluster.kill(command.pack_id)
                self.store.delete(beat_key(command.pack_id, self._silences.number(command.pack_id)))
                self._own.discard(command.pack_id)
            case RecordLoss():
                record_loss(self.store, command.pack_id, command.failed, command.run_ids, command.reason)
            case Finish():
                pass

    def _launch(self, command: LaunchPack) -> None:
        asked = self.state.live.get(command.pack.key)
        if asked is None or asked.pack_id:
            return  # the study was stopped during the pause, or this was carried out before
        if command.pause_s > 0:
            self._launches += 1
            heapq.heappush(self._later, (self.clock() + command.pause_s, self._launches, command))
            return
        self.lease.check()
        pack_id = self._request(command)
        self._own.add(pack_id)
        self.feed(PackLaunched(command.pack.key, pack_id))
        try:
            self.cluster.launch(self.store.url, pack_id, command.pack.threads, command.pack.needs)
        except ClusterError as error:
            # It may have been started all the same: it is given up like any other.
            self._news.append(PackLost(pack_id, NodeLost(f"could not be launched: {error}")))

    def _request(self, command: LaunchPack) -> str:
        """Write the request under the first launch number that is free; returns the pack's id."""
        pack = command.pack
        runs = [self._runs[run_id] for run_id in pack.run_ids]
        number = 0
        while True:
            number += 1
            pack_id = f"{pack.key}.{number:04d}"
            if self.store.exists(PackKeys(pack_id).request):
                continue
            request = PackRequest(
                pack_id=pack_id,
                condition=runs[0].point.condition,
                runs=tuple(pack_run(run, self.proofs.get(run.id)) for run in runs),
                rolling_every=self.study.settings.checkpoints.rolling.every,
                threads=pack.threads,
                device=command.device,
                strict=self.strict,
                study=self.lease.study,
                epoch=self.lease.epoch,
            )
            try:
                put_request(self.store, request)
            except AlreadyExists:
                continue
            return pack_id

    def _take_news(self) -> None:
        while self._news:
            event = self._checked(self._news[0])
            if event is not None:
                self.feed(event)
            self._news.popleft()

    def _checked(self, item: News) -> Event | None:
        """Return what the store makes of the news: what a pack committed counts, not its death."""
        pack = self.state.find(item.pack_id)
        if pack is None or isinstance(item, PackEnded):
            return item
        outcome = find_outcome(self.store, item.pack_id)
        if outcome is not None:
            left = [run.run_id for run in outcome.runs if not run.status.is_terminal]
            return PackEnded(item.pack_id, outcome, resume_steps(self.store, item.pack_id, left) if left else {})
        if isinstance(item.error, AlreadyExists) and item.error.key == PackKeys(item.pack_id).claim:
            # The same launch was heard twice; the first to hear it trains.
            self._own.discard(item.pack_id)
            return None
        if isinstance(item.error, RunEnded):
            return PackEnded(item.pack_id, *ends_of_others(self.store, item.pack_id, pack.run_ids))
        steps = resume_steps(self.store, item.pack_id, pack.run_ids)
        return replace(item, error=self._own_error(item.error), steps=steps)

    def _own_error(self, error: BaseException) -> BaseException:
        """Return another error where the pack was overtaken by one that an earlier driver of this study launched."""
        if isinstance(error, Superseded):
            try:
                study = get_request(self.store, holding_pack(self.store, error.run_id)).study
            except NotFound:
                return error
            if study == self.lease.study:
                return StudyInterrupted(f"an earlier launch had run {error.run_id}")
        return error

    def _look_for_room(self) -> None:
        """See what there is to fill now, say how much this study waits for, and make room for more important ones."""
        execution = self.study.settings.execution
        machine = self.cluster.room().offered_to(execution)
        others = self._rivals.waiting()
        if others:
            machine = machine.at_most(0)
            live = [it.pack_id for it in self.state.live_packs() if it.pack_id]
            self._commands.extend(StopPack(pack_id) for pack_id in live[: self._rivals.leaving(others, len(live))])
        if machine != self.state.machine:
            self.feed(MachineChanged(machine))
        waiting = [] if self.state.stopping else [pack.shape for pack in self.state.waiting]
        if execution.packs_at_once != "machine":
            waiting = waiting[: max(0, execution.packs_at_once - len(self.state.live))]
        self.lease.says = wishes(execution.priority, len(waiting))
        self.cluster.expect(waiting, others_first=others > 0)

    def _look_after_packs(self) -> None:
        """Give up the packs that are silent, and hear of those that no cluster tells of."""
        if self.clock() < self._next_look:
            return
        self._next_look = self.clock() + LOOK_S
        self._look_for_room()
        beats = newest_beats(self.store)
        live = [it.pack_id for it in self.state.live_packs() if it.pack_id]
        for pack_id, silent_s in self._silences.look(beats, live).items():
            has_beaten = self._silences.number(pack_id) > 0
            if has_beaten and silent_s > LATE_S and (why := stalled(self.store, pack_id, beats.get(pack_id, 0))):
                self._news.append(PackLost(pack_id, PackStalled(f"pack {pack_id} stands still: {why}")))
                continue
            # A pack of an earlier head is in no cluster's news: that its beat is gone is how it tells its end.
            left = pack_id not in self._own and pack_id not in beats
            longest_s = LATE_S if pack_id in self._unseen else PACK_SILENT_S
            if left or silent_s > (longest_s if has_beaten else START_S):
                why = "has left without a word" if left else f"has not beaten for {silent_s:.0f} s"
                self._news.append(PackLost(pack_id, PackSilent(f"pack {pack_id} {why}")))
        self._take_news()
