"""Run this package against real servers and real clients, and write what came of it (`make interop`).

Not a part of CI: it installs gigabytes into environments of its own under `.interop/`. Everything listens on loopback,
and no process outlives the run. What passed over the wire is recorded in `tests/interop/exchanges/`, and the fast tests
replay it.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from interop.checkpoints import MODEL, QUERIES, cross_encoder  # noqa: E402
from interop.clients import CLIENTS, Client  # noqa: E402
from interop.environments import HOME, InstallFailed, installed  # noqa: E402
from interop.processes import StartFailed, child_environment, end_all, free_port, running  # noqa: E402
from interop.recorder import recording  # noqa: E402
from interop.results import Row, compare, incomplete, markdown, merge, table  # noqa: E402
from interop.servers import SERVERS, Server  # noqa: E402
from interop.vendor_sdks import PACKAGES  # noqa: E402
from interop.vendor_sdks import main as record_sdks  # noqa: E402

EXCHANGES = Path(__file__).with_name("exchanges")
SCRIPTS = Path(__file__).with_name("client_scripts")
TODAY = dt.datetime.now(dt.UTC).date().isoformat()
TOLERANCE = 1e-6


def expected_scores(checkpoint: Path) -> list[list[float]]:
    """Return our own engine's score of each document of each query, in the documents' order."""
    from rerank_plugins import load_reranker

    with load_reranker(f"sentence-transformers:{checkpoint}") as reranker:
        return [
            [result.relevance_score for result in sorted(reranker.rerank(query, documents), key=lambda r: r.index)]
            for query, documents in QUERIES
        ]


@contextlib.contextmanager
def our_server(checkpoint: Path) -> Iterator[str]:
    """Run `rerank-plugins serve` with the checkpoint, and yield its address."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "rerank_plugins", "serve", f"sentence-transformers:{checkpoint}"]
    with running(
        [*command, "--model", MODEL, "--port", str(port)],
        ready=f"{address}/healthz",
        log=HOME / "logs" / "serve.log",
        seconds=120,
        environment={"PYTHONPATH": str(ROOT)},
    ):
        yield address


def run_server(server: Server, checkpoint: Path, expected: list[list[float]]) -> list[Row]:
    """Install and start one server, and compare each of our backends with our own engine."""
    start = time.monotonic()
    try:
        seconds = installed(server.environment)
        print(f"  installed in {seconds:.0f} s", flush=True)
    except InstallFailed as error:
        return [_row("server", server.name, "", "", f"not run: {_one_line(error)}")]
    version = server.environment.version(server.package)
    rows = []
    try:
        with contextlib.ExitStack() as stack:
            upstream = stack.enter_context(our_server(checkpoint)) if server.upstream else ""
            port = free_port()
            folder = HOME / "run" / re.sub(r"\W+", "-", server.name)
            folder.mkdir(parents=True, exist_ok=True)
            start_up = server.start(server, checkpoint, folder, port, upstream)
            address = f"http://127.0.0.1:{port}"
            stack.enter_context(
                running(
                    start_up.command,
                    ready=address + start_up.ready,
                    log=HOME / "logs" / f"{folder.name}.log",
                    seconds=server.seconds,
                    environment=start_up.environment,
                )
            )
            if start_up.prepare is not None:
                start_up.prepare(address)
            print(f"  ready after {time.monotonic() - start:.0f} s", flush=True)
            recorder = stack.enter_context(recording(address))
            rows = [_ask(server, version, name, spec, recorder, expected) for name, spec in server.specs.items()]
    except StartFailed as error:
        rows = [_row("server", server.name, version, "", f"not run: {error}")]
    return rows


def _ask(
    server: Server, version: str, through: str, spec: Mapping[str, Any], recorder: Any, expected: list[list[float]]
) -> Row:
    from rerank_plugins import RerankError, load_reranker

    recorder.take()
    # The first request may compile kernels: minutes on a busy machine.
    settings = {**spec, "base_url": recorder.url + spec.get("base_url", ""), "retry": 1, "timeout": 240}
    scored: list[list[tuple[int, Any]]] = []
    error = None
    try:
        with load_reranker(settings) as reranker:
            for query, documents in QUERIES:
                results = reranker.rerank(query, documents)
                if results.degraded:
                    return _row("server", server.name, version, through, f"wrong: {results.reason}")
                scored.append([(result.index, result.relevance_score) for result in results])
    except RerankError as raised:
        error = raised
    exchanges = recorder.take()
    if error is not None:
        return _row("server", server.name, version, through, f"wrong: {_one_line(error)}")
    difference: float | None
    if server.chats:
        difference, problem = None, incomplete([len(documents) for _, documents in QUERIES], scored)
    else:
        difference, problem = compare(expected, scored)
    verdict = _verdict(difference or 0.0, problem, server.tolerance, server.known_fault)
    _record(
        f"server-{server.name}-{through}",
        {"server": server.name, "version": version, "date": TODAY, "spec": dict(spec), "tolerance": server.tolerance},
        exchanges,
        scored,
    )
    return _row("server", server.name, version, through, verdict, difference)


def run_client(client: Client, address: str, expected: list[list[float]]) -> Row:
    """Install one client, and compare what it gets from `rerank-plugins serve` with our own engine."""
    try:
        installed(client.environment)
    except InstallFailed as error:
        return _row("client", client.name, "", client.path, f"not run: {_one_line(error)}")
    version = client.environment.version(client.package)
    with recording(address) as recorder:
        call = {"client": client.function, "url": recorder.url, "queries": QUERIES}
        program = ["node"] if client.environment.npm else [client.environment.python]
        process = subprocess.run(
            [*program, str(SCRIPTS / client.script)],
            input=json.dumps(call),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env=child_environment(
                {"INTEROP_MODULES": str(client.environment.folder / "node_modules"), **client.variables}
            ),
            cwd=HOME,
        )
        exchanges = recorder.take()
    if process.returncode:
        lines = [line for line in process.stderr.strip().splitlines() if line.strip()] or ["no output"]
        (HOME / "logs" / f"{client.slug}.log").write_text(process.stderr, "utf-8")
        reason = f"it raised {_one_line(lines[-1])}"
        if client.known_fault and re.search(client.known_fault[0], process.stderr):
            return _row("client", client.name, version, client.path, f"their fault: {client.known_fault[1]}")
        return _row("client", client.name, version, client.path, f"wrong: {reason}")
    scored = [[(index, score) for index, score in results] for results in json.loads(process.stdout.splitlines()[-1])]
    difference, problem = compare(expected, scored)
    verdict = _verdict(difference, problem, TOLERANCE, None)
    _record(f"client-{client.name}", {"client": client.name, "version": version, "date": TODAY}, exchanges, scored)
    return _row("client", client.name, version, client.path, verdict, difference)


def _verdict(difference: float, problem: str, tolerance: float, known_fault: str | None) -> str:
    if not problem and difference <= tolerance:
        return "right"
    if known_fault is not None:
        return f"their fault: {known_fault}"
    return f"wrong: {problem or f'a score is off by {difference:.1e}'}"


def _record(
    name: str, about: dict[str, Any], exchanges: list[dict[str, Any]], scored: list[list[tuple[int, float]]]
) -> None:
    """Write what passed over the wire, without the addresses of this machine."""
    text = json.dumps({**about, "scored": scored, "exchanges": exchanges}, indent=1, ensure_ascii=False)
    text = text.replace(str(ROOT), "/repository")
    EXCHANGES.mkdir(exist_ok=True)
    file = EXCHANGES / (re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-") + ".json")
    file.write_text(text + "\n", "utf-8")


def _row(kind: str, name: str, version: str, through: str, verdict: str, difference: float | None = None) -> Row:
    return Row(
        kind=kind, name=name, version=version, through=through, verdict=verdict, difference=difference, date=TODAY
    )


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:400]


def _chosen(things: Sequence[Any], only: Sequence[str]) -> list[Any]:
    return [thing for thing in things if not only or any(part.lower() in thing.name.lower() for part in only)]


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def main() -> int:
    """Run what the command line names; the exit code is 1 where a row is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", action="append", default=[], metavar="PART", help="servers and clients with this in the name"
    )
    parser.add_argument(
        "--kind", choices=("server", "client", "sdk"), help="only servers, only clients, or only vendors' packages"
    )
    parser.add_argument("--keep", action="store_true", help="leave the servers' environments on the disk")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="folder of interoperability.md and .json")
    options = parser.parse_args()
    sdks = [name for name in PACKAGES if not options.only or any(part.lower() in name for part in options.only)]
    if not _chosen([*CLIENTS, *SERVERS], options.only) and not sdks:
        parser.error(f"--only {options.only} is part of no name")
    signal.signal(signal.SIGTERM, _terminated)
    # A program started in the background of a shell ignores Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    (HOME / "logs").mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    rows: list[Row] = []
    try:
        checkpoint = cross_encoder(HOME / "checkpoints" / MODEL)
        expected = expected_scores(checkpoint)
        silent = record_sdks(sdks) if options.kind in (None, "sdk") and sdks else 0
        if silent:
            print("a vendor's package sent no request: see above")
        if options.kind == "sdk":
            return int(bool(silent))
        if options.kind != "server" and (clients := _chosen(CLIENTS, options.only)):
            with our_server(checkpoint) as address:
                for client in clients:
                    print(f"[{time.monotonic() - start:5.0f} s] client {client.name}", flush=True)
                    rows.append(run_client(client, address, expected))
        if options.kind != "client":
            servers = _chosen(SERVERS, options.only)
            for number, server in enumerate(servers, 1):
                print(f"[{time.monotonic() - start:5.0f} s] server {server.name}", flush=True)
                rows += run_server(server, checkpoint, expected)
                needed = any(later.environment is server.environment for later in servers[number:])
                if server.large and not options.keep and not needed:
                    server.environment.remove()
    finally:
        end_all()
    written = merge(options.output / "interoperability.json", rows)
    (options.output / "interoperability.md").write_text(markdown(written), "utf-8")
    print(table(rows))
    minutes = (time.monotonic() - start) / 60
    print(f"{len(rows)} rows in {minutes:.1f} minutes on {platform.machine()}, {os.cpu_count()} cores")
    return int(bool(silent) or any(row.failed for row in rows))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was written, and every server is ended")
