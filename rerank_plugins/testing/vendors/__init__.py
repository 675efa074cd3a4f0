"""Local servers that speak each vendor's format, by the name of the backend that talks to it.

They are strict: what the vendor's page does not list is refused. They never import a backend, so that the two can
disagree.
"""

from ..server import VendorServer
from .cohere import CohereServer
from .infinity import InfinityServer
from .jina import JinaServer
from .mixedbread import MixedbreadServer
from .tei import TEIServer
from .vllm import VLLMServer
from .voyage import VoyageServer
from .zeroentropy import ZeroEntropyServer

__all__ = [
    "VENDORS",
    "CohereServer",
    "InfinityServer",
    "JinaServer",
    "MixedbreadServer",
    "TEIServer",
    "VLLMServer",
    "VoyageServer",
    "ZeroEntropyServer",
]

VENDORS: dict[str, type[VendorServer]] = {
    "cohere": CohereServer,
    "voyage": VoyageServer,
    "jina-api": JinaServer,
    "mixedbread": MixedbreadServer,
    "zeroentropy": ZeroEntropyServer,
    "tei": TEIServer,
    "vllm": VLLMServer,
    "infinity": InfinityServer,
}
