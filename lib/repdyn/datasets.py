"""Image data by name: embedded subsets, and full sets found on disk or downloaded once and verified.

A full set is looked for in an explicit folder, in the folder named by the environment variable ``REPDYN_DATA``, in the
cache, and is downloaded last. Whatever is found is verified before it is used.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import warnings
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

with warnings.catch_warnings():
    # Its import of tqdm warns in a notebook without ipywidgets, where nothing is amiss.
    warnings.simplefilter("ignore")
    import pooch

__all__ = ["FASHION_CLASSES", "NAMES", "ImageSet", "load", "stratified_split", "to_unit_range"]

FASHION_CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
_DIGIT_CLASSES = tuple(str(digit) for digit in range(10))

#: Names that :func:`load` knows.
NAMES = ("digits", "fashion-mnist", "fashion-mnist-mini")

_FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
# file name: (md5 of the official archive, SHA-256 of its contents). Archives in circulation differ in the gzip
# header alone, so a file on disk is judged by its contents.
_FASHION_FILES = {
    "train-images-idx3-ubyte.gz": (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "train-labels-idx1-ubyte.gz": (
        "25c81989df183df01b3e8a0aad5dffbe",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    "t10k-images-idx3-ubyte.gz": (
        "bef4ecab320f06d8554ea6380940ec79",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "bb300cfdad3c16e7a12a480ee83cd310",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}


class ImageSet(NamedTuple):
    """Images uint8 (N, C, H, W), labels int64 (N,), the classes' names, and a hash that identifies the content."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    sha256: str


def load(name: str, split: str = "train", *, path: str | os.PathLike | None = None) -> ImageSet:
    """Load the ``split`` ('train' or 'test') of the image set ``name``, one of :data:`NAMES`.

    ``digits`` is scikit-learn's, 8x8, 1437 / 360 images; ``fashion-mnist-mini`` a stratified subset of Fashion-MNIST
    that ships with the package, 28x28, 10,000 / 2,000; ``fashion-mnist`` the full set, 60,000 / 10,000, looked for in
    ``path``, ``$REPDYN_DATA``, the cache, and downloaded last.

    Raises ``ValueError`` for an unknown name or split and for a file whose content is not what it should be, and
    ``ConnectionError``, which says where to put the file by hand, when it must be downloaded and cannot be.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    if name == "digits":
        images, labels, classes = *_digits(split), _DIGIT_CLASSES
    elif name == "fashion-mnist-mini":
        images, labels, classes = *_fashion_mini(split), FASHION_CLASSES
    elif name == "fashion-mnist":
        images, labels, classes = *_fashion(split, path), FASHION_CLASSES
    else:
        raise ValueError(f"unknown data set {name!r}: choose one of {', '.join(NAMES)}")
    digest = hashlib.sha256(images.tobytes() + labels.astype(np.int64).tobytes()).hexdigest()
    return ImageSet(torch.from_numpy(images)[:, None], torch.from_numpy(labels.astype(np.int64)), classes, digest)


def to_unit_range(images: Tensor) -> Tensor:
    """Turn uint8 pixels 0..255 into float32 in [-1, 1], the range in which EDM's noise levels are stated."""
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8, got {images.dtype}")
    return images.to(torch.float32) / 127.5 - 1


def stratified_split(labels: Tensor, num: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of ``num`` items with classes in equal numbers (to one), and of all the others; both in random order.

    ``labels`` (N,) integers. Raises ``ValueError`` when a class has too few items.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    rank_in_class = torch.empty(len(labels), dtype=torch.long)
    classes = labels.unique()
    for label in classes:
        members = order[labels[order] == label]
        rank_in_class[members] = torch.arange(len(members))
    share, extra = divmod(num, len(classes))
    quota = share + (torch.searchsorted(classes, labels) < extra).long()
    chosen = rank_in_class < quota
    if int(chosen.sum()) != num:
        raise ValueError(f"num={num} asks for more items of some class than there are")
    return order[chosen[order]], order[~chosen[order]]


def _digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images * (255 / 16)).round().astype(np.uint8)
    test, train = stratified_split(torch.from_numpy(data.target), 360, seed=0)
    chosen = (train if split == "train" else test).numpy()
    return images[chosen], data.target[chosen]


def _fashion_mini(split: str) -> tuple[np.ndarray, np.ndarray]:
    with (files("repdyn") / "assets/data/fashion-mnist-mini.npz").open("rb") as stream:
        with np.load(stream, allow_pickle=False) as archive:
            return archive[f"{split}_images"], archive[f"{split}_labels"]


def _fashion(split: str, path: str | os.PathLike | None) -> tuple[np.ndarray, np.ndarray]:
    prefix = "train" if split == "train" else "t10k"
    images = _read_verified(f"{prefix}-images-idx3-ubyte.gz", path)
    labels = _read_verified(f"{prefix}-labels-idx1-ubyte.gz", path)
    pixels = np.frombuffer(images, dtype=np.uint8, offset=16).reshape(-1, 28, 28)  # idx3: a 16-byte header
    return pixels.copy(), np.frombuffer(labels, dtype=np.uint8, offset=8).copy()  # idx1: an 8-byte header


def _read_verified(filename: str, path: str | os.PathLike | None) -> bytes:
    md5, content_sha256 = _FASHION_FILES[filename]
    archive = _find(filename, path) or _download(filename, md5)
    try:
        content = gzip.decompress(archive.read_bytes())
    except (OSError, EOFError) as error:
        raise ValueError(f"{archive} is truncated or damaged ({error}): remove it and load again") from error
    if hashlib.sha256(content).hexdigest() != content_sha256:
        raise ValueError(f"{archive} does not hold the official {filename}: remove it and load again")
    return content


def _find(filename: str, path: str | os.PathLike | None) -> Path | None:
    roots = [path] if path is not None else [os.environ.get("REPDYN_DATA"), _cache()]
    for root in roots:
        for candidate in (Path(root) / filename, Path(root) / "fashion-mnist" / filename) if root else ():
            if candidate.is_file():
                return candidate
    if path is not None:
        raise ValueError(f"path: there is no {filename} in {path}")
    return None


def _cache() -> Path:
    return Path(pooch.os_cache("repdyn"))


def _download(filename: str, md5: str) -> Path:
    folder = _cache() / "fashion-mnist"
    try:
        return Path(pooch.retrieve(_FASHION_URL + filename, f"md5:{md5}", filename, folder, progressbar=True))
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"{filename} could not be downloaded from {_FASHION_URL} ({error}). Put it by hand into {folder}, "
            "or into a folder named by the environment variable REPDYN_DATA."
        ) from None  # the cause is in the message; its chain is pages of connection internals
