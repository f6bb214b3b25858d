"""The directory of one run: held against a second run, continued by the same options only."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from hint_plugins.errors import InputError
from hint_plugins.runs.files import (
    hold_output,
    make_directory,
    plain,
    replacing,
    without_empty_directories,
    write_csv,
    write_json,
)
from hint_plugins.runs.items import ItemStore
from hint_plugins.runs.locks import release


class RunDirectory:
    """Where one run of a study puts what it makes.

    Made or taken up again on entering; a run that fails before it wrote a result takes the directory away again.
    ``config.yaml`` holds the options and repeats the run through ``hint STUDY --config``; ``summary.json`` is written
    last of all, so that its presence says that the run is complete.

    Parameters
    ----------
    path
        Directory.
    study
        Name of the study, which is that of its command.
    options
        What was asked.
    free
        Names of options that may differ from those of the run that is continued. None: nothing is continued, and a
        complete run is refused.
    contents
        Files and folders of an earlier run that ``overwrite`` removes.
    overwrite
        Discard an earlier run. None: the study cannot, and says so.

    Raises
    ------
    InputError
        On entering: the directory holds another run, or a complete one that is not continued; it cannot be written; or
        another process writes there.
    """

    def __init__(
        self,
        path: Path,
        study: str,
        options: Mapping[str, Any],
        *,
        free: Collection[str] | None = None,
        contents: Iterable[str] = (),
        overwrite: bool | None = False,
    ) -> None:
        self.path = Path(path)
        self.study = study
        self.options = {name: plain(value) for name, value in options.items() if name != "overwrite"}
        self._free = free
        self._contents = tuple(contents)
        self._overwrite = overwrite
        self._clean = without_empty_directories()

    def __enter__(self) -> RunDirectory:
        self._clean.__enter__()
        try:
            self._require_same_run()
            self._take()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        release(self.path)
        self._clean.__exit__(*error)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def items(self, name: str) -> ItemStore:
        """The finished items in one folder of the run."""
        return ItemStore(self.path / name)

    def write_csv(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Write rows (same keys) as a CSV table; no table for no rows."""
        if rows:
            write_csv(self.path / name, rows)
        else:
            (self.path / name).unlink(missing_ok=True)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write ``summary.json``: the run is complete."""
        write_summary(self.path, summary)

    def _require_same_run(self) -> None:
        if self._overwrite:
            return
        way_out = "choose another --out, or " + ("remove it" if self._overwrite is None else "add --overwrite")
        config = self.path / "config.yaml"
        if self._free is None:
            if (self.path / "summary.json").exists():
                raise InputError(f"{self.path} holds an earlier result (summary.json): {way_out}")
        elif config.is_file():
            earlier = yaml.safe_load(config.read_text()) or {}
            if earlier.pop("command", None) != self.study:
                raise InputError(f"{self.path} holds the result of another command: {way_out}")
            for name, value in self.options.items():
                if name not in {*self._free, "out"} and earlier.get(name) != value:
                    raise InputError(
                        f"{self.path} holds a run with {name} = {earlier.get(name)} (now {value}): {way_out}"
                    )
        elif (self.path / "summary.json").exists():
            raise InputError(f"{self.path} holds an earlier result (summary.json): {way_out}")

    def _take(self) -> None:
        try:
            make_directory(self.path)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise InputError(f"cannot write into {self.path}: {error}") from None
        hold_output(self.path)
        if self._overwrite:
            for name in self._contents:
                remove(self.path / name)
        (self.path / "summary.json").unlink(missing_ok=True)
        write_config(self.path, self.study, self.options)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_summary(out: Path, content: Mapping[str, Any]) -> None:
    """Write ``summary.json``; last of all, since its presence says that the run is complete."""
    write_json(Path(out) / "summary.json", content)


def write_config(out: Path, command: str, options: Mapping[str, Any]) -> None:
    """Write ``config.yaml``, which repeats the run through ``hint COMMAND --config``."""
    with replacing(Path(out) / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump({"command": command, **plain(options)}, sort_keys=False))
