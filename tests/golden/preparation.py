#!/usr/bin/env python3
"""Writes preparation.json: what SciPy makes of masks (the largest component, filled holes), and NumPy's percentiles.

A mask's values are 0, 1 and 2, row-major, a digit a voxel. The values of the percentiles are (37 i mod 101)², i = 0..100."""
import json
import pathlib

import numpy as np
from scipy import ndimage

HERE = pathlib.Path(__file__).parent
CASES = [([6, 7, 8], 0.08), ([6, 7, 8], 0.2), ([6, 7, 8], 0.35), ([5, 6, 7], 0.85), ([4, 9, 5], 0.75), ([1, 12, 13], 0.3), ([1, 12, 13], 0.75)]


def largest(mask):
    """The largest component over faces, edges and corners; of equal ones that of the first voxel."""
    labels, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    return labels == 1 + np.argmax(np.bincount(labels.ravel(), minlength=count + 1)[1:]) if count else mask


cases = []
for number, (shape, share) in enumerate(CASES):
    values = np.random.default_rng(number).random(shape)
    mask = np.where(values < share, 1, np.where(values > 0.9, 2, 0))
    # A plane is a picture: it has no border before and behind it.
    picture = mask[0] if shape[0] == 1 else mask
    one = picture == 1
    component = np.where(one & ~largest(one), 0, picture)
    filled = np.where(ndimage.binary_fill_holes(one) & (picture == 0), 1, picture)
    digits = lambda array: "".join(map(str, array.ravel()))
    cases.append({"shape": shape, "mask": digits(mask), "largest": digits(component), "filled": digits(filled)})

values = (37 * np.arange(101) % 101) ** 2.0
percents = [0, 0.5, 12.34, 50, 99.5, 100]
result = {"cases": cases, "percents": percents,
          "percentiles": np.percentile(values, percents).tolist()}
(HERE / "preparation.json").write_text(json.dumps(result, indent=1) + "\n")
