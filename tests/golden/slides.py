#!/usr/bin/env python3
"""Writes tests/golden/slides: small whole-slide images by tifffile, and what tifffile reads of them.

    pip install tifffile imagecodecs numpy && python tests/golden/slides.py
"""
import json
import pathlib

import numpy as np
import tifffile

FOLDER = pathlib.Path(__file__).with_name("slides")
TILE = {"tile": (32, 48)}  # rows, columns


def picture(height, width):
    """Smooth colours that aren't alike anywhere."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([128 + 100 * np.sin(x / 17), 128 + 100 * np.cos(y / 23), 128 + 100 * np.sin((x + y) / 31)], -1).astype(np.uint8)


def half(pixels):
    parts = [pixels[i::2, j::2][: pixels.shape[0] // 2, : pixels.shape[1] // 2].astype(int) for i in (0, 1) for j in (0, 1)]
    return (sum(parts) // 4).astype(pixels.dtype)


def write_ome(path, levels, **how):
    size = {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 500.0, "PhysicalSizeYUnit": "nm"}
    axes = "YXS" if levels[0].ndim == 3 else "YX"
    with tifffile.TiffWriter(path, ome=True, bigtiff=how.pop("bigtiff", False), byteorder=how.pop("byteorder", "<")) as file:
        file.write(levels[0], subifds=len(levels) - 1, metadata={"axes": axes, **size}, **TILE, **how)
        for level in levels[1:]:
            file.write(level, subfiletype=1, **TILE, **how)


def write_svs(path, levels, **how):
    height, width = levels[0].shape[:2]
    about = f"Aperio Image Library v10.0.51\n{width}x{height} [0,0 {width}x{height}] (48x32) JPEG/RGB Q=90|AppMag = 20|MPP = 0.4990"
    with tifffile.TiffWriter(path, byteorder="<") as file:
        file.write(levels[0], description=about, metadata=None, **TILE, **how)
        file.write(levels[-1], rowsperstrip=16, photometric="rgb", metadata=None)  # the thumbnail
        for level in levels[1:]:
            file.write(level, description="Aperio", metadata=None, **TILE, **how)
        file.write(picture(20, 60), photometric="rgb", description="label 60x20", metadata=None)


def main():
    FOLDER.mkdir(exist_ok=True)
    colours = picture(115, 150)
    levels = [colours, half(colours), half(half(colours))]
    grey = [(level[..., 0].astype(np.uint16) * 200) for level in levels]
    write_ome(FOLDER / "ome_raw.tif", levels, photometric="rgb", bigtiff=True)
    write_ome(FOLDER / "ome_lzw.tif", levels, photometric="rgb", compression="lzw", predictor=True)
    write_ome(FOLDER / "ome_grey16.tif", grey, photometric="minisblack", compression="zlib", predictor=True, byteorder=">")
    write_ome(FOLDER / "ome_jpeg.tif", levels, photometric="rgb", compression="jpeg", compressionargs={"level": 95})
    write_svs(FOLDER / "svs_deflate.svs", levels, photometric="rgb", compression="zlib")
    write_svs(FOLDER / "svs_jpeg.svs", levels, photometric="rgb", compression="jpeg", compressionargs={"level": 95, "outcolorspace": "rgb"})
    write_svs(FOLDER / "svs_jpeg2000.svs", levels, photometric="rgb", compression="jpeg2000")
    alpha = np.concatenate([colours, 255 - colours[..., :1]], -1)
    with tifffile.TiffWriter(FOLDER / "alpha.tif") as file:
        file.write(alpha, metadata=None, photometric="rgb", extrasamples=["unassalpha"], compression="lzw", predictor=True, **TILE)
    with tifffile.TiffWriter(FOLDER / "separate.tif", byteorder=">") as file:
        file.write(np.moveaxis(colours, -1, 0).astype(np.uint16) * 7, metadata=None, photometric="rgb", planarconfig="separate", compression="zlib", predictor=True, **TILE)
    small = colours[:32, :48]
    with tifffile.TiffWriter(FOLDER / "channels.tif") as file:
        file.write(small, metadata=None, photometric="minisblack", planarconfig="contig", compression="zlib", **TILE)
    with tifffile.TiffWriter(FOLDER / "cmyk.tif") as file:  # refused
        file.write(alpha[:32, :48], metadata=None, photometric="separated", compression="zlib", **TILE)
    with tifffile.TiffWriter(FOLDER / "plain.tif") as file:
        file.write(colours, resolution=(40000, 20000), resolutionunit="CENTIMETER", metadata=None, photometric="rgb", compression="zlib", **TILE)
    described = {}
    for path in sorted([*FOLDER.glob("*.tif"), *FOLDER.glob("*.svs")]):
        if path.stem == "cmyk":
            continue
        with tifffile.TiffFile(path) as file:
            found = [level.asarray() for level in file.series[0].levels]
            if path.stem == "separate":
                found = [np.moveaxis(level, 0, -1) for level in found]
            # Alpha is left out.
            found = [level[..., :3] if level.ndim == 3 else level for level in found]
        # A region over several tiles, at the far end.
        regions = []
        for level in found:
            height, width = level.shape[:2]
            x, y = width // 5, height // 4
            part = level[y:, x:]
            regions.append({"size": [width, height], "region": [x, y, part.shape[1], part.shape[0]], "sum": int(part.astype(np.int64).sum()),
                            "pixels": part[:: max(1, part.shape[0] // 7), :: max(1, part.shape[1] // 9)].reshape(-1).tolist(),
                            "steps": [max(1, part.shape[1] // 9), max(1, part.shape[0] // 7)]})
        described[path.name] = regions
    (FOLDER / "slides.json").write_text(json.dumps({"tifffile": tifffile.__version__, "files": described}))


main()
