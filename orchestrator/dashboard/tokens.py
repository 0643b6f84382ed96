"""Who may do what: two tokens in a file that only its owner reads, links that work once, and signed cookies.

A token opens one scope: `read`, or `control`, for what may change a study (`control.py`). A browser never keeps
a token: it exchanges a link that works once, or the token itself, for a cookie that the token has signed. So cookies
outlive a restart of the server, and a new token file ends all of them.
"""

import hmac
import json
import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from jobs.errors import QueryError

LINK_LIFE_S = 600
COOKIE_LIFE_S = 30 * 86_400
_BYTES = 32
_MOST_USED = 10_000


class Scope(StrEnum):
    """What a visitor may do."""

    READ = "read"
    CONTROL = "control"

    def covers(self, needed: "Scope") -> bool:
        """Return whether this scope is enough for what needs `needed`."""
        return self is Scope.CONTROL or needed is Scope.READ


def default_token_file() -> Path:
    """Return where this user's tokens are, unless another file is named."""
    config = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(config) / "seedbed" / "dashboard-tokens.json"


def load_tokens(path: Path) -> dict[Scope, str]:
    """Return the tokens of the file, made with mode 0600 where there is none; raises QueryError for an unsafe one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _write_private(path, {scope: secrets.token_urlsafe(_BYTES) for scope in Scope})
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_IMODE(mode) & 0o077:
                raise QueryError(f"{path} can be read by others (mode {stat.S_IMODE(mode):04o}): chmod 600 it")
            read = json.load(file)
        tokens = {scope: str(read[scope]) for scope in Scope}
    except OSError as error:
        raise QueryError(f"{path} cannot be used for tokens: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise QueryError(f"{path} is no token file: remove it, and new tokens are made") from None
    if min(map(len, tokens.values())) < _BYTES or len(set(tokens.values())) < len(tokens):
        raise QueryError(f"{path}: a token has fewer than {_BYTES} characters, or both are the same: remove the file")
    return tokens


def _write_private(path: Path, tokens: dict[Scope, str]) -> None:
    # Written aside with its mode from the start, then linked: never readable by others, never half, first one wins.
    aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(tokens, file)
        try:
            os.link(aside, path)
        except FileExistsError:
            return
    finally:
        aside.unlink(missing_ok=True)


@dataclass(slots=True)
class Gate:
    """Tells visitors apart: what a token, a link or a cookie is worth now.

    now  seconds since 1970; links that were made before the gate are refused, so none works twice over a restart
    """

    tokens: dict[Scope, str]
    now: Callable[[], float]
    _opened: float = field(init=False)
    _used: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._opened = self.now() - 1

    def of_token(self, presented: str) -> Scope | None:
        """Return the scope of a token, in a time that does not depend on where it differs."""
        same = [s for s in Scope if hmac.compare_digest(presented.encode(), self.tokens[s].encode())]
        return same[0] if same else None

    def link_code(self, scope: Scope) -> str:
        """Return a code that opens `scope` once, within ten minutes."""
        return make_link_code(self.tokens, scope, self.now())

    def of_link(self, code: str) -> Scope | None:
        """Return the scope of a link's code and use it up; None for one that is wrong, old or used."""
        scope, made = self._checked("link", code)
        if scope is None or made < self._opened or self.now() - made > LINK_LIFE_S or code in self._used:
            return None
        self._used = {c: t for c, t in self._used.items() if self.now() - t <= LINK_LIFE_S}
        if len(self._used) >= _MOST_USED:
            return None
        self._used[code] = made
        return scope

    def cookie(self, scope: Scope) -> str:
        """Return the value of a cookie that stands for `scope`."""
        return _signed(self.tokens, "cookie", scope, self.now())

    def of_cookie(self, value: str) -> Scope | None:
        """Return the scope of a cookie, or None."""
        scope, made = self._checked("cookie", value)
        return scope if scope and self.now() - made <= COOKIE_LIFE_S else None

    def _checked(self, kind: str, value: str) -> tuple[Scope | None, float]:
        parts = value.split(".")
        if len(parts) != 4 or parts[0] not in set(Scope) or not parts[1].isdecimal() or len(value) > 300:
            return None, 0.0
        scope = Scope(parts[0])
        expected = _mac(self.tokens[scope], kind, ".".join(parts[:3]))
        return (scope, float(parts[1])) if hmac.compare_digest(parts[3].encode(), expected.encode()) else (None, 0.0)


def make_link_code(tokens: dict[Scope, str], scope: Scope, now: float) -> str:
    """Return a code that opens `scope` once at a server with these tokens, within ten minutes from `now`."""
    return _signed(tokens, "link", scope, now)


def _signed(tokens: dict[Scope, str], kind: str, scope: Scope, now: float) -> str:
    body = f"{scope}.{int(now)}.{secrets.token_urlsafe(16)}"
    return f"{body}.{_mac(tokens[scope], kind, body)}"


def _mac(token: str, kind: str, body: str) -> str:
    return hmac.new(token.encode(), f"seedbed {kind} {body}".encode(), "sha256").hexdigest()
