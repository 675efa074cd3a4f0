"""Rewrites pydantic's validation errors: they name the option's path, what is expected and the nearest valid name.

Messages quote numbers, booleans and misspelled choices only. Any other string may be an API key in the wrong place.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from .core.choices import described, nearest, unknown
from .core.errors import ConfigError

__all__ = ["error_message", "find_field", "find_model", "literal_values", "names"]


@functools.cache
def names(model: type[BaseModel]) -> tuple[str, ...]:
    """Return the option names of `model` as a spec writes them (aliases included)."""
    return tuple(field.alias or name for name, field in model.model_fields.items())


def find_field(model: type[BaseModel], name: object) -> FieldInfo | None:
    """Return the field of `model` with this name or alias, or `None`."""
    return next((field for field_name, field in model.model_fields.items() if name in (field.alias, field_name)), None)


def find_model(annotation: Any) -> type[BaseModel] | None:
    """Return the first option model in a field's annotation, or `None`."""
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((model for argument in get_args(annotation) if (model := find_model(argument)) is not None), None)


def literal_values(annotation: Any) -> list[Any]:
    """Return the values of all `Literal` types in a field's annotation."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [value for argument in get_args(annotation) for value in literal_values(argument)]


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
    "is_instance_of": "a list",  # pydantic checks `Sequence[...]` with isinstance
    "sequence_str": "a list",
    "none": "None",
}
"""What was expected, by pydantic's error type without the suffix `_type`.

See https://docs.pydantic.dev/latest/errors/validation_errors/.
"""
_BOUNDS = {
    "greater_than_equal": "of at least",
    "greater_than": "above",
    "less_than_equal": "of at most",
    "less_than": "below",
}


def error_message(
    model: type[BaseModel], error: ValidationError, path: str, top: Collection[str], top_path: str = ""
) -> str:
    """Return the message for the first error in pydantic's list. `options.parse` explains the other arguments."""
    errors = error.errors(include_url=False)
    first = errors[0]
    if isinstance(reason := first.get("ctx", {}).get("error"), ConfigError):
        return str(reason)
    steps, owner, field = _locate(model, first["loc"])
    option = _join_path(top_path if steps and steps[0] in top else path, steps)
    if first["type"] == "extra_forbidden":
        outer = _join_path(path, steps[:-1])
        return str(unknown(f"option of {outer}" if outer else "option", steps[-1] if steps else "", names(owner)))
    if first["type"] == "missing":
        return f"{option} is missing: add it. The options there are: {', '.join(names(owner))}."
    if first["type"] == "option":
        return f"{option} {first['msg']}."
    return f"{option} {_expected(errors, field)}"


def _expected(errors: Sequence[ErrorDetails], field: FieldInfo | None) -> str:
    """Return what was expected at the location of the first error, and what was given, for the end of a message."""
    first, value = errors[0], errors[0]["input"]
    alternatives, has_choices = [], False
    for error in errors:
        if error["input"] is not value:
            continue  # the error of another value; a union reports one error per branch for the same value
        kind = error["type"].removesuffix("_type").removesuffix("_attributes")
        if kind in _BOUNDS:
            bound = next(iter(error["ctx"].values()))
            return f"must be a number {_BOUNDS[kind]} {bound}, got {described(value)}."
        if kind == "literal_error":
            has_choices = True
        elif kind in _EXPECTED:
            alternatives.append(_EXPECTED[kind])
    if not alternatives and not has_choices:
        return f"is not valid: {first['msg'][:1].lower()}{first['msg'][1:]}; got {described(value)}."
    if has_choices and field is not None:
        choices = sorted(map(str, literal_values(field.annotation)))
        alternatives.append(f"one of {', '.join(choices[:-1])} or {choices[-1]}" if choices[1:] else choices[0])
        # A string is quoted only if it looks like a misspelled choice: otherwise it may be an API key.
        if isinstance(value, str) and len(value) <= 60 and (near := nearest(value, choices)) is not None:
            return f"must be {' or '.join(dict.fromkeys(alternatives))}, got {value!r}: did you mean {near!r}?"
    expected = " or ".join(dict.fromkeys(alternatives))
    inner = find_model(field.annotation) if field is not None and expected == "a mapping" else None
    advice = f" Its options are: {', '.join(names(inner))}." if inner is not None else ""
    return f"must be {expected}, got {described(value)}.{advice}"


def _locate(
    model: type[BaseModel], location: tuple[int | str, ...]
) -> tuple[list[int | str], type[BaseModel], FieldInfo | None]:
    """Return the steps from the spec to an option, the model that has the option, and its field (`None` if unknown).

    Pydantic's location contains the branches of unions too. They are not in the spec, so they are left out.
    """
    steps: list[int | str] = []
    owner, field = model, None
    inner: type[BaseModel] | None = model
    for step in location:
        if isinstance(step, int):
            steps.append(step)
        elif inner is not None:
            owner = inner
            field = find_field(owner, step)
            steps.append(step)
            inner = find_model(field.annotation) if field is not None else None
        elif field is not None and _holds_mapping(field.annotation) and step != "[key]":
            steps.append(step)
    return steps, owner, field


def _holds_mapping(annotation: Any) -> bool:
    return get_origin(annotation) in (dict, Mapping) or any(map(_holds_mapping, get_args(annotation)))


def _join_path(path: str, steps: Sequence[int | str]) -> str:
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else str(step)
    return path
