"""Writes the files of this folder, which PyTorch makes, and expected.json: what a reader must find in them.

    python3 -m venv env && env/bin/pip install torch numpy safetensors
    env/bin/python generate.py

Made with torch 2.15.0 and numpy 2.4.6. Each file stays below a few kilobytes.
"""

import argparse, collections, enum, json, os, pathlib, pickle, sys, zipfile

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
expected = {}


class Custom:
    """A class that no other program knows."""

    def __init__(self):
        self.rate = 0.5
        self.kernel = torch.tensor([7.0, 8.0])


class Colour(enum.Enum):
    RED = 1


def numbers(tensor):
    if tensor.is_quantized or tensor.dtype.is_complex:
        return None
    values = tensor.detach().to(torch.float64).flatten().tolist()
    return [v if np.isfinite(v) else str(v) for v in values]


def walk(value, name, found, parents=()):
    """The same names as the reader's: keys, places and attributes, joined by dots."""
    if isinstance(value, torch.Tensor):
        found[name] = {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape), "values": numbers(value)}
    elif isinstance(value, np.ndarray):
        found[name] = {"dtype": str(value.dtype), "shape": list(value.shape), "values": value.astype("f8").flatten().tolist()}
    elif isinstance(value, (dict, list, tuple)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, member in pairs:
            walk(member, f"{name}.{key}" if name else str(key), found)
    elif isinstance(value, torch.nn.Module):
        for key, member in value.state_dict().items():
            walk(member, f"{name}.{key}" if name else key, found)
    elif isinstance(value, (Custom, argparse.Namespace)):
        walk(vars(value), name, found)
    return found


def save(name, value, **options):
    torch.save(value, HERE / name, **options)
    expected[name] = walk(value, "", {})


def sample():
    return {
        "weight": torch.arange(6, dtype=torch.float32).reshape(2, 3) / 4,
        "bias": torch.tensor([1.5, -2.0], dtype=torch.float64),
        "steps": torch.tensor(12345678901, dtype=torch.int64),
        "empty": torch.zeros(0, 3),
    }


for protocol in [2, 3, 4, 5]:
    save(f"protocol_{protocol}.pth", sample(), pickle_protocol=protocol)
    save(f"legacy_{protocol}.pth", sample(), pickle_protocol=protocol, _use_new_zipfile_serialization=False)

DTYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool uint16 uint32 uint64".split()
DTYPES += "float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu".split()


def every_dtype():
    tensors = {}
    for name in DTYPES:
        dtype = getattr(torch, name)
        values = torch.tensor([0, 1, 2, 4, 64], dtype=torch.float64)
        if dtype.is_floating_point and name != "float8_e8m0fnu":
            values = torch.tensor([0.0, 1.0, -2.0, 0.375, float("nan")], dtype=torch.float64)
        tensors[name] = values.to(dtype)
    tensors["complex"] = torch.tensor([1 + 2j])
    tensors["complex128"] = torch.tensor([1 + 2j], dtype=torch.complex128)
    tensors["quantised"] = torch.quantize_per_tensor(torch.ones(3), 0.1, 2, torch.qint8)
    tensors["by_channel"] = torch.quantize_per_channel(torch.ones(2, 2), torch.ones(2), torch.zeros(2), 0, torch.quint8)
    return tensors


# All bits of the types of one byte, to be compared value by value.
save("bytes.pth", {n: torch.arange(256).to(torch.uint8).view(getattr(torch, n)) for n in DTYPES if n.startswith("float8")})
save("dtypes.pth", every_dtype())
save("dtypes_legacy.pth", every_dtype(), _use_new_zipfile_serialization=False)


def views():
    base = torch.arange(24, dtype=torch.float32)
    grid = base.reshape(2, 3, 4)
    return collections.OrderedDict(
        base=base, grid=grid, transposed=grid.permute(2, 0, 1), part=grid[1, 1:, ::2], column=grid[:, :, 1],
        expanded=torch.tensor([[1.0], [2.0]]).expand(2, 5), half=base.half()[3:9:2], scalar=base[7],
        repeated=torch.tensor(3).expand(2, 2), untied=grid.clone(), tied=grid,
        channels_last=torch.arange(24.0).reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
        parameter=torch.nn.Parameter(torch.tensor([1.0, 2.0])), integer=torch.arange(6, dtype=torch.int16)[1:].view(5, 1),
        windows=torch.arange(5.0).unfold(0, 3, 1),
    )


save("views.pth", views())
save("views_legacy.pth", views(), _use_new_zipfile_serialization=False)

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Linear(2, 3))
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
net[2](net[1](net[0](torch.ones(2, 1, 4, 4))).mean((2, 3))).sum().backward()
optimizer.step()
save("optimizer.pt", {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3})
save("module.pt", net)  # pickled whole, with its classes



class Scale(torch.nn.Module):
    """A module of our own: the old container also holds the source of each module's class."""

    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor([2.0]))


class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = Scale(), Scale()
        self.register_buffer("mean", torch.tensor([0.5]))


save("module_legacy.pt", Two(), _use_new_zipfile_serialization=False)


class Named(torch.Tensor):
    """A tensor with attributes, as MONAI's MetaTensor is one."""


named = torch.tensor([1.0, 2.0]).as_subclass(Named)
named.affine = torch.eye(2)
marked = torch.nn.Parameter(torch.tensor([3.0]))
marked.note = "a parameter with an attribute"
kinds = {
    "named": named, "marked": marked, "buffer": torch.nn.Buffer(torch.tensor([4.0])),
    "sparse": torch.tensor([[0.0, 1.0]]).to_sparse(), "meta": torch.empty(2, device="meta"), "negated": torch._neg_view(torch.ones(2)),
}
torch.save(kinds, HERE / "kinds.pth")
plain = {k: torch.Tensor(kinds[k].detach().clone()) for k in ["named", "marked", "buffer"]}
expected["kinds.pth"] = walk(plain, "", {})

lightning = {
    "epoch": 9, "global_step": 1000, "pytorch-lightning_version": "2.5.0",
    "state_dict": {f"model.{k}": v for k, v in net.state_dict().items()},
    "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 10}}}},
    "callbacks": {"ModelCheckpoint{'monitor': 'dice'}": {
        "best_model_score": torch.tensor(0.75), "dirpath": pathlib.PurePosixPath("/a/b"), "kth_value": np.float64(0.5)}},
    "optimizer_states": [optimizer.state_dict()], "lr_schedulers": [],
    "hparams_name": "kwargs", "hyper_parameters": argparse.Namespace(width=8, path=pathlib.PosixPath("/data"), colour=Colour.RED),
}
save("lightning.ckpt", lightning)
nnunet = {
    "network_weights": collections.OrderedDict(net.state_dict()), "optimizer_state": optimizer.state_dict(),
    "grad_scaler_state": {"scale": 65536.0, "_growth_tracker": 12},
    "logging": {"mean_fg_dice": [np.float32(0.5), np.float64(0.25)], "dice_per_class_or_region": [[np.float64(0.5)]]},
    "_best_ema": np.float64(0.875), "current_epoch": 1000, "trainer_name": "nnUNetTrainer",
    "inference_allowed_mirroring_axes": (0, 1, 2),
    "init_args": {"plans": {"spacing": np.array([1.0, 0.5, 0.5]), "transpose": [0, 1, 2]}, "fold": 0,
                  "configuration": "3d_fullres", "device": torch.device("cuda", 0), "shape": torch.Size([2, 3])},
    "custom": Custom(),
}
save("nnunet.pth", nnunet)
save("nnunet_legacy.pth", nnunet, _use_new_zipfile_serialization=False)

big, little = ">", "<"
arrays = {
    "c": np.arange(6, dtype="f8").reshape(2, 3), "f": np.asfortranarray(np.arange(6, dtype="f4").reshape(2, 3)),
    "big_endian": np.arange(4, dtype=">i4"), "bool": np.array([True, False]), "half": np.array([0.5], dtype="f2"),
    "u16": np.array([1, 65535], dtype="u2"), "scalars": [np.int8(-3), np.uint64(2**63), np.bool_(True), np.float32(0.5)],
    "text": np.array(["a", "bc"]).tolist(), "no_axes": np.array(2.5),
}
for protocol in [2, 5]:
    save(f"arrays_{protocol}.pth", arrays, pickle_protocol=protocol)

values = {
    "none": None, "true": True, "false": False, "int": -7, "long": 2**40, "longer": 2**70, "float": 0.1, "text": "tëxt",
    "bytes": b"\x00\xff", "bytearray": bytearray(b"ab"), "empty_bytes": b"", "list": [1, [2, []]], "tuple": (1, (2,)),
    "set": {3}, "frozenset": frozenset([4]), "dict": {1: "one", "two": 2}, "ordered": collections.OrderedDict(a=1),
    "default": collections.defaultdict(list, {"k": [1]}), "complex": 1 + 2j, "dtype": torch.float16,
}
values["itself"] = values["list"]
values["list"].append(values["list"])  # a cycle
for protocol in [2, 4, 5]:
    torch.save(values, HERE / f"values_{protocol}.pt", pickle_protocol=protocol)
    expected[f"values_{protocol}.pt"] = {}


class Traced(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 1, 1)

    def forward(self, x):
        return self.conv(x)


traced = Traced()
try:
    torch.jit.script(traced).save(str(HERE / "scripted.pt"))
    expected["scripted.pt"] = walk(traced, "", {})
except Exception as error:  # TorchScript is on its way out
    print("no TorchScript:", error, file=sys.stderr)

# The same archive deflated, as a program that packs it again may write it.
with zipfile.ZipFile(HERE / "protocol_2.pth") as old, zipfile.ZipFile(HERE / "deflated.pth", "w", zipfile.ZIP_DEFLATED) as new:
    for entry in old.infolist():
        new.writestr(entry.filename, old.read(entry))
expected["deflated.pth"] = expected["protocol_2.pth"]

# Byte order of another machine.
with zipfile.ZipFile(HERE / "protocol_2.pth") as old, zipfile.ZipFile(HERE / "big_endian.pth", "w") as new:
    sizes = {k: v.element_size() for k, v in zip("0123", sample().values())}
    for entry in old.infolist():
        data, leaf = old.read(entry), entry.filename.split("/")[-1]
        if leaf == "byteorder":
            data = b"big"
        elif "/data/" in entry.filename and data:
            data = np.frombuffer(data, f"u{sizes[leaf]}").byteswap().tobytes()
        new.writestr(entry.filename, data)
expected["big_endian.pth"] = expected["protocol_2.pth"]

from safetensors.torch import save_file

save_file(
    {n: t for n, t in every_dtype().items() if n in DTYPES and "fnuz" not in n} | {"complex64": torch.tensor([1 + 2j])},
    HERE / "dtypes.safetensors", metadata={"format": "pt"},
)
expected["dtypes.safetensors"] = walk({n: t for n, t in every_dtype().items() if n in DTYPES and "fnuz" not in n}, "", {})
expected["dtypes.safetensors"]["complex64"] = {"dtype": "complex64", "shape": [1], "values": None}

shards = [{"a.weight": torch.ones(2, 2)}, {"b.weight": torch.arange(3.0), "b.bias": torch.zeros(1)}]
for i, shard in enumerate(shards):
    save_file(shard, HERE / f"model-{i + 1:05}-of-00002.safetensors")
where = {name: f"model-{i + 1:05}-of-00002.safetensors" for i, shard in enumerate(shards) for name in shard}
(HERE / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 32}, "weight_map": where}, indent=1))
expected["model.safetensors.index.json"] = walk(shards[0] | shards[1], "", {})

(HERE / "expected.json").write_text(json.dumps(expected, separators=(",", ":")).replace('},"', '},\n"') + "\n")
print(sum(os.path.getsize(p) for p in HERE.iterdir()), "bytes")
