"""The cluster's page and its sources: who beats by our own clock, what became of packs, what a verification found."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.beats import Pulse
from jobs.claims import FRESH, claim
from jobs.findings import Finding
from jobs.layout import PackKeys, verdict_key
from jobs.lease import Candidate
from jobs.pack import PackOutcome, RunOutcome, put_outcome
from jobs.process import this_process
from jobs.records import Status
from jobs.store import LocalStore, put_record
from orchestrator.dashboard.alerts import Stalls, alerts_of
from orchestrator.dashboard.server import Dashboard, Settings
from orchestrator.dashboard.signs import Signs
from orchestrator.dashboard.tokens import load_tokens
from orchestrator.verdicts import newest_verdict, put_verdict
from orchestrator.verify import Span, Verdict
from tests.dashboard.conftest import Visitor


@pytest.fixture
def own(store: LocalStore, tmp_path: Path) -> Iterator[Visitor]:
    """Return a visitor of a copy of the store, whose server's clock is in `now`."""
    shutil.copytree(store.root, tmp_path / "store")
    dashboard = Dashboard(LocalStore(tmp_path / "store"), Settings(), load_tokens(tmp_path / "t.json"))
    dashboard.view.feed.look()
    yield Visitor(dashboard)
    dashboard.view.feed.stop()
    dashboard.view.sandbox.close()


def store_of(visitor: Visitor) -> LocalStore:
    found = visitor.dashboard.store
    assert isinstance(found, LocalStore)
    return found


def test_a_beat_counts_when_it_is_heard_again(own: Visitor) -> None:
    now = [100.0]
    signs, pulse = Signs(store_of(own), lambda: now[0]), Pulse(store_of(own), "p")
    pulse.beat({"step": 1})
    signs.look([])
    assert signs.of_pack("p") == "unheard"
    for _ in range(8):
        now[0] += 5
        pulse.beat({"step": 2})
        signs.look([])
        assert signs.of_pack("p") == "beats"
    assert signs.stalled() == set()
    now[0] += 31
    signs.look([])
    assert signs.of_pack("p") == "silent"
    assert signs.stalled() == {"p"}
    pulse.end()
    now[0] += 5
    signs.look([])
    assert signs.of_pack("p") == ""
    assert signs.stalled() == set()


def test_what_was_silent_before_we_watched_is_no_stall(own: Visitor) -> None:
    now = [0.0]
    signs = Signs(store_of(own), lambda: now[0])
    Pulse(store_of(own), "old").beat({"step": 1})
    signs.look([])
    now[0] = 40.0
    signs.look([])
    assert signs.of_pack("old") == "silent"
    assert signs.stalled() == set()


def test_a_stall_is_said_once_and_to_its_study(own: Visitor) -> None:
    shelf = own.dashboard.view.feed.shelf("tiny")
    pack = shelf.tables["attempts"]["pack_id"][0].as_py()
    stalls = Stalls()
    assert stalls.judge(shelf, {"of another study"}, 1.0) is None
    alert = stalls.judge(shelf, {pack, "of another study"}, 2.0)
    assert alert is not None
    assert (alert.kind, alert.study, alert.message) == ("stalled", "tiny", f"1 pack beat no more: {pack}")
    assert stalls.judge(shelf, {pack}, 3.0) is None
    assert stalls.judge(shelf, set(), 4.0) is None
    assert stalls.judge(shelf, {pack}, 5.0) is not None, "again"


def test_who_drives_is_told_by_the_lease(own: Visitor) -> None:
    now = [0.0]
    signs = Signs(store_of(own), lambda: now[0])
    assert signs.of_driver("tiny")["state"] == "none", "not looked yet"
    lease = Candidate(store_of(own), "tiny", lambda: now[0], this_process()).attempt()
    assert lease is not None
    for state in ("unheard", "beats", "beats"):
        lease.beat()
        signs.look(["tiny"])
        assert signs.of_driver("tiny")["state"] == state
        now[0] += 5
    assert signs.of_driver("tiny")["pid"] == os.getpid()
    now[0] += 20
    signs.look(["tiny"])
    assert signs.of_driver("tiny")["state"] == "silent"
    lease.release()
    now[0] += 5
    signs.look(["tiny"])
    assert signs.of_driver("tiny")["state"] == "left"


def test_with_no_cluster_alive_the_page_says_so_and_shows_what_was(own: Visitor) -> None:
    page = own.get("/cluster.json").json
    assert page["beating"] == page["running"] == page["lost"] == 0
    assert page["of"] == len(page["packs"]) == 4
    assert {pack["state"] for pack in page["packs"]} == {"ended"}
    assert sum(row["lost"] for row in page["faults"]) == 0
    assert "no cluster is alive" in own.get("/cluster").text
    asked = own.get(page["question"]["href"].replace("/sql?", "/sql.json?")).json["answer"]
    assert asked["rows"] == page["attempts"] == 6


def test_what_became_of_a_pack(own: Visitor) -> None:
    store, feed = store_of(own), own.dashboard.view.feed
    run = own.get("/rows.json").json["data"][0][0]
    kinds = ("lost", "given up", "silent", "running", "cut off")
    for attempt, pack in enumerate(kinds, start=1):
        claim(store, run, pack, (FRESH, ""), {}, after=attempt)
        put_record(store, PackKeys(pack).claim, {"host": f"node-{attempt}", "environment": {"device": "cpu"}})
    lost = RunOutcome(run_id=run, attempt=2, status=Status.RUNNING, step=0, reason="the node is gone")
    put_outcome(store, PackOutcome(pack_id="lost", runs=(lost,)))
    put_record(store, PackKeys("given up").given_up, {})
    now = [0.0]
    feed.signs = Signs(store, lambda: now[0])
    pulse = Pulse(store, "running")
    for pack in ("silent", "running"):
        Pulse(store, pack).beat({"step": 1})
    pulse.number = 1
    feed.signs.look([])
    now[0] = 40.0
    pulse.beat({"step": 2})
    feed.signs.look([])
    feed.look()
    page = own.get("/cluster.json").json
    states = {pack["pack_id"]: pack["state"] for pack in page["packs"]}
    # The newest attempt is of the pack that was cut off: what runs beside it trains for nothing.
    expected = {"lost": "lost", "given up": "lost", "silent": "silent", "running": "superseded", "cut off": "cut off"}
    assert {pack: states[pack] for pack in kinds} == expected
    assert page["lost"] == sum(row["lost"] for row in page["faults"]) == 4
    assert page["nodes"][:5] == [f"node-{n}" for n in range(1, 6)]
    assert page["beating"] == 1
    assert "alive" in own.get("/cluster").text
    reasons = {pack["pack_id"]: pack["reason"] for pack in page["packs"]}
    assert reasons["lost"] == "the node is gone"


def test_a_failed_verification_is_told_and_a_clean_one_is_a_note(own: Visitor) -> None:
    store, feed = store_of(own), own.dashboard.view.feed
    run = own.get("/rows.json").json["data"][0][0]
    assert own.get(f"/run/{run}.json").json["verdict"] is None
    heard = []
    feed.listen(lambda news: heard.extend(alerts_of(news.before, news.shelf)))
    assert put_verdict(store, Verdict("tiny", 30, 12, 6, [Span(run, 0, 12)])) == 1
    feed.look()
    assert own.get(f"/run/{run}.json").json["verdict"]["spans"] == [f"{run}@0-12"]
    assert heard == []
    faults = [Finding("corrupt", run, 12, "packs/x", "its hash differs")] * 150
    assert put_verdict(store, Verdict("tiny", 30, 12, 6, findings=faults)) == 2
    feed.look()
    feed.look()
    assert [(a.kind, a.message) for a in heard] == [
        ("verification", "`seedbed verify` found 150: corrupt packs/x: its hash differs")
    ]
    assert own.get("/home.json").json["alerts"][0]["kind"] == "verification"
    found = newest_verdict(store, "tiny")
    assert found is not None
    assert (found.number, found.findings, len(found.first)) == (2, 150, 100)
    store.put(verdict_key("tiny", 3), b"{}")
    assert newest_verdict(store, "tiny") is None, "what cannot be read is no verdict"


def test_a_checkpoint_is_compared_with_its_hash_as_it_is_shown(own: Visitor) -> None:
    store = store_of(own)
    run = own.get("/rows.json").json["data"][0][0]
    before = own.get(f"/run/{run}.json").json["checkpoints"]
    assert {row["compared"] for row in before} == {"equal"}
    assert "verified: equal to its hash" in own.get(f"/run/{run}").text
    path = store.local(before[-1]["key"])
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    after = own.get(f"/run/{run}.json").json["checkpoints"]
    assert [row["compared"] for row in after] == ["equal"] * (len(before) - 1) + ["differs"]
    assert after[-1]["finding"]
