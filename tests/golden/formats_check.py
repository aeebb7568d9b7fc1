#!/usr/bin/env python3
"""Converts every file of formats/ by `tomograd convert` into every format that it writes, and compares what SimpleITK reads in the
result with what it reads in the original: voxels to the bit, affine to 1e-12 mm (from TIFF and in NIfTI 1e-5).

    python formats_check.py PROGRAM > ../../benches/results/formats_check.txt

Exit code 1 if anything differs.
"""
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import SimpleITK as sitk

HERE = pathlib.Path(__file__).parent / "formats"
WRITTEN = ("nii", "nii.gz", "nrrd", "nhdr", "mha", "mhd", "tif", "png")
# SimpleITK reads these otherwise than their writer: see format_files.py.
OTHERWISE = {"tifffile_tiles.tif": "ITK turns it upside down", "tifffile_imagej.tif": "ITK doesn't know the distance of its pages",
             "tifffile_float64.tif": "ITK doesn't read it", "itk_colour.jpg": "ITK doesn't interpolate its colours",
             "itk_grey.jpg": "decoders of JPEG round differently"}


def read(path):
    """Voxels (numbers of a voxel or volumes of a series last, z, y, x), and the affine in LPS."""
    img = sitk.ReadImage(str(path))
    values = sitk.GetArrayFromImage(img)
    n = img.GetDimension()
    if np.iscomplexobj(values):
        values = np.stack([values.real, values.imag], -1)
    elif n == 4:
        values = np.moveaxis(values, 0, -1)  # a series, as the numbers of a voxel
    if n == 2:
        values = values[None]
    affine, k = np.eye(4), min(n, 3)
    affine[:k, :k] = (np.reshape(img.GetDirection(), (n, n)) @ np.diag(img.GetSpacing()))[:k, :k]
    affine[:k, 3] = img.GetOrigin()[:k]
    return values, affine


def compare(original, written):
    (a, m), (b, n) = read(original), read(written)
    if a.shape != b.shape:
        return f"shape {a.shape} {b.shape}"
    if not np.array_equal(a, b, equal_nan=True):
        return f"{(a != b).sum()} voxels differ"
    if written.suffix == ".png":
        return ""  # ITK doesn't read the size of its pixels
    if written.suffix == ".tif":
        # It holds the size of a pixel alone.
        return "" if np.allclose(np.linalg.norm(m, axis=0)[:2], np.linalg.norm(n, axis=0)[:2], rtol=1e-3) else "spacing"
    # Headers of NIfTI hold 32 bits, and ITK computes the resolution of TIFF in them.
    single = written.name.endswith((".nii", ".nii.gz")) or original.suffix == ".tif"
    return "" if np.allclose(m, n, rtol=0, atol=1e-5 if single else 1e-12) else f"affine {m.tolist()} {n.tolist()}"


def main():
    program, wrong = sys.argv[1], 0
    version = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.strip()
    print(f"{version}, SimpleITK {sitk.Version_VersionString()}: files written by `tomograd convert`, read by SimpleITK")
    print("equal: voxels to the bit and the affine (.tif: the size of a pixel; .png: voxels). refused: by the program, as the format can't hold it.\n")
    originals = sorted(p for p in HERE.iterdir() if p.suffix in (".nrrd", ".nhdr", ".mha", ".mhd", ".tif", ".png", ".jpg"))
    totals = {}
    with tempfile.TemporaryDirectory() as folder:
        for ending in WRITTEN:
            counts = {"equal": 0, "refused": 0, "wrong": 0}
            for original in originals:
                if original.name in OTHERWISE:
                    continue
                for more in ([], ["--uncompressed"]):
                    # A folder for each: SimpleITK, asked for a.nii.gz, reads an a.nii beside it.
                    out = pathlib.Path(folder) / ending.replace(".", "_") / f"a.{ending}"
                    out.parent.mkdir(exist_ok=True)
                    run = subprocess.run([program, "convert", original, out, "--force", *more], capture_output=True, text=True)
                    if run.returncode != 0:
                        said = run.stderr.strip().splitlines()
                        ok = run.returncode == 1 and len(said) == 1 and ending in ("tif", "png")
                        counts["refused" if ok else "wrong"] += 1
                        if not ok:
                            print("WRONG", original.name, ending, run.stderr.strip())
                        continue
                    try:
                        differs = compare(original, out)
                    except RuntimeError as error:
                        differs = "SimpleITK: " + str(error).splitlines()[-1]
                    # ITK has no wide integers in TIFF, and no colours of 32 bits.
                    if differs.startswith("SimpleITK") and ending == "tif":
                        counts["refused"] += 1
                        continue
                    counts["wrong" if differs else "equal"] += 1
                    if differs:
                        print("WRONG", original.name, ending, differs)
            totals[ending] = counts
            wrong += counts["wrong"]
    print("written as   equal  refused  wrong")
    for ending, counts in totals.items():
        print(f"{ending:<10} {counts['equal']:>7} {counts['refused']:>8} {counts['wrong']:>6}")
    print("\nleft out: " + "; ".join(f"{name} ({why})" for name, why in OTHERWISE.items()))
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
