#!/usr/bin/env python3
"""How the originals of the zoo start: `initialisations.py [NAME ...]` writes initialisations.json.

Each original of a golden (`zoo_*.py`) is built from many seeds. Of every parameter, in the order of the state dict, the file has
`[count, mean, standard deviation, kurtosis]` of all numbers drawn (kurtosis: 3 if normal, 1.8 if uniform, between them if truncated), or
`[count, value]` of a constant. Numbers that are there several times, as in ICNR, count once.

Some goldens are of originals that were made narrower, or of another rank, after they had been initialised: those of torchvision whose
widths aren't arguments. They are left out here; models/tests/classic.rs has their initial values.
"""
import importlib
import json
import pathlib
import sys

import torch

import zoo

HERE = pathlib.Path(__file__).resolve().parent
FILE = HERE / "initialisations.json"
# The most seeds; a network of many parameters needs fewer.
SEEDS = 64
ENOUGH = 2_000
# Prefixes of the goldens that were changed after they had been initialised, or whose paper has no code.
CHANGED = ("alexnet", "convnext_1d", "convnext_3d", "efficientnet_1d", "efficientnet_3d", "fcn", "googlenet", "inception", "resnet_3d",
           "resnet_basic", "resnet_bottleneck", "resnet_cbam", "slice", "unet_paper", "vgg")
# nnU-Net's initialisation leaves out convolutions in 1D, and fails in residual blocks whose norms have no weights.
UNINITIALISED = ("nnunet_plain_1d", "nnunet_residual")


def statistics(draws: list) -> list:
    values = torch.cat([draw.detach().double().flatten() for draw in draws])
    distinct = values.unique().numel()
    mean = values.mean()
    if (values == values[0]).all():
        return [distinct, float(f"{values[0].item():.6g}")]
    centred = values - mean
    variance = (centred**2).mean()
    kurtosis = (centred**4).mean() / variance**2
    return [distinct, *(float(f"{number.item():.5g}") for number in (mean, variance.sqrt(), kurtosis))]


def of(build) -> list:
    draws = {}
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        for name, parameter in build().named_parameters():
            drawn = draws.setdefault(name, [])
            if sum(draw.numel() for draw in drawn) < ENOUGH:
                drawn.append(parameter)
        if all(sum(draw.numel() for draw in drawn) >= ENOUGH for drawn in draws.values()):
            break
    return [statistics(drawn) for drawn in draws.values()]


def main():
    zoo.main = lambda source: None
    for path in sorted(HERE.glob("zoo_*.py")):
        importlib.import_module(path.stem)
    names = sys.argv[1:]
    found = json.loads(FILE.read_text()) if names and FILE.exists() else {}
    originals = {name: build for name, (build, *_) in zoo.GOLDENS.items() if not name.startswith(CHANGED) and name not in UNINITIALISED}
    found = {name: rows for name, rows in found.items() if name in originals}
    for name, build in originals.items():
        if not names or name in names:
            found[name] = of(build)
            print(name, len(found[name]), flush=True)
    lines = [f" {json.dumps(name)}: {json.dumps(rows, separators=(',', ':'))}" for name, rows in sorted(found.items())]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
