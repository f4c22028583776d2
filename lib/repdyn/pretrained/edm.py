"""EDM's network snapshots, read as data: nothing that a snapshot names is imported, called or executed."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from repdyn.denoisers import EDMDenoiser
from repdyn.networks import UNet, UNetConfig

_MODULE = "torch_utils.persistence._reconstruct_persistent_obj"
_MODULE_DICT = "torch.nn.modules.container.ModuleDict"
_TENSOR = "torch._utils._rebuild_tensor_v2"
_PARAMETER = "torch._utils._rebuild_parameter"
_STORAGE = "torch.storage._load_from_bytes"
_NUMPY_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
_RECORDS = {_MODULE, _MODULE_DICT, _TENSOR, _PARAMETER, _STORAGE, *_NUMPY_SCALARS, "numpy.dtype", *_DTYPES}
_CONTAINERS = {
    "collections.OrderedDict": dict,
    "dnnlib.util.EasyDict": dict,
    "builtins.set": set,
    "__builtin__.set": set,
    "torch.Size": tuple,
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a storage written by torch.save without a zip file

_SUPPORTED = "supported is EDMPrecond around SongUNet, as DDPM++ or NCSN++"
_VARIANTS = {
    "ddpmpp": {"embedding_type": "positional", "channel_mult_noise": 1, "encoder_type": "standard"},
    "ncsnpp": {"embedding_type": "fourier", "channel_mult_noise": 2, "encoder_type": "residual"},
}
_FILTERS = {"ddpmpp": [1, 1], "ncsnpp": [1, 3, 3, 1]}
_DEFAULTS = _VARIANTS["ddpmpp"] | {
    "decoder_type": "standard",
    "resample_filter": [1, 1],
    "label_dim": 0,
    "augment_dim": 0,
    "model_channels": 128,
    "channel_mult": [1, 2, 2, 2],
    "channel_mult_emb": 4,
    "num_blocks": 4,
    "attn_resolutions": [16],
    "dropout": 0.1,
    "label_dropout": 0,
}


class _Unusable(ValueError):
    """What is wrong with a snapshot, as the end of a sentence that begins with its path."""


class _Record:
    """Stands in for every object of a snapshot: holds its arguments and its state, and runs nothing."""

    __slots__ = ("args", "state")
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: object) -> _Record:
        record = super().__new__(cls)
        record.args, record.state = args, None
        return record

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Unpickles to plain containers and records. What a pickle may name is listed; all else ends the reading."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        super().__init__(file)
        self._kinds: dict[str, type[_Record]] = {}  # a pickle can set attributes of a class: these die with it

    def find_class(self, module: str, name: str) -> object:
        """What stands in for a name in a pickle: plain containers, inert records and dtypes; any other is refused."""
        full = f"{module}.{name}"
        if full in _CONTAINERS:
            return _CONTAINERS[full]
        if full in _RECORDS:
            return self._kinds.setdefault(full, type(full, (_Record,), {"__slots__": ()}))
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return vars(torch)[name]
        raise _Unusable(f"asks for {full}, which the weights of a network do not need: refused, and nothing was run")

    def persistent_load(self, pid: object) -> object:
        return pid


def load_edm(path: str | os.PathLike, device: torch.device | str = "cpu") -> EDMDenoiser:
    """Load the averaged network of a snapshot of NVIDIA's EDM, a ``.pkl`` file, without executing what it contains.

    The network is rebuilt as :class:`repdyn.networks.unet.UNet` from the arguments that the snapshot states, and its
    weights are loaded by name: float32 on ``device``, in evaluation mode. Class and augmentation labels can be given to
    the denoiser as ``class_labels`` and ``augment_labels``; left out, they are zero, as in EDM.

    A snapshot is a pickle, in which any file can hide a program. Only containers, numbers, strings and tensors are
    read; the source code that snapshots carry is ignored. Raises ``ValueError`` for a file that names anything else, is
    damaged, is no snapshot, or holds another network than EDMPrecond around SongUNet (DDPM++ or NCSN++), tensors that
    do not fit it, or weights that are not finite.

    Source: Karras et al. (2022).
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is no file: download a snapshot, and pass where it is")
    try:
        with path.open("rb") as file:
            snapshot = _Unpickler(file).load()
        return _rebuild(snapshot).to(device).eval().requires_grad_(False)
    except _Unusable as error:
        raise ValueError(f"{path} {error}") from error
    except Exception as error:  # a damaged or hostile pickle can fail in any way
        raise ValueError(f"{path} is no readable EDM snapshot: {type(error).__name__}: {error}") from error


def _rebuild(snapshot: object) -> EDMDenoiser:
    if not isinstance(snapshot, dict) or "ema" not in snapshot:
        raise _Unusable("holds no 'ema', the averaged network of an EDM snapshot")
    name, outer = _module(snapshot["ema"])
    if name != "EDMPrecond":
        raise _Unusable(f"holds a {name}: {_SUPPORTED}")
    name, inner = _module(outer["_modules"]["model"])
    if name != "SongUNet":
        raise _Unusable(f"holds a {name}: {_SUPPORTED}")
    config = _config(inner)
    weights = {key: _tensor(value) for key, value in _tensors(snapshot["ema"])}
    with torch.device("meta"):
        _check_weights(weights, EDMDenoiser(UNet(config)).state_dict())
    denoiser = EDMDenoiser(UNet(config), sigma_data=_plain(outer["sigma_data"]))
    denoiser.load_state_dict({key: value.float() for key, value in weights.items()})
    return denoiser


def _config(state: dict) -> UNetConfig:
    if state["_init_args"]:
        raise _Unusable("holds a SongUNet made with positional arguments, whose meaning is not stated")
    given = {key: _plain(value) for key, value in state["_init_kwargs"].items()}
    kwargs = _DEFAULTS | given
    resolution, channels = kwargs.pop("img_resolution"), kwargs.pop("in_channels")
    variants = [name for name, marks in _VARIANTS.items() if marks.items() <= kwargs.items()]
    supported = (
        kwargs.keys() <= {*_DEFAULTS, "out_channels"}
        and kwargs["out_channels"] == channels
        and (kwargs["decoder_type"], kwargs["channel_mult_emb"]) == ("standard", 4)
    )
    if not supported or not variants or list(kwargs["resample_filter"]) != _FILTERS[variants[0]]:
        raise _Unusable(f"holds a SongUNet of an unknown kind, {given}: {_SUPPORTED}")
    try:
        return UNetConfig(
            resolution=resolution,
            channels=channels,
            model_channels=kwargs["model_channels"],
            channel_mult=tuple(kwargs["channel_mult"]),
            num_blocks=kwargs["num_blocks"],
            attn_resolutions=tuple(kwargs["attn_resolutions"]),
            dropout=kwargs["dropout"],
            num_classes=kwargs["label_dim"],
            augment_dim=kwargs["augment_dim"],
            variant=variants[0],
        )
    except ValueError as error:
        raise _Unusable(f"describes no network: {error}") from error


def _check_weights(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    missing, strange = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or strange:
        raise _Unusable(f"does not fit the network it describes: lacks {missing[:3]}, has {strange[:3]} too many")
    for name, value in weights.items():
        if value.shape != expected[name].shape:
            shapes = f"{tuple(value.shape)}, not {tuple(expected[name].shape)}"
            raise _Unusable(f"does not fit the network it describes: {name} has shape {shapes}")
        if not torch.isfinite(value).all():
            raise _Unusable(f"holds NaN or infinity in {name}")


def _stands_for(value: object, *names: str) -> TypeGuard[_Record]:
    return isinstance(value, _Record) and type(value).__name__ in names


def _module(record: object) -> tuple[str, dict]:
    """Class name and attributes of a module, whichever way it was pickled."""
    if _stands_for(record, _MODULE):
        return record.args[0]["class_name"], record.args[0]["state"]
    if _stands_for(record, _MODULE_DICT):
        return "ModuleDict", record.state
    raise _Unusable(f"holds a {type(record).__name__} where a network belongs: {_SUPPORTED}")


def _tensors(record: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    _, state = _module(record)
    transient = state.get("_non_persistent_buffers_set", ())
    for name, value in (state["_parameters"] | state["_buffers"]).items():
        if value is not None and name not in transient:
            yield prefix + name, value
    for name, child in state["_modules"].items():
        if child is not None:
            yield from _tensors(child, f"{prefix}{name}.")


def _tensor(record: object) -> Tensor:
    if _stands_for(record, _PARAMETER):
        record = record.args[0]
    if not _stands_for(record, _TENSOR) or not _stands_for(record.args[0], _STORAGE):
        raise _Unusable("holds a tensor of an unknown kind")
    storage, offset, size, stride = record.args[:4]
    return torch.as_strided(_storage(storage.args[0]), size, stride, offset)


def _storage(data: bytes) -> Tensor:
    """The numbers of a storage written by ``torch.save``: five pickles, the length, and the numbers, (numel,).

    Own reading, because ``torch.load`` is not safe in all versions and its refusals do not name what they refuse.
    """
    stream = io.BytesIO(data)
    magic, _protocol, _system, pid, _keys = (_Unpickler(stream).load() for _ in range(5))
    if magic != _LEGACY_MAGIC or not isinstance(pid, tuple) or pid[0] != "storage" or any(pid[5:]):  # no view
        raise _Unusable("holds a storage of an unknown kind")
    dtype, numel = _DTYPES[pid[1].__name__], pid[4]
    length, values = int.from_bytes(stream.read(8), "little"), stream.read()
    if length != numel or len(values) != numel * dtype.itemsize:
        raise _Unusable("holds a storage that is cut off")
    return torch.frombuffer(bytearray(values), dtype=dtype) if numel else torch.empty(0, dtype=dtype)


def _plain(value: object) -> Any:
    """An argument of a network: a number, a string, or a list of them."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if _stands_for(value, *_NUMPY_SCALARS) and value.args[0].args[0] in ("f8", "f4", "i8", "i4", "b1"):
        return np.frombuffer(value.args[1], f"<{value.args[0].args[0]}")[0].item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise _Unusable(f"describes its network with a {type(value).__name__}")
