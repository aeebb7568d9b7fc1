"""Compares `tomograd evaluate` with NumPy, SciPy, SimpleITK and MONAI.

    evaluate_check.py PROGRAM LABELS FOLDER

LABELS holds masks with the labels 1 and 2 (Medical Segmentation Decathlon, hippocampus). FOLDER gets perturbed copies of them,
with anisotropic spacing, lost classes and empty masks among them. Prints the largest difference of each quantity.
"""

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage

program, labels, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
TOLERANCE = 1.0
random = np.random.default_rng(0)
for part in ("truth", "masks", "images"):
    (folder / part).mkdir(parents=True, exist_ok=True)

spacings = [(1.0, 1.0, 1.0), (0.7, 0.9, 2.5), (2.0, 1.1, 0.4)]
files = sorted(labels.glob("*.nii.gz"))[:24]
for number, file in enumerate(files):
    truth = np.asarray(nibabel.load(file).dataobj).astype(np.uint8)
    affine = np.diag([*spacings[number % 3], 1.0])
    mask = np.roll(truth, random.integers(-2, 3, 3), (0, 1, 2))
    if number % 4 == 1:
        mask = np.where(ndimage.binary_erosion(mask > 0), mask, 0).astype(np.uint8)
    if number == 5:
        mask[mask == 2] = 0
    if number == 9:
        mask[:] = 0
    if number == 11:
        truth[truth == 1] = 0
        mask[mask == 1] = 0
    nibabel.save(nibabel.Nifti1Image(truth, affine), folder / "truth" / file.name)
    nibabel.save(nibabel.Nifti1Image(mask, affine), folder / "masks" / file.name)
    image = np.asarray(nibabel.load(labels.parent / "images" / file.name).dataobj)
    nibabel.save(nibabel.Nifti1Image(image, affine), folder / "images" / file.name)

arguments = [program, "evaluate", folder / "masks", folder / "truth", "--json", "--tolerance", str(TOLERANCE)]
arguments += ["--images", folder / "images", "--html", folder / "report.html", "--names", "anterior,posterior"]
arguments += ["--labels", "1,2", "--force"]
said = json.loads(subprocess.run(arguments, check=True, capture_output=True).stdout)

worst, undefined = {}, 0


def compare(name, found, expected):
    global undefined
    if found is None or not np.isfinite(expected):
        assert found is None and not np.isfinite(expected), (name, found, expected)
        undefined += 1
        return
    worst[name] = max(worst.get(name, 0.0), abs(found - expected))


matrix = np.zeros((3, 3), int)
differences = {1: [], 2: []}
dice_of = {1: [], 2: []}
for case in said["cases"]:
    truth_image, mask_image = (sitk.ReadImage(str(folder / part / f"{case['case']}.nii.gz")) for part in ("truth", "masks"))
    truth, mask = (sitk.GetArrayFromImage(image) for image in (truth_image, mask_image))
    spacing = truth_image.GetSpacing()[::-1]
    np.add.at(matrix, (truth.ravel(), mask.ravel()), 1)
    for label, name in ((1, "anterior"), (2, "posterior")):
        found = case["classes"][name]
        p, t = mask == label, truth == label
        with np.errstate(invalid="ignore"):
            dice = np.float64(2 * (p & t).sum()) / (p.sum() + t.sum())
            compare("dice (NumPy)", found["dice"], dice)
            compare("IoU (NumPy)", found["iou"], np.float64((p & t).sum()) / (p | t).sum())
        ml = np.prod(spacing) / 1000
        compare("volumes (NumPy)", found["volume_ml"], p.sum() * ml)
        compare("volumes (NumPy)", found["true_volume_ml"], t.sum() * ml)
        if p.any() or t.any():
            differences[label].append((p.sum() - t.sum()) * ml)
            dice_of[label].append(dice)
        if not (p.any() and t.any()):
            assert found["hd95"] is None and found["surface_dice"] in (None, 0)
            undefined += 1
            continue
        overlap = sitk.LabelOverlapMeasuresImageFilter()
        overlap.Execute(sitk.Cast(truth_image == label, sitk.sitkUInt8), sitk.Cast(mask_image == label, sitk.sitkUInt8))
        compare("dice (SimpleITK)", found["dice"], overlap.GetDiceCoefficient())
        # Surfaces: voxels with a face neighbour outside, and outside of the image is outside.
        surfaces = [m & ~ndimage.binary_erosion(m) for m in (p, t)]
        far = [ndimage.distance_transform_edt(~s, sampling=spacing) for s in surfaces]
        there, back = far[1][surfaces[0]], far[0][surfaces[1]]
        compare("HD95 (SciPy)", found["hd95"], max(np.percentile(there, 95), np.percentile(back, 95)))
        both = np.concatenate([there, back])
        compare("ASSD (SciPy)", found["assd"], both.mean())
        compare("surface Dice (SciPy)", found["surface_dice"], (both <= TOLERANCE).mean())
        one_hot = [torch.tensor(np.stack([~m, m])[None].astype(np.float32)) for m in (p, t)]
        touches = any(m[face].any() for m in (p, t) for face in (0, -1)) or any(
            np.take(m, at, axis).any() for m in (p, t) for axis in (1, 2) for at in (0, -1)
        )
        # MONAI's surface of a mask that touches the border of the image is another.
        if not touches:
            hd = compute_hausdorff_distance(*one_hot, percentile=95, spacing=list(spacing)).item()
            compare("HD95 (MONAI)", found["hd95"], hd)
            nsd = compute_surface_dice(*one_hot, class_thresholds=[TOLERANCE], spacing=list(spacing)).item()
            compare("surface Dice (MONAI)", found["surface_dice"], nsd)

assert said["confusion"]["voxels_by_truth_and_prediction"] == matrix.tolist()
for stats in said["classes"]:
    d = np.array(differences[stats["label"]])
    agreement = stats["volume_difference_ml"]
    compare("Bland-Altman (NumPy)", agreement["bias"], d.mean())
    for limit, sign in zip(agreement["limits_of_agreement"], (-1, 1)):
        compare("Bland-Altman (NumPy)", limit, d.mean() + sign * 1.96 * d.std(ddof=1))
    dice = np.array(dice_of[stats["label"]])
    compare("quartiles (NumPy)", stats["quantities"]["dice"]["median"], np.median(dice))
    for value, q in zip(stats["quantities"]["dice"]["quartiles"], (25, 75)):
        compare("quartiles (NumPy)", value, np.percentile(dice, q))
    # Another generator draws other cases: the intervals agree to the error of 2000 draws.
    draws = random.choice(dice, (20000, len(dice))).mean(axis=1)
    for value, q in zip(stats["quantities"]["dice"]["interval"], (2.5, 97.5)):
        compare("bootstrap interval (NumPy, other draws)", value, np.percentile(draws, q))

print(f"{len(said['cases'])} cases, {undefined} undefined values agree, confusion of {matrix.sum()} voxels equal")
for name, difference in worst.items():
    print(f"{name:42} largest difference {difference:.2e}")
# MONAI computes in f32.
assert all(value < (0.01 if "draws" in name else 1e-5 if "MONAI" in name else 1e-12) for name, value in worst.items())
