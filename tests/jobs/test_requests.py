"""Requests to stop: numbered, put once each, honoured by the drive that they were meant for."""

from pathlib import Path

from jobs.errors import StoreUnreachable
from jobs.pack import get_request
from jobs.requests import LOOK_S, StopWatch, Wanted, request_stop, stop_key, stops
from jobs.store import LocalStore, open_store
from orchestrator.declared import studies
from orchestrator.store_state import give_up
from tests.contract.test_clusters import request_pack, study


def test_a_newer_request_is_heard_and_an_older_one_is_not(tmp_path: Path) -> None:
    store = open_store(tmp_path / "s", create=True)
    now = [0.0]
    assert request_stop(store, "a") == 1
    watch = StopWatch(store, "a", stops(store, "a"), lambda: now[0])
    assert not watch()
    assert request_stop(store, "a.stop") == 1, "a name that ends like a request is another study"
    assert request_stop(store, "a") == 2
    assert not watch(), "it does not ask the store all the time"
    now[0] += LOOK_S
    assert watch()
    store.delete(stop_key("a", 2))
    assert watch(), "what was asked stays asked"
    assert studies(store) == []
    assert stops(store, "a.stop") == 1


def test_a_store_that_does_not_answer_is_no_request(tmp_path: Path) -> None:
    class Deaf(LocalStore):
        def exists(self, key: str) -> bool:
            raise StoreUnreachable(key, "cannot be reached")

    assert not StopWatch(Deaf(tmp_path), "a", 0, lambda: 0.0)()


def test_a_pack_is_unwanted_when_it_was_given_up_or_its_study_stopped_since_it_began(tmp_path: Path) -> None:
    store = open_store(tmp_path / "s", create=True)
    request_stop(store, "tiny")
    request = get_request(store, request_pack(store, study()))
    assert request.study == ""
    of_study = request.model_copy(update={"study": "tiny"})
    wanted = [Wanted(store, request), Wanted(store, of_study)]
    assert [[it(), it()] for it in wanted] == [[True, True], [True, True]], "an older stop was meant for others"
    request_stop(store, "tiny")
    assert wanted[0]()
    assert wanted[0](), "it belongs to no study"
    assert wanted[1](), "a head, where there is one, comes first"
    assert not wanted[1]()
    give_up(store, request.pack_id)
    assert wanted[0]()
    assert not wanted[0]()
