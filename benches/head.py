#!/usr/bin/env python3
"""A sliding window over a whole head, beside PyTorch with sums of logits and weights over the whole volume, as markdown.

    benches/head.py IMAGE [--classes K ...] [--overlap PART] [--threads N] [--peers DIR] [--python PATH] [--binary FILE]
                    [--prefix COMMAND] [--markdown FILE]

Both sides z-score the image, predict windows of 64³ with the 3D U-Net (widths 32 to 256, random weights), blend the logits by the
same Gaussian weights, and end with a label for each voxel. Needs what compare.py and accuracy/train_torch.py need.
"""
import argparse
import datetime
import json
import pathlib
import shlex
import subprocess
import sys
import time

from compare import ROOT, build, cpu_flags, cpu_name, json_lines

PATCH = (64, 64, 64)


def torch_run(a):
    """Prints what one run in this process took."""
    sys.path += [str(a.peers), str(ROOT / "benches" / "accuracy")]
    import torch
    import torch_bench
    import train_torch
    torch.set_num_threads(a.threads)
    idle = torch_bench.peak_mb()
    image, net = train_torch.z_score(train_torch.read(a.image)), torch_bench.UNet3d(a.classes[0]).eval()
    start = time.perf_counter()
    with torch.inference_mode():
        train_torch.sliding_window(net, image, a.classes[0], PATCH, a.overlap).argmax(0).to(torch.uint8)
    print(json.dumps({"seconds": time.perf_counter() - start, "peak_rss_mb": torch_bench.peak_mb(), "idle_rss_mb": idle}))


def run(command, prefix):
    out = subprocess.run([*prefix, *map(str, command)], stdout=subprocess.PIPE, text=True, check=True).stdout
    return next(json_lines(out))


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("image", type=pathlib.Path)
    a.add_argument("--classes", nargs="*", type=int, default=[3, 104])
    a.add_argument("--overlap", type=float, default=0.25)
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--peers", type=pathlib.Path, default=ROOT.parent / "shared" / "peers")
    a.add_argument("--python", default=sys.executable, help="a Python that has torch")
    a.add_argument("--binary", help="the built benchmark `head`; built here without")
    a.add_argument("--prefix", type=shlex.split, default=[], help="goes before each measured command (taskset, a lock)")
    a.add_argument("--markdown", type=pathlib.Path)
    a.add_argument("--torch", action="store_true", help=argparse.SUPPRESS)
    a = a.parse_args()
    if a.torch:
        return torch_run(a)

    binary, lines = a.binary or build("head"), []
    for classes in a.classes:
        options = [a.image, "--overlap", a.overlap, "--threads", a.threads, "--classes", classes]
        ours = run([binary, *options], a.prefix)
        theirs = run([a.python, __file__, *options, "--peers", a.peers, "--torch"], a.prefix)
        voxels = ours["image_bytes"] // 4
        slab, whole = ours["bound_bytes"] - ours["network_bytes"], 4 * voxels * (classes + 1)
        rss = [side["peak_rss_mb"] - side["idle_rss_mb"] for side in (ours, theirs)]
        beside = ours["seconds"] / ours["network_seconds"] - 1
        mb = lambda size: f"{size / 2 ** 20:.0f}"
        lines += [f"| {classes} | tomograd | {ours['seconds']:.1f} | {beside:.1%} | {mb(slab)} | {mb(ours['network_bytes'])} | {mb(ours['peak_bytes'])} | {rss[0]} |",
                  f"| {classes} | PyTorch, whole logits | {theirs['seconds']:.1f} | - | {mb(whole)} | - | - | {rss[1]} |"]
        print(*lines[-2:], sep="\n", file=sys.stderr, flush=True)
    text = (f"Measured {datetime.date.today()} on {cpu_name()} ({', '.join(cpu_flags())}), {a.threads} threads, by `benches/head.py`.\n\n"
            f"An image of {' × '.join(map(str, ours['shape']))} voxels ({mb(ours['image_bytes'])} MB in f32), {ours['windows']} windows of 64³ that overlap by "
            f"{a.overlap:g}, the 3D U-Net of widths 32 to 256. MB are MiB.\n\n"
            "| classes | | seconds | beside the network | accumulators, windows and labels MB | network MB | pool's peak MB | resident MB |\n|---:|---|---:|---:|---:|---:|---:|---:|\n"
            + "\n".join(lines) + "\n\n"
            "*beside the network* is the rest of the time (cutting windows, adding logits, labels) by the network's. The first MB of this project is `SlidingWindow::memory_bound`, D H W + 4 K d H W + 4 (C + K) d h w bytes: a slab of logits as thick as a window, one "
            "window in flight, and the labels. PyTorch's is 4 (K + 1) D H W, the sums of logits and weights over the whole volume alone. *network* is what the "
            "network takes for one window, *pool's peak* what both took together beside the image, rounded up as the pool does. *resident* is peak minus idle, with "
            "the image and its file.\n")
    print(text)
    if a.markdown:
        a.markdown.write_text(text)


if __name__ == "__main__":
    main()
