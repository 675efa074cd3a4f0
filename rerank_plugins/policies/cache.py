"""Cache of scores per document, so that the same text is scored once for a query."""

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

from pydantic import AfterValidator, ConfigDict, ValidationInfo

from ..core._runtime.fork_hooks import Lock
from ..core._runtime.text_work import MAX_INLINE_SIZE, approximate_size, check_cancelled, run_text_work, slices
from ..core.call import record_event
from ..core.errors import ConfigError, clause
from ..core.file_paths import expand_user
from ..core.redaction import one_line
from ..core.scorer import Scorer, Wrapper
from ..core.types import RerankRequest, Scores, Span, Usage, is_score
from ..options import Count, FilePath, Seconds, refused
from .memory_store import MemoryStore
from .policy_options import PolicyOptions
from .stack import Stack

__all__ = ["Cache", "CacheOptions", "Store"]

_log = logging.getLogger("rerank_plugins")

_NOTHING_SENT = Usage(requests=0, input_tokens=0, output_tokens=0, cached_tokens=0, search_units=0.0, cost_usd=0.0)

_Entry = tuple[float | None, bool | None, tuple[Span, ...], tuple[str, int] | None]
"""Raw score; whether the document was truncated (`None`: the backend did not say); its spans; and, if one reply covered
the whole request, an identifier of that reply and the document's position in it, which decides between equal scores."""
_ITEMS_PER_ENTRY = 16
"""Cost of reading or writing one JSON entry, in items of `run_text_work`."""


MAX_ENTRIES = 100_000
"""Number of scores (of a listwise backend: lists); about 40 MB in memory."""


def _only_on_disk(path: str | os.PathLike[str], info: ValidationInfo) -> str | os.PathLike[str]:
    if info.data.get("kind") == "memory":
        raise refused("belongs to kind 'disk': a memory cache has no file")
    return path


class CacheOptions(PolicyOptions):
    """The cache of scores: where it is, and how many scores it holds for how long."""

    kind: Literal["memory", "disk"] = "memory"
    """`memory` caches in this process. `disk` caches in a SQLite file that processes on one machine can share."""
    max_entries: Count = MAX_ENTRIES
    """Maximum number of scores in the cache; for a listwise backend, of lists. The memory cache drops the entries
    unused for longest, the disk cache the oldest ones."""
    path: Annotated[FilePath, AfterValidator(_only_on_disk)] | None = None
    """Path of the file of a `disk` cache. By default it is in the user's cache folder. In a configuration file a
    relative path is relative to that file's folder."""
    ttl_s: Seconds | None = None
    """Lifetime of an entry in seconds. By default entries do not expire."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"path": {"type": "string"}}, "required": ["path"]},
            "then": {"properties": {"kind": {"const": "disk"}}, "required": ["kind"]},
        }
    )

    def wrap(self, scorer: Scorer, stack: Stack) -> Scorer:
        """Return `scorer` inside a cache, or `scorer` itself if it answers instantly."""
        if stack.backend.instant:
            return scorer
        store: Store
        if self.kind == "disk":
            from .sqlite_store import DiskStore  # imported late: it imports sqlite3

            store = DiskStore(_file(self.path), self.max_entries, self.ttl_s)
        else:
            store = MemoryStore(self.max_entries, self.ttl_s)
        return Cache(scorer, store, stack.cache_identity)


def _file(path: str | os.PathLike[str] | None) -> Path:
    try:
        if path:
            return expand_user(path, "cache.path")
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rerank_plugins" / "scores.sqlite3"
    except RuntimeError as error:  # a container's user without a home folder
        raise ConfigError(
            f"cache.path: this user's home folder is not known ({clause(error)}): name a file."
        ) from error


class _Record(NamedTuple):
    """One value of the store: the entry of a document, or the entries of a listwise backend's whole list."""

    model: str
    """Label of the backend that scored. The label of a local model contains its dtype only after loading."""
    reason: str | None
    entries: tuple[_Entry, ...]


class Store(Protocol):
    """Key-value store of a cache, from bytes to text. It never raises: an entry that cannot be read is missing."""

    async def get(self, names: Sequence[bytes]) -> Sequence[str | None]:
        """Return the entry of each name, `None` for a missing one."""

    def put(self, entries: Mapping[bytes, str]) -> None:
        """Store entries. Slow work is done later, on another thread."""

    def state(self) -> Mapping[str, Any]:
        """Return statistics as plain data."""

    async def aclose(self) -> None:
        """Release files and memory."""


class Cache(Wrapper):
    """Score only documents that are not in the cache; with a listwise backend, only lists that are not in the cache.

    With a joint backend it is only parts of calls that are not in the cache.

    The name of an entry is a hash of everything that its score depends on: `identity` (backend, model, revision,
    runtime, dtype, options), instruction, query and the document's text as it is sent. Texts and keys are not stored.
    """

    def __init__(self, inner: Scorer, store: Store, identity: str | Callable[[], Awaitable[str]]) -> None:
        """Cache the scores of `inner` in `store`.

        Args:
            inner: The scorer that is called on a miss.
            store: The key-value store of the entries.
            identity: What the scores depend on beside the texts. A function if that is only known when the model's
                files are on this machine.
        """
        super().__init__(inner)
        # Whether an entry is the whole request of the inner scorer: of a joint backend, one part of a call.
        self._whole = self.capabilities.listwise or self.capabilities.joint
        self.store = store
        self._identity = identity
        # Guards the two counters.
        self._lock = Lock()
        self._hits = self._misses = 0

    async def aidentity(self) -> str:
        """Return the identity of the scores. Downloads the model's files if they are not on this machine."""
        return self._identity if isinstance(self._identity, str) else await self._identity()

    async def ascore(self, request: RerankRequest) -> Scores:
        """Return cached scores, and call the inner scorer for the rest.

        The model's files are found before the lookup, without loading the model: they determine the commit whose scores
        are looked up.
        """
        identity = await self.aidentity()
        size = approximate_size([request.query, request.documents], MAX_INLINE_SIZE)
        names = await run_text_work(size, _names, identity, request)
        lookup = self._look_up_list(names) if self._whole else self._look_up_documents(names)
        model, reason, entries = await lookup
        if not all(
            entry is None or _has_valid_spans(entry, text)
            for entry, text in zip(entries, request.documents, strict=True)
        ):
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
            cached = self._scores([entry for entry in entries if entry is not None], _NOTHING_SENT)
            return replace(cached, model=model, reason=reason, reply_order=_reply_order(entries))
        scores = await self.inner.ascore(request.select(missing) if hits else request)
        fresh = _entries(scores)
        # A third party's policy or backend may return scores of another model.
        own = not scores.degraded and scores.model == self.label and self._has_same_scale(scores)
        storable = list(zip((names[position] for position in missing), fresh, strict=True))
        if scores.reasons is not None:
            # A document without a score has a reason that depends on the other documents of its call: a cascade behind
            # the server skipped it. Of a model that scores each document by itself, and declined one, the scores of the
            # others are its scores anyway.
            alone = self.capabilities.refuses and not self._whole
            storable = [(name, entry) for name, entry in storable if entry[0] is not None] if alone else []
        # The files may have been replaced between the lookup and the loading of the model.
        if own and storable and await self.aidentity() == identity:
            entries_to_store = tuple(entry for _, entry in storable)
            await self._store([name for name, _ in storable], _Record(scores.model, scores.reason, entries_to_store))
        if not hits:
            return scores
        new = iter(fresh)
        merged = self._scores([next(new) if entry is None else entry for entry in entries], scores.usage)
        reasons = None
        if scores.reasons is not None:
            new_reasons = iter(scores.reasons)
            reasons = tuple(next(new_reasons) if entry is None else None for entry in entries)
        return replace(merged, model=scores.model, degraded=scores.degraded, reason=scores.reason, reasons=reasons)

    def _has_same_scale(self, scores: Scores) -> bool:
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

    async def _look_up_documents(self, names: Sequence[bytes]) -> tuple[str, None, list[_Entry | None]]:
        texts = await self.store.get(names)
        records = await run_text_work(len(texts) * _ITEMS_PER_ENTRY, _parse_documents, texts)
        model = next((each.model for each in records if each is not None), self.label)
        return model, None, [None if each is None else each.entries[0] for each in records]

    async def _look_up_list(self, names: Sequence[bytes]) -> tuple[str, str | None, Sequence[_Entry | None]]:
        (text,) = await self.store.get([_list_name(names)])
        record = await run_text_work(len(names) * _ITEMS_PER_ENTRY, _parse_record, text, len(names))
        return record or (self.label, None, [None] * len(names))

    async def _store(self, names: Sequence[bytes], record: _Record) -> None:
        work = _list_as_json if self._whole else _documents_as_json
        self.store.put(await run_text_work(len(names) * _ITEMS_PER_ENTRY, work, names, record))

    def own_state(self) -> Mapping[str, Any]:
        """Return hits, misses and the hit rate in documents since the process started, and the store's statistics."""
        with self._lock:
            documents = self._hits + self._misses
            rate = self._hits / documents if documents else None
            counts = {"hits": self._hits, "misses": self._misses, "hit_rate": rate}
        return {"cache": {**counts, **self.store.state()}}

    async def aclose(self) -> None:
        """Close the store, and the inner scorer."""
        await self.store.aclose()
        await super().aclose()


def _names(identity: str, request: RerankRequest) -> list[bytes]:
    digest = hashlib.blake2b(digest_size=32)
    for text in (identity, request.instruction, request.query):
        # The length separates the texts, so that two different splits of one string have different hashes.
        digest.update(b"none" if text is None else f"{len(text)}:".encode())
        for part in slices(text or ""):
            digest.update(part.encode("utf-8", "surrogatepass"))
    query_digest = digest.digest()
    fields = request.fields or (None,) * len(request.documents)
    names = []
    for text, mapping in zip(request.documents, fields, strict=True):
        # A mapping may be scored differently from a text with the same characters.
        person = b"text" if mapping is None else b"fields"
        name = hashlib.blake2b(key=query_digest, digest_size=16, person=person)
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
    """Return the order of the documents in their reply if all entries come from one reply, else `None`."""
    places = [entry[3] for entry in entries if entry is not None and entry[3] is not None]
    if len(places) < len(entries) or len({reply for reply, _ in places}) != 1:
        return None
    return tuple(sorted(range(len(places)), key=lambda position: places[position][1]))


def _list_as_json(names: Sequence[bytes], record: _Record) -> dict[bytes, str]:
    return {_list_name(names): _as_json(record)}


def _documents_as_json(names: Sequence[bytes], record: _Record) -> dict[bytes, str]:
    return {
        name: _as_json(_Record(record.model, None, (entry,))) for name, entry in zip(names, record.entries, strict=True)
    }


def _as_json(record: _Record) -> str:
    check_cancelled()
    rows = [
        [value, cut, [[span.start, span.end, span.score] for span in spans], place]
        for value, cut, spans, place in record.entries
    ]
    return json.dumps([record.model, record.reason, rows])


def _parse_documents(texts: Sequence[str | None]) -> list[_Record | None]:
    return [_parse_record(text, 1) for text in texts]


def _parse_record(text: str | None, count: int) -> _Record | None:
    """Return the record of `count` documents, or `None` if the text is missing or damaged."""
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
    valid = all(
        (value is None or is_score(value))
        and (cut is None or isinstance(cut, bool))
        and all(_is_place(span.start) and _is_place(span.end) and is_score(span.score) for span in spans)
        and (place is None or _is_reply_place(place))
        for value, cut, spans, place in entries
    )
    valid = valid and isinstance(model, str) and (reason is None or isinstance(reason, str))
    return _Record(model, reason, entries) if valid and len(entries) == count else None


def _is_reply_place(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and _is_place(value[1])


def _is_place(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _has_valid_spans(entry: _Entry, document: str) -> bool:
    """Return whether an entry's spans lie inside the document."""
    return all(span.start <= span.end <= len(document) for span in entry[2])
