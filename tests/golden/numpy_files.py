"""Arrays as NumPy writes them: tests/golden/numpy/. Run with any NumPy; `python tests/golden/numpy_files.py`."""

import io
import pathlib

import numpy as np

OUT = pathlib.Path(__file__).parent / "numpy"
BASE = np.arange(24).reshape(2, 3, 4)
TYPES = ["<f2", "<f4", ">f4", "<f8", ">f8", "|b1", "|u1", "|i1", "<i2", ">u2", "<i4", "<u4", "<i8", ">i8", "<u8"]

OUT.mkdir(exist_ok=True)
arrays = {}
for name in TYPES:
    values = BASE % 2 if name == "|b1" else BASE - (5 if "i" in name or "f" in name else 0)
    arrays[name[1:] + ("_big" if name[0] == ">" else "")] = values.astype(name)
arrays["fortran"] = np.asfortranarray(BASE.astype("<f4"))
arrays["scalar"] = np.float64(2.5)
arrays["empty"] = np.zeros((0, 3), "<f4")
np.savez(OUT / "stored.npz", **arrays)
np.savez_compressed(OUT / "deflated.npz", **arrays)
np.save(OUT / "fortran.npy", arrays["fortran"])

# The layout of MedMNIST: images and labels of a split, the labels (N, 1) or (N, K).
rng = np.random.default_rng(0)
np.savez_compressed(
    OUT / "medmnist.npz",
    train_images=rng.integers(0, 256, (4, 5, 6), dtype=np.uint8),
    train_labels=np.array([[0], [2], [1], [2]], np.uint8),
    test_images=rng.integers(0, 256, (2, 5, 6, 3), dtype=np.uint8),
    test_labels=np.array([[0, 1, 1], [1, 0, 0]], np.uint8),
)
