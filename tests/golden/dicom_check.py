#!/usr/bin/env python3
"""Compares what the example `dicom_report` reads in DICOM files with what pydicom and SimpleITK read.

    cargo build -p tomograd-io --features dicom --example dicom_report
    python dicom_check.py PROGRAM OUT PATH...

Each PATH is a DICOM file, a folder of such files, which are compared one by one, or, behind `--series`, a folder whose files are
one volume. Needs pydicom with pylibjpeg, pylibjpeg-libjpeg, pylibjpeg-openjpeg, pyjpegls and pillow, SimpleITK, and dcm2niix and
nibabel for series. Prints a line a file and a summary; exit code 1 if anything is read and differs.

pydicom's values are those of `pixel_array`, with colours as RGB, palettes applied (the highest 8 bits), and the modality's table,
rescale or dose scaling applied. The affine is computed here from the attributes. SimpleITK's are compared as they are; what
differs is said.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

import nibabel
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

warnings.filterwarnings("ignore")
sitk.ProcessObject.SetGlobalWarningDisplay(False)
TYPES = {"u8": "<u1", "i32": "<i4", "i64": "<i8", "f32": "<f4", "f64": "<f8"}
MACROS = ("PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence", "PixelValueTransformationSequence",
          "DetectorInformationSequence")
LPS = np.diag([-1.0, -1, 1, 1])


def attribute(dataset, frame, name):
    """An attribute of a frame: its own, the shared one, or the data set's."""
    groups = []
    if "PerFrameFunctionalGroupsSequence" in dataset:
        groups += [dataset.PerFrameFunctionalGroupsSequence[frame]]
    if "SharedFunctionalGroupsSequence" in dataset:
        groups += [dataset.SharedFunctionalGroupsSequence[0]]
    for group in groups + [dataset]:
        for macro in MACROS:
            if macro in group and len(group[macro].value) and name in group[macro][0]:
                value = group[macro][0][name].value
                if value is not None:
                    return value
    return dataset.get(name)


def frames(dataset, plugin=""):
    """The frames as arrays of (rows, columns[, 3]), rescaled, with the position of each in DICOM's coordinates."""
    values = pixel_array(dataset, raw=False, decoding_plugin=plugin)
    count = int(dataset.get("NumberOfFrames") or 1)
    values = values[None] if count == 1 else values
    found = []
    for i, frame in enumerate(values):
        slope, intercept = (attribute(dataset, i, name) for name in ("RescaleSlope", "RescaleIntercept"))
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            frame = apply_color_lut(frame, dataset)
            if frame.dtype != np.uint8:
                frame = (frame >> 8).astype(np.uint8)
        elif slope is not None or intercept is not None:
            frame = frame * float(1 if slope is None else slope) + float(intercept or 0)
        elif "ModalityLUTSequence" in dataset:
            frame = apply_modality_lut(frame, dataset)
        elif dataset.get("DoseGridScaling"):
            frame = frame * float(dataset.DoseGridScaling)
        position = attribute(dataset, i, "ImagePositionPatient")
        orientation = attribute(dataset, i, "ImageOrientationPatient")
        if position is not None and len(position) != 3:
            position = None
        if position is not None and "GridFrameOffsetVector" in dataset and orientation is not None:
            o = np.array(orientation, float)
            offsets = np.array(dataset.GridFrameOffsetVector, float)
            position = np.array(position, float) + np.cross(o[:3], o[3:]) * (offsets[i] - offsets[0])
        elif count > 1 and "PerFrameFunctionalGroupsSequence" not in dataset:
            position = None
        found.append((None if position is None or orientation is None else np.array(position, float), frame))
    return found


def in_plane(dataset):
    """The first two columns of the affine (RAS), where they are known."""
    o = attribute(dataset, 0, "ImageOrientationPatient")
    o = np.array([1, 0, 0, 0, 1, 0] if o is None or len(o) != 6 else o, float)
    s = attribute(dataset, 0, "PixelSpacing") or dataset.get("ImagerPixelSpacing") or dataset.get("NominalScannedPixelSpacing")
    s = [1.0, 1.0] if not s or 0 in s else [float(x) for x in s]
    return LPS[:3, :3] @ np.stack([o[:3] * s[1], o[3:] * s[0]], 1)


def stack_values(line, folder):
    values = np.fromfile(folder / line["raw"], TYPES[line["dtype"]]).reshape(line["shape"])
    return np.moveaxis(values, 0, -1) if values.ndim == 4 else values


def same(a, b):
    """Equal, as far as our dtype says the numbers."""
    if a.shape != b.shape:
        return f"shape {a.shape} {b.shape}"
    b = b.astype(np.float64)
    b = b.astype(np.float32).astype(np.float64) if a.dtype == np.float32 else b
    a = a.astype(np.float64)
    if np.array_equal(a, b, equal_nan=True):
        return ""
    if np.allclose(a, b, rtol=3e-7, atol=0) and a.dtype != np.uint8:
        return ""
    off = np.abs(a - b)
    return f"{(off > 0).sum()} of {a.size} differ, by {off.max():g} at most"


def against_pydicom(path, lines, folder):
    dataset = pydicom.dcmread(path, force=True)
    if not hasattr(dataset.file_meta, "TransferSyntaxUID"):
        # pydicom needs to be told; it guesses as well when it reads the elements.
        implicit, little = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = (
            pydicom.uid.ImplicitVRLittleEndian if implicit else
            pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian)
    said = ""
    # The codecs that pydicom takes differ in how they round.
    for plugin in ("", "pillow", "pylibjpeg"):
        try:
            reference = frames(dataset, plugin)
        except (RuntimeError, ValueError):
            if not plugin:
                raise
            continue
        wrong = compared(dataset, reference, lines, folder)
        if not wrong:
            return ""
        said = said or wrong
    return said


def compared(dataset, reference, lines, folder):
    used = set()
    for line in lines:
        values, affine = stack_values(line, folder), np.array(line["affine"])
        if line["uneven"]:
            return "uneven"
        if not np.allclose(affine[:3, :2], in_plane(dataset), rtol=1e-6, atol=1e-9):
            return f"affine {affine.tolist()} {in_plane(dataset).tolist()}"
        for k, slice_ in enumerate(values):
            place = (LPS @ affine @ [0, 0, k, 1])[:3]
            worst = "no frame"
            for i, (position, frame) in enumerate(reference):
                if i in used or (position is not None and not np.allclose(position, place, atol=2e-2)):
                    continue
                worst = same(slice_, frame)
                if not worst or position is None:
                    used.add(i)
                    break
            if worst:
                return f"slice {k}: {worst}"
    if len(used) != len(reference):
        return f"{len(used)} of {len(reference)} frames"
    return ""


def sitk_affine(image):
    d, s = np.array(image.GetDirection()).reshape(3, 3), image.GetSpacing()
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = d * s, image.GetOrigin()
    return LPS @ affine


def against_sitk(image, lines, folder):
    if len(lines) != 1:
        return f"{len(lines)} stacks here, one there"
    values, affine = stack_values(lines[0], folder), np.array(lines[0]["affine"])
    theirs = sitk.GetArrayFromImage(image)
    said = []
    if values.shape != theirs.shape:
        return f"shape {theirs.shape} there"
    if voxels := same(values, theirs):
        if not same(values[::-1], theirs):
            return "slices in the opposite order there"
        inverted = np.issubdtype(theirs.dtype, np.integer) and not np.ptp(values + theirs.astype(np.float64))
        said.append("MONOCHROME1 is turned into MONOCHROME2 there" if inverted else voxels)
    other = sitk_affine(image)
    columns = [0, 1, 3] if len(values) == 1 else [0, 1, 2, 3]
    if not np.allclose(affine[:3, columns], other[:3, columns], rtol=1e-5, atol=1e-3):
        said.append(f"affine {np.round(other[:3], 4).tolist()} there, {np.round(affine[:3], 4).tolist()} here")
    return "; ".join(said)


def attempt(compare):
    try:
        return compare()
    except Exception as error:  # whatever the reference can't do
        return f"refused there: {type(error).__name__}: {str(error).strip().splitlines()[-1][:100] if str(error).strip() else ''}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("paths", nargs="*", type=pathlib.Path)
    parser.add_argument("--series", nargs="*", type=pathlib.Path, default=[])
    arguments = parser.parse_args()
    files = []
    for path in arguments.paths:
        files += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    files = [path for path in files if not path.name.startswith("DICOMDIR") and path.suffix not in (".json", ".dump", ".txt", ".icc")]
    subprocess.run([arguments.program, arguments.out, *files, *arguments.series], check=True)
    by_path = {}
    for line in (arguments.out / "report.jsonl").read_text().splitlines():
        line = json.loads(line)
        by_path.setdefault(line["path"], []).append(line)
    counts = {"equal": 0, "equal but for rounding of lossy JPEG 2000": 0, "read here alone": 0, "refused": 0, "refused by both": 0,
              "wrong": 0}
    print(f"""# DICOM files as this project, pydicom and SimpleITK read them

Written by `tests/golden/dicom_check.py` with pydicom {pydicom.__version__} and SimpleITK {sitk.Version.VersionString()}. A file is equal if every voxel is, and the affine
or each frame's place. Where pydicom's default codec rounds lossy JPEG otherwise, its other codecs are asked. SimpleITK leaves out
the modality's table, dose scaling and palettes, turns MONOCHROME1 around, and doesn't place the frames of most enhanced objects;
its column says what differs.

| file | read | pydicom | SimpleITK |
|---|---|---|---|""")
    for path in files + arguments.series:
        lines = by_path.get(str(path), [])
        name = f"{path.parent.name}/{path.name}"
        errors = [line["error"] for line in lines if "error" in line]
        if path.is_dir():
            names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path))
            series = attempt(lambda: against_sitk(sitk.ReadImage(names), lines, arguments.out))
            theirs = attempt(lambda: series_against_pydicom(path, lines, arguments.out))
            converted = attempt(lambda: against_dcm2niix(path, lines, arguments.out))
            counts["wrong" if theirs or series or converted else "equal"] += 1
            read = "×".join(map(str, lines[0]["shape"]))
            print(f"| {name}, the series | {read} {lines[0]['dtype']} | {theirs or 'equal'}; dcm2niix: {converted or 'equal'} | {series or 'equal'} |")
            continue
        if errors or not lines:
            theirs = attempt(lambda: f"read as {pixel_array(pydicom.dcmread(path, force=True)).shape}")
            both = theirs.startswith("refused")
            counts["refused by both" if both else "refused"] += 1
            message = (errors or ["nothing"])[0].replace(str(path), name).replace("|", "/")
            print(f"| {name} | refused: {message} | {theirs} | |")
            continue
        theirs = attempt(lambda: against_pydicom(path, lines, arguments.out))
        itk = attempt(lambda: against_sitk(sitk.ReadImage(str(path)), lines, arguments.out))
        # Where pydicom's codecs don't round as libjpeg does, or don't swap, SimpleITK's word counts.
        voxels = "differ" not in itk and "shape" not in itk and not itk.startswith("refused")
        if not theirs or (voxels and "affine" not in theirs):
            counts["equal"] += 1
        elif theirs.startswith("refused") and itk.startswith("refused"):
            counts["read here alone"] += 1
        elif lines[0]["syntax"] == "JPEG 2000" and within_one(path, lines, arguments.out):
            counts["equal but for rounding of lossy JPEG 2000"] += 1
            theirs += " (rounding)"
        else:
            counts["wrong"] += 1
        read = f"{lines[0]['syntax']}: {' + '.join('×'.join(map(str, line['shape'])) for line in lines)} {lines[0]['dtype']}"
        print(f"| {name} | {read} | {theirs or 'equal'} | {itk or 'equal'} |")
    print("\n" + ", ".join(f"{count} {name}" for name, count in counts.items()))
    raise SystemExit(1 if counts["wrong"] else 0)


def within_one(path, lines, folder):
    """Whether the stored values are within 1 of pydicom's."""
    dataset = pydicom.dcmread(path)
    slope = float(dataset.get("RescaleSlope") or 1)
    [(_, frame)] = frames(dataset)
    return np.abs(stack_values(lines[0], folder)[0] - frame.astype(np.float64)).max() <= 1.001 * abs(slope)


def against_dcm2niix(path, lines, folder):
    """Compares a series with what dcm2niix makes of it, both turned to RAS."""
    with tempfile.TemporaryDirectory() as out:
        dcm2niix = pathlib.Path(sys.executable).parent / "dcm2niix"
        subprocess.run([dcm2niix, "-o", out, "-z", "n", "-f", "out", path], check=True, capture_output=True)
        theirs = nibabel.as_closest_canonical(nibabel.load(pathlib.Path(out) / "out.nii"))
        values = stack_values(lines[0], folder).transpose(2, 1, 0)
        ours = nibabel.as_closest_canonical(nibabel.Nifti1Image(values.astype(np.float64), np.array(lines[0]["affine"])))
        if not np.allclose(ours.affine, theirs.affine, atol=1e-3):
            return f"affine {np.round(theirs.affine, 4).tolist()} there, {np.round(ours.affine, 4).tolist()} here"
        return same(ours.get_fdata(), theirs.get_fdata())


def series_against_pydicom(path, lines, folder):
    if len(lines) != 1:
        return f"{len(lines)} stacks"
    datasets = [pydicom.dcmread(file) for file in sorted(path.iterdir())]
    o = np.array(datasets[0].ImageOrientationPatient, float)
    across = np.cross(o[:3], o[3:])
    datasets.sort(key=lambda dataset: float(across @ np.array(dataset.ImagePositionPatient, float)))
    values, affine = stack_values(lines[0], folder), np.array(lines[0]["affine"])
    if len(values) != len(datasets):
        return f"{len(values)} slices of {len(datasets)}"
    for k, dataset in enumerate(datasets):
        if wrong := same(values[k], frames(dataset)[0][1]):
            return f"slice {k}: {wrong}"
        place = (LPS @ affine @ [0, 0, k, 1])[:3]
        if not np.allclose(place, np.array(dataset.ImagePositionPatient, float), atol=1e-3):
            return f"slice {k} at {place}, not {dataset.ImagePositionPatient}"
    return "" if np.allclose(affine[:3, :2], in_plane(datasets[0]), rtol=1e-6) else "affine"


if __name__ == "__main__":
    main()
