#!/usr/bin/env python3
"""What PyTorch gives, in f64, for the methods of tensors that `tests/methods.rs` lists: `methods.json`. x is
0.213 + 0.07 * (7 i mod 24) of shape (2, 3, 4); of each method, the values of all its outputs one after the other, and the
gradient of x for a loss of Σ w y over the first output that has one (for `split` the last), w_i = cos(i)."""
import json
import pathlib

import torch
from torch.nn import functional as F


def start() -> torch.Tensor:
    values = [0.213 + 0.07 * (i * 7 % 24) for i in range(24)]
    return torch.tensor(values, dtype=torch.float64).reshape(2, 3, 4).requires_grad_()


def index(values, shape):
    return torch.tensor(values).reshape(shape)


def pool(function):
    return lambda x: function(x, 3)


METHODS = {
    "neg": lambda x: -x,
    "abs": torch.abs,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "reciprocal": torch.reciprocal,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "softplus": F.softplus,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "leaky_relu": lambda x: F.leaky_relu(-x, 0.1),
    "elu": lambda x: F.elu(-x, 0.7),
    "clamp": lambda x: x.clamp(0.5, 0.9),
    "pow": lambda x: x**1.5,
    "add_scalar": lambda x: x + 0.5,
    "mul_scalar": lambda x: x * 0.5,
    "cast": lambda x: x.double(),
    "add": lambda x: x + x.square(),
    "sub": lambda x: x - x.square(),
    "mul": lambda x: x * x.exp(),
    "div": lambda x: x / x.exp(),
    "reverse_sub": lambda x: 1 - x,
    "reverse_div": lambda x: 1 / x,
    "maximum": lambda x: torch.maximum(x, x.square()),
    "minimum": lambda x: torch.minimum(x, torch.tensor(0.7, dtype=x.dtype)),
    "eq": lambda x: x == x,
    "ne": lambda x: x != x,
    "lt": lambda x: x < x.square(),
    "le": lambda x: x <= 0.7,
    "gt": lambda x: x > 0.7,
    "ge": lambda x: x >= x,
    "sum": lambda x: x.sum((0, 2)),
    "mean": lambda x: x.mean((1, 2), keepdim=True),
    "mean_spatial": lambda x: x.mean(2, keepdim=True),
    "max": lambda x: x.amax(2),
    "min": lambda x: x.amin(),
    "variance": lambda x: x.var((0, 1), correction=1, keepdim=True),
    "norm": lambda x: torch.linalg.vector_norm(x, dim=2),
    "reshape": lambda x: x.reshape(4, 6),
    "flatten": lambda x: x.flatten(1),
    "squeeze": lambda x: x.narrow(0, 1, 1).squeeze(0),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "permute": lambda x: x.permute(2, 0, 1),
    "transpose": lambda x: x.transpose(0, 2),
    "expand": lambda x: x.expand(2, 2, 3, 4),
    "slice": lambda x: x[:, :, 1:4:2],
    "narrow": lambda x: x.narrow(1, 1, 2),
    "select": lambda x: x.select(1, 2),
    "split": lambda x: x.split([1, 3], 2),
    "concat": lambda x: torch.cat([x, -x], 1),
    "stack": lambda x: torch.stack([x, -x], 3),
    "roll": lambda x: x.roll(-5, 2),
    "pad": lambda x: F.pad(x[None], (0, 2, 1, 0, 0, 1), mode="replicate")[0],
    "where_": lambda x: x.where(x > 0.7, x.square()),
    "gather": lambda x: x.gather(2, index([3, 0, 1, 1, 2, 2], (2, 3, 1))),
    "index_select": lambda x: x.index_select(1, index([2, 0, 2, 1], 4)),
    "scatter_add": lambda x: x.scatter_add(2, torch.zeros(2, 3, 4, dtype=torch.int64), x.square()),
    "one_hot": lambda x: F.one_hot(x.long(), 2).movedim(-1, 1),
    "argmax": lambda x: x.argmax(1),
    "argmin": lambda x: x.argmin(2),
    "sort": lambda x: x.sort(dim=1, stable=True),
    "sort_descending": lambda x: x.sort(dim=2, descending=True, stable=True),
    "top_k": lambda x: x.topk(3, 2),
    "cumsum": lambda x: x.cumsum(1),
    "matmul": lambda x: x @ x.transpose(1, 2),
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: x.log_softmax(2),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True, scale=0.5),
    "interpolate": lambda x: F.interpolate(x, 7, mode="linear", align_corners=False),
    "adaptive_average_pool": pool(F.adaptive_avg_pool1d),
    "adaptive_max_pool": pool(F.adaptive_max_pool1d),
}


def main():
    lines = []
    for name, method in METHODS.items():
        x = start()
        outputs = method(x)
        outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
        case = {"values": [v for y in outputs for v in y.detach().double().reshape(-1).tolist()], "gradient": None}
        differentiable = [y for y in outputs if y.requires_grad]
        if differentiable:
            y = differentiable[-1 if name == "split" else 0].reshape(-1)
            (y * torch.arange(len(y), dtype=torch.float64).cos()).sum().backward()
            case["gradient"] = x.grad.reshape(-1).tolist()
        lines.append(f" {json.dumps(name)}: {json.dumps(case, separators=(',', ':'))}")
    path = pathlib.Path(__file__).parent / "methods.json"
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
