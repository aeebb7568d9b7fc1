#!/usr/bin/env python3
"""Reads nibabel's own test data (NIfTI and Analyze, nibabel/tests/data in the PyPI package) by `tomograd convert` and compares
voxels, affine and zooms with nibabel's.

    python nibabel_data.py PROGRAM > ../../benches/results/nibabel_data.txt

Exit code 1 if anything is wrong: neither equal nor refused by a clear message.
"""
import pathlib
import subprocess
import sys
import tempfile

import nibabel as nib
import numpy as np


def main():
    program, wrong = sys.argv[1], 0
    folder = pathlib.Path(nib.__file__).parent / "tests" / "data"
    files = sorted(p for p in folder.iterdir() if p.name.endswith((".nii", ".nii.gz", ".hdr", ".img", ".img.gz", ".hdr.gz")))
    print(f"nibabel {nib.__version__}: {len(files)} files of NIfTI and Analyze in nibabel/tests/data\n")
    for path in files:
        with tempfile.TemporaryDirectory() as out:
            out = pathlib.Path(out) / "a.nii"
            run = subprocess.run([program, "convert", path, out], capture_output=True, text=True)
            if run.returncode != 0:
                try:
                    nib.load(path).get_fdata()
                    theirs = "nibabel reads it"
                except Exception as error:
                    theirs = f"nibabel: {type(error).__name__}"
                said = run.stderr.strip().replace(str(folder) + "/", "")
                clear = run.returncode == 1 and len(said.splitlines()) == 1
                wrong += not clear
                print(f"{'refused' if clear else 'WRONG':<8} {path.name}: {said} ({theirs})")
                continue
            a, b = nib.load(path), nib.load(out)
            x, y = np.asanyarray(a.dataobj).astype(float), b.get_fdata()
            if x.shape != y.shape or not np.array_equal(x, y, equal_nan=True):
                verdict = f"voxels {x.shape} {y.shape}"
            elif hasattr(a, "affine") and a.affine is not None and not np.allclose(a.affine, b.affine, rtol=1e-6, atol=1e-5):
                verdict = f"affine {a.affine.tolist()} {b.affine.tolist()}"
            else:
                verdict = ""
            wrong += bool(verdict)
            print(f"{'WRONG' if verdict else 'equal':<8} {path.name}: {x.shape} {a.get_data_dtype()} {verdict}")
    print(f"\nwrong: {wrong or 'none'}")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
