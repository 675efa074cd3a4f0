"""Scores that were paid for once."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from ..core.fork import Lock
from ..core.journal import note
from ..core.scorer import Scorer, Wrapper
from ..core.text_work import characters, run_text_work, slices
from ..core.types import Attempt, RerankRequest, Scores, Span, Usage

__all__ = ["Cache", "Store"]

_NOTHING_SENT = Usage(requests=0, input_tokens=0, search_units=0.0, cost_usd=0.0)

_Entry = tuple[float | None, bool | None, tuple[Span, ...]]
"""Raw score, whether the document was cut (`None`: the backend did not say), its spans."""


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

    def __init__(self, inner: Scorer, store: Store, identity: str) -> None:
        """Keep what `inner` answers in `store`."""
        super().__init__(inner)
        self.store = store
        self.identity = identity
        self._lock = Lock()
        self._hits = self._misses = 0

    async def ascore(self, request: RerankRequest) -> Scores:
        """Return what is known and ask for the rest."""
        names = await run_text_work(characters(request), _names, self.identity, request)
        model, reason, found = await (self._whole(names) if self.capabilities.listwise else self._each(names))
        missing = [position for position, entry in enumerate(found) if entry is None]
        hits = len(found) - len(missing)
        with self._lock:
            self._hits += hits
            self._misses += len(missing)
        if hits:
            note(Attempt(self.label, "cached", 0.0, f"{hits} of {len(found)} documents"))
        if not missing:
            known = self._scores([entry for entry in found if entry is not None], _NOTHING_SENT)
            return replace(known, model=model, reason=reason)
        scores = await self.inner.ascore(request.select(missing) if hits else request)
        fresh = _entries(scores)
        # A policy or a backend of somebody else's may let another answer.
        if not scores.degraded and scores.model == self.label and self._means_the_same(scores):
            self._keep([names[position] for position in missing], _Known(scores.model, scores.reason, tuple(fresh)))
        if not hits:
            return scores
        arrived = iter(fresh)
        merged = self._scores([next(arrived) if entry is None else entry for entry in found], scores.usage)
        return replace(merged, model=scores.model, degraded=scores.degraded, reason=scores.reason)

    def _means_the_same(self, scores: Scores) -> bool:
        mine, theirs = self.capabilities, scores.capabilities
        return (mine.scale, mine.offset, mine.divisor) == (theirs.scale, theirs.offset, theirs.divisor)

    def _scores(self, entries: Sequence[_Entry], usage: Usage) -> Scores:
        cuts = [cut for _, cut, _ in entries]
        return Scores(
            values=tuple(value for value, _, _ in entries),
            model=self.label,
            capabilities=self.capabilities,
            usage=usage,
            truncated=None if all(cut is None for cut in cuts) else tuple(map(bool, cuts)),
            spans=tuple(spans for _, _, spans in entries),
        )

    async def _each(self, names: Sequence[bytes]) -> tuple[str, None, list[_Entry | None]]:
        known = [_read(text, 1) for text in await self.store.get(names)]
        model = next((each.model for each in known if each is not None), self.label)
        return model, None, [None if each is None else each.entries[0] for each in known]

    async def _whole(self, names: Sequence[bytes]) -> tuple[str, str | None, Sequence[_Entry | None]]:
        (text,) = await self.store.get([_list_name(names)])
        return _read(text, len(names)) or (self.label, None, [None] * len(names))

    def _keep(self, names: Sequence[bytes], known: _Known) -> None:
        if self.capabilities.listwise:
            self.store.put({_list_name(names): _told(known)})
        else:
            each = (_told(_Known(known.model, None, (entry,))) for entry in known.entries)
            self.store.put(dict(zip(names, each, strict=True)))

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
    names = []
    for text, mapping in zip(request.documents, fields, strict=True):
        # A mapping is another input than the text that it looks like.
        person = b"text" if mapping is None else b"fields"
        name = hashlib.blake2b(key=question, digest_size=16, person=person)
        for each in slices(text):
            name.update(each.encode("utf-8", "surrogatepass"))
        names.append(name.digest())
    return names


def _list_name(names: Sequence[bytes]) -> bytes:
    return hashlib.blake2b(b"".join(names), digest_size=16, person=b"list").digest()


def _entries(scores: Scores) -> list[_Entry]:
    count = len(scores.values)
    truncated, spans = scores.truncated or (None,) * count, scores.spans or ((),) * count
    return list(zip(scores.values, truncated, spans, strict=True))


def _told(known: _Known) -> str:
    rows = [[value, cut, [[span.start, span.end, span.score] for span in spans]] for value, cut, spans in known.entries]
    return json.dumps([known.model, known.reason, rows])


def _read(text: str | None, count: int) -> _Known | None:
    """Return what is known of so many documents; what a damaged file holds in its place is not known."""
    if text is None:
        return None
    try:
        model, reason, rows = json.loads(text)
        entries = tuple((value, cut, tuple(Span(*each) for each in spans)) for value, cut, spans in rows)
        whole = all(value is None or math.isfinite(value) for value, _, _ in entries)
    except (ValueError, TypeError, RecursionError):
        return None
    return _Known(model, reason, entries) if whole and isinstance(model, str) and len(entries) == count else None
