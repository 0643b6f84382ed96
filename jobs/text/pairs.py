"""Minimal pairs: a good and a bad sentence a line, as in BLiMP (Warstadt et al. 2020).

    {"good": "The cats sleep.", "bad": "The cats sleeps.", "phenomenon": "agreement"}

BLiMP's own keys (`sentence_good`, `sentence_bad`, `UID`) are read, too.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from jobs.errors import Fault, TextRefused

_KEYS = {"good": "sentence_good", "bad": "sentence_bad", "phenomenon": "UID"}
_PHENOMENON = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SHOWN_FAULTS = 20


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sentences of which a model should find the first likelier; an empty phenomenon is none."""

    good: str
    bad: str
    phenomenon: str = ""


def read_pairs(text: str, file: str) -> tuple[Pair, ...]:
    """Return the pairs of a file; raises TextRefused with every line that is none."""
    faults, found = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            found.append(_pair(json.loads(line)))
        except json.JSONDecodeError as error:
            faults.append(Fault(file, number, "", f"is not JSON: {error}"))
        except ValueError as error:
            faults.append(Fault(file, number, "", str(error)))
    if not found and not faults:
        faults.append(Fault(file, 0, "", 'holds no pair: a line is {"good": "…", "bad": "…"}'))
    if faults:
        raise TextRefused(tuple(faults[:_SHOWN_FAULTS]))
    return tuple(found)


def _pair(line: Any) -> Pair:
    if not isinstance(line, dict):
        raise ValueError('is no pair: a line is {"good": "…", "bad": "…"}')
    given: dict[str, Any] = {ours: line.get(ours, line.get(theirs, "")) for ours, theirs in _KEYS.items()}
    pair = Pair(**given)
    if not all(isinstance(sentence, str) and sentence for sentence in (pair.good, pair.bad)):
        raise ValueError("good and bad are sentences, both of them")
    if pair.good == pair.bad:
        raise ValueError("good and bad are the same sentence")
    if pair.phenomenon and not (isinstance(pair.phenomenon, str) and _PHENOMENON.fullmatch(pair.phenomenon)):
        raise ValueError("a phenomenon is a name of letters, digits, - and _: it becomes part of a metric's")
    return pair
