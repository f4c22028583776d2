"""How long a measurement takes over all its starts."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

from repdyn._files import replacing

__all__ = ["Stopwatch"]


class Stopwatch:
    """A context that counts seconds, on top of those that earlier starts left in ``folder`` (None: of none).

    They are written there every ``save_every_s`` seconds, so that a killed start counts too.
    """

    def __init__(self, folder: str | os.PathLike | None, save_every_s: float = 20.0) -> None:
        self._file = None if folder is None else Path(folder) / "seconds"
        self._save_every_s = save_every_s
        self._earlier = 0.0
        self._stop = threading.Event()

    def __enter__(self) -> Stopwatch:
        if self._file is not None and self._file.exists():
            try:
                self._earlier = float(self._file.read_text())
            except ValueError as error:
                raise ValueError(f"{self._file} holds no number of seconds: remove it") from error
        self._started = time.monotonic()
        if self._file is not None:
            self._saver = threading.Thread(target=self._save_on, daemon=True)
            self._saver.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._stop.set()
            self._saver.join()
            self._save()

    @property
    def seconds(self) -> float:
        """Seconds so far, all starts together."""
        return self._earlier + time.monotonic() - self._started

    def _save_on(self) -> None:
        while not self._stop.wait(self._save_every_s):
            self._save()

    def _save(self) -> None:
        # A full disk must not end the measurement.
        with contextlib.suppress(OSError), replacing(self._file) as temporary:
            temporary.write_text(f"{self.seconds:.1f}")
