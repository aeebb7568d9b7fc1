#!/usr/bin/env python3
"""Checks `tomograd dicom rtstruct`, `seg` and `masks` with other programs: masks with holes, islands in holes, voxels that touch at corners, and
structures that overlap go into objects and come back, and pydicom, highdicom, scikit-image and rt-utils read what was written.

    pip install pydicom highdicom rt-utils scikit-image nibabel
    python dicom_masks_check.py PROGRAM WORK_DIR SERIES_FOLDER...

`dciodvfy` (dicom3tools) is run on every object. Exit code 1 if anything differs, except where another program rounds contours to
whole pixels: there the share of equal voxels is printed.
"""
import collections
import json
import pathlib
import shutil
import subprocess
import sys
import warnings

import highdicom
import nibabel
import numpy as np
import pydicom
from skimage.draw import polygon2mask

warnings.filterwarnings("ignore")


def run(program, *arguments, code=0):
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == code, (arguments, done.returncode, done.stderr)
    return done


def verified(path):
    if not shutil.which("dciodvfy"):
        return "dciodvfy isn't there"
    result = subprocess.run(["dciodvfy", path], capture_output=True, text=True)
    lines = (result.stderr + result.stdout).splitlines()
    errors = [line for line in lines if line.startswith("Error")]
    for line, count in collections.Counter(errors).items():
        print(f"    {count} times: {line}")
    return f"dciodvfy: {len(errors)} errors"


def masks_of(shape, seed):
    """Structures in (x, y, z): a shell with a ball in it, noise with corners and holes, and a block over both."""
    random = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    r = np.sqrt(x**2 + y**2 + z**2)
    shell = ((r > 0.45) & (r < 0.8)) | (r < 0.2)
    noise = (random.random(shape) < 0.5) & (np.abs(x) < 0.7) & (np.abs(y) < 0.5) & (np.abs(z) < 0.4)
    block = (np.abs(x - 0.2) < 0.3) & (np.abs(y) < 0.4) & (np.abs(z) < 0.5)
    return {"shell": shell, "noise": noise, "block": block}


def contours(path, sources):
    """The mask of each structure, (slice, row, column), by scikit-image: pixels in an odd number of polygons."""
    data = pydicom.dcmread(path)
    names = {roi.ROINumber: roi.ROIName for roi in data.StructureSetROISequence}
    masks, kinds, count = {}, set(), 0
    for roi in data.ROIContourSequence:
        mask = np.zeros((len(sources), sources[0].Rows, sources[0].Columns), bool)
        for contour in roi.get("ContourSequence", []):
            k = [s.SOPInstanceUID for s in sources].index(contour.ContourImageSequence[0].ReferencedSOPInstanceUID)
            source = sources[k]
            points = np.array(contour.ContourData, float).reshape(-1, 3) - np.array(source.ImagePositionPatient, float)
            o = np.array(source.ImageOrientationPatient, float)
            assert np.abs(points @ np.cross(o[:3], o[3:])).max() < 1e-3
            rows, columns = points @ o[3:] / source.PixelSpacing[0], points @ o[:3] / source.PixelSpacing[1]
            mask[k] ^= polygon2mask(mask[k].shape, np.stack([rows, columns], 1))
            kinds.add(contour.ContourGeometricType)
            count += 1
        masks[names[roi.ReferencedROINumber]] = mask
    assert data.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID == sources[0].FrameOfReferenceUID
    assert data.PatientID == sources[0].PatientID and data.StudyInstanceUID == sources[0].StudyInstanceUID
    return masks, sorted(kinds), count


def read_back(program, work, series, path, names):
    out = work / "back"
    shutil.rmtree(out, ignore_errors=True)
    run(program, "dicom", "masks", path, "--series", series, "--out", out, "--each")
    return {name: np.asarray(nibabel.load(next(out.glob(f"*_{name}.nii.gz"))).dataobj) for name in names}


def structures(program, work, series, sources, masks, files):
    for holes in ("keyhole", "xor"):
        path = work / f"rtstruct_{holes}.dcm"
        run(program, "dicom", "rtstruct", *files, "--series", series, "--out", path, "--force", "--holes", holes)
        theirs, kinds, count = contours(path, sources)
        back = read_back(program, work, series, path, masks)
        for name, mask in masks.items():
            assert np.array_equal(back[name].astype(bool), mask), (holes, name, "back")
            # (x, y, z) in the file of the mask, (z, y, x) in DICOM's order.
            assert np.array_equal(theirs[name], mask.transpose(2, 1, 0)), (holes, name, "scikit-image")
        voxels = sum(int(mask.sum()) for mask in masks.values())
        print(f"  RTSTRUCT {holes}: {count} contours ({', '.join(kinds)}) of 3 structures, {voxels} voxels, back and by scikit-image equal; "
              f"{verified(path)}")


def rt_utils_check(program, work, series, sources, masks, files):
    from rt_utils import RTStructBuilder
    if sources[0].Rows != sources[0].Columns:
        print("  rt-utils takes rows for columns: not compared")
        return
    path = work / "rtstruct_keyhole.dcm"
    read = RTStructBuilder.create_from(dicom_series_path=str(series), rt_struct_path=str(path))
    order = np.argsort([float(s.ImagePositionPatient[2]) for s in sources])
    for name, mask in masks.items():
        theirs = read.get_roi_mask_by_name(name)
        mine = mask.transpose(1, 0, 2)
        best = max((theirs, theirs[:, :, ::-1]), key=lambda m: (m == mine).mean())
        print(f"  read by rt-utils, which rounds to whole pixels: {name}: Dice {2 * (best & mine).sum() / (best.sum() + mine.sum()):.4f}")
    made = RTStructBuilder.create_new(dicom_series_path=str(series))
    shell = masks["shell"].transpose(1, 0, 2)
    made.add_roi(mask=shell, name="shell", use_pin_hole=False)
    other = work / "rt_utils.dcm"
    made.save(str(other))
    back = read_back(program, work, series, other, ["shell"])["shell"].astype(bool)
    mine = masks["shell"]
    best = max((back, back[:, :, ::-1]), key=lambda m: (m == mine).mean())
    again = contours(other, sources)[0]["shell"].transpose(2, 1, 0)
    print(f"  of rt-utils, whose contours go through the centres of pixels: {back.sum()} voxels here, {again.sum()} by scikit-image, "
          f"{(back != again).sum()} differ (centres on contours); Dice to the mask {2 * (best & mine).sum() / (best.sum() + mine.sum()):.4f}")


def segmentations(program, work, series, sources, masks, files):
    names = list(masks)
    codes = work / "segments.json"
    codes.write_text(json.dumps([{"value": i + 1, "label": name, "category": ["123037004", "SCT", "Anatomical Structure"],
                                  "type": ["10200004", "SCT", "Liver"], "algorithm": "check"} for i, name in enumerate(names)]))
    ordered = [s.SOPInstanceUID for s in sources]
    apart = dict(masks, block=masks["block"] & ~masks["shell"] & ~masks["noise"], noise=masks["noise"] & ~masks["shell"])
    random = np.random.default_rng(5)
    fractions = {name: (mask * random.integers(0, 256, mask.shape) / 255).astype(np.float32) for name, mask in masks.items()}
    affine = nibabel.load(files[0]).affine
    for kind, given in (("binary", masks), ("probability", fractions), ("occupancy", fractions), ("label-map", apart)):
        paths = []
        for name in names:
            paths.append(work / kind / f"{name}.nii.gz")
            paths[-1].parent.mkdir(exist_ok=True)
            data = given[name] if kind in ("probability", "occupancy") else given[name].astype(np.uint8)
            nibabel.save(nibabel.Nifti1Image(data, affine), paths[-1])
        path = work / f"seg_{kind}.dcm"
        run(program, "dicom", "seg", *paths, "--series", series, "--out", path, "--force", "--type", kind, "--segments", codes)
        back = read_back(program, work, series, path, names)
        read = highdicom.seg.segread(path)
        data = pydicom.dcmread(path)
        frames = data.pixel_array.reshape(-1, data.Rows, data.Columns)
        for number, name in enumerate(names, 1):
            wanted = given[name].transpose(2, 1, 0)
            assert np.array_equal(back[name].astype(wanted.dtype), given[name]), (kind, name, "back")
            pixels = read.get_pixels_by_source_instance(ordered, segment_numbers=[number], ignore_spatial_locations=True,
                                                        assert_missing_frames_are_empty=True)[..., 0]
            assert np.allclose(pixels, wanted, atol=1e-6), (kind, name, "highdicom")
            mine = np.zeros(wanted.shape, np.float32)
            for frame, groups in zip(frames, data.PerFrameFunctionalGroupsSequence):
                k = ordered.index(groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
                assert np.allclose(groups.PlanePositionSequence[0].ImagePositionPatient, sources[k].ImagePositionPatient, atol=1e-6)
                if kind == "label-map":
                    mine[k] = frame == number
                elif groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number:
                    mine[k] = frame / (255 if "MaximumFractionalValue" in data else 1)
            assert np.allclose(mine, wanted, atol=1e-6), (kind, name, "pydicom")
            described = read.get_segment_description(number)
            assert described.segment_label == name and described.segmented_property_type.value == "10200004"
        print(f"  SEG {kind}: {len(frames)} frames of {len(names)} segments (overlap {data.SegmentsOverlap}), back, by pydicom and by highdicom "
              f"equal; {verified(path)}")
    # What highdicom writes, with segments that overlap. It needs attributes that sources may lack.
    for source in sources:
        for name in ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "ReferringPhysicianName", "StudyTime", "StudyDate"):
            if name not in source:
                setattr(source, name, "")
    stack = np.stack([masks[name].transpose(2, 1, 0) for name in names], -1)
    for kind, pixels in (("BINARY", stack), ("FRACTIONAL", np.stack([fractions[n].transpose(2, 1, 0) for n in names], -1)),
                         ("LABELMAP", np.stack([apart[n].transpose(2, 1, 0) for n in names], -1))):
        described = [highdicom.seg.SegmentDescription(
            i + 1, name, highdicom.sr.CodedConcept("123037004", "SCT", "Anatomical Structure"), highdicom.sr.CodedConcept("10200004", "SCT", "Liver"),
            highdicom.seg.SegmentAlgorithmTypeValues.MANUAL) for i, name in enumerate(names)]
        other = work / f"highdicom_{kind}.dcm"
        highdicom.seg.Segmentation(
            sources, pixels.astype(np.float32 if kind == "FRACTIONAL" else np.uint8), kind, described, series_instance_uid=highdicom.UID(), series_number=3,
            sop_instance_uid=highdicom.UID(), instance_number=1, manufacturer="x", manufacturer_model_name="x", software_versions="1",
            device_serial_number="1", omit_empty_frames=True, max_fractional_value=255).save_as(other)
        back = read_back(program, work, series, other, names)
        for i, name in enumerate(names):
            assert np.allclose(back[name], pixels[..., i].transpose(2, 1, 0), atol=1e-6 if kind != "FRACTIONAL" else 0.003), (kind, name)
        print(f"  of highdicom, {kind}: {len(names)} segments equal")


def square(folder):
    """A series of square slices, oblique, for rt-utils."""
    folder.mkdir(parents=True, exist_ok=True)
    rotation = np.linalg.qr(np.array([[1, 0.2, 0.1], [-0.2, 1, 0.3], [0.1, -0.3, 1]]))[0]
    rotation *= np.sign(np.diag(rotation))
    study, series, frame = (pydicom.uid.generate_uid() for _ in range(3))
    for k in range(12):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = pydicom.uid.MRImageStorage, pydicom.uid.generate_uid()
        data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
        data.Modality, data.PatientID, data.PatientName, data.PatientBirthDate, data.PatientSex = "MR", "square", "Square", "", ""
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
        data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber, data.ReferringPhysicianName = "20240101", "120000", "", "", ""
        data.SeriesNumber, data.InstanceNumber, data.PositionReferenceIndicator = 1, k + 1, ""
        data.ImageOrientationPatient = [f"{v:.9g}" for v in [*rotation[0], *rotation[1]]]
        data.ImagePositionPatient = [f"{v:.9g}" for v in np.array([-20, -30, 5]) + 2.5 * k * np.cross(rotation[0], rotation[1])]
        data.PixelSpacing, data.SliceThickness = [0.8, 0.8], 2.5  # rt-utils takes one for the other
        data.SamplesPerPixel, data.PhotometricInterpretation, data.Rows, data.Columns = 1, "MONOCHROME2", 48, 48
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        data.PixelData = np.full((48, 48), k, np.uint16).tobytes()
        data.save_as(folder / f"{k:02}.dcm", enforce_file_format=True)
    return folder


def main():
    program, work, *folders = sys.argv[1:]
    program, work = pathlib.Path(program).resolve(), pathlib.Path(work)
    folders.append(square(work / "input" / "oblique_square"))
    print("dicom3tools of 2022 knows neither CLOSEDPLANAR_XOR nor label maps, which the standard has since 2019 and 2024")
    for i, series in enumerate(map(pathlib.Path, folders)):
        own = work / series.name
        own.mkdir(parents=True, exist_ok=True)
        grid = own / "grid.nii.gz"
        run(program, "convert", series, grid, "--force")
        image = nibabel.load(grid)
        sources = [pydicom.dcmread(path) for path in series.iterdir()]
        o = np.array(sources[0].ImageOrientationPatient, float)
        sources.sort(key=lambda s: np.array(s.ImagePositionPatient, float) @ np.cross(o[:3], o[3:]))
        masks = masks_of(image.shape, i)
        files = []
        for name, mask in masks.items():
            files.append(own / f"{name}.nii.gz")
            nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), image.affine), files[-1])
        print(f"{series.name}: {' × '.join(map(str, image.shape))}")
        structures(program, own, series, sources, masks, files)
        rt_utils_check(program, own, series, sources, masks, files)
        segmentations(program, own, series, sources, masks, files)
    print("all as expected")


if __name__ == "__main__":
    main()
