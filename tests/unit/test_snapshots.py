"""EDM's snapshots: networks rebuilt weight by weight, and nothing in a file ever run."""

from __future__ import annotations

import copyreg
import functools
import io
import os
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import requests
import torch
from torch import nn

from repdyn import features, pretrained
from repdyn.denoisers import EDMDenoiser
from repdyn.networks import UNet, UNetConfig

SMALL = {"resolution": 8, "model_channels": 8, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (4,)}
KINDS = {
    "ddpmpp": ("positional", 1, "standard", [1, 1]),
    "ncsnpp": ("fourier", 2, "residual", [1, 3, 3, 1]),
}


class Persistent(nn.Module):
    """A module pickled as EDM's persistent classes are: by the source code of its class, and its attributes."""

    def __init__(self, name: str, **attributes: object) -> None:
        super().__init__()
        self.__dict__ |= {"_init_args": (), "_init_kwargs": {}, **attributes}
        self.__dict__["class_name"] = name

    def __reduce__(self) -> tuple:
        source = "raise SystemError('the source in a snapshot was executed')"
        state = {key: value for key, value in self.__dict__.items() if key != "class_name"}
        meta = {"type": "class", "version": 6, "module_src": source, "class_name": self.class_name, "state": state}
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,), None


def network(variant: str = "ddpmpp", **changes: object) -> UNet:
    """A tiny network of which every weight counts."""
    unet = UNet(UNetConfig(**{**SMALL, "variant": variant, "dropout": 0.0, **changes}))
    generator = torch.Generator().manual_seed(1)
    for parameter in unet.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / max(parameter[0].numel(), 9) ** 0.5
    return unet.eval()


def official(module: nn.Module, name: str = "UNetBlock", **attributes: object) -> nn.Module:
    """The same parameters, buffers and names in the classes of EDM."""
    wrapped = nn.ModuleDict() if isinstance(module, nn.ModuleDict) else Persistent(name, **attributes)
    wrapped._parameters |= module._parameters
    wrapped._buffers |= {k: v for k, v in module._buffers.items() if k not in module._non_persistent_buffers_set}
    wrapped._modules |= {k: child and official(child, skip_scale=np.sqrt(0.5)) for k, child in module._modules.items()}
    return wrapped


def init_kwargs(config: UNetConfig) -> dict:
    """The arguments that EDM's training gives to its SongUNet."""
    fields = asdict(config)
    kwargs = {name: fields[name] for name in ("model_channels", "num_blocks", "dropout", "augment_dim")}
    kwargs |= {name: list(fields[name]) for name in ("channel_mult", "attn_resolutions")}
    kwargs |= {"img_resolution": config.resolution, "label_dim": config.num_classes}
    kwargs |= {"in_channels": config.channels, "out_channels": config.channels}
    names = ("embedding_type", "channel_mult_noise", "encoder_type", "resample_filter")
    return kwargs | dict(zip(names, KINDS[config.variant])) | {"decoder_type": "standard"}


def precond(unet: UNet, outer: str = "EDMPrecond", inner: str = "SongUNet", **changes: object) -> Persistent:
    ema = Persistent(outer, sigma_data=0.5, sigma_min=0, sigma_max=float("inf"), use_fp16=False)
    ema._modules["model"] = official(unet, inner, _init_kwargs={**init_kwargs(unet.config), **changes})
    return ema


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a snapshot as EDM's training does; ``torch_utils`` is there while writing only."""

    def _write(ema: object, **others: object) -> Path:
        persistence = ModuleType("torch_utils.persistence")
        exec("def _reconstruct_persistent_obj(meta): raise SystemError('never called')", persistence.__dict__)
        data = {"ema": ema, "loss_fn": Persistent("EDMLoss", P_mean=-1.2), "augment_pipe": None}
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "torch_utils", ModuleType("torch_utils"))
            patch.setitem(sys.modules, "torch_utils.persistence", persistence)
            (tmp_path / "snapshot.pkl").write_bytes(pickle.dumps(data | {"dataset_kwargs": {"path": "x"}} | others))
        assert "torch_utils" not in sys.modules
        return tmp_path / "snapshot.pkl"

    return _write


# ------------------------------------------------------------------------------------------------ faithful rebuilding


@pytest.mark.parametrize("variant", ["ddpmpp", "ncsnpp"])
@pytest.mark.parametrize(("labels", "augment"), [(0, 0), (4, 9)])
@torch.no_grad()
def test_the_loaded_denoiser_is_the_one_that_was_written(write: Callable, variant: str, labels: int, augment: int):
    unet = network(variant, num_classes=labels, augment_dim=augment)
    loaded = pretrained.load_edm(write(precond(unet)))
    direct = EDMDenoiser(unet, sigma_data=0.5)
    x, sigma = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.02, 0.5, 9.0])
    conditions = {}
    if labels:
        conditions = {"class_labels": torch.eye(4)[:3], "augment_labels": torch.ones(3, 9)}
        assert not torch.allclose(loaded(x, sigma), loaded(x, sigma, **conditions), atol=1e-3)
    assert torch.equal(loaded(x, sigma, **conditions), direct(x, sigma, **conditions))
    assert torch.equal(loaded(x, sigma), direct(x, sigma))
    assert loaded.model.config == unet.config
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert features.extract(loaded, x, 0.5, ["enc/4x4_block0"])["enc/4x4_block0"].shape == (3, 16)


def test_load_takes_the_path_of_a_snapshot(write: Callable) -> None:
    unet = network()
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    path = write(precond(unet))
    assert torch.equal(pretrained.load(path)(x, 0.3), pretrained.load_edm(path)(x, 0.3))
    with pytest.raises(ValueError, match="snapshot.pkl .*images"):
        pretrained.provenance(path)


def test_load_fetches_an_official_snapshot_by_name_and_keeps_it(
    write: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = "edm-cifar10-32x32-uncond-vp"
    content, asked = write(precond(network())).read_bytes(), []

    def answer(url: str, **_: object) -> requests.Response:
        asked.append(url)
        response = requests.Response()
        response.status_code, response.raw = 200, io.BytesIO(content)
        return response

    monkeypatch.setattr(requests, "get", answer)
    monkeypatch.setattr("pooch.os_cache", lambda folder: tmp_path / folder)
    first, again = pretrained.load(name), pretrained.load(name)
    assert asked == [f"https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/{name}.pkl"]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters()))
    assert pretrained.provenance(name) == (asked[0], "cifar10", 200_000_000)


def test_without_network_an_official_name_says_where_the_file_belongs(elsewhere: Path) -> None:
    with pytest.raises(ConnectionError, match=f"{elsewhere}/cache/repdyn/weights"):
        pretrained.load("edm-cifar10-32x32-cond-ve")


def test_half_precision_and_numpy_arguments_are_read(write: Callable) -> None:
    unet = network()
    ema = precond(unet.half(), dropout=np.float64(0.25), model_channels=np.int64(8))
    ema.__dict__["sigma_data"] = np.float32(0.25)
    loaded = pretrained.load_edm(write(ema))
    assert (loaded.sigma_data, loaded.model.config.dropout) == (0.25, 0.25)
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, unet.state_dict()[name].float()) and value.dtype == torch.float32


def test_views_and_buffers_that_are_not_saved_are_read_as_state_dict_does(write: Callable) -> None:
    unet = network()
    transposed = unet.map_layer0.weight.data.T.contiguous().T
    unet.map_layer0.weight.data = transposed  # neither contiguous nor alone in its storage
    unet.map_layer0.bias.data = torch.cat([torch.zeros(5), unet.map_layer0.bias.data])[5:]
    ema = precond(unet)
    ema.register_buffer("scratch", torch.zeros(3), persistent=False)
    loaded = pretrained.load_edm(write(ema)).model
    assert torch.equal(loaded.map_layer0.weight, transposed)
    assert torch.equal(loaded.map_layer0.bias, unet.map_layer0.bias)


def test_defaults_are_those_of_songunet(write: Callable) -> None:
    ema = precond(network())
    kwargs = ema._modules["model"].__dict__["_init_kwargs"]
    for name in ("embedding_type", "channel_mult_noise", "encoder_type", "decoder_type", "resample_filter"):
        del kwargs[name]
    assert pretrained.load_edm(write(ema)).model.config.variant == "ddpmpp"


# -------------------------------------------------------------------------------------------------------- bad files


def test_other_networks_are_refused(write: Callable) -> None:
    unet = network()
    for ema, found in (
        (precond(unet, outer="VPPrecond"), "VPPrecond.*supported"),
        (precond(unet, outer="iDDPMPrecond"), "iDDPMPrecond.*supported"),
        (precond(unet, inner="DhariwalUNet"), "DhariwalUNet.*supported"),
        (precond(unet, decoder_type="skip"), "'decoder_type': 'skip'.*supported"),
        (precond(unet, resample_filter=[1, 3, 3, 1]), r"'resample_filter': \[1, 3, 3, 1\].*supported"),
        (precond(unet, channel_mult_emb=2), "'channel_mult_emb': 2.*supported"),
        (precond(unet, colour=1), "'colour': 1.*supported"),
        ("a string", "a str .*supported"),
        (precond(unet, model_channels=6), "model_channels"),
        (precond(unet, dropout={}), "a dict"),
    ):
        with pytest.raises(ValueError, match=f"snapshot.pkl .*{found}"):
            pretrained.load_edm(write(ema))


def test_tensors_that_do_not_fit_are_refused(write: Callable) -> None:
    lacking, strange, wide = network(), network(), network()
    del lacking.enc["8x8_conv"].bias
    strange.register_buffer("extra", torch.zeros(1))
    for ema, named in (
        (precond(lacking), "lacks .'model.enc.8x8_conv.bias'."),
        (precond(strange), "has .'model.extra'. too many"),
        (precond(wide, model_channels=16), "model.* shape"),
    ):
        with pytest.raises(ValueError, match=f"snapshot.pkl .*{named}"):
            pretrained.load_edm(write(ema))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(write: Callable, value: float) -> None:
    unet = network()
    unet.map_layer0.weight.data[0, 0] = value
    with pytest.raises(ValueError, match="NaN .*model.map_layer0.weight"):
        pretrained.load_edm(write(precond(unet)))


def test_files_that_are_no_snapshots_are_refused(write: Callable, tmp_path: Path) -> None:
    path = write(precond(network()))
    whole = path.read_bytes()
    cut = [whole[:size] for size in (0, 1, 100, len(whole) // 2, len(whole) - 1)]
    for content in (*cut, b"<html>Not found</html>"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="snapshot.pkl .*(UnpicklingError|EOFError)"):
            pretrained.load_edm(path)
    for content in ({"G_ema": 1}, [1, 2]):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match="snapshot.pkl .*'ema'"):
            pretrained.load_edm(path)
    with pytest.raises(ValueError, match="missing.pkl"):
        pretrained.load_edm(tmp_path / "missing.pkl")


# --------------------------------------------------------------------------------------------------- hostile files


class Call:
    """Pickles to a call of ``function`` with ``args``."""

    def __init__(self, function: Callable, *args: object, state: object = None) -> None:
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple:
        return self.reduced


def attacks(target: Path) -> dict[str, tuple[object, str]]:
    """What makes the file ``target`` when unpickled carelessly, and the name that is refused."""
    shell, python = f"touch {target}", f"open({str(target)!r}, 'w')"
    return {
        "os.system": (Call(os.system, shell), "system"),
        "eval": (Call(eval, python), "eval"),
        "exec": (Call(exec, python), "exec"),
        "open": (Call(open, str(target), "w"), "open"),
        "getattr": (Call(getattr, "text", "format"), "getattr"),
        "partial": (Call(functools.partial(eval, python)), "functools.partial"),
        "torch.load": (Call(torch.load, str(target)), "torch.serialization.load"),
        "reconstructor": (Call(copyreg._reconstructor, io.StringIO, object, None), "_reconstructor"),
        "setstate": (Call(OrderedDict, state={"__setstate__": eval}), "eval"),
        "numpy object": (np.array([Call(eval, python)], dtype=object), "numpy.*multiarray._reconstruct"),
    }


@pytest.mark.parametrize("attack", attacks(Path("x")))
@pytest.mark.parametrize("place", ["top", "beside", "attribute", "argument", "tensor", "storage"])
def test_a_malicious_file_runs_nothing(write: Callable, tmp_path: Path, attack: str, place: str) -> None:
    target = tmp_path / "pwned"
    payload, name = attacks(target)[attack]
    ema, others = precond(network()), {}
    if place == "top":
        ema = payload
    elif place == "beside":
        others = {"dataset_kwargs": payload}
    elif place == "attribute":
        ema._modules["model"].__dict__["note"] = payload
    elif place == "argument":
        ema._modules["model"].__dict__["_init_kwargs"]["dropout"] = payload
    elif place == "tensor":
        ema._modules["model"]._buffers["extra"] = Call(torch._utils._rebuild_tensor_v2, payload, 0, (1,), (1,), False)
    else:
        stream = io.BytesIO()
        torch.save(payload, stream, _use_new_zipfile_serialization=False)
        storage = Call(torch.storage._load_from_bytes, stream.getvalue())
        tensor = Call(torch._utils._rebuild_tensor_v2, storage, 0, (1,), (1,), False, OrderedDict())
        ema._modules["model"]._buffers["extra"] = tensor
    path = write(ema, **others)
    with pytest.raises(ValueError, match=f"snapshot.pkl asks for .*{name}"):
        pretrained.load_edm(path)
    assert not target.exists()


RAW = {
    "GLOBAL and REDUCE": (b"cposix\nsystem\n(Vtouch %s\ntR.", "posix.system"),
    "INST": (b"(Vtouch %s\niposix\nsystem\n.", "posix.system"),
    "OBJ": (b"(cposix\nsystem\nVtouch %s\no.", "posix.system"),
    "names of Python 2": (b"c__builtin__\neval\n(Vopen('%s','w')\ntR.", "__builtin__.eval"),
    "an attribute of torch": (b"\x80\x04ctorch\nserialization.os.system\n(Vtouch %s\ntR.", "torch.serialization.os"),
    "an attribute of what is allowed": (
        b"\x80\x04ctorch.storage\n_load_from_bytes.__globals__\n0(Vtouch %s\nt.",
        "_load_from_bytes.__globals__",
    ),
    "BUILD with __setstate__": (b"ccollections\nOrderedDict\n)R}V__setstate__\ncposix\nsystem\nsb.", "posix.system"),
    "a module of torch": (b"\x80\x04ctorch\nhub\n.", "torch.hub"),
}


@pytest.mark.parametrize("case", RAW)
def test_hand_written_pickles_run_nothing(tmp_path: Path, case: str) -> None:
    code, name = RAW[case]
    target, path = tmp_path / "pwned", tmp_path / "snapshot.pkl"
    path.write_bytes(code.replace(b"%s", os.fsencode(target)))
    with pytest.raises(ValueError, match=f"snapshot.pkl asks for .*{name}"):
        pretrained.load_edm(path)
    assert not target.exists()


def test_a_registered_extension_goes_through_the_same_door(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.pkl"
    path.write_bytes(b"\x80\x02\x82\xf0(Vtouch x\ntR.")
    copyreg.add_extension("posix", "system", 0xF0)
    try:
        with pytest.raises(ValueError, match="asks for posix.system"):
            pretrained.load_edm(path)
    finally:
        copyreg.remove_extension("posix", "system", 0xF0)


@pytest.mark.parametrize(
    "name", ["torch.storage\n_load_from_bytes", "torch\nfloat32", "torch\nSize", "dnnlib.util\nEasyDict"]
)
def test_a_pickle_leaves_no_trace_in_what_it_may_name(write: Callable, tmp_path: Path, name: str) -> None:
    path = tmp_path / "hostile.pkl"
    setters = b"}Vargs\nI1\nsV__setstate__\nI1\nsV__new__\nI1\ns"
    path.write_bytes(b"\x80\x02c" + name.encode() + b"\n(N" + setters + b"tb.")  # BUILD sets attributes of a class
    with pytest.raises(ValueError, match="hostile.pkl"):
        pretrained.load_edm(path)
    assert pretrained.load_edm(write(precond(network()))).model.config == network().config


def test_storages_that_lie_are_refused(write: Callable) -> None:
    stream = io.BytesIO()
    torch.save(torch.zeros(4), stream)  # the zip format, which EDM does not use
    legacy = io.BytesIO()
    torch.save(torch.zeros(4), legacy, _use_new_zipfile_serialization=False)  # a tensor where a storage belongs
    whole = torch.zeros(4)._typed_storage().__reduce__()[1][0]
    for data, size, found in (
        (stream.getvalue(), 4, "UnpicklingError"),
        (legacy.getvalue(), 4, "unknown kind"),
        (whole[:-4], 4, "cut off"),
        (whole, 5, "RuntimeError"),
    ):
        storage = Call(torch.storage._load_from_bytes, data)
        ema = precond(network())
        tensor = Call(torch._utils._rebuild_tensor_v2, storage, 0, (size,), (1,), False, OrderedDict())
        ema._modules["model"]._buffers["extra"] = tensor
        with pytest.raises(ValueError, match=f"snapshot.pkl .*{found}"):
            pretrained.load_edm(write(ema))
