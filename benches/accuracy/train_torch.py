#!/usr/bin/env python3
"""The example `unet3d` in PyTorch: the same network, data, augmentation, loss, optimizer and schedule.

    benches/accuracy/train_torch.py --data DIR --out DIR [--epochs N] [--widths C,C,...] [--threads N] [--seed S]
                                    [--format first|last] [--peers DIR]

Writes epochs.csv (epoch, loss, seconds a step, Dice of each class where it was measured) and metrics.csv (Dice of each
validation case with the last weights), as the example does. The network and the loss are those of torch_bench.py in the
peers folder. Needs torch, numpy, scipy and nibabel.
"""
import argparse
import csv
import math
import pathlib
import sys
import time

import nibabel
import numpy as np
import torch
from scipy.ndimage import map_coordinates
from torch.utils.data import DataLoader, Dataset

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLASSES, NAMES = 3, ("anterior", "posterior")
PATCH, BATCH, RATE = (40, 56, 40), 2, 3e-3


def read(path):
    """Voxels (D, H, W); every spacing of this data set is 1 mm."""
    file = nibabel.load(path)
    assert np.allclose(file.header.get_zooms(), 1), path
    return np.ascontiguousarray(np.asarray(file.dataobj, np.float32).T)


def z_score(image):
    image -= image.mean(dtype=np.float64)
    image /= image.std(dtype=np.float64)
    return image


def rotation(axis, angle):
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = math.cos(angle)
    matrix[first, second], matrix[second, first] = -math.sin(angle), math.sin(angle)
    return matrix


def affine(image, label, random):
    """Rotated and scaled about the centre: the image linearly, the label from the nearest voxel, 0 from outside."""
    angles = np.radians(random.uniform(-15, 15, 3))
    matrix = rotation(0, angles[0]) @ rotation(1, angles[1]) @ rotation(2, angles[2]) / random.uniform(0.85, 1.15)
    shape = np.array(image.shape)
    centre = (shape - 1) / 2
    places = matrix @ (np.indices(image.shape).reshape(3, -1) - centre[:, None]) + centre[:, None]
    inside = ((places >= -0.5) & (places < shape[:, None] - 0.5)).all(0)
    nearest = np.clip(np.floor(places + 0.5).astype(int), 0, shape[:, None] - 1)
    image = map_coordinates(image, places, order=1, mode="nearest") * inside
    return image.reshape(shape).astype(np.float32), (label[tuple(nearest)] * inside).reshape(shape)


def common(start, size, shape):
    """What a window at `start` has in common with an array, as slices of the array and of the window."""
    inside = [slice(max(s, 0), min(s + n, whole)) for s, n, whole in zip(start, size, shape)]
    return tuple(inside), tuple(slice(part.start - s, part.stop - s) for part, s in zip(inside, start))


def window(array, start, size):
    """The window that begins at `start`, zeros outside of the array."""
    inside, place = common(start, size, array.shape)
    out = np.zeros(size, array.dtype)
    out[place] = array[inside]
    return out


def crop_or_pad(image, label, random):
    """A random window along axes longer than the patch; shorter ones are filled with 0, the same on both sides."""
    room = np.array(image.shape) - PATCH
    start = [int(random.integers(r + 1)) if r >= 0 else -(-r // 2) for r in room]
    return window(image, start, PATCH), window(label, start, PATCH)


def augment(image, label, random):
    if random.random() < 0.3:
        image, label = affine(image, label, random)
    image, label = crop_or_pad(image, label, random)
    if random.random() < 0.5:
        image, label = image[:, :, ::-1], label[:, :, ::-1]
    if random.random() < 0.15:
        image = image * np.float32(random.uniform(0.75, 1.25))
    if random.random() < 0.1:
        image = image + (random.uniform(0, 0.1) * random.standard_normal(image.shape)).astype(np.float32)
    return np.ascontiguousarray(image), np.ascontiguousarray(label)


class Cases(Dataset):
    """z-scored images and labels, kept in memory. An item is (epoch, case): what it draws depends on these and the seed."""

    def __init__(self, folder, names, seed):
        self.images = [z_score(read(folder / "images" / name)) for name in names]
        self.labels = [read(folder / "labels" / name).astype(np.int64) for name in names]
        self.names, self.seed = names, seed

    def __getitem__(self, item):
        epoch, case = item
        image, label = augment(self.images[case], self.labels[case], np.random.default_rng([self.seed, epoch, case]))
        return torch.from_numpy(image)[None], torch.from_numpy(label)


def axis_windows(size, patch, overlap):
    """First voxel and weights (Gaussian, a deviation of an eighth of the patch) of the windows along one axis."""
    room = size - patch
    if room < 0:
        starts = [-(-room // 2)]
    else:
        gaps = math.ceil(room / max(patch * (1 - overlap), 1))
        starts = [math.floor(i * room / max(gaps, 1) + 0.5) for i in range(gaps + 1)]
    return starts, np.exp(-0.5 * ((np.arange(patch) - (patch - 1) / 2) * 8 / patch) ** 2)


def sliding_window(net, image, classes, patch, overlap=0.5):
    """The logits (K, D, H, W) of an image (D, H, W): the sums of weighted windows, and of weights, over the whole volume."""
    axes = [axis_windows(*pair, overlap) for pair in zip(image.shape, patch)]
    weight = torch.from_numpy(np.einsum("i,j,k", *(w for _, w in axes)).astype(np.float32))
    sums, count = torch.zeros(classes, *image.shape), torch.zeros(image.shape)
    for start in [(z, y, x) for z in axes[0][0] for y in axes[1][0] for x in axes[2][0]]:
        logits = net(torch.from_numpy(window(image, start, patch))[None, None])[0]
        inside, place = common(start, patch, image.shape)
        sums[(slice(None), *inside)] += (logits * weight)[(slice(None), *place)]
        count[inside] += weight[place]
    return sums.div_(count)


def dice(prediction, truth):
    """Of each foreground class; NaN when it is in neither."""
    masks = [(prediction == c, truth == c) for c in range(1, CLASSES)]
    return [2 * (p & t).sum() / (p.sum() + t.sum()) if (p | t).any() else math.nan for p, t in masks]


def validate(net, cases):
    net.eval()
    with torch.inference_mode():
        found = [dice(sliding_window(net, image, CLASSES, PATCH).argmax(0).numpy(), label)
                 for image, label in zip(cases.images, cases.labels)]
    net.train()
    return np.array(found)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--data", type=pathlib.Path, required=True, help="folder with images/ and labels/")
    a.add_argument("--out", type=pathlib.Path, required=True)
    a.add_argument("--epochs", type=int, default=40)
    a.add_argument("--widths", default="16,32,64,128")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--format", choices=("first", "last"), default="first",
                   help="memory format; channels first is the faster one for these patches")
    a.add_argument("--peers", type=pathlib.Path, default=ROOT.parent / "shared" / "peers")
    a = a.parse_args()
    sys.path.insert(0, str(a.peers))
    from torch_bench import UNet3d, dice_ce

    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    a.out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    # The fixed split: of the names in sorted order, those with index % 5 == 4 validate.
    names = sorted(path.name for path in (a.data / "images").iterdir() if not path.name.startswith("."))
    train = Cases(a.data, [n for i, n in enumerate(names) if i % 5 != 4], a.seed)
    validation = Cases(a.data, names[4::5], a.seed)
    steps = len(train.names) // BATCH
    total = steps * a.epochs

    net = UNet3d(CLASSES, tuple(int(width) for width in a.widths.split(",")))
    memory = torch.channels_last_3d if a.format == "last" else torch.contiguous_format
    net = net.to(memory_format=memory)
    matrices = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 1e-2}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total, cycle_momentum=False)
    print(f"{sum(p.numel() for p in net.parameters())} parameters, {len(train.names)} training and "
          f"{len(validation.names)} validation cases, {total} steps", flush=True)

    # The batches of all epochs, so that one process prepares them from the first step to the last.
    orders = [np.random.default_rng([a.seed, epoch]).permutation(len(train.names)) for epoch in range(a.epochs)]
    batches = [[(epoch, int(case)) for case in order[step * BATCH:][:BATCH]]
               for epoch, order in enumerate(orders) for step in range(steps)]
    loader = iter(DataLoader(train, batch_sampler=batches, num_workers=1))
    with open(a.out / "epochs.csv", "w", newline="") as file:
        log = csv.writer(file, lineterminator="\n")
        log.writerow(["epoch", "loss", "step_seconds", *NAMES])
        for epoch in range(a.epochs):
            losses, start = [], time.perf_counter()
            for _ in range(steps):
                image, label = next(loader)
                optimizer.zero_grad()
                loss = dice_ce(net(image.to(memory_format=memory)), label)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(net.parameters(), 12.0)
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
            seconds = (time.perf_counter() - start) / steps
            measured = validate(net, validation) if epoch % 4 == 3 or epoch + 1 == a.epochs else None
            means = ["", ""] if measured is None else list(np.nanmean(measured, 0))
            log.writerow([epoch + 1, np.mean(losses), seconds, *means])
            file.flush()
            text = "" if measured is None else f"  validation Dice {np.mean(means):.4f}"
            print(f"epoch {epoch + 1:>3}  loss {np.mean(losses):.4f}{text}  {time.perf_counter() - begin:.0f} s", flush=True)
    with open(a.out / "metrics.csv", "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["case", "class", "dice"])
        table.writerows([name.split(".")[0], c, d] for name, case in zip(validation.names, measured) for c, d in zip(NAMES, case))


if __name__ == "__main__":
    main()
