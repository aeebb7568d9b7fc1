"""Residual networks with the convolutional block attention module (https://github.com/Jongchan/attention-module, att_type "CBAM"):
`zoo_cbam.py [NAME ...]`.

That repository is no package. Its networks are made here again from torchvision's, whose blocks get the module behind their other
layers. Its average pooling of 7 x 7 is that of the whole map, which is the same for images of 224 x 224."""
import torch
import torchvision
from torch import nn

import networks
from zoo import golden, main, preset


class ChannelGate(nn.Module):
    """Factors of channels from their means and maxima."""

    def __init__(self, channels: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(channels, channels // 16), nn.ReLU(), nn.Linear(channels // 16, channels))

    def forward(self, x):
        axes = tuple(range(2, x.dim()))
        scores = self.mlp(x.mean(axes)) + self.mlp(x.amax(axes))
        return x * scores.sigmoid()[(...,) + (None,) * len(axes)]


class SpatialGate(nn.Module):
    """Factors of voxels from the maxima and means over channels."""

    def __init__(self, rank: int):
        super().__init__()
        conv, norm = {1: (nn.Conv1d, nn.BatchNorm1d), 2: (nn.Conv2d, nn.BatchNorm2d), 3: (nn.Conv3d, nn.BatchNorm3d)}[rank]
        self.spatial = nn.Sequential()
        self.spatial.add_module("conv", conv(2, 1, 7, padding=3, bias=False))
        self.spatial.add_module("bn", norm(1, momentum=0.01))

    def forward(self, x):
        return x * self.spatial(torch.stack([x.amax(1), x.mean(1)], 1)).sigmoid()


class Cbam(nn.Module):
    def __init__(self, rank: int, channels: int):
        super().__init__()
        self.ChannelGate = ChannelGate(channels)
        self.SpatialGate = SpatialGate(rank)

    def forward(self, x):
        return self.SpatialGate(self.ChannelGate(x))


def attend(block: nn.Module, rank: int):
    """Adds the module to a block, and runs it on what the last norm gives."""
    last = block.bn3 if hasattr(block, "bn3") else block.bn2
    block.cbam = Cbam(rank, last.num_features)
    last.register_forward_hook(lambda _, __, y: block.cbam(y))


def cbam_resnet(**attributes) -> nn.Module:
    net = networks.resnet(**attributes)
    for module in list(net.modules()):
        if isinstance(module, (torchvision.models.resnet.BasicBlock, torchvision.models.resnet.Bottleneck)):
            attend(module, attributes["rank"])
    return net


def attributes(depth: int) -> dict:
    layers = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}[depth]
    block = "basic" if depth < 50 else "bottleneck"
    return {"rank": 2, "block": block, "layers": layers, "classes": 1000, "groups": 1, "width_per_group": 64, "width": 64}


def of(name, shape, **narrow):
    narrow = {"rank": 2, "classes": 5, "groups": 1, "width_per_group": 64, "width": 16} | narrow
    config = {"network": "resnet", "in_channels": 3, "attention": "cbam"} | narrow
    golden(name, lambda: cbam_resnet(**narrow), config, shape)


for depth in (18, 34, 50, 101):
    preset(f"cbam_resnet{depth}", lambda depth=depth: cbam_resnet(**attributes(depth)), (1, 3, 224, 224))
of("resnet_cbam", (2, 3, 45, 64), block="bottleneck", layers=[1, 2, 1, 1], width=8)
of("resnet_cbam_basic", (2, 3, 64, 40), block="basic", layers=[1, 2, 1, 1])
of("resnet_cbam_3d", (2, 3, 33, 24, 28), rank=3, block="basic", layers=[1, 1, 1, 1])

if __name__ == "__main__":
    main("cbam")
