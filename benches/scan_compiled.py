#!/usr/bin/env python3
"""Times the selective scan beside the best that PyTorch has without a kernel of its own: a chunked scan by `torch.compile`.

    benches/scan_compiled.py --binary BENCHMARK [--peers DIR] [--rounds N] [--threads N] [--markdown FILE]

Run it with a Python that has torch; BENCHMARK is the built benchmark `peers`, and the peers folder has PyTorch's plain loop. Within a chunk the states are
exp(S_t) (h + sum over s <= t of exp(-S_s) b_s), with S the running sum of the logarithms of the decays, so only the chunks'
last states go in sequence. (That is exact as long as exp(-S) doesn't overflow, which here, with 64 steps of at most 0.15, it
doesn't; this project's kernel has no such bound.) Its outputs and gradients are compared with the loop's first. Both
sides take turns; times are the least of all rounds.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import time

import torch

from compare import ROOT, json_lines

CASES = {"forward": "selective_scan_192_16_4096", "training": "selective_scan_192_16_4096_train"}
BATCH, CHANNELS, STATES, LENGTH = 1, 192, 16, 4096


def chunked(u, delta, A, B, C, D, size=64):
    """u, delta: (b, d, l); A: (d, n); B, C: (b, n, l); D: (d). States are (b, d, chunk, place, n)."""
    b, d, l = u.shape
    cut = lambda x: x.reshape(b, x.shape[1], l // size, size)
    u_, delta_, B_, C_ = cut(u), cut(delta), cut(B), cut(C)
    decay = delta_.cumsum(3)[..., None] * A[:, None, None, :]
    source = (delta_ * u_)[..., None] * B_.permute(0, 2, 3, 1)[:, None]
    local = torch.exp(decay) * (torch.exp(-decay) * source).cumsum(3)
    h, before = u.new_zeros(b, d, A.shape[1]), []
    for chunk in range(l // size):
        before.append(h)
        h = torch.exp(decay[:, :, chunk, -1]) * h + local[:, :, chunk, -1]
    states = local + torch.exp(decay) * torch.stack(before, 2)[:, :, :, None]
    return (states * C_.permute(0, 2, 3, 1)[:, None]).sum(-1).reshape(b, d, l) + u * D[:, None]


def inputs():
    random = torch.Generator().manual_seed(0)
    uniform = lambda *size: torch.rand(*size, generator=random)
    signed = lambda *size: uniform(*size) * 2 - 1
    values = (signed(BATCH, CHANNELS, LENGTH), uniform(BATCH, CHANNELS, LENGTH) * 0.1, -uniform(CHANNELS, STATES) - 0.5,
              signed(BATCH, STATES, LENGTH), signed(BATCH, STATES, LENGTH), signed(CHANNELS))
    return [value.requires_grad_() for value in values]


def forward(function, values):
    with torch.no_grad():
        return [function(*values)]


def training(function, values):
    y = function(*values)
    return [y, *torch.autograd.grad(y, values, torch.ones_like(y))]


def seconds(step, least=0.5):
    best, start = float("inf"), time.perf_counter()
    while time.perf_counter() - start < least:
        before = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - before)
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, required=True)
    parser.add_argument("--peers", type=pathlib.Path, default=ROOT.parent / "shared" / "peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--markdown", type=pathlib.Path)
    arguments = parser.parse_args()
    sys.path.append(str(arguments.peers))
    from torch_bench import selective_scan
    torch.set_num_threads(arguments.threads)
    values, compiled = inputs(), torch.compile(chunked)
    rows = []
    for name, run in {"forward": forward, "training": training}.items():
        expected = run(selective_scan, values)
        for ours, right in zip(run(compiled, values), expected):
            error = (ours - right).abs().max() / right.abs().max()
            assert error < 1e-4, f"the chunked scan is off by {error:.1e}"
        theirs, ours = [], []
        for _ in range(arguments.rounds):
            theirs.append(1e3 * seconds(lambda: run(compiled, values)))
            command = [arguments.binary, "--threads", str(arguments.threads), "--seconds", "0.5", CASES[name]]
            out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            ours.append(1e3 * min(line["min_s"] for line in json_lines(out) if "min_s" in line))
        rows.append(f"| {name} | {min(theirs):.2f} | {min(ours):.2f} | {min(theirs) / min(ours):.1f} |")
    text = "\n".join([
        f"# The selective scan beside `torch.compile` of a chunked scan\n\n`benches/scan_compiled.py`, PyTorch {torch.__version__}, "
        f"{arguments.threads} threads, the least of {arguments.rounds} rounds in turn: {BATCH} × {CHANNELS} channels, {STATES} states, "
        f"{LENGTH} steps.\n", "| | torch.compile ms | ours ms | ratio |", "|---|---:|---:|---:|", *rows, ""])
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text)


if __name__ == "__main__":
    main()
