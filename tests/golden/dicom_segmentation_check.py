#!/usr/bin/env python3
"""Checks the DICOM segmentations that the example `dicom_segmentation` writes, through pydicom and highdicom.

    cargo build -p tomograd-io --features dicom --example dicom_segmentation
    python dicom_segmentation_check.py PROGRAM OUT_DIR FOLDER...

Each FOLDER is a series. Its thresholds are the mean and twice the mean of its voxels. Compared are every voxel of each segment and
slice, the slices that are referred to, their places, the frame of reference, and patient and study; `dciodvfy` (dicom3tools) is
run if it is there. Exit code 1 if anything differs.
"""
import pathlib
import shutil
import subprocess
import sys

import highdicom
import numpy as np
import pydicom


def check(program, out, folder):
    sources = {}
    for path in folder.iterdir():
        source = pydicom.dcmread(path)
        sources[source.SOPInstanceUID] = source
    first = next(iter(sources.values()))
    values = {uid: source.pixel_array * float(source.get("RescaleSlope") or 1) + float(source.get("RescaleIntercept") or 0)
              for uid, source in sources.items()}
    low = float(np.mean(list(values.values())))
    path = out / f"{folder.name}.dcm"
    subprocess.run([program, folder, path, repr(low), repr(2 * low)], check=True)

    data = pydicom.dcmread(path)
    for name in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert data.get(name) == first.get(name), name
    frames, seen = data.pixel_array, 0
    for frame, groups in zip(frames, data.PerFrameFunctionalGroupsSequence):
        segment = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        uid = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        expected = (values[uid] >= low).astype(int) + (values[uid] >= 2 * low)
        assert np.array_equal(frame, expected == segment), uid
        position = groups.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(position, sources[uid].ImagePositionPatient, atol=1e-6), uid
        seen += int(frame.sum())
    assert seen == sum(int((v >= low).sum()) for v in values.values())

    read = highdicom.seg.segread(path)
    ordered = list(sources)
    pixels = read.get_pixels_by_source_instance(ordered, combine_segments=True, relabel=False)
    for uid, labels in zip(ordered, pixels):
        expected = (values[uid] >= low).astype(int) + (values[uid] >= 2 * low)
        assert np.array_equal(labels, expected), uid
    told = "dciodvfy isn't there"
    if shutil.which("dciodvfy"):
        result = subprocess.run(["dciodvfy", path], capture_output=True, text=True)
        errors = [line for line in (result.stderr + result.stdout).splitlines() if line.startswith("Error")]
        told = f"dciodvfy: {len(errors)} errors"
        print("\n".join(errors))
    print(f"{folder.name}: {len(frames)} frames of {read.number_of_segments} segments, {seen} voxels, equal in pydicom and highdicom; {told}")
    return "0 errors" in told or "isn't" in told


if __name__ == "__main__":
    program, out, *folders = sys.argv[1:]
    out = pathlib.Path(out)
    out.mkdir(exist_ok=True)
    sys.exit(0 if all([check(program, out, pathlib.Path(folder)) for folder in folders]) else 1)
