"""OpenTelemetry: a span for each call, a span for each attempt inside it, and metrics, without texts and keys.

It is active if the process has imported `opentelemetry`, as every setup of an OpenTelemetry SDK does. Otherwise it
costs nothing, and imports nothing. Names follow the semantic conventions for generative AI (opentelemetry.semconv
0.66b2: `gen_ai.*`). They define no operation for reranking yet, so the operation is `rerank`, and other attributes are
`rerank.*`. Error messages are left out, since a vendor may quote the text that it received.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .core.call import EndAttempt
from .core.response import RerankResponse
from .core.scorer import Scorer
from .core.types import Attempt, Usage

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = ["TracedCall", "framework_span", "trace_call"]

OPERATION = "rerank"
_INSTRUMENTATION_NAME = "rerank_plugins"
"""The instrumentation scope of the spans and metrics."""
_OUTCOMES_WITH_SAFE_DETAIL = frozenset({"cached", "kept", "spared"})
"""Outcomes whose `detail` this package writes itself, from numbers and names. Other details may quote a vendor."""
_DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKEN_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)


def trace_call(scorer: Scorer) -> AbstractContextManager[TracedCall | None]:
    """Record a span and metrics for a call to `scorer`. Yields `None` if OpenTelemetry is not in use."""
    return nullcontext() if "opentelemetry.trace" not in sys.modules else _trace_call(scorer)


def framework_span(run_id: object, callbacks: Iterable[object]) -> AbstractContextManager[object]:
    """Make the span of a framework's run the current span, so that the spans of a call become its children.

    Instrumentations of LangChain, such as OpenInference, create their spans in callbacks, which cannot make a span the
    current one. Without this, the spans of a call would start a trace of their own.

    Args:
        run_id: Id of the framework's run; `None` without one.
        callbacks: Callback objects of the framework. The first whose method `get_span(run_id)` returns a span provides
            it. Without one this context manager does nothing.
    """
    if run_id is None or "opentelemetry.trace" not in sys.modules:
        return nullcontext()
    from opentelemetry.trace import Span, use_span

    for callback in callbacks:
        with suppress(Exception):  # an unrelated method of that name, with other parameters, must not break the call
            span = callback.get_span(run_id)  # type: ignore[attr-defined]
            if isinstance(span, Span):
                return use_span(span, record_exception=False, set_status_on_exception=False)
    return nullcontext()


@contextmanager
def _trace_call(scorer: Scorer) -> Iterator[TracedCall]:
    instruments = _instruments()
    attributes = _model_attributes(scorer)
    started = perf_counter()
    with instruments.tracer.start_as_current_span(
        f"{OPERATION} {attributes['gen_ai.request.model']}",
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        call = TracedCall(span, attributes)
        try:
            yield call
        except BaseException as error:
            call.metric_attributes["error.type"] = type(error).__name__
            _set_error(span, type(error).__name__)
            raise
        finally:
            instruments.duration.record(perf_counter() - started, call.metric_attributes)


class TracedCall:
    """The span of one call. As an `Observer` of the call, it adds a child span for each attempt."""

    def __init__(self, span: Span, attributes: Mapping[str, str]) -> None:
        """Wrap `span`. The metrics of the call start with the same `attributes`."""
        self.metric_attributes = dict(attributes)
        self._span = span
        self._attempts = 0

    def record_response(self, response: RerankResponse) -> None:
        """Record the response on the span and in the metrics."""
        instruments, usage = _instruments(), response.usage
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
            instruments.degraded.add(1, self.metric_attributes)
        if usage.input_tokens is not None:
            instruments.tokens.record(usage.input_tokens, {**self.metric_attributes, "gen_ai.token.type": "input"})
        if usage.output_tokens is not None:
            instruments.tokens.record(usage.output_tokens, {**self.metric_attributes, "gen_ai.token.type": "output"})
        if usage.cost_usd is not None:
            instruments.cost.add(usage.cost_usd, self.metric_attributes)

    @contextmanager
    def attempt(self, scorer: Scorer, documents: int, *, remote: bool) -> Iterator[EndAttempt]:
        """Record a span for one attempt. The span of an instrumented HTTP client becomes its child."""
        from opentelemetry.trace import SpanKind

        self._attempts += 1
        model_attributes = _model_attributes(scorer)
        attributes: dict[str, Any] = {
            **model_attributes,
            "rerank.attempt": self._attempts,
            "rerank.documents": documents,
        }
        kind = SpanKind.CLIENT if remote else SpanKind.INTERNAL
        with _instruments().tracer.start_as_current_span(
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
                    _set_error(span, attempt.outcome)
                _instruments().attempts.add(1, {**model_attributes, **outcome})

            yield ended

    def event(self, scorer: Scorer, attempt: Attempt) -> None:
        """Record an event that needed no request as an event of the span."""
        attributes = {"rerank.outcome": attempt.outcome, **_model_attributes(scorer)}
        detail = (
            {"rerank.detail": attempt.detail}
            if attempt.detail and attempt.outcome in _OUTCOMES_WITH_SAFE_DETAIL
            else {}
        )
        self._span.add_event(attempt.outcome, {**attributes, **detail})
        _instruments().attempts.add(1, attributes)


def _model_attributes(scorer: Scorer) -> dict[str, str]:
    """Return the operation and the model as attributes of a span or metric."""
    model_id = scorer.model_id
    if model_id is None:  # a cascade or a fusion, whose backends record their own attempts
        backend, model = _INSTRUMENTATION_NAME, scorer.spec_name
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
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
            "rerank.search_units": usage.search_units,
            "rerank.cost_usd": usage.cost_usd,
        }
    )


def _without_none(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def _set_error(span: Span, kind: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR, kind))


class _Instruments:
    """The tracer and the metric instruments. They are proxies, so an SDK that is set up later gets their data too."""

    def __init__(self) -> None:
        from opentelemetry.metrics import get_meter
        from opentelemetry.trace import get_tracer

        from . import __version__

        self.tracer = get_tracer(_INSTRUMENTATION_NAME, __version__)
        meter = get_meter(_INSTRUMENTATION_NAME, __version__)
        self.duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="Seconds of a rerank call",
            explicit_bucket_boundaries_advisory=_DURATION_BUCKETS,
        )
        self.tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Tokens of a rerank call",
            explicit_bucket_boundaries_advisory=_TOKEN_BUCKETS,
        )
        self.attempts = meter.create_counter("rerank.attempts", description="Attempts by model and outcome")
        self.degraded = meter.create_counter("rerank.degraded", description="Degraded responses")
        self.cost = meter.create_counter("rerank.cost", unit="{USD}", description="Cost of rerank calls in US dollars")


@cache
def _instruments() -> _Instruments:
    return _Instruments()
