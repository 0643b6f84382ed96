"""The head: where and when runs train, and what they showed."""

from importlib.util import find_spec
from pathlib import Path

# A folder or file of the user's own with one of these names, found first on Python's path, would be taken for ours.
for _room in ("jobs", "workers"):
    _found = find_spec(_room)
    _origin = Path(_found.origin).resolve() if _found and _found.origin else Path()
    if _origin.parent != Path(__file__).resolve().parents[1] / _room:
        raise ImportError(f"{_origin} is called `{_room}` as a part of Seedbed is, and hides it: rename yours")
