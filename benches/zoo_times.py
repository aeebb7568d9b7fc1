#!/usr/bin/env python3
"""Times one inference of a preset of each family of the zoo, and its original with PyTorch, for the table of docs/zoo/README.md.

    benches/zoo_times.py [PRESET ...] [--rounds N] [--threads N] [--seconds S] [--python PATH] [--program FILE] [--binary FILE]

The input is that of the table: one image of the size for which the preset was published, or of a usual one (`tomograd zoo show`). The
two sides take turns, one run a process, as in compare.py, whose rules hold: PyTorch is tried in both memory formats, with and
without folded batch norm, and the fastest counts; a side's time is its least, and memory is peak minus idle resident size above the weights.
Families whose original no script in tests/golden registers have this project's figures only. The results go to
benches/results/zoo_times.json after each preset, so that a run can be cut off and gone on with (`--missing`);
`TOMOGRAD_UPDATE=1 cargo test -p tomograd-cli --test zoo the_readme` then writes the table.
"""
import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys

import compare

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE / "results" / "zoo_times.json"
# One a family.
PRESETS = ["plain", "ronneberger2015", "pytorch_unet", "monai_unet_3d", "basic_unet_2d", "basic_unet_plus_plus_2d", "nested_unet",
           "attention_unet_2d", "unet_ct_single_att_dsv", "unet_3plus", "res_unet", "half_unet", "u2netp", "vnet", "segresnet", "dynunet",
           "nnunet_3d_fullres_hippocampus", "brain_tissue", "fcn", "alexnet", "vgg16", "googlenet", "inception_v3", "resnet50",
           "densenet121", "efficientnet_b0", "convnext_tiny", "monai_classifier", "slice_lstm_resnet18", "autoencoder",
           "var_autoencoder", "generator", "discriminator", "patch_discriminator", "multi_scale_patch_discriminator", "regressor",
           "fully_connected"]
VARIANTS = ["first", "first+fold", "last", "last+fold"]


def one_run(preset, shape, variant, threads, seconds):
    """A run of the original in this process, as zoo_torch.py makes it."""
    import torch

    import zoo_torch
    torch.set_num_threads(threads)
    if variant.startswith("last") and len(shape) not in (4, 5):
        sys.exit("no memory format of images")
    with torch.inference_mode():
        step, weights, idle = zoo_torch.build(preset, {"shape": shape}, variant)
        times = zoo_torch.measure(step, seconds)
    print(json.dumps({"case": preset, "peer": f"torch-{torch.__version__}", "variant": variant, "min_s": min(times),
                      "median_s": statistics.median(times), "runs": len(times), "peak_rss_mb": zoo_torch.peak_mb(),
                      "idle_rss_mb": idle, "weights_mb": weights}))


def shape_of(program, preset):
    shown = subprocess.run([program, "zoo", "show", preset, "--json"], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(shown.stdout)["inputs"][0]["shape"]


def measured(a, binary, preset, shape):
    ours, theirs = compare.Side(), {variant: compare.Side() for variant in VARIANTS}
    sizes = ",".join(map(str, shape))
    for _ in range(a.rounds):
        for variant, side in theirs.items():
            side.add([a.python, __file__, preset, "--shape", sizes, "--variant", variant, "--threads", str(a.threads),
                      "--seconds", str(a.seconds)])
        ours.add([binary, "--json", "--case", f"{preset}:{sizes}", "--threads", str(a.threads), "--seconds", str(a.seconds)])
    runs = [side for side in theirs.values() if side.best]
    fastest = min(runs, key=lambda side: side.best["min_s"], default=None)
    # What compare.py subtracts from both.
    weights = next((side.weights_mb for side in runs), 0)
    # Resident sizes are in whole megabytes: less isn't told apart from nothing.
    above = lambda side: side.memory_mb - weights if side.memory_mb is not None and side.memory_mb - weights >= 1 else None
    torch_memory = [above(side) for side in runs if above(side) is not None]
    row = {"shape": shape, "ours_ms": ours.best and ours.best["min_s"] * 1e3, "torch_ms": fastest and fastest.best["min_s"] * 1e3,
           "ours_mb": above(ours), "torch_mb": min(torch_memory, default=None), "torch_variant": fastest and fastest.best["variant"],
           "date": datetime.date.today().isoformat()}
    if not runs:
        # Without an original, nothing says what the weights take: they are this project's file, in f32.
        row["ours_mb"] = None
    for side, error in (("ours_error", ours.error), ("torch_error", None if runs else theirs["first"].error)):
        if error:
            row[side] = error
    return row, next((side.best["peer"] for side in runs), None)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("presets", nargs="*", metavar="PRESET", help="all of the list in this file without one")
    a.add_argument("--missing", action="store_true", help="leaves out what the results have already")
    a.add_argument("--rounds", type=int, default=2)
    a.add_argument("--threads", type=int, default=os.cpu_count())
    a.add_argument("--seconds", type=float, default=1.0, help="of each run")
    a.add_argument("--python", default=sys.executable, help="a Python that has torch, torchvision, timm, monai, ...")
    a.add_argument("--program", default=str(compare.ROOT / "target/release/tomograd"))
    a.add_argument("--binary", help="the built benchmark `zoo`; built here without")
    a.add_argument("--shape", help=argparse.SUPPRESS)
    a.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    a = a.parse_args()
    if a.variant:
        return one_run(a.presets[0], [int(size) for size in a.shape.split(",")], a.variant, a.threads, a.seconds)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    rows = results.get("presets", {})
    binary = a.binary or compare.build("zoo")
    chosen = [preset for preset in a.presets or PRESETS if not (a.missing and preset in rows)]
    for preset in chosen:
        rows[preset], peer = measured(a, binary, preset, shape_of(a.program, preset))
        results |= {"cpu": compare.cpu_name(), "threads": a.threads, "presets": rows} | ({"peer": peer} if peer else {})
        lines = [f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(rows.items())]
        head = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(results.items()) if key != "presets"]
        body = ' "presets": {\n' + ",\n".join(lines) + "\n }"
        RESULTS.write_text("{\n" + ",\n".join([*head, body]) + "\n}\n")
        print(preset, json.dumps(rows[preset]), flush=True)


if __name__ == "__main__":
    main()
