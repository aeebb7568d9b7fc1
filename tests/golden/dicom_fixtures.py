#!/usr/bin/env python3
"""Writes dicom/: small DICOM files of every transfer syntax and pixel format that is read, and what pydicom reads in them.

    python dicom_fixtures.py

Needs pydicom, pylibjpeg with its plugins, pyjpegls, pillow, imagecodecs and SimpleITK. All pictures are made up here. `dicom.json` has for each
file its shape, affine (RAS), and the FNV-1a hash (64 bits) of its voxels: in the dtype that is said, little endian, row-major, with
the channels of colours first.
"""
import json
import pathlib

import imagecodecs
import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import UID

from dicom_check import LPS, frames, in_plane

FOLDER = pathlib.Path(__file__).parent / "dicom"
IMPLICIT, EXPLICIT, DEFLATED, BIG = (UID(f"1.2.840.10008.1.2{x}") for x in ("", ".1", ".1.99", ".2"))
RLE, BASELINE, EXTENDED, LOSSLESS, FIRST_ORDER, LS, LS_NEAR, J2K, J2K_LOSSY = (
    UID(f"1.2.840.10008.1.2.{x}") for x in ("5", "4.50", "4.51", "4.57", "4.70", "4.80", "4.81", "4.90", "4.91"))
ROWS, COLUMNS = 33, 37  # JPEG 2000 of five levels needs 32


def picture(bits, channels=1, signed=False, frame=0):
    """Waves, a flat part (which codecs take for runs) and an edge."""
    y, x, c = np.mgrid[0:ROWS, 0:COLUMNS, 0:channels].astype(float)
    waves = 0.5 + 0.25 * np.sin(x / 3 + c + frame) + 0.2 * np.cos(y / 2.5 - 2 * c)
    waves[5:12, 8:20] = 0.75
    waves[14:, 20:] = 0.1 + 0.05 * ((3 * x + 5 * y) % 7)[14:, 20:]
    values = np.round(waves * (2**bits - 1)).astype(np.int64)
    values -= 2 ** (bits - 1) if signed else 0
    kind = np.dtype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2 if bits <= 16 else 4}")
    return (values if channels > 1 else values[..., 0]).astype(kind)


def dataset(values, bits, syntax=EXPLICIT, photometric=None, frame_count=1, **more):
    """A secondary capture of these values, with a geometry."""
    coloured = values.shape[-1] == 3 and photometric not in ("MONOCHROME2", "MONOCHROME1", "PALETTE COLOR")
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = UID("1.2.826.0.1.3680043.10.1.1")
    data.StudyInstanceUID, data.SeriesInstanceUID = UID("1.2.826.0.1.3680043.10.1.2"), UID("1.2.826.0.1.3680043.10.1.3")
    data.Modality = "OT"
    data.ImagePositionPatient = [-10.5, 20, 30.25]
    data.ImageOrientationPatient = [0.8, 0.6, 0, 0, 0, -1]
    data.PixelSpacing = [0.75, 1.5]
    data.SliceThickness = 4
    data.SamplesPerPixel = 3 if coloured else 1
    data.PhotometricInterpretation = photometric or ("RGB" if coloured else "MONOCHROME2")
    if coloured:
        data.PlanarConfiguration = 0
    data.Rows, data.Columns = values.shape[-3 if coloured else -2], values.shape[-2 if coloured else -1]
    data.BitsAllocated = 8 * values.dtype.itemsize
    data.BitsStored, data.HighBit = bits, bits - 1
    data.PixelRepresentation = int(values.dtype.kind == "i")
    if frame_count > 1:
        data.NumberOfFrames = frame_count
    for name, value in more.items():
        setattr(data, name, value)
    kind = "OB" if data.BitsAllocated <= 8 else "OW"
    data.add_new("PixelData", kind, b"")
    data.PixelData = values.astype(values.dtype.newbyteorder(">" if syntax == BIG else "<")).tobytes()
    if len(data.PixelData) % 2:
        data.PixelData += b"\0"
    return data


def encapsulated(data, streams, syntax):
    data.PixelData = encapsulate(streams)
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = syntax
    return data


def item(**attributes):
    data = Dataset()
    for name, value in attributes.items():
        setattr(data, name, value)
    return data


def cases():
    grey8, grey12, grey16 = picture(8), picture(12), picture(16)
    signed = picture(12, signed=True).astype(np.int16)
    rgb = picture(8, 3)
    scale = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    yield "implicit", dataset(signed, 12, IMPLICIT, **scale)
    yield "explicit", dataset(signed, 12, EXPLICIT, **scale)
    yield "big", dataset(signed, 12, BIG, **scale)
    yield "deflated", dataset(signed, 12, DEFLATED, **scale)
    yield "fractions", dataset(grey16, 16, RescaleSlope=0.037, RescaleIntercept=-3.5)
    yield "rgb", dataset(rgb, 8)
    planar = dataset(rgb, 8, PlanarConfiguration=1)
    planar.PixelData = np.moveaxis(rgb, -1, 0).tobytes() + b"\0"
    yield "rgb_planar", planar
    yield "rgb16_big", dataset(picture(16, 3), 16, BIG)
    yield "monochrome1", dataset(grey8, 8, photometric="MONOCHROME1")
    yield "frames", dataset(np.stack([picture(8, frame=i) for i in range(3)]), 8, frame_count=3)
    dose = dataset(np.stack([picture(31, frame=i).astype(np.uint32) for i in range(2)]), 32, frame_count=2,
                   DoseGridScaling=1.25e-7, GridFrameOffsetVector=[0, 2.5], DoseUnits="GY")
    yield "dose", dose
    bits = np.stack([picture(8, frame=i) > 120 for i in range(3)])
    mask = dataset(bits.astype(np.uint8), 8, frame_count=3)
    mask.BitsAllocated, mask.BitsStored, mask.HighBit = 1, 1, 0
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    mask.PixelData = packed + b"\0" * (len(packed) % 2)
    yield "bits", mask
    ybr = dataset(rgb[:, :36], 8, photometric="YBR_FULL_422")
    pairs = rgb[:, :36].reshape(ROWS, 18, 2, 3)
    ybr.PixelData = np.stack([pairs[:, :, 0, 0], pairs[:, :, 1, 0], pairs[:, :, 0, 1], pairs[:, :, 0, 2]], -1).tobytes()
    yield "ybr_422", ybr
    yield "ybr_full", dataset(rgb, 8, photometric="YBR_FULL")
    for bits, name in ((8, "palette8"), (16, "palette16")):
        data = dataset(grey8, 8, photometric="PALETTE COLOR")
        for colour, power in (("Red", 1.0), ("Green", 1.7), ("Blue", 0.6)):
            table = np.round((np.arange(200) / 199) ** power * (2**bits - 1)).astype(f"<u{bits // 8}")
            setattr(data, f"{colour}PaletteColorLookupTableDescriptor", [200, 30, bits])
            setattr(data, f"{colour}PaletteColorLookupTableData", table.tobytes())
            data[f"{colour}PaletteColorLookupTableDescriptor"].VR = "US"
        yield name, data
    table = dataset(grey8, 8)
    table.ModalityLUTSequence = Sequence([item(LUTDescriptor=[256, 0, 16], ModalityLUTType="US",
                                               LUTData=(np.arange(256, dtype="<u2") ** 2).tobytes())])
    table.ModalityLUTSequence[0]["LUTDescriptor"].VR = "US"
    table.ModalityLUTSequence[0]["LUTData"].VR = "OW"
    yield "modality_table", table
    enhanced = dataset(np.stack([picture(12, frame=i) for i in range(4)]), 12, frame_count=4)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        del enhanced[name]
    enhanced.SharedFunctionalGroupsSequence = Sequence([item(
        PixelMeasuresSequence=Sequence([item(PixelSpacing=[0.5, 0.25], SliceThickness=3)]),
        PlaneOrientationSequence=Sequence([item(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])]))])
    enhanced.PerFrameFunctionalGroupsSequence = Sequence([item(
        PlanePositionSequence=Sequence([item(ImagePositionPatient=[1, y, 2])]),
        PixelValueTransformationSequence=Sequence([item(RescaleSlope=slope, RescaleIntercept=0)]))
        for y, slope in ((9, 1), (3, 2), (6, 0.5), (0, 3))])
    yield "enhanced", enhanced

    def native(name, values, bits, syntax, frame_count=1, **how):
        data = dataset(values, bits, EXPLICIT, frame_count=frame_count)
        data.compress(syntax, encoding_plugin=how.pop("plugin"), **how)
        return name, data

    yield native("rle8", grey8, 8, RLE, plugin="pydicom")
    yield native("rle16_frames", np.stack([picture(12, frame=i) for i in range(2)]), 12, RLE, 2, plugin="pydicom")
    yield native("rle_rgb", rgb, 8, RLE, plugin="pydicom")
    yield native("jpegls8", grey8, 8, LS, plugin="pyjpegls")
    yield native("jpegls12", grey12, 12, LS, plugin="pyjpegls")
    yield native("jpegls16", grey16, 16, LS, plugin="pyjpegls")
    yield native("jpegls_near", grey12, 12, LS_NEAR, plugin="pyjpegls", jls_error=3)
    yield native("jpegls_rgb", rgb, 8, LS, plugin="pyjpegls")
    yield native("jpegls_frames", np.stack([picture(8, frame=i) for i in range(3)]), 8, LS, 3, plugin="pyjpegls")
    yield native("j2k8", grey8, 8, J2K, plugin="pylibjpeg")
    yield native("j2k12_signed", signed, 12, J2K, plugin="pylibjpeg")
    yield native("j2k16", grey16, 16, J2K, plugin="pylibjpeg")
    yield native("j2k_rgb", rgb, 8, J2K, plugin="pylibjpeg")

    import jpeg_ls
    for mode, name in ((1, "jpegls_line"), (2, "jpegls_sample")):
        stream = bytes(jpeg_ls.encode_array(rgb, interleave_mode=mode, lossy_error=0))
        yield name, encapsulated(dataset(rgb, 8), [stream], LS)

    def jpeg(name, values, bits, syntax, photometric=None, frame_count=1, **how):
        pictures = values if frame_count > 1 else [values]
        streams = [imagecodecs.jpeg8_encode(one, bitspersample=bits, **how) for one in pictures]
        return name, encapsulated(dataset(values, bits, photometric=photometric, frame_count=frame_count), streams, syntax)

    yield jpeg("jpeg_baseline", grey8, 8, BASELINE, level=90)
    yield jpeg("jpeg_422", rgb, 8, BASELINE, "YBR_FULL_422", level=85, colorspace="RGB", outcolorspace="YCBCR", subsampling="422")
    yield jpeg("jpeg_420", rgb, 8, BASELINE, "YBR_FULL_422", level=85, colorspace="RGB", outcolorspace="YCBCR", subsampling="420")
    yield jpeg("jpeg_444", rgb, 8, BASELINE, "YBR_FULL", level=95, colorspace="RGB", outcolorspace="YCBCR", subsampling="444")
    yield jpeg("jpeg_rgb", rgb, 8, BASELINE, "RGB", level=95, colorspace="RGB", outcolorspace="RGB")
    yield jpeg("jpeg_extended", grey12, 12, EXTENDED, level=90)
    yield jpeg("jpeg_frames", np.stack([picture(8, frame=i) for i in range(2)]), 8, BASELINE, frame_count=2, level=80)
    for predictor in range(1, 8):
        syntax = FIRST_ORDER if predictor == 1 else LOSSLESS
        yield jpeg(f"jpeg_lossless{predictor}", grey16 if predictor % 2 else grey12, 16 if predictor % 2 else 12, syntax,
                   lossless=True, predictor=predictor)
    yield jpeg("jpeg_lossless_rgb", rgb, 8, FIRST_ORDER, "RGB", lossless=True, predictor=1, colorspace="RGB", outcolorspace="RGB")


def fnv(data):
    hashed = 0xCBF29CE484222325
    for byte in data:
        hashed = (hashed ^ byte) * 0x100000001B3 % 2**64
    return f"{hashed:016x}"


def described(path, name, data):
    read = pydicom.dcmread(path)
    found = frames(read, "pillow" if read.file_meta.TransferSyntaxUID == BASELINE else "")
    if read.file_meta.TransferSyntaxUID == EXTENDED:
        # pydicom's codec for 12 bits isn't libjpeg.
        found = [(found[0][0], SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))[0])]
    if found[0][0] is not None and len(found) > 1:
        o = in_plane_orientation(read)
        across = np.cross(o[:3], o[3:])
        found.sort(key=lambda frame: float(across @ frame[0]))
    values = np.stack([frame for _, frame in found])
    coloured = values.ndim == 4
    whole = np.all(values == np.round(values))
    scaled = name in ("fractions", "dose", "enhanced")
    if name == "dose":
        dtype = "f64"
    elif scaled or not whole:
        dtype = "f32"
    elif read.BitsStored <= 8 and "RescaleSlope" not in read and "ModalityLUTSequence" not in read and not read.PixelRepresentation:
        dtype = "u8"
    elif read.PhotometricInterpretation == "PALETTE COLOR":
        dtype = "u8"
    else:
        dtype = "i32"
    values = np.moveaxis(values, -1, 0) if coloured else values
    typed = values.astype({"u8": "<u1", "i32": "<i4", "f32": "<f4", "f64": "<f8"}[dtype])
    affine = np.eye(4)
    affine[:3, :2] = in_plane(read)
    o = in_plane_orientation(read)
    across = np.cross(o[:3], o[3:])
    positions = [frame[0] for frame in found if frame[0] is not None]
    step = across * float(read.get("SliceThickness") or 1)
    if len(positions) > 1:
        step = (positions[-1] - positions[0]) / (len(positions) - 1)
    origin = positions[0] if positions else np.zeros(3)
    affine[:3, 2], affine[:3, 3] = LPS[:3, :3] @ step, LPS[:3, :3] @ origin
    said = {"file": f"{name}.dcm", "shape": list(typed.shape), "dtype": dtype, "affine": affine.tolist(), "fnv": fnv(typed.tobytes())}
    return said


def in_plane_orientation(data):
    if "SharedFunctionalGroupsSequence" in data:
        return np.array(data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient, float)
    return np.array(data.ImageOrientationPatient, float)


def main():
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.dcm"):
        old.unlink()
    files = []
    for name, data in cases():
        path = FOLDER / f"{name}.dcm"
        data.save_as(path, enforce_file_format=True)
        files.append(described(path, name, data))
    lines = ",\n".join(json.dumps(entry) for entry in files)
    (FOLDER / "dicom.json").write_text(f'{{"files": [\n{lines}\n]}}\n')
    print(f"{len(files)} files, {sum(p.stat().st_size for p in FOLDER.iterdir())} bytes")


if __name__ == "__main__":
    main()
