"""A configurable retriever whose reranker a call may name: such a spec must not read keys of the program."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import RunnableConfig, ensure_config
from langchain_core.runnables.configurable import RunnableConfigurableFields
from langchain_core.runnables.utils import ConfigurableField

from .config.call_specs import refuse_key_references

__all__ = ["CheckedConfigurableFields"]


class CheckedConfigurableFields(RunnableConfigurableFields):  # type: ignore[type-arg]  # not generic at run time
    """`RunnableConfigurableFields` that checks the reranker in the configuration of a call.

    A call may come from outside of the program. With `"env:NAME"` or `"file:PATH"` in a spec and a `base_url` of its
    own, it could have any variable or file sent to its server.
    """

    @classmethod
    def lc_id(cls) -> list[str]:
        """Return the id of LangChain's class: serialised, this is a configurable retriever like any other."""
        return RunnableConfigurableFields.lc_id()

    def _prepare(self, config: RunnableConfig | None = None) -> Any:
        field = self.fields.get("reranker")
        # With `allowed_rerankers`, the adapter refuses every mapping.
        if isinstance(field, ConfigurableField) and getattr(self.default, "allowed_rerankers", None) is None:
            refuse_key_references(ensure_config(config).get("configurable", {}).get(field.id))
        return super()._prepare(config)
