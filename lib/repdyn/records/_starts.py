"""The starts of one measurement: how long they took together, and which version of its code left parts behind."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from repdyn._files import replacing

__all__ = ["Starts", "lap"]

_running: list[Starts] = []


class Starts:
    """A context that counts seconds, on top of those that earlier starts left in ``folder`` (None: of none).

    They are written there whenever a part is kept (:func:`lap`), so that a killed start counts to its last part. Raises
    ``ValueError`` for a folder with parts that another ``version`` of the code made.
    """

    def __init__(self, folder: str | os.PathLike | None, version: int = 1) -> None:
        self._file = None if folder is None else Path(folder) / "starts.json"
        self._version, self._earlier = version, 0.0

    def __enter__(self) -> Starts:
        if self._file is not None and self._file.exists():
            self._earlier = self._read(self._file)
        self._started = time.monotonic()
        self._save()
        _running.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _running.remove(self)
        self._save()

    @property
    def seconds(self) -> float:
        """Seconds so far, all starts together."""
        return self._earlier + time.monotonic() - self._started

    def _read(self, file: Path) -> float:
        try:
            left = json.loads(file.read_text())
            version, seconds = left["version"], float(left["seconds"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is damaged ({error!r}): remove its folder") from error
        if version != self._version:
            raise ValueError(
                f"{file.parent} holds parts that version {version} of the measurement made, "
                f"and this is version {self._version}: remove the folder"
            )
        return seconds

    def _save(self) -> None:
        if self._file is not None:  # a full disk must not end the measurement
            with contextlib.suppress(OSError), replacing(self._file) as temporary:
                temporary.write_text(json.dumps({"version": self._version, "seconds": round(self.seconds, 1)}))


def lap() -> None:
    """A part is kept: write down the time until here."""
    for starts in _running:
        starts._save()
