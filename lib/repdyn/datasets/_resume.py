"""Downloads that go on where they were interrupted, as a downloader for pooch, which itself starts anew."""

from __future__ import annotations

import os
from pathlib import Path

import requests
from tqdm import tqdm

_CHUNK = 1 << 16
_TIMEOUT_S = 30


class Resuming:
    """Keeps what has arrived in the file ``partial`` until it is complete, and asks the server for the rest only.

    A server that cannot resume sends everything again. Whether the pieces fit together is for pooch's hash to say; a
    file that it refuses has no partial left, so that the next attempt starts anew.
    """

    def __init__(self, partial: Path) -> None:
        self.partial = partial

    def __call__(self, url: str, output_file: str, pooch: object, check_only: bool = False) -> None:
        """Download ``url`` to ``output_file``; raises ``OSError`` when it breaks off."""
        have = self.partial.stat().st_size if self.partial.exists() else 0
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={have}-"}
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
            if response.status_code != requests.codes.requested_range_not_satisfiable:  # else all of it is here
                response.raise_for_status()
                resumed = response.status_code == requests.codes.partial_content
                self._receive(response, have if resumed else 0)
        os.replace(self.partial, output_file)

    def _receive(self, response: requests.Response, have: int) -> None:
        length = response.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=self.partial.stem)
        with self.partial.open("ab" if have else "wb") as file, bar:
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        if total is not None and self.partial.stat().st_size != total:
            raise OSError(f"{self.partial.stat().st_size} of {total} bytes arrived")
