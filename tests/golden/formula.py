"""The fill by formula: every number of a model or an input follows from the name and the shape of its tensor.

Self-contained: numpy and torch only. `python formula.py` checks it against the published values.
"""
import math

import numpy as np
import torch

MASK = (1 << 64) - 1
GOLDEN_RATIO = 0x9E3779B97F4A7C15


def name_hash(name: str) -> int:
    """FNV-1a, 64 bits, of the UTF-8 bytes."""
    h = 0xCBF29CE484222325
    for byte in name.encode("utf-8"):
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def uniform(name: str, shape) -> torch.Tensor:
    """u in [0, 1): the splitmix64 finalizer of hash + i * golden ratio, i = 1, 2, ... in row-major order; top 53 bits."""
    count = math.prod(shape)
    u64 = np.uint64
    with np.errstate(over="ignore"):
        z = u64(name_hash(name)) + np.arange(1, count + 1).astype(u64) * u64(GOLDEN_RATIO)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = (z ^ (z >> u64(shift))) * u64(factor)
        z = z ^ (z >> u64(31))
    return torch.from_numpy(((z >> u64(11)).astype(np.float64) / 2.0**53).reshape(tuple(shape)))


def signed(name: str, shape) -> torch.Tensor:
    """s = 2u - 1 in [-1, 1): inputs, cotangents, gradients."""
    return uniform(name, shape) * 2 - 1


def parameter(name: str, shape) -> torch.Tensor:
    """The value of a parameter or a floating-point buffer; the last part of its name decides the range."""
    match name.rpartition(".")[2], len(shape):
        case "weight", rank if rank >= 2:
            return signed(name, shape) * math.sqrt(3.0 / math.prod(shape[1:]))
        case "weight", _:
            return 1 + 0.1 * signed(name, shape)
        case "bias" | "running_mean", _:
            return 0.1 * signed(name, shape)
        case "running_var", _:
            return 1 + 0.1 * uniform(name, shape)
        case _:
            return 0.02 * signed(name, shape)


def labels(name: str, shape, classes: int) -> torch.Tensor:
    """floor(classes * u), int64."""
    return (uniform(name, shape) * classes).floor().long()


def fill_(module: torch.nn.Module) -> torch.nn.Module:
    """Turns a module to f64 and fills all that its state dict holds; integer buffers become 0. What has several names is filled by its
    first one."""
    module.double()
    filled = set()
    with torch.no_grad():
        for name, tensor in module.state_dict(keep_vars=True).items():
            if id(tensor) in filled:
                continue
            filled.add(id(tensor))
            if tensor.is_floating_point():
                tensor.copy_(parameter(name, tensor.shape))
            else:
                tensor.zero_()
    return module


if __name__ == "__main__":
    assert name_hash("conv1.weight") == 0x69A29A2CEE47D254
    assert uniform("conv1.weight", (3,)).tolist() == [0.5450749789171447, 0.745161751328336, 0.022921737033572143]
    first = parameter("conv1.weight", (2, 3, 3)).flatten()[:3].tolist()
    assert first == [0.05204810242306044, 0.2830884062488297, -0.5508825270963723], first
    print("formula: agrees with the published values")
