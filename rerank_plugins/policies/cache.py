"""Scores that were paid for once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from ..core.fork import Lock
from ..core.journal import note
from ..core.scorer import Scorer, Wrapper
from ..core.types import Attempt, RerankRequest, Scores, Span, Usage

__all__ = ["Cache", "Store"]

_NOTHING_SENT = Usage(requests=0, input_tokens=0, search_units=0.0, cost_usd=0.0)

_Entry = tuple[float | None, bool, tuple[Span, ...]]
"""Raw score, whether the document was cut, its spans."""


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

    def __init__(self, inner: Scorer, store: Store, identity: str) -> None:
        """Keep what `inner` answers in `store`."""
        super().__init__(inner)
        self.store = store
        self.identity = identity
        self._lock = Lock()
        self._hits = self._misses = 0

    async def ascore(self, request: RerankRequest) -> Scores:
        """Return what is known and ask for the rest."""
        names = _names(self.identity, request)
        found = await (self._whole(names) if self.capabilities.listwise else self._each(names))
        missing = [position for position, entry in enumerate(found) if entry is None]
        hits = len(found) - len(missing)
        with self._lock:
            self._hits += hits
            self._misses += len(missing)
        if hits:
            note(Attempt(self.label, "cached", 0.0, f"{hits} of {len(found)} documents"))
        if not missing:
            return self._scores([entry for entry in found if entry is not None], _NOTHING_SENT)
        scores = await self.inner.ascore(request.select(missing) if hits else request)
        fresh = _entries(scores)
        # A policy or a backend of somebody else's may let another answer.
        if not scores.degraded and scores.model == self.label and self._means_the_same(scores):
            self._keep([names[position] for position in missing], fresh)
        if not hits:
            return scores
        arrived = iter(fresh)
        merged = self._scores([next(arrived) if entry is None else entry for entry in found], scores.usage)
        return replace(merged, model=scores.model, degraded=scores.degraded, reason=scores.reason)

    def _means_the_same(self, scores: Scores) -> bool:
        mine, theirs = self.capabilities, scores.capabilities
        return (mine.scale, mine.offset, mine.divisor) == (theirs.scale, theirs.offset, theirs.divisor)

    def _scores(self, entries: Sequence[_Entry], usage: Usage) -> Scores:
        return Scores(
            values=tuple(value for value, _, _ in entries),
            model=self.label,
            capabilities=self.capabilities,
            usage=usage,
            truncated=tuple(cut for _, cut, _ in entries),
            spans=tuple(spans for _, _, spans in entries),
        )

    async def _each(self, names: Sequence[bytes]) -> list[_Entry | None]:
        return [None if text is None else _read(text) for text in await self.store.get(names)]

    async def _whole(self, names: Sequence[bytes]) -> list[_Entry | None]:
        (text,) = await self.store.get([_list_name(names)])
        return [None] * len(names) if text is None else [_read(each) for each in json.loads(text)]

    def _keep(self, names: Sequence[bytes], entries: Sequence[_Entry]) -> None:
        if self.capabilities.listwise:
            self.store.put({_list_name(names): json.dumps([_told(entry) for entry in entries])})
        else:
            self.store.put(dict(zip(names, map(_told, entries), strict=True)))

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
    asked = json.dumps([identity, request.instruction, request.query]).encode()
    question = hashlib.blake2b(asked, digest_size=32).digest()
    fields = request.fields or (None,) * len(request.documents)
    return [
        # A mapping is another input than the text that it looks like.
        hashlib.blake2b(
            text.encode("utf-8", "surrogatepass"),
            key=question,
            digest_size=16,
            person=b"text" if mapping is None else b"fields",
        ).digest()
        for text, mapping in zip(request.documents, fields, strict=True)
    ]


def _list_name(names: Sequence[bytes]) -> bytes:
    return hashlib.blake2b(b"".join(names), digest_size=16, person=b"list").digest()


def _entries(scores: Scores) -> list[_Entry]:
    count = len(scores.values)
    truncated, spans = scores.truncated or (False,) * count, scores.spans or ((),) * count
    return list(zip(scores.values, truncated, spans, strict=True))


def _told(entry: _Entry) -> str:
    value, cut, spans = entry
    return json.dumps([value, cut, [[span.start, span.end, span.score] for span in spans]])


def _read(text: str) -> _Entry:
    value, cut, spans = json.loads(text)
    return value, cut, tuple(Span(*each) for each in spans)
