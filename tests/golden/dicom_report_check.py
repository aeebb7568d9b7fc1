#!/usr/bin/env python3
"""Checks `tomograd dicom report` and `capture`: highdicom reads the report, whose measurements are computed here by NumPy and SciPy; pydicom
reads the picture; `dciodvfy` (dicom3tools) is run on both.

    pip install pydicom highdicom scipy nibabel pillow
    python dicom_report_check.py PROGRAM WORK_DIR SERIES_FOLDER...

A CT series is made besides. Exit code 1 if anything differs.
"""
import pathlib
import subprocess
import sys

import highdicom
import nibabel
import numpy as np
import pydicom
from PIL import Image
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from dicom_masks_check import masks_of, run, square, verified

NAMES = ("mean", "deviation", "minimum", "maximum")


def measured(values, mask, affine):
    points = np.argwhere(mask) @ affine[:3, :3].T
    inside = values[mask].astype(np.float64)
    return {"volume": mask.sum() * abs(np.linalg.det(affine[:3, :3])), "diameter": pdist(points[ConvexHull(points).vertices]).max(),
            "mean": inside.mean(), "deviation": inside.std(), "minimum": inside.min(), "maximum": inside.max()}


def ct(folder):
    """Of the oblique series: CT in Hounsfield units."""
    for path in square(folder).iterdir():
        data = pydicom.dcmread(path)
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        data.Modality, data.RescaleSlope, data.RescaleIntercept, data.RescaleType = "CT", 1, -1024, "HU"
        random = np.random.default_rng(data.InstanceNumber)
        data.PixelData = random.integers(0, 3000, (48, 48)).astype(np.uint16).tobytes()
        data.save_as(path)
    return folder


def report(program, work, series):
    grid = work / "grid.nii.gz"
    run(program, "convert", series, grid, "--force")
    image = nibabel.load(grid)
    values = np.asarray(image.dataobj)
    masks, paths = masks_of(values.shape, 1), []
    for name, mask in masks.items():
        paths.append(work / f"{name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), image.affine), paths[-1])
    seg, path = work / "seg.dcm", work / "report.dcm"
    run(program, "dicom", "seg", *paths, "--series", series, "--out", seg, "--force")
    run(program, "dicom", "report", seg, "--series", series, "--out", path, "--force")
    document = highdicom.sr.srread(path)
    source = pydicom.dcmread(next(series.iterdir()))
    assert isinstance(document, highdicom.sr.Comprehensive3DSR), type(document)
    assert document.StudyInstanceUID == source.StudyInstanceUID and document.PatientID == source.PatientID
    groups = document.content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == list(masks)
    segmentation = pydicom.dcmread(seg)
    count = 0
    for number, (group, (name, mask)) in enumerate(zip(groups, masks.items()), 1):
        wanted = measured(values, mask, image.affine)
        segment = group.referenced_segment
        assert segment.referenced_sop_instance_uid == segmentation.SOPInstanceUID and segment.referenced_segment_numbers == [number]
        found = {}
        for item in group.get_measurements():
            derivation = item.derivation.meaning if item.derivation else ""
            found[(item.name.meaning, derivation)] = (item.value, item.unit.value)
        modality = {"CT": ("Attenuation Coefficient", "[hnsf'U]"), "MR": ("MR signal intensity", "1")}[source.Modality]
        expected = {("Volume", ""): (wanted["volume"], "mm3"), ("Diameter", "Maximum"): (wanted["diameter"], "mm")}
        for key, derivation in zip(NAMES, ("Mean", "Standard Deviation", "Minimum", "Maximum")):
            expected[(modality[0], derivation)] = (wanted[key], modality[1])
        assert set(found) == set(expected), (found, expected)
        for key, (value, unit) in expected.items():
            assert found[key][1] == unit and abs(found[key][0] - value) <= 1e-5 * max(1, abs(value)), (key, found[key], value)
            count += 1
    print(f"  report: {len(groups)} groups, {count} measurements equal; {verified(path)}")


def capture(program, work, series):
    random = np.random.default_rng(2)
    for name, shape in (("colour", (40, 31, 3)), ("grey", (17, 20))):
        picture, path = work / f"{name}.png", work / f"{name}.dcm"
        pixels = random.integers(0, 256, shape).astype(np.uint8)
        Image.fromarray(pixels).save(picture)
        run(program, "dicom", "capture", picture, "--series", series, "--out", path, "--force", "--description", "A picture")
        data = pydicom.dcmread(path)
        source = pydicom.dcmread(next(series.iterdir()))
        assert np.array_equal(data.pixel_array, pixels) and data.StudyInstanceUID == source.StudyInstanceUID
        assert len(data.SourceImageSequence) == len(list(series.iterdir()))
        print(f"  capture, {name}: equal; {verified(path)}")


def main():
    program, work, *folders = sys.argv[1:]
    program, work = pathlib.Path(program).resolve(), pathlib.Path(work)
    for series in [*map(pathlib.Path, folders), ct(work / "input" / "ct")]:
        own = work / series.name
        own.mkdir(parents=True, exist_ok=True)
        print(series.name)
        report(program, own, series)
        capture(program, own, series)
    print("all as expected")


if __name__ == "__main__":
    main()
