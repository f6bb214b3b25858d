"""Append-only shards of finished records: what survives when a labelling run is killed.

A shard is a ``.jsonl.gz`` file (readable with ``zcat``) in which every record is a gzip member of its own,
flushed to the disk batch by batch. A run killed in the middle of a write leaves a torn last
member, which the next run recognises by its checksum, skips, and computes again. Every run writes a new
shard; none is ever changed.
"""

from __future__ import annotations

import errno
import gzip
import json
import logging
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from filelock import FileLock, Timeout

from hint_plugins.errors import HintError

logger = logging.getLogger(__name__)

_MAGIC = b"\x1f\x8b\x08"
_CHUNK = 1 << 16


class ShardError(HintError, RuntimeError):
    """Records cannot be stored; the message says why and what is safe."""


class Place(NamedTuple):
    """Where a record lies, and whether it holds a label."""

    shard: int
    offset: int
    done: bool


class ShardStore:
    """Records by key in a directory, one writer at a time.

    Parameters
    ----------
    directory
        Created if missing.
    manifest
        Everything that decides the labels. Records made under another manifest are never mixed in.
    fresh
        Discard what the directory holds.

    Raises
    ------
    ShardError
        If another run writes here, or the directory holds labels of another kind.
    """

    def __init__(self, directory: Path, manifest: dict[str, Any], *, fresh: bool = False) -> None:
        self.directory = directory
        self._handle: Any = None
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(directory / "lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ShardError(f"another run is writing to {directory}; wait for it, or choose another output") from None
        except OSError as error:
            raise ShardError(f"cannot write into {directory}: {error.strerror}") from error
        try:
            if fresh:
                for path in [directory / "run.json", *directory.glob("part-*.jsonl.gz")]:
                    path.unlink(missing_ok=True)
            self._check_manifest(manifest)
            self.paths = sorted(directory.glob("part-*.jsonl.gz"))
            self.places: dict[str, Place] = {}
            for number, path in enumerate(self.paths):
                for offset, record in _scan(path):
                    self._remember(record, Place(number, offset, record["status"] == "done"))
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> ShardStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the files and the lock."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None
        self._lock.release()

    def _check_manifest(self, manifest: dict[str, Any]) -> None:
        path = self.directory / "run.json"
        wanted = json.loads(json.dumps(manifest, sort_keys=True))
        if path.exists() and any(self.directory.glob("part-*.jsonl.gz")):
            try:
                found = json.loads(path.read_text())
            except ValueError as error:
                raise ShardError(f"{path} is damaged: {error}") from error
            differing = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
            if differing:
                changes = "; ".join(f"{k}: {found.get(k)!r} there, {wanted.get(k)!r} now" for k in differing)
                raise ShardError(
                    f"{self.directory} holds labels made otherwise ({changes}). "
                    "Choose another output, or start again with --overwrite"
                )
        else:
            from hint_plugins.runs.files import write_json

            write_json(path, wanted)

    def _remember(self, record: dict[str, Any], place: Place) -> None:
        known = self.places.get(record["key"])
        if known is None or not known.done:
            self.places[record["key"]] = place

    def append(self, records: Iterable[dict[str, Any]]) -> None:
        """Store records; on return they are on the disk.

        Raises
        ------
        ShardError
            If the disk is full or fails. What was stored before stays valid.
        """
        if self._handle is None:
            self._new_shard()
        start = position = self._handle.tell()
        placed = []
        try:
            for record in records:
                member = gzip.compress((json.dumps(record) + "\n").encode(), compresslevel=1, mtime=0)
                _write_all(self._handle, member)
                placed.append((record, Place(len(self.paths) - 1, position, record["status"] == "done")))
                position += len(member)
            os.fsync(self._handle.fileno())
        except OSError as error:
            self._undo(start)
            reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
            raise ShardError(
                f"cannot store labels in {self.directory}: {reason}. "
                f"{len(self.places)} finished records are safe; make room and run the same command again"
            ) from error
        for record, place in placed:
            self._remember(record, place)

    def _new_shard(self) -> None:
        number = 1 + max((int(p.name[5:].partition(".")[0]) for p in self.paths), default=-1)
        path = self.directory / f"part-{number:05d}.jsonl.gz"
        try:
            self._handle = path.open("xb", buffering=0)
        except OSError as error:
            raise ShardError(f"cannot create {path}: {error.strerror}") from error
        self.paths.append(path)

    def _undo(self, offset: int) -> None:
        try:
            self._handle.truncate(offset)
            self._handle.seek(offset)
        except OSError:
            logger.warning("a torn record stays in %s; the next run will skip it", self.paths[-1])

    def get(self, key: str) -> dict[str, Any]:
        """Read one record back."""
        place = self.places[key]
        with self.paths[place.shard].open("rb") as handle:
            return _read_member(handle, place.offset)[0]

    def forget_failures(self) -> None:
        """Treat failed structures as never tried."""
        self.places = {key: place for key, place in self.places.items() if place.done}


def _write_all(handle: Any, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[handle.write(view) :]


def _read_member(handle: BinaryIO, offset: int) -> tuple[dict[str, Any], int]:
    """The record that starts at ``offset``, and its length in bytes; ValueError if it is damaged."""
    handle.seek(offset)
    stream = zlib.decompressobj(wbits=31)
    parts, consumed = [], 0
    try:
        while not stream.eof:
            chunk = handle.read(_CHUNK)
            if not chunk:
                raise ValueError("the record is not complete")
            parts.append(stream.decompress(chunk))
            consumed += len(chunk)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    return json.loads(b"".join(parts)), consumed - len(stream.unused_data)


def _scan(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Whole records of a shard with their offsets; torn or damaged ones are reported and skipped."""
    size = path.stat().st_size
    offset = 0
    with path.open("rb") as handle:
        while offset < size:
            try:
                record, length = _read_member(handle, offset)
            except ValueError as error:
                logger.warning("%s: damaged record at byte %d (%s); it is computed again", path, offset, error)
                handle.seek(offset + 1)
                following = handle.read().find(_MAGIC)
                if following < 0:
                    return
                offset += 1 + following
                continue
            yield offset, record
            offset += length
