"""Calibration files: written by `rerank-plugins calibrate`, read by the option `calibration`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.calibration_curve import Curve
from ..core.errors import ConfigError, clause

__all__ = ["Calibration", "load_calibration", "save_calibration"]

FORMAT = 1
_KEYS = ("format", "of", "method", "parameters", "held_out", "sha256")
REFIT = "Make a new one with `rerank-plugins calibrate`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A fitted curve.

    Args:
        of: The identity of the scorer that the curve was fitted to; see `identity`.
        curve: The curve.
        held_out: Calibration error on held-out queries; see `fit`.
    """

    of: Mapping[str, Any]
    curve: Curve
    held_out: Mapping[str, Any]


def save_calibration(calibration: Calibration, path: str | os.PathLike[str]) -> None:
    """Write the file atomically: a reader sees the old file or the new one, never a part.

    Raises:
        OSError: The file cannot be written.
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
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(json.dumps({**body, "sha256": _digest(body)}, indent=1, ensure_ascii=False) + "\n", "utf-8")
    temporary.replace(file)


def load_calibration(path: Any) -> Calibration:
    """Read a calibration file.

    Raises:
        ConfigError: The file does not exist, is not a calibration, or was changed after it was written.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise ConfigError(
            f"calibration must be the path of a file made by `rerank-plugins calibrate`, got {path!r}. "
            "Name such a file."
        )
    file = Path(path).expanduser()
    try:
        content = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"The calibration {file} cannot be read: {error.strerror}. Check the path, or make it with "
            "`rerank-plugins calibrate SPEC --data FILE --out PATH`."
        ) from error
    except ValueError as error:
        raise ConfigError(f"{file} is not a calibration, or is damaged: {clause(error)}. {REFIT}") from error
    if not isinstance(content, dict) or set(content) != set(_KEYS) or not isinstance(content["of"], dict):
        raise ConfigError(f"{file} is not a calibration: it must have exactly the keys {', '.join(_KEYS)}. {REFIT}")
    if content["format"] != FORMAT:
        raise ConfigError(f"{file} has format {content['format']!r}, and this version reads {FORMAT}. {REFIT}")
    if content.pop("sha256") != _digest(content):
        raise ConfigError(f"{file} was changed after it was written: its checksum does not match. {REFIT}")
    try:
        parameters = dict(content["parameters"])
        parameters["points"] = tuple((raw, chance) for raw, chance in parameters.get("points", ()))
        return Calibration(
            of=content["of"], curve=Curve(method=content["method"], **parameters), held_out=content["held_out"]
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{file} holds an invalid curve: {clause(error)}. {REFIT}") from error


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()
