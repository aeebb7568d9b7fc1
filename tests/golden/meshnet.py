#!/usr/bin/env python3
"""Trains a MeshNet with PyTorch on the images that come with the project, and writes its weights as PyTorch names them
(`examples/data/meshnet.safetensors`), with what it gives for an input by formula (`meshnet_output.safetensors`).

    meshnet.py [STEPS]
"""
import gzip
import pathlib
import sys

import nibabel
import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from formula import signed

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "examples/data/hippocampus"


class MeshNet(nn.Module):
    """Fedorov et al. 2017: convolutions of one width, more and more dilated, each with batch norm and ReLU."""

    def __init__(self, width: int = 8, classes: int = 3):
        super().__init__()
        blocks, channels = [], 1
        for dilation in (1, 2, 4, 2, 1):
            conv = nn.Conv3d(channels, width, 3, padding=dilation, dilation=dilation)
            blocks.append(nn.Sequential(conv, nn.BatchNorm3d(width), nn.ReLU()))
            channels = width
        self.model = nn.Sequential(*blocks, nn.Conv3d(width, classes, 1))

    def forward(self, x):
        return self.model(x)


def case(name: str):
    """Image (z-score) and label in RAS, axes as the files have them reversed: (D, H, W)."""
    read = lambda part: nibabel.as_closest_canonical(nibabel.load(DATA / part / f"{name}.nii.gz"))
    image = np.asarray(read("images").dataobj, dtype=np.float32).transpose(2, 1, 0)
    label = np.asarray(read("labels").dataobj).transpose(2, 1, 0).astype(np.int64)
    return (image - image.mean()) / image.std(), label


def patch(image, label, rng):
    """A random patch of 40 x 56 x 40, zeros around what is smaller."""
    size = (40, 56, 40)
    pads = [(max(0, s - n) // 2, max(0, s - n) - max(0, s - n) // 2) for s, n in zip(size, image.shape)]
    image, label = np.pad(image, pads), np.pad(label, pads)
    start = [rng.integers(0, n - s + 1) for s, n in zip(size, image.shape)]
    cut = tuple(slice(a, a + s) for a, s in zip(start, size))
    return image[cut], label[cut]


def main():
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 150
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    split = [line.split() for line in (DATA / "split.txt").read_text().splitlines()]
    cases = [case(name) for part, name in split if part == "train"]
    net = MeshNet()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-2, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-2, total_steps=steps)
    for step in range(steps):
        batch = [patch(*cases[i], rng) for i in rng.integers(0, len(cases), 1)]
        x = torch.from_numpy(np.stack([image for image, _ in batch])[:, None])
        y = torch.from_numpy(np.stack([label for _, label in batch]))
        logits = net(x)
        p, t = logits.softmax(1), F.one_hot(y, 3).permute(0, 4, 1, 2, 3).float()
        dice = (2 * (p * t).sum((0, 2, 3, 4)) + 1e-5) / (p.sum((0, 2, 3, 4)) + t.sum((0, 2, 3, 4)) + 1e-5)
        loss = F.cross_entropy(logits, y, weight=torch.tensor([0.1, 1.0, 1.0])) + 1 - dice.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 19:
            print(step + 1, f"loss {loss.item():.4f}, soft Dice", [f"{d:.3f}" for d in dice.tolist()], flush=True)
    net.eval()
    save_file(net.state_dict(), ROOT / "examples/data/meshnet.safetensors")
    with torch.no_grad():
        output = net.double()(signed("input", (1, 1, 12, 10, 14)))
    save_file({"output.0": output.contiguous()}, pathlib.Path(__file__).parent / "meshnet_output.safetensors")


if __name__ == "__main__":
    main()
