#!/usr/bin/env python3
"""Volumes: this project beside nibabel, SimpleITK, pydicom, MONAI and dcm2niix on the same files, interleaved; the least of the rounds counts.

    cargo build --release -p tomograd-cli && cargo bench -p tomograd-cli --bench volumes --no-run   # prints the path of the benchmark
    [ROUNDS=7] python benches/volumes.py BENCHMARK target/release/tomograd HEAD.nii.gz > benches/results/volumes.md

HEAD is a head of 256³ voxels, uint8. The benchmark is a program that stays, as Python does, so that nobody's start is counted; where a
program is compared with dcm2niix, both are started.
"""
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

import dcm2niix
import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
import torch
from monai.metrics import compute_hausdorff_distance
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

ROUNDS = int(os.environ.get("ROUNDS", 7))
BENCHMARK, PROGRAM, HEAD = sys.argv[1:4]


class Ours:
    """This project's side."""

    def __init__(self):
        self.process = subprocess.Popen([BENCHMARK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, *words):
        self.process.stdin.write("\t".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            sys.exit(answer["error"])
        return answer["seconds"], answer["number"]


def timed(work, number=lambda _: None):
    """The seconds of `work`, and what `number` says of its result."""
    begun = time.perf_counter()
    made = work()
    seconds = time.perf_counter() - begun
    return seconds, number(made)


def scanner(head):
    """The head as a scanner gives it: 12 bits, noise in the object and faint noise around it."""
    rng = np.random.default_rng(0)
    inside = np.clip(head.astype(np.float32) * 5 + rng.normal(0, 6, head.shape), 0, 4095)
    around = rng.integers(0, 8, head.shape) * (rng.random(head.shape) < 0.5)
    return np.where(head > 0, inside, around).astype(np.int16)


def write_series(folder, voxels):
    """A CT series of one file a slice, uncompressed."""
    folder.mkdir()
    study, series = generate_uid(), generate_uid()
    for k, plane in enumerate(voxels):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        file.StudyInstanceUID, file.SeriesInstanceUID, file.FrameOfReferenceUID = study, series, study
        file.Modality, file.PatientName, file.PatientID, file.InstanceNumber = "CT", "A^B", "1", k + 1
        file.ImagePositionPatient, file.ImageOrientationPatient = [0, 0, 0.7 * k], [1, 0, 0, 0, 1, 0]
        file.PixelSpacing, file.SliceThickness = [0.5, 0.5], 0.7
        file.Rows, file.Columns, file.SamplesPerPixel, file.PhotometricInterpretation = *plane.shape, 1, "MONOCHROME2"
        file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 1
        file.RescaleSlope, file.RescaleIntercept = 1, -1024
        file.PixelData = plane.tobytes()
        file.save_as(folder / f"{k:04}.dcm", enforce_file_format=True)


def itk_series(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def pydicom_series(folder):
    slices = [pydicom.dcmread(path) for path in pathlib.Path(folder).iterdir()]
    slices.sort(key=lambda file: float(file.ImagePositionPatient[2]))
    return np.stack([file.pixel_array * float(file.get("RescaleSlope", 1)) + float(file.get("RescaleIntercept", 0)) for file in slices])


def itk_hd95(masks):
    """Distances between contours by Maurer's distance maps."""
    contours = [sitk.LabelContour(mask) for mask in masks]
    maps = [sitk.Abs(sitk.SignedMaurerDistanceMap(contour, squaredDistance=False, useImageSpacing=True)) for contour in contours]
    there, back = (sitk.GetArrayViewFromImage(maps[i])[sitk.GetArrayViewFromImage(contours[1 - i]) == 1] for i in (1, 0))
    return max(np.percentile(there, 95), np.percentile(back, 95))


def monai_hd95(masks):
    return float(compute_hausdorff_distance(*masks, include_background=True, percentile=95)[0, 0])


def program(*words, output):
    for file in pathlib.Path(output).parent.glob(pathlib.Path(output).name + "*"):
        file.unlink()
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def cases(folder, ours):
    """Each case: its name, and for each side a function that does it once: seconds, and a number that must be the same."""
    head = np.asanyarray(nib.load(HEAD).dataobj).astype(np.uint8)
    assert head.shape == (256, 256, 256), head.shape
    scan = scanner(head)
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    made = {"int16": scan, "uint8": head, "float32": np.where(head > 0, scan / np.float32(7), 0).astype(np.float32), "labels, uint8": head // 64}
    total = lambda array: float(np.sum(array, dtype=np.float64))
    for name, voxels in made.items():
        path = folder / f"{name[:6].strip(',')}{len(name)}.nii.gz"
        nib.save(nib.Nifti1Image(voxels, affine), path)
        yield f"read .nii.gz, 256³ {name}", {
            "tomograd": lambda path=path: ours("read", path),
            "nibabel": lambda path=path: timed(lambda: np.asanyarray(nib.load(path).dataobj), total),
            "SimpleITK": lambda path=path: timed(lambda: sitk.ReadImage(str(path)), lambda image: total(sitk.GetArrayViewFromImage(image))),
        }
    planes = np.repeat(np.repeat(scan[:, :, :200].transpose(2, 1, 0), 2, 1), 2, 2).copy()
    series = folder / "series"
    write_series(series, planes)
    yield "read a DICOM series, 200 files of 512² int16", {
        "tomograd": lambda: ours("series", series),
        "SimpleITK": lambda: timed(lambda: itk_series(series), lambda image: total(sitk.GetArrayViewFromImage(image))),
        "pydicom": lambda: timed(lambda: pydicom_series(series), total),
    }
    out = folder / "out"
    out.mkdir()
    for ending, how in (("nii", "n"), ("nii.gz", "i")):
        yield f"the same series to .{ending}, programs with their start", {
            "tomograd": lambda ending=ending: timed(lambda: program(PROGRAM, "convert", series, out / f"a.{ending}", output=out / "a")),
            "dcm2niix": lambda how=how: timed(lambda: program(dcm2niix.bin, "-z", how, "-b", "n", "-f", "b", "-o", out, series, output=out / "b")),
        }
    image = folder / "image.nii"
    nib.save(nib.Nifti1Image(scan, affine), image)
    itk_image = sitk.Cast(sitk.ReadImage(str(image)), sitk.sitkFloat32)
    for step in (0.75, 1.6):
        count = max(1, round(256 / step))
        grid = sitk.Image([count] * 3, sitk.sitkFloat32)
        grid.SetSpacing([step] * 3)
        grid.SetDirection(itk_image.GetDirection())
        start = (255 - (count - 1) * step) / 2
        grid.SetOrigin(itk_image.TransformContinuousIndexToPhysicalPoint([start] * 3))
        resampled = lambda grid=grid: sitk.Resample(itk_image, grid, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat32)
        yield f"resample 256³ to {count}³, linear", {
            "tomograd": lambda step=step: ours("resample", image, step),
            "SimpleITK": lambda resampled=resampled: timed(resampled, lambda image: total(sitk.GetArrayViewFromImage(image))),
        }
    z, y, x = np.mgrid[0:256, 0:256, 0:256]
    ball = ((x - 128) ** 2 + (y - 128) ** 2 + (z - 128) ** 2 < 90**2).astype(np.uint8)
    other = ((x - 133) ** 2 + (y - 126) ** 2 + ((z - 128) * 1.1) ** 2 < 88**2).astype(np.uint8)
    brain = (head > 60).astype(np.uint8)
    shifted = np.roll(brain, (3, -2, 1), (0, 1, 2))
    for name, pair in (("two ellipsoids", (ball, other)), ("a head's tissue, shifted", (brain, shifted))):
        paths = [folder / f"mask{name[:3]}{i}.nii" for i in range(2)]
        for path, mask in zip(paths, pair):
            nib.save(nib.Nifti1Image(mask, affine), path)
        images = [sitk.ReadImage(str(path)) for path in paths]
        tensors = [torch.from_numpy(mask.copy())[None, None] for mask in pair]
        yield f"HD95 of 256³ masks: {name}", {
            "tomograd": lambda paths=paths: ours("hd95", *paths),
            "SimpleITK": lambda images=images: timed(lambda: itk_hd95(images), float),
            "MONAI": lambda tensors=tensors: timed(lambda: monai_hd95(tensors), float),
        }


def main():
    os.environ.pop("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", None)
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("nibabel", "SimpleITK", "pydicom", "monai", "dcm2niix")]
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    print("# Volumes\n")
    print(f"`benches/volumes.py`: the least of {ROUNDS} interleaved rounds, milliseconds, and each other's time by this project's. {model}, "
          f"{os.cpu_count()} cores, {datetime.date.today()}; {', '.join(versions)}, torch {torch.__version__}. All sides may use all cores. tomograd verifies "
          "checksums, widens int16 to i32, and gets its memory from the system anew in each round; HD95 comes with Dice, ASSD, surface Dice and "
          "volumes. nibabel and SimpleITK keep the stored type.\n")
    sides = ["tomograd", "nibabel", "SimpleITK", "pydicom", "MONAI", "dcm2niix"]
    print(f"| job | {' | '.join(sides)} | fastest other ÷ tomograd |\n|---|{'---|' * len(sides)}---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours()
        for name, work in cases(pathlib.Path(folder), ours):
            times, numbers = {side: [] for side in work}, {}
            for _ in range(ROUNDS):
                for side, once in work.items():
                    seconds, numbers[side] = once()
                    times[side].append(seconds)
            said = [number for number in numbers.values() if number is not None]
            if any(abs(number - said[0]) > 1e-4 * (1 + abs(said[0])) for number in said):
                print(f"\n{name}: the results differ: {numbers}\n")
            least = {side: min(seconds) for side, seconds in times.items()}
            others = [seconds for side, seconds in least.items() if side != "tomograd"]
            row = [f"{1e3 * least[side]:.0f}" if side in least else "–" for side in sides]
            print(f"| {name} | {' | '.join(row)} | {min(others) / least['tomograd']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
