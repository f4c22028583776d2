"""Archives, made here: every layout is read, whatever is damaged or hostile is refused, and nothing in one is run."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from repdyn import datasets
from repdyn.datasets import load
from repdyn.datasets.table import PACKED

Files = dict[str, bytes]


def picture(colour: object, size: tuple[int, int] = (32, 32), mode: str = "RGB", form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, colour).save(stream, form)
    return stream.getvalue()


def tar(files: Files, mode: str = "w:xz", extra: tarfile.TarInfo | None = None) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if extra is not None:
            archive.addfile(extra)
    return stream.getvalue()


Offer = Callable[..., Path]


@pytest.fixture
def offer(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Put an archive into REPDYN_DATA as the data set ``name``, and have its hash expected."""
    monkeypatch.setenv("REPDYN_DATA", str(elsewhere / "data"))
    (elsewhere / "data").mkdir()

    def put(name: str, content: bytes, **changes: object) -> Path:
        packed = PACKED[name]
        place = elsewhere / "data" / packed.archive.filename
        place.write_bytes(content)
        known = packed.archive._replace(known_hash=f"sha256:{hashlib.sha256(content).hexdigest()}")
        monkeypatch.setitem(PACKED, name, packed._replace(archive=known, **changes))
        return place

    return put


# ------------------------------------------------------------------------------------------------------ the layouts

JPEG = {f"{split}/{name}/000{i}.jpg": picture((40 * i, 10 * k, 0)) for split in ("train", "test")
        for k, name in enumerate(("airplane", "bird")) for i in range(3)}  # fmt: skip
MASKS = {0: "sky", 1: "road"}
CLASSES_TSV = "".join(f"{i}\t{name}\n" for i, name in MASKS.items()).encode()


def test_a_class_a_folder(offer: Offer) -> None:
    offer("cifar10-jpeg", tar(JPEG))
    data = load("cifar10-jpeg", "test")
    assert data.classes == ("airplane", "bird")
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    expected = [[40 * i, 10 * k, 0] for k in range(2) for i in range(3)]
    assert data.images.shape == (6, 3, 32, 32) and data.images[:, :, 5, 7].tolist() == expected


def test_names_from_a_table_grey_images_and_val_as_test(offer: Offer) -> None:
    table = b"n00000001\tgoldfish\nn00000002\tkoala\n"
    files = {"tinyimagenet20/classes.tsv": table}
    for split in ("train", "val"):
        files[f"tinyimagenet20/{split}/n00000001/{split}_1.JPEG"] = picture(77, mode="L", form="JPEG")
        files[f"tinyimagenet20/{split}/n00000002/{split}_1.JPEG"] = picture((255, 0, 0), form="JPEG")
    files["tinyimagenet20/train/n00000002/more.JPEG"] = picture((0, 0, 255), form="JPEG")
    offer("tinyimagenet20-64", tar(files))
    train, test = load("tinyimagenet20-64", "train"), load("tinyimagenet20-64", "test")
    assert train.classes == test.classes == ("goldfish", "koala")
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 1], [0, 1])
    assert (test.images[0] == 77).all() and test.images[1, 0].min() > 250 > 5 > test.images[1, 1:].max()


def test_a_split_of_ours_is_stratified_fixed_and_complete(offer: Offer) -> None:
    files = {f"flowers17/{k:02}_f{k}/image_{i:04}.jpg": picture((i, k, 9)) for k in (1, 2, 10) for i in range(8)}
    offer("flowers17", tar(files), num_test=6)
    train, test = load("flowers17", "train"), load("flowers17", "test")
    assert train.classes == ("f1", "f2", "f10")
    assert (train.labels.bincount().tolist(), test.labels.bincount().tolist()) == ([6] * 3, [2] * 3)
    seen = [tuple(image[:2, 0, 0].tolist()) for part in (train, test) for image in part.images]
    assert sorted(seen) == sorted((i, k) for k in (1, 2, 10) for i in range(8))
    drawn = datasets.stratified_split(torch.arange(3).repeat_interleave(8), 6, seed=0)[0].sort().values
    assert test.images[:, 0, 0, 0].tolist() == (drawn % 8).tolist()


def masked(num: int, folder: str) -> Files:
    files = {f"{folder}/images/{i}.jpg": picture((i, 0, 0), (6, 4)) for i in range(num)}
    return files | {f"{folder}/masks/{i}.png": picture(i % 2, (6, 4), "L") for i in range(num)}


def test_masks_have_a_label_for_every_pixel(offer: Offer) -> None:
    files = {"camvid12/classes.tsv": CLASSES_TSV}
    for num, split in enumerate(("train", "val", "test"), 2):
        files |= masked(num, f"camvid12/{split}")
    offer("camvid12", tar(files))
    for num, split in enumerate(("train", "val", "test"), 2):
        data = load("camvid12", split)
        assert data.images.shape == (num, 3, 4, 6) and data.classes == ("sky", "road")
        assert (data.labels.shape, data.labels.dtype) == ((num, 4, 6), torch.int64)
        assert torch.equal(data.labels[:, 0, 0], data.images[:, 0, 0, 0].long() % 2)


def test_masks_without_a_split_get_one(offer: Offer) -> None:
    offer("ccp59", tar({"ccp59/classes.tsv": CLASSES_TSV} | masked(9, "ccp59")), num_test=4)
    seen = [load("ccp59", split).images[:, 0, 0, 0].tolist() for split in ("train", "test")]
    assert [len(part) for part in seen] == [5, 4] and sorted(sum(seen, [])) == list(range(9))


def test_classes_are_merged_and_images_halved(offer: Offer) -> None:
    table = b"0\tnull\n1\tcoat\n2\tskin\n3\thair\n4\tshoes\n"
    mask = np.array([[1, 4, 0, 0], [1, 0, 0, 2], [3, 2, 2, 3], [2, 3, 2, 3]], dtype=np.uint8)
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    streams = io.BytesIO(), io.BytesIO()
    for array, stream in zip((image, mask), streams):
        Image.fromarray(array).save(stream, "PNG")
    files = {f"ccp59/{kind}/{i}.png": stream.getvalue() for kind, stream in zip(("images", "masks"), streams)
             for i in range(3)}  # fmt: skip
    offer("ccp4", tar({"ccp59/classes.tsv": table} | files), num_test=1)
    train, test = load("ccp4", "train"), load("ccp4", "test")
    assert (len(train.images), len(test.images)) == (2, 1)
    assert test.classes == ("background", "skin", "hair", "clothes")
    # Coat and shoes are one class, so they outvote the ground; of two against two the top left pixel wins.
    assert test.labels[0].tolist() == [[3, 0], [2, 1]]
    # Means of 2x2 pixels of red: 0, 3, 12, 15; 6, 9, 18, 21; ... all end in .5, rounded up.
    assert test.images[0, 0].tolist() == [[8, 14], [32, 38]]


def test_odd_sizes_are_not_halved(offer: Offer) -> None:
    files = {"ccp59/classes.tsv": CLASSES_TSV, "ccp59/images/0.png": picture(0, (5, 4)),
             "ccp59/masks/0.png": picture(0, (5, 4), "L")}  # fmt: skip
    place = offer("ccp4", tar(files), num_test=1)
    with pytest.raises(ValueError, match=f"{place}.*4x5"):
        load("ccp4", "test")


# ------------------------------------------------------------------------------------------------- canonical CIFAR-10


def text2(text: bytes) -> bytes:
    """A byte string as Python 2 pickled it."""
    return b"T" + struct.pack("<i", len(text)) + text


def array2(pixels: np.ndarray, dtype: bytes = b"u1", order: str = "C") -> bytes:
    """A uint8 array as numpy under Python 2 pickled it."""
    state = b"(K\x01" + b"".join(b"J" + struct.pack("<i", n) for n in pixels.shape) + b"\x86"
    kind = b"cnumpy\ndtype\n" + text2(dtype) + b"K\x00K\x01\x87R(K\x03" + text2(b"|") + b"NNNJ\xff\xff\xff\xffJ"
    kind += b"\xff\xff\xff\xffK\x00tb"
    head = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text2(b"b") + b"\x87R"
    return head + state + kind + (b"\x88" if order == "F" else b"\x89") + text2(pixels.tobytes(order)) + b"tb"


def batch2(pixels: np.ndarray, labels: list[int], order: str = "C") -> bytes:
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text2(b"data") + array2(pixels, order=order) + text2(b"labels") + numbers + b"u."


PIXELS = np.random.default_rng(0).integers(0, 256, (12, 3072), dtype=np.uint8)
LABELS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]
NAMES10 = [f"class {i}" for i in range(10)]


def cifar(**changes: bytes) -> bytes:
    files = {f"data_batch_{i}": batch2(PIXELS[2 * i - 2 : 2 * i], LABELS[2 * i - 2 : 2 * i]) for i in range(1, 6)}
    files |= {"test_batch": batch2(PIXELS[10:], LABELS[10:]), "readme.html": b"<html>"}
    files |= {"batches.meta": pickle.dumps({"label_names": NAMES10}, protocol=2)} | changes
    return tar({f"cifar-10-batches-py/{name}": content for name, content in files.items()}, "w:gz")


def test_the_pickles_made_here_are_what_python_reads() -> None:
    for order in "CF":
        batch = batch2(PIXELS, LABELS, order).replace(b"numpy.core.", b"numpy._core.")
        read = pickle.loads(batch, encoding="latin1")
        assert np.array_equal(read["data"], PIXELS) and read["labels"] == LABELS


def test_cifar10_is_read_in_its_order(offer: Offer) -> None:
    offer("cifar10", cifar(test_batch=batch2(PIXELS[10:], LABELS[10:], order="F")))
    train, test = load("cifar10", "train"), load("cifar10", "test")
    assert np.array_equal(train.images.numpy(), PIXELS[:10].reshape(-1, 3, 32, 32))
    assert np.array_equal(test.images.numpy(), PIXELS[10:].reshape(-1, 3, 32, 32))
    assert train.labels.tolist() + test.labels.tolist() == LABELS
    assert train.classes == tuple(NAMES10)


def test_cifar100_has_its_fine_labels(offer: Offer) -> None:
    names = [f"thing {i}" for i in range(100)]
    fine = [99, 0, 42]
    labels = text2(b"fine_labels") + b"](" + b"".join(b"K" + bytes([label]) for label in fine) + b"e"
    coarse = text2(b"coarse_labels") + b"](K\x01K\x01K\x01e"
    batch = b"\x80\x02}(" + text2(b"data") + array2(PIXELS[:3]) + coarse + labels + b"u."
    meta = pickle.dumps({"fine_label_names": names, "coarse_label_names": ["x"] * 20}, protocol=2)
    files = {"train": batch2(PIXELS, LABELS), "test": batch, "meta": meta, "file.txt~": b""}
    files = {f"cifar-100-python/{name}": content for name, content in files.items()}
    place = offer("cifar100", tar(files, "w:gz"))
    data = load("cifar100", "test")
    assert np.array_equal(data.images.numpy(), PIXELS[:3].reshape(-1, 3, 32, 32))
    assert data.labels.tolist() == fine and data.classes == tuple(names)
    with pytest.raises(ValueError, match=f"{place}.*cifar-100-python/train.*fine_labels"):
        load("cifar100", "train")


# ------------------------------------------------------------------------------------- photographs, from their authors


def textures(**changes: bytes | None) -> bytes:
    files = {f"images/{kind}/{kind}_000{i}.jpg": picture((40 * i, 100 * k, 0), (90 + 10 * i, 70))
             for k, kind in enumerate(("polka-dotted", "banded")) for i in range(3)}  # fmt: skip
    files |= {f"labels/{part}1.txt": f"banded/banded_000{i}.jpg\npolka-dotted/polka-dotted_000{i}.jpg\n".encode()
              for i, part in enumerate(("train", "val", "test"))}  # fmt: skip
    files |= {"labels/train2.txt": b"banded/banded_0002.jpg\n", "imdb/imdb.mat": b"", "images/banded/.directory": b""}
    kept = {f"dtd/{name}": content for name, content in (files | changes).items() if content is not None}
    return tar(kept, "w:gz")


def test_textures_in_their_first_split(offer: Offer) -> None:
    offer("dtd", textures())
    train, test = load("dtd", "train"), load("dtd", "test")
    assert train.classes == test.classes == ("banded", "polka-dotted")
    assert (train.images.shape, test.images.shape) == ((4, 3, 64, 64), (2, 3, 64, 64))
    colours = [[0, 100, 0], [0, 0, 0], [40, 100, 0], [40, 0, 0]]  # train before validation, in the order of the lists
    assert train.images[:, :, 30, 30].tolist() == colours and test.images[:, 0, 30, 30].tolist() == [80, 80]
    assert train.labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"labels/val1.txt": None}, "dtd/labels/val1.txt"),
        ({"images/banded/banded_0001.jpg": None}, "'train'.*banded/banded_0001.jpg"),
        ({"labels/train1.txt": b"", "labels/val1.txt": b"\n"}, "'train'"),
        ({"images/banded/banded_0001.jpg": b"JFIF"}, "banded/banded_0001.jpg is not an image"),
    ],
)
def test_textures_that_do_not_fit_their_lists(offer: Offer, changes: dict, named: str) -> None:
    place = offer("dtd", textures(**changes))
    with pytest.raises(ValueError, match=f"{place}: .*{named}"):
        load("dtd", "train")


def matlab(**rows: list[int]) -> bytes:
    stream = io.BytesIO()
    scipy.io.savemat(stream, {name: np.array([row], dtype=np.uint16) for name, row in rows.items()})
    return stream.getvalue()


@pytest.fixture
def flowers(offer: Offer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Offer an archive of five flowers with its two files beside it, or with others."""

    def put(labels: bytes = matlab(labels=[2, 1, 2, 3, 1]), splits: bytes | None = None, num: int = 5) -> Path:
        splits = matlab(trnid=[4, 1], valid=[3], tstid=[2, 5]) if splits is None else splits
        files = {f"jpg/image_0000{i}.jpg": picture((50 * i, 0, 0), (80, 60 + i)) for i in range(1, num + 1)}
        place = offer("flowers102", tar(files, "w:gz"))
        beside = []
        known = PACKED["flowers102"]
        for archive, content in zip(known.beside, (labels, splits), strict=True):
            place.with_name(archive.filename).write_bytes(content)
            beside.append(archive._replace(known_hash=f"md5:{hashlib.md5(content).hexdigest()}"))
        monkeypatch.setitem(PACKED, "flowers102", known._replace(beside=tuple(beside)))
        return place

    return put


def test_flowers_with_labels_and_splits_beside_them(flowers: Callable[..., Path]) -> None:
    flowers()
    train, test = load("flowers102", "train"), load("flowers102", "test")
    assert train.images.shape == (3, 3, 64, 64) and train.images[:, 0, 30, 30].tolist() == [200, 50, 150]
    assert test.images[:, 0, 30, 30].tolist() == [100, 250]
    assert (train.labels.tolist(), test.labels.tolist()) == ([2, 1, 1], [0, 0])
    assert train.classes == test.classes == ("1", "2", "3")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num": 3}, "'train': 4"),
        ({"labels": matlab(labels=[1, 2, 3])}, "'train': 4"),
        ({"labels": b"MATLAB"}, "'labels'"),
        ({"splits": matlab(tstid=[1])}, "'trnid'"),
    ],
)
def test_flowers_that_do_not_fit_are_refused(flowers: Callable[..., Path], changes: dict, named: str) -> None:
    place = flowers(**changes)
    with pytest.raises(ValueError, match=f"{place}: .*{named}"):
        load("flowers102", "train")


def test_every_file_of_flowers_is_verified(flowers: Callable[..., Path]) -> None:
    splits = flowers().with_name("setid.mat")
    splits.write_bytes(splits.read_bytes()[:-1])
    with pytest.raises(ValueError, match="setid.mat"):
        load("flowers102", "train")


class Runs:
    """Unpickled in earnest, makes a folder."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("member", ["test_batch", "batches.meta"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_runs_nothing(offer: Offer, elsewhere: Path, member: str, protocol: int) -> None:
    trap = elsewhere / "trap"
    for attack in (Runs(os.mkdir, str(trap)), Runs(eval, f"__import__('os').mkdir({str(trap)!r})")):
        hostile = pickle.dumps({"data": attack, "labels": [], "label_names": attack}, protocol=protocol)
        offer("cifar10", cifar(**{member: hostile}))
        with pytest.raises(ValueError, match=f"{member} .*asks for .*{attack.call[0].__name__}"):
            load("cifar10", "test")
        assert not trap.exists()
    pickle.loads(hostile)
    assert trap.exists(), "the attack is none"


@pytest.mark.parametrize("name", ["numpy.load", "numpy.fromfile", "numpy.core.multiarray.scalar", "builtins.getattr"])
def test_numpy_itself_is_out_of_reach_of_a_pickle(offer: Offer, name: str) -> None:
    asked = "\n".join(name.rsplit(".", 1)).encode()
    offer("cifar10", cifar(test_batch=b"\x80\x02}" + text2(b"data") + b"c" + asked + b"\ns."))
    with pytest.raises(ValueError, match=f"test_batch .*asks for {name}"):
        load("cifar10", "test")


def test_not_even_the_constructor_of_an_array_is_called(offer: Offer, monkeypatch: pytest.MonkeyPatch) -> None:
    offer("cifar10", cifar(test_batch=batch2(PIXELS, LABELS).replace(b"numpy.core.", b"numpy._core.")))
    monkeypatch.setattr("numpy._core.multiarray._reconstruct", lambda *_: pytest.fail("called"))
    assert np.array_equal(load("cifar10", "test").images.numpy(), PIXELS.reshape(-1, 3, 32, 32))


@pytest.mark.parametrize(
    ("batch", "named"),
    [
        (b"", "pickle of plain data"),
        (batch2(PIXELS, LABELS)[:-500], "pickle of plain data"),
        (pickle.dumps([1, 2]), "dictionary"),
        (pickle.dumps({"data": 5, "labels": []}), "images and labels"),
        (batch2(PIXELS, LABELS[:-1]), r"labels \(11,\)"),
        (batch2(PIXELS, [77] * 12), r"labels \(12,\)"),
        (batch2(PIXELS[:, :100], LABELS), r"\(12, 100\)"),
        (batch2(PIXELS, LABELS).replace(array2(PIXELS), array2(PIXELS, b"f4")), "'f4'"),
        (batch2(PIXELS, LABELS).replace(struct.pack("<i", 12), struct.pack("<i", 13)), "images and labels"),
    ],
)
def test_a_malformed_batch_is_refused(offer: Offer, batch: bytes, named: str) -> None:
    place = offer("cifar10", cifar(test_batch=batch))
    with pytest.raises(ValueError, match=f"{place}: cifar-10-batches-py/test_batch .*{named}"):
        load("cifar10", "test")


# ----------------------------------------------------------------------------------------------- damaged and hostile


def test_another_archive_is_refused_before_it_is_read(elsewhere: Path) -> None:
    for name, mode in (("cifar10", "w:gz"), ("cifar10-jpeg", "w:xz")):
        archive = PACKED[name].archive
        (elsewhere / archive.filename).write_bytes(tar(JPEG, mode))
        with pytest.raises(ValueError, match=f"official {archive.filename}"):
            load(name, "test", path=elsewhere)


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_archive_is_refused(offer: Offer, kept: float) -> None:
    for name, content in (("cifar10", cifar()), ("cifar10-jpeg", tar(JPEG))):
        place = offer(name, content[: int(kept * len(content))])
        with pytest.raises(ValueError, match=f"{place}: .*damaged"):
            load(name, "test")


@pytest.mark.parametrize("kind", ["../outside", "/outside", "test/../../outside", "symlink", "hard link"])
def test_members_that_are_not_plain_files_inside_are_refused(offer: Offer, elsewhere: Path, kind: str) -> None:
    extra = tarfile.TarInfo("test/bird/0009.jpg" if "link" in kind else kind)
    if "link" in kind:
        extra.type, extra.linkname = (tarfile.SYMTYPE if kind == "symlink" else tarfile.LNKTYPE), "/etc/hostname"
    offer("cifar10-jpeg", tar(JPEG, extra=extra))
    before = set(elsewhere.parent.rglob("outside"))
    with pytest.raises(ValueError, match=f"'{extra.name}'.*plain file"):
        load("cifar10-jpeg", "test")
    assert set(elsewhere.parent.rglob("outside")) == before == set()


@pytest.mark.parametrize(
    ("name", "files", "named"),
    [
        ("cifar10-jpeg", {"readme": b""}, "split 'test'"),
        ("cifar10-jpeg", JPEG | {"test/bird/0009.jpg": b"text"}, "test/bird/0009.jpg is not an image"),
        ("cifar10-jpeg", JPEG | {"test/bird/0009.jpg": picture(0)[:60]}, "test/bird/0009.jpg is not an image"),
        ("cifar10-jpeg", JPEG | {"test/bird/0009.jpg": picture(0, (8, 9))}, "size: .*8x9.*test/bird/0009.jpg"),
        ("cifar10", {"readme": b""}, "batches"),
        ("camvid12", {"readme": b""}, "split 'test'"),
        ("camvid12", masked(2, "camvid12/test"), "masks do not fit"),
        ("camvid12", masked(2, "camvid12/test") | {"camvid12/test/images/7.jpg": picture(0, (6, 4))}, "masks .*pairs"),
        ("camvid12", masked(1, "camvid12/test") | {"camvid12/test/masks/0.png": picture(0)}, "mask .*8-bit"),
    ],
)
def test_other_contents_are_refused(offer: Offer, name: str, files: Files, named: str) -> None:
    place = offer(name, tar(files))
    with pytest.raises(ValueError, match=f"{place}: .*{named}"):
        load(name, "test")


def test_what_no_site_offers_says_so(elsewhere: Path) -> None:
    with pytest.raises(ConnectionError, match="dtd10-64.tar.xz.*not .*from the web.*REPDYN_DATA") as error:
        load("dtd10")
    assert f"{elsewhere / 'cache' / 'repdyn' / 'dtd10'}, " in str(error.value)


# -------------------------------------------------------------------------------------------------- the decoded cache


def test_the_second_load_decodes_nothing(offer: Offer, monkeypatch: pytest.MonkeyPatch, elsewhere: Path) -> None:
    place = offer("cifar10-jpeg", tar(JPEG))
    first = load("cifar10-jpeg", "test")
    monkeypatch.setattr(tarfile, "open", None)
    monkeypatch.setattr(Image, "open", None)
    for _ in range(2):
        again = load("cifar10-jpeg", "test")
        assert torch.equal(first.images, again.images) and torch.equal(first.labels, again.labels)
        assert first[2:] == again[2:]
        place.unlink(missing_ok=True)  # nor is the archive needed any more
    assert [file.suffix for file in (elsewhere / "cache/repdyn/cifar10-jpeg").iterdir()] == [".npz"]


def test_another_archive_is_decoded_anew(offer: Offer) -> None:
    offer("cifar10-jpeg", tar(JPEG))
    first = load("cifar10-jpeg", "test")
    offer("cifar10-jpeg", tar({name: picture((1, 2, 3)) for name in JPEG}))
    assert load("cifar10-jpeg", "test").sha256 != first.sha256


def test_a_damaged_cache_is_refused(offer: Offer, elsewhere: Path) -> None:
    offer("cifar10-jpeg", tar(JPEG))
    load("cifar10-jpeg", "test")
    [kept] = (elsewhere / "cache/repdyn/cifar10-jpeg").iterdir()
    whole = kept.read_bytes()
    changed = dict(np.load(kept))
    changed["labels"] = changed["labels"][::-1]
    stream = io.BytesIO()
    np.savez(stream, **changed)
    for broken in (b"", whole[:50], whole[:-100], whole[:3000] + b"x" + whole[3001:], stream.getvalue()):
        assert broken != whole
        kept.write_bytes(broken)
        with pytest.raises(ValueError, match=f"{kept}.*damaged"):
            load("cifar10-jpeg", "test")
    kept.unlink()
    assert load("cifar10-jpeg", "test").labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_cache_that_cannot_be_written_is_done_without(offer: Offer, elsewhere: Path) -> None:
    (elsewhere / "cache").write_text("a file where a folder should be")
    offer("cifar10-jpeg", tar(JPEG))
    assert len(load("cifar10-jpeg", "test").images) == 6


def test_writing_the_cache_leaves_nothing_half_done(
    offer: Offer, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(stream: io.BufferedWriter, **_: object) -> None:
        stream.write(b"half")
        raise OSError("no space left on device")

    offer("cifar10-jpeg", tar(JPEG))
    monkeypatch.setattr(np, "savez", full_disk)
    load("cifar10-jpeg", "test")
    assert list((elsewhere / "cache/repdyn/cifar10-jpeg").iterdir()) == []
