#!/usr/bin/env python3
"""How time and memory grow with the size of the volume and the number of threads, beside PyTorch's, as markdown.

    benches/scaling.py [--sizes N ...] [--threads N ...] [--peers DIR] [--python PATH] [--binary FILE] [--prefix COMMAND]
                       [--markdown FILE]

A point is the least of a few runs in a process of its own; PyTorch tries both memory formats, and leaves out sizes at which a
run would take more than 20 s. Memory is peak minus idle resident size, of the format that is faster. The exponent is the slope of
the straight line through log time over log voxels: 1 is linear. Needs what compare.py needs.
"""
import argparse
import datetime
import json
import math
import os
import pathlib
import shlex
import subprocess
import sys
import time

from compare import ROOT, build, cpu_flags, cpu_name, json_lines

LIMIT = 20
CASES = {"unet3d_infer": ("Inference of the 3D U-Net (widths 32 to 256, 3 classes)",
                          lambda n: {"kind": "net", "net": "unet3d", "x": [1, 1, n, n, n], "classes": 3, "mode": "fwd"}),
         "conv3d_k3_32x32": ("One 3³ convolution, 32 to 32 channels",
                             lambda n: {"kind": "conv", "x": [1, 32, n, n, n], "w": [32, 32, 3, 3, 3], "pad": 1, "mode": "fwd"})}


def torch_point(peers, case, variant, threads):
    """Runs one case in this process, once to warm up and at least twice more."""
    sys.path.insert(0, peers)
    import torch
    import torch_bench
    torch.set_num_threads(threads)
    idle, times = torch_bench.peak_mb(), []
    with torch.inference_mode():
        step = torch_bench.build(case, variant)
        step()
        while len(times) < 2 or (len(times) < 100 and sum(times) < 1):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
    print(json.dumps({"min_s": min(times), "peak_rss_mb": torch_bench.peak_mb(), "idle_rss_mb": idle}))


def run(command, prefix):
    out = subprocess.run([*prefix, *map(str, command)], stdout=subprocess.PIPE, text=True, check=True).stdout
    point = next(o for o in json_lines(out) if "min_s" in o)
    return {"s": point["min_s"], "mb": point["peak_rss_mb"] - point["idle_rss_mb"], "isa": point.get("isa")}


def theirs(a, case, threads):
    command = [a.python, __file__, "--torch", json.dumps(case), "--peers", a.peers, "--threads", threads, "--variant"]
    return min((run([*command, variant], a.prefix) for variant in ("first", "last")), key=lambda point: point["s"])


def exponent(points):
    """The slope of the least-squares line through the logarithms of (voxels, seconds)."""
    x, y = ([math.log(v) for v in values] for values in zip(*points))
    mx, my = sum(x) / len(x), sum(y) / len(y)
    return sum((u - mx) * (v - my) for u, v in zip(x, y)) / sum((u - mx) ** 2 for u in x)


def table(rows, threads):
    """rows: (size, {side: {threads: point}})."""
    head = ["size", *(f"{side}, {t} thread{'s' * (t > 1)}" for side in ("ours", "torch") for t in threads), "speedup by threads", "ours MB", "torch MB",
            "ratio"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    most = max(threads)
    for n, sides in rows:
        per_voxel = lambda side, t: f"{sides[side][t]['s'] / n ** 3 * 1e9:.1f}" if t in sides[side] else "-"
        ours, torch = sides["ours"][most], sides["torch"].get(most)
        cells = [f"{n}³", *(per_voxel(side, t) for side in ("ours", "torch") for t in threads), f"{sides['ours'][min(threads)]['s'] / ours['s']:.2f}", ours["mb"],
                 torch["mb"] if torch else "-", f"{torch['s'] / ours['s']:.2f}" if torch else "-"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    slopes = []
    for side in ("ours", "torch"):
        for t in threads:
            points = [(n ** 3, sides[side][t]["s"]) for n, sides in rows if t in sides[side]]
            slopes.append(f"{exponent(points):.3f}" if len(points) > 1 else "-")
    lines.append("| exponent | " + " | ".join(slopes) + " | | | | |")
    return "\n".join(lines)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--sizes", nargs="*", type=int, default=[32, 48, 64, 96, 128, 160], help="along each axis; multiples of 8")
    a.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    a.add_argument("--peers", type=pathlib.Path, default=ROOT.parent / "shared" / "peers")
    a.add_argument("--python", default=sys.executable, help="a Python that has torch")
    a.add_argument("--binary", help="the built benchmark `peers`; built here without")
    a.add_argument("--prefix", type=shlex.split, default=[], help="goes before each measured command (taskset, a lock)")
    a.add_argument("--markdown", type=pathlib.Path)
    a.add_argument("--torch", type=json.loads, help=argparse.SUPPRESS)
    a.add_argument("--variant", help=argparse.SUPPRESS)
    a = a.parse_args()
    if a.torch:
        return torch_point(str(a.peers), a.torch, a.variant, a.threads[0])

    binary, isa, text = a.binary or build(), None, []
    for name, (title, case) in CASES.items():
        rows = []
        for n in a.sizes:
            sides = {"ours": {}, "torch": {}}
            for t in a.threads:
                sides["ours"][t] = run([binary, "--case", f"{name}_{n}", "--threads", t, "--seconds", 1], a.prefix)
                isa = sides["ours"][t]["isa"]
                before = rows[-1] if rows else None
                if not before or t in before[1]["torch"] and before[1]["torch"][t]["s"] * (n / before[0]) ** 3 < LIMIT:
                    sides["torch"][t] = theirs(a, case(n), t)
            rows.append((n, sides))
            print(name, n, json.dumps(sides), file=sys.stderr, flush=True)
        text.append(f"## {title}\n\n{table(rows, a.threads)}\n")
    head = (f"Measured {datetime.date.today()} on {cpu_name()} ({', '.join(cpu_flags())}), {os.cpu_count()} cores, instruction set {isa}, by "
            f"`benches/scaling.py`. Times in nanoseconds a voxel. Memory and ratio (PyTorch's time by ours) with {max(a.threads)} threads.\n\n")
    print(head + "\n".join(text))
    if a.markdown:
        a.markdown.write_text(head + "\n".join(text))


if __name__ == "__main__":
    main()
