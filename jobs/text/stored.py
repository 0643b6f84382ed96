"""Where corpora lie, as the store knows it: told when a study is submitted, and again when one has moved.

Small files that a study names lie in the store themselves.
"""

from functools import partial

from jobs.errors import Corrupt
from jobs.layout import corpus_key, file_key
from jobs.numbered import newest, put_next
from jobs.store import Store, get_record, put_same
from jobs.text.corpus import Place


def tell_place(store: Store, place: Place) -> None:
    """Put into the store where a corpus lies, or a small file as it is."""
    if place.text:
        put_same(store, file_key(place.digest), place.text.encode())
    else:
        tell_address(store, place.digest, place.url)


def tell_address(store: Store, digest: str, url: str) -> None:
    """Put into the store where the corpus with this digest lies, if it does not say so already."""
    key = partial(corpus_key, digest)
    number = newest(store, key)
    if not number or get_record(store, key(number))["url"] != url:
        put_next(store, key, lambda _: {"url": url}, number)


def told_address(store: Store, digest: str) -> str:
    """Return where the corpus with this digest lies, or the local copy of the small file that has it.

    Raises Corrupt where the store was never told.
    """
    key = partial(corpus_key, digest)
    number = newest(store, key)
    if number:
        return str(get_record(store, key(number))["url"])
    if store.exists(file_key(digest)):
        return str(store.local(file_key(digest)))
    raise Corrupt(key(1), "is missing: the store does not say where this corpus lies")
