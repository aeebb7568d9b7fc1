#!/usr/bin/env python3
"""Writes alignment/: one image, and its label as nibabel turns it; after turning back each label is that of `straight`.

The label's value at voxel (i, j, k) of the image is (7 i + 3 j + k) % 5."""
import pathlib

import nibabel as nib
import numpy as np

HERE = pathlib.Path(__file__).parent / "alignment"
SHAPE = (4, 3, 5)
# Oblique, with voxels of three sizes.
AFFINE = np.array([[0.9, -0.3, 0.2, -20], [0.25, 1.9, 0.35, 31], [-0.1, -0.5, 2.8, 7.5], [0, 0, 0, 1]])

i, j, k = np.indices(SHAPE)
image = nib.Nifti1Image((i + 10 * j + 100 * k).astype(np.int16), AFFINE)
label = nib.Nifti1Image(((7 * i + 3 * j + k) % 5).astype(np.uint8), AFFINE)
turns = {"straight": ((0, 1), (1, 1), (2, 1)), "mirrored": ((0, -1), (1, 1), (2, 1)), "cycled": ((1, 1), (2, 1), (0, 1)),
         "swapped": ((2, 1), (1, -1), (0, -1)), "half_turn": ((0, -1), (1, -1), (2, 1))}
for part in ("images", "labels"):
    (HERE / part).mkdir(parents=True, exist_ok=True)
for name, turn in turns.items():
    nib.save(image, HERE / "images" / f"{name}.nii")
    turned = label.as_reoriented(np.array(turn))
    nib.save(turned, HERE / "labels" / f"{name}.nii")
