#!/usr/bin/env python3
"""Times the originals of the zoo's networks, the cases of zoo.json, with PyTorch on the CPU, each as fast as a user can get it.

    zoo_torch.py [--threads N] [--seconds S] [--case NAME ...]

The originals are those of tests/golden/zoo_*.py. Inference is tried in both memory formats, with and without batch norm folded into the
convolutions; training in both memory formats. Every try is a process of its own, whose peak of memory begins when the
network is built. Prints one JSON object a line: case, peer, variant (the fastest), min_s, median_s, runs, peak_rss_mb (the lowest of all
variants), idle_rss_mb (of the libraries) and weights_mb.
"""
import argparse
import importlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE.parent / "tests" / "golden"


def original(preset):
    """Builds the original of a preset. Scripts whose library isn't installed are left out."""
    sys.path.insert(0, str(GOLDEN))
    import zoo
    for script in sorted(GOLDEN.glob("zoo_*.py")):
        try:
            importlib.import_module(script.stem)
        except ImportError as error:
            print(f"{script.name}: {error}", file=sys.stderr)
        if preset in zoo.PRESETS:
            return zoo.PRESETS[preset][0]()
    sys.exit(f"zoo_torch: no script in tests/golden registers the preset {preset}")


def main_output(result):
    """The logits of a result that may have auxiliary heads."""
    while not isinstance(result, torch.Tensor):
        result = next(iter(result.values() if isinstance(result, dict) else result))
    return result


def dice_ce(logits, target):
    """Soft Dice over all classes and the batch, and cross-entropy."""
    p = logits.softmax(1)
    one = F.one_hot(target, logits.shape[1]).movedim(-1, 1).to(p.dtype)
    dims = [0, *range(2, p.ndim)]
    dice = (2 * (p * one).sum(dims) + 1e-5) / ((p + one).sum(dims) + 1e-5)
    return 1 - dice.mean() + F.cross_entropy(logits, target)


def build(name, case, variant):
    """A step without arguments, the megabytes of the weights, and the peak memory of what there is without them: the libraries."""
    form, _, fold = variant.partition("+")
    generator = torch.Generator().manual_seed(0)
    net = original(case.get("preset", name))
    weights = sum(p.numel() * p.element_size() for p in net.parameters()) / 2**20
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    idle = peak_mb() - weights
    x = torch.rand(*case["shape"], generator=generator) * 2 - 1
    if form == "last":
        last = {4: torch.channels_last, 5: torch.channels_last_3d}[x.ndim]
        net, x = net.to(memory_format=last), x.contiguous(memory_format=last)
    if case.get("mode") != "train":
        net.eval()
        if fold:
            from torch.fx.experimental.optimization import fuse
            net = fuse(net)
        return lambda: net(x), weights, idle
    optimizer = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.99, nesterov=True, weight_decay=3e-5)
    with torch.no_grad():
        y = main_output(net(x))
    target = torch.randint(0, y.shape[1], (y.shape[0], *y.shape[2:]), generator=generator)
    loss = dice_ce if y.ndim > 2 else F.cross_entropy

    def step():
        optimizer.zero_grad()
        loss(main_output(net(x)), target).backward()
        optimizer.step()
    return step, weights, idle


def measure(step, seconds):
    step()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or (time.perf_counter() < end and len(times) < 200):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


def peak_mb():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--threads", type=int, default=os.cpu_count())
    a.add_argument("--seconds", type=float, default=1.5)
    a.add_argument("--case", nargs="*")
    a.add_argument("--variant", help="first or last, with +fold behind it: that one alone")
    a = a.parse_args()
    torch.set_num_threads(a.threads)
    cases = json.loads((HERE / "zoo.json").read_text())
    if a.variant and a.case:
        [name] = a.case
        with torch.enable_grad() if cases[name].get("mode") == "train" else torch.inference_mode():
            step, weights, idle = build(name, cases[name], a.variant)
            times = measure(step, a.seconds)
        print(json.dumps({"case": name, "peer": f"torch-{torch.__version__}", "variant": a.variant, "min_s": min(times),
                          "median_s": statistics.median(times), "runs": len(times), "peak_rss_mb": peak_mb(),
                          "idle_rss_mb": idle, "weights_mb": weights}))
        return
    for name in a.case or cases:
        folds = [""] if cases[name].get("mode") == "train" else ["", "+fold"]
        tries = []
        for variant in (form + fold for form in ("first", "last") for fold in folds):
            command = [sys.executable, __file__, "--threads", str(a.threads), "--seconds", str(a.seconds), "--case", name]
            run = subprocess.run([*command, "--variant", variant], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            # What torch.fx can't trace can't be folded.
            if run.returncode and not variant.endswith("+fold"):
                sys.exit(f"{name} as {variant}: {run.stderr.strip().splitlines()[-1:]}")
            tries += [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
        best = min(tries, key=lambda t: t["min_s"])
        best["peak_rss_mb"] = min(t["peak_rss_mb"] - t["idle_rss_mb"] for t in tries) + best["idle_rss_mb"]
        print(json.dumps(best), flush=True)


if __name__ == "__main__":
    main()
