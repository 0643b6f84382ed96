"""Classes of tokens: the built-in ones of bytes, or a JSON file, name → tokens.

{"digits": ["0", "1", "2"], "end": [256]}     text that is one token, or a token's id
"""

import json
import re
import string

import numpy as np
from numpy.typing import NDArray

from jobs.errors import Fault, TextRefused
from jobs.text.corpus import BYTES
from jobs.text.tokenizer import Tokenizer

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
Classes = dict[str, NDArray[np.int64]]  # name → ids, ascending


def byte_classes() -> Classes:
    """Return the classes of bytes: letter, digit, space and punctuation of ASCII, other bytes, and the end."""
    named = {
        "letter": string.ascii_letters,
        "digit": string.digits,
        "space": string.whitespace,
        "punctuation": string.punctuation,
    }
    found = {name: np.array(sorted(characters.encode()), np.int64) for name, characters in named.items()}
    rest = np.setdiff1d(np.arange(256), np.concatenate(list(found.values())))
    return found | {"other": rest, "end": np.array([256])}


def read_classes(text: str, file: str, tokenizer: Tokenizer) -> Classes:
    """Return the classes of a file; raises TextRefused for what is no class, all of it at once."""
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise TextRefused((Fault(file, error.lineno, "", f"is not JSON: {error.msg}"),)) from None
    if not isinstance(given, dict) or not given:
        raise TextRefused((Fault(file, 0, "", 'holds no class: {"digits": ["0", "1"]} is one'),))
    faults: list[Fault] = []
    found: Classes = {}
    for name, tokens in given.items():
        if not _NAME.fullmatch(name) or not isinstance(tokens, list) or not tokens:
            faults.append(Fault(file, 0, name, "a class is a name of letters, digits and _, and a list of tokens"))
            continue
        ids = [_id(token, tokenizer) for token in tokens]
        wrong = [token for token, known in zip(tokens, ids, strict=True) if known is None]
        if wrong:
            faults.append(Fault(file, 0, name, f"{wrong[0]!r} is not one token of this corpus"))
        found[name] = np.unique([known for known in ids if known is not None])
    if faults:
        raise TextRefused(tuple(faults))
    return found


def find_classes(named: str, text: str, tokenizer: Tokenizer) -> Classes:
    """Return the classes that a study names: `bytes`, or a file with this text; raises TextRefused."""
    if named != BYTES:
        return read_classes(text, named, tokenizer)
    if tokenizer.name != BYTES:
        told = "the classes `bytes` are for a corpus of bytes: give a JSON file for one of another tokenizer"
        raise TextRefused((Fault("task.probes.classes", 0, "", told),))
    return byte_classes()


def _id(token: object, tokenizer: Tokenizer) -> int | None:
    if isinstance(token, int) and not isinstance(token, bool):
        return token if 0 <= token < tokenizer.vocabulary else None
    if not isinstance(token, str) or not token:
        return None
    ids = tokenizer.ids([token])[0]
    return int(ids[0]) if len(ids) == 1 else None
