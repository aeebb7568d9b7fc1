#!/usr/bin/env python3
"""Computes the goldens with PyTorch in f64: `generate.py [NAME ...]`, one function each. See README.md for the formats."""
import json
import math
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

import networks
from formula import fill_, labels, parameter, signed, uniform

HERE = pathlib.Path(__file__).parent
SAMPLES = 32


def sample(t: torch.Tensor, count: int = SAMPLES) -> torch.Tensor:
    """All elements of a tensor that has at most `count`; else `count` of them, number i at flat index floor(i * n / count)."""
    flat = t.detach().reshape(-1)
    n = flat.numel()
    return flat.clone() if n <= count else flat[[i * n // count for i in range(count)]]


def summary(t: torch.Tensor) -> dict:
    """What json says of a tensor of which samples are stored: its norm, and its dot product with s(`probe`),
    which no permutation of elements survives."""
    t = t.detach()
    digits = lambda v: float(f"{v.item():.12g}")
    return {"shape": list(t.shape), "norm": digits(t.norm()), "dot": digits((t * signed("probe", t.shape)).sum())}


def write_json(name: str, head: dict, lists: dict):
    """A json object with each element of the named lists on a line of its own."""
    parts = [f" {json.dumps(k)}: {json.dumps(v)}" for k, v in head.items()]
    for key, items in lists.items():
        parts.append(f" {json.dumps(key)}: [\n" + ",\n".join("  " + json.dumps(item, separators=(",", ":")) for item in items) + "\n ]")
    (HERE / name).write_text("{\n" + ",\n".join(parts) + "\n}\n")


def write_tensors(name: str, tensors: dict):
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, HERE / name)
    (HERE / name).chmod(0o644)


# --- losses ---------------------------------------------------------------------------------------------------------

def soft_dice(logits, target, *, background=True, batch=True):
    p = logits.softmax(1)
    one = F.one_hot(target, logits.shape[1]).movedim(-1, 1).to(p)
    axes = ([0] if batch else []) + list(range(2, p.ndim))
    dice = (2 * (p * one).sum(axes) + 1e-5) / ((p + one).sum(axes) + 1e-5)
    return 1 - (dice if background else dice[..., 1:]).mean()


def losses():
    shape, classes = (2, 3, 5, 6, 7), 3
    target, other = labels("label", (2, 5, 6, 7), classes), signed("target", shape)
    dice_text = ("1 - mean over classes of (2*sum(p*y)+e)/(sum(p)+sum(y)+e), p = softmax(input, axis 1), y one-hot, "
                 "e = 1e-5, sums over space")
    cases = [
        ("dice", {"batch": True, "include_background": True}, dice_text + " and batch", lambda x: soft_dice(x, target)),
        ("dice_no_background", {"batch": True, "include_background": False},
         dice_text + " and batch; mean over classes 1 and up, softmax over all", lambda x: soft_dice(x, target, background=False)),
        ("dice_per_sample", {"batch": False, "include_background": True}, dice_text + "; mean over samples too",
         lambda x: soft_dice(x, target, batch=False)),
        ("ce", {}, "mean of -log_softmax(input)[label]", lambda x: F.cross_entropy(x, target)),
        ("ce_weight", {"weight": [0.2, 0.3, 0.5]}, "sum of w[label]*-log p / sum of w[label]",
         lambda x: F.cross_entropy(x, target, torch.tensor([0.2, 0.3, 0.5]).double())),
        ("ce_ignore", {"ignore_index": 2}, "mean over the voxels whose label is not 2",
         lambda x: F.cross_entropy(x, target, ignore_index=2)),
        ("ce_smooth", {"label_smoothing": 0.1}, "target distribution 0.9*y + 0.1/classes",
         lambda x: F.cross_entropy(x, target, label_smoothing=0.1)),
        ("dice_ce", {"batch": True, "include_background": True}, "dice + ce, equal weights",
         lambda x: soft_dice(x, target) + F.cross_entropy(x, target)),
        ("bce_logits", {}, "mean of BCE of sigmoid(input) against one-hot labels",
         lambda x: F.binary_cross_entropy_with_logits(x, F.one_hot(target, classes).movedim(-1, 1).to(x))),
        ("mse", {}, "mean squared difference to s(`target`)", lambda x: F.mse_loss(x, other)),
        ("l1", {}, "mean absolute difference to s(`target`)", lambda x: F.l1_loss(x, other)),
        ("smooth_l1", {"beta": 1.0}, "d = |input - s(`target`)|: d^2/2 below 1, else d - 1/2; mean", lambda x: F.smooth_l1_loss(x, other)),
    ]
    tensors, listed = {}, []
    for name, attributes, text, loss in cases:
        x = signed("input", shape).requires_grad_()
        value = loss(x)
        value.backward()
        tensors[f"{name}/grad.input"] = sample(x.grad)
        listed.append({"name": name, "attributes": attributes, "formula": text, "value": value.item(), "grad.input": summary(x.grad)})
    write_tensors("losses.safetensors", tensors)
    write_json("losses.json", {"input": list(shape), "label": [2, 5, 6, 7], "classes": classes,
                               "fill": "input = s(`input`), label = floor(classes * u(`label`))", "samples": SAMPLES}, {"cases": listed})


# --- optimizers and schedules ---------------------------------------------------------------------------------------

def optimizers():
    cases = [
        ("sgd", torch.optim.SGD, {"lr": 0.1}),
        ("sgd_momentum", torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
        ("sgd_nesterov_decay", torch.optim.SGD, {"lr": 0.01, "momentum": 0.99, "nesterov": True, "weight_decay": 3e-5}),
        ("adam", torch.optim.Adam, {"lr": 3e-3, "betas": [0.9, 0.999], "eps": 1e-8}),
        ("adam_decay", torch.optim.Adam, {"lr": 3e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 1e-2}),
        ("adamw", torch.optim.AdamW, {"lr": 3e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 1e-2}),
    ]
    tensors, listed = {}, []
    for name, cls, attributes in cases:
        p = nn.Parameter(parameter("weight", (7,)))
        optimizer = cls([p], **attributes)
        rows = []
        for step in range(1, 6):
            p.grad = signed(f"grad.{step}", (7,))
            optimizer.step()
            rows.append(p.detach().clone())
        tensors[name] = torch.stack(rows)
        listed.append({"name": name, "kind": cls.__name__, "attributes": attributes})
    write_tensors("optimizers.safetensors", tensors)
    write_json("optimizers.json", {"fill": "parameter `weight` of shape [7] by formula; gradient of step k = 1..5 is s(`grad.k`); "
                                           "row k-1 of tensor NAME is the parameter after step k"}, {"cases": listed})


def schedules():
    base, steps, S = 0.01, 50, torch.optim.lr_scheduler
    cases = [
        ("step", S.StepLR, {"step_size": 15, "gamma": 0.5}),
        ("cosine", S.CosineAnnealingLR, {"T_max": steps, "eta_min": 1e-5}),
        ("polynomial", S.PolynomialLR, {"total_iters": steps, "power": 0.9}),
        ("one_cycle", S.OneCycleLR, {"max_lr": 0.01, "total_steps": steps, "pct_start": 0.3, "anneal_strategy": "cos",
                                     "div_factor": 25.0, "final_div_factor": 1e4}),
        ("linear_warmup", S.LinearLR, {"start_factor": 0.1, "total_iters": 10}),
    ]
    listed = []
    for name, cls, attributes in cases:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=base)
        # PyTorch moves the momentum too unless told not to; only the rate is compared.
        schedule = cls(optimizer, **attributes, **({"cycle_momentum": False} if cls is S.OneCycleLR else {}))
        rates = []
        for step in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if step + 1 < steps:
                schedule.step()
        listed.append({"name": name, "kind": cls.__name__, "attributes": attributes, "lr": rates})
    write_json("schedules.json", {"base_lr": base, "steps": steps, "meaning": "lr[i] is the rate that update i = 0.. uses"}, {"cases": listed})


# --- layers ---------------------------------------------------------------------------------------------------------

def layer_cases():
    """Yields (name, kind, attributes, input shape, module). Spatial attributes are lists, one number an axis."""
    space = {1: (11,), 2: (7, 6), 3: (5, 4, 6)}
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    convt = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}

    def spatial(rank, d):
        return {k: [v] * rank if isinstance(v, int) and k in ("kernel", "stride", "padding", "dilation", "output_padding") else v
                for k, v in d.items()}

    def torch_names(a):
        return {{"kernel": "kernel_size"}.get(k, k): tuple(v) if isinstance(v, list) else v
                for k, v in a.items() if k not in ("inputs", "outputs")}

    plain = {"inputs": 2, "outputs": 3, "kernel": 3, "stride": 1, "padding": 1, "dilation": 1, "groups": 1, "bias": True}
    variants = [("same", {}), ("valid", {"padding": 0, "bias": False}), ("stride2", {"stride": 2}), ("dilated", {"dilation": 2, "padding": 2}),
                ("grouped", {"inputs": 4, "outputs": 6, "groups": 2}), ("depthwise", {"inputs": 3, "outputs": 3, "groups": 3}),
                ("pointwise", {"kernel": 1, "padding": 0}), ("k2s2", {"kernel": 2, "stride": 2, "padding": 0})]
    for rank in (1, 2, 3):
        for label, changes in variants:
            a = spatial(rank, plain | changes)
            yield f"conv{rank}d_{label}", "conv", a, (2, a["inputs"], *space[rank]), conv[rank](a["inputs"], a["outputs"], **torch_names(a))
    mixed = plain | {"kernel": [1, 3, 2], "stride": [1, 2, 1], "padding": [0, 1, 1], "dilation": [1, 1, 2]}
    yield "conv3d_mixed", "conv", mixed, (1, 2, *space[3]), conv[3](2, 3, **torch_names(mixed))

    plain = {"inputs": 3, "outputs": 2, "kernel": 2, "stride": 2, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1, "bias": True}
    variants = [("k2s2", {}), ("k3s2p1o1", {"kernel": 3, "padding": 1, "output_padding": 1}), ("k4s2p1", {"kernel": 4, "padding": 1, "bias": False}),
                ("k3s1p1", {"kernel": 3, "stride": 1, "padding": 1}), ("grouped", {"inputs": 4, "outputs": 6, "groups": 2, "kernel": 3, "padding": 1}),
                ("dilated", {"kernel": 2, "dilation": 2, "stride": 2, "padding": 1, "output_padding": 1})]
    small = {1: (5,), 2: (4, 3), 3: (3, 2, 3)}
    for rank in (1, 2, 3):
        for label, changes in variants:
            a = spatial(rank, plain | changes)
            yield f"convt{rank}d_{label}", "conv_transpose", a, (2, a["inputs"], *small[rank]), convt[rank](a["inputs"], a["outputs"], **torch_names(a))

    batch = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
    instance = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
    for rank in (1, 2, 3):
        for train in (True, False):
            yield (f"batch_norm{rank}d_{'train' if train else 'eval'}", "batch_norm",
                   {"channels": 3, "eps": 1e-5, "momentum": 0.1, "affine": True, "train": train}, (2, 3, *space[rank]), batch[rank](3).train(train))
        for affine in (True, False):
            yield (f"instance_norm{rank}d" + ("" if affine else "_plain"), "instance_norm",
                   {"channels": 3, "eps": 1e-5, "affine": affine}, (2, 3, *space[rank]), instance[rank](3, affine=affine))
    for shape, groups in (((2, 6, 5), 3), ((2, 4, 4, 3), 2), ((2, 4, 3, 2, 3), 4), ((2, 4, 3, 4), 1)):
        yield f"group_norm_{len(shape) - 2}d_g{groups}", "group_norm", {"channels": shape[1], "groups": groups, "eps": 1e-5}, shape, nn.GroupNorm(groups, shape[1])
    yield "layer_norm", "layer_norm", {"shape": [7], "eps": 1e-5}, (2, 5, 7), nn.LayerNorm(7)
    for rank, size in ((1, 5), (2, 3), (2, 4), (3, 5)):
        a = {"size": size, "alpha": 0.2, "beta": 0.75, "k": 2.0, "input_scale": 3.0}
        yield f"local_response_norm{rank}d_{size}", "local_response_norm", a, (2, 7, *small[rank]), nn.LocalResponseNorm(size, 0.2, 0.75, 2.0)
    yield "layer_norm_two_axes", "layer_norm", {"shape": [4, 5], "eps": 1e-6}, (3, 4, 5), nn.LayerNorm((4, 5), eps=1e-6)

    maximum = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
    average = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
    for rank in (1, 2, 3):
        for label, a in (("k2s2", {"kernel": 2, "stride": 2, "padding": 0}), ("k3s2p1", {"kernel": 3, "stride": 2, "padding": 1}),
                         ("k2s2_ceil", {"kernel": 2, "stride": 2, "padding": 0, "ceil_mode": True}))[:3 if rank == 2 else 2]:
            a = spatial(rank, {"ceil_mode": False} | a)
            yield f"max_pool{rank}d_{label}", "max_pool", a, (2, 2, *space[rank]), maximum[rank](**torch_names(a))
        for label, a in (("k2s2", {"kernel": 2, "stride": 2, "padding": 0, "count_include_pad": True}),
                         ("k3s2p1", {"kernel": 3, "stride": 2, "padding": 1, "count_include_pad": True}),
                         ("k3s2p1_nopad", {"kernel": 3, "stride": 2, "padding": 1, "count_include_pad": False})):
            a = spatial(rank, a)
            yield f"avg_pool{rank}d_{label}", "avg_pool", a, (2, 2, *space[rank]), average[rank](**torch_names(a))
        size = {1: [4], 2: [3, 4], 3: [2, 3, 4]}[rank]
        for kind, cls in (("adaptive_avg_pool", (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)),
                          ("adaptive_max_pool", (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d))):
            yield f"{kind}{rank}d", kind, {"size": size}, (2, 2, *space[rank]), cls[rank - 1](tuple(size))
        yield f"global_avg_pool{rank}d", "adaptive_avg_pool", {"size": [1] * rank}, (2, 3, *space[rank]), (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[rank - 1](1)

    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}
    for rank in (1, 2, 3):
        up, odd = [2 * n for n in small[rank]], [max(1, n * 4 // 3 - (i == 0)) for i, n in enumerate(space[rank])]
        down = [max(2, n // 2) for n in space[rank]]
        for label, source, size in (("x2", small[rank], up), ("odd", space[rank], odd), ("down", space[rank], down)):
            shape = (1, 2, *source)
            yield f"nearest{rank}d_{label}", "interpolate", {"mode": "nearest", "align_corners": False, "size": size}, shape, Call(F.interpolate, size=size, mode="nearest")
            for corners in (False, True):
                yield (f"linear{rank}d_{label}" + ("_corners" if corners else ""), "interpolate", {"mode": "linear", "align_corners": corners, "size": size},
                       shape, Call(F.interpolate, size=size, mode=linear[rank], align_corners=corners))

    for axis in (1, -1):
        yield f"softmax_{axis}", "softmax", {"axis": axis}, (2, 3, 4, 2), nn.Softmax(axis)
        yield f"log_softmax_{axis}", "log_softmax", {"axis": axis}, (2, 3, 4, 2), nn.LogSoftmax(axis)
    yield "linear", "linear", {"inputs": 6, "outputs": 5, "bias": True}, (3, 6), nn.Linear(6, 5)
    yield "linear_tokens", "linear", {"inputs": 6, "outputs": 4, "bias": False}, (2, 5, 6), nn.Linear(6, 4, bias=False)
    yield "multi_head_attention", "multi_head_attention", {"size": 12, "heads": 3, "input_scale": 6.0}, (2, 7, 12), SelfAttention(12, 3, batch_first=True)
    for name, attributes, module in (
            ("relu", {}, nn.ReLU()), ("relu6", {}, nn.ReLU6()), ("leaky_relu", {"slope": 0.01}, nn.LeakyReLU(0.01)), ("elu", {"alpha": 1.0}, nn.ELU()),
            ("gelu", {"approximate": "none"}, nn.GELU()), ("gelu_tanh", {"approximate": "tanh"}, nn.GELU("tanh")), ("silu", {}, nn.SiLU()),
            ("sigmoid", {}, nn.Sigmoid()), ("tanh", {}, nn.Tanh()), ("softplus", {"beta": 1.0, "threshold": 20.0}, nn.Softplus()), ("mish", {}, nn.Mish()),
            ("hardswish", {}, nn.Hardswish()), ("hardsigmoid", {}, nn.Hardsigmoid()), ("prelu", {"channels": 3}, nn.PReLU(3))):
        # Six times s reaches the bends and the flat ends of all of them.
        yield name, name.removesuffix("_tanh"), attributes | {"input_scale": 6.0}, (2, 3, 10), module


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function, **arguments):
        super().__init__()
        self.function, self.arguments = function, arguments

    def forward(self, x):
        return self.function(x, **self.arguments)


class SelfAttention(nn.MultiheadAttention):
    """Attention of a sequence to itself."""

    def forward(self, x):
        return super().forward(x, x, x, need_weights=False)[0]


def layers():
    tensors, listed = {}, []
    for name, kind, attributes, shape, module in layer_cases():
        fill_(module)
        given = {key: list(value.shape) for key, value in module.state_dict().items() if value.is_floating_point()}
        x = (attributes.get("input_scale", 1.0) * signed("input", shape)).requires_grad_()
        y = module(x)
        (y * signed("cotangent.0", y.shape)).mean().backward()
        found = {"output": y, "grad.input": x.grad} | {f"grad.{k}": p.grad for k, p in module.named_parameters()}
        if attributes.get("train"):
            found |= {f"buffer.{k}": b for k, b in module.named_buffers() if b.is_floating_point()}
        count = 8
        tensors[name] = torch.cat([sample(t, count) for t in found.values()])
        listed.append({"name": name, "kind": kind, "attributes": attributes, "input": list(shape), "parameters": given,
                       "results": [[key, *summary(t).values()] for key, t in found.items()]})
    write_tensors("layers.safetensors", tensors)
    write_json("layers.json", {"samples": count, "loss": "mean(output * s(`cotangent.0`))", "results": "name, shape, norm, dot"}, {"cases": listed})


# --- the selective scan ---------------------------------------------------------------------------------------------

def scan_reference(softplus, u, delta, a, b, c, skip=None, z=None, delta_bias=None):
    """Algorithm 2 of Gu and Dao 2023, step by step."""
    if b.ndim == 3:
        b, c = b[:, None], c[:, None]
    b, c = (t.repeat_interleave(u.shape[1] // b.shape[1], 1) for t in (b, c))
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if softplus:
        delta = F.softplus(delta, threshold=100)
    x, ys = torch.zeros(*u.shape[:2], a.shape[1]).double(), []
    for t in range(u.shape[2]):
        step = delta[:, :, t, None]
        x = torch.exp(step * a) * x + step * b[..., t] * u[:, :, t, None]
        ys.append((x * c[..., t]).sum(-1))
    y = torch.stack(ys, 2)
    if skip is not None:
        y = y + skip[:, None] * u
    return y if z is None else y * F.silu(z)


def scan():
    plain = {"batch": 2, "channels": 5, "groups": None, "states": 4, "length": 7}
    none = {"skip": False, "gate": False, "delta_bias": False, "delta_softplus": False}
    cases = [("plain", plain | none), ("skip", plain | none | {"skip": True, "length": 70}),
             ("gate", plain | none | {"gate": True, "channels": 17}),
             ("softplus_bias", plain | none | {"delta_bias": True, "delta_softplus": True, "states": 1}),
             ("groups", plain | {"groups": 2, "channels": 6, "states": 3, "length": 130} | {key: True for key in none})]
    tensors, listed, count = {}, [], 8
    for name, o in cases:
        over_time = (o["batch"], o["channels"], o["length"])
        over_states = (o["batch"], *([o["groups"]] if o["groups"] else []), o["states"], o["length"])
        delta = signed("delta", over_time) if o["delta_softplus"] else uniform("delta", over_time)
        inputs = {"u": signed("u", over_time), "delta": delta, "a": -0.2 - uniform("a", (o["channels"], o["states"])),
                  "b": signed("b", over_states), "c": signed("c", over_states)}
        inputs |= {"skip": signed("skip", (o["channels"],))} if o["skip"] else {}
        inputs |= {"z": signed("z", over_time)} if o["gate"] else {}
        inputs |= {"delta_bias": signed("delta_bias", (o["channels"],))} if o["delta_bias"] else {}
        leaves = {key: value.requires_grad_() for key, value in inputs.items()}
        y = scan_reference(o["delta_softplus"], **leaves)
        (y * signed("cotangent.0", y.shape)).mean().backward()
        found = {"output": y} | {f"grad.{key}": leaf.grad for key, leaf in leaves.items()}
        tensors[name] = torch.cat([sample(t, count) for t in found.values()])
        listed.append({"name": name, "attributes": o, "results": [[key, *summary(t).values()] for key, t in found.items()]})
    write_tensors("scan.safetensors", tensors)
    write_json("scan.json", {"samples": count, "loss": "mean(output * s(`cotangent.0`))", "results": "name, shape, norm, dot",
                             "fill": "s(`NAME`), but a = -0.2 - u(`a`), and delta = u(`delta`) without softplus"}, {"cases": listed})


# --- networks -------------------------------------------------------------------------------------------------------

def network(name, build, attributes, shape):
    tensors, results = {}, {}
    for mode in ("eval", "train"):
        net = fill_(build()).train(mode == "train")
        x = signed("input", shape).requires_grad_()
        y = net(x)
        loss = (y * signed("cotangent.0", y.shape)).mean()
        loss.backward()
        tensors |= {f"{mode}/output.0": sample(y), f"{mode}/grad.input.0": sample(x.grad)}
        tensors |= {f"{mode}/grad_norm.{k}": p.grad.norm() for k, p in net.named_parameters()}
        if mode == "train":
            tensors |= {f"{mode}/buffer.{k}": sample(b) for k, b in net.named_buffers() if b.is_floating_point()}
        results[mode] = {"loss": loss.item(), "output.0": summary(y), "grad.input.0": summary(x.grad)}
    state = [[k, list(t.shape), "parameter" if k in dict(net.named_parameters()) else "buffer"] for k, t in net.state_dict().items()]
    write_tensors(f"{name}.safetensors", tensors)
    write_json(f"{name}.json", {"attributes": attributes, "input": list(shape), "samples": SAMPLES, "results": results,
                                "parameter_count": sum(p.numel() for p in net.parameters())}, {"state": state})


def unet3d():
    network("unet3d", lambda: networks.UNet3d(3), {"classes": 3, "widths": [32, 64, 128, 256]}, (2, 1, 16, 24, 16))


def unet2d():
    widths = (8, 16, 32, 64, 128)
    network("unet2d", lambda: networks.UNet2d(2, widths), {"classes": 2, "widths": list(widths)}, (2, 1, 32, 48))


def resnet(name, shape, **attributes):
    attributes = {"rank": len(shape) - 2, "classes": 5, "groups": 1, "width_per_group": 64, "width": 8} | attributes
    network(name, lambda: networks.resnet(**attributes), attributes, shape)


def resnet_basic():
    resnet("resnet_basic", (2, 3, 64, 48), block="basic", layers=[2, 2, 2, 2])


def resnet_bottleneck():
    resnet("resnet_bottleneck", (2, 3, 64, 48), block="bottleneck", layers=[1, 2, 1, 1], groups=2)


def resnet_3d():
    resnet("resnet_3d", (2, 3, 32, 24, 36), block="basic", layers=[1, 1, 1, 1], width=4)


def init():
    """PyTorch's default initialisation, checked here by drawing it."""
    torch.manual_seed(0)
    cases = [("conv3d", nn.Conv3d(8, 16, 3)), ("conv3d_grouped", nn.Conv3d(8, 16, 3, groups=4)), ("conv2d", nn.Conv2d(5, 40, 3)),
             ("conv_transpose3d", nn.ConvTranspose3d(8, 16, 2, 2)), ("linear", nn.Linear(300, 50)), ("batch_norm3d", nn.BatchNorm3d(8)),
             ("instance_norm3d", nn.InstanceNorm3d(8, affine=True)), ("group_norm", nn.GroupNorm(2, 8)), ("layer_norm", nn.LayerNorm(8))]
    listed = []
    for name, module in cases:
        weight, values = module.weight.detach(), {}
        fan = math.prod(weight.shape[1:])
        for key, p in module.named_parameters():
            p = p.detach()
            if weight.ndim > 1:
                bound = 1 / math.sqrt(fan)
                assert 0.8 * bound < p.abs().max() <= bound, (name, key)
                assert p.numel() < 1000 or abs(p.std() * math.sqrt(3) / bound - 1) < 0.05, (name, key)
                values[key] = {"shape": list(p.shape), "distribution": "uniform", "low": -bound, "high": bound, "std": bound / math.sqrt(3)}
            else:
                constant = 1.0 if key == "weight" else 0.0
                assert (p == constant).all()
                values[key] = {"shape": list(p.shape), "distribution": "constant", "value": constant}
        listed.append({"name": name, "fan_in": fan if weight.ndim > 1 else None, "values": values})
    write_json("init.json", {"rule": "convolutions, transposed convolutions and linear layers: weight and bias uniform in +-1/sqrt(fan_in), fan_in = "
                                     "product of all dims of the weight but the first (so a transposed convolution's counts its outputs per group); "
                                     "norms: weight 1, bias 0"}, {"cases": listed})


# --- metrics --------------------------------------------------------------------------------------------------------

def metrics():
    from monai.metrics import compute_surface_dice
    from scipy import ndimage

    shape, spacing = (14, 16, 12), (1.0, 1.5, 2.0)
    def ball(center, radii): return {"center": center, "radii": radii}
    pairs = [
        ("shifted", [ball([6.1, 7.3, 5.2], [4.3, 5.2, 3.4])], [ball([7.4, 7.9, 5.7], [4.1, 4.7, 3.6])]),
        ("identical", [ball([6.1, 7.3, 5.2], [4.3, 5.2, 3.4])], [ball([6.1, 7.3, 5.2], [4.3, 5.2, 3.4])]),
        ("outlier", [ball([6.1, 7.3, 5.2], [4.3, 5.2, 3.4]), ball([12.2, 14.1, 10.3], [0.9, 1.2, 0.8])], [ball([6.1, 7.3, 5.2], [4.1, 4.9, 3.3])]),
        ("apart", [ball([3.2, 3.4, 3.3], [2.3, 2.2, 2.6])], [ball([10.3, 12.1, 8.2], [2.7, 2.4, 2.1])]),
        ("touching_border", [ball([0.3, 7.2, 5.1], [4.3, 5.2, 3.4])], [ball([1.2, 8.1, 11.3], [3.3, 5.1, 4.6])]),
        ("single_voxel", [ball([4.1, 5.1, 6.1], [0.4, 0.4, 0.4])], [ball([6.2, 5.1, 4.2], [1.3, 1.3, 1.3])]),
        ("empty_prediction", [], [ball([6.1, 7.3, 5.2], [4.3, 5.2, 3.4])]),
        ("both_empty", [], []),
    ]
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=float) for n in shape), indexing="ij"))

    def draw(balls):
        mask = np.zeros(shape, bool)
        for b in balls:
            q = (((grid - np.reshape(b["center"], (3, 1, 1, 1))) / np.reshape(b["radii"], (3, 1, 1, 1))) ** 2).sum(0)
            assert np.abs(q - 1).min() > 1e-6, "a voxel on the surface would depend on rounding"
            mask |= q <= 1
        return mask

    six = ndimage.generate_binary_structure(3, 1)
    def surface(m): return m ^ ndimage.binary_erosion(m, six)
    def classes(m): return torch.from_numpy(np.stack([~m, m])[None].astype(np.uint8))
    def directed(a, b): return ndimage.distance_transform_edt(~surface(b), sampling=spacing)[surface(a)]

    listed = []
    for name, first, second in pairs:
        a, b = draw(first), draw(second)
        result = {"voxels": [int(a.sum()), int(b.sum())], "surface_voxels": [int(surface(a).sum()), int(surface(b).sum())]}
        if a.any() and b.any():
            ab, ba = directed(a, b), directed(b, a)
            result |= {"dice": 2 * (a & b).sum() / (a.sum() + b.sum()), "iou": (a & b).sum() / (a | b).sum(),
                       "hausdorff": max(ab.max(), ba.max()), "hd95": max(np.percentile(ab, 95), np.percentile(ba, 95)),
                       "hd95_directed": [np.percentile(ab, 95), np.percentile(ba, 95)], "assd": np.concatenate([ab, ba]).mean()}
            result["surface_dice"] = compute_surface_dice(classes(a), classes(b), [2.0], spacing=list(spacing)).item()
            result = {k: v if isinstance(v, list) else float(v) for k, v in result.items()}
            result["hd95_directed"] = [float(v) for v in result["hd95_directed"]]
        else:  # a matter of convention: no number is asked for
            result |= {"dice": None if not (a.any() or b.any()) else 0.0, "hd95": None, "assd": None}
        listed.append({"name": name, "prediction": first, "reference": second, "results": result})
    write_json("metrics.json", {
        "shape": list(shape), "spacing": list(spacing),
        "mask": "union over the balls of sum_d ((i_d - center_d) / radii_d)^2 <= 1, i_d the voxel index along axis d (row-major, axis 0 slowest)",
        "surface": "mask XOR its erosion by the 6-neighbourhood; outside the image counts as background",
        "distance": "Euclidean, in units of the spacing, from each surface voxel of one mask to the nearest surface voxel of the other",
        "hd95": "the greater of the two directed 95th percentiles (linear interpolation between order statistics at 0.95 * (n - 1))",
        "assd": "mean of both directions' distances taken together", "surface_dice": "MONAI's, at 2 mm", "null": "undefined: one of the masks is empty"}, {"cases": listed})


# --- attention ------------------------------------------------------------------------------------------------------

def attention():
    cases = [
        ("plain", (2, 3, 21, 8), (2, 3, 37, 8), (2, 3, 37, 5), [], {}),
        ("cross_blocks", (1, 1, 130, 16), (1, 1, 300, 16), (1, 1, 300, 16), [], {"scale": 0.7}),
        ("causal", (2, 2, 150, 8), (2, 2, 150, 8), (2, 2, 150, 8), [], {"causal": True}),
        ("position_bias", (4, 3, 27, 8), (4, 3, 27, 8), (4, 3, 27, 8), [(3, 27, 27)], {}),
        ("bias_and_mask", (4, 3, 27, 8), (4, 3, 27, 8), (4, 3, 27, 8), [(3, 27, 27), (4, 1, 27, 27)], {"scale": 0.25}),
        ("causal_bias", (2, 2, 20, 8), (2, 2, 20, 8), (2, 2, 20, 8), [(2, 1, 1, 20)], {"causal": True}),
    ]
    tensors, listed = {}, []
    for name, q_shape, k_shape, v_shape, biases, a in cases:
        leaves = [signed(n, s) for n, s in zip("qkv", (q_shape, k_shape, v_shape))]
        leaves += [2 * signed(f"bias.{i}", shape) for i, shape in enumerate(biases)]
        leaves = [t.requires_grad_() for t in leaves]
        q, k, v, *added = leaves
        # PyTorch takes a mask or causality, not both: the mask has both then.
        mask = sum(added[1:], added[0]) if added else None
        causal = a.get("causal", False)
        if causal and added:
            hidden = torch.ones(q_shape[-2], k_shape[-2], dtype=torch.bool).triu(1)
            mask, causal = mask.expand(*q_shape[:-1], k_shape[-2]).masked_fill(hidden, -math.inf), False
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=a.get("scale"))
        (y * signed("cotangent", y.shape)).mean().backward()
        names = ["q", "k", "v"] + [f"bias.{i}" for i in range(len(biases))]
        tensors[f"{name}/output"] = sample(y)
        tensors |= {f"{name}/grad.{n}": sample(t.grad) for n, t in zip(names, leaves)}
        listed.append({"name": name, "attributes": a, "inputs": [list(t.shape) for t in leaves], "output": summary(y)})
    write_tensors("attention.safetensors", tensors)
    write_json("attention.json", {
        "fill": "q = s(`q`), k = s(`k`), v = s(`v`), bias i = 2 * s(`bias.i`)", "loss": "mean(output * s(`cotangent`))",
        "formula": "torch.nn.functional.scaled_dot_product_attention, the sum of the biases as its mask", "samples": SAMPLES},
        {"cases": listed})


ALL = [losses, optimizers, schedules, layers, attention, scan, unet3d, unet2d, resnet_basic, resnet_bottleneck, resnet_3d, init, metrics]

if __name__ == "__main__":
    torch.set_num_threads(1)
    wanted = set(sys.argv[1:])
    if unknown := wanted - {f.__name__ for f in ALL}:
        sys.exit(f"no such golden: {', '.join(sorted(unknown))}; there are {', '.join(f.__name__ for f in ALL)}")
    for f in ALL:
        if not wanted or f.__name__ in wanted:
            f()
            print(f.__name__)
