"""Records under one name that are numbered: the newest counts, and each new one takes the next number that is free.

Nothing is overwritten, and of two that are put at the same time neither is lost.
"""

import re
from collections.abc import Callable
from typing import Any

from jobs.errors import AlreadyExists
from jobs.store import Store, put_record

Key = Callable[[int], str]  # number → key, which holds it in at least four digits: `key(0)` has 0000 in their place


def newest(store: Store, key: Key) -> int:
    """Return the number of the newest record; 0 where there is none."""
    before, _, after = key(0).rpartition("0000")
    pattern = re.compile(rf"{re.escape(before)}(\d{{4,}}){re.escape(after)}")
    found = (pattern.fullmatch(each) for each in store.keys(before))
    return max((int(match[1]) for match in found if match), default=0)


def put_next(store: Store, key: Key, body: Callable[[int], dict[str, Any]], after: int) -> int:
    """Put a record under the first free number after `after`, and return that number; `body` makes it for a number."""
    number = after + 1
    while True:
        try:
            put_record(store, key(number), body(number))
        except AlreadyExists:
            number += 1
        else:
            return number
