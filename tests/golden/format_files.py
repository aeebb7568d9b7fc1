#!/usr/bin/env python3
"""Writes small NRRD, MetaImage, TIFF, PNG and JPEG files to formats/ with SimpleITK, pynrrd and tifffile, and formats/formats.json:
what SimpleITK (tifffile where it wrote the file, Pillow for colours of JPEG) reads in each.

    python format_files.py
"""
import json
import pathlib
import warnings

import nifti_fixtures
import nrrd
import numpy as np
import SimpleITK as sitk
import tifffile
from PIL import Image

HERE = pathlib.Path(__file__).parent / "formats"
TYPES = {"uint8": "u1", "int8": "i1", "uint16": "u2", "int16": "i2", "uint32": "u4", "int32": "i4", "uint64": "u8", "int64": "i8",
         "float32": "f4", "float64": "f8"}
SHAPE = (5, 3, 4)  # z, y, x
listed = []


OBLIQUE = nifti_fixtures.turned(2, 20) @ nifti_fixtures.turned(0, -35) @ nifti_fixtures.turned(1, 10)


def ramp(shape, dtype):
    """Values that differ everywhere and reach both ends of a narrow integer type, the last axis the fastest."""
    return np.ascontiguousarray(nifti_fixtures.ramp(shape[::-1], dtype).T)


def image(data, direction=OBLIQUE, vector=False):
    out = sitk.GetImageFromArray(data, isVector=vector)
    n = out.GetDimension()
    out.SetSpacing((1.0, 1.5, 2.0, 0.5)[:n])
    out.SetOrigin((-3.0, 4.0, 5.5, 1.0)[:n])
    matrix = np.eye(n)
    matrix[:min(n, 3), :min(n, 3)] = direction[:min(n, 3), :min(n, 3)] if n > 2 else np.eye(2)
    out.SetDirection(matrix.ravel())
    return out


def affine(img):
    """ITK's geometry as a RAS+ matrix of three axes (ITK's own world is LPS)."""
    n = img.GetDimension()
    k = min(n, 3)
    d = np.eye(4)
    d[:k, :k] = (np.reshape(img.GetDirection(), (n, n)) @ np.diag(img.GetSpacing()))[:k, :k]
    d[:k, 3] = img.GetOrigin()[:k]
    return (np.diag([-1, -1, 1, 1]) @ d).tolist()


def entry(name, values, stored, matrix, more=()):
    """`values` has the axes of a tensor: channels or time in front of z, y, x."""
    values = np.asarray(values)
    while values.ndim < 3:
        values = values[None]
    numbers = [float(v) for v in values.ravel()]
    assert all(int(v) == n for v, n in zip(values.ravel(), numbers) if not np.issubdtype(values.dtype, np.floating))
    listed.append({"file": name, "shape": list(values.shape), "stored": stored, "affine": np.asarray(matrix).tolist(), "values": numbers})
    for other in [name, *more]:
        assert (HERE / other).stat().st_size < 4096, other


def kind(array, channels=1):
    named = {("uint8", 3): "rgb24", ("uint8", 4): "rgba32", ("float32", 2): "complex64", ("float64", 2): "complex128"}
    return named.get((array.dtype.name, channels), array.dtype.name)


def by_itk(name, img, compressed=False, more=(), **options):
    """A file that SimpleITK writes, as SimpleITK reads it."""
    sitk.WriteImage(img, str(HERE / name), compressed, **options)
    from_itk(name, more)


def from_itk(name, more=(), matrix=None):
    seen = sitk.ReadImage(str(HERE / name))
    values = sitk.GetArrayFromImage(seen)
    channels = seen.GetNumberOfComponentsPerPixel()
    if np.iscomplexobj(values):
        values, channels = np.stack([values.real, values.imag], -1), 2
    stored = kind(values, channels)
    if channels > 1:
        values = np.moveaxis(values, -1, 0)
        if values.ndim == 3:  # a picture has one plane
            values = values[:, None]
    entry(name, values, stored, affine(seen) if matrix is None else matrix, more)


def main():
    HERE.mkdir(exist_ok=True)
    for old in HERE.iterdir():
        old.unlink()
    # Every type, in both formats, in each encoding.
    for name, code in TYPES.items():
        img = image(ramp(SHAPE, code))
        by_itk(f"itk_{name}.nrrd", img)
        by_itk(f"itk_{name}_zlib.mha", img, True)
    plain = image(ramp(SHAPE, "i2"))
    by_itk("itk_gzip.nrrd", plain, True)
    by_itk("itk_raw.mha", plain)
    by_itk("itk_detached.nhdr", plain, more=["itk_detached.raw"])
    by_itk("itk_detached_gzip.nhdr", plain, True, more=["itk_detached_gzip.raw.gz"])
    by_itk("itk_header.mhd", plain, more=["itk_header.raw"])
    by_itk("itk_header_zlib.mhd", plain, True, more=["itk_header_zlib.zraw"])
    for end in ("nrrd", "mha"):
        by_itk(f"itk_rgb.{end}", image(ramp((*SHAPE, 3), "u1"), vector=True))
        by_itk(f"itk_vector.{end}", image(ramp((*SHAPE, 3), "f4"), vector=True), True)
        by_itk(f"itk_series.{end}", image(ramp((2, 3, 2, 4), "i2")))
        by_itk(f"itk_flat.{end}", image(ramp((3, 4), "u2")))
    z = ramp(SHAPE, "f4") + 1j * ramp(SHAPE, "f4")[::-1]
    by_itk("itk_complex.nrrd", image(z.astype(np.complex64)))

    # pynrrd: other encodings, byte orders and spaces; ITK must read the same values.
    rows = (np.diag([-1.0, -1, 1]) @ OBLIQUE @ np.diag([1.0, 1.5, 2])).T
    for name, code, header in (
        ("text_int16", "i2", {"encoding": "ascii"}),
        ("text_float64", "f8", {"encoding": "ascii"}),
        ("big_gzip", ">i4", {"encoding": "gzip", "endian": "big"}),
        ("big_float32", ">f4", {"encoding": "raw", "endian": "big"}),
    ):
        data = ramp(SHAPE, code)
        nrrd.write(str(HERE / f"pynrrd_{name}.nrrd"), data.T, {"space": "right-anterior-superior", "space directions": rows,
                   "space origin": [1.0, 2, 3], **header}, index_order="F")
        seen, _ = nrrd.read(str(HERE / f"pynrrd_{name}.nrrd"), index_order="C")
        assert np.array_equal(seen, data)
        from_itk(f"pynrrd_{name}.nrrd")
    nrrd.write(str(HERE / "pynrrd_las.nrrd"), ramp(SHAPE, "i2").T, {"space": "left-anterior-superior", "space directions": rows,
               "space origin": [1.0, 2, 3]}, index_order="F")
    from_itk("pynrrd_las.nrrd")
    nrrd.write(str(HERE / "pynrrd_spacings.nrrd"), ramp(SHAPE, "i2").T, {"spacings": [1.0, 1.5, 2.0], "encoding": "raw"}, index_order="F")
    from_itk("pynrrd_spacings.nrrd")
    nrrd.write(str(HERE / "pynrrd_detached.nhdr"), ramp(SHAPE, "u2").T, {"space": "LPS", "space directions": rows, "space origin": [1.0, 2, 3],
               "encoding": "raw"}, detached_header=True, index_order="F")
    from_itk("pynrrd_detached.nhdr", ["pynrrd_detached.raw"])
    # A series whose volumes follow one another, as 3D Slicer has it: ITK makes them numbers of a voxel.
    series = ramp((2, 3, 2, 4), "i2")
    nan = [[np.nan] * 3]
    nrrd.write(str(HERE / "pynrrd_series.nrrd"), series.T, {"space": "LPS", "space directions": np.concatenate([rows, nan]), "kinds":
               ["domain"] * 3 + ["list"], "space origin": [1.0, 2, 3], "encoding": "raw"}, index_order="F")
    from_itk("pynrrd_series.nrrd")
    # Data in files of slices, listed and numbered.
    head = "type: short\ndimension: 3\nspace: LPS\nsizes: 4 3 5\nspace directions: (1,0,0) (0,2,0) (0,0,3)\nspace origin: (1,2,3)\nendian: little\n"
    slices = [f"slice_{i:02}.raw" for i in range(5)]
    for name, plane in zip(slices, ramp(SHAPE, "<i2")):
        (HERE / name).write_bytes(plane.tobytes())
    (HERE / "numbered.nhdr").write_text(f"NRRD0004\n{head}encoding: raw\ndata file: slice_%02d.raw 0 4 1\n")
    (HERE / "listed.nhdr").write_text(f"NRRD0004\n{head}encoding: raw\ndata file: LIST\n" + "\n".join(slices) + "\n")
    from_itk("numbered.nhdr", slices)
    from_itk("listed.nhdr", slices)
    (HERE / "hex.nrrd").write_text(f"NRRD0004\n{head}encoding: hex\n\n" + ramp(SHAPE, "<i2").tobytes().hex() + "\n")
    from_itk("hex.nrrd")
    tags = "ObjectType = Image\nNDims = 3\nDimSize = 4 3 5\nElementSpacing = 1 2 3\nOffset = 1 2 3\nElementType = MET_SHORT\n"
    (HERE / "listed.mhd").write_text(tags + "ElementDataFile = LIST\n" + "\n".join(slices) + "\n")
    (HERE / "numbered.mhd").write_text(tags + "ElementDataFile = slice_%02d.raw 0 4 1\n")
    (HERE / "text.mha").write_text(tags + "BinaryData = False\nElementDataFile = LOCAL\n" + " ".join(map(str, ramp(SHAPE, "i2").ravel())) + "\n")
    big = ramp(SHAPE, ">i2").tobytes()
    (HERE / "big.mha").write_bytes((tags + "BinaryData = True\nBinaryDataByteOrderMSB = True\nElementDataFile = LOCAL\n").encode() + big)
    (HERE / "skipped.raw").write_bytes(b"front" + ramp(SHAPE, "<i2").tobytes())
    (HERE / "skipped.mhd").write_text(tags + "HeaderSize = -1\nElementDataFile = skipped.raw\n")
    for name in ("listed.mhd", "numbered.mhd"):
        from_itk(name, slices)
    for name in ("text.mha", "big.mha"):
        from_itk(name)
    from_itk("skipped.mhd", ["skipped.raw"])

    # TIFF: every type that ITK writes, and what tifffile writes besides.
    straight = np.eye(3)
    for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32"):
        by_itk(f"itk_{name}.tif", image(ramp((3, 4), TYPES[name]), straight))
    by_itk("itk_rgb.tif", image(ramp((3, 4, 3), "u1"), straight, vector=True))
    by_itk("itk_deflate.tif", image(ramp((3, 4), "i2"), straight), True, compressor="DEFLATE")
    by_itk("itk_lzw.tif", image(ramp((3, 4), "u2"), straight), True, compressor="LZW")
    by_itk("itk_packbits.tif", image(ramp((3, 4), "u1"), straight), True, compressor="PACKBITS")
    stack = image(ramp(SHAPE, "u2"), straight)
    stack.SetSpacing((0.5, 0.25, 1.0))
    stack.SetOrigin((0, 0, 0))
    by_itk("itk_stack.tif", stack)
    for name, data, options, z in (
        ("float64", ramp((3, 4), "f8"), {}, 1),
        ("big_endian", ramp((3, 4), "u2"), {"byteorder": ">"}, 1),
        ("bigtiff", ramp((3, 4), "i4"), {"bigtiff": True}, 1),
        ("tiles", ramp((20, 35), "u1"), {"tile": (16, 16)}, 1),
        ("predictor", ramp((20, 35), "u2"), {"compression": "zlib", "predictor": True}, 1),
        ("float_predictor", ramp((20, 35), "f4"), {"compression": "zlib", "predictor": True}, 1),
        ("centimetres", ramp((3, 4), "u1"), {"resolution": (20, 40), "resolutionunit": "CENTIMETER"}, 1),
        ("imagej", ramp(SHAPE, "u2"), {"imagej": True, "resolution": (2, 4), "metadata": {"spacing": 2.5, "unit": "mm", "axes": "ZYX"}}, 2.5),
    ):
        path = HERE / f"tifffile_{name}.tif"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tifffile.imwrite(path, data, **options)
        values, stored = tifffile.imread(path), data.dtype.name
        if name in ("float64", "imagej", "tiles"):
            pass  # ITK doesn't read the first, doesn't know the second's distance of pages, and turns the third upside down
        else:
            seen = sitk.ReadImage(str(path))
            assert np.array_equal(sitk.GetArrayFromImage(seen), values), name
        size = {"centimetres": (0.5, 0.25), "imagej": (0.5, 0.25)}.get(name, (1, 1))
        entry(path.name, values, stored, np.diag([-size[0], -size[1], z, 1]))

    # PNG and JPEG.
    for name, data, vector in (("uint8", ramp((3, 4), "u1"), False), ("uint16", ramp((3, 4), "u2"), False), ("rgb", ramp((3, 4, 3), "u1"), True),
                               ("rgb16", ramp((3, 4, 3), "u2"), True)):
        # ITK keeps a spacing in the chunk sCAL, whose unit is the metre, as millimetres: it isn't read.
        by_itk(f"itk_{name}.png", sitk.GetImageFromArray(data, isVector=vector))
    y, x = np.mgrid[:24, :21]
    grey = (128 + 100 * np.sin(x / 5) * np.cos(y / 7)).astype(np.uint8)
    by_itk("itk_grey.jpg", sitk.GetImageFromArray(grey))
    colours = np.stack([grey, 255 - grey, (x * 9).astype(np.uint8)], -1)
    by_itk("itk_colour.jpg", sitk.GetImageFromArray(colours, isVector=True))
    # ITK repeats the colours that are stored for four pixels; libjpeg (and Pillow with it) interpolates them, as most do.
    seen = np.moveaxis(np.asarray(Image.open(HERE / "itk_colour.jpg")), -1, 0)
    assert np.abs(seen.ravel() - np.array(listed[-1]["values"])).max() < 16
    listed[-1]["values"] = [float(v) for v in seen.ravel()]

    lines = ",\n".join("  " + json.dumps(e, separators=(",", ":")) for e in listed)
    notes = {"shape": "of the tensor: channels or time, then z, y, x", "stored": "the type of the file's numbers, or its name for several of them",
             "affine": "voxel index to RAS+ millimetres", "values": "all of them, in the order of the tensor"}
    head = ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in notes.items())
    (HERE / "formats.json").write_text("{\n" + head + ',\n "files": [\n' + lines + "\n ]\n}\n")
    print(len(listed), "files read,", sum(f.stat().st_size for f in HERE.iterdir()), "bytes")


if __name__ == "__main__":
    main()
