#!/usr/bin/env python3
"""Predicts the time of each CUDA kernel on the shapes of cases.json, on GPUs that nobody had at hand, and names what limits it.

    benches/roofline/roofline.py CASES.JSON [--markdown FILE]
    benches/roofline/roofline.py --check

--check compares the model with published measurements of known kernels, and fails when it is off by more than 25 %. Needs Python alone:
what the kernels issue is in loops.json, which loops.py reads from the machine code, and what they take of a multiprocessor is in
docs/cuda-kernels.md.

The model. A launch takes the longest of three times, and LAUNCH besides:
- multiprocessors: the blocks of the one that gets most of them, their warps' iterations of the main loop, and the cycles of an iteration.
  Each instruction takes one pipe (tensor cores, FP32, 32-bit integers, special functions, FP64, shared memory) for as long as the
  architecture's documented throughput says. If enough warps share a scheduler, pipes work side by side, and an iteration takes as long as
  the busiest of them, or as its issue slots; with OVERLAP warps or fewer, one after the other. A loop that waits for its loads with a
  barrier pays their latency too, less what other blocks do meanwhile;
- memory: bytes that must come and go once, at MEMORY of the bandwidth of the data sheet;
- the second-level cache: bytes that blocks bring, at its bandwidth.
"""
import argparse
import importlib.machinery
import importlib.util
import json
import math
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# Fitted to the measurements of --check, for all cards and kernels together.
CLOCK = 0.88   # of the boost clock that is kept while tensor cores or FP32 units are busy
MEMORY = 0.88  # of the bandwidth of the data sheet that a long copy reaches
OVERLAP = 2    # warps a scheduler up to which its pipes take turns

# Assumed, and the same for all cards; all else is documented.
LAUNCH = 2e-6  # seconds from the end of one kernel of a stream to the start of the next
LATENCY = 270  # cycles of a load from the second-level cache


@dataclass
class Card:
    """A card. Lanes are results a clock of a multiprocessor (CUDA C++ Programming Guide, "Throughput of Native Arithmetic Instructions");
    peaks are dense and with sums in f32 (data sheets and white papers of NVIDIA)."""
    name: str
    architecture: str
    multiprocessors: int
    clock: float          # Hz, boost
    memory: float         # bytes a second
    cache: float          # bytes a second of the second-level cache
    f16: float            # FLOP/s of tensor cores
    tf32: float
    lanes: int            # FP32
    fp64: int             # lanes
    mma: float = 1.0      # the part of the tensor cores' peak that `mma` reaches, against `wgmma`

    def flops(self, column):
        """Peak of a precision."""
        return {"f32": 2 * self.lanes * self.multiprocessors * self.clock, "tf32": self.tf32, "f16": self.f16}[column]

    def tensor_cycles(self, tf32):
        """Cycles of a scheduler for one m16n8k16 in half precision, or m16n8k8 in TF32, as `mma` has them."""
        of_scheduler = (self.tf32 if tf32 else self.f16) * self.mma / (4 * self.multiprocessors * self.clock)
        return 2 * 16 * 8 * (8 if tf32 else 16) / of_scheduler


# The second-level cache of A100: 5120 bytes a clock (white paper). Of H100 it is assumed to be the same; of RTX 4090 what an
# addition in the cache reached (mli/transformers-benchmarks, issue 4). `mma` on Hopper: 494 of 757 TFLOP/s on an H800 (Luo et
# al., arXiv 2501.12084, as the README of the repository of BENCH has it).
CARDS = [
    Card("RTX 4090", "89", 128, 2.52e9, 1008e9, 3.87e12, 165.2e12, 82.6e12, 128, 2),
    Card("A100 SXM 40 GB", "80", 108, 1.41e9, 1555e9, 5120 * 1.41e9, 312e12, 156e12, 64, 32),
    Card("A100 SXM 80 GB", "80", 108, 1.41e9, 2039e9, 5120 * 1.41e9, 312e12, 156e12, 64, 32),
    Card("H100 SXM", "90a", 132, 1.83e9, 3350e9, 5120 * 1.83e9, 989.4e12, 494.7e12, 128, 64, 494 / 757),
]
BY_NAME = {card.name: card for card in CARDS}


@dataclass
class Launch:
    """A launch of a kernel, or `kernel` "" where only bytes matter."""
    kernel: str
    blocks: int = 1
    iterations: float = 0
    bytes: float = 0       # that memory must bring or take
    cached: float = 0      # that blocks bring from the second-level cache
    waits: bool = False    # for its loads, in each iteration
    mix: dict = field(default_factory=dict)   # what an iteration of a warp issues; loops.json's without it
    warps: int = 8         # of a block
    at_once: int = 0       # blocks of a multiprocessor; by its registers and shared memory without it
    wgmma: bool = False    # tensor cores read shared memory by themselves: their instructions take no issue slots to speak of


@dataclass
class Time:
    seconds: float
    limit: str
    least: float           # the same with full overlap, no tail, no latency and no launch: the roofline with its issue limit
    occupancy: float = 0   # warps a scheduler


def pipes(mix, card, tf32):
    """Cycles of a scheduler for what a warp issues in an iteration, by pipe, and its issue slots."""
    quarter = 4
    shared = mix.get("shared", 0) * quarter   # one unit for four schedulers
    lanes = card.lanes / quarter
    return {
        "tensor cores": mix.get("tensor", 0) * card.tensor_cycles(tf32),
        "FP32": (mix.get("fma", 0)) * 32 / lanes + mix.get("imad", 0) * 2,
        "integers": mix.get("alu", 0) * 2,
        "special functions": (mix.get("mufu", 0) + mix.get("convert", 0)) * 8,
        "FP64": mix.get("fp64", 0) * 32 / (card.fp64 / quarter),
        "shared memory": shared,
        "issue": mix.get("instructions", 0),
    }


def serial(mix, card, tf32):
    """Cycles of an iteration whose instructions take turns: each for its pipe's time, at least one."""
    parts = pipes(mix, card, tf32)
    alone = parts["tensor cores"] + parts["special functions"] + parts["FP64"]
    counted = sum(mix.get(key, 0) for key in ("tensor", "mufu", "convert", "fp64"))
    return alone + mix.get("instructions", 0) - counted + max(parts["FP32"] - mix.get("fma", 0) - mix.get("imad", 0), 0)


def resources():
    """Of each kernel of docs/cuda-kernels.md: registers by architecture, shared memory and threads."""
    found = {}
    for line in (ROOT / "docs/cuda-kernels.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| `") or len(cells) < 8:
            continue
        registers = [int(one) for one in cells[2].split()]
        registers = dict(zip(("80", "86", "89", "90a", "100", "120"), registers if len(registers) == 6 else registers * 6))
        found[cells[0].strip("`")] = registers, sum(int(one) for one in cells[4].split("+")), int(cells[5])
    return found


def checker():
    """The script .ci/cuda-kernels as a module, for what a multiprocessor holds."""
    loader = importlib.machinery.SourceFileLoader("cuda_kernels", str(ROOT / ".ci/cuda-kernels"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("cuda_kernels", loader))
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


class Model:
    def __init__(self):
        self.loops = json.loads((HERE / "loops.json").read_text())
        self.resources = resources()
        self.occupancy = checker().occupancy

    def launch(self, one, card):
        """The time of a launch on a card, without LAUNCH."""
        bring, cached = one.bytes / (card.memory * MEMORY), one.cached / card.cache
        times, least, resident = {"memory": bring, "cache": cached}, max(one.bytes / card.memory, cached), 0
        if one.kernel or one.mix:
            mix, warps, at_once = one.mix, one.warps, one.at_once
            if not mix:
                registers, shared, threads = self.resources[one.kernel]
                mix, warps = self.loops[one.kernel][card.architecture], threads // 32
                at_once = self.occupancy(card.architecture, threads, registers[card.architecture], shared)[0]
            tf32 = "tf32" in one.kernel
            parts = pipes(mix, card, tf32)
            if one.wgmma:
                parts["tensor cores"] *= card.mma
            of_one = math.ceil(one.blocks / card.multiprocessors)
            together = min(at_once, of_one)
            resident = together * warps / 4
            busiest = max(parts, key=parts.get)
            cycles = parts[busiest]
            if not one.wgmma:
                cycles = max(cycles, serial(mix, card, tf32) * min(1, OVERLAP / resident))
            of_block = cycles * warps / 4
            iteration = together * of_block
            if one.waits:
                iteration = max(iteration, of_block + LATENCY)
            total = of_one / together * iteration * one.iterations
            limit = busiest
            if iteration > together * parts[busiest] * warps / 4 * 1.05:
                limit = f"{busiest}, few warps" if not one.waits or iteration > together * of_block else limit
                if one.waits and iteration > together * of_block:
                    limit = "latency of loads"
            if one.blocks < card.multiprocessors:
                limit += f" ({one.blocks} of {card.multiprocessors} multiprocessors)"
            times[limit] = total / (card.clock * CLOCK)
            least = max(least, one.blocks * warps / 4 * parts[busiest] * one.iterations / (card.multiprocessors * card.clock))
        limit = max(times, key=times.get)
        return Time(times[limit], limit, least, resident)

    def case(self, launches, card):
        """The time of several launches, and the limit of the longest."""
        each = [self.launch(one, card) for one in launches]
        seconds = sum(one.seconds for one in each)
        longest = max(each, key=lambda one: one.seconds)
        limit = longest.limit if seconds > LAUNCH * len(launches) else "launches"
        return Time(seconds + LAUNCH * len(launches), limit, sum(one.least for one in each), longest.occupancy)


# ---- The kernels' launches, as kernels/src/*/cuda/*.rs make them ----

def up(a, b):
    return -(-a // b)


def product(sizes):
    return math.prod(sizes)


@dataclass
class Conv:
    """A convolution: images, groups, channels and voxels."""
    batch: int
    groups: int
    inputs: int
    outputs: int
    input: list
    kernel: list
    stride: int
    pad: int

    @staticmethod
    def of(case):
        x, w = case["x"], case["w"]
        return Conv(x[0], case.get("groups", 1), x[1], w[0], x[2:], w[2:], case.get("stride", 1), case["pad"])

    @property
    def output(self):
        return [(size + 2 * self.pad - k) // self.stride + 1 for size, k in zip(self.input, self.kernel)]

    @property
    def flops(self):
        return 2 * self.batch * self.outputs * product(self.output) * self.inputs // self.groups * product(self.kernel)

    def sizes(self, size):
        """Bytes of x, weights and y."""
        return [size * n for n in (self.batch * self.inputs * product(self.input), self.outputs * self.inputs // self.groups * product(self.kernel),
                                   self.batch * self.outputs * product(self.output))]


def plain_product(kernel, rows, columns, terms, groups, batch, size_of_all, parts=1):
    """conv.cu: tiles of 64 × 64, slices of 16 terms."""
    blocks = up(rows, 64) * up(columns, 64) * groups * batch * parts
    steps = up(terms, 16)
    return Launch(kernel, blocks, steps, bytes=size_of_all, cached=blocks * steps * 2 * 64 * 16 * 4, waits=True)


def channels_last(voxels, channels, size, dtype):
    padded = up(channels, 16 // size) * (16 // size)
    blocks = up(voxels, 128) * up(padded, 32)
    return Launch("channels_last_tf32" if dtype == "tf32" else "channels_last_16", blocks, 1, bytes=voxels * (channels + padded) * size)


def tensor_product(dtype, rows, columns, taps, channels, groups, size, written):
    """implicit.cu: tiles of 32, 64 or 128 rows and 128 columns, slices of 64 bytes."""
    tile = 32 if rows <= 32 else 64 if rows <= 64 else 128
    padded = up(channels, 16 // size) * (16 // size)
    steps = up(taps * padded, 64 // size)
    blocks = up(rows, tile) * up(columns, 128) * groups
    return Launch(f"conv_tensor_{dtype}_{tile}", blocks, steps, bytes=columns * padded * groups * size + written, cached=blocks * steps * (tile + 128) * 64)


def depthwise(conv, dtype, size):
    wide, high = (64, 16) if conv.output[-1] > 32 else (32, 32)
    k, planes_out = conv.kernel[-1], conv.output[0] if len(conv.kernel) == 3 else 1
    tiles = conv.batch * conv.groups * up(conv.output[-1], wide) * up(conv.output[-2], high)
    parts = min(max(up(512, tiles), 1), max(up(planes_out, 4), 1))
    planes = up(planes_out, parts)
    rank = len(conv.kernel)
    iterations = planes + (k - 1 if rank == 3 else 0)
    kernel = f"depthwise{rank}d_{k}_{wide}_{'f32' if dtype == 'f32' else 'f16'}"
    x, w, y = conv.sizes(size)
    return Launch(kernel, tiles * up(planes_out, planes), iterations, bytes=x + w + y, cached=x * (1 + (k - 1) / planes) * 1.2)


def forward(conv, dtype):
    size = 2 if dtype == "f16" else 4
    x, w, y = conv.sizes(size)
    if conv.groups == conv.inputs and conv.groups > 1:
        return [depthwise(conv, dtype, size)]
    rows, channels, taps = conv.outputs // conv.groups, conv.inputs // conv.groups, product(conv.kernel)
    if dtype == "f32" or min(rows, channels) < 4:
        return [plain_product("conv_forward", rows, product(conv.output), channels * taps, conv.groups, conv.batch, conv.sizes(4)[0] + conv.sizes(4)[2])]
    voxels = conv.batch * product(conv.input)
    return [channels_last(voxels * conv.groups, channels, size, dtype), channels_last(conv.outputs * taps, channels, size, dtype),
            tensor_product(dtype, rows, conv.batch * product(conv.output), taps, channels, conv.groups, size, y)]


def backward(conv, dtype):
    """Gradients of data and weights of a convolution with stride 1 and one group, or depthwise."""
    size = 2 if dtype == "f16" else 4
    x, w, y = conv.sizes(size)
    if conv.groups == conv.inputs and conv.groups > 1:
        # The weights' gradient reads both images; its main loop isn't in loops.json.
        return [depthwise(conv, dtype, size), Launch("", bytes=x + y)]
    rows, channels, taps, terms = conv.outputs, conv.inputs, product(conv.kernel), conv.batch * product(conv.output)
    if dtype == "f32":
        tiles = up(rows, 64) * up(channels * taps, 64)
        wanted = max(min(up(256, tiles), up(terms, 512)), 1)
        length = up(up(terms, wanted), 16) * 16
        return [plain_product("conv_backward_data", channels, product(conv.input), rows * taps, 1, conv.batch, x + y),
                plain_product("conv_backward_weights", rows, channels * taps, length, 1, 1, x + y, up(terms, length))]
    tile = 32 if rows <= 32 else 64 if rows <= 64 else 128
    tiles = up(rows, tile) * up(taps * channels, 128)
    wanted = max(min(up(256, tiles), up(terms, 512)), 1)
    length = up(up(terms, wanted), 32) * 32
    parts, depth = up(terms, length), 64 // size
    weights = Launch(f"conv_tensor_weights_{dtype}_{tile}", tiles * parts, up(length, depth), bytes=x + y, cached=tiles * parts * length * (tile + 128) * size)
    return [channels_last(terms, rows, size, dtype), tensor_product(dtype, channels, terms, taps, rows, 1, size, x), channels_last(terms, channels, size, dtype),
            channels_last(terms, rows, size, dtype), weights]


def transposed(case, dtype):
    size = 2 if dtype == "f16" else 4
    (n, inputs, *input), (_, outputs, *kernel), stride = case["x"], case["w"], case["stride"]
    output = [side * stride for side in input]
    taps, x, y = product(kernel), size * n * inputs * product(input), size * n * outputs * product(output)
    if dtype == "f32":
        return [plain_product("conv_backward_data", outputs, product(output), inputs * taps, 1, n, x + y)]
    residue = lambda: tensor_product(dtype, outputs, n * product(input), 1, inputs, 1, size, y / taps)
    return [channels_last(n * product(input), inputs, size, dtype)] + [residue() for _ in range(stride ** len(input))]


def norm(shape, train):
    count = product(shape)
    sets, voxels = shape[0] * shape[1], product(shape[2:])
    segments = sets * up(voxels, 8192)
    # A thread has 32 elements of a segment, 16 an iteration; in the other kernels a thread has one element an iteration.
    each = lambda kernel, arrays: Launch(kernel, min(up(count, 256), 1 << 20), 1, bytes=4 * count * arrays)
    launches = [Launch("norm_moments", segments, 2, bytes=4 * count), Launch("", bytes=16 * segments), each("norm_apply", 2)]
    if train:
        launches += [Launch("norm_backward_sums", segments, 32, bytes=8 * count), Launch(""), Launch(""), each("norm_backward_data", 3)]
    return launches


def matmul(m, n, k, dtype):
    tiles, size = up(m, 128) * up(n, 128), 2 if dtype == "f16" else 4
    parts = max(min(up(128, tiles), k // 512), 1) if dtype != "f16" else 1
    depth = 32 if dtype == "f16" else 16
    kernel = f"gemm_{dtype}_nn"
    launch = Launch(kernel, tiles * parts, up(k // parts, depth), bytes=size * (m * k + k * n + parts * m * n), cached=tiles * k * 256 * size)
    return [launch] + ([Launch("", bytes=4 * m * n * (parts + 1))] if parts > 1 else [])


def attention(shape, dtype):
    batch, length, size = product(shape[:-2]), *shape[-2:]
    wide = 32 if size <= 32 else 64
    kernel = f"attention_{'f32' if dtype == 'f32' else 'f16'}_{wide}"
    bytes_of = 2 if dtype == "f16" else 4
    blocks, iterations = batch * up(length, 64), up(length, 64)
    return [Launch(kernel, blocks, iterations, bytes=4 * batch * length * size * bytes_of, cached=blocks * iterations * 2 * 64 * size * bytes_of)]


def scan(shape, states, train):
    batch, channels, length = shape
    once = 4 * (3 * batch * channels * length + 2 * batch * states * length)
    chunks = up(length, 512)
    again = 4 * 2 * states * length * channels * batch
    launches = [Launch("scan_f32", batch * channels, chunks, bytes=once, cached=once + again)]
    if train:
        parts = max(min(channels, 512, 2 * channels // states), 1)
        each = up(channels, parts)
        launches += [Launch("scan_backward_f32", batch * up(channels, each), chunks * each, bytes=2 * once + 2 * 4 * parts * batch * states * length, cached=2 * again),
                     Launch("", bytes=2 * 4 * parts * batch * states * length)]
    return launches


def unet3d(shape, classes, widths=(32, 64, 128, 256)):
    """The convolutions of the network of the cases: two a level, the first of the lower levels with stride 2, transposed ones upwards, each
    with its norm or without one; as (kind, what the functions above take)."""
    layers, sides, inputs = [], [list(shape[2:])], shape[1]
    conv = lambda a, b, k, stride, side: Conv(shape[0], 1, a, b, side, [k] * 3, stride, k // 2)
    for level, width in enumerate(widths):
        first = conv(inputs, width, 3, 1 if level == 0 else 2, sides[-1])
        sides.append(first.output)
        layers += [("conv", first), ("conv", conv(width, width, 3, 1, first.output))]
        inputs = width
    sides = sides[1:]
    for width, below, side in list(zip(widths, widths[1:], sides[1:]))[::-1]:
        up = {"x": [shape[0], below, *side], "w": [below, width, 2, 2, 2], "stride": 2}
        output = [2 * one for one in side]
        layers += [("convt", up), ("conv", conv(2 * width, width, 3, 1, output)), ("conv", conv(width, width, 3, 1, output))]
    return layers + [("head", conv(widths[0], classes, 1, 1, sides[0]))]


def network(case, dtype):
    """Launches, FLOPs and bytes of a network's inference."""
    launches, flops, bytes_of = [], 0, 0
    for kind, layer in unet3d(case["x"], case["classes"]):
        if kind == "convt":
            launches += transposed(layer, dtype)
            results = product(layer["x"][2:]) * 8 * layer["w"][1] * layer["x"][0]
            flops += 2 * results * layer["w"][0]
            bytes_of += 4 * (product(layer["x"]) + results)
            continue
        # Fewer than four channels aren't for tensor cores.
        of_layer = "f32" if min(layer.inputs, layer.outputs) < 4 else dtype
        launches += forward(layer, of_layer)
        flops += layer.flops
        bytes_of += sum(layer.sizes(4))
        if kind == "conv":
            launches += norm([layer.batch, layer.outputs, *layer.output], False)
    return launches, flops, bytes_of, dtype


def work(case):
    """Of each precision: launches, FLOPs and bytes that any implementation must do."""
    kind, shape, train = case["kind"], case["x"], case["mode"] == "train"
    count = product(shape)
    size = lambda dtype: 2 if dtype == "f16" else 4
    if kind == "conv":
        conv = Conv.of(case)
        is_depthwise = conv.groups == conv.inputs and conv.groups > 1
        few = min(conv.inputs, conv.outputs) // conv.groups < 4 and not is_depthwise
        dtypes = ("f32", "f16") if is_depthwise else ("f32",) if few else ("f32", "tf32", "f16")
        times = 3 if train else 1
        return {dtype: (forward(conv, dtype) + (backward(conv, dtype) if train else []), times * conv.flops,
                        (1 if not train else 2.5) * sum(conv.sizes(size(dtype))), "f32" if is_depthwise else dtype) for dtype in dtypes}
    if kind == "convt":
        outputs = case["w"][1]
        flops = 2 * count * outputs * product(case["w"][2:])
        y = count // shape[1] * outputs * product(case["w"][2:])
        return {dtype: (transposed(case, dtype), flops, size(dtype) * (count + y), dtype) for dtype in ("f32", "tf32", "f16")}
    if kind == "inorm_lrelu":
        return {"f32": (norm(shape, train), (20 if train else 8) * count, 4 * count * (5 if train else 2), "f32")}
    if kind == "maxpool":
        return {"f32": ([Launch("", bytes=4 * count * 9 / 8)], count, 4 * count * 9 / 8, "f32")}
    if kind == "upsample":
        return {"f32": ([Launch("", bytes=4 * count * 9)], 8 * 7 * count, 4 * count * 9, "f32")}
    if kind == "matmul":
        (m, k), n = shape, case["w"][1]
        return {dtype: (matmul(m, n, k, dtype), 2 * m * n * k, size(dtype) * (m * k + k * n + m * n), dtype) for dtype in ("f32", "tf32", "f16")}
    if kind == "layernorm":
        rows, columns = shape
        launches = [Launch("layer_norm_statistics", rows, columns / 256 / 16, bytes=4 * count), Launch("layer_norm_apply", up(count, 1024), 1, bytes=4 * count)]
        return {"f32": (launches, 8 * count, 8 * count, "f32")}
    if kind == "attention" and not train:
        batch, length, size_of_head = product(shape[:-2]), *shape[-2:]
        flops = 4 * batch * length * length * size_of_head
        return {dtype: (attention(shape, dtype), flops, 4 * count * size(dtype), dtype) for dtype in ("f32", "f16")}
    if kind == "scan":
        once = 4 * (3 * count + 2 * shape[0] * case["n"] * shape[2])
        return {"f32": (scan(shape, case["n"], train), (22 if train else 6) * count * case["n"], once * (3 if train else 1), "f32")}
    if kind == "net" and case["net"] == "unet3d" and not train:
        return {dtype: network(case, dtype) for dtype in ("f32", "tf32")}
    return {}


# ---- Published measurements ----

def gemm(card, n, kernel, tile, deep=1):
    """A product of n³ by a library: tiles of a block, of which one is on a multiprocessor at a time."""
    rows, columns = tile
    tf32 = kernel == "tf32"
    blocks = up(n, rows) * up(n, columns)
    size = 4 if tf32 else 2
    depth = 8 if tf32 else 16
    # Of a warp of eight: the tensor-core instructions of a step of `depth`, and for each of Ampere's loads, copies and counting.
    tensor = rows * columns / (16 * 8) / 8
    wgmma = card.mma < 1
    mix = {"tensor": tensor, "instructions": tensor * (1.0 if wgmma else 1.6)}
    return Launch(kernel, blocks, n / depth, bytes=3 * n * n * size, cached=blocks * n * (rows + columns) * size, mix=mix, at_once=1, wgmma=wgmma)


def sgemm(n):
    """A product of n³ in FP32: tiles of 128 × 128 of 256 threads, each with 8 × 8 results: a step of the sum is 64 products and 4 loads."""
    mix = {"fma": 64, "instructions": 72, "shared": 8}
    return Launch("f32", up(n, 128) ** 2, n, bytes=12 * n * n, cached=up(n, 128) ** 2 * n * 256 * 4, mix=mix, at_once=2)


def flash2(batch, heads, length, size):
    """FlashAttention-2 forward: 128 queries a block of 4 warps, 64 keys an iteration. Of a warp with 16 queries: tensor-core instructions of
    both products, an exponential, a scaling, a maximum, a sum and half a conversion for each score, and loads of fragments, which two
    groups of queries share."""
    tensor = 2 * 16 * 64 * size / 2048
    scores = 16 * 64 / 32
    fragments = 2 * 64 * size * 2 / 512 / 2
    mix = {"tensor": tensor, "mufu": scores, "fma": 2 * scores, "alu": 1.5 * scores, "shared": 4 * fragments, "memory": fragments}
    mix["instructions"] = sum(value for key, value in mix.items() if key != "shared") + 10
    return Launch("f16", batch * heads * up(length, 128), 2 * up(length, 64), bytes=8 * batch * heads * length * size,
                  cached=batch * heads * up(length, 128) * length * size * 4, mix=mix, warps=4, at_once=2)


BENCH = "github.com/waynehacking8/blackwell-tensorcore-kernels at c289bde, results/bench.csv"
PUBLISHED = [
    # Name, card, launch, seconds, source.
    ("cuBLAS f16, 8192³", "H100 SXM", lambda c: gemm(c, 8192, "f16", (320, 128)), 1.443e-3, BENCH),
    ("cuBLAS f16, 4096³", "H100 SXM", lambda c: gemm(c, 4096, "f16", (320, 128)), 0.188e-3, BENCH),
    ("cuBLAS f16, 2048³", "H100 SXM", lambda c: gemm(c, 2048, "f16", (320, 128)), 0.031e-3, BENCH),
    ("cuBLAS TF32, 8192³", "H100 SXM", lambda c: gemm(c, 8192, "tf32", (256, 128)), 2.633e-3, BENCH),
    ("cuBLAS FP32, 8192³", "H100 SXM", lambda c: sgemm(8192), 23.229e-3, BENCH),
    ("FlashAttention-2 forward, 32 heads of 8192 × 128, f16", "H100 SXM", lambda c: flash2(2, 16, 8192, 128), 2.831e-3,
     "the same repository, results/reference/fa3.txt (388.3 TFLOP/s)"),
    ("cuBLAS f16, 8192³", "A100 SXM 80 GB", lambda c: gemm(c, 8192, "f16", (256, 128)), 2 * 8192**3 / 230e12,
     "github.com/mli/transformers-benchmarks at 04df81d, README.md (230 TFLOP/s; it doesn't say whether SXM)"),
    ("cuBLAS TF32, 8192³", "A100 SXM 80 GB", lambda c: gemm(c, 8192, "tf32", (256, 128)), 2 * 8192**3 / 116e12, "the same (116 TFLOP/s)"),
    ("vector times number, f32", "A100 SXM 80 GB", lambda c: Launch("", bytes=8 * 1e9), 1e9 / 0.202e12, "the same (0.202 TFLOP/s)"),
    ("device copy", "A100 SXM 40 GB", lambda c: Launch("", bytes=1e10), 1e10 / 1355e9,
     "github.com/PTsolvers/gpu-workshop-JuliaCon23, issue 7 (1355 GB/s)"),
    ("cuBLAS f16, 8192³", "RTX 4090", lambda c: gemm(c, 8192, "f16", (256, 128)), 2 * 8192**3 / 158.6e12,
     "github.com/mli/transformers-benchmarks, issue 4 (158.6 TFLOP/s)"),
    ("cuBLAS TF32, 8192³", "RTX 4090", lambda c: gemm(c, 8192, "tf32", (256, 128)), 2 * 8192**3 / 86.7e12, "the same (86.7 TFLOP/s in float32; above the peak of FP32, so TF32)"),
    ("cuBLAS FP32, 8192³", "RTX 4090", lambda c: sgemm(8192), 2 * 8192**3 / 50.243e12, "the same, second comment (50.2 TFLOP/s in float32)"),
]


def check(model):
    """The rows of the comparison, and those that are off by more than 25 %."""
    rows, wrong = [], []
    for name, card, launch, measured, source in PUBLISHED:
        predicted = model.case([launch(BY_NAME[card])], BY_NAME[card])
        off = predicted.seconds / measured - 1
        rows.append(f"| {name} | {card} | {measured * 1e3:.3f} | {predicted.seconds * 1e3:.3f} | {off:+.0%} | {predicted.limit} | {source} |".replace("%", " %"))
        if abs(off) > 0.25:
            wrong.append(f"{name} on {card}: {off:+.0%}")
    return rows, wrong


INTRODUCTION = """# Predicted times of the CUDA kernels

**Predictions on paper, by `benches/roofline/roofline.py`. No GPU has run the kernels; a measurement replaces a prediction where there is one.**

Each case of `cases.json` is taken apart into the launches that the kernels make; a launch takes as long as the busiest of its pipes, memory or
the second-level cache says, with the machine code's own mix of instructions (`loops.json`), the registers and shared memory of
`docs/cuda-kernels.md`, its blocks and the tail of its last wave. The script says how. Three constants were fitted to the published
measurements below, for all cards and kernels together: {clock:.2f} of the boost clock under load, {memory:.2f} of the memory's bandwidth, and that pipes
take turns with {overlap} warps a scheduler or fewer. Assumed are 2 µs between two kernels, 270 cycles for a load from the second-level cache,
and 5120 bytes a clock of that cache on H100, as A100 has. What the host needs to launch kernels isn't in the times.

*Roofline* is the larger of FLOPs by peak and bytes by bandwidth, at the figures of the data sheets (tensor cores in f16 and TF32; FP32 for
depthwise convolutions), which no kernel reaches; on H100 the peak of `wgmma`, of which `mma`, which these kernels use, reaches {mma:.0%}. *With issue*
is the roofline with what the kernels issue: the busiest pipe or the issue slots of every instruction, all multiprocessors busy all the time.
Rows below 60 % of that are **bold**: latency, few warps, few blocks or launches cost the rest.

The model doesn't know: bank conflicts and replays beyond the table's, branches that the shortest way through a loop misses, the order of
blocks in the cache, and inputs that stay there from run to run. Not predicted: attention's backward pass, trainings of networks, and networks
other than `unet3d`, which is the sum of its convolutions and norms. bf16 is as f16. Max pooling and interpolation are predicted by their bytes
alone, as is the gradient of depthwise weights.
"""


def page(model, cases):
    rows, wrong = check(model)
    text = INTRODUCTION.format(clock=CLOCK, memory=MEMORY, overlap=OVERLAP, mma=BY_NAME["H100 SXM"].mma).replace("%*", "% *").replace("65%", "65 %")
    text += "\n## Known kernels\n\nMilliseconds. The check `roofline.py --check` fails beyond 25 %.\n\n"
    text += "| kernel | card | measured | the model | off | limit | source |\n| --- | --- | ---: | ---: | ---: | --- | --- |\n" + "\n".join(rows) + "\n"
    below, all_rows = {}, 0
    for card in CARDS:
        text += f"\n## {card.name}\n\n| case | precision | predicted ms | limit | warps a scheduler | of the roofline | of the roofline with issue |\n"
        text += "| --- | --- | ---: | --- | ---: | ---: | ---: |\n"
        for name, case in cases.items():
            if name == "_":
                continue
            for dtype, (launches, flops, bytes_of, peak) in work(case).items():
                time = model.case(launches, card)
                roof = max(flops / card.flops(peak), bytes_of / card.memory)
                share, of_issue = roof / time.seconds, max(time.least, roof) / time.seconds
                all_rows += 1
                if of_issue < 0.6:
                    below.setdefault(card.name, []).append(f"{name} ({dtype})")
                mark = "**" if of_issue < 0.6 else ""
                text += (f"| {name} | {dtype} | {time.seconds * 1e3:.4f} | {time.limit} | {time.occupancy:.1f} | {share:.0%} | {mark}{of_issue:.0%}{mark} |\n").replace("%", " %")
    text += f"\n## Below 60 % of the roofline with issue\n\nOf {all_rows // len(CARDS)} rows a card:\n\n"
    for card in CARDS:
        names = below.get(card.name, [])
        text += f"- {card.name}, {len(names)}: {', '.join(names) or 'none'}\n"
    return text, wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="?", type=Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    model = Model()
    if options.check:
        rows, wrong = check(model)
        print("\n".join(rows))
    elif options.cases:
        text, wrong = page(model, json.loads(options.cases.read_text()))
        if options.markdown:
            options.markdown.write_text(text)
        else:
            print(text)
    else:
        parser.error("CASES.JSON or --check")
    if wrong:
        sys.exit("off by more than 25 %: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
