#!/usr/bin/env python3
"""Reading volumes: this project beside nibabel and SimpleITK, on the same files, interleaved; the least of the rounds counts.

    cargo bench -p tomograd-io --bench reading --no-run      # prints the path of the program
    python benches/reading.py PROGRAM > benches/results/reading.md
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import nibabel as nib
import numpy as np
import SimpleITK as sitk

ROUNDS = 7


def scan(size):
    """A head-like volume: smooth structures and noise on half of the voxels, zeros around it."""
    rng = np.random.default_rng(1)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 3, indexing="ij")
    inside = x**2 + y**2 + z**2 < 0.9
    values = 600 + 300 * np.sin(9 * x) * np.cos(7 * y) * np.sin(5 * z) + rng.normal(0, 12, x.shape)
    return np.where(inside, values, 0).astype(np.int16)


def timed(function):
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        files = []
        data = scan(256)
        for name, img in (
            ("256³ int16, .nii.gz", nib.Nifti1Image(data, np.eye(4))),
            ("256³ float32, .nii.gz", nib.Nifti1Image(data.astype(np.float32) / 7, np.eye(4))),
            ("256³ labels uint8, .nii.gz", nib.Nifti1Image((data > 700).astype(np.uint8) + (data > 0), np.eye(4))),
        ):
            path = folder / f"{len(files)}.nii.gz"
            nib.save(img, path)
            files.append((name, path))
        img = sitk.GetImageFromArray(data)
        for name, ending, compressed in (("256³ int16, .nii", "nii", False), ("256³ int16, .nrrd (gzip)", "nrrd", True), ("256³ int16, .mha (zlib)", "mha", True)):
            path = folder / f"{len(files)}.{ending}"
            sitk.WriteImage(img, str(path), compressed)
            files.append((name, path))
        times = {name: {"tomograd": [], "nibabel": [], "SimpleITK": []} for name, _ in files}
        for _ in range(ROUNDS):
            for name, path in files:
                lines = subprocess.run([program, "1", path], capture_output=True, text=True, check=True).stdout
                times[name]["tomograd"] += json.loads(lines)["seconds"]
                if ".nii" in path.name:
                    # get_fdata would make f64 of it: the stored numbers are less work. A file that isn't compressed is mapped.
                    read = lambda: np.asanyarray(nib.load(path).dataobj)
                    times[name]["nibabel"].append(timed(read if path.suffix == ".gz" else lambda: read().copy()))
                times[name]["SimpleITK"].append(timed(lambda: sitk.ReadImage(str(path))))
    print("# Reading volumes\n")
    print(f"`benches/reading.py`: the least of {ROUNDS} interleaved rounds, milliseconds; nibabel {nib.__version__}, SimpleITK "
          f"{sitk.Version_VersionString()}, {os.cpu_count()} cores. tomograd also checks the checksums and widens int16 to i32; nibabel and SimpleITK keep "
          "the stored type.\n")
    print("| file | tomograd | nibabel | SimpleITK | nibabel ÷ tomograd | SimpleITK ÷ tomograd |\n|---|---|---|---|---|---|")
    for name, by in times.items():
        ours, theirs, itk = (min(by[who], default=None) for who in ("tomograd", "nibabel", "SimpleITK"))
        ms = lambda t: f"{1e3 * t:.0f}" if t else "–"
        ratio = lambda t: f"{t / ours:.2f}" if t else "–"
        print(f"| {name} | {ms(ours)} | {ms(theirs)} | {ms(itk)} | {ratio(theirs)} | {ratio(itk)} |")


if __name__ == "__main__":
    main()
