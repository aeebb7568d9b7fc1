"""Classification networks of MONAI, 3D-ResNets-PyTorch and MedicalNet: `zoo_monai_classification.py [NAME ...]`.

MONAI's residual networks are made after those of 3D-ResNets-PyTorch and have the same state dicts, with the stems and shortcuts
as arguments, so that they stand for these as well. MedicalNet's last two layers are dilated by 2 and 4 and have no stride, which MONAI's
haven't: `medicalnet` changes them."""
from functools import partial

from monai.networks import nets
from torch import nn

from zoo import golden, main, preset

LAYERS = {10: [1, 1, 1, 1], 18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3],
          200: [3, 24, 36, 3]}
VOLUME = (1, 1, 64, 64, 64)


def medicalnet(net):
    """Replaces the strides of the last two layers by dilations, as MedicalNet's class has them."""
    for layer, dilation in ((net.layer3, 2), (net.layer4, 4)):
        for module in layer.modules():
            if isinstance(module, nn.modules.conv._ConvNd):
                module.stride = (1,) * len(module.stride)
                if module.kernel_size[0] == 3:
                    module.dilation = module.padding = (dilation,) * len(module.stride)
        for block in layer:
            if isinstance(block.downsample, partial):
                block.downsample.keywords["stride"] = 1
    return net


def resnet_presets(depth):
    build = getattr(nets, f"resnet{depth}")
    volume = {"n_input_channels": 1, "num_classes": 2}
    preset(f"monai_resnet{depth}_3d", lambda: build(**volume), VOLUME)
    shortcut = "A" if depth in (18, 34) else "B"
    arguments = volume | {"conv1_t_stride": 2, "shortcut_type": shortcut, "bias_downsample": False}
    preset(f"medicalnet_resnet{depth}", lambda: medicalnet(build(**arguments)), VOLUME)
    r3d = {"n_input_channels": 3, "num_classes": 700, "conv1_t_stride": (1, 2, 2), "bias_downsample": False}
    preset(f"r3d{depth}", lambda: build(**r3d), (1, 3, 16, 112, 112))


for depth in LAYERS:
    resnet_presets(depth)


def resnet(name, shape, block, layers, widths, config, change=lambda net: net, **arguments):
    def build():
        return change(nets.ResNet(block, layers, widths, spatial_dims=len(shape) - 2, n_input_channels=shape[1], num_classes=3, **arguments))
    config = {"network": "resnet", "rank": len(shape) - 2, "in_channels": shape[1], "classes": 3, "block": block, "layers": layers,
              "stem_stride": [1], "shortcut_bias": True, "zero_bias": True} | config
    golden(name, build, config, shape)


resnet("resnet_monai", (2, 1, 18, 16, 13), "basic", [1, 1, 1, 1], [4, 8, 16, 32], {"width": 4})
resnet("resnet_monai_zeros", (2, 1, 17, 16, 18), "basic", [2, 1, 1, 1], [4, 8, 12, 16],
       {"width": 4, "widths": [4, 8, 12, 16], "shortcut": "zero_padding", "shortcut_bias": False, "stem_stride": [2]},
       shortcut_type="A", conv1_t_stride=2)
resnet("resnet_monai_no_pool", (1, 2, 12, 14, 11), "bottleneck", [1, 1, 1, 1], [4, 8, 16, 32],
       {"width": 6, "widths": [6, 12, 24, 48], "stem_size": [3, 5, 7], "stem_stride": [1, 2, 3], "max_pool": False,
        "shortcut_bias": False},
       conv1_t_size=(3, 5, 7), conv1_t_stride=(1, 2, 3), no_max_pool=True, widen_factor=1.5, bias_downsample=False)
resnet("resnet_monai_zeros_2d", (2, 3, 33, 28), "bottleneck", [1, 1, 1, 1], [4, 8, 16, 32],
       {"width": 4, "shortcut": "zero_padding"}, shortcut_type="A")
dilated = {"width": 4, "shortcut_bias": False, "stem_stride": [2], "dilations": [1, 1, 2, 4]}
resnet("resnet_medicalnet", (2, 1, 19, 22, 26), "bottleneck", [1, 1, 2, 1], [4, 8, 16, 32], dilated, medicalnet,
       bias_downsample=False, conv1_t_stride=2)
resnet("resnet_medicalnet_zeros", (1, 1, 24, 17, 33), "basic", [1, 1, 2, 1], [4, 8, 16, 32], dilated | {"shortcut": "zero_padding"},
       medicalnet, shortcut_type="A", bias_downsample=False, conv1_t_stride=2)
resnet("resnet_monai_1d", (2, 1, 61), "basic", [1, 1, 1, 1], [4, 8, 16, 32], {"width": 4, "stem_size": [5]}, conv1_t_size=5)

for depth in (121, 169, 201, 264):
    build = getattr(nets, f"DenseNet{depth}")
    preset(f"monai_densenet{depth}_3d", lambda build=build: build(spatial_dims=3, in_channels=1, out_channels=2), VOLUME)


def densenet(name, shape, **arguments):
    rank = len(shape) - 2
    arguments = {"init_features": 6, "growth_rate": 4, "block_config": (2, 3, 1, 2), "bn_size": 2} | arguments

    def build():
        return nets.DenseNet(spatial_dims=rank, in_channels=shape[1], out_channels=3, **arguments)
    config = {"network": "densenet", "rank": rank, "in_channels": shape[1], "classes": 3, "layers": list(arguments["block_config"]),
              "growth_rate": arguments["growth_rate"], "width": arguments["init_features"], "bottleneck": arguments["bn_size"],
              "original": "monai"}
    golden(name, build, config, shape)


densenet("densenet_monai_3d", (2, 1, 29, 32, 35))
densenet("densenet_monai_2d", (2, 2, 48, 37), growth_rate=3)
densenet("densenet_monai_1d", (3, 1, 70), block_config=(2, 1, 3))

if __name__ == "__main__":
    main("monai_classification")
