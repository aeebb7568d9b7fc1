"""The two U-Nets of the benchmarks with their state-dict names, and torchvision's residual networks made narrower."""
import torch
import torchvision
from torch import nn
from torch.nn import functional as F


def instance_block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """(conv 3x3x3 -> instance norm -> leaky ReLU 0.01) twice; the first convolution strides."""
    def third(c, s):
        return nn.Conv3d(c, outputs, 3, stride=s, padding=1), nn.InstanceNorm3d(outputs, affine=True), nn.LeakyReLU(0.01)
    return nn.Sequential(*third(inputs, stride), *third(outputs, 1))


def batch_block(inputs: int, outputs: int) -> nn.Sequential:
    """(conv 3x3 without bias -> batch norm -> ReLU) twice."""
    def third(c):
        return nn.Conv2d(c, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    return nn.Sequential(*third(inputs), *third(outputs))


class UNet3d(nn.Module):
    """Down by strided convolutions, up by transposed ones; a decoder block sees [upsampled, skip]."""

    def __init__(self, classes: int, widths=(32, 64, 128, 256)):
        super().__init__()
        pairs = list(zip(widths, widths[1:]))
        self.enc = nn.ModuleList([instance_block(1, widths[0], 1), *(instance_block(a, b, 2) for a, b in pairs)])
        self.up = nn.ModuleList(nn.ConvTranspose3d(b, a, 2, 2) for a, b in reversed(pairs))
        self.dec = nn.ModuleList(instance_block(2 * a, a, 1) for a, _ in reversed(pairs))
        self.head = nn.Conv3d(widths[0], classes, 1)

    def forward(self, x):
        levels = [x := block(x) for block in self.enc]
        for up, block, skip in zip(self.up, self.dec, levels[-2::-1]):
            x = block(torch.cat([up(x), skip], dim=1))
        return self.head(x)


class UNet2d(nn.Module):
    """Down by max pooling, up by transposed convolutions; a decoder block sees [skip, upsampled]."""

    def __init__(self, classes: int, widths=(64, 128, 256, 512, 1024)):
        super().__init__()
        pairs = list(zip(widths, widths[1:]))
        self.enc = nn.ModuleList([batch_block(1, widths[0]), *(batch_block(a, b) for a, b in pairs)])
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in reversed(pairs))
        self.dec = nn.ModuleList(batch_block(b, a) for a, b in reversed(pairs))
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x):
        levels = [x := self.enc[0](x)]
        for block in self.enc[1:]:
            levels.append(x := block(F.max_pool2d(x, 2)))
        for up, block, skip in zip(self.up, self.dec, levels[-2::-1]):
            x = block(torch.cat([skip, up(x)], dim=1))
        return self.head(x)


def resnet(rank: int, block: str, layers, classes: int, groups: int, width_per_group: int, width: int) -> nn.Module:
    """torchvision's network with layers of `rank` axes, and all its channels but the image's and the classes' multiplied by width / 64."""
    kinds = {"basic": torchvision.models.resnet.BasicBlock, "bottleneck": torchvision.models.resnet.Bottleneck}
    net = torchvision.models.ResNet(kinds[block], list(layers), classes, groups=groups, width_per_group=width_per_group)
    narrow = lambda channels: channels if channels == 3 else channels * width // 64

    def replaced(m):
        first = lambda pair: pair[0] if isinstance(pair, tuple) else pair
        match m:
            case nn.Conv2d():
                conv = {2: nn.Conv2d, 3: nn.Conv3d}[rank]
                return conv(narrow(m.in_channels), narrow(m.out_channels), first(m.kernel_size), first(m.stride), first(m.padding),
                            groups=m.groups, bias=m.bias is not None)
            case nn.BatchNorm2d():
                return {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[rank](narrow(m.num_features))
            case nn.MaxPool2d():
                return {2: nn.MaxPool2d, 3: nn.MaxPool3d}[rank](m.kernel_size, m.stride, m.padding)
            case nn.AdaptiveAvgPool2d():
                return {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[rank](1)
            case nn.Linear():
                return nn.Linear(narrow(m.in_features), classes)
        for name, child in m.named_children():
            setattr(m, name, replaced(child))
        return m

    return replaced(net)
