"""Keeps the optimised graph of a model in files, so that the next process maps them instead of making the graph again.

onnxruntime reads a model's file, restores weights that are stored as integers, fuses operators and packs matrices for
this processor. For `embedded` that is the longest part of a first call, and the one that needs most memory. The result
depends on the file, on onnxruntime and on the processor, which are the key of an entry.

An entry is a folder: the graph, the weights beside it, and a manifest with the SHA-256 of both. It appears in one
atomic step. It is read only if it belongs to this user, nobody else may write to it, and its files have the digests of
the manifest. Anything else is reported, and the entry is written anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import mmap
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from ...core.errors import ConfigError, clause
from ...core.file_paths import private_status
from ...core.redaction import one_line
from .. import no_telemetry
from ..files import cache_folder, json_of, stat_signature

__all__ = ["GRAPH", "VARIABLE", "WEIGHTS", "GraphCache", "graph_cache"]

T = TypeVar("T")

VARIABLE = "RERANK_PLUGINS_GRAPH_CACHE"
"""The environment variable with the folder in which the cache gets its own one, or a value of `_OFF` or `_ON`."""
GRAPH, WEIGHTS = "graph.onnx", "weights.bin"
_MANIFEST = "manifest.json"
_FORMAT = "1"
"""Part of every key. Raise it when older entries can no longer be used."""
_MAX_ENTRIES = 4
"""Entries that stay: each has about 100 MB, and those of older versions are never read again."""
_OFF, _ON = ("0", "off", "no", "false"), ("1", "on", "yes", "true")
_NEW = ".new-graph-"
_ENTRY = re.compile("[0-9a-f]{32}")
_PART = 2**25
"""A multiple of the size of a page, as the start of a map must be."""
_log = logging.getLogger("rerank_plugins")


class _Refused(Exception):
    """An entry must not be read, or a folder must not be written to. The message says why."""


def graph_cache(model_digest: str) -> GraphCache | None:
    """Return where onnxruntime's optimised graph of a model is cached; `None` if the cache is off.

    It is off if the environment says so, without a home folder, and on systems other than Linux: there the package
    does not know which instructions the processor has, and packed matrices depend on them.

    Args:
        model_digest: The digest of the model's file.
    """
    value = os.environ.get(VARIABLE, "").strip()
    instructions, installation = _instruction_set(), _installation()
    if value.lower() in _OFF or instructions is None or installation is None:
        return None
    try:
        named = value and value.lower() not in _ON
        # Old entries are deleted, so they never lie among the user's own folders.
        root = Path(value).expanduser().absolute() / "rerank_plugins-graphs" if named else cache_folder() / "graphs"
    except RuntimeError:  # there is no home folder
        return None
    key = {"format": _FORMAT, "model": model_digest, "installation": installation, "instructions": instructions}
    return GraphCache(root, key, no_telemetry.onnxruntime_version)


def _installation() -> str | None:
    """Return the path and the age of the installed onnxruntime, without importing it; `None` if there is none.

    Two environments may have different versions, and each has its own entry.
    """
    spec = find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return None
    return f"{spec.origin} {stat_signature(Path(spec.origin))[:2]}"


def _instruction_set() -> str | None:
    """Return a hash of the instructions that the processor has; `None` if they are not known."""
    if sys.platform != "linux":
        return None
    try:
        with Path("/proc/cpuinfo").open("rb") as lines:
            for line in lines:  # the first processor's; the others have the same
                if line.startswith((b"flags", b"Features", b"isa", b"features")):
                    return f"{os.uname().machine} {hashlib.sha256(line).hexdigest()[:32]}"
    except OSError:
        return None
    return None


class GraphCache:
    """The entry of one key in the folder `root`."""

    def __init__(self, root: Path, key: Mapping[str, str], version: Callable[[], str]) -> None:
        """Set the folder and the key. Nothing is read or written.

        Args:
            root: The folder of all entries.
            key: What the entry depends on, as far as it is known before the runtime is imported.
            version: Imports the runtime and returns its version. An entry of another version is not read.
        """
        self.root, self.key, self._version = root, dict(key), version
        name = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()[:32]
        self.folder = root / name

    def load(self, open_graph: Callable[[Path], T]) -> T | None:
        """Return `open_graph(file)` for the cached graph; `None` if there is no entry, or if it must not be used.

        The weights are hashed on another thread while the runtime is imported and the graph is opened.
        """
        try:
            manifest = self._checked_manifest()
            recorded = manifest["files"]
            with ThreadPoolExecutor(1, "rerank-digest") as thread:
                others = {name: thread.submit(_sha256, self.folder / name) for name in recorded if name != GRAPH}
                if manifest.get("version") != self._version():
                    raise _Refused("it is of another version of onnxruntime")
                self._compare(GRAPH, _sha256(self.folder / GRAPH), recorded)
                loaded = open_graph(self.folder / GRAPH)
                for name, digest in others.items():
                    self._compare(name, digest.result(), recorded)
            return loaded
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:  # the runtime's errors share no base class
            _log.warning("The cached graph %s is not used (%s).", one_line(str(self.folder)), clause(error))
            return None

    def write(self, build: Callable[[Path], T]) -> T | None:
        """Return `build(file)`, which writes the graph to `file` and its weights beside it; then keep both.

        Only one process writes at a time. Returns `None` if that is another one, or if nothing can be written.
        """
        import shutil
        import tempfile

        built: T | None = None
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            private_status(self.root, stat.S_ISDIR)
            with _exclusive(self.root / ".lock"):
                for stopped in self.root.glob(f"{_NEW}*"):  # of a writer that was killed, since this one has the lock
                    shutil.rmtree(stopped, ignore_errors=True)
                with tempfile.TemporaryDirectory(prefix=_NEW, dir=self.root, ignore_cleanup_errors=True) as beside:
                    new = Path(beside) / "new"
                    new.mkdir(mode=0o700)
                    built = build(new / GRAPH)
                    self._write_manifest(new)
                    if self.folder.exists():
                        self.folder.replace(Path(beside) / "old")
                    new.replace(self.folder)
                self._delete_old_entries()
        except Exception as error:  # the runtime's errors share no base class; what `build` returned is usable
            _log.info("The optimised graph is not cached in %s (%s).", one_line(str(self.root)), clause(error))
        return built

    def _checked_manifest(self) -> dict[str, Any]:
        """Return the manifest, after a check of owners, modes, key and sizes.

        Raises:
            FileNotFoundError: There is no entry.
            NotPrivate: Others can change it.
            _Refused: The entry must not be read.
        """
        for folder in (self.root, self.folder):
            private_status(folder, stat.S_ISDIR)
        private_status(self.folder / _MANIFEST, stat.S_ISREG)
        try:
            manifest = json_of(self.folder / _MANIFEST)
            sizes = {str(name): int(size) for name, (size, _) in manifest["files"].items()}
        except (ConfigError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise _Refused(f"{_MANIFEST} cannot be read") from error
        if manifest.get("key") != self.key:
            raise _Refused("it is of another model or processor")
        if GRAPH not in sizes or not all(name == Path(name).name for name in sizes):
            raise _Refused(f"{_MANIFEST} cannot be read")
        for name, size in sizes.items():
            # Before the file is mapped: reading a map beyond the end of its file kills the process.
            if private_status(self.folder / name, stat.S_ISREG).st_size != size:
                raise _Refused(f"{name} has another size than when it was written")
        return manifest

    @staticmethod
    def _compare(name: str, digest: str, recorded: Mapping[str, Any]) -> None:
        if digest != recorded[name][1]:
            raise _Refused(f"{name} has another digest than when it was written")

    def _write_manifest(self, folder: Path) -> None:
        files: dict[str, list[Any]] = {}
        for file in sorted(folder.iterdir()):
            file.chmod(0o600)
            files[file.name] = [file.stat().st_size, _sha256(file)]
        manifest = folder / _MANIFEST
        manifest.touch(mode=0o600)
        manifest.write_text(
            json.dumps({"key": self.key, "version": self._version(), "files": files}, indent=1), "utf-8"
        )

    def _delete_old_entries(self) -> None:
        import shutil

        entries = [(path.stat().st_mtime_ns, path) for path in self.root.iterdir() if _is_entry(path)]
        for _, path in sorted(entries, reverse=True)[_MAX_ENTRIES:]:
            if path != self.folder:
                shutil.rmtree(path, ignore_errors=True)


def _is_entry(folder: Path) -> bool:
    """Tell whether a folder is an entry of a cache, by its name and its manifest, and not something of the user's."""
    if not _ENTRY.fullmatch(folder.name) or folder.is_symlink():
        return False
    try:
        return "format" in json_of(folder / _MANIFEST)["key"]
    except (ConfigError, OSError, KeyError, TypeError):
        return False


@contextlib.contextmanager
def _exclusive(file: Path) -> Iterator[None]:
    """Hold the lock of a file, which the system releases when the process ends, however it ends.

    Raises:
        OSError: Another process holds it, or the file system has no locks.
    """
    import fcntl

    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child of a fork has the file open too, and would keep the lock
    finally:
        os.close(descriptor)


def _sha256(file: Path) -> str:
    """Return the digest of a file, which is mapped in large parts.

    Between two parts this thread waits for the interpreter lock, which others hold for long while they import the
    runtime and parse the tokenizer. A map needs no copy. Only one part is mapped at a time, since the process's memory
    includes it.
    """
    digest = hashlib.sha256()
    with file.open("rb") as data:
        size = os.fstat(data.fileno()).st_size
        for start in range(0, size, _PART):
            length = min(_PART, size - start)
            with mmap.mmap(data.fileno(), length, access=mmap.ACCESS_READ, offset=start) as part:
                digest.update(part)
    return digest.hexdigest()
