"""Local servers with each vendor's format, by the name of the backend.

They are strict: fields that the vendor's page does not list are refused. They never import a backend, so that tests
find where the two disagree.
"""

from ..server import VendorServer
from .chat import ChatServer
from .cohere import CohereServer
from .decisions import OpenAIDecisionsServer, TypeSafeServer
from .infinity import InfinityServer
from .jina import JinaServer
from .mixedbread import MixedbreadServer
from .tei import TEIServer
from .vllm import VLLMServer
from .voyage import VoyageServer
from .zeroentropy import ZeroEntropyServer

__all__ = [
    "VENDORS",
    "ChatServer",
    "CohereServer",
    "InfinityServer",
    "JinaServer",
    "MixedbreadServer",
    "OpenAIDecisionsServer",
    "TEIServer",
    "TypeSafeServer",
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
    "openai": OpenAIDecisionsServer,
    "typesafe": TypeSafeServer,
    "tei": TEIServer,
    "vllm": VLLMServer,
    "infinity": InfinityServer,
}
