"""Photographs of any size in the archives of their authors: a centre square of each, reduced."""

from __future__ import annotations

import io
import re

import numpy as np
import scipy.io

from repdyn.datasets._decode import members, pixels, stack
from repdyn.datasets.archives import Decoded

SIDE = 64  # pixels, of the reduced copies too


def textures(content: bytes, layout: str, split: str, num_test: int | None) -> Decoded:
    """Describable Textures: the first of its official splits, training and validation images together.

    ``layout`` is the pattern of an image's path, with groups 'name' and 'label'.
    """
    files = dict(members(content))
    matches = [match for path in files if (match := re.fullmatch(layout, path))]
    places = {match["name"]: match for match in matches}
    classes = sorted({match["label"] for match in matches})
    lists = [f"dtd/labels/{part}1.txt" for part in (("train", "val") if split == "train" else ("test",))]
    missing = [path for path in lists if path not in files]
    if missing:
        raise ValueError(f"holds no {missing[0]}")
    names = [line.strip() for path in lists for line in files[path].decode().splitlines() if line.strip()]
    unknown = [name for name in names if name not in places]
    if unknown or not names:
        raise ValueError(f"holds no images of the split {split!r}" + (f": {unknown[0]} is missing" if unknown else ""))
    labels = np.array([classes.index(places[name]["label"]) for name in names], dtype=np.int64)
    return Decoded(_reduced([(name, files[places[name].string]) for name in names]), labels, tuple(classes))


def flowers(
    content: bytes, layout: str, split: str, num_test: int | None, labels_file: bytes, splits_file: bytes
) -> Decoded:
    """Oxford Flowers 102: its official split, training and validation images together; classes are numbers.

    ``layout`` is the pattern of an image's path, with its number, from 1 on, in the group 'number'. Labels and splits
    come as MATLAB files of their own.
    """
    labels = _matrix(labels_file, "labels")
    parts = ("trnid", "valid") if split == "train" else ("tstid",)
    numbers = np.concatenate([_matrix(splits_file, part) for part in parts])
    matches = ((re.fullmatch(layout, path), encoded) for path, encoded in members(content))
    files = {int(match["number"]): (match.string, encoded) for match, encoded in matches if match}
    missing = [number for number in numbers if number not in files or number > len(labels)]
    if missing or not len(numbers):
        raise ValueError(f"holds no images of the split {split!r}" + (f": {missing[0]} is missing" if missing else ""))
    classes = tuple(str(number) for number in range(1, int(labels.max()) + 1))
    return Decoded(_reduced([files[number] for number in numbers]), labels[numbers - 1] - 1, classes)


def _reduced(files: list[tuple[str, bytes]]) -> np.ndarray:
    return stack([pixels(encoded, name, size=SIDE) for name, encoded in files], (name for name, _ in files))


def _matrix(content: bytes, name: str) -> np.ndarray:
    """One row of whole numbers from a MATLAB file, int64 (N,)."""
    try:
        return scipy.io.loadmat(io.BytesIO(content))[name].ravel().astype(np.int64)
    except Exception as error:  # a malformed file can raise anything
        raise ValueError(f"a MATLAB file without {name!r} that can be read ({error})") from error
