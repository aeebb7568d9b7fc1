#!/usr/bin/env python3
"""Writes the small NIfTI files of nifti/ with nibabel, and nifti/nifti.json: what a reader must find in each."""
import gzip
import json
import pathlib

import nibabel as nib
import numpy as np
import SimpleITK as sitk

HERE = pathlib.Path(__file__).parent / "nifti"
STRAIGHT = np.array([[1.0, 0, 0, -3], [0, 1.5, 0, 4], [0, 0, 2, 5], [0, 0, 0, 1]])


def turned(axis, degrees):
    a, c, s = np.eye(3), np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = [k for k in range(3) if k != axis]
    a[i, i], a[i, j], a[j, i], a[j, j] = c, -s, s, c
    return a


def affine(rotation, spacing=(1.0, 1.5, 2.0), origin=(-3, 4, 5)):
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = rotation @ np.diag(spacing), origin
    return out


def ramp(shape, dtype):
    """Values that differ everywhere and reach both ends of a narrow integer type."""
    n = int(np.prod(shape))
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        low, high = max(info.min, -(2**52)), min(info.max, 2**52)
        values = [low + i * (high - low) // (n - 1) for i in range(n)]
    else:
        values = [(-1) ** i * (i / 4 + 2.0 ** (i % 9 - 4)) for i in range(n)]
    return np.array(values, dtype=dtype).reshape(shape, order="F")


def image(data, matrix=STRAIGHT, q=1, s=1, cls=nib.Nifti1Image, big=False, slope=None):
    header = cls.header_class(endianness=">" if big else "<")
    header.set_data_dtype(data.dtype)
    out = cls(data, None, header)
    if q is not None or s is not None:
        out.set_qform(matrix, 0 if q is None else q)
        out.set_sform(matrix if s else None, s or 0)
    else:
        out.header.set_zooms((0.9, 1.1, 1.3))
        out.set_qform(None, 0)
        out.set_sform(None, 0)
    if s is None and q is not None:
        out.set_sform(None, 0)
    if slope:
        out.header.set_slope_inter(*slope)
    return out


def raw_bytes(img, slope):
    """nibabel divides by the slope on writing; the stored numbers here are the given ones, and the header says how to scale."""
    data = bytearray(img.to_bytes())
    if slope:
        order = ">" if img.header.endianness == ">" else "<"
        offset, kind = (176, "f8") if isinstance(img, nib.Nifti2Image) else (112, "f4")
        data[offset:offset + 2 * int(kind[1])] = np.array(slope, dtype=order + kind).tobytes()
    return bytes(data)


def channels():
    """Voxels of several numbers: the number of voxel (i, j, k) and channel c is 4 times the voxel's place in the file, and c."""
    place = (4 * np.arange(60)).reshape((4, 3, 5), order="F")
    rgb, rgba = (np.zeros(place.shape, [(c, "u1") for c in names]) for names in ("RGB", "RGBA"))
    for colours in (rgb, rgba):
        for c, name in enumerate(colours.dtype.names):
            colours[name] = place + c
    return {"rgb24": rgb, "rgba32": rgba, "complex64": (place + 1j * (place + 1)).astype(np.complex64),
            "complex128": (place + 1j * (place + 1)).astype(np.complex128)}


def more():
    """Files where the programs differ, or that nibabel reads as another kind of array: what must be found is said here, and where
    ITK reads the file too, it must agree."""
    oblique = affine(turned(2, 20) @ turned(0, -35) @ turned(1, 10))
    plain = ramp((4, 3, 5), np.int16)
    said = []

    def add(names, parts, matrix, stored="int16", shape=(4, 3, 5), itk_reads=True):
        for name, data in zip(names, parts):
            (HERE / name).write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
        if itk_reads:
            assert np.allclose(itk_affine(HERE / names[0]), matrix, rtol=1e-6, atol=1e-6), names
        said.append({"files": names, "stored": stored, "shape": list(shape), "affine": np.asarray(matrix).tolist()})

    for unit, factor in (("meter", 1e-3), ("micron", 1e3)):
        scaled = np.diag([factor, factor, factor, 1.0]) @ oblique
        for forms in ({"q": 1, "s": 2}, {"q": 1, "s": None}):
            img = image(plain, scaled, **forms)
            img.header.set_xyzt_units(unit, "msec")
            add([f"{unit}_{'both' if forms['s'] else 'qform'}.nii"], [img.to_bytes()], oblique)
    for name, rows in (("zero", np.zeros((3, 4))), ("nan", np.full((3, 4), np.nan)), ("singular", oblique[[0, 0, 2]])):
        data = bytearray(image(plain, oblique, q=1, s=2).to_bytes())
        data[280:328] = rows.astype("<f4").tobytes()
        add([f"sform_{name}.nii"], [bytes(data)], oblique, itk_reads=name != "nan")
    whole = image(plain, oblique, q=1, s=2).to_bytes()
    header = whole[:108] + np.float32(0).tobytes() + whole[112:344] + b"ni1\0"
    for ending in ("", ".gz"):
        add([f"pair.hdr{ending}", f"pair.img{ending}"], [header, whole[352:]], oblique)
    for stored, data in channels().items():
        n = len(data.dtype.names) if data.dtype.names else 2
        add([f"{stored}.nii"], [image(data, oblique).to_bytes()], oblique, stored, (4, 3, 5, n))
    return said


def main():
    HERE.mkdir(exist_ok=True)
    shape = (4, 3, 5)
    plain = ramp(shape, np.int16)
    oblique = turned(2, 20) @ turned(0, -35) @ turned(1, 10)
    files = {f"{kind}.nii": (image(ramp(shape, kind)), None)
             for kind in ("uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")}
    files |= {
        "int16_gzip.nii.gz": (image(plain), None),
        "int16_big_endian.nii": (image(plain, big=True), None),
        "float32_big_endian.nii.gz": (image(ramp(shape, np.float32), big=True), None),
        "nifti2_int16.nii": (image(plain, cls=nib.Nifti2Image), None),
        "nifti2_float64_big_endian.nii": (image(ramp(shape, np.float64), cls=nib.Nifti2Image, big=True), None),
        "scaled.nii": (image(plain), (0.25, -100.0)),
        "slope_zero.nii": (image(plain), (0.0, 7.0)),
        "qform_only.nii": (image(plain, affine(oblique), q=1, s=None), None),
        "sform_only_sheared.nii": (image(plain, affine(oblique) @ np.array([[1, .1, 0, 0], [0, 1, .2, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), q=0, s=4), None),
        "neither.nii": (image(plain, q=None, s=None), None),
        "oblique_both.nii": (image(plain, affine(oblique), q=2, s=3), None),
        "negative_qfac.nii": (image(plain, affine(oblique @ np.diag([1, 1, -1])), q=1, s=None), None),
        "las.nii": (image(plain, affine(np.diag([-1.0, 1, 1]))), None),
        "axes_swapped.nii": (image(plain, affine(np.eye(3)[:, [2, 0, 1]])), None),
        "flat_2d.nii": (image(ramp((5, 4), np.int16)), None),
        "series_4d.nii": (image(ramp((3, 4, 2, 3), np.int16)), None),
    }
    # The two forms disagree: the sform wins.
    differ = image(plain, q=1, s=2)
    differ.set_qform(affine(turned(2, 90)), 1)
    files["forms_differ.nii"] = (differ, None)
    # An extension between header and voxels.
    extended = image(plain)
    extended.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a comment of some length, to move the voxels"))
    files["extension.nii"] = (extended, None)

    listed = []
    for name, (img, slope) in files.items():
        data = raw_bytes(img, slope)
        path = HERE / name
        path.write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
        assert path.stat().st_size < 4096, name
        seen = nib.load(path)
        voxels = seen.get_fdata(dtype=np.float64)
        h = seen.header
        picks = [tuple(int(k) for k in np.unravel_index(i * voxels.size // 7, voxels.shape, order="F")) for i in range(7)]
        picks.append(tuple(n - 1 for n in voxels.shape))
        entry = {
            "file": name, "version": 2 if isinstance(seen, nib.Nifti2Image) else 1, "big_endian": h.endianness == ">",
            "shape": list(voxels.shape), "dtype": h.get_data_dtype().name, "zooms": [float(z) for z in h.get_zooms()],
            "slope": float(seen.dataobj.slope), "inter": float(seen.dataobj.inter),
            "qform_code": int(h["qform_code"]), "sform_code": int(h["sform_code"]), "qfac": float(h["pixdim"][0]),
            "affine": seen.affine.tolist(), "orientation": "".join(nib.aff2axcodes(seen.affine)),
            "sum": float(voxels.sum()), "voxels": [[list(p), float(voxels[p])] for p in picks],
        }
        try:
            other = itk_affine(path)
            if not np.allclose(other, seen.affine, atol=1e-5):
                entry["affine_itk"] = other
        except RuntimeError:
            entry["affine_itk"] = None
        listed.append(entry)
    lines = ",\n".join("  " + json.dumps(e, separators=(",", ":")) for e in listed)
    notes = {"index": "voxels are [[i, j, k], value after scaling], i the fastest axis of the file",
             "affine": "nibabel's: voxel index to RAS+ millimetres; sform first, then qform, else (neither.nii) from pixdim with x flipped and the "
                       "middle of the volume at 0", "affine_itk": "there where SimpleITK's, in RAS+, is another; null where it refuses the file",
             "more": "files where nibabel and ITK differ or that are no plain array: units (affine in millimetres, as ITK has it), sforms that "
                     "can't be one (the qform counts, as for ITK), pairs, colours and complex numbers (channels last in shape; voxel n of the "
                     "file has 4 n + c in channel c); the others hold the numbers of int16.nii",
             "slope": "as applied: 1 and 0 where the header's slope is 0 or not a number", "dtype": "of the stored numbers, before scaling"}
    head = ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in notes.items())
    others = ",\n".join("  " + json.dumps(e, separators=(",", ":")) for e in more())
    (HERE / "nifti.json").write_text("{\n" + head + ',\n "files": [\n' + lines + '\n ],\n "more": [\n' + others + "\n ]\n}\n")
    print(len(listed), "files,", sum(f.stat().st_size for f in HERE.iterdir()), "bytes")


def itk_affine(path):
    """ITK's origin, spacing and direction as a RAS+ matrix of three axes (ITK's own world is LPS)."""
    img = sitk.ReadImage(str(path))
    n = img.GetDimension()
    d = np.reshape(img.GetDirection(), (n, n))[:3, :3] @ np.diag(img.GetSpacing()[:3])
    out = np.eye(4)
    out[:len(d), :len(d)], out[:min(n, 3), 3] = d, img.GetOrigin()[:3]
    return (np.diag([-1, -1, 1, 1]) @ out).tolist()


if __name__ == "__main__":
    main()
