#!/usr/bin/env python3
"""Trains a narrow residual network with PyTorch to tell apart sixteen kinds of coloured textures, which are drawn here and
need no data, and writes its weights as torchvision names them: `examples/data/textures.safetensors`, from which the example
`classify` starts.

    textures.py [STEPS]
"""
import math
import pathlib
import sys

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

import networks

WEIGHTS = pathlib.Path(__file__).resolve().parents[2] / "examples/data/textures.safetensors"
SIZE, KINDS, BATCH = 64, 16, 64
WIDTH = 16


def uniform(low: float, high: float, *shape) -> torch.Tensor:
    return low + (high - low) * torch.rand(*shape)


def cloud(slope: float) -> torch.Tensor:
    """Noise whose amplitude falls with the frequency to the power of -slope, in [0, 1] for the most part."""
    frequency = (torch.fft.fftfreq(SIZE)[:, None] ** 2 + torch.fft.rfftfreq(SIZE)[None] ** 2).sqrt()
    frequency[0, 0] = math.inf  # no mean
    spectrum = torch.fft.rfft2(torch.randn(SIZE, SIZE)) / frequency ** slope
    noise = torch.fft.irfft2(spectrum, s=(SIZE, SIZE))
    return 0.5 + 0.25 * noise / noise.std()


def wave(period: float) -> tuple:
    """Two perpendicular waves of a random direction."""
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    angle, phases = uniform(0, math.pi, 1), uniform(0, 2 * math.pi, 2)
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    return tuple((2 * math.pi * place / period + phase).sin() for place, phase in zip((along, across), phases))


def discs(count: int, radius: float, soft: bool) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    image = torch.zeros(SIZE, SIZE)
    for cy, cx, r in zip(uniform(0, SIZE, count), uniform(0, SIZE, count), uniform(0.7, 1.3, count) * radius):
        square = ((y - cy) ** 2 + (x - cx) ** 2) / r ** 2
        image = torch.maximum(image, (-square).exp() if soft else (square < 1).float())
    return image


def lines(count: int, width: float) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    image = torch.zeros(SIZE, SIZE)
    for angle, cy, cx in zip(uniform(0, math.pi, count), uniform(0, SIZE, count), uniform(0, SIZE, count)):
        distance = (x - cx) * angle.sin() - (y - cy) * angle.cos()
        image = torch.maximum(image, (distance.abs() < width).float())
    return image


def pattern(kind: int) -> torch.Tensor:
    period = uniform(4, 12, 1).item()
    return [
        lambda: cloud(0.1),
        lambda: cloud(0.8),
        lambda: cloud(1.4),
        lambda: cloud(2.2),
        lambda: 0.5 + 0.5 * wave(period)[0],
        lambda: (wave(period)[0] > 0).float(),
        lambda: (math.prod(wave(period)) > 0).float(),
        lambda: 0.5 + 0.5 * math.prod(wave(period)),
        lambda: discs(24, 3, False),
        lambda: discs(5, 10, False),
        lambda: discs(24, 4, True),
        lambda: discs(5, 12, True),
        lambda: lines(12, 0.8),
        lambda: lines(4, 3.0),
        lambda: (cloud(1.6) > 0.5).float(),
        lambda: (cloud(1.6) - 0.5).abs().mul(4).clamp(0, 1),
    ][kind]()


def picture(kind: int) -> torch.Tensor:
    """(3, SIZE, SIZE): a pattern between two colours, with uneven light, blur and noise."""
    mask = pattern(kind)
    first, second = uniform(0, 1, 2, 3, 1, 1)
    image = first + (second - first) * mask
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIZE), torch.linspace(-1, 1, SIZE), indexing="ij")
    slope = uniform(-0.4, 0.4, 2)
    image = image * (1 + slope[0] * x + slope[1] * y) + uniform(-0.3, 0.3, 1) * cloud(2.0)
    if torch.rand(()) < 0.5:
        image = F.avg_pool2d(F.pad(image[None], (1, 1, 1, 1), mode="reflect"), 3, 1)[0]
    image = image + uniform(0, 0.1, 1) * torch.randn(3, SIZE, SIZE)
    return (image - image.mean()) / image.std().clamp(min=1e-3)


def batch() -> tuple:
    kinds = torch.randint(0, KINDS, (BATCH,))
    return torch.stack([picture(kind) for kind in kinds.tolist()]), kinds


def network() -> nn.Module:
    """torchvision's network with one block a layer and without its last layer."""
    net = networks.resnet(2, "basic", [1, 1, 1, 1], KINDS, 1, 64, WIDTH)
    net.layer4, net.fc = nn.Identity(), nn.Linear(4 * WIDTH, KINDS)
    return net


def main():
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = network()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    correct = []
    for step in range(steps):
        images, kinds = batch()
        logits = net(images)
        loss = F.cross_entropy(logits, kinds)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        correct.append((logits.argmax(1) == kinds).float().mean().item())
        if step % 50 == 49:
            print(step + 1, f"loss {loss.item():.3f}, right {sum(correct[-50:]) / 50:.3f}", flush=True)
    save_file(net.state_dict(), WEIGHTS)
    WEIGHTS.chmod(0o644)


if __name__ == "__main__":
    main()
