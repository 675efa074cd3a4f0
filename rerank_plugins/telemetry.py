"""OpenTelemetry: a span for each call, one for each attempt inside it, and metrics. No text, no key.

On where the process has imported `opentelemetry` (whoever sets up an SDK does), else free: nothing is imported here. Names
follow the GenAI conventions (opentelemetry.semconv 0.66b2: `gen_ai.*`, with `rerank` as the operation, for which they have
no word yet); what they do not cover is called `rerank.*`. Messages of errors are left out: a vendor may quote what it was
sent.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .core.call import Ended
from .core.response import RerankResponse
from .core.scorer import Scorer
from .core.types import Attempt, Usage

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = ["Call", "inside", "watching"]

OPERATION = "rerank"
_NAME = "rerank_plugins"
_OURS = frozenset({"cached", "kept", "spared"})
"""Outcomes whose detail is made of numbers and names, here."""
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)


def watching(scorer: Scorer) -> AbstractContextManager[Call | None]:
    """Enclose a call to `scorer`; gives `None` where nobody could see it."""
    return nullcontext() if "opentelemetry.trace" not in sys.modules else _watching(scorer)


def inside(run: object, handlers: Iterable[object]) -> AbstractContextManager[object]:
    """Enclose a call in the span that one of a framework's `handlers` keeps for its `run`.

    LangChain's instrumentation (OpenInference's, say) makes spans from callbacks, which cannot make them the current one:
    without this, our spans would be a trace of their own. Nothing is enclosed where nobody keeps such a span.
    """
    if run is None or "opentelemetry.trace" not in sys.modules:
        return nullcontext()
    from opentelemetry.trace import Span, use_span

    for handler in handlers:
        with suppress(Exception):  # another's method of that name, which takes something else, is no reason to fail
            span = handler.get_span(run)  # type: ignore[attr-defined]
            if isinstance(span, Span):
                return use_span(span, record_exception=False, set_status_on_exception=False)
    return nullcontext()


@contextmanager
def _watching(scorer: Scorer) -> Iterator[Call]:
    tools = _tools()
    attributes = _model_attributes(scorer)
    started = perf_counter()
    with tools.tracer.start_as_current_span(
        f"{OPERATION} {attributes['gen_ai.request.model']}",
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        call = Call(span, attributes)
        try:
            yield call
        except BaseException as error:
            call.metric_attributes["error.type"] = type(error).__name__
            _failed(span, type(error).__name__)
            raise
        finally:
            tools.duration.record(perf_counter() - started, call.metric_attributes)


class Call:
    """One call, as a span; an `Observer`."""

    def __init__(self, span: Span, attributes: Mapping[str, str]) -> None:
        """Fill `span`."""
        self.metric_attributes = dict(attributes)
        """The attributes of its metrics."""
        self._span = span
        self._attempts = 0

    def answered(self, response: RerankResponse) -> None:
        """Take the answer."""
        tools, usage = _tools(), response.usage
        self.metric_attributes["gen_ai.response.model"] = response.model
        self._span.set_attributes(
            _without_none(
                {
                    "gen_ai.response.model": response.model,
                    "rerank.results": len(response.results),
                    "rerank.truncated": sum(result.truncated for result in response),
                    "rerank.degraded": response.degraded,
                    "rerank.requests": usage.requests,
                }
            )
            | _usage_attributes(usage)
        )
        if response.degraded:
            tools.degraded.add(1, self.metric_attributes)
        if usage.input_tokens is not None:
            tools.tokens.record(usage.input_tokens, {**self.metric_attributes, "gen_ai.token.type": "input"})
        if usage.cost_usd is not None:
            tools.cost.add(usage.cost_usd, self.metric_attributes)

    @contextmanager
    def attempt(self, scorer: Scorer, documents: int, *, remote: bool) -> Iterator[Ended]:
        """Enclose an attempt in a span of its own, so that an instrumented HTTP client's span stands inside it."""
        from opentelemetry.trace import SpanKind

        self._attempts += 1
        identity = _model_attributes(scorer)
        attributes: dict[str, Any] = {
            **identity,
            "rerank.attempt": self._attempts,
            "rerank.documents": documents,
        }
        kind = SpanKind.CLIENT if remote else SpanKind.INTERNAL
        with _tools().tracer.start_as_current_span(
            f"attempt {self._attempts}",
            kind=kind,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:

            def ended(attempt: Attempt) -> None:
                status = attempt.status
                outcome = _without_none({"rerank.outcome": attempt.outcome, "http.response.status_code": status})
                span.set_attributes(outcome | _usage_attributes(attempt.usage or Usage()))
                if attempt.outcome != "answered":
                    span.set_attribute("error.type", str(status) if status and status >= 400 else attempt.outcome)
                    _failed(span, attempt.outcome)
                _tools().attempts.add(1, {**identity, **outcome})

            yield ended

    def event(self, scorer: Scorer, attempt: Attempt) -> None:
        """Record what needed no request as an event of the span."""
        attributes = {"rerank.outcome": attempt.outcome, **_model_attributes(scorer)}
        detail = {"rerank.detail": attempt.detail} if attempt.detail and attempt.outcome in _OURS else {}
        self._span.add_event(attempt.outcome, {**attributes, **detail})
        _tools().attempts.add(1, attributes)


def _model_attributes(scorer: Scorer) -> dict[str, str]:
    """Return the attributes that say who is asked."""
    model_id = scorer.model_id
    if model_id is None:  # a cascade or a fusion: its backends have attempts of their own
        backend, model = _NAME, scorer.spec_name
    else:
        backend, model = model_id.backend, model_id.model
    return {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": backend,
        "gen_ai.request.model": model or backend,
    }


def _usage_attributes(usage: Usage) -> dict[str, Any]:
    return _without_none(
        {
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "rerank.search_units": usage.search_units,
            "rerank.cost_usd": usage.cost_usd,
        }
    )


def _without_none(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def _failed(span: Span, kind: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR, kind))


class _Tools:
    """The tracer and the instruments; they follow the SDK, whenever it is set up."""

    def __init__(self) -> None:
        from opentelemetry.metrics import get_meter
        from opentelemetry.trace import get_tracer

        from . import __version__

        self.tracer = get_tracer(_NAME, __version__)
        meter = get_meter(_NAME, __version__)
        self.duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="Seconds of a rerank call",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self.tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Tokens of a rerank call",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self.attempts = meter.create_counter("rerank.attempts", description="What was asked, and how it went")
        self.degraded = meter.create_counter("rerank.degraded", description="Answers of a stand-in")
        self.cost = meter.create_counter("rerank.cost", unit="{USD}", description="US dollars")


@cache
def _tools() -> _Tools:
    return _Tools()
