"""The folder of a run: its frozen configuration, and a log that only grows and has one writer at a time.

    run.json        what is run: dataset, strategies, models, prompts, versions; written once
    records.jsonl   one line per finished search
    lock            held by the process that writes

A process may be killed at any moment: a line is written by one call, and one that was torn off is cut away when the run
goes on. What is already in the log is not run again.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import orjson

from asearch.errors import AsearchError, UsageError
from asearch.evaluation.records import BadRecord, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CONFIG, LOG, LOCK = "run.json", "records.jsonl", "lock"
SHOWN = 5  # differences that a message names


class RunFailed(AsearchError):
    """A run cannot go on, and what is in its log is safe."""


class InUse(RunFailed):
    """Another process writes to the folder."""


def read_records(run: str | Path) -> Iterator[Record]:
    """The records of a run folder, or of a log by its name, one after another.

    A last line that was torn off is left out, so that a run can be looked at while it is written.

    Raises:
        UsageError: there is no such run.
        BadRecord: a line is damaged; names it.
    """
    file = Path(run) / LOG if Path(run).is_dir() else Path(run)
    if not file.exists():
        raise UsageError(f"{run} is no run: there is no {file}")
    with file.open("rb") as log:
        for _, record in _lines(log, file):
            yield record


def read_config(run: str | Path) -> dict[str, Any]:
    """The frozen configuration of a run folder.

    Raises:
        UsageError: there is none, or it cannot be read.
    """
    file = Path(run) / CONFIG
    try:
        config: dict[str, Any] = orjson.loads(file.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{run} is no run: there is no {file}") from None
    except orjson.JSONDecodeError as failure:
        raise UsageError(f"{file} is damaged: {failure}") from None
    return config


def _lines(log: IO[bytes], file: Path) -> Iterator[tuple[int, Record]]:
    """Each record with the place in the file where its line ends; what was torn off at the end is left out."""
    end = 0
    bad: BadRecord | None = None
    for number, line in enumerate(log, start=1):
        if bad is not None:
            raise bad
        try:
            if not line.endswith(b"\n"):
                break
            record = Record.from_line(line)
        except BadRecord as failure:  # the last line may be broken, no other
            bad = BadRecord(f"{file}, line {number}: {failure}; mend or remove the line")
            continue
        end += len(line)
        yield end, record


class RunFolder:
    """A run that this process writes to, alone. Use `opened`.

    Args:
        path: of the folder.
        log: the file that grows, open.
        size: its length in bytes.
    """

    def __init__(self, path: Path, log: IO[bytes], size: int) -> None:
        self.path = path
        self.written = 0
        self._log = log
        self._size = size

    def append(self, record: Record) -> None:
        """Write a record, whole or not at all.

        Raises:
            RunFailed: the disk is full, or gone.
        """
        line = record.to_line()
        try:
            self._write(line)
        except OSError as failure:
            self._cut()
            raise RunFailed(
                f"cannot write to {self.path / LOG}: {failure.strerror or failure}; what was finished before is safe, "
                "and the same command goes on from there"
            ) from failure
        self._size += len(line)
        self.written += 1

    def _write(self, line: bytes) -> None:
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(self._log.fileno(), rest) :]

    def _cut(self) -> None:
        """Take back the beginning of a line; where even that fails, the next start will."""
        try:
            os.ftruncate(self._log.fileno(), self._size)
        except OSError:
            return


@contextmanager
def opened(
    path: Path, config: Mapping[str, Any], *, ignored: tuple[str, ...] = (), seen: Callable[[Record], None]
) -> Iterator[RunFolder]:
    """A run folder to write to: made where it is not there yet, gone on with where it is.

    Args:
        path: of the folder.
        config: what is to be run; frozen in the folder on the first time.
        ignored: names of the configuration's entries that may differ from the folder's.
        seen: is told each record that is there already.

    Raises:
        UsageError: the folder holds another run.
        InUse: another process writes to it.
        RunFailed: it cannot be written to.
        BadRecord: its log is damaged, and not only at its end.
    """
    with ExitStack() as stack:
        try:
            path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(path))
            _freeze(path, config, ignored)
            log = stack.enter_context((path / LOG).open("ab", buffering=0))
            size = _repair(path / LOG, seen)
        except OSError as failure:
            raise RunFailed(f"cannot write to {path}: {failure.strerror or failure}") from failure
        yield RunFolder(path, log, size)
        os.fsync(log.fileno())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system takes back however the process ends."""
    try:
        import fcntl
    except ImportError:
        raise RunFailed("runs can be written on POSIX systems only: their folders are locked with flock") from None
    with (path / LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            who = lock.read().strip() or "unknown"
            raise InUse(
                f"{path} is being written by another process ({who}); wait for it, or use another folder"
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        lock.flush()
        yield


def _freeze(path: Path, config: Mapping[str, Any], ignored: tuple[str, ...]) -> None:
    """Write the configuration on the first time, and compare it with what is there later."""
    file = path / CONFIG
    if not file.exists():
        if (path / LOG).exists() and (path / LOG).stat().st_size:
            raise UsageError(f"{path} has records, but no {CONFIG} that says of what; use another folder")
        replace_file(file, orjson.dumps(config, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        return
    now = orjson.loads(orjson.dumps(config))
    found = list(differences(_comparable(read_config(path), ignored), _comparable(now, ignored)))
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise UsageError(
            f"{path} holds another run, which would be mixed with this one: {'; '.join(found[:SHOWN])}{more}. "
            "Use the same configuration to go on with it, or another folder"
        )


def _without(config: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The configuration without entries of these names, wherever they stand."""
    return {
        key: _without(value, names) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in names
    }


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Where two configurations differ, as 'name: this in the folder, that now'."""
    if old is None or new is None:
        if old is not new:
            yield f"{where} is {shown(new)} now and not in the folder" if old is None else f"{where} is missing now"
    elif isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from differences(a, b, f"{where}[{i}]")
    elif old != new:
        yield f"{where} is {shown(old)} in the folder and {shown(new)} now"


def _comparable(config: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The configuration without what may differ, its strategies by name, so that a difference is said in these terms."""
    entries = {f"{entry['label']}, n={entry['strategy']['n']}": entry for entry in config.get("entries", ())}
    return _without({**config, "entries": entries}, names)


def shown(value: Any, width: int = 60) -> str:
    """A value for a message."""
    text = orjson.dumps(value).decode()
    return text if len(text) <= width else text[: width - 1] + "…"


def _repair(file: Path, seen: Callable[[Record], None]) -> int:
    """Cut off a torn last line, and tell which records are there; returns the length of the log."""
    end = 0
    with file.open("r+b") as log:
        for end, record in _lines(log, file):  # noqa: B007 - used after the loop
            seen(record)
        log.truncate(end)
    return end


def replace_file(file: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with beside.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
