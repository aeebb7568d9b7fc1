"""timm's networks: `zoo_timm.py [NAME ...]`."""
import timm
from timm.models.resnet import BasicBlock, Bottleneck, ResNet

from zoo import golden, main, preset

NAMES = ("seresnet18", "seresnet34", "seresnet50", "seresnet101", "seresnet152", "seresnext50_32x4d", "seresnext101_32x4d",
         "seresnext101_32x8d")
for name in NAMES:
    preset(name, lambda name=name: timm.create_model(name), (1, 3, 224, 224))


def seresnet(name, shape, block, **attributes):
    kinds = {"basic": BasicBlock, "bottleneck": Bottleneck}

    def build():
        return ResNet(kinds[block], [1, 2, 1, 1], num_classes=5, channels=(16, 32, 24, 40),
                      block_args={"attn_layer": "se"}, **attributes)
    config = {"network": "resnet", "in_channels": 3, "classes": 5, "block": block, "layers": [1, 2, 1, 1], "width": 64,
              "widths": [16, 32, 24, 40], "attention": "squeeze_excitation"}
    golden(name, build, config, shape)


seresnet("seresnet", (2, 3, 45, 64), "bottleneck")
seresnet("seresnet_basic", (2, 3, 48, 39), "basic")

if __name__ == "__main__":
    main("timm")
