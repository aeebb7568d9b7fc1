"""torchvision's EfficientNet and ConvNeXt: `zoo_torchvision_mobile.py [NAME ...]`."""
from functools import partial

from torch import nn
from torch.nn import functional as F
from torchvision import models
from torchvision.models.convnext import CNBlockConfig, ConvNeXt, LayerNorm2d
from torchvision.models.efficientnet import EfficientNet, MBConvConfig
from torchvision.ops.misc import Permute

from zoo import golden, main, preset

SIZES = {"b0": 224, "b1": 240, "b2": 288, "b3": 300, "b4": 380, "b5": 456, "b6": 528, "b7": 600}
for name, size in SIZES.items():
    preset(f"efficientnet_{name}", getattr(models, f"efficientnet_{name}"), (1, 3, size, size))
for name in ("tiny", "small", "base", "large"):
    preset(f"convnext_{name}", getattr(models, f"convnext_{name}"), (1, 3, 224, 224))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm2d for any number of spatial axes."""

    def forward(self, x):
        y = F.layer_norm(x.movedim(1, -1), self.normalized_shape, self.weight, self.bias, self.eps)
        return y.movedim(-1, 1)


def of_rank(net: nn.Module, rank: int) -> nn.Module:
    """A network of 2D layers with layers of `rank` spatial axes in their places."""
    if rank == 2:
        return net
    for name, module in list(net.named_children()):
        if isinstance(module, nn.Conv2d):
            made = getattr(nn, f"Conv{rank}d")(
                module.in_channels, module.out_channels, module.kernel_size[0], module.stride[0], module.padding[0],
                groups=module.groups, bias=module.bias is not None)
        elif isinstance(module, nn.BatchNorm2d):
            made = getattr(nn, f"BatchNorm{rank}d")(module.num_features, eps=module.eps, momentum=module.momentum)
        elif isinstance(module, nn.AdaptiveAvgPool2d):
            made = getattr(nn, f"AdaptiveAvgPool{rank}d")(1)
        elif isinstance(module, LayerNorm2d):
            made = ChannelNorm(module.normalized_shape, eps=module.eps)
        elif isinstance(module, Permute):
            axes = list(range(rank + 2))
            made = Permute([0, *axes[2:], 1] if module.dims[-1] == 1 else [0, rank + 1, *axes[1:-1]])
        else:
            made = of_rank(module, rank)
        setattr(net, name, made)
    if hasattr(net, "layer_scale"):
        net.layer_scale = nn.Parameter(net.layer_scale.reshape([-1] + [1] * rank))
    return net


def efficientnet(name, shape, stages, stem, rank=2, width=1.0, depth=1.0, **norm):
    """`stages`: expansion, kernel, stride, output channels, blocks."""
    def build():
        settings, inputs = [], stem
        for expansion, kernel, stride, channels, blocks in stages:
            settings.append(MBConvConfig(expansion, kernel, stride, inputs, channels, blocks, width, depth))
            inputs = channels
        return of_rank(EfficientNet(settings, 0.2, num_classes=5, norm_layer=partial(nn.BatchNorm2d, **norm)), rank)

    fields = ("expansion", "kernel", "stride", "channels", "blocks")
    config = {"network": "efficientnet", "rank": rank, "in_channels": 3, "classes": 5, "width": width, "depth": depth,
              "stem": stem, "stages": [dict(zip(fields, stage)) for stage in stages], "dropout": 0.0,
              "stochastic_depth": 0.0}
    config |= {f"norm_{key.replace('eps', 'epsilon')}": value for key, value in norm.items()}
    golden(name, build, config, shape)


efficientnet("efficientnet_2d", (2, 3, 33, 46), [(1, 3, 1, 8, 2), (6, 5, 2, 16, 2), (4, 3, 1, 24, 1)], 8)
efficientnet("efficientnet_scaled", (2, 3, 32, 32), [(1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 1)], 32, width=0.4,
             depth=1.4, eps=0.001, momentum=0.01)
efficientnet("efficientnet_3d", (2, 3, 12, 9, 16), [(1, 3, 1, 8, 1), (6, 5, 2, 8, 2)], 8, rank=3)
efficientnet("efficientnet_1d", (2, 3, 33), [(1, 3, 1, 8, 1), (6, 5, 2, 16, 1)], 8, rank=1)


def convnext(name, shape, widths, blocks, rank=2):
    def build():
        settings = [CNBlockConfig(a, b, n) for a, b, n in zip(widths, [*widths[1:], None], blocks)]
        return of_rank(ConvNeXt(settings, num_classes=5), rank)

    config = {"network": "convnext", "rank": rank, "in_channels": 3, "classes": 5, "widths": widths, "blocks": blocks}
    golden(name, build, config, shape)


convnext("convnext_2d", (2, 3, 33, 50), [8, 12, 16], [1, 2, 1])
convnext("convnext_batch_1", (1, 3, 40, 32), [8, 16], [2, 1])
convnext("convnext_3d", (2, 3, 16, 9, 17), [4, 8], [1, 2], rank=3)
convnext("convnext_1d", (2, 3, 45), [4, 8], [1, 1], rank=1)

if __name__ == "__main__":
    main("torchvision_mobile")
