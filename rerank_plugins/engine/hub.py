"""A model by its hub name → a folder on this machine: fetched once, recorded, and refused when it is not the same later.

At first use the commit and the SHA-256 of every file taken are written down; from then on that commit is the model,
wherever its branch has moved to. Only weights in safetensors or ONNX form, JSON and tokenizers are taken (and, by `archive`,
zip files of these).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, RerankError, TransientError, clause
from .hub_answers import checked_answers, refuse_commit, refuse_names
from .hub_errors import told
from .pins import Record, locked

__all__ = ["SMALL_FILES", "Repository", "age", "cache_folder", "onnx_files", "torch_files", "touched"]

SMALL_FILES = (
    "config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
"""What is read beside the weights."""


def onnx_files(names: Sequence[str]) -> list[str]:
    """Return what the ONNX engine needs of a repository: one model with its outside weights, and the small files.

    Raises:
        ConfigError: There is no ONNX file, or several and none is the plain one, or no tokenizer.
    """
    models = [name for name in names if name.endswith(".onnx") and name.count("/") <= 1]
    known = [name for name in ("model.onnx", "onnx/model.onnx") if name in models]
    if not known and len(models) != 1:
        told = f"several ({', '.join(sorted(models)[:4])})" if models else "none"
        raise ConfigError(f"of ONNX files it has {told}; use sentence-transformers:… for its PyTorch weights")
    model = (known or models)[0]
    outside = [name for name in names if name.startswith((f"{model}_data", f"{model}.data"))]
    return [model, *outside, *_small(names)]


def torch_files(names: Sequence[str], *, code: bool = False) -> list[str]:
    """Return what the torch engine needs of a repository: safetensors, JSON, the parts of sentence-transformers.

    Raises:
        ConfigError: There are no safetensors, or no tokenizer.
    """
    weights = [name for name in names if name.endswith(".safetensors") and _part(name)]
    if not any("/" not in name for name in weights):
        raise ConfigError("it has no safetensors weights (pickled ones can run code and are not read)")
    # A chat template is not read, but tells a model that is refused.
    parts = [name for name in names if (name.endswith(".json") or name == "chat_template.jinja") and _part(name)]
    ours = [name for name in names if code and name.endswith(".py")]
    return list(dict.fromkeys([*weights, *_small(names), *parts, *ours]))


def _part(name: str) -> bool:
    """Tell whether a file lies at the top, or in a folder of sentence-transformers' modules (`2_Dense`)."""
    folder, _, rest = name.rpartition("/")
    return not folder or ("/" not in folder and folder[:1].isdigit() and bool(rest))


def _small(names: Sequence[str]) -> list[str]:
    if "tokenizer.json" not in names:
        raise ConfigError("it has no tokenizer.json")
    return [name for name in SMALL_FILES if name in names]


def cache_folder() -> Path:
    """Return where this package keeps what it writes down."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rerank_plugins"


@dataclass(frozen=True, slots=True)
class Repository:
    """One model of a hub, at one revision."""

    name: str
    """`org/name`."""
    spec: str
    """For `rerank-plugins fetch`, in errors."""
    choose: Callable[[Sequence[str]], list[str]]
    """From all files of the repository those that are needed; raises `ConfigError` with half a sentence."""
    revision: str | None = None
    local_files_only: bool = False
    file: str | None = None
    """The one file that is the model, in a repository that holds many models."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """What else the spec must say for the same files to be fetched."""

    def __post_init__(self) -> None:
        """Refuse what YAML makes of a commit that is all digits, say."""
        if not isinstance(self.revision, str | None):
            raise ConfigError(f"revision {self.revision!r} is no text: write a branch, tag or commit in quotes.")

    @property
    def record(self) -> Path:
        """Where commit and hashes of the first use are written down."""
        model = f"{self.name}/{self.file}" if self.file else self.name
        named = f"{model}@{self.revision or 'main'}".replace("/", "--")
        return cache_folder() / "models" / f"{named}.json"

    @property
    def command(self) -> str:
        """What fetches it."""
        spec = {"use": self.spec, **({"revision": self.revision} if self.revision else {}), **self.more}
        return f"rerank-plugins fetch {self.spec if len(spec) == 1 else shlex.quote(json.dumps(spec))}"

    def at_hand(self) -> Path | None:
        """Return the folder if it was fetched before and nobody has touched it since; asks no network, reads no weights."""
        record = Record.read(self.record)
        if record is None:
            return None
        folder = self._cached(record.commit)
        if folder is None:
            return None
        try:
            same = all(record.seen.get(str(folder / name)) == age(folder / name) for name in self._wanted(record.all))
        except (OSError, ConfigError):
            return None
        return folder if same else None

    def fetch(self) -> Path:
        """Return the folder, from the cache or the hub; blocks.

        Raises:
            ConfigError: No such repository, revision or file; not the files of the first use; nowhere to write them; or
                not at hand, and the network is off.
            TransientError: The hub cannot be reached now, or what came was damaged.
        """
        at_hand, record = self.at_hand(), Record.read(self.record)
        if at_hand is not None and (record is None or record.complete or self._offline()):
            return at_hand  # of a cache that others filled it is not known whether that is all
        try:
            commit, names, complete = self._listed(record)
            wanted = self._wanted(names)
            folder = self._cached(commit)
            missing = [name for name in wanted if folder is None or not (folder / name).is_file()]
            if folder is None or missing:
                folder = self._downloaded(commit, wanted, missing)
            seen = {str(folder / name): age(folder / name) for name in wanted}
            files = {name: _sha256(folder / name) for name in wanted}
        except RerankError:
            raise
        except Exception as error:  # the hub's client raises its own, its HTTP library's, and the disk's
            raise self._failed(error, record) from error
        if complete and record is None:
            self._refer(folder, commit)
        self._refuse_damage(folder, {name: files[name] for name in missing}, came=True)
        if record is not None:
            self._refuse_change(record, files, folder)
        known = record.files if record else {}
        self._refuse_damage(folder, {name: each for name, each in files.items() if name not in known}, came=False)
        held = self._write_down(Record(commit, names, files, seen, complete), folder)
        return folder if held == commit else self.fetch()

    def _listed(self, record: Record | None) -> tuple[str, list[str], bool]:
        """Return the commit, the names of all files, and whether the hub has listed them or only the cache holds them."""
        if record is not None and record.complete:
            return record.commit, record.all, True
        revision = record.commit if record else self.revision or "main"
        error: Exception | None = None
        if not self._offline():
            from huggingface_hub import HfApi, constants
            from huggingface_hub.errors import RevisionNotFoundError

            try:
                found = HfApi().model_info(self.name, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
                # A mirror may tell another commit than was asked for; the recorded one is the model.
                commit = record.commit if record else refuse_commit(str(found.sha), self.name)
                return commit, refuse_names([e.rfilename for e in found.siblings or ()], self.name), True
            except (RevisionNotFoundError, ConfigError):
                raise
            except Exception as refused:  # or unreachable: what is in the cache serves, as the hub's own client has it
                error = refused
        folder = self._cached(revision)
        if folder is None:
            raise error or self._missing("")
        names = _held(folder)
        try:
            self.choose(names)
        except ConfigError as lacks:  # of the cache, which tells nothing of the repository
            raise error or self._missing(str(lacks)) from None
        return folder.name, names, False

    def _downloaded(self, commit: str, wanted: Sequence[str], missing: Sequence[str]) -> Path:
        if self._offline():
            raise self._missing("" if len(missing) == len(wanted) else f"it lacks {', '.join(missing)}")
        from huggingface_hub import hf_hub_download

        # The largest last: what is wrong with a repository shows before the wait.
        with checked_answers(self.name):
            paths = [Path(hf_hub_download(self.name, name, revision=commit)) for name in reversed(wanted)]
        top = paths[-1]
        for _ in Path(wanted[0]).parts:
            top = top.parent
        return top

    def _cached(self, revision: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        for name in (self.file,) if self.file else ("config.json", "tokenizer.json"):
            found = try_to_load_from_cache(self.name, name, revision=revision)
            if isinstance(found, str):
                return Path(found).parent
        return None

    def _refer(self, folder: Path, commit: str) -> None:
        """Tell the hub's cache which commit the revision is, as its own client does, which was asked by the commit.

        So the cache alone serves offline, on a machine or for a user without our record.
        """
        revision = self.revision or "main"
        if revision != commit and folder.name == commit:
            ref = folder.parent.parent / "refs" / revision
            with contextlib.suppress(OSError):
                ref.parent.mkdir(parents=True, exist_ok=True)
                ref.write_text(commit, "utf-8")

    def _wanted(self, names: Sequence[str]) -> list[str]:
        try:
            return self.choose(names)
        except ConfigError as error:
            raise ConfigError(f"{self.name} cannot be used as {self.spec}: {clause(error)}.") from None

    def _offline(self) -> bool:
        from huggingface_hub import constants

        return self.local_files_only or constants.HF_HUB_OFFLINE

    def _missing(self, lacks: str) -> ConfigError:
        found = f"is not whole on this machine ({lacks})" if lacks else "is not on this machine"
        return ConfigError(
            f"{self.name} {found}, and fetching is off (local_files_only or HF_HUB_OFFLINE). Where there is a network, "
            f"run: {self.command}"
        )

    def _failed(self, error: Exception, record: Record | None) -> RerankError:
        recorded = (record.commit, self.record) if record else None
        return told(error, self.name, spec=self.spec, command=self.command, revision=self.revision, recorded=recorded)

    # --- what was seen at first use ---

    def _write_down(self, new: Record, folder: Path) -> str:
        """Add to what is recorded, and return the commit that is; raises `ConfigError` for other files than of the first use."""
        try:
            with locked(self.record):
                known = Record.read(self.record)
                if known is None:
                    new.write(self.record)
                elif known.commit == new.commit:
                    self._refuse_change(known, new.files, folder)
                    listed = known if known.complete else new
                    both = known.files | new.files, known.seen | new.seen
                    Record(known.commit, listed.all, *both, listed.complete).write(self.record)
                return known.commit if known else new.commit
        except OSError as error:
            known = Record.read(self.record)
            if known is not None and known.commit == new.commit:
                self._refuse_change(known, new.files, folder)
                if known.files.items() >= new.files.items():
                    return known.commit  # all of it was known: a cache for reading only, that was copied here, say
            raise ConfigError(
                f"{self.record} cannot be written ({error.strerror}): set XDG_CACHE_HOME to a folder that can."
            ) from error

    def _refuse_change(self, known: Record, files: Mapping[str, str], folder: Path) -> None:
        for name, digest in files.items():
            if known.files.get(name, digest) != digest:
                raise ConfigError(
                    f"{name} of {self.name} is not the file of the first use (commit {known.commit[:12]}, SHA-256 "
                    f"{known.files[name][:12]}…, now {digest[:12]}…). To fetch it again, delete "
                    f"{(folder / name).resolve()}; to accept the change, delete {self.record}."
                )

    def _refuse_damage(self, folder: Path, files: Mapping[str, str], *, came: bool) -> None:
        """See that files are what the hub said that they would be, where its cache has that in writing.

        The hub's client looks at sizes only. What has just come, and damaged, is taken away: the next try fetches it.
        """
        for name, digest in files.items():
            promised = _promised(folder / name)
            if promised is None or promised == digest:
                continue
            where = (folder / name).resolve()
            damage = f"{name} of {self.name} is damaged (SHA-256 {digest[:12]}…, and {promised[:12]}… on the hub)"
            if not came:
                raise ConfigError(f"{damage}: delete {where}, and run: {self.command}")
            where.unlink(missing_ok=True)
            raise TransientError(f"{damage}. Try again, or run: {self.command}", backend=self.spec)


def _held(folder: Path) -> list[str]:
    """Return the names of all files in a cached folder, and of the weights that belong to it but are not there."""
    names = [each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()]
    for index in folder.glob("*.safetensors.index.json"):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a broken one is found when it is loaded
            names += map(str, json.loads(index.read_text("utf-8"))["weight_map"].values())
    return list(dict.fromkeys(names))


def _promised(file: Path) -> str | None:
    """Return the SHA-256 that the hub has told of a large file: in its cache, the name of what the file links to."""
    try:
        named = file.readlink().name
    except OSError:  # no link: a cache without them does not tell
        return None
    return named if re.fullmatch(r"[0-9a-f]{64}", named) else None


def age(file: Path) -> list[int]:
    """Return a file's size and times of change (the second nobody can set): what tells that nobody has touched it since."""
    found = file.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def touched(was: Mapping[Path, list[int]]) -> None:
    """Record anew how old files are that this package has linked to for a moment: else they are hashed at every start.

    `was` is the age of each before. What had been changed by then, or has been written to since, stays as recorded.
    """

    def seen(record: Record) -> dict[str, list[int]]:
        now = {str(file): (before, age(file)) for file, before in was.items() if record.seen.get(str(file)) == before}
        return {file: after for file, (before, after) in now.items() if before[:2] == after[:2]}

    with contextlib.suppress(OSError, ConfigError):  # where that cannot be, they are hashed
        for file in (cache_folder() / "models").glob("*.json"):
            if (record := Record.read(file)) and seen(record):
                with locked(file):
                    if record := Record.read(file):
                        replace(record, seen=record.seen | seen(record)).write(file)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
