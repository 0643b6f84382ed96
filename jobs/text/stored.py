"""Where corpora lie, as the store knows it: told when a study is submitted, and again when one has moved."""

from functools import partial

from jobs.errors import Corrupt
from jobs.layout import corpus_key
from jobs.numbered import newest, put_next
from jobs.store import Store, get_record


def tell_address(store: Store, digest: str, url: str) -> None:
    """Put into the store where the corpus with this digest lies, if it does not say so already."""
    key = partial(corpus_key, digest)
    number = newest(store, key)
    if not number or get_record(store, key(number))["url"] != url:
        put_next(store, key, lambda _: {"url": url}, number)


def told_address(store: Store, digest: str) -> str:
    """Return where the corpus with this digest lies; raises Corrupt where the store was never told."""
    key = partial(corpus_key, digest)
    number = newest(store, key)
    if not number:
        raise Corrupt(key(1), "is missing: the store does not say where this corpus lies")
    return str(get_record(store, key(number))["url"])
