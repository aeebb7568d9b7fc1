#!/usr/bin/env python3
"""Small files of weights as other programs write them, with the outputs that their networks give: `zoo/published/`, read by
`models/tests/published.rs`. `published_cases.py [NAME ...]`

NAME.json has the file of weights (`NAME.pth`, or that of another case), the configuration of the network here, the shape of the
input by formula, and the steps of the import; NAME.output.safetensors has the outputs in f64, in inference mode. Weights are random
numbers, the same in every case of an architecture.
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from torch import nn

import networks
from formula import signed
from published import randomise
from zoo import tensors_of

HERE = pathlib.Path(__file__).parent / "zoo" / "published"
CASES = {}
RESNET = {"network": "resnet", "in_channels": 3, "classes": 5, "block": "basic", "layers": [1, 1, 1], "width": 4}


def case(name, build, config, shape, file=None, save=lambda net: net.state_dict(), expected=lambda net, x: net(x), stage=None, **steps):
    """`save(net)` is what the file holds, which is that of another case if `file` names it; `expected(net, x)` the output, or the
    feature map of the stage called `stage`; `steps` are those of the import (`part`, `strip_prefix`, `skip`, `channels`, `head`,
    `head_rows`) with their arguments."""
    CASES[name] = (build, config, shape, file, save, expected, stage, steps)


def resnet(channels: int = 3, classes: int = 5) -> nn.Module:
    """torchvision's network, narrow, with three layers of one block."""
    net = networks.resnet(2, "basic", [1, 1, 1, 1], classes, 1, 64, 4)
    net.layer4, net.fc = nn.Identity(), nn.Linear(16, classes)
    if channels != 3:
        net.conv1 = nn.Conv2d(channels, 4, 7, 2, 3, bias=False)
    return net


def with_auxiliary() -> nn.Module:
    net = resnet()
    net.aux_classifier = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 1))
    return net


def training_checkpoint(net: nn.Module) -> dict:
    """What training scripts save: the network within data parallelism, the optimizer, the epoch."""
    net = nn.DataParallel(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    return {"epoch": 3, "arch": "resnet", "state_dict": net.state_dict(), "optimizer": optimizer.state_dict()}


def half_precision(net: nn.Module) -> dict:
    return net.half().state_dict()


def columns(*rows):
    return lambda net, x: net(x)[:, list(rows)]


def grey(net, x):
    """The network for three channels on an image whose channels are equal."""
    return net(x.expand(-1, 3, -1, -1))


def backbone(net, x):
    return nn.Sequential(*list(net.children())[:-2])(x)


IMAGE = (2, 3, 33, 40)
case("by_name", resnet, RESNET, IMAGE)
case("half_precision", resnet, RESNET, IMAGE, save=half_precision)
case("training_checkpoint", resnet, RESNET, IMAGE, save=training_checkpoint, part="state_dict", strip_prefix="module.")
case("auxiliary_head_left_out", with_auxiliary, RESNET, IMAGE, skip="aux_classifier.")
case("one_channel", resnet, RESNET | {"in_channels": 1}, (2, 1, 33, 40), "by_name", expected=grey, channels=["conv1.weight", 1])
case("six_channels", resnet, RESNET | {"in_channels": 6}, (2, 6, 33, 40), "by_name", channels=["conv1.weight", 6],
     expected=lambda net, x: net((x[:, :3] + x[:, 3:]) / 2))
case("other_classes", resnet, RESNET | {"classes": 2}, IMAGE, "by_name", expected=columns(4, 1), head_rows=["fc", [4, 1]])
case("head_dropped", resnet, RESNET | {"classes": 2}, IMAGE, "by_name", expected=backbone, stage="layer3", head="fc")
case("unet2d", lambda: networks.UNet2d(3, (2, 4, 8)),
     {"network": "unet2d", "in_channels": 1, "classes": 3, "widths": [2, 4, 8]}, (1, 1, 20, 16))
case("unet3d", lambda: networks.UNet3d(2, (2, 4)), {"network": "unet3d", "in_channels": 1, "classes": 2, "widths": [2, 4]},
     (1, 1, 8, 6, 10))


def write(name, build, config, shape, file, save, expected, stage, steps):
    torch.manual_seed(0)
    net = randomise(build(), 1)
    contents = save(net)
    if file is None:
        torch.save(contents, HERE / f"{name}.pth")
    net.double().eval()
    with torch.no_grad():
        results = tensors_of(expected(net, signed("input", shape)))
    save_file({f"output.{k}": y.contiguous() for k, y in enumerate(results)}, HERE / f"{name}.output.safetensors")
    (HERE / f"{name}.output.safetensors").chmod(0o644)
    head = {"file": f"{file or name}.pth", "config": config, "input": list(shape), "stage": stage, "steps": steps}
    lines = [f" {json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in head.items()]
    (HERE / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(name, [tuple(y.shape) for y in results])


def main():
    HERE.mkdir(exist_ok=True)
    for name, arguments in CASES.items():
        if not sys.argv[1:] or name in sys.argv[1:]:
            write(name, *arguments)


if __name__ == "__main__":
    main()
