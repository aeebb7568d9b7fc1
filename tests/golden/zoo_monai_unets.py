"""MONAI's U-Nets: `zoo_monai_unets.py [NAME ...]`."""
import warnings

from monai.networks import nets

from zoo import golden, last_first, main, preset

warnings.filterwarnings("ignore")

NORMS = {"batch": "batch", "instance": "instance", "instance_affine": ("instance", {"affine": True}), "none": None}
ACTIVATIONS = {"prelu": "PRELU", "relu": "RELU", "gelu": "GELU", "silu": "SWISH", "mish": "MISH", "tanh": "TANH"}
WIDE = (64, 128, 256, 512, 1024, 128)


def norm_of(norm):
    return ("group", {"num_groups": norm["group"]}) if isinstance(norm, dict) else NORMS[norm]


def activation_of(activation):
    match activation:
        case {"leaky_relu": slope}:
            return ("leakyrelu", {"negative_slope": slope})
        case {"elu": alpha}:
            return ("elu", {"alpha": alpha})
    return ACTIVATIONS[activation]


def monai_unet(config):
    """MONAI's UNet of a configuration."""
    single = lambda sizes: sizes if isinstance(sizes, int) else tuple(sizes)
    return nets.UNet(config["rank"], config["in_channels"], config["classes"], tuple(config["channels"]),
                     tuple(single(stride) for stride in config["strides"]), single(config.get("kernel", 3)),
                     single(config.get("up_kernel", 3)), config.get("residual_units", 0),
                     activation_of(config.get("activation", "prelu")), norm_of(config.get("norm", "instance")),
                     bias=config.get("bias", True), adn_ordering=config.get("ordering", "NDA"))


def unet(name, shape, **config):
    config = {"network": "monai_unet", "in_channels": shape[1], "classes": 3} | config
    golden(name, lambda: monai_unet(config), config, shape)


unet("monai_unet_3d", (2, 1, 8, 16, 12), rank=3, channels=[4, 6, 8], strides=[2, 2])
unet("monai_unet_residual", (2, 2, 16, 8, 8), rank=3, channels=[4, 6, 6], strides=[2, 2], residual_units=2, norm="batch")
unet("monai_unet_2d", (1, 1, 24, 16), rank=2, channels=[4, 8, 8, 6], strides=[2, 2, 2], residual_units=1, ordering="AND",
     activation={"leaky_relu": 0.2}, norm={"group": 2}, bias=False, classes=4)
# The first stride rounds 15 up to 8, so the logits have 16; without a norm where the order has no letter for it.
unet("monai_unet_odd", (2, 1, 15, 12), rank=2, channels=[4, 6, 8], strides=[2, 2], ordering="A", activation="gelu")
unet("monai_unet_anisotropic", (1, 1, 6, 16, 8), rank=3, channels=[4, 6, 8], strides=[[1, 2, 2], [2, 2, 1]], residual_units=3,
     kernel=[1, 3, 3], up_kernel=[3, 5, 3], norm="instance_affine", activation={"elu": 1.0})
unet("monai_unet_1d", (2, 2, 24), rank=1, channels=[4, 6, 8], strides=[3, 2], kernel=5, norm="batch", activation="relu")


def basic(name, net, shape, **config):
    config = {"in_channels": shape[1], "classes": 3, "features": [4, 4, 6, 8, 8, 6]} | config
    kinds = {"basic_unet": nets.BasicUNet, "basic_unet_plus_plus": nets.BasicUNetPlusPlus}
    more = {"deep_supervision": config["deep_supervision"]} if "deep_supervision" in config else {}
    build = lambda: kinds[net](config["rank"], config["in_channels"], config["classes"], config["features"],
                               act=activation_of(config.get("activation", {"leaky_relu": 0.1})),
                               norm=norm_of(config.get("norm", "instance_affine")), bias=config.get("bias", True),
                               upsample=config.get("upsampling", "deconv"), **more)
    # The main output first.
    outputs = last_first if net == "basic_unet_plus_plus" else None
    golden(name, build, {"network": net} | config, shape, outputs=outputs)


basic("basic_unet_3d", "basic_unet", (1, 2, 32, 16, 24), rank=3)
basic("basic_unet_odd", "basic_unet", (2, 1, 37, 51), rank=2, norm="batch", activation="relu", bias=False)
basic("basic_unet_nontrainable", "basic_unet", (2, 1, 33, 40), rank=2, upsampling="nontrainable", norm={"group": 2})
basic("basic_unet_pixelshuffle", "basic_unet", (1, 1, 17, 24, 32), rank=3, upsampling="pixelshuffle")
basic("basic_unet_1d", "basic_unet", (2, 1, 50), rank=1)
basic("basic_unet_plus_plus_3d", "basic_unet_plus_plus", (1, 1, 32, 16, 16), rank=3)
basic("basic_unet_plus_plus_deep", "basic_unet_plus_plus", (2, 2, 37, 34), rank=2, deep_supervision=True,
      upsampling="nontrainable", norm="batch")


def attention(name, shape, **config):
    config = {"network": "attention_unet", "in_channels": shape[1], "classes": 3} | config
    build = lambda: nets.AttentionUnet(config["rank"], config["in_channels"], config["classes"], config["channels"],
                                       config["strides"], config.get("kernel", 3), config.get("up_kernel", 3))
    golden(name, build, config, shape)


attention("attention_unet_3d", (2, 1, 8, 16, 12), rank=3, channels=[4, 6, 8], strides=[2, 2])
attention("attention_unet_2d", (2, 2, 36, 24), rank=2, channels=[4, 5, 6, 8], strides=[1, 3, 2], kernel=5, up_kernel=5)
attention("attention_unet_1d", (2, 1, 16), rank=1, channels=[4, 6], strides=[4])



def plus_plus(*arguments, **named):
    """BasicUNetPlusPlus, but without the operations of the heads whose outputs it drops."""
    net = nets.BasicUNetPlusPlus(*arguments, **named)
    for column in (1, 2, 3):
        net.get_submodule(f"final_conv_0_{column}").forward = lambda x: x
    return net


BIG = (64, 128, 256, 512, 1024)
preset("monai_unet_3d", lambda: nets.UNet(3, 1, 3, (32, 64, 128, 256), (2, 2, 2)), (1, 1, 96, 96, 96))
preset("monai_unet_2d", lambda: nets.UNet(2, 1, 2, (16, 32, 64, 128, 256), (2, 2, 2, 2)), (1, 1, 256, 256))
preset("spleen_ct_segmentation", lambda: nets.UNet(3, 1, 2, (16, 32, 64, 128, 256), (2, 2, 2, 2), num_res_units=2, norm="batch"),
       (1, 1, 96, 96, 96))
preset("basic_unet_3d", lambda: nets.BasicUNet(3), (1, 1, 96, 96, 96))
preset("basic_unet_2d", lambda: nets.BasicUNet(2), (1, 1, 256, 256))
preset("basic_unet_2d_wide", lambda: nets.BasicUNet(2, features=WIDE), (1, 1, 256, 256))
preset("basic_unet_plus_plus_3d", lambda: plus_plus(3), (1, 1, 96, 96, 96))
preset("basic_unet_plus_plus_2d", lambda: plus_plus(2), (1, 1, 256, 256))
preset("basic_unet_plus_plus_2d_wide", lambda: plus_plus(2, features=WIDE), (1, 1, 256, 256))
preset("attention_unet_3d", lambda: nets.AttentionUnet(3, 1, 2, BIG, (2, 2, 2, 2)), (1, 1, 96, 96, 96))
preset("attention_unet_2d", lambda: nets.AttentionUnet(2, 1, 2, BIG, (2, 2, 2, 2)), (1, 1, 256, 256))

if __name__ == "__main__":
    main("monai_unets")
