"""Images of the reader's own, in folders named after their classes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from repdyn.datasets._decode import stack
from repdyn.datasets.archives import Decoded, roots

_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # eight bits a channel, or fewer


def image_folder(split: str, path: str | os.PathLike | None, size: int | None) -> Decoded:
    """Read ``<folder>/<split>/<class>/*.png`` or ``*.jpg``; the folder is ``path`` or ``$REPDYN_DATA/image-folder``.

    Classes are those of all splits, by name, so that labels mean the same in each. With ``size`` the centre square of
    an image is resized (Lanczos) to ``size`` pixels; without it all images must be of one size. Raises ``ValueError``.
    """
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise ValueError(f"size must be a positive whole number of pixels, got {size!r}")
    folder = Path(path) if path is not None else _default_folder()
    splits = _folders(folder) if folder.is_dir() else []
    if split not in (place.name for place in splits):
        there = ", ".join(place.name for place in splits) or "no folders"
        raise ValueError(
            f"path: {folder} has no folder {split!r} (there: {there}): arrange images as SPLIT/CLASS/*.png"
        )
    classes = sorted({place.name for part in splits for place in _folders(part)})
    files = [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted((folder / split / name).glob("*"))
        if file.suffix.lower() in (".png", ".jpg", ".jpeg") and not file.name.startswith(".")
    ]
    if not files:
        raise ValueError(f"path: there is no .png or .jpg in the class folders of {folder / split}")
    try:
        images = stack([_read(file, size) for file, _ in files], (str(file) for file, _ in files))
    except ValueError as error:
        raise ValueError(f"{error}: pass size=, or put it right") from None
    return Decoded(images, np.array([label for _, label in files], dtype=np.int64), tuple(classes))


def _default_folder() -> Path:
    for root in roots(None):
        if (root / "image-folder").is_dir():
            return root / "image-folder"
    raise ValueError("path must name the folder of the images, or REPDYN_DATA a folder with image-folder in it")


def _folders(place: Path) -> list[Path]:
    return sorted(part for part in place.iterdir() if part.is_dir() and not part.name.startswith("."))


def _read(file: Path, size: int | None) -> np.ndarray:
    """One image as uint8 (3, H, W), upright, transparency dropped."""
    try:
        with Image.open(file) as image:
            if image.mode not in _MODES:
                raise ValueError(f"mode {image.mode}: more than 8 bits a channel")
            upright = ImageOps.exif_transpose(image)
            if "transparency" in upright.info:
                upright = upright.convert("RGBA")
            upright = upright.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} is not an image that can be read ({error})") from error
    if size is not None:
        upright = ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS)
    return np.asarray(upright).transpose(2, 0, 1)
