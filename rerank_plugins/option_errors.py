"""Errors of pydantic about options, in Python's words: what belongs there, the nearest valid name, and no value but numbers."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from .core.choices import described, nearest, unknown
from .core.errors import ConfigError

__all__ = ["choices_of", "field_of", "message", "model_of", "names"]


@functools.cache
def names(model: type[BaseModel]) -> tuple[str, ...]:
    """Return the names that a spec uses for the options of `model`."""
    return tuple(field.alias or name for name, field in model.model_fields.items())


def field_of(model: type[BaseModel], name: object) -> FieldInfo | None:
    """Return the field of `model` that a spec calls `name`."""
    return next((field for own, field in model.model_fields.items() if name in (field.alias, own)), None)


def model_of(annotation: Any) -> type[BaseModel] | None:
    """Return the model of options that a field takes, if any, alone or in a list."""
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for each in get_args(annotation) if (found := model_of(each)) is not None), None)


def choices_of(annotation: Any) -> list[Any]:
    """Return the values that a field offers by name."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [value for each in get_args(annotation) for value in choices_of(each)]


_EXPECTED = {
    "string": "a string",
    "bool": "True or False",
    "int": "an integer",
    "float": "a number",
    "finite": "a finite number",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "model": "a mapping",
    "callable": "a function",
    "is_instance_of": "a list",
    "sequence_str": "a list",
    "none": "None",
}
"""In Python's words what pydantic's error of each type expects; its types are called `string_type`, `list_type`, …"""
_BOUNDS = {
    "greater_than_equal": "of at least",
    "greater_than": "above",
    "less_than_equal": "of at most",
    "less_than": "below",
}


def message(model: type[BaseModel], error: ValidationError, path: str, top: Collection[str]) -> str:
    """Return what the first error says; for the arguments see `options.parse`."""
    errors = error.errors(include_url=False)
    first = errors[0]
    if isinstance(reason := first.get("ctx", {}).get("error"), ConfigError):
        return str(reason)
    place, owner, field = _place(model, first["loc"])
    option = _joined("" if place and place[0] in top else path, place)
    if first["type"] == "extra_forbidden":
        outer = _joined(path, place[:-1])
        return str(unknown(f"option of {outer}" if outer else "option", place[-1] if place else "", names(owner)))
    if first["type"] == "missing":
        return f"{option} is missing: write it. The options there are: {', '.join(names(owner))}."
    if first["type"] == "option":
        return f"{option} {first['msg']}."
    return f"{option} {_expected(errors, field)}"


def _expected(errors: Sequence[ErrorDetails], field: FieldInfo | None) -> str:
    """Return what belongs where the first error is, in Python's words, and what was there."""
    first, value = errors[0], errors[0]["input"]
    words, offers = [], False
    for each in errors:
        if each["input"] is not value:
            continue  # about another value; those about this one are of the branches of its union
        kind = each["type"].removesuffix("_type").removesuffix("_attributes")
        if kind in _BOUNDS:
            bound = next(iter(each["ctx"].values()))
            return f"must be a number {_BOUNDS[kind]} {bound}, got {described(value)}."
        if kind == "literal_error":
            offers = True
        elif kind in _EXPECTED:
            words.append(_EXPECTED[kind])
    if not words and not offers:
        return f"is refused: {first['msg'][:1].lower()}{first['msg'][1:]}; got {described(value)}."
    if offers and field is not None:
        choices = sorted(map(str, choices_of(field.annotation)))
        words.append(f"one of {', '.join(choices[:-1])} or {choices[-1]}" if choices[1:] else choices[0])
        # The string is shown only where it is a misspelling: elsewhere it may be a key in the wrong place.
        if isinstance(value, str) and len(value) <= 60 and (near := nearest(value, choices)) is not None:
            return f"must be {' or '.join(dict.fromkeys(words))}, got {value!r}: did you mean {near!r}?"
    return f"must be {' or '.join(dict.fromkeys(words))}, got {described(value)}."


def _place(
    model: type[BaseModel], location: tuple[int | str, ...]
) -> tuple[list[int | str], type[BaseModel], FieldInfo | None]:
    """Return where in a spec an error is, the model that it is about, and the field; `None` for a name it does not have.

    Pydantic's location names the branches of unions too, which no spec does: those steps are left out.
    """
    place: list[int | str] = []
    owner, field = model, None
    inner: type[BaseModel] | None = model
    for step in location:
        if isinstance(step, int):
            place.append(step)
        elif inner is not None:
            owner = inner
            field = field_of(owner, step)
            place.append(step)
            inner = model_of(field.annotation) if field is not None else None
        elif field is not None and _holds_mapping(field.annotation) and step != "[key]":
            place.append(step)
    return place, owner, field


def _holds_mapping(annotation: Any) -> bool:
    return get_origin(annotation) in (dict, Mapping) or any(map(_holds_mapping, get_args(annotation)))


def _joined(path: str, place: Sequence[int | str]) -> str:
    for step in place:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else str(step)
    return path
