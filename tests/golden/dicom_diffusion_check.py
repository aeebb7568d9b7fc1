#!/usr/bin/env python3
"""Checks Siemens' mosaics, `tomograd dicom diffusion` and `tomograd dicom suv`: mosaics with nibabel, voxels, affines, b-values and directions
with dcm2niix, whose files have their rows the other way round, so that voxels and directions are compared in the world.

    pip install nibabel pydicom dcm2niix
    python dicom_diffusion_check.py PROGRAM WORK_DIR

The series are nibabel's test data and enhanced-like series made here. Exit code 1 if anything differs.
"""
import gzip
import pathlib
import shutil
import subprocess
import sys
import warnings

import nibabel
import numpy as np
import pydicom
from nibabel.nicom import dicomwrappers

from dicom_masks_check import run, square

warnings.filterwarnings("ignore")
DATA = pathlib.Path(nibabel.__file__).parent / "nicom/tests/data"


def mosaic(program, work):
    for name in ("siemens_dwi_0", "siemens_dwi_1000"):
        path, out = work / f"{name}.dcm", work / f"{name}.nii.gz"
        path.write_bytes(gzip.decompress((DATA / f"{name}.dcm.gz").read_bytes()))
        run(program, "convert", path, out, "--force")
        image, theirs = nibabel.load(out), dicomwrappers.wrapper_from_file(path)
        # nibabel's first axis is down the rows, and its world is DICOM's.
        data = np.asarray(image.dataobj)
        assert np.array_equal(data, theirs.get_data().transpose(1, 0, 2)), name
        affine = np.diag([-1, -1, 1, 1]) @ theirs.affine[:, [1, 0, 2, 3]]
        assert np.allclose(image.affine, affine, atol=2e-3), (image.affine, affine)
        print(f"mosaic {name}: {data.shape} voxels equal to nibabel's, affine within {np.abs(image.affine - affine).max():.1e} mm")


def world(bvec, affine):
    """Directions in the world from FSL's, which are along the axes, the first reversed where the affine doesn't mirror."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    bvec = bvec.copy()
    if np.linalg.det(affine[:3, :3]) > 0:
        bvec[0] *= -1
    return axes @ bvec


def diffusion(program, work, name, folder):
    out, other = work / f"{name}.nii.gz", work / f"{name}_dcm2niix"
    run(program, "dicom", "diffusion", "--series", folder, "--out", out, "--force")
    shutil.rmtree(other, ignore_errors=True)
    other.mkdir()
    subprocess.run([shutil.which("dcm2niix") or pathlib.Path(sys.executable).parent / "dcm2niix", "-f", "x", "-o", other, folder],
                   capture_output=True, check=True)
    mine, theirs = nibabel.load(out), nibabel.load(other / "x.nii")
    a, b = np.asarray(mine.dataobj), np.asarray(theirs.dataobj)
    # To the same orientation of axes.
    turned = nibabel.orientations.ornt_transform(nibabel.io_orientation(theirs.affine), nibabel.io_orientation(mine.affine))
    b = nibabel.orientations.apply_orientation(b, turned)
    affine = theirs.affine @ nibabel.orientations.inv_ornt_aff(turned, theirs.shape[:3])
    assert np.array_equal(a, b), name
    assert np.allclose(mine.affine, affine, atol=2e-3), (mine.affine, affine)
    values = [np.loadtxt(p) for p in (work / f"{name}.bval", other / "x.bval")]
    assert np.array_equal(*values), values
    directions = [world(np.loadtxt(p), image.affine) for p, image in ((work / f"{name}.bvec", mine), (other / "x.bvec", theirs))]
    assert np.allclose(*directions, atol=1e-4), directions
    print(f"diffusion {name}: {a.shape} voxels equal to dcm2niix's, b = {values[0].astype(int).tolist()}, directions within "
          f"{np.abs(directions[0] - directions[1]).max():.1e}")


def standard(work):
    """An oblique series with the standard's attributes: b = 0 and three directions, in the patient's coordinates."""
    folder = work / "input" / "standard"
    shutil.rmtree(folder, ignore_errors=True)
    template = square(work / "input" / "template")
    folder.mkdir(parents=True)
    random = np.random.default_rng(4)
    for volume, direction in enumerate([None, [1, 0, 0], [0, 0.6, 0.8], [-0.48, 0.6, 0.64]]):
        for path in sorted(template.iterdir()):
            data = pydicom.dcmread(path)
            data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
            data.Manufacturer, data.ImageType = "Philips", ["ORIGINAL", "PRIMARY", "M_SE", "M", "SE"]
            data.InstanceNumber = volume * 12 + data.InstanceNumber
            data.AcquisitionNumber = data.TemporalPositionIdentifier = volume + 1
            data.DiffusionBValue = 0.0 if direction is None else 1000.0
            data.DiffusionGradientOrientation = [0.0] * 3 if direction is None else direction
            data.PixelData = random.integers(0, 3000, (48, 48)).astype(np.uint16).tobytes()
            data.save_as(folder / f"{volume}_{path.name}")
    return folder


def suv(program, work):
    """A PET series; the factor by the formula of QIBA's profile, computed here."""
    for case, (correction, start, expected) in {"start": ("START", "110000", 0.5), "admin": ("ADMIN", "110000", 1.0)}.items():
        folder = work / "input" / f"pet_{case}"
        for path in square(folder).iterdir():
            data = pydicom.dcmread(path)
            data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = pydicom.uid.PositronEmissionTomographyImageStorage
            data.Modality, data.Units, data.DecayCorrection, data.CorrectedImage = "PT", "BQML", correction, ["ATTN", "DECY", "SCAT"]
            data.RescaleSlope, data.RescaleIntercept = 1.5 + data.InstanceNumber / 10, 0
            data.PatientWeight, data.SeriesTime, data.SeriesDate = 70, "120000", "20240101"
            data.AcquisitionTime, data.AcquisitionDate = f"12{data.InstanceNumber:02}00", "20240101"
            drug = pydicom.Dataset()
            drug.RadionuclideTotalDose, drug.RadionuclideHalfLife, drug.RadiopharmaceuticalStartTime = 350e6, 3600, start
            data.RadiopharmaceuticalInformationSequence = [drug]
            data.save_as(path)
        out = work / f"suv_{case}.nii.gz"
        told = run(program, "dicom", "suv", "--series", folder, "--out", out, "--force").stdout
        plain = work / f"pet_{case}.nii.gz"
        run(program, "convert", folder, plain, "--force")
        mine, raw = (np.asarray(nibabel.load(path).dataobj, np.float64) for path in (out, plain))
        wanted = raw * 70000 / (350e6 * expected)
        assert np.allclose(mine, wanted, rtol=1e-6), case
        print(f"SUV, decay corrected to {correction}: equal; {told.strip().split('  ')[1]}")
    for name, change in {"without weight": lambda d: d.__delattr__("PatientWeight"), "counts": lambda d: setattr(d, "Units", "CNTS"),
                         "not corrected": lambda d: setattr(d, "CorrectedImage", ["SCAT"])}.items():
        folder = work / "input" / "pet_wrong"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(work / "input" / "pet_start", folder)
        for path in folder.iterdir():
            data = pydicom.dcmread(path)
            change(data)
            data.save_as(path)
        told = run(program, "dicom", "suv", "--series", folder, "--out", work / "none.nii.gz", code=1).stderr
        print(f"SUV, {name}: refused: {told.strip().split(': ', 3)[-1]}")


def main():
    program, work = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    work.mkdir(parents=True, exist_ok=True)
    mosaic(program, work)
    folder = work / "input" / "siemens"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("siemens_dwi_0", "siemens_dwi_1000"):
        shutil.copy(work / f"{name}.dcm", folder)
    diffusion(program, work, "siemens", folder)
    diffusion(program, work, "standard", standard(work))
    suv(program, work)
    print("all as expected")


if __name__ == "__main__":
    main()
