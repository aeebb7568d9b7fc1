#!/usr/bin/env python3
"""Times this project and PyTorch on the same cases, side by side, and prints their ratios beside the roofline.

    benches/compare.py [--case NAME ...] [--rounds N] [--threads N] [--isa avx2] [--peers DIR] [--bench zoo]
                       [--python PATH] [--json FILE] [--markdown FILE]

The cases are those of cases.json in the peers folder; with --bench zoo, the networks of zoo.json beside their originals
(zoo_torch.py), and memory is what comes on top of the weights. The two sides take turns, one case a process; a round is one run of
each, and a side's time is its least over all rounds, so that whatever else the machine does meets both alike. PyTorch tries
all its variants (memory formats, folded batch norm) in every round; with --quick only the fastest after the first. Memory is peak minus idle
resident size. roofline = max(flops / peak, bytes / bandwidth), with the peaks that the benchmark itself measured on
this machine; share = roofline / our time. ratio above 1: this project is that many times faster; memory ratio below 1: it
needs less. --isa holds both sides to an instruction set (avx2, avx512).
"""
import argparse
import datetime
import json
import math
import os
import pathlib
import platform
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TORCH_ISA = {"avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
             "avx512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "ATEN_CPU_CAPABILITY": "avx512", "MKL_ENABLE_INSTRUCTIONS": "AVX512"}}


def json_lines(text):
    """The json objects of an output; other lines are talk."""
    for line in text.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def build(bench="peers"):
    """Builds a benchmark once and returns its program."""
    command = ["cargo", "bench", "--bench", bench, "--no-run", "--message-format=json"]
    out = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if out.returncode:
        sys.exit("compare: the benchmark does not build")
    for message in json_lines(out.stdout):
        target = message.get("target", {})
        if message.get("executable") and target.get("name") == bench and "bench" in target.get("kind", []):
            return message["executable"]
    sys.exit(f"compare: cargo named no program for the benchmark `{bench}`")


class Side:
    """One side of one case: its runs, and the least of them."""

    def __init__(self):
        self.runs, self.error = [], None

    def add(self, command, env=None):
        """Returns the other objects that the run printed."""
        if self.error:
            return []
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=ROOT)
        objects = list(json_lines(done.stdout))
        if done.returncode or not any("min_s" in o for o in objects):
            lines = (done.stderr or done.stdout).strip().splitlines()
            self.error = lines[-1][:160] if lines else f"exit code {done.returncode}"
            return []
        self.runs += [o for o in objects if "min_s" in o]
        return [o for o in objects if "min_s" not in o]

    @property
    def best(self):
        return min(self.runs, key=lambda r: r["min_s"], default=None)

    @property
    def memory_mb(self):
        grown = [r["peak_rss_mb"] - r["idle_rss_mb"] for r in self.runs if "peak_rss_mb" in r and "idle_rss_mb" in r]
        return min(grown, default=None)

    @property
    def weights_mb(self):
        return next((r["weights_mb"] for r in self.runs if "weights_mb" in r), 0)


def cpu_name():
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cpu_flags():
    try:
        flags = next(l for l in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if l.startswith("flags")).split()
    except (OSError, StopIteration):
        return []
    return [f for f in ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16") if f in flags]


def divide(a, b):
    return a / b if a is not None and b else None


def row(name, theirs, ours, machine):
    t, o = theirs.best, ours.best
    above = [side.memory_mb and max(side.memory_mb - theirs.weights_mb, 0) for side in (theirs, ours)]
    out = {"case": name, "torch_ms": t and t["min_s"] * 1e3, "torch_variant": t and t.get("variant"), "ours_ms": o and o["min_s"] * 1e3,
           "isa": o and o.get("isa"), "ratio": divide(t and t["min_s"], o and o["min_s"]), "torch_mb": above[0], "ours_mb": above[1],
           "memory_ratio": divide(above[1], above[0]), "roofline_ms": None, "share": None,
           "torch_median_ms": t and min(r["median_s"] for r in theirs.runs) * 1e3, "ours_median_ms": o and min(r["median_s"] for r in ours.runs) * 1e3}
    if o and machine.get("fma_gflops") and machine.get("copy_gbs"):
        bounds = [o.get("flops", 0) / (machine["fma_gflops"] * 1e9), o.get("bytes", 0) / (machine["copy_gbs"] * 1e9)]
        if max(bounds) > 0:
            out |= {"roofline_ms": max(bounds) * 1e3, "share": max(bounds) / o["min_s"], "bound": "compute" if bounds[0] >= bounds[1] else "memory"}
    for side, error in (("torch_error", theirs.error), ("ours_error", ours.error)):
        if error:
            out[side] = error
    return out


COLUMNS = [("case", "case", "{}"), ("torch ms", "torch_ms", "{:.2f}"), ("ours ms", "ours_ms", "{:.2f}"), ("ratio", "ratio", "{:.2f}"),
           ("torch MB", "torch_mb", "{:.0f}"), ("ours MB", "ours_mb", "{:.0f}"), ("memory ratio", "memory_ratio", "{:.2f}"),
           ("roofline ms", "roofline_ms", "{:.2f}"), ("share", "share", "{:.0%}"), ("torch variant", "torch_variant", "{}")]


def cells(r):
    return [f.format(r[k]) if r.get(k) is not None else "-" for _, k, f in COLUMNS]


def table(rows):
    lines = [[title for title, _, _ in COLUMNS]] + [cells(r) for r in rows]
    widths = [max(len(l[i]) for l in lines) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(l, widths))) for l in lines)


def markdown(head, rows):
    text = [f"Measured {head['date']} on {head['cpu']} ({', '.join(head['flags'])}), {head['threads']} threads, instruction set of this "
            f"project: {head['isa']}, peer: {head['peer']}. Least of {head['rounds']} interleaved rounds. Measured peaks: "
            + (", ".join(f"{k} {v:.1f}" for k, v in head["machine"].items() if k in ("fma_gflops", "copy_gbs")) or "none")
            + ". Ratio above 1: this project is faster; memory (peak minus idle) ratio below 1: it needs less.", "",
            "| " + " | ".join(t for t, _, _ in COLUMNS) + " |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    text += ["| " + " | ".join(cells(r)) + " |" for r in rows]
    ratios = [r["ratio"] for r in rows if r["ratio"]]
    if ratios:
        text += ["", f"Geometric mean of the ratios over {len(ratios)} case(s): {geometric(ratios):.2f}."]
    return "\n".join(text) + "\n"


def geometric(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--case", nargs="*", help="names, or starts of names followed by *; all of cases.json without")
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--threads", type=int, default=os.cpu_count())
    a.add_argument("--isa", choices=sorted(TORCH_ISA), help="hold both sides to an instruction set")
    a.add_argument("--quick", action="store_true", help="after the first round only PyTorch's fastest variant")
    a.add_argument("--seconds", type=float, help="of each run of PyTorch (its default otherwise)")
    a.add_argument("--bench", choices=("peers", "zoo"), default="peers")
    a.add_argument("--peers", type=pathlib.Path, default=ROOT.parent / "shared" / "peers")
    a.add_argument("--python", default=sys.executable, help="a Python that has torch and torchvision")
    a.add_argument("--binary", help="the built benchmark; built here without")
    a.add_argument("--only", choices=("torch", "ours"), help="run one side")
    a.add_argument("--json", type=pathlib.Path)
    a.add_argument("--markdown", type=pathlib.Path)
    a = a.parse_args()

    listed, theirs_at = {"peers": (a.peers / "cases.json", a.peers.resolve() / "torch_bench.py"),
                         "zoo": (ROOT / "benches" / "zoo.json", ROOT / "benches" / "zoo_torch.py")}[a.bench]
    cases = [c for c in json.loads(listed.read_text()) if c != "_"]
    if a.case:
        wanted = [c for c in cases if any(c == w or (w.endswith("*") and c.startswith(w[:-1])) for w in a.case)]
        unknown = [w for w in a.case if not any(c == w or (w.endswith("*") and c.startswith(w[:-1])) for c in cases)]
        if unknown:
            sys.exit(f"compare: {listed.name} has no {', '.join(unknown)}")
        cases = wanted

    binary = None if a.only == "torch" else a.binary or build(a.bench)
    env = os.environ | (TORCH_ISA[a.isa] if a.isa else {})
    torch = [a.python, str(theirs_at), "--threads", str(a.threads)]
    torch += ["--seconds", str(a.seconds)] if a.seconds else []
    machine, rows, peer, isa = {}, [], None, a.isa
    for name in cases:
        theirs, ours = Side(), Side()
        for turn in range(a.rounds):
            if a.only != "ours":
                pick = ["--variant", theirs.best["variant"]] if a.quick and turn and theirs.best else []
                theirs.add([*torch, "--case", name, *pick], env)
            if binary:
                command = [binary, "--json", "--case", name, "--threads", str(a.threads)]
                for said in ours.add(command, env | ({"TOMOGRAD_ISA": a.isa} if a.isa else {})):
                    for key, value in said.get("machine", {}).items():
                        # The best that any run reached is the peak.
                        machine[key] = max(machine.get(key, 0), value) if isinstance(value, (int, float)) else value
            print(f"\r{name}: round {turn + 1} of {a.rounds} ", end="", file=sys.stderr, flush=True)
        print("\r" + " " * 72 + "\r", end="", file=sys.stderr, flush=True)
        peer = peer or next((r["peer"] for r in theirs.runs if "peer" in r), None)
        isa = isa or next((r["isa"] for r in ours.runs if "isa" in r), None)
        rows.append((name, theirs, ours))
        r = row(name, theirs, ours, machine)
        print(" ".join(f"{t}={c}" for (t, _, _), c in zip(COLUMNS, cells(r))), *(r[k] for k in ("torch_error", "ours_error") if k in r),
              file=sys.stderr, flush=True)

    rows = [row(*r, machine) for r in rows]
    head = {"date": datetime.date.today().isoformat(), "cpu": cpu_name(), "flags": cpu_flags(), "threads": a.threads, "isa": isa or "-", "peer": peer or "-",
            "rounds": a.rounds, "machine": machine}
    print(f"{head['cpu']} ({', '.join(head['flags'])}); {a.threads} threads; isa {head['isa']}; peer {head['peer']}; machine {json.dumps(machine)}")
    print(table(rows))
    ratios = [r["ratio"] for r in rows if r["ratio"]]
    if ratios:
        print(f"geometric mean of {len(ratios)} ratios: {geometric(ratios):.2f}")
    if a.json:
        a.json.write_text(json.dumps(head | {"cases": rows}, indent=1) + "\n")
    if a.markdown:
        a.markdown.write_text(markdown(head, rows))
    sys.exit(any(r.get("ours_error") or r.get("torch_error") for r in rows))


if __name__ == "__main__":
    main()
