#!/usr/bin/env python3
"""What a trained network makes of scans that are stored in other ways: preparation_check.py PROGRAM CHECKPOINT RUN WORK

PROGRAM is `tomograd`, RUN the folder of results of the example `unet3d` that trained CHECKPOINT. Each validation case of
examples/data/hippocampus is written to WORK by nibabel: as it is, as LPS, with axes permuted, in micrometres, as int16 with a
slope, and at 0.7 × 1.3 × 1 mm (by SciPy, linear and cubic). Then `PROGRAM predict` segments all, and the masks are compared
with that of the scan as it is: voxel by voxel in its grid, and by Dice. A mask at 0.7 × 1.3 × 1 mm is brought onto the original's grid
(nearest voxel) for that."""
import pathlib
import subprocess
import sys

import nibabel as nib
import numpy as np
from scipy import ndimage

DATA = pathlib.Path(__file__).parents[2] / "examples/data/hippocampus"
SPACING = np.array([0.7, 1.3, 1.0])


def turned(image, codes):
    start, end = nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes)
    return image.as_reoriented(nib.orientations.ornt_transform(start, end))


def micrometres(image):
    scale = np.diag([1000.0, 1000.0, 1000.0, 1.0])
    other = nib.Nifti1Image(np.asarray(image.dataobj), scale @ image.affine)
    other.header.set_xyzt_units("micron")
    return other


def int16(image):
    values = image.get_fdata()
    slope, offset = (values.max() - values.min()) / 65000, (values.max() + values.min()) / 2
    other = nib.Nifti1Image(np.round((values - offset) / slope).astype(np.int16), image.affine)
    other.header.set_slope_inter(slope, offset)
    return other


def grid(image):
    """Sizes and affine of the grid of SPACING with the same middle."""
    sizes = np.maximum(np.round(np.array(image.shape) / SPACING), 1).astype(int)
    shift = ((np.array(image.shape) - 1) - (sizes - 1) * SPACING) / 2
    step = np.eye(4)
    step[:3, :3], step[:3, 3] = np.diag(SPACING), shift
    return sizes, shift, image.affine @ step


def resampled(image, order):
    sizes, shift, affine = grid(image)
    voxels = ndimage.affine_transform(image.get_fdata(), SPACING, shift, tuple(sizes), order=order, mode="nearest")
    return nib.Nifti1Image(voxels.astype(np.float32), affine)


def onto_original(mask, original):
    """The nearest voxel of a mask on the grid of SPACING for each voxel of the original."""
    _, shift, _ = grid(original)
    voxels = mask.get_fdata()
    place = [np.round((np.arange(n) - s) / p).astype(int).clip(0, m - 1)
             for n, s, p, m in zip(original.shape, shift, SPACING, voxels.shape)]
    return voxels[np.ix_(*place)]


def dice(a, b):
    scores = []
    for label in (1, 2):
        a1, b1 = a == label, b == label
        scores.append(2 * (a1 & b1).sum() / max(a1.sum() + b1.sum(), 1))
    return np.mean(scores)


program, checkpoint, run, work = sys.argv[1:]
work = pathlib.Path(work)
variants = {
    "original": lambda image: image,
    "lps": lambda image: turned(image, "LPS"),
    "permuted": lambda image: turned(image, "SRA"),
    "micrometres": micrometres,
    "int16": int16,
    "linear": lambda image: resampled(image, 1),
    "cubic": lambda image: resampled(image, 3),
}
names = [line.split()[1] + ".nii.gz" for line in open(DATA / "split.txt") if line.startswith("validation")]
for variant, make in variants.items():
    (work / variant).mkdir(parents=True, exist_ok=True)
    for name in names:
        nib.save(make(nib.load(DATA / "images" / name)), work / variant / name)
    inputs = [str(work / variant / name) for name in names]
    subprocess.run([program, "predict", checkpoint, *inputs, "--out", str(work / variant / "masks"), "--overwrite"],
                   check=True, stdout=subprocess.DEVNULL)
# The files of the data set themselves, as the example read them.
inputs = [str(DATA / "images" / name) for name in names]
subprocess.run([program, "predict", checkpoint, *inputs, "--out", str(work / "masks"), "--overwrite"], check=True,
               stdout=subprocess.DEVNULL)
same = sum((work / "masks" / n).read_bytes() == (pathlib.Path(run) / "masks" / n).read_bytes() for n in names)
print(f"masks of the example that are the program's, byte for byte: {same} of {len(names)}")

print("variant       equal voxels (least)   Dice with the original's mask (mean, least)   Dice with the truth")
for variant in variants:
    equal, scores, truths = [], [], []
    for name in names:
        original = nib.load(work / "original/masks" / name)
        image, mask = nib.load(work / variant / name), nib.load(work / variant / "masks" / name)
        assert mask.shape == image.shape and np.allclose(mask.affine, image.affine * 1.0 if variant != "micrometres" else
                                                         np.diag([1e-3, 1e-3, 1e-3, 1]) @ image.affine), name
        voxels = mask.get_fdata()
        if variant in ("lps", "permuted"):
            voxels = turned(mask, "RAS").get_fdata()
        if variant in ("linear", "cubic"):
            voxels = onto_original(mask, original)
        equal.append(np.mean(voxels == original.get_fdata()))
        scores.append(dice(voxels, original.get_fdata()))
        truths.append(dice(voxels, nib.load(DATA / "labels" / name).get_fdata()))
    print(f"{variant:12}  {min(equal):20.6f}   {np.mean(scores):.4f} {min(scores):38.4f}   {np.mean(truths):.4f}")
