"""Scores that were paid for once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from pydantic import AfterValidator, ValidationInfo

from ..core.call import record_event
from ..core.errors import ConfigError, clause
from ..core.fork import Lock
from ..core.redaction import one_line
from ..core.scorer import Scorer, Wrapper
from ..core.text_work import INLINE, check_cancelled, run_text_work, size_of, slices
from ..core.types import RerankRequest, Scores, Span, Usage, is_score
from ..options import Count, FilePath, Seconds, refused
from .memory import MemoryStore
from .stack import PolicyOptions, Stack

__all__ = ["Cache", "CacheOptions", "Store"]

_log = logging.getLogger("rerank_plugins")

_NOTHING_SENT = Usage(requests=0, input_tokens=0, search_units=0.0, cost_usd=0.0)

_Entry = tuple[float | None, bool | None, tuple[Span, ...], tuple[str, int] | None]
"""Raw score, whether the document was cut (`None`: the backend did not say), its spans, and which reply it stood in at which
place, where one reply covered its whole request: that decides between equal scores."""
_ITEMS_PER_ENTRY = 16
"""An entry of JSON takes as long as about so many items of other work on text."""


MAX_ENTRIES = 100_000
"""Scores (of a listwise backend: lists); about 40 MB in memory."""


def _of_disk(path: str | os.PathLike[str], info: ValidationInfo) -> str | os.PathLike[str]:
    if info.data.get("kind") == "memory":
        raise refused("belongs to kind 'disk': a memory cache has no file")
    return path


class CacheOptions(PolicyOptions):
    """Where scores that were paid for once are kept."""

    kind: Literal["memory", "disk"] = "memory"
    """`memory`: of this process. `disk`: in a SQLite file that processes of one machine share."""
    max_entries: Count = MAX_ENTRIES
    """Scores that are kept (of a listwise backend: lists); the oldest are dropped first."""
    path: Annotated[FilePath, AfterValidator(_of_disk)] | None = None
    """The file of a `disk` cache; without it, one in the user's cache folder. In a configuration file a relative path
    counts from that file's folder."""
    ttl_s: Seconds | None = None
    """Seconds that a score is kept; `None` is for ever."""

    def wrap(self, scorer: Scorer, stack: Stack) -> Scorer:
        """Return `scorer` with a cache of its scores."""
        if stack.backend.instant:
            return scorer
        store: Store
        if self.kind == "disk":
            from .disk import DiskStore  # SQLite

            store = DiskStore(_file(self.path), self.max_entries, self.ttl_s)
        else:
            store = MemoryStore(self.max_entries, self.ttl_s)
        return Cache(scorer, store, stack.cache_identity)


def _file(path: str | os.PathLike[str] | None) -> Path:
    try:
        if path:
            return Path(path).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rerank_plugins" / "scores.sqlite3"
    except RuntimeError as error:  # a container's user without a home
        raise ConfigError(
            f"cache.path: this user's home folder is not known ({clause(error)}): name a file."
        ) from error


class _Known(NamedTuple):
    """What was answered: about one document, or of a listwise backend about a whole list."""

    model: str
    """The label of whoever answered: one that loads its model knows its dtype only then."""
    reason: str | None
    entries: tuple[_Entry, ...]


class Store(Protocol):
    """Where entries are kept: bytes to text. It never fails a call: what it cannot read or keep is missing."""

    async def get(self, names: Sequence[bytes]) -> Sequence[str | None]:
        """Return the entry of each name, `None` where there is none."""

    def put(self, entries: Mapping[bytes, str]) -> None:
        """Keep entries; what takes time is done after the call has its answer."""

    def state(self) -> Mapping[str, Any]:
        """Return what is worth knowing about it; plain data."""

    async def aclose(self) -> None:
        """Give back what is held open."""


class Cache(Wrapper):
    """Ask only for the documents whose score is not known: of a listwise backend, only for lists not seen before.

    An entry is named by a hash of everything its score depends on: `identity` (backend, model, revision, runtime, dtype,
    options), instruction, query and the document's text as it is sent. Texts and keys are not kept.
    """

    def __init__(self, inner: Scorer, store: Store, identity: str | Callable[[], Awaitable[str]]) -> None:
        """Keep what `inner` answers in `store`.

        Args:
            inner: Who is asked for what is not known.
            store: Where answers are kept.
            identity: Whose answers they are; a function where that is known only once a model's files are there.
        """
        super().__init__(inner)
        self.store = store
        self._identity = identity
        self._lock = Lock()
        self._hits = self._misses = 0

    async def aidentity(self) -> str:
        """Return whose answers are kept, after fetching the model's files where they are not on this machine."""
        return self._identity if isinstance(self._identity, str) else await self._identity()

    async def ascore(self, request: RerankRequest) -> Scores:
        """Return what is known and ask for the rest.

        The model's files are found first, without loading them: only they tell which commit's scores are looked for.
        """
        identity = await self.aidentity()
        size = size_of([request.query, request.documents], INLINE)
        names = await run_text_work(size, _names, identity, request)
        model, reason, entries = await (self._whole(names) if self.capabilities.listwise else self._each(names))
        if not all(entry is None or _fits(entry, text) for entry, text in zip(entries, request.documents, strict=True)):
            model, reason, entries = self.label, None, [None] * len(names)  # a damaged entry
        missing = [position for position, entry in enumerate(entries) if entry is None]
        hits = len(entries) - len(missing)
        with self._lock:
            self._hits += hits
            self._misses += len(missing)
        _log.debug("%s: %d of %d documents are in the cache", one_line(self.label), hits, len(entries))
        if hits:
            record_event(self, "cached", f"{hits} of {len(entries)} documents")
        if not missing:
            known = self._scores([entry for entry in entries if entry is not None], _NOTHING_SENT)
            return replace(known, model=model, reason=reason, reply_order=_reply_order(entries))
        scores = await self.inner.ascore(request.select(missing) if hits else request)
        fresh = _entries(scores)
        # A policy or a backend of somebody else's may let another answer.
        ours = not scores.degraded and scores.model == self.label and self._means_the_same(scores)
        # The files may have been replaced between the look at them and the loading of the model.
        if ours and await self.aidentity() == identity:
            await self._keep(
                [names[position] for position in missing], _Known(scores.model, scores.reason, tuple(fresh))
            )
        if not hits:
            return scores
        arrived = iter(fresh)
        merged = self._scores([next(arrived) if entry is None else entry for entry in entries], scores.usage)
        return replace(merged, model=scores.model, degraded=scores.degraded, reason=scores.reason)

    def _means_the_same(self, scores: Scores) -> bool:
        mine, theirs = self.capabilities, scores.capabilities
        return (mine.scale, mine.offset, mine.divisor) == (theirs.scale, theirs.offset, theirs.divisor)

    def _scores(self, entries: Sequence[_Entry], usage: Usage) -> Scores:
        cuts = [cut for _, cut, _, _ in entries]
        return Scores(
            values=tuple(value for value, _, _, _ in entries),
            model=self.label,
            capabilities=self.capabilities,
            usage=usage,
            truncated=None if all(cut is None for cut in cuts) else tuple(map(bool, cuts)),
            spans=tuple(spans for _, _, spans, _ in entries),
        )

    async def _each(self, names: Sequence[bytes]) -> tuple[str, None, list[_Entry | None]]:
        texts = await self.store.get(names)
        known = await run_text_work(len(texts) * _ITEMS_PER_ENTRY, _read_each, texts)
        model = next((each.model for each in known if each is not None), self.label)
        return model, None, [None if each is None else each.entries[0] for each in known]

    async def _whole(self, names: Sequence[bytes]) -> tuple[str, str | None, Sequence[_Entry | None]]:
        (text,) = await self.store.get([_list_name(names)])
        known = await run_text_work(len(names) * _ITEMS_PER_ENTRY, _read, text, len(names))
        return known or (self.label, None, [None] * len(names))

    async def _keep(self, names: Sequence[bytes], known: _Known) -> None:
        work = _told_whole if self.capabilities.listwise else _told_each
        self.store.put(await run_text_work(len(names) * _ITEMS_PER_ENTRY, work, names, known))

    def own_state(self) -> Mapping[str, Any]:
        """Tell how much it spares; documents, since the process began."""
        with self._lock:
            asked = self._hits + self._misses
            rate = self._hits / asked if asked else None
            counts = {"hits": self._hits, "misses": self._misses, "hit_rate": rate}
        return {"cache": {**counts, **self.store.state()}}

    async def aclose(self) -> None:
        """Close the store, and the inner scorer."""
        await self.store.aclose()
        await super().aclose()


def _names(identity: str, request: RerankRequest) -> list[bytes]:
    hashed = hashlib.blake2b(digest_size=32)
    for told in (identity, request.instruction, request.query):
        hashed.update(b"none" if told is None else f"{len(told)}:".encode())  # so that no text runs into the next
        for part in slices(told or ""):
            hashed.update(part.encode("utf-8", "surrogatepass"))
    question = hashed.digest()
    fields = request.fields or (None,) * len(request.documents)
    names = []
    for text, mapping in zip(request.documents, fields, strict=True):
        # A mapping is another input than the text that it looks like.
        person = b"text" if mapping is None else b"fields"
        name = hashlib.blake2b(key=question, digest_size=16, person=person)
        for part in slices(text):
            name.update(part.encode("utf-8", "surrogatepass"))
        names.append(name.digest())
    return names


def _list_name(names: Sequence[bytes]) -> bytes:
    return hashlib.blake2b(b"".join(names), digest_size=16, person=b"list").digest()


def _entries(scores: Scores) -> list[_Entry]:
    count = len(scores.values)
    truncated, spans = scores.truncated or (None,) * count, scores.spans or ((),) * count
    places: list[tuple[str, int] | None] = [None] * count
    if scores.reply_order is not None:
        reply = secrets.token_hex(8)
        for place, position in enumerate(scores.reply_order):
            places[position] = reply, place
    return list(zip(scores.values, truncated, spans, places, strict=True))


def _reply_order(entries: Sequence[_Entry | None]) -> tuple[int, ...] | None:
    """Return the order of the one reply that all entries stood in, or `None`."""
    places = [entry[3] for entry in entries if entry is not None and entry[3] is not None]
    if len(places) < len(entries) or len({reply for reply, _ in places}) != 1:
        return None
    return tuple(sorted(range(len(places)), key=lambda position: places[position][1]))


def _told_whole(names: Sequence[bytes], known: _Known) -> dict[bytes, str]:
    return {_list_name(names): _told(known)}


def _told_each(names: Sequence[bytes], known: _Known) -> dict[bytes, str]:
    return {name: _told(_Known(known.model, None, (entry,))) for name, entry in zip(names, known.entries, strict=True)}


def _told(known: _Known) -> str:
    check_cancelled()
    rows = [
        [value, cut, [[span.start, span.end, span.score] for span in spans], place]
        for value, cut, spans, place in known.entries
    ]
    return json.dumps([known.model, known.reason, rows])


def _read_each(texts: Sequence[str | None]) -> list[_Known | None]:
    return [_read(text, 1) for text in texts]


def _read(text: str | None, count: int) -> _Known | None:
    """Return what is known of so many documents; what a damaged file holds in its place is not known."""
    check_cancelled()
    if text is None:
        return None
    try:
        model, reason, rows = json.loads(text)
        entries = tuple(
            (value, cut, tuple(Span(*span) for span in spans), None if place is None else tuple(place))
            for value, cut, spans, place in rows
        )
    except (ValueError, TypeError, RecursionError):
        return None
    whole = all(
        (value is None or is_score(value))
        and (cut is None or isinstance(cut, bool))
        and all(_is_place(span.start) and _is_place(span.end) and is_score(span.score) for span in spans)
        and (place is None or _is_reply_place(place))
        for value, cut, spans, place in entries
    )
    named = isinstance(model, str) and (reason is None or isinstance(reason, str))
    return _Known(model, reason, entries) if whole and named and len(entries) == count else None


def _is_reply_place(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and _is_place(value[1])


def _is_place(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _fits(entry: _Entry, document: str) -> bool:
    """Tell whether an entry's spans lie in the document."""
    return all(span.start <= span.end <= len(document) for span in entry[2])
