"""From the bytes of an archive to arrays, in memory: nothing is unpacked to disk and nothing in a file is executed."""

from __future__ import annotations

import gzip
import io
import lzma
import pickle
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

import numpy as np
import torch
from PIL import Image, ImageOps

from repdyn.datasets._split import stratified_split
from repdyn.datasets.archives import Decoded

_DAMAGED = (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError)


def gunzip(content: bytes) -> bytes:
    """The uncompressed bytes; ``ValueError`` when they are damaged."""
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"truncated or damaged ({error})") from error


def idx(content: bytes) -> np.ndarray:
    """The uint8 array of any shape in an idx file: a magic number that ends in the rank, big-endian sizes, bytes."""
    offset = 4 + 4 * content[3]
    shape = np.frombuffer(content[4:offset], dtype=">u4").tolist()
    return np.frombuffer(content, dtype=np.uint8, offset=offset).reshape(shape).copy()


def members(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the files in a .tar.gz or .tar.xz archive.

    ``ValueError`` when it is damaged, to its last byte, or holds anything but plain files.
    """
    try:
        plain = (gzip if content[:2] == b"\x1f\x8b" else lzma).decompress(content)
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
            for member in archive:
                parts = PurePosixPath(member.name).parts
                if not (member.isreg() or member.isdir()) or ".." in parts or member.name.startswith("/"):
                    raise ValueError(f"holds {member.name!r}, which is not a plain file inside it")
                if (stream := archive.extractfile(member)) is not None:  # a folder has no content
                    yield member.name, stream.read()
    except _DAMAGED as error:
        raise ValueError(f"truncated or damaged ({error})") from error


def pixels(content: bytes, name: str, mode: str = "RGB", size: int | None = None) -> np.ndarray:
    """An encoded image as uint8 (3, H, W), or (H, W) in ``mode`` 'L', which is for masks and never converts.

    With ``size`` its centre square is resized (Lanczos) to ``size`` by ``size`` pixels.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            if mode == "L" and image.mode != "L":
                raise ValueError(f"a mask must be 8-bit grey, not {image.mode}")
            converted = image.convert(mode)
            if size is not None:
                converted = ImageOps.fit(converted, (size, size), Image.Resampling.LANCZOS)
            array = np.asarray(converted)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} is not an image that can be read ({error})") from error
    return array if mode == "L" else array.transpose(2, 0, 1)


def stack(arrays: list[np.ndarray], names: Iterable[str]) -> np.ndarray:
    """uint8 images of one size as one contiguous array; ``ValueError`` names the first of another size."""
    for array, name in zip(arrays, names):
        if array.shape != arrays[0].shape:
            sizes = " and ".join(f"{shape[-1]}x{shape[-2]}" for shape in (arrays[0].shape, array.shape))
            raise ValueError(f"images differ in size: {sizes} ({name})")
    return np.stack(arrays, out=np.empty((len(arrays), *arrays[0].shape), dtype=np.uint8))


def _table(content: bytes) -> dict[str, str]:
    return dict(line.split("\t", 1) for line in content.decode().splitlines() if line)


def labelled_images(content: bytes, layout: str, split: str, num_test: int | None) -> Decoded:
    """One image a file, the class in its path.

    ``layout`` is a pattern of the paths with a group 'label' and, unless ``num_test`` says how many images to draw for
    the test split, a group 'split'. Classes are in the order of their folders' names.
    """
    found, names, used = [], {}, set()
    for path, encoded in members(content):
        match = re.fullmatch(layout, path)
        if path.endswith("classes.tsv"):
            names = _table(encoded)
        elif match:
            used.add(match["label"])
            if num_test is not None or match["split"] == split:
                found.append((path, match["label"], encoded))
    if not found:
        raise ValueError(f"holds no images of the split {split!r}")
    order = sorted(used)
    labels = np.array([order.index(label) for _, label, _ in found], dtype=np.int64)
    if num_test is not None:
        chosen = _drawn(labels, num_test, split)
        found, labels = [found[i] for i in chosen], labels[chosen]
    images = stack([pixels(encoded, path) for path, _, encoded in found], (path for path, _, _ in found))
    return Decoded(images, labels, tuple(names.get(label, label.lstrip("0123456789_")) for label in order))


def masked_images(content: bytes, layout: str, split: str, num_test: int | None) -> Decoded:
    """An image and a mask of the same name for each item; ``layout`` as above with groups 'kind', 'stem', 'split'."""
    files: dict[str, dict[str, bytes]] = {"images": {}, "masks": {}}
    names: dict[str, str] = {}
    for path, encoded in members(content):
        match = re.fullmatch(layout, path)
        if path.endswith("classes.tsv"):
            names = _table(encoded)
        elif match and (num_test is not None or match["split"] == split):
            files[match["kind"]][match["stem"]] = encoded
    if not files["images"]:
        raise ValueError(f"holds no images of the split {split!r}")
    if files["images"].keys() != files["masks"].keys():
        raise ValueError("images and masks do not go in pairs")
    stems = sorted(files["images"])
    if num_test is not None:
        stems = [stems[i] for i in _drawn(np.zeros(len(stems), dtype=np.int64), num_test, split)]
    images = stack([pixels(files["images"][stem], stem) for stem in stems], stems)
    masks = stack([pixels(files["masks"][stem], stem, "L") for stem in stems], stems)
    ids = [str(i) for i in range(int(masks.max()) + 1)]
    if masks.shape[1:] != images.shape[2:] or not names.keys() >= set(ids):
        raise ValueError("masks do not fit their images or the table of classes")
    return Decoded(images, masks, tuple(names[key] for key in sorted(names, key=int)))


def _drawn(labels: np.ndarray, num_test: int, split: str) -> np.ndarray:
    """Indices of a split, in the order of the archive: the same number of each class for the test, seed 0."""
    test, train = stratified_split(torch.from_numpy(labels), num_test, seed=0)
    return (test if split == "test" else train).sort().values.numpy()


class _Inert:
    """Stands for numpy's constructors in CIFAR's pickles, and does nothing but remember."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Builds plain data only; numpy's three names become inert, any other name ends it before anything is called."""

    def find_class(self, module: str, name: str) -> type:
        if (module.replace("._core", ".core"), name) in (
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        ):
            return _Inert
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def plain_pickle(content: bytes, name: str) -> dict:
    """A pickled dictionary of plain data; ``ValueError`` for anything that would need code to run."""
    try:
        data = _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a malformed pickle can raise anything
        raise ValueError(f"{name} is not a pickle of plain data and arrays, and was not read ({error})") from error
    if not isinstance(data, dict):
        raise ValueError(f"{name} is not a pickled dictionary")
    return data


def _cifar_batch(content: bytes, name: str, key: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    batch = plain_pickle(content, name)
    try:
        _, shape, dtype, fortran, raw = batch["data"].state  # numpy's state of an array
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        if dtype.arguments[0] != "u1" or len(shape) != 2 or shape[1] != 3072:
            raise ValueError(f"an array {shape} of {dtype.arguments[0]!r}")
        flat = np.frombuffer(raw, dtype=np.uint8).reshape(shape, order="F" if fortran else "C")
        labels = np.array(batch[key], dtype=np.int64)
        if labels.shape != (len(flat),) or not ((labels >= 0) & (labels < classes)).all():
            raise ValueError(f"labels {labels.shape}")
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} does not hold images and labels of CIFAR-{classes} ({error})") from error
    return flat.reshape(-1, 3, 32, 32), labels


def cifar10(content: bytes, layout: str, split: str, num_test: int | None) -> Decoded:
    """The Python version of CIFAR-10: pickles named by ``layout``, which has a group 'split'."""
    return _cifar(dict(members(content)), layout, {"train": "data", "test": "test"}[split], "batches.meta", "", 10)


def cifar100(content: bytes, layout: str, split: str, num_test: int | None) -> Decoded:
    """The Python version of CIFAR-100, with its hundred fine labels."""
    return _cifar(dict(members(content)), layout, split, "meta", "fine_", 100)


def _cifar(files: dict[str, bytes], layout: str, split: str, meta: str, kind: str, num_classes: int) -> Decoded:
    names = sorted(path for path in files if (match := re.fullmatch(layout, path)) and match["split"] == split)
    tables = [path for path in files if path.endswith(f"/{meta}")]
    if not names or not tables:
        raise ValueError(f"does not hold the batches of CIFAR-{num_classes}")
    parts = [_cifar_batch(files[name], name, f"{kind}labels", num_classes) for name in names]
    classes = plain_pickle(files[tables[0]], tables[0]).get(f"{kind}label_names")
    if not isinstance(classes, list) or len(classes) != num_classes:
        raise ValueError(f"{tables[0]} does not name {num_classes} classes")
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts))
    return Decoded(images, labels, tuple(map(str, classes)))
