"""Images in a reader's own folders, and what is said about a data set: its description, fingerprint, the command."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from repdyn import cli, datasets
from repdyn.datasets import describe, fingerprint, load

Files = dict[str, bytes]


def picture(colour: object, size: tuple[int, int] = (6, 4), mode: str = "RGB", form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, colour).save(stream, form)
    return stream.getvalue()


def arrange(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


OWN = {
    "train/cat/b.png": picture((1, 2, 3)),
    "train/cat/a.PNG": picture(200, mode="L"),
    "train/dog/c.jpeg": picture((255, 255, 255), form="JPEG"),
    "test/dog/d.png": picture((9, 9, 9, 0), mode="RGBA"),
    "test/dog/notes.txt": b"not an image",
    "test/dog/.hidden.png": b"not an image",
}


def test_a_folder_of_images(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = arrange(elsewhere / "data" / "image-folder", OWN)
    train, test = load("image-folder", "train", path=folder), load("image-folder", "test", path=str(folder))
    assert train.classes == test.classes == ("cat", "dog")
    assert (train.images.shape, train.labels.tolist(), test.labels.tolist()) == ((3, 3, 4, 6), [0, 0, 1], [1])
    assert train.images[:, :, 0, 0].tolist() == [[200] * 3, [1, 2, 3], [255] * 3]
    assert test.images[0, :, 0, 0].tolist() == [9, 9, 9]
    with pytest.raises(ValueError, match="^path .*REPDYN_DATA"):
        load("image-folder")
    monkeypatch.setenv("REPDYN_DATA", str(elsewhere / "data"))
    assert load("image-folder").sha256 == train.sha256


def test_a_folder_of_images_of_many_sizes(elsewhere: Path) -> None:
    wide = np.zeros((4, 12, 3), dtype=np.uint8)
    wide[:, 4:8] = 250
    stream = io.BytesIO()
    Image.fromarray(wide).save(stream, "PNG")
    folder = arrange(elsewhere / "own", OWN | {"train/dog/z.png": stream.getvalue()})
    with pytest.raises(ValueError, match="6x4 and 12x4 .*z.png.*size="):
        load("image-folder", path=folder)
    data = load("image-folder", path=folder, size=4)
    assert data.images.shape == (4, 3, 4, 4) and (data.images[-1] == 250).all(), "the centre square"
    for wrong in (0, -4, 2.5, True):
        with pytest.raises(ValueError, match="^size"):
            load("image-folder", path=folder, size=wrong)


def test_a_photograph_is_turned_upright(elsewhere: Path) -> None:
    image = Image.new("RGB", (6, 4))
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    stream = io.BytesIO()
    image.save(stream, "JPEG", exif=exif)
    folder = arrange(elsewhere / "own", {"train/cat/a.jpg": stream.getvalue()})
    assert load("image-folder", path=folder).images.shape == (1, 3, 6, 4)


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({}, "^path: .*'train' .*no folders"),
        ({"val/cat/a.png": picture(0)}, "^path: .*'train' .*val"),
        ({"train/cat/a.txt": b""}, "^path: .*class folders"),
        ({"train/a.png": picture(0)}, "^path: .*class folders"),
        ({"train/cat/a.png": b"text"}, "train/cat/a.png "),
        ({"train/cat/a.png": picture(0)[:42]}, "train/cat/a.png "),
        ({"train/cat/a.png": picture(0, mode="I;16")}, "train/cat/a.png .*I;16"),
    ],
)
def test_a_folder_that_cannot_be_read(elsewhere: Path, files: Files, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        load("image-folder", path=arrange(elsewhere / "own", files))


# --------------------------------------------------------------------------------------- what is said about the sets


def test_fingerprint_names_what_was_loaded(elsewhere: Path) -> None:
    lines = "".join(f"{split} {load('digits', split).sha256}\n" for split in ("train", "test"))
    assert fingerprint("digits") == hashlib.sha256(lines.encode()).hexdigest()
    folder = arrange(elsewhere / "own", OWN)
    before = fingerprint("image-folder", path=folder)
    assert fingerprint("image-folder", path=folder) == before != fingerprint("image-folder", path=folder, size=2)
    arrange(folder, {"test/dog/d.png": picture(10, mode="L")})
    assert fingerprint("image-folder", path=folder) != before


def test_every_set_is_described() -> None:
    assert len(datasets.NAMES) == 17
    for name in datasets.NAMES:
        variant, licence, splits = describe(name)
        assert variant and licence and {"train", "test"} <= set(splits)
    assert "lossy" in describe("cifar10-jpeg").variant and "canonical" in describe("cifar10").variant
    with pytest.raises(ValueError, match="'cifar'.*digits, "):
        describe("cifar")


def test_the_command_lists_and_shows(elsewhere: Path) -> None:
    def call(*arguments: object) -> str:
        result = CliRunner().invoke(cli.main, ["data", *map(str, arguments)])
        assert result.exit_code == 0, result.output
        return result.output

    listed = call().splitlines()
    assert [line.split()[0] for line in listed] == list(datasets.NAMES)
    shown = call("digits")
    assert f"train   images (1437, 1, 8, 8), labels (1437,), sha256 {load('digits').sha256}\n" in shown
    assert "classes 10: 0, 1, 2" in shown and "licence BSD" in shown and "variant scikit-learn" in shown
    folder = arrange(elsewhere / "own", OWN)
    assert "images (3, 3, 2, 2)" in call("image-folder", "--path", folder, "--size", 2)


def test_the_command_reports_without_a_traceback(elsewhere: Path) -> None:
    result = CliRunner().invoke(cli.main, ["data", "cifar10"])
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert result.output.startswith("Error: cifar-10-python.tar.gz ")
    assert CliRunner().invoke(cli.main, ["data", "cifar"]).exit_code == 2
