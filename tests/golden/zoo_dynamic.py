"""nnU-Net's networks, from dynamic-network-architectures: `zoo_dynamic.py [NAME ...]`."""
import json
import pathlib

from dynamic_network_architectures.architectures import unet
from dynamic_network_architectures.building_blocks.residual import BasicBlockD, BottleneckD
from torch import nn

from zoo import golden, main, preset

PLANS = pathlib.Path(__file__).parents[2] / "models/tests/data/plans.json"


def network(config):
    """The original of this project's configuration."""
    rank, levels = config["rank"], len(config["features"])
    pick = lambda name: getattr(nn, f"{name}{rank}d")
    residual = config.get("architecture", "plain_conv") != "plain_conv"
    kind = {"plain_conv": unet.PlainConvUNet, "residual_encoder": unet.ResidualEncoderUNet, "residual": unet.ResidualUNet}
    norm, activation = config.get("norm", "instance_affine"), config.get("activation", {"leaky_relu": 0.01})
    slope = {"negative_slope": activation["leaky_relu"]} if isinstance(activation, dict) else {}
    arguments = {
        "input_channels": config["in_channels"], "n_stages": levels, "features_per_stage": config["features"], "conv_op": pick("Conv"),
        "kernel_sizes": config["kernel_sizes"], "strides": config["strides"], "num_classes": config["classes"],
        "n_conv_per_stage_decoder": config["decoder_blocks"], "conv_bias": config.get("conv_bias", True),
        "norm_op": {"instance": pick("InstanceNorm"), "batch": pick("BatchNorm"), "none": None}[norm.removesuffix("_affine")],
        "norm_op_kwargs": {"eps": config.get("norm_epsilon", 1e-5), "affine": norm != "instance"},
        "nonlin": nn.LeakyReLU if slope else {"relu": nn.ReLU, "gelu": nn.GELU}[activation], "nonlin_kwargs": slope,
        "deep_supervision": config.get("deep_supervision", True),
        ("n_blocks_per_stage" if residual else "n_conv_per_stage"): config["blocks"],
    }
    if "dropout" in config:
        arguments |= {"dropout_op": nn.Dropout if rank == 1 else pick("Dropout"), "dropout_op_kwargs": {"p": config["dropout"]}}
    if residual:
        inner = config.get("bottleneck_channels")
        arguments |= {"block": BottleneckD if inner else BasicBlockD, "bottleneck_channels": inner,
                      "stem_channels": config.get("stem_channels")}
    else:
        arguments["nonlin_first"] = config.get("activation_first", False)
    net = kind[config.get("architecture", "plain_conv")](**arguments)
    # As `get_network_from_plans` does. It fails for residual blocks whose norms have no weights.
    if not residual or norm in ("batch", "instance_affine"):
        net.apply(net.initialize)
    return net


def planned(name):
    """The network that nnU-Net builds for a configuration of the plans, and the number of its spatial axes."""
    import pydoc
    architecture = json.loads(PLANS.read_text())["configurations"][name]["architecture"]
    arguments = dict(architecture["arch_kwargs"])
    for key in architecture["_kw_requires_import"]:
        if arguments[key] is not None:
            arguments[key] = pydoc.locate(arguments[key])
    return pydoc.locate(architecture["network_class_name"])(input_channels=1, num_classes=3, deep_supervision=True, **arguments)


def nnunet(name, rank, in_channels, classes, *inputs, **fields):
    config = {"network": "nnunet", "rank": rank, "in_channels": in_channels, "classes": classes} | fields
    golden(name, lambda: network(config), config, *inputs)


def cubes(levels, rank=3, blocks=2, decoder=2):
    return {"kernel_sizes": [[3] * rank] * levels, "strides": [[1] * rank] + [[2] * rank] * (levels - 1), "blocks": [blocks] * levels,
            "decoder_blocks": [decoder] * (levels - 1)}


def residual_preset(name, strides, shape):
    levels = len(strides)
    config = {"rank": 3, "in_channels": 1, "classes": 3, "architecture": "residual_encoder",
              "features": [min(320, 32 << level) for level in range(levels)], "kernel_sizes": [[3] * 3] * levels,
              "strides": strides, "blocks": ([1, 3, 4] + [6] * levels)[:levels], "decoder_blocks": [1] * (levels - 1)}
    preset(name, lambda: network(config), (1, 1, *shape))


ONE, TWO, FLAT = [1, 1, 1], [2, 2, 2], [1, 2, 2]
preset("nnunet_3d_fullres_hippocampus", lambda: planned("3d_fullres"), (1, 1, 40, 56, 40))
preset("nnunet_2d_hippocampus", lambda: planned("2d"), (1, 1, 56, 40))
residual_preset("resenc_m", [ONE, TWO, TWO, TWO, TWO, FLAT], (80, 192, 160))
residual_preset("resenc_l", [ONE, TWO, TWO, TWO, TWO, FLAT, FLAT], (112, 256, 256))
residual_preset("resenc_xl", [ONE, TWO, TWO, TWO, TWO, TWO, FLAT], (192, 256, 256))

nnunet("nnunet_plain_3d", 3, 1, 3, (2, 1, 8, 16, 8), features=[4, 6, 8], **cubes(3))
nnunet("nnunet_plain_anisotropic", 3, 2, 2, (1, 2, 4, 16, 12), features=[4, 6, 8], blocks=[1, 2, 2], decoder_blocks=[2, 1],
       kernel_sizes=[[1, 3, 3], [3, 3, 3], [3, 5, 3]], strides=[[1, 1, 1], [1, 2, 2], [2, 4, 3]], conv_bias=False, dropout=0,
       deep_supervision=False)
nnunet("nnunet_plain_2d", 2, 3, 2, (3, 3, 15, 24), features=[4, 6], norm="batch", activation_first=True, activation="relu", norm_epsilon=1e-3,
       kernel_sizes=[[3, 3]] * 2, strides=[[2, 1], [2, 3]], blocks=[2, 1], decoder_blocks=[2], dropout=0)
nnunet("nnunet_plain_1d", 1, 1, 2, (2, 1, 24), features=[4, 6], norm="none", activation={"leaky_relu": 0.1}, **cubes(2, 1))
nnunet("nnunet_residual_encoder", 3, 1, 3, (1, 1, 8, 8, 16), architecture="residual_encoder", features=[4, 6, 8],
       kernel_sizes=[[1, 3, 3], [3, 3, 3], [3, 3, 3]], strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]], blocks=[1, 2, 2],
       decoder_blocks=[1, 1])
nnunet("nnunet_bottleneck", 2, 2, 2, (2, 2, 16, 12), architecture="residual_encoder", features=[4, 8], bottleneck_channels=[2, 3],
       stem_channels=6, norm="batch", dropout=0, conv_bias=False, kernel_sizes=[[3, 3]] * 2, strides=[[2, 1], [1, 2]],
       blocks=[1, 2], decoder_blocks=[1])
nnunet("nnunet_residual", 2, 1, 2, (1, 1, 16, 12), architecture="residual", features=[4, 6, 6], norm="instance", activation="gelu", deep_supervision=False,
       **cubes(3, 2, 1))

if __name__ == "__main__":
    main("dynamic")
