#!/usr/bin/env python3
"""Compares a run of the example `unet3d` with one of train_torch.py, as markdown.

    benches/accuracy/report.py OURS TORCH

Both are folders with epochs.csv and metrics.csv. Seconds a step are the median over the epochs, waiting for data included.
"""
import csv
import math
import pathlib
import statistics
import sys


def rows(folder, name):
    with open(pathlib.Path(folder) / name, newline="") as file:
        return list(csv.DictReader(file))


def number(text):
    return float(text) if text else math.nan


def mean(values):
    return statistics.fmean(v for v in values if not math.isnan(v))


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    epochs = [rows(folder, "epochs.csv") for folder in sys.argv[1:]]
    cases = [{(r["case"], r["class"]): number(r["dice"]) for r in rows(folder, "metrics.csv")} for folder in sys.argv[1:]]
    if cases[0].keys() != cases[1].keys() or len(epochs[0]) != len(epochs[1]):
        sys.exit("report: the runs are of different cases or numbers of epochs")
    classes = list(dict.fromkeys(name for _, name in cases[0]))
    count = len(cases[0]) // len(classes)

    print("| | tomograd | PyTorch | difference |\n|---|---:|---:|---:|")
    found = [[mean(d for (_, n), d in side.items() if n == name) for name in classes] for side in cases]
    for name, ours, theirs in zip([*classes, "mean"], *([*f, mean(f)] for f in found)):
        print(f"| Dice, {name} | {ours:.4f} | {theirs:.4f} | {ours - theirs:+.4f} |")
    last = [float(side[-1]["loss"]) for side in epochs]
    print(f"| loss, last epoch | {last[0]:.4f} | {last[1]:.4f} | {last[0] - last[1]:+.4f} |")
    step = [statistics.median(float(r["step_seconds"]) for r in side) for side in epochs]
    print(f"| seconds a step | {step[0]:.3f} | {step[1]:.3f} | {step[1] / step[0]:.2f} times as fast |")

    per_case = [{case: mean(side[case, name] for name in classes) for case, _ in side} for side in cases]
    differences = [d - per_case[1][case] for case, d in per_case[0].items()]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    print(f"\nDice is the mean over {count} validation cases with the weights of the last step. Case by case, ours minus theirs "
          f"is {statistics.fmean(differences):+.4f}, with a standard error of {error:.4f}.\n")

    print("| epoch | loss | PyTorch | Dice | PyTorch |\n|---:|---:|---:|---:|---:|")
    for ours, theirs in zip(*epochs):
        dice = [mean(number(side[name]) for name in classes) if side[classes[0]] else None for side in (ours, theirs)]
        dice = [f"{d:.4f}" if d is not None else "" for d in dice]
        print(f"| {ours['epoch']} | {float(ours['loss']):.4f} | {float(theirs['loss']):.4f} | {dice[0]} | {dice[1]} |")


if __name__ == "__main__":
    main()
