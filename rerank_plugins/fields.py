"""What is sent of a document: its text, or its fields as one text and as plain JSON."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from numbers import Integral, Real
from typing import Any

from .core.errors import InputError

__all__ = ["as_json", "as_text", "sendable"]


def sendable(text: str) -> str:
    """Return `text` with every lone surrogate replaced by U+FFFD: UTF-8, and so every wire and tokenizer, refuses them."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def as_text(fields: Mapping[str, Any], index: int) -> str:
    """Return the fields as YAML in their own order, the form Cohere's pages advise for structured documents.

    https://docs.cohere.com/docs/rerank-overview#example-with-structured-data (read in November 2026)

    Raises:
        InputError: A field is no plain data. The error says of which type it is, never what it holds.
    """
    import yaml

    if all(value is None or (isinstance(value, str) and not value.strip()) for value in fields.values()):
        return ""
    try:
        return sendable(yaml.dump(dict(fields), Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=10**9))
    except yaml.YAMLError as error:
        what = f"of type {type(error.args[-1]).__name__}"
    except RecursionError:
        what = "it holds itself"
    raise InputError(
        f"Document {index} has a field that is no plain data ({what}): use texts, numbers, lists and mappings."
    )


def as_json(value: Any) -> Any:
    """Return a copy that JSON can hold, for the backends that take fields as they are; `as_text` has read it before."""
    match value:
        case str():
            return sendable(str.__str__(value))
        case None | bool():
            return value
        case Integral():
            return int(value)
        case Real():
            return float(value) if math.isfinite(value) else None
        case Mapping():
            return {as_json(key) if isinstance(key, str) else str(key): as_json(each) for key, each in value.items()}
        case list() | tuple() | AbstractSet():
            return [as_json(each) for each in value]
    return str(value)  # a date


@functools.cache
def _dumper() -> Any:
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True  # what stands in two fields is written twice: `*id001` says nothing to a model

    def derived(dumper: yaml.SafeDumper, value: Any) -> yaml.Node:
        # A subclass of a plain type (a text of NumPy's, an enumeration of texts, an ordered mapping) is that type.
        match value:
            case str():
                return dumper.represent_str(str.__str__(value))
            case Integral():
                return dumper.represent_int(int(value))
            case Real():
                return dumper.represent_float(float(value))
            case Mapping():
                return dumper.represent_dict(dict(value))
            case list() | tuple():
                return dumper.represent_list(list(value))
        return dumper.represent_undefined(value)

    Dumper.add_multi_representer(object, derived)  # whatever has no representer of its own
    return Dumper
