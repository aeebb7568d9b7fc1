"""torchvision's networks: `zoo_torchvision.py [NAME ...]`."""
from torchvision import models

import networks
from zoo import golden, main, preset

for layers in (18, 34, 50, 101, 152):
    preset(f"resnet{layers}", getattr(models, f"resnet{layers}"), (1, 3, 224, 224))
for name in ("resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2"):
    preset(name, getattr(models, name), (1, 3, 224, 224))


def resnet(name, *inputs, **attributes):
    attributes = {"rank": 2, "classes": 5, "groups": 1, "width_per_group": 64, "width": 8} | attributes
    config = {"network": "resnet", "in_channels": 3} | attributes
    golden(name, lambda: networks.resnet(**attributes), config, *inputs)


resnet("resnet_basic", (2, 3, 64, 48), block="basic", layers=[2, 2, 2, 2])
resnet("resnet_bottleneck", (2, 3, 65, 47), block="bottleneck", layers=[1, 2, 1, 1], groups=2)
resnet("resnet_3d", (2, 3, 32, 24, 36), rank=3, block="basic", layers=[1, 1, 1, 1], width=4)

for depth in (121, 161, 169, 201):
    preset(f"densenet{depth}", getattr(models, f"densenet{depth}"), (1, 3, 224, 224))


def densenet(name, shape, **arguments):
    arguments = {"growth_rate": 4, "block_config": (2, 3, 1, 2), "num_init_features": 6, "bn_size": 2, "num_classes": 5} | arguments
    config = {"network": "densenet", "in_channels": 3, "classes": 5, "layers": list(arguments["block_config"]),
              "growth_rate": arguments["growth_rate"], "width": arguments["num_init_features"], "bottleneck": arguments["bn_size"]}
    golden(name, lambda: models.DenseNet(**arguments), config, shape)


densenet("densenet", (2, 3, 64, 45))
densenet("densenet_smallest", (3, 3, 29, 30), growth_rate=3, block_config=(1, 2, 2, 1), bn_size=4)

if __name__ == "__main__":
    main("torchvision")
