"""Goldens of the zoo (`zoo/NAME.json` and `.safetensors`) and tables of whole presets (`zoo/SOURCE.presets.json`).

A script a source (`zoo_torchvision.py`, `zoo_timm.py`, ...) calls `golden` for small networks and `preset` for those of the
published sizes, then `main`. README.md has the format.
"""
import copy
import json
import math
import pathlib
import sys

import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from formula import fill_, name_hash, signed

HERE = pathlib.Path(__file__).parent / "zoo"
SAMPLES = 48
GOLDENS, PRESETS, OUTPUTS = {}, {}, {}


def golden(name, build, config, *inputs, outputs=None):
    """Registers a golden: `build()` makes the original, `config` is this project's configuration of the same network, `inputs`
    the shapes of its inputs (first (N, C, spatial...)), `outputs(result)` a list of the tensors that count, in the original's
    order (by default: tensors of the result, however nested, in order)."""
    GOLDENS[name] = (build, config, inputs, outputs or tensors_of)


def preset(name, build, shape=None, outputs=None):
    """Registers a preset by its name here; `shape` is the input's for which floating-point operations are counted, and
    `outputs(result)` as in `golden`."""
    PRESETS[name] = (build, shape)
    OUTPUTS[name] = outputs or tensors_of


def tensors_of(result) -> list:
    """All tensors of a result, in order; None is left out."""
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, dict):
        result = result.values()
    return [] if result is None else [tensor for part in result for tensor in tensors_of(part)]


def last_first(outputs) -> list:
    """The outputs, of which the last one is the main one, with that in front."""
    return [outputs[-1], *outputs[:-1]]


def kaiming_(net: torch.nn.Module):
    """The initialisation that Attention-Gated-Networks and UNet-Version have in common; biases of convolutions stay PyTorch's."""
    for module in net.modules():
        if isinstance(module, torch.nn.modules.conv._ConvNd):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.normal_(module.weight, 1.0, 0.02)


def without_dropout(net: torch.nn.Module) -> torch.nn.Module:
    """Sets the probability of every dropout and drop path to 0."""
    for module in net.modules():
        kind = type(module).__name__
        if "Dropout" in kind:
            module.p = 0.0
        if kind in ("DropPath", "StochasticDepth"):
            setattr(module, "drop_prob" if hasattr(module, "drop_prob") else "p", 0.0)
    return net


def sample(t: torch.Tensor) -> torch.Tensor:
    """All elements of a tensor that has at most SAMPLES; else that many, number i at flat index floor(i * n / SAMPLES)."""
    flat = t.detach().reshape(-1)
    n = flat.numel()
    return flat.clone() if n <= SAMPLES else flat[[i * n // SAMPLES for i in range(SAMPLES)]]


def norm_and_dot(t: torch.Tensor) -> list:
    """Norm, and dot product with s(`probe`), which no permutation of elements survives."""
    t = t.detach().double()
    return [t.norm().item(), (t * signed("probe", t.shape)).sum().item()]


def write(name, build, config, inputs, outputs):
    tensors, shapes = {}, {}
    net = without_dropout(build())
    fill_(net)
    start = copy.deepcopy(net.state_dict())
    parameters = dict(net.named_parameters())
    # Buffers are marked with ~; parameters and buffers each come in the order of the state dict. A further name of a tensor has
    # the place of the first one after =.
    entries, first = [], {}
    for key, tensor in net.state_dict(keep_vars=True).items():
        place = first.setdefault(id(tensor), len(entries))
        mark = "" if isinstance(tensor, torch.nn.Parameter) else "~"
        entries.append(mark + key if place == len(entries) else f"{mark}{key}={place}")
    own = [key for key in entries if "=" not in key]
    assert [key for key in own if key[0] != "~"] == list(parameters), "another order of parameters"
    buffers = [key[1:] for key in own if key[0] == "~" and start[key[1:]].is_floating_point()]
    for mode in ("eval", "train"):
        net.load_state_dict(start)
        net.zero_grad(set_to_none=True)
        net.train(mode == "train")
        xs = [signed("input" if k == 0 else f"input.{k}", shape).requires_grad_() for k, shape in enumerate(inputs)]
        ys = outputs(net(*xs))
        loss = sum((y * signed(f"cotangent.{k}", y.shape)).mean() for k, y in enumerate(ys))
        loss.backward()
        shapes[mode] = [list(y.shape) for y in ys]
        for kind, values in (("output", ys), ("grad.input", [x.grad for x in xs])):
            for k, value in enumerate(values):
                tensors[f"{mode}/{kind}.{k}"] = sample(value)
                tensors[f"{mode}/{kind}.{k}.summary"] = torch.tensor(norm_and_dot(value), dtype=torch.float64)
        norms = [math.nan if p.grad is None else p.grad.norm().item() for p in net.parameters()]
        tensors[f"{mode}/grad_norms"] = torch.tensor(norms, dtype=torch.float64)
        if mode == "train":
            state = net.state_dict()
            tensors["train/buffers"] = torch.tensor([norm_and_dot(state[key]) for key in buffers], dtype=torch.float64).reshape(-1)
    HERE.mkdir(exist_ok=True)
    save_file({key: value.contiguous() for key, value in tensors.items()}, HERE / f"{name}.safetensors")
    (HERE / f"{name}.safetensors").chmod(0o644)
    head = {"config": config, "inputs": [list(s) for s in inputs], "samples": SAMPLES, "outputs": shapes,
            "parameter_count": sum(p.numel() for p in net.parameters()), "state": entries}
    lines = [f" {json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in head.items()]
    (HERE / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{name}: {len(parameters)} parameters, outputs {shapes}")


def table_row(build, shape) -> dict:
    """The number of parameters; the hash of `NAME [SIZES]` of each entry of the state dict, in order, a line each; and the
    floating-point operations of convolutions and matrix products for an input of this shape."""
    with torch.device("meta"):
        net = build().eval()
    state = "".join(f"{key} {list(t.shape)}\n" for key, t in net.state_dict().items())
    row = {"parameters": sum(p.numel() for p in net.parameters()), "state": f"{name_hash(state):016x}"}
    if shape:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(torch.empty(shape, device="meta"))
        row |= {"shape": list(shape), "flops": counter.get_total_flops()}
    return row


def main(source: str):
    """Writes the goldens and presets that the command line names (all without one)."""
    torch.manual_seed(0)
    names = sys.argv[1:]
    for name, arguments in GOLDENS.items():
        if not names or name in names:
            write(name, *arguments)
    path = HERE / f"{source}.presets.json"
    rows = json.loads(path.read_text()) if path.exists() and names else {}
    for name, arguments in PRESETS.items():
        if not names or name in names:
            rows[name] = table_row(*arguments)
            print(name, rows[name])
    if rows:
        path.write_text("{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in rows.items()) + "\n}\n")
