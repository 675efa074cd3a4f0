"""Makes a backend of each preset: `preset_class("siliconflow")`, or `siliconflow` as an attribute of this module."""

from __future__ import annotations

import functools
import importlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from ..core.errors import BackendError, ConfigError
from ..core.types import Scale
from . import preset_options
from .formats import FormattedBackend, resolved
from .preset_options import PresetOptions
from .presets import PRESETS
from .presets.row import Preset
from .prices import PRICES
from .server_info import ServerInfo

__all__ = ["PresetBackend", "preset_class"]

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_HOST_VALUE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""The form of a setting in the host: without dots, since it must not name a host of somebody else in that domain."""
_VALUE = re.compile(r"\w[\w.:-]*")
"""The form of any other setting, which may be a segment of the path."""
BASES = {
    "key": "preset_backend:PresetBackend",
    "google": "preset_tokens:GoogleBackend",
    "ibm": "preset_tokens:IBMBackend",
    "aws": "preset_signed:AWSBackend",
}
"""The base class of a preset's backend, by its authentication."""


class PresetBackend(FormattedBackend):
    """The backend of a preset. Each preset has a subclass; see `preset_class`."""

    preset: ClassVar[Preset]

    def __init__(self, model: str | None = None, options: PresetOptions | None = None) -> None:
        """Read the options, and fill in the settings of the row."""
        preset = self.preset
        options = options or getattr(preset_options, preset.options)()
        self._setting_values = settings = self._settings(options)
        self.base_url = _filled(preset.base_url, settings)
        if options.path is not None:  # it replaces the path of the address too
            self.base_url = "/".join(self.base_url.split("/", 3)[:3])
            self.path_option = f"{self.name}.path"
        super().__init__(model, **options.shared())
        if preset.model_required and not self.model:
            raise ConfigError(
                f"{self.name} needs the name of a model: write use = '{self.name}:MODEL', with its name at {self.name}."
            )
        self._headers, self._body = resolved(options.headers or {}), resolved(options.body or {})
        columns = replace(
            preset.format,
            path=_filled(preset.format.path if options.path is None else options.path, settings),
            headers={name: _filled(value, settings) for name, value in preset.format.headers.items()},
            body=_filled_body({**preset.format.body, **self._body_of_model()}, settings),
        )
        self._set_format(columns, settings)
        self._set_by_user = frozenset(options.model_fields_set)
        self.capabilities = replace(
            self.capabilities,
            scale=options.scale or self._scale_of_model(),
            max_documents=options.max_documents or self.capabilities.max_documents,
            max_tokens=options.max_tokens or self.capabilities.max_tokens,
        )

    def _settings(self, options: PresetOptions) -> dict[str, str | None]:
        preset, settings = self.preset, dict[str, str | None]()
        self._has_own_address = own_address = bool(self._known_address(options.base_url) != self.base_url)
        for name, setting in preset.settings.items():
            option = getattr(options, name)
            variable = "" if option else _first_set(setting.variables)
            value = option or (os.environ[variable].strip() if variable else setting.default)
            needed = setting.needed_by == "request" or (setting.needed_by == "address" and not own_address)
            if value is None and needed:
                raise ConfigError(f"{self.name} needs {self._how_to_set(name)}.")
            in_host = f"{{{name}}}" in preset.base_url
            if value is not None and not (_HOST_VALUE if in_host else _VALUE).fullmatch(value):
                allowed = (
                    "small letters, digits and hyphens" if in_host else "letters, digits, dots, colons and hyphens"
                )
                source = f" (from the environment variable {variable})" if variable else ""
                in_address = f"{{{name}}}" in preset.base_url + preset.format.path
                whole = "address" if in_address else "request"
                raise ConfigError(
                    f"{self.name}.{name}{source} may have {allowed} only, since it is a part of the {whole}."
                )
            settings[name] = value
        if preset.one_of and not any(settings[name] for name in preset.one_of):
            raise ConfigError(f"{self.name} needs {self._how_to_set(*preset.one_of)}.")
        return settings

    def _how_to_set(self, *names: str) -> str:
        """Return how to set one of some settings, in words."""
        variables = [variable for name in names for variable in self.preset.settings[name].variables]
        options = " or ".join(f"{self.name}.{name}" for name in names)
        environment = f", or the environment variable {' or '.join(variables)}" if variables else ""
        return f"a {names[0].replace('_', ' ')}: set {options} in the spec{environment}"

    def _scale_of_model(self) -> Scale:
        return self._scale_by_name(self.model) or self.capabilities.scale

    def _scale_by_name(self, model: str) -> Scale | None:
        return next((scale for part, scale in self.preset.scales.items() if part in model.lower()), None)

    def scale_of(self, info: ServerInfo) -> Scale | None:
        """Return the scale by the name of the model that the server runs, where the spec names none."""
        return self._scale_by_name(info.model) if info.model and not self.model else None

    def _body_of_model(self) -> Mapping[str, Any]:
        return next((body for start, body in self.preset.bodies.items() if self.model.startswith(start)), {})

    def settings_advice(self) -> str:
        """Name the settings of the row."""
        sentences = [f"Check also {self._where_set(self.preset.settings)}."] if self.preset.settings else []
        return " ".join(filter(None, [*sentences, super().settings_advice()]))

    def _where_set(self, names: Iterable[str]) -> str:
        """Return the options of settings, each with its variables."""
        variables = {name: " or ".join(self.preset.settings[name].variables) for name in names}
        return ", ".join(f"`{self.name}.{name}`" + (f" ({read})" if read else "") for name, read in variables.items())

    def _named(self, error: BackendError) -> BackendError:
        """Add the backend, and the settings in the host's name: with a wrong one, there is no such host."""
        named = super()._named(error)
        in_host = [name for name in self.preset.settings if f"{{{name}}}" in self.preset.base_url]
        if self._has_own_address or not in_host or named is error:
            return named
        advice = f"The name of the host is made of {self._where_set(in_host)}: check that too."
        return type(error)(f"{named} {advice}", backend=self.label)


def _first_set(variables: tuple[str, ...]) -> str:
    """Return the first variable with a value; "" if there is none."""
    return next((variable for variable in variables if os.environ.get(variable, "").strip()), "")


def _filled(text: str, settings: Mapping[str, str | None]) -> str:
    """Return `text` with each `{NAME}` of a setting replaced; `{model}` stays."""
    return _PLACEHOLDER.sub(lambda match: (settings[match[1]] or "") if match[1] in settings else match[0], text)


def _filled_body(body: Mapping[str, Any], settings: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the body fields of a row. A field that consists of a setting without a value is left out."""
    filled: dict[str, Any] = {}
    for key, value in body.items():
        if isinstance(value, Mapping):
            filled[key] = _filled_body(value, settings)
        elif not isinstance(value, str):
            filled[key] = value
        elif text := _filled(value, settings):
            filled[key] = text
    return filled


@functools.cache
def preset_class(name: str) -> type[PresetBackend]:
    """Return the class of the preset `name`."""
    preset = PRESETS[name]
    module, _, attribute = BASES[preset.authentication].partition(":")
    base = getattr(importlib.import_module(f"{__package__}.{module}"), attribute)
    options = getattr(preset_options, preset.options)
    if missing := preset.settings.keys() - options.model_fields.keys():
        raise TypeError(
            f"The row of {name} has the setting {min(missing)!r}, which is no option of {preset.options}: write a "
            "class with that option into preset_options.py, and name it as `options` of the row."
        )
    followed = bool(preset.format.instruction_field)
    capabilities = {
        model: replace(limits, instructions=followed, scale_option='scale = "logit"')
        for model, limits in {"": preset.limits, **preset.models}.items()
    }
    attributes = {
        "__module__": __name__,
        "__doc__": f"{preset.title}.",
        "preset": preset,
        "Options": options,
        "model": preset.model,
        "base_url": preset.base_url,
        "base_url_variables": preset.base_url_variables,
        "key_variables": preset.key_variables,
        "key_required": preset.key_required,
        "capabilities": capabilities.pop(""),
        "by_model": capabilities,
        "info": preset.info,
        "learns_limits": bool(preset.info),
        "list_prices": PRICES.get(name, {}),
        "transient_statuses": preset.transient_statuses,
        "retired": preset.retired,
    }
    created: type[PresetBackend] = type(base)(name, (base,), attributes)
    return created


def __getattr__(name: str) -> type[PresetBackend]:
    if name in PRESETS:
        return preset_class(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
