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

from repdyn import datasets
from repdyn.datasets import FASHION_CLASSES, load, stratified_split, to_unit_range

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


def as_rows(data: datasets.ImageSet) -> list[bytes]:
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
    ("arguments", "message"),
    [
        (("cifar",), "unknown data set 'cifar': choose one of digits, fashion-mnist, fashion-mnist-mini"),
        (("digits", "validation"), "split must be 'train' or 'test', got 'validation'"),
    ],
)
def test_unknown_names_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(*arguments)


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


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, no REPDYN_DATA and no network."""

    def unreachable(url: str, *_: object, **__: object) -> str:
        raise OSError(f"no route to {url}")

    monkeypatch.delenv("REPDYN_DATA", raising=False)
    monkeypatch.setattr(datasets.pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr(datasets.pooch, "retrieve", unreachable)
    return tmp_path


def test_without_network_the_message_names_the_folder(elsewhere: Path) -> None:
    folder = elsewhere / "cache" / "repdyn" / "fashion-mnist"
    with pytest.raises(ConnectionError, match="t10k-images-idx3-ubyte.gz could not be downloaded") as error:
        load("fashion-mnist", "test")
    assert f"Put it by hand into {folder}" in str(error.value)
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
    with pytest.raises(ValueError, match=f"{folder}.* does not hold the official t10k-images-idx3-ubyte.gz: remove it"):
        load("fashion-mnist", "test", **options)


def test_a_truncated_archive_is_refused(elsewhere: Path) -> None:
    for broken in (gzip.compress(bytes(1000))[:20], b"<html>not found</html>", b""):
        place(elsewhere, broken)
        with pytest.raises(ValueError, match="truncated or damaged|does not hold the official"):
            load("fashion-mnist", "test", path=elsewhere)


def test_an_explicit_folder_without_the_file_is_refused(elsewhere: Path) -> None:
    with pytest.raises(ValueError, match="path: there is no t10k-images-idx3-ubyte.gz in"):
        load("fashion-mnist", "test", path=elsewhere)


def test_a_download_is_checked_on_arrival_and_again(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def retrieve(url: str, known_hash: str, filename: str, folder: Path, **_: object) -> str:
        asked.append((url, known_hash, filename))
        place(folder, gzip.compress(b"another file"))
        return str(folder / filename)

    monkeypatch.setattr(datasets.pooch, "retrieve", retrieve)
    with pytest.raises(ValueError, match="does not hold the official"):
        load("fashion-mnist", "test")
    [(url, known_hash, filename)] = asked
    assert url.endswith(filename) and known_hash == "md5:bef4ecab320f06d8554ea6380940ec79"


# --------------------------------------------------------------------------------------------------------- pieces


def test_pixels_become_minus_one_to_one() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8)
    torch.testing.assert_close(to_unit_range(pixels), torch.tensor([-1.0, -0.6, 1.0]))
    with pytest.raises(ValueError, match=r"images must be uint8, got torch\.float32"):
        to_unit_range(torch.zeros(3))


LABELS = st.lists(st.sampled_from([0, 3, 7, -2]), min_size=1, max_size=60).map(torch.tensor)


@settings(deadline=None, max_examples=200)
@given(LABELS, st.integers(0, 60), st.integers(0, 2**31))
def test_stratified_split(labels: torch.Tensor, num: int, seed: int) -> None:
    counts = labels.unique(return_counts=True)[1]
    share, extra = divmod(num, len(counts))
    wanted = torch.tensor([share + (i < extra) for i in range(len(counts))])
    if (wanted > counts).any():
        with pytest.raises(ValueError, match=f"num={num} asks for more items of some class than there are"):
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
