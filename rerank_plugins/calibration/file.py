"""The file of a calibration: written by `rerank-plugins calibrate`, read by the option `calibration`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.curve import Curve
from ..core.errors import ConfigError, clause

__all__ = ["Calibration", "read", "write"]

FORMAT = 1
_KEYS = ("format", "of", "method", "parameters", "held_out", "sha256")
AGAIN = "Make it anew with `rerank-plugins calibrate`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A curve, whose scores it is for, and how well it held on questions that it was not fitted to."""

    of: Mapping[str, Any]
    """See `identity`."""
    curve: Curve
    held_out: Mapping[str, Any]
    """See `fit`."""


def write(calibration: Calibration, path: str | os.PathLike[str]) -> None:
    """Write the file, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    curve = calibration.curve
    points = [list(point) for point in curve.points]
    parameters = {"points": points} if points else {"slope": curve.slope, "intercept": curve.intercept}
    body = {
        "format": FORMAT,
        "of": dict(calibration.of),
        "method": curve.method,
        "parameters": parameters,
        "held_out": dict(calibration.held_out),
    }
    file = Path(path)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_text(json.dumps({**body, "sha256": _digest(body)}, indent=1, ensure_ascii=False) + "\n", "utf-8")
    beside.replace(file)


def read(path: Any) -> Calibration:
    """Return what the file holds.

    Raises:
        ConfigError: It is not there, is no calibration, or was changed since it was written.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise ConfigError(f"calibration is the path of a file made by `rerank-plugins calibrate`; {path!r} is not.")
    file = Path(path).expanduser()
    try:
        told = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"The calibration {file} cannot be read: {error.strerror}. Check the path, or make it with "
            "`rerank-plugins calibrate SPEC --data FILE --out PATH`."
        ) from error
    except ValueError as error:
        raise ConfigError(f"{file} is no calibration, or a broken one: {clause(error)}. {AGAIN}") from error
    if not isinstance(told, dict) or set(told) != set(_KEYS) or not isinstance(told["of"], dict):
        raise ConfigError(f"{file} is no calibration: it needs exactly {', '.join(_KEYS)}. {AGAIN}")
    if told["format"] != FORMAT:
        raise ConfigError(f"{file} is of format {told['format']!r}, and this version reads {FORMAT}. {AGAIN}")
    if told.pop("sha256") != _digest(told):
        raise ConfigError(f"{file} was changed since it was written: its checksum is another. {AGAIN}")
    try:
        parameters = dict(told["parameters"])
        parameters["points"] = tuple((raw, chance) for raw, chance in parameters.get("points", ()))
        return Calibration(of=told["of"], curve=Curve(method=told["method"], **parameters), held_out=told["held_out"])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{file} holds no curve that can be used: {clause(error)}. {AGAIN}") from error


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()
