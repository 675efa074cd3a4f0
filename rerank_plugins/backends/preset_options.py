"""The options of the presets, by the name of the class in a row."""

from __future__ import annotations

from pydantic import Field

from ..core.types import Scale
from ..options import URL
from .formats import FormattedOptions

__all__ = ["BedrockOptions", "GoogleOptions", "PresetOptions", "WatsonxOptions"]


class PresetOptions(FormattedOptions):
    """Options of a vendor or server whose format is a preset; see the page about presets."""

    path: str | None = None
    """The whole path of the route after the host, such as `/v1/rerank`, in place of the preset's; added to `base_url`
    unless that ends in it. `{model}` in it is the model's name, as in `http`."""
    scale: Scale | None = None
    """The scale of the scores, if the model's differs from the preset's: `unit`, `logit`, `cosine` or `ordinal`."""


class BedrockOptions(PresetOptions):
    """Options of Amazon Bedrock."""

    region: str | None = None
    """The region of AWS, such as `us-west-2`; without it, AWS_REGION or AWS_DEFAULT_REGION."""


class GoogleOptions(PresetOptions):
    """Options of Google's ranking API."""

    project: str | None = None
    """The project's id; without it, GOOGLE_CLOUD_PROJECT or GCLOUD_PROJECT."""
    location: str | None = None
    """The location in the path; `global` without it."""
    ranking_config: str | None = None
    """The name of the ranking configuration; `default_ranking_config` without it."""


class WatsonxOptions(PresetOptions):
    """Options of IBM watsonx.ai."""

    region: str | None = None
    """The region in the address, such as `us-south` or `eu-de`; without it, WATSONX_REGION. WATSONX_URL replaces the
    address."""
    project_id: str | None = None
    """The project that is billed; without it, WATSONX_PROJECT_ID. Set this or `space_id`."""
    space_id: str | None = None
    """The deployment space that is billed; without it, WATSONX_SPACE_ID."""
    version: str | None = None
    """The date of the API's version, YYYY-MM-DD."""
    token_url: URL | None = Field(default=None, repr=False)
    """The address of the access tokens; without it, WATSONX_IAM_URL, else that of IBM Cloud."""
