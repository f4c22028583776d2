"""Image sets: what is embedded, what is found on disk and verified, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from repdyn.datasets import FASHION_CLASSES, load, stratified_split
from repdyn.images import ImageSet, to_unit_range

EMBEDDED = {
    ("digits", "train"): ((1437, 1, 8, 8), "cdab6f0fd60ad44f3ddd210f9f0691da47eb09d9a7f68bcae2354203dd7a80ca"),
    ("digits", "test"): ((360, 1, 8, 8), "05fe463508fa7907d906dc6c47760d9e1758d7a037e26eea48723b5654952211"),
    ("fashion-mnist-mini", "train"): (
        (10_000, 1, 28, 28),
        "98456eddd4ade138bee49d532fb9feef0452ad6bd9d972811307ef0e2e6b8515",
    ),
    ("fashion-mnist-mini", "test"): (
        (2_000, 1, 28, 28),
        "6576475f55b40d0af462298a9db82c6537650cb45f4c7ccc9bf59c83f0b895be",
    ),
}


def as_rows(data: ImageSet) -> list[bytes]:
    """Each image and its label as bytes."""
    return [image.numpy().tobytes() + bytes([label]) for image, label in zip(data.images, data.labels.tolist())]


# ----------------------------------------------------------------------------------------------------- embedded


@pytest.mark.parametrize(("name", "split"), EMBEDDED)
def test_embedded_sets(name: str, split: str) -> None:
    data = load(name, split)
    shape, digest = EMBEDDED[name, split]
    assert (data.images.shape, data.images.dtype) == (shape, torch.uint8)
    assert (data.labels.shape, data.labels.dtype) == (shape[:1], torch.int64)
    assert data.sha256 == digest  # recorded results name the data by this
    assert data.sha256 == hashlib.sha256(data.images.numpy().tobytes() + data.labels.numpy().tobytes()).hexdigest()
    assert len(data.classes) == 10 and data.images.max() == 255


def test_mini_is_balanced_and_its_splits_share_no_image() -> None:
    train, test = load("fashion-mnist-mini", "train"), load("fashion-mnist-mini", "test")
    assert train.labels.bincount().tolist() == [1000] * 10
    assert test.labels.bincount().tolist() == [200] * 10
    assert train.classes == FASHION_CLASSES
    assert not set(as_rows(train)) & set(as_rows(test))


def test_digits_are_those_of_scikit_learn_split_in_two() -> None:
    original = load_digits()
    pixels = (original.images * 255 / 16).round().astype("uint8")
    everything = sorted(image.tobytes() + bytes([label]) for image, label in zip(pixels, original.target))
    train, test = load("digits", "train"), load("digits", "test")
    assert sorted(as_rows(train) + as_rows(test)) == everything
    assert test.labels.bincount().tolist() == [36] * 10
    assert not set(as_rows(train)) & set(as_rows(test))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"name": "cifar"}, "'cifar'.*digits, fashion-mnist, "),
        ({"name": "digits", "split": "val"}, "^split .*'val'"),
        ({"name": "camvid12", "split": "valid"}, "^split .*'val' .*'valid'"),
        ({"name": "digits", "size": 16}, "^size .*digits"),
    ],
)
def test_what_no_set_is_or_has_is_refused(arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        load(**arguments)


# -------------------------------------------------------------------------------------------------- the full set


def test_full_set_and_its_subset(full_fashion: Path) -> None:
    for split, count in (("train", 60_000), ("test", 10_000)):
        full, mini = load("fashion-mnist", split), load("fashion-mnist-mini", split)
        assert full.images.shape == (count, 1, 28, 28)
        assert full.labels.bincount().tolist() == [count // 10] * 10
        assert set(as_rows(mini)) <= set(as_rows(full))


def test_full_set_from_an_explicit_folder(full_fashion: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPDYN_DATA", raising=False)
    if not full_fashion.is_dir():
        pytest.skip("NOT TESTED: Fashion-MNIST is in another folder")
    assert len(load("fashion-mnist", "test", path=full_fashion).images) == 10_000
    assert len(load("fashion-mnist", "test", path=full_fashion / "fashion-mnist").images) == 10_000


def test_without_network_the_message_names_the_folder(elsewhere: Path) -> None:
    folder = elsewhere / "cache" / "repdyn" / "fashion-mnist"
    with pytest.raises(ConnectionError, match="t10k-images-idx3-ubyte.gz") as error:
        load("fashion-mnist", "test")
    assert f"{folder}, " in str(error.value)
    assert "REPDYN_DATA" in str(error.value)


def place(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(content)


@pytest.mark.parametrize("where", ["path", "environment", "environment/fashion-mnist", "cache"])
def test_whatever_is_found_is_verified(elsewhere: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    folder = elsewhere / "cache" / "repdyn" if where == "cache" else elsewhere / where
    options = {"path": folder} if where == "path" else {}
    if where.startswith("environment"):
        monkeypatch.setenv("REPDYN_DATA", str(elsewhere / "environment"))
    place(folder, gzip.compress(bytes(16 + 784)))
    with pytest.raises(ValueError, match=f"{folder}.*t10k-images-idx3-ubyte.gz"):
        load("fashion-mnist", "test", **options)


def test_a_truncated_archive_is_refused(elsewhere: Path) -> None:
    for broken in (gzip.compress(bytes(1000))[:20], b"<html>not found</html>", b""):
        place(elsewhere, broken)
        with pytest.raises(ValueError, match=f"{elsewhere}/t10k-images-idx3-ubyte.gz"):
            load("fashion-mnist", "test", path=elsewhere)


def test_an_explicit_folder_without_the_file_is_refused(elsewhere: Path) -> None:
    with pytest.raises(ValueError, match="^path: .*t10k-images-idx3-ubyte.gz"):
        load("fashion-mnist", "test", path=elsewhere)


def test_a_download_is_checked_on_arrival_and_again(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def retrieve(url: str, known_hash: str, filename: str, folder: Path, **_: object) -> str:
        asked.append((url, known_hash, filename))
        place(folder, gzip.compress(b"another file"))
        return str(folder / filename)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    with pytest.raises(ValueError, match="official t10k-images-idx3-ubyte.gz"):
        load("fashion-mnist", "test")
    [(url, known_hash, filename)] = asked
    assert url.endswith(filename) and known_hash == "md5:bef4ecab320f06d8554ea6380940ec79"


@pytest.mark.parametrize("root", ["path", "environment", "cache"])
def test_mnist_does_not_take_fashion_mnist_for_a_broken_copy(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    folder = elsewhere / "cache" / "repdyn" if root == "cache" else elsewhere
    if root == "environment":
        monkeypatch.setenv("REPDYN_DATA", str(elsewhere))
    place(folder, gzip.compress(b"Fashion-MNIST's"))
    if root == "path":
        with pytest.raises(ValueError, match="official t10k-images-idx3-ubyte.gz"):
            load("mnist", "test", path=folder)
        return
    with pytest.raises(ConnectionError, match="t10k-images-idx3-ubyte.gz .*https://ossci-"):
        load("mnist", "test")
    place(folder / "mnist", gzip.compress(b"not MNIST's either"))
    with pytest.raises(ValueError, match="mnist/t10k-images-idx3-ubyte.gz "):
        load("mnist", "test")


def test_a_failed_download_is_tried_once_more(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def retrieve(url: str, *_: object, **__: object) -> str:
        tried.append(url)
        raise ValueError("MD5 hash of downloaded file does not match")

    monkeypatch.setattr("pooch.retrieve", retrieve)
    with pytest.raises(ConnectionError, match="cifar-10-python.tar.gz .*MD5 hash") as error:
        load("cifar10", "test")
    assert tried == ["https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"] * 2
    assert error.value.__suppress_context__


# ------------------------------------------------------------------------------------- full sets, where they are here

FULL = {
    ("mnist", "train"): ((60_000, 1, 28, 28), "d18cfd466eb143ac1097fde604dba9eec4116885869d04cc648b510949f9e88c"),
    ("mnist", "test"): ((10_000, 1, 28, 28), "a0863a96c44e5666edbb30c4071ee79ca0514c621e6349c5967fc78e7305c891"),
    ("cifar10-jpeg", "test"): (
        (10_000, 3, 32, 32), "56408e16fefefc2d653e651fc019204c8b6c429b1f1e97679865d69cf85adbcf"),
    ("tinyimagenet100-32", "test"): (
        (5_000, 3, 32, 32), "4eea4062e2c73c8a566c0dac6fec4cd12da1bc2defbe4d3311ffd41826cd8cb4"),
    ("tinyimagenet20-64", "test"): (
        (1_000, 3, 64, 64), "4f334d83ee47b93744851fa5aef9e37589db256d8ecd2d95864bc9c178ce5510"),
    ("flowers17", "train"): ((1_020, 3, 64, 64), "ae3a1252f42ae8243d7ef4104cc983c96c9671f1fc2b72bbfea73df6b64c8435"),
    ("flowers17", "test"): ((340, 3, 64, 64), "ac9bfb0f90f83c4714e301fbe272af67c87ef09c67d5d42a4b6bd629a920a3d8"),
    ("dtd10", "train"): ((900, 3, 64, 64), "f52c2df09c96d844fc4fa909896867f9600ee305f3f2e2f024279f9c9daefaad"),
    ("dtd10", "test"): ((300, 3, 64, 64), "bf94729a1ade64be3489b47a0ed0b20cd2ac5efe11c5a46c4ad4f549d018d2bd"),
    ("camvid12", "train"): ((367, 3, 96, 128), "ff23618a0ffef44dcea279addf6223761ab45f2dfbe0472ea68bd63f55b254c4"),
    ("camvid12", "val"): ((101, 3, 96, 128), "9979b73cae0961112149d86867a6be89790616a77905fe3baf92c63631dbc196"),
    ("camvid12", "test"): ((233, 3, 96, 128), "fcdb7d3723702ee61ff3e7ccaf87db62dcaab4f3a0a33a12ec37c26a90668727"),
    ("ccp59", "train"): ((804, 3, 96, 64), "1dbe3241471bd0cbbbdafc0d140d62d3e6c137c5288a7b55ee4272e703324ff8"),
    ("ccp59", "test"): ((200, 3, 96, 64), "7b0a708db0d814686ff3d23843a5ef05e38e93025ebefaf5881964e580a300fc"),
    ("ccp4", "train"): ((804, 3, 48, 32), "9feaa1f3b0997b3bef8ad70a744d3cc5157127294c2c899bbb822efa399a1006"),
    ("ccp4", "test"): ((200, 3, 48, 32), "35f954e99ac623b33b656d13bb22162f77e30eaa745615307946d0e91b32e02c"),
}  # fmt: skip
NUM_CLASSES = {"tinyimagenet100-32": 100, "tinyimagenet20-64": 20, "flowers17": 17, "camvid12": 12, "ccp59": 59,
               "ccp4": 4}  # fmt: skip


def load_or_skip(name: str, split: str) -> ImageSet:
    try:
        return load(name, split)
    except ConnectionError:
        pytest.skip(f"NOT TESTED: no {name} here; put it into a folder named by REPDYN_DATA")


@pytest.mark.parametrize(("name", "split"), FULL)
def test_full_sets(shared_data: Path, name: str, split: str) -> None:
    data = load_or_skip(name, split)
    shape, digest = FULL[name, split]
    assert (data.images.shape, data.images.dtype) == (shape, torch.uint8)
    assert data.images.is_contiguous() and data.labels.dtype == torch.int64
    assert data.sha256 == digest  # recorded results name the data by this
    assert len(data.classes) == len(set(data.classes)) == NUM_CLASSES.get(name, 10)
    if name in ("camvid12", "ccp59", "ccp4"):
        assert data.labels.shape == (shape[0], *shape[2:]) and data.labels.max() < len(data.classes)
        assert len(data.labels.unique()) > min(10, len(data.classes) - 1)
    elif name != "mnist":
        assert data.labels.bincount().tolist() == [shape[0] // len(data.classes)] * len(data.classes)


def test_classes_of_full_sets(shared_data: Path) -> None:
    jpeg, flowers, camvid = (load_or_skip(name, "test") for name in ("cifar10-jpeg", "flowers17", "camvid12"))
    assert " ".join(jpeg.classes) == "airplane automobile bird cat deer dog frog horse ship truck"
    assert flowers.classes[:2] == ("daffodil", "snowdrop")
    assert camvid.classes[0] == "Sky" and camvid.classes[11] == "Unlabelled"
    sky, road = ((camvid.labels == i).nonzero()[:, 1].double().mean() for i in (0, 3))
    assert sky < 30 < 60 < road  # rows of 96, from the top


def test_four_classes_are_the_fifty_nine_merged(shared_data: Path) -> None:
    full, small = load_or_skip("ccp59", "test"), load_or_skip("ccp4", "test")
    means = torch.nn.functional.avg_pool2d(full.images.double(), 2)
    assert (means - small.images).abs().max() <= 0.5
    assert small.classes == ("background", "skin", "hair", "clothes")
    names = {"null": 0, "skin": 1, "hair": 2}
    merged = torch.tensor([names.get(name, 3) for name in full.classes])[full.labels]
    votes = torch.stack([(merged == k).double() for k in range(4)], 1)
    votes = torch.nn.functional.avg_pool2d(votes, 2) * 4  # (N, 4, H, W)
    won = votes.gather(1, small.labels[:, None])[:, 0]
    assert (won == votes.max(1).values).all(), "a label that fewer pixels have than another"


@pytest.mark.parametrize("name", ["flowers17", "dtd10", "ccp59"])
def test_splits_of_ours_share_nothing(shared_data: Path, name: str) -> None:
    train, test = ({image.numpy().tobytes() for image in load_or_skip(name, s).images} for s in ("train", "test"))
    assert len(train) > len(test) and not train & test


# --------------------------------------------------------------------------------------------------------- pieces


def test_pixels_become_minus_one_to_one() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8)
    torch.testing.assert_close(to_unit_range(pixels), torch.tensor([-1.0, -0.6, 1.0]))
    with pytest.raises(ValueError, match="^images .*float32"):
        to_unit_range(torch.zeros(3))


LABELS = st.lists(st.sampled_from([0, 3, 7, -2]), min_size=1, max_size=60).map(torch.tensor)


@settings(deadline=None, max_examples=200)
@given(LABELS, st.integers(0, 60), st.integers(0, 2**31))
def test_stratified_split(labels: torch.Tensor, num: int, seed: int) -> None:
    counts = labels.unique(return_counts=True)[1]
    share, extra = divmod(num, len(counts))
    wanted = torch.tensor([share + (i < extra) for i in range(len(counts))])
    if (wanted > counts).any():
        with pytest.raises(ValueError, match=f"num={num} "):
            stratified_split(labels, num, seed)
        return
    chosen, others = stratified_split(labels, num, seed)
    assert sorted(chosen.tolist() + others.tolist()) == list(range(len(labels)))
    found = [int((labels[chosen] == label).sum()) for label in labels.unique()]
    assert found == wanted.tolist()
    again = stratified_split(labels, num, seed)
    assert torch.equal(chosen, again[0]) and torch.equal(others, again[1])


def test_split_depends_on_the_seed_and_is_shuffled() -> None:
    labels = torch.arange(10).repeat_interleave(50)
    (first, rest), (second, _) = stratified_split(labels, 100, 0), stratified_split(labels, 100, 1)
    assert set(first.tolist()) != set(second.tolist())
    for part in (first, rest):
        assert len(labels[part][:20].unique()) > 4, "in the order of the classes"


def test_every_item_of_a_class_is_drawn_equally_often() -> None:
    labels = torch.tensor([0] * 10 + [1] * 5)
    counts = torch.zeros(15)
    for seed in range(2000):
        counts[stratified_split(labels, 10, seed)[0]] += 1
    assert (counts[10:] == 2000).all()
    assert ((counts[:10] - 1000).abs() < 5 * (2000 * 0.25) ** 0.5).all()


def test_pixels_are_averaged_over_squares() -> None:
    images = torch.randint(256, (2, 3, 4, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pooled = to_unit_range(images, pool=2)
    assert pooled.shape == (2, 3, 2, 3), "the seventh column is left over"
    expected = images[..., :6].double().reshape(2, 3, 2, 2, 3, 2).mean((3, 5)) / 127.5 - 1
    torch.testing.assert_close(pooled.double(), expected, atol=1e-6, rtol=0)
    assert torch.equal(to_unit_range(images, pool=1), to_unit_range(images))
    with pytest.raises(ValueError, match="pool"):
        to_unit_range(images, pool=0)
