"""Finding an archive, downloading it, verifying it, and keeping what was decoded from it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock

from repdyn._files import replacing
from repdyn.datasets._resume import Resuming

with warnings.catch_warnings():
    # Its import of tqdm warns in a notebook without ipywidgets, where nothing is amiss.
    warnings.simplefilter("ignore")
    import pooch

ATTEMPTS = 2  # downloads: the second goes on where the first broke off, or starts anew if its hash was wrong


class Archive(NamedTuple):
    """A file: the data set and file name, its hash ('md5:...' or 'sha256:...'), its folder's URL if it has one."""

    name: str
    filename: str
    known_hash: str
    url: str | None = None


def cache() -> Path:
    return Path(pooch.os_cache("repdyn"))


def roots(path: str | os.PathLike | None) -> list[Path]:
    """The folders to look into, in order: ``path`` alone, or $REPDYN_DATA and the cache."""
    found = [path] if path is not None else [os.environ.get("REPDYN_DATA"), cache()]
    return [Path(root) for root in found if root]


def find(archive: Archive, path: str | os.PathLike | None) -> Path | None:
    """The archive's place on disk, not yet verified, or None; ``ValueError`` if it is not in an explicit ``path``."""
    for root in roots(path):
        candidates = [root / archive.name / archive.filename]
        if path is not None or archive.name != "mnist":  # whose files are called as Fashion-MNIST's are
            candidates.append(root / archive.filename)
        for candidate in candidates:
            if candidate.is_file():
                return candidate
    if path is not None:
        raise ValueError(f"path: there is no {archive.filename} in {path}")
    return None


def download(archive: Archive) -> Path:
    """Download the archive into the cache, verified on arrival; ``ConnectionError`` says where to put it by hand."""
    folder = cache() / archive.name
    by_hand = f"Put it by hand into {folder}, or into a folder named by the environment variable REPDYN_DATA."
    if archive.url is None:
        raise ConnectionError(f"{archive.filename} is not on this computer, nor to be had from the web. {by_hand}")
    for _ in range(ATTEMPTS):
        try:
            return fetch(archive.url + archive.filename, folder, archive.known_hash)
        except (OSError, ValueError) as error:
            failure = error
    raise ConnectionError(
        f"{archive.filename} could not be downloaded from {archive.url} ({failure}). {by_hand}"
    ) from None  # the cause is in the message; its chain is pages of connection internals


def fetch(url: str, folder: Path, known_hash: str | None = None) -> Path:
    """The file behind ``url``, in ``folder``; ``OSError`` or, for another hash than the known one, ``ValueError``."""
    filename = url.rpartition("/")[2]
    folder.mkdir(parents=True, exist_ok=True)
    downloader = Resuming(folder / f"{filename}.part")
    lock = folder.parent / f"{folder.name}-{filename}.lock"
    with FileLock(lock):  # of several processes one downloads, and the others find its file
        return Path(pooch.retrieve(url, known_hash, filename, folder, downloader=downloader))


def read_verified(archive: Archive, place: Path) -> bytes:
    """The file's bytes; ``ValueError`` unless they have the archive's hash."""
    content = place.read_bytes()
    algorithm, digest = archive.known_hash.split(":")
    if hashlib.new(algorithm, content, usedforsecurity=False).hexdigest() != digest:
        raise ValueError(
            f"{place} does not hold the official {archive.filename} ({algorithm} {digest}): it is truncated, damaged "
            "or another file; remove it and load again"
        )
    return content


class Decoded(NamedTuple):
    """Pixels uint8 (N, C, H, W), labels (N,) or (N, H, W) of an integer type, the classes' names."""

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def sha256(self) -> str:
        """Hash of the pixels, followed by the labels as int64."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels, dtype=np.int64).data)
        return digest.hexdigest()


def decoded_file(archive: Archive, split: str) -> Path:
    """Where a split is kept once decoded; another archive has another file."""
    return cache() / archive.name / f"{split}-{archive.known_hash.split(':')[1][:16]}.npz"


def keep_decoded(place: Path, data: Decoded) -> None:
    """Write ``data`` under a temporary name, then rename it; a folder that cannot be written costs time, no more."""
    with contextlib.suppress(OSError), replacing(place) as temporary, temporary.open("wb") as stream:
        np.savez(stream, images=data.images, labels=data.labels, classes=data.classes, sha256=data.sha256())


def read_decoded(place: Path) -> Decoded:
    """What :func:`keep_decoded` wrote; ``ValueError`` when it is damaged."""
    try:
        with place.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            data = Decoded(stored["images"], stored["labels"], tuple(stored["classes"].tolist()))
            intact = data.sha256() == stored["sha256"].item()
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        intact = False
    if not intact:
        raise ValueError(f"{place}, decoded earlier, is damaged: remove it and load again")
    return data
