"""A store in memory that forgets replies, and a client of it that fails now and then."""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from jobs.errors import AlreadyExists, NotFound, StoreError


class MemoryStore:
    """Objects in a dict and their keys in order; `on_put` hears of everything that was put."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.sorted: list[str] = []
        self.on_put: Callable[[str], None] = lambda key: None

    @property
    def url(self) -> str:
        return "sim"

    def put(self, key: str, data: bytes) -> None:
        if key in self.objects:
            raise AlreadyExists(key)
        self.objects[key] = data
        insort(self.sorted, key)
        self.on_put(key)

    def put_file(self, key: str, path: Path) -> None:
        raise StoreError(key, "the simulation stages no files")

    def get(self, key: str) -> bytes:
        try:
            return self.objects[key]
        except KeyError:
            raise NotFound(key) from None

    def exists(self, key: str) -> bool:
        return key in self.objects

    def keys(self, prefix: str) -> list[str]:
        start = bisect_left(self.sorted, prefix)
        found = []
        for index in range(start, len(self.sorted)):
            if not self.sorted[index].startswith(prefix):
                break
            found.append(self.sorted[index])
        return found

    def delete(self, key: str) -> None:
        if self.objects.pop(key, None) is not None:
            del self.sorted[bisect_left(self.sorted, key)]

    def local(self, key: str) -> Path:
        raise NotFound(key)

    @contextmanager
    def scratch(self, suffix: str) -> Iterator[Path]:
        raise StoreError(suffix, "the simulation stages no files")
        yield Path()

    @contextmanager
    def log(self, key: str) -> Iterator[TextIO]:
        raise StoreError(key, "the simulation keeps no logs")
        yield


class Client(MemoryStore):
    """One process's view of the store. `fails` says before and after each call whether it is answered with an error."""

    def __init__(self, store: MemoryStore, fails: Callable[[], bool]) -> None:
        super().__init__()
        self.store, self.fails = store, fails

    def put(self, key: str, data: bytes) -> None:
        self._ask(key)
        self.store.put(key, data)
        self._ask(key)  # it is there, and the caller does not know

    def get(self, key: str) -> bytes:
        self._ask(key)
        return self.store.get(key)

    def exists(self, key: str) -> bool:
        self._ask(key)
        return self.store.exists(key)

    def keys(self, prefix: str) -> list[str]:
        self._ask(prefix)
        return self.store.keys(prefix)

    def delete(self, key: str) -> None:
        self._ask(key)
        self.store.delete(key)

    def _ask(self, key: str) -> None:
        if self.fails():
            raise StoreError(key, "no answer")
