#!/usr/bin/env python3
"""Times the cases of cases.json, which lies beside this file, with PyTorch on a GPU; prints a JSON object a line.

    torch_side.py [--seconds N] [--device cpu] [--case NAME ...]

Precisions: f32 without TF32, TF32, bf16 and f16. Convolutions and networks lie with their channels last (cuDNN's own order) and cuDNN
looks for its fastest algorithm; attention goes to the FLASH_ATTENTION backend in half precision and to EFFICIENT_ATTENTION in f32; the scan
is the chunked one of scan_compiled.py under torch.compile. A training is forward and backward, of a network with its optimizer's step.
Cases that time runs out for are left out, and said.
"""
import argparse
import json
import pathlib
import time

import torch
import torch.nn.functional as F

HERE = pathlib.Path(__file__).resolve().parent
COLUMNS = {"f32": (torch.float32, False), "tf32": (torch.float32, True), "bf16": (torch.bfloat16, False), "f16": (torch.float16, False)}


def has(case, column):
    """Whether a case is timed in this precision: those that the other side has, too."""
    kind, train = case["kind"], case["mode"] == "train"
    if column == "f32":
        return True
    if kind in ("conv", "convt", "matmul"):
        return case.get("groups", 1) == 1 or column != "tf32"
    if kind == "net":
        return column == "tf32" or (column == "bf16" and not train)
    return kind in ("attention", "scan") and column in ("bf16", "f16")


def network(case):
    try:
        import torch_bench
        known = {"unet3d": torch_bench.UNet3d, "unet2d": torch_bench.UNet2d}
        if case["net"] in known:
            return known[case["net"]](case["classes"]), torch_bench.dice_ce
    except ImportError:
        pass
    import torchvision
    return getattr(torchvision.models, case["net"])(weights=None), F.cross_entropy


def folded(net):
    """The network with its batch norms folded into convolutions, as the other side has it, and what was done."""
    from torch.fx.experimental.optimization import fuse
    try:
        return fuse(net), "channels last, folded"
    except Exception:
        # Networks that can't be traced; those of the cases have no batch norms.
        return net, "channels last"


def of_network(case, dtype, device, last):
    net, loss = network(case)
    x = last(torch.randn(case["x"], device=device, dtype=dtype))
    if case["mode"] != "train":
        net, variant = folded(net.eval())
        net = net.to(device, dtype, memory_format=last.format)
        return variant, lambda: net(x)
    net = net.to(device, memory_format=last.format)
    optimizer = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.99, nesterov=True, weight_decay=3e-5)
    with torch.no_grad():
        y = net(x)
    target = torch.randint(0, y.shape[1], y.shape[:1] + y.shape[2:], device=device)
    loss = loss if y.ndim > 2 else F.cross_entropy

    def step():
        optimizer.zero_grad()
        loss(net(x), target).backward()
        optimizer.step()
    return "channels last", step


class Last:
    """Puts a tensor's channels last, if it has images."""

    def __init__(self, rank):
        self.format = {4: torch.channels_last, 5: torch.channels_last_3d}.get(rank, torch.contiguous_format)

    def __call__(self, tensor):
        return tensor.contiguous(memory_format=self.format) if self.format != torch.contiguous_format else tensor


def build(case, dtype, device):
    """What is timed, and in which way it is done."""
    kind, shape, train = case["kind"], case["x"], case["mode"] == "train"
    last = Last(len(shape))
    new = lambda size, low=-1.0, high=1.0: (torch.rand(size, device=device) * (high - low) + low).to(dtype)
    if kind == "net":
        return of_network(case, dtype, device, last)
    x, way = last(new(shape)), "channels last"
    inputs = [x]
    if kind in ("conv", "convt"):
        w = last(new(case["w"]))
        inputs.append(w)
        rank = len(shape) - 2
        if kind == "conv":
            op = {2: F.conv2d, 3: F.conv3d}[rank]
            run = lambda: op(x, w, None, case.get("stride", 1), case["pad"], 1, case.get("groups", 1))
        else:
            op = {2: F.conv_transpose2d, 3: F.conv_transpose3d}[rank]
            run = lambda: op(x, w, None, case["stride"])
    elif kind == "inorm_lrelu":
        g, b = new(shape[1:2]), new(shape[1:2])
        inputs += [g, b]
        run = lambda: F.leaky_relu(F.instance_norm(x, weight=g, bias=b), 0.01)
    elif kind == "maxpool":
        run = lambda: F.max_pool3d(x, 2)
    elif kind == "upsample":
        run = lambda: F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)
    elif kind == "matmul":
        w, way = new(case["w"]), "cuBLAS"
        inputs.append(w)
        run = lambda: x @ w
    elif kind == "layernorm":
        g, b, way = new(shape[-1:]), new(shape[-1:]), "layer_norm"
        inputs += [g, b]
        run = lambda: F.layer_norm(x, shape[-1:], g, b)
    elif kind == "attention":
        from torch.nn.attention import SDPBackend, sdpa_kernel
        half = dtype != torch.float32
        backend = (SDPBackend.FLASH_ATTENTION if half else SDPBackend.EFFICIENT_ATTENTION) if device == "cuda" else SDPBackend.MATH
        q, k, v, way = new(shape), new(shape), new(shape), backend.name
        inputs = [q, k, v]

        def run():
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v)
    elif kind == "scan":
        from scan_compiled import chunked
        (batch, channels, length), states = shape, case["n"]
        inputs = [new(shape), new(shape, 0.0, 0.1), new((channels, states), -1.5, -0.5), new((batch, states, length)),
                  new((batch, states, length)), new((channels,))]
        compiled, way = torch.compile(chunked), "torch.compile, chunked"
        run = lambda: compiled(*inputs)
    else:
        raise ValueError(f"the kind {kind}")
    if not train:
        return way, run
    for tensor in inputs:
        tensor.requires_grad_()
    ones = None

    def step():
        nonlocal ones
        y = run()
        ones = torch.ones_like(y) if ones is None else ones
        torch.autograd.grad(y, inputs, ones)
    return way, step


def milliseconds(step, wait, budget):
    for _ in range(3):
        step()
    wait()

    def series(count):
        start = time.perf_counter()
        for _ in range(count):
            step()
        wait()
        return (time.perf_counter() - start) / count
    count = max(1, min(400, int(budget / series(1))))
    return 1e3 * min(series(count) for _ in range(3))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=80)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--case", nargs="*")
    options = parser.parse_args()
    cases = json.loads((HERE / "cases.json").read_text())
    cases.pop("_", None)
    wait = torch.cuda.synchronize if options.device == "cuda" else lambda: None
    torch.backends.cudnn.benchmark = True
    start = time.perf_counter()
    # torch.compile takes longest, so that what time runs out for is the scan.
    names = sorted(options.case or cases, key=lambda name: cases[name]["kind"] == "scan")
    for name in names:
        case, row, ways, missing = cases[name], {}, {}, []
        for column, (dtype, tf32) in COLUMNS.items():
            if not has(case, column):
                continue
            if time.perf_counter() - start > options.seconds:
                missing.append(f"{column}: no time was left")
                continue
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
            try:
                with torch.enable_grad() if case["mode"] == "train" else torch.no_grad():
                    way, step = build(case, dtype, options.device)
                    row[column] = milliseconds(step, wait, 0.04)
                ways.setdefault(way, []).append(column)
            except Exception as error:
                missing.append(f"{column}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        row["way"] = next(iter(ways), "") if len(ways) < 2 else "; ".join(f"{', '.join(columns)}: {way}" for way, columns in ways.items())
        print(json.dumps({"item": name, "row": {**row, "missing": missing}}), flush=True)


if __name__ == "__main__":
    main()
