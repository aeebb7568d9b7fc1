#!/usr/bin/env python3
"""Compares NIfTI files rewritten by `nifti_roundtrip` with the originals, as nibabel and SimpleITK read both.

    cargo run --release --example nifti_roundtrip -- IN_DIR OUT_DIR
    python nifti_check.py IN_DIR OUT_DIR

OUT_DIR holds a file of the same name for each of IN_DIR's, and report.jsonl with an object a file: file, shape, dtype,
spacing, affine (4 rows), qform_code, sform_code, sum, min, max, orientation. Without report.jsonl only the files are
compared. Exit code 1 if anything differs.
"""
import argparse
import json
import pathlib
import sys

import nibabel as nib
import numpy as np
import SimpleITK as sitk

ATOL = 1e-5  # of millimetres: headers hold f32


def close(a, b, tolerance=ATOL):
    a, b = np.asarray(a, float), np.asarray(b, float)
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-6, atol=tolerance)


def against_nibabel(original, rewritten):
    """Names of what differs between two files."""
    a, b = nib.load(original), nib.load(rewritten)
    x, y = a.get_fdata(dtype=np.float64), b.get_fdata(dtype=np.float64)
    if x.shape != y.shape:
        yield "shape", x.shape, y.shape
    elif not np.array_equal(x, y, equal_nan=True):
        yield "voxels", f"{(x != y).sum()} differ", float(np.abs(x - y).max())
    if not close(a.affine, b.affine):
        yield "affine", a.affine.tolist(), b.affine.tolist()
    if not close(a.header.get_zooms(), b.header.get_zooms()):
        yield "zooms", a.header.get_zooms(), b.header.get_zooms()
    for name in ("qform_code", "sform_code"):
        if a.header[name] != b.header[name]:
            yield name, int(a.header[name]), int(b.header[name])
    for name, form in (("qform", nib.Nifti1Header.get_qform), ("sform", nib.Nifti1Header.get_sform)):
        if a.header[f"{name}_code"] > 0 and not close(form(a.header), form(b.header)):
            yield name, form(a.header).tolist(), form(b.header).tolist()
    if a.header.get_data_dtype().newbyteorder("=") != b.header.get_data_dtype().newbyteorder("="):
        yield "dtype", a.header.get_data_dtype(), b.header.get_data_dtype()
    if a.header.get_xyzt_units() != b.header.get_xyzt_units():
        yield "units", a.header.get_xyzt_units(), b.header.get_xyzt_units()


def against_itk(original, rewritten):
    try:
        a = sitk.ReadImage(str(original))
    except RuntimeError:
        return  # ITK refuses the original: nothing to compare with
    try:
        b = sitk.ReadImage(str(rewritten))
    except RuntimeError as e:
        yield "itk refuses the rewritten file", "", str(e).splitlines()[-1]
        return
    for name in ("GetSize", "GetPixelIDTypeAsString"):
        if getattr(a, name)() != getattr(b, name)():
            yield f"itk {name}", getattr(a, name)(), getattr(b, name)()
    for name in ("GetOrigin", "GetSpacing", "GetDirection"):
        if not close(getattr(a, name)(), getattr(b, name)()):
            yield f"itk {name}", getattr(a, name)(), getattr(b, name)()
    if not np.array_equal(sitk.GetArrayViewFromImage(a), sitk.GetArrayViewFromImage(b)):
        yield "itk voxels", "", ""


DTYPES = {"u8": "uint8", "i8": "int8", "i16": "int16", "u16": "uint16", "i32": "int32", "u32": "uint32", "i64": "int64",
          "u64": "uint64", "f32": "float32", "f64": "float64"}


def against_report(original, said):
    """What the program said it read, against nibabel."""
    img = nib.load(original)
    x = img.get_fdata(dtype=np.float64)
    spatial = min(3, x.ndim)
    expected = {"shape": list(x.shape), "dtype": img.header.get_data_dtype().newbyteorder("=").name, "qform_code": int(img.header["qform_code"]),
                "sform_code": int(img.header["sform_code"]), "orientation": "".join(nib.aff2axcodes(img.affine))}
    for name, value in expected.items():
        got = said.get(name)
        got = DTYPES.get(got.lower(), got.lower()) if name == "dtype" and isinstance(got, str) else got
        if got != value:
            yield f"report {name}", value, got
    for name, value in (("affine", img.affine), ("spacing", img.header.get_zooms()[:spatial])):
        got = said.get(name)
        if got is None or not close(value, got[:spatial] if name == "spacing" else got):
            yield f"report {name}", np.asarray(value).tolist(), got
    for name, value, scale in (("sum", x.sum(), np.abs(x).sum()), ("min", x.min(), np.abs(x).max()), ("max", x.max(), np.abs(x).max())):
        if said.get(name) is None or abs(said[name] - value) > 1e-9 * max(scale, 1):
            yield f"report {name}", float(value), said.get(name)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("original", type=pathlib.Path)
    a.add_argument("rewritten", type=pathlib.Path)
    a.add_argument("--ignore", nargs="*", default=[], metavar="WHAT", help="differences not to count, e.g. qform_code units")
    a = a.parse_args()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    report = {}
    if (a.rewritten / "report.jsonl").exists():
        report = {r["file"]: r for r in map(json.loads, filter(str.strip, (a.rewritten / "report.jsonl").read_text().splitlines()))}
    files = sorted(p for p in a.original.iterdir() if p.name.endswith((".nii", ".nii.gz")) and not p.name.startswith("."))
    if not files:
        sys.exit(f"{a.original}: no NIfTI files")
    bad, counts = 0, {}
    for path in files:
        other, found = a.rewritten / path.name, []
        if not other.exists():
            found.append(("missing", "", str(other)))
        else:
            found += [*against_nibabel(path, other), *against_itk(path, other)]
        if report:
            found += against_report(path, report[path.name]) if path.name in report else [("report missing", "", "")]
        found = [f for f in found if f[0] not in a.ignore]
        bad += bool(found)
        for what, expected, got in found:
            counts[what] = counts.get(what, 0) + 1
            if counts[what] <= 3:
                print(f"{path.name}: {what}: expected {expected}, got {got}")
    for what, n in counts.items():
        print(f"{what}: {n} files")
    print(f"{len(files) - bad} of {len(files)} files agree" + ("" if report else " (no report.jsonl)"))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
