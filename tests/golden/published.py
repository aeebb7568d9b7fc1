#!/usr/bin/env python3
"""Loads files as the originals write them into the presets: `published.py [--program FILE] [PRESET ...]`.

For every preset that a `zoo_*.py` registers, the original gets random weights and running statistics, and its state dict is
written as `.pth` (torch.save) and as safetensors. `tomograd zoo run` loads each by name, without a mapping, and runs in
inference mode; its outputs are compared with the original's, which are computed in f64 from the same f32 weights. The
table goes to `benches/results/published_weights.md`.
"""
import argparse
import importlib
import math
import pathlib
import subprocess
import sys
import tempfile
import time

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import zoo
from formula import signed

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TABLE = ROOT / "benches/results/published_weights.md"
# The largest difference, relative to the largest output, that passes.
TOLERANCES = {"f64": 1e-9, "f32": 1e-3}
RUNS = [("pth", "f64"), ("safetensors", "f64"), ("pth", "f32")]
HEAD = """# Weights of the originals, loaded by name

Each original (torchvision, timm, MONAI, ...) gets random weights and fitting running statistics in f32, and its `state_dict()` is
written by `torch.save` (`.pth`) and as safetensors. `tomograd zoo run PRESET --weights FILE` loads the file by name, strictly
and without a mapping, and runs on the input by formula in inference mode. The figures are the largest differences of all
outputs from the original's outputs in f64, divided by the largest output; the last column is the original's own in f32. Made
by `tests/golden/published.py`, with the same originals as the goldens (`zoo_*.py`; some are rewritten there from their papers or
repositories); more than {f64:g} in f64 or {f32:g} in f32 fails.

| preset | original | parameters | input | .pth, f64 | .safetensors, f64 | .pth, f32 | original, f32 |
|---|---|---:|---|---:|---:|---:|---:|
"""


def registered() -> dict:
    """The presets of all scripts, by name: (source, constructor, shape)."""
    presets = {}
    zoo.main = lambda source: None  # what the scripts write when they are run
    for path in sorted(HERE.glob("zoo_*.py")):
        before = set(zoo.PRESETS)
        importlib.import_module(path.stem)
        source = path.stem.removeprefix("zoo_")
        presets |= {name: (source, *zoo.PRESETS[name]) for name in zoo.PRESETS if name not in before}
    return presets


def randomise(net: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Keeps the original's initialisation, and makes what is constant in it (zeros, ones, running statistics) random too."""
    generator = torch.Generator().manual_seed(seed)
    noise = lambda t: torch.rand(t.shape, generator=generator)
    buffers = dict(net.named_buffers())
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var"):
                tensor.copy_(1 + 0.5 * noise(tensor))
            elif name in buffers and not name.endswith("running_mean"):
                continue  # such as the tables of positions, which the original computes
            elif tensor.numel() > 1 and (tensor == tensor.flatten()[0]).all():
                tensor.add_(0.1 * (2 * noise(tensor) - 1))
    return net


def settle(net: torch.nn.Module, shape) -> torch.nn.Module:
    """Gives batch norms the statistics of two images, as training would. With others the signal fades from layer to layer, until
    the outputs hardly depend on the image."""
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.momentum = 1.0
    try:
        if norms:
            outputs(net.train(), (2, *shape[1:]), torch.float32)
    except Exception as error:
        print(f"no statistics of its own: {error}", flush=True)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    return net.eval()


def shapes_to_try(shape) -> list:
    """Large images and volumes are run at 256 and 64 (or 128) pixels an axis where the original allows it."""
    limits = {4: [256], 5: [64, 128]}.get(len(shape), [])
    shapes = [(*shape[:2], *(min(limit, size) for size in shape[2:])) for limit in limits] + [tuple(shape)]
    return sorted(set(shapes), key=math.prod)


def outputs(net: torch.nn.Module, shape, dtype, of=zoo.tensors_of) -> list:
    with torch.no_grad():
        return of(net.to(dtype)(signed("input", shape).to(dtype)))


def difference(found: list, expected: list) -> float:
    assert [f.shape for f in found] == [e.shape for e in expected], "other shapes of outputs"
    largest = max(e.abs().max().item() for e in expected)
    worst = max((f.double() - e).abs().max().item() for f, e in zip(found, expected))
    return worst / largest if math.isfinite(worst) else math.inf


def run(program: str, preset: str, weights: pathlib.Path, dtype: str, shape, dump: pathlib.Path) -> list:
    command = [program, "zoo", "run", preset, "--weights", weights, "--input", "formula", "--outputs", "--dtype", dtype, "--shape",
               ",".join(map(str, shape)), "--dump", dump, "--overwrite"]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(result.stderr.strip().splitlines()[-1] if result.stderr.strip() else f"exit code {result.returncode}")
    tensors = load_file(dump)
    return [tensors[f"output.{k}"] for k in range(sum(name.startswith("output.") for name in tensors))]


def compared(program: str, preset: str, source: str, build, registered_shape, folder: pathlib.Path) -> tuple:
    """A row of the table, and whether it passed."""
    torch.manual_seed(0)
    net = settle(randomise(build(), 1), shapes_to_try(registered_shape)[0])
    state = {name: tensor.clone().contiguous() for name, tensor in net.state_dict().items()}
    files = {ending: folder / f"weights.{ending}" for ending in ("pth", "safetensors")}
    torch.save(net.state_dict(), files["pth"])
    save_file(state, files["safetensors"])
    for shape in shapes_to_try(registered_shape):
        try:
            expected = outputs(net, shape, torch.float64, zoo.OUTPUTS[preset])
            # Some networks refuse sizes whose borders the original cuts off.
            subprocess.run([program, "zoo", "show", preset, "--shape", ",".join(map(str, shape))], check=True, capture_output=True)
            break
        except Exception:
            if tuple(shape) == tuple(registered_shape):
                raise
    own = difference(outputs(net, shape, torch.float32, zoo.OUTPUTS[preset]), expected)
    parameters = sum(p.numel() for p in net.parameters())
    del net, state
    figures, passed = [], True
    for ending, dtype in RUNS:
        try:
            found = difference(run(program, preset, files[ending], dtype, shape, folder / "dump.safetensors"), expected)
            figures.append(f"{found:.1e}")
            passed &= found <= TOLERANCES[dtype]
        except Exception as error:
            figures.append(f"{error}".replace("|", "/"))
            passed = False
    size = "×".join(map(str, shape))
    return f"| {preset} | {source} | {parameters:,} | {size} | {' | '.join(figures)} | {own:.1e} |", passed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=str(ROOT / "target/release/tomograd"))
    parser.add_argument("presets", nargs="*", help="all without one; with one, the table keeps its other rows")
    arguments = parser.parse_args()
    presets = registered()
    unknown = [name for name in arguments.presets if name not in presets]
    if unknown:
        sys.exit(f"no preset is registered as {', '.join(unknown)}")
    chosen = arguments.presets or [name for name, (_, _, shape) in presets.items() if shape]
    old = TABLE.read_text().splitlines() if TABLE.exists() and arguments.presets else []
    rows = {line.split("|")[1].strip(): line for line in old if line.startswith("| ") and not line.startswith("| preset ")}
    failed = []
    for name in chosen:
        source, build, shape = presets[name]
        start = time.time()
        with tempfile.TemporaryDirectory() as folder:
            try:
                rows[name], passed = compared(arguments.program, name, source, build, shape, pathlib.Path(folder))
            except Exception as error:
                rows[name], passed = f"| {name} | {source} | | | the original: {error} | | | |", False
        failed += [] if passed else [name]
        print(f"{rows[name]} {time.time() - start:.0f} s", flush=True)
        ordered = [rows[name] for name in presets if name in rows]
        TABLE.write_text(HEAD.format(**TOLERANCES) + "\n".join(ordered) + "\n")
    print(f"{len(chosen) - len(failed)} of {len(chosen)} presets agree" + (f"; not: {', '.join(failed)}" if failed else ""))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
