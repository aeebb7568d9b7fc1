#!/usr/bin/env python3
"""Reads the machine code of the kernels that benches/roofline/roofline.py predicts, and writes what one iteration of each main loop issues.

    target/cuda-tools/bin/python benches/roofline/loops.py [--write]

Needs the virtual environment of .ci/cuda-kernels, whose compiler and cache it uses. Without --write it fails when loops.json isn't what it
would be. An iteration is that of one warp: instructions by the pipe that they take, and cycles of shared memory. What is left out of a loop:
blocks for rows that aren't aligned (copies of less than 16 bytes beside copies of 16), loops that add biases, and remainders of unrolled
loops. A loop within it counts as often as the table says. Of kernels whose threads choose among functions, the shortest way through the
loop counts.
"""
import collections
import importlib.machinery
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FILE = HERE / "loops.json"
ARCHITECTURES = ["80", "89", "90a"]
# Of each kernel: its file, and the loops within its main loop that are counted, as (instruction, how many of it, times).
KERNELS = {
    "conv_forward": ("conv/cuda/conv.cu", [("LDG", 4, 1)]),
    "conv_backward_data": ("conv/cuda/conv.cu", [("LDG", 4, 1)]),
    "conv_backward_weights": ("conv/cuda/conv.cu", [("LDG", 4, 1)]),
    "depthwise3d_3_32_f32": ("conv/cuda/depthwise.cu", []),
    "depthwise3d_7_32_f32": ("conv/cuda/depthwise.cu", []),
    "depthwise2d_7_64_f32": ("conv/cuda/depthwise.cu", []),
    "depthwise3d_3_32_f16": ("conv/cuda/depthwise.cu", []),
    "depthwise3d_7_32_f16": ("conv/cuda/depthwise.cu", []),
    "depthwise2d_7_64_f16": ("conv/cuda/depthwise.cu", []),
    "gemm_f32_nn": ("matmul/cuda/gemm.cu", []),
    "gemm_tf32_nn": ("matmul/cuda/gemm.cu", []),
    "gemm_f16_nn": ("matmul/cuda/gemm.cu", []),
    # Scores are 16 of a thread, of D products each; the values' sums are D / 4 of a thread, of 64 products each.
    "attention_f32_64": ("attention/cuda/attention.cu", [("FFMA", 256, 4), ("FFMA", 128, 8), ("LDGSTS", 4, 1)]),
    "attention_f32_32": ("attention/cuda/attention.cu", [("FFMA", 256, 2), ("FFMA", 128, 4), ("LDGSTS", 4, 0.5)]),
    "attention_f16_64": ("attention/cuda/attention.cu", []),
    "attention_f16_32": ("attention/cuda/attention.cu", []),
    # An iteration is a chunk of 512 steps, 16 states one after another.
    "scan_f32": ("scan/cuda/scan.cu", [("MUFU", 4, 16)]),
    "scan_backward_f32": ("scan/cuda/backward.cu", [("MUFU", 4, 16)]),
    "norm_moments": ("norm/cuda/norm.cu", None),
    "norm_apply": ("norm/cuda/norm.cu", []),
    "norm_backward_sums": ("norm/cuda/norm.cu", []),
    "norm_backward_data": ("norm/cuda/norm.cu", []),
    "layer_norm_statistics": ("norm/layer/cuda/layer.cu", None),
    "layer_norm_apply": ("norm/layer/cuda/layer.cu", None),
    "channels_last_16": ("conv/cuda/channels_last.cu", [("STS", 4, 1), ("LDS", 16, 1)]),
    "channels_last_tf32": ("conv/cuda/channels_last.cu", [("STS", 4, 1), ("LDS", 16, 1)]),
}
for rows in (32, 64, 128):
    for dtype in ("tf32", "f16"):
        KERNELS[f"conv_tensor_{dtype}_{rows}"] = ("conv/cuda/implicit.cu", [])
        KERNELS[f"conv_tensor_weights_{dtype}_{rows}"] = ("conv/cuda/implicit_weights.cu", [])
# Cycles of shared memory for a warp's read of 16 bytes a lane, where lanes share addresses, as the tiles of the kernels make them: of the two
# operands of 4 × 4 or 8 × 8 results a thread, one is two addresses for a warp and the other sixteen; taps of depthwise kernels are one
# address, their rows 32.
WIDE_READ = {"conv_forward": 1.5, "conv_backward_data": 1.5, "conv_backward_weights": 1.5, "gemm_f32_nn": 1.5, "attention_f32_64": 1.5,
             "attention_f32_32": 1.5, "depthwise3d_3_32": 2.2, "depthwise3d_7_32": 1.5, "depthwise2d_7_64": 2.8}
# Those whose threads choose among functions of a chain.
SHORTEST = {"norm_apply", "norm_backward_sums", "norm_backward_data"}


def checker():
    """The script .ci/cuda-kernels as a module."""
    loader = importlib.machinery.SourceFileLoader("cuda_kernels", str(ROOT / ".ci/cuda-kernels"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("cuda_kernels", loader))
    loader.exec_module(module)
    return module


def opcode(instruction):
    return re.sub(r"^@!?U?P\w+\s+", "", instruction).split()[0]


def pipe(name):
    """The pipe that an instruction takes."""
    first = name.split(".")[0]
    if first in ("HMMA", "IMMA"):
        return "tensor"
    if first in ("FFMA", "FMUL", "FADD"):
        return "fma"
    if first == "IMAD":
        return "imad"
    if first == "MUFU":
        return "mufu"
    if first in ("DADD", "DMUL", "DFMA", "DSETP", "DMNMX"):
        return "fp64"
    if first in ("F2F", "I2F", "F2I", "I2FP", "F2FP") and ".F64" in name:
        return "fp64"
    if first in ("F2F", "I2F", "F2I"):
        return "convert"
    if first in ("LDS", "STS", "LDSM", "LDGSTS", "LDG", "STG", "SHFL", "RED", "ATOMS"):
        return "memory"
    if first.startswith("U") or first in ("BRA", "BRX", "BSYNC", "BSSY", "BAR", "EXIT", "NOP", "LDC", "S2R", "S2UR", "R2UR", "LDGDEPBAR", "DEPBAR",
                                          "WARPSYNC", "CS2R", "CALL", "RET", "YIELD", "NANOSLEEP", "ERRBAR", "MEMBAR", "LDCU", "VOTE"):
        return "other"
    return "alu"


def wavefronts(name, wide_read):
    """Cycles that shared memory needs for one instruction of a warp."""
    first = name.split(".")[0]
    if first not in ("LDS", "STS", "LDSM", "LDGSTS"):
        return 0
    if first == "LDSM":
        return 4 if ".4" in name else 2 if ".2" in name else 1
    if first == "LDS" and ".128" in name:
        return wide_read
    return 4 if ".128" in name else 2 if ".64" in name else 1


def functions(text):
    """The instructions of each kernel, and the places of its labels."""
    for part in text.split(".section\t.text.")[1:]:
        code, labels = [], {}
        for line in part.splitlines():
            if label := re.match(r"(\.L_x_\d+):", line):
                labels[label[1]] = len(code)
            elif instruction := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
                code.append(instruction[1])
        yield re.match(r"\w+", part)[0], code, labels


def target(instruction):
    found = re.search(r"\bBRA(?:\.\w+)*\b.*?(\.L_x_\d+)", instruction)
    return found and found[1]


def loops_of(code, labels):
    """First and last place of each loop."""
    found = [(labels[label], place) for place, one in enumerate(code) if (label := target(one)) and labels.get(label, place + 1) <= place]
    return [loop for loop in found if loop[1] - loop[0] > 3]


def blocks_of(code, labels, first, last):
    """The basic blocks of a loop, as first places, and one more."""
    ends = {place + 1 for place in range(first, last + 1) if re.search(r"\b(BRA|BRX|EXIT|RET|BSYNC)\b", code[place])}
    return sorted({first} | {place for place in labels.values() if first <= place <= last} | {e for e in ends if e <= last}) + [last + 1]


def counted(code, wide_read=4):
    mix = collections.Counter()
    for instruction in code:
        name = opcode(instruction)
        mix["instructions"] += 1
        mix[pipe(name)] += 1
        mix["shared"] += wavefronts(name, wide_read)
    return mix


def shortest(code, labels, first, last):
    """The fewest instructions from a loop's head to its end, as places."""
    starts = blocks_of(code, labels, first, last)
    best = {first: (0, None)}
    # Blocks are in an order in which branches go forward but for loops, which the shortest way doesn't take.
    for start, end in zip(starts, starts[1:]):
        if start not in best:
            continue
        cost = best[start][0] + end - start
        jump, following = target(code[end - 1]), []
        if jump and labels[jump] > start:
            following.append(labels[jump])
        if not jump or code[end - 1].startswith("@"):
            following.append(end)
        if re.search(r"\bBRX\b", code[end - 1]):
            following = [place for place in starts if place >= end]
        for place in following:
            if place <= last + 1 and (place not in best or cost < best[place][0]):
                best[place] = (cost, start)
    place, way = last + 1, []
    if place not in best:
        place = starts[-2]
        way.append(place)
    while best[place][1] is not None:
        place = best[place][1]
        way.append(place)
    return [one for start, end in zip(starts, starts[1:]) if start in way for one in code[start:end]]


def iteration(name, code, labels, inner):
    """What one iteration of the main loop issues."""
    loops, wide_read = loops_of(code, labels), WIDE_READ.get(re.sub(r"(depthwise.*)_f\d+", r"\1", name), 4)
    count = lambda loop, what: sum(opcode(one).split(".")[0] == what for one in code[loop[0] : loop[1] + 1])
    within = lambda one, other: other[0] <= one[0] and one[1] <= other[1] and one != other
    if inner is None:
        # The loop that reads most, and no loop within it.
        main = max((loop for loop in loops if not any(within(one, loop) for one in loops)), key=lambda loop: count(loop, "LDG"))
        return counted(code[main[0] : main[1] + 1])
    # The smallest loop with most tensor-core instructions, products and functions, loops within it included as often as they run.
    def weight(loop):
        parts = [(count(one, what), number, times) for one in loops if within(one, loop) for what, number, times in inner if count(one, what) == number]
        return count(loop, "HMMA"), sum(number * times for _, number, times in parts), count(loop, "FFMA") + count(loop, "MUFU"), count(loop, "LDG") > 0
    main = max(loops, key=lambda loop: (*weight(loop), loop[0] - loop[1]))
    if name in SHORTEST:
        return counted(shortest(code, labels, *main))
    nested = [one for one in loops if within(one, main)]
    nested = [one for one in nested if not any(within(one, other) for other in nested)]
    has_copies = count(main, "LDGSTS") > 0
    mix, seen = collections.Counter(), set()
    starts = blocks_of(code, labels, *main)
    for start, end in zip(starts, starts[1:]):
        block = code[start:end]
        names = [opcode(one) for one in block]
        if any(one[0] <= start <= one[1] for one in nested):
            continue
        unaligned = has_copies and any(n.startswith(("LDG.", "STS.U16")) or (n.startswith("LDGSTS") and ".128" not in n) for n in names)
        if not unaligned:
            mix.update(counted(block, wide_read))
    for one in nested:
        for what, number, times in inner:
            if count(one, what) == number:
                seen.add((what, number))
                for key, value in counted(code[one[0] : one[1] + 1], wide_read).items():
                    mix[key] += value * times
    missing = {(what, number) for what, number, times in inner if times} - seen
    if missing:
        raise SystemExit(f"{name}: no loop in the main loop has {missing}; the kernel has changed, and the table of loops.py must, too")
    return mix


def main():
    module = checker()
    folder = module.wheel_folder()
    nvrtc = module.Nvrtc(folder)
    found = {name: {} for name in KERNELS}
    for file in sorted({file for file, _ in KERNELS.values()}):
        for architecture in ARCHITECTURES:
            cubin, _ = nvrtc.compile(ROOT / "kernels/src" / file, architecture)
            with tempfile.NamedTemporaryFile(suffix=".cubin") as temporary:
                temporary.write(cubin)
                temporary.flush()
                command = [folder / "bin/nvdisasm", "-c", temporary.name]
                text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            for name, code, labels in functions(text):
                if name in KERNELS and KERNELS[name][0] == file:
                    mix = iteration(name, code, labels, KERNELS[name][1])
                    found[name][architecture] = {key: mix[key] for key in sorted(mix) if mix[key]}
    missing = [name for name, mixes in found.items() if len(mixes) < len(ARCHITECTURES)]
    if missing:
        raise SystemExit(f"no such kernels: {', '.join(missing)}")
    lines = [f' "{name}": {json.dumps({a: {k: round(v, 1) for k, v in mix.items()} for a, mix in mixes.items()})}' for name, mixes in sorted(found.items())]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    if "--write" in sys.argv:
        FILE.write_text(text)
    elif not FILE.exists() or FILE.read_text() != text:
        raise SystemExit("loops.json isn't what it would be; see --write")
    print(f"the main loops of {len(found)} kernels")


if __name__ == "__main__":
    main()
