"""Image data by name: embedded subsets, and full sets found on disk or downloaded once and verified.

A set that is not embedded is looked for in an explicit folder, in the folder named by the environment variable
``REPDYN_DATA``, in the cache, and is downloaded last, where it can be: canonical MNIST, Fashion-MNIST, CIFAR-10 and
CIFAR-100, Describable Textures, Flowers 102. The other archives are reduced or lossy copies that no site offers; they
come by ``REPDYN_DATA``. Whatever is found is verified before it is used; archives are read in memory, and nothing in
them is executed. Decoded archives are kept in the cache.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from repdyn.datasets import _decode, archives
from repdyn.datasets._folder import image_folder
from repdyn.datasets._split import stratified_split
from repdyn.datasets.archives import Archive, Decoded
from repdyn.datasets.table import DESCRIPTIONS, DIGIT_CLASSES, FASHION_CLASSES, IDX, PACKED, Description
from repdyn.images import ImageSet

__all__ = [
    "FASHION_CLASSES", "NAMES", "Description", "describe", "fingerprint", "load", "stratified_split",
]  # fmt: skip

#: Names that :func:`load` knows.
NAMES = tuple(DESCRIPTIONS)

_Read = TypeVar("_Read")


def load(
    name: str, split: str = "train", *, path: str | os.PathLike | None = None, size: int | None = None
) -> ImageSet:
    """Load the ``split`` ('train' or 'test'; camvid12 has 'val' too) of the image set ``name``, one of :data:`NAMES`.

    ``digits`` (8x8) and ``fashion-mnist-mini`` (28x28, 10,000 / 2,000) come with the packages; the others are looked
    for in ``path``, ``$REPDYN_DATA``, the cache, and downloaded last. A download that breaks off goes on where it
    stopped, at once or at the next call, and is verified. :func:`describe` says which variant and split a set is:
    flowers17, dtd10 and ccp59 have a split of ours, drawn with seed 0. Images of packed sets come class by class.
    ``image-folder`` reads ``path/split/class/*.png`` or ``*.jpg`` as RGB, cropped and resized to ``size`` by ``size``
    pixels if that is given.

    Raises ``ValueError`` for an unknown name or split and for a file whose content is not what it should be, and
    ``ConnectionError``, which says where to put the file by hand, when it must be downloaded and cannot be.
    """
    _check_split(name, split)
    if size is not None and name != "image-folder":
        raise ValueError(f"size is for image-folder; {name} has its own, leave size out")
    if name == "digits":
        data = _digits(split)
    elif name == "fashion-mnist-mini":
        data = _fashion_mini(split)
    elif name == "image-folder":
        data = image_folder(split, path, size)
    else:
        data = _idx(name, split, path) if name in IDX else _packed(name, split, path)
    labels = torch.from_numpy(data.labels.astype(np.int64))
    return ImageSet(torch.from_numpy(data.images), labels, data.classes, data.sha256())


def describe(name: str) -> Description:
    """Variant, licence and splits of the set ``name``, without loading it; ``ValueError`` for an unknown name."""
    if name not in DESCRIPTIONS:
        raise ValueError(f"unknown data set {name!r}: choose one of {', '.join(NAMES)}")
    return DESCRIPTIONS[name]


def fingerprint(name: str, *, path: str | os.PathLike | None = None, size: int | None = None) -> str:
    """SHA-256 of the lines 'split hash' of all splits of ``name``, in order: says for a record which data it saw.

    Loads every split; arguments and errors are those of :func:`load`.
    """
    lines = [f"{split} {load(name, split, path=path, size=size).sha256}\n" for split in describe(name).splits]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _check_split(name: str, split: str) -> None:
    splits = describe(name).splits
    if split not in splits and name != "image-folder":  # whose splits are the folders there are
        *most, last = map(repr, splits)
        raise ValueError(f"split must be {', '.join(most)} or {last}, got {split!r}")


def _digits(split: str) -> Decoded:
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images * (255 / 16)).round().astype(np.uint8)
    test, train = stratified_split(torch.from_numpy(data.target), 360, seed=0)
    chosen = (train if split == "train" else test).numpy()
    return Decoded(images[chosen][:, None], data.target[chosen], DIGIT_CLASSES)


def _fashion_mini(split: str) -> Decoded:
    with (files("repdyn") / "assets/data/fashion-mnist-mini.npz").open("rb") as stream:
        with np.load(stream, allow_pickle=False) as archive:
            return Decoded(archive[f"{split}_images"][:, None], archive[f"{split}_labels"], FASHION_CLASSES)


def _idx(name: str, split: str, path: str | os.PathLike | None) -> Decoded:
    prefix = "train" if split == "train" else "t10k"
    arrays = [_idx_file(name, f"{prefix}-{part}-ubyte.gz", path) for part in ("images-idx3", "labels-idx1")]
    return Decoded(arrays[0][:, None], arrays[1], IDX[name].classes)


def _idx_file(name: str, filename: str, path: str | os.PathLike | None) -> np.ndarray:
    source = IDX[name]
    known_hash, content_sha256 = source.files[filename]
    archive = Archive(name, filename, known_hash, source.url)
    place = archives.find(archive, path) or archives.download(archive)
    content = _decoding(place, _decode.gunzip, place.read_bytes())
    if hashlib.sha256(content).hexdigest() != content_sha256:
        raise ValueError(f"{place} does not hold the official {filename}: remove it and load again")
    return _decode.idx(content)


def _packed(name: str, split: str, path: str | os.PathLike | None) -> Decoded:
    packed = PACKED[name]
    place = archives.find(packed.archive, path)
    kept = archives.decoded_file(packed.archive, split)
    if kept.is_file():
        if place is not None:
            archives.read_verified(packed.archive, place)
        return archives.read_decoded(kept)
    place = place or archives.download(packed.archive)
    content = archives.read_verified(packed.archive, place)
    others = [archives.read_verified(one, archives.find(one, path) or archives.download(one)) for one in packed.beside]
    their_split = packed.renamed.get(split, split)
    data = _decoding(place, packed.decode, content, packed.layout, their_split, packed.num_test, *others)
    archives.keep_decoded(kept, data)
    return data


def _decoding(place: Path, decode: Callable[..., _Read], *arguments: object) -> _Read:
    """``decode(*arguments)``, whose ``ValueError`` then names the file and says what to do."""
    try:
        return decode(*arguments)
    except ValueError as error:
        raise ValueError(f"{place}: {error}; remove it and load again") from error
