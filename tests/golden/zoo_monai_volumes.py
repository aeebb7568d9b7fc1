"""MONAI's networks for volumes: V-Net, SegResNet, DynUNet: `zoo_monai_volumes.py [NAME ...]`."""
import torch
from monai.networks.nets import DynUNet, SegResNet, SegResNetVAE, VNet
from monai.networks.nets.vnet import DownTransition, InputTransition, OutputTransition, UpTransition

from zoo import golden, main, preset

preset("vnet", VNet, (1, 1, 96, 96, 96))


def narrow_vnet(rank, in_channels, classes, width, act, bias=False):
    """MONAI's network with `width` in place of its 16 channels."""
    net = VNet.__new__(VNet)
    torch.nn.Module.__init__(net)
    net.in_tr = InputTransition(rank, in_channels, width, act, bias=bias)
    for level, convs in enumerate((1, 2, 3, 2)):
        setattr(net, f"down_tr{32 << level}", DownTransition(rank, width << level, convs, act, bias=bias))
    for level, convs in ((4, 2), (3, 2), (2, 1), (1, 1)):
        channels = width << level
        inputs = channels if level == 4 else 2 * channels
        setattr(net, f"up_tr{16 << level}", UpTransition(rank, inputs, channels, convs, act))
    net.out_tr = OutputTransition(rank, 2 * width, classes, act, bias=bias)
    return net


def vnet(name, rank, in_channels, classes, width, *inputs, act="elu", **other):
    config = {"network": "vnet", "rank": rank, "in_channels": in_channels, "classes": classes, "width": width, "activation": act,
              "dropout_down": 0, "dropout_up": 0, "dropout_skip": 0, "dropout_skip_fine": 0} | other
    # monai's name of the leaky ReLU has no underscore; its ELU is in place by default.
    golden(name, lambda: narrow_vnet(rank, in_channels, classes, width, act.replace("_", ""), **other), config, *inputs)


vnet("vnet_3d", 3, 1, 2, 4, (2, 1, 16, 16, 32))
vnet("vnet_3d_prelu", 3, 2, 3, 4, (1, 2, 32, 16, 16), act="prelu", bias=True)
vnet("vnet_2d", 2, 4, 2, 4, (2, 4, 32, 48), act="leaky_relu")



def norm_of(norm):
    """MONAI's name and arguments of a configuration's norm."""
    if isinstance(norm, dict):
        return "group", {"num_groups": norm["group"]}
    return norm.removesuffix("_affine"), {"affine": norm != "instance"}


def activation_of(activation):
    """MONAI's name and arguments of a configuration's activation."""
    return ("leakyrelu", {"negative_slope": activation["leaky_relu"]}) if isinstance(activation, dict) else activation


def dynunet_of(config):
    """MONAI's network of this project's configuration."""
    heads = config.get("deep_supervision", 0)
    return DynUNet(config["rank"], config["in_channels"], config["classes"], config["kernel_size"], config["strides"],
                   config["strides"][1:], filters=config.get("filters"), norm_name=norm_of(config.get("norm", "instance_affine")),
                   act_name=activation_of(config.get("activation", {"leaky_relu": 0.01})),
                   deep_supervision=heads > 0, deep_supr_num=max(heads, 1), res_block=config.get("residual", False),
                   trans_bias=config.get("trans_bias", False))


def cubes(levels, rank=3):
    return {"kernel_size": [[3] * rank] * levels, "strides": [[1] * rank] + [[2] * rank] * (levels - 1)}


def dynunet(name, rank, in_channels, classes, *inputs, **fields):
    config = {"network": "dynunet", "rank": rank, "in_channels": in_channels, "classes": classes} | fields
    # In training with deep supervision the outputs are stacked along axis 1.
    apart = lambda result: list(result.unbind(1)) if result.ndim == rank + 3 else [result]
    golden(name, lambda: dynunet_of(config), config, *inputs, outputs=apart)


def dynunet_preset(name, levels, in_channels=1, classes=3, **fields):
    config = {"rank": 3, "in_channels": in_channels, "classes": classes} | cubes(levels) | fields

    def build():
        net = dynunet_of(config)
        # In inference MONAI computes the auxiliary logits and drops them; they aren't counted.
        for layer in net.modules():
            if hasattr(layer, "super_head"):
                layer.heads = None
        return net

    preset(name, build, (1, in_channels, 64, 64, 128))


dynunet_preset("dynunet", 4)
dynunet_preset("dynunet_residual", 6, residual=True)
dynunet_preset("dynunet_brats21", 7, 5, filters=[64, 96, 128, 192, 256, 384, 512], deep_supervision=2)

dynunet("dynunet_3d", 3, 1, 3, (2, 1, 8, 16, 8), filters=[4, 6, 8, 8], **cubes(4))
dynunet("dynunet_3d_residual", 3, 2, 2, (1, 2, 8, 16, 16), filters=[4, 4, 6, 8], residual=True, deep_supervision=2, trans_bias=True,
        kernel_size=[[1, 3, 3], [3, 3, 3], [3, 5, 3], [3, 3, 3]], strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 1]])
dynunet("dynunet_2d", 2, 3, 2, (3, 3, 33, 24), filters=[4, 6, 8], residual=True, norm="batch", deep_supervision=1, activation={"leaky_relu": 0.2},
        kernel_size=[[5, 3], [3, 3], [3, 1]], strides=[[2, 1], [1, 2], [1, 2]])
dynunet("dynunet_2d_group", 2, 1, 2, (1, 1, 12, 15), filters=[4, 4, 8], norm={"group": 2}, activation="gelu", kernel_size=[[3, 3], [3, 5], [3, 3]],
        strides=[[1, 1], [2, 3], [3, 1]])



def segresnet_of(config):
    """MONAI's network of this project's configuration."""
    arguments = dict(spatial_dims=config["rank"], in_channels=config["in_channels"], out_channels=config["classes"],
                     init_filters=config["init_filters"], norm=norm_of(config.get("norm", {"group": 8})),
                     act=activation_of(config.get("activation", "relu")),
                     blocks_down=config.get("blocks_down", (1, 2, 2, 4)), blocks_up=config.get("blocks_up", (1, 1, 1)),
                     upsample_mode=config.get("upsampling", "nontrainable"), dropout_prob=config.get("dropout"))
    if vae := config.get("vae"):
        return SegResNetVAE(input_image_size=vae["image_size"], vae_nz=vae["latent"], vae_default_std=vae["deviation"],
                            vae_estimate_std=vae.get("estimate_deviation", False), **arguments)
    return SegResNet(**arguments)


def segresnet(name, rank, in_channels, classes, *inputs, **fields):
    config = {"network": "segresnet", "rank": rank, "in_channels": in_channels, "classes": classes} | fields
    golden(name, lambda: segresnet_of(config), config, *inputs)


def segresnet_preset(name, shape, **fields):
    config = {"rank": 3, "in_channels": shape[1], **fields}
    preset(name, lambda: segresnet_of(config), shape)


segresnet_preset("segresnet", (1, 1, 96, 96, 96), classes=2, init_filters=32)
segresnet_preset("segresnet_brats", (1, 4, 224, 224, 144), classes=3, init_filters=16, dropout=0.2)
segresnet_preset("segresnet_vae", (1, 4, 160, 192, 128), classes=3, init_filters=32, dropout=0.2,
                 vae={"image_size": (160, 192, 128), "latent": 256, "deviation": 0.3})

segresnet("segresnet_3d", 3, 1, 2, (2, 1, 8, 16, 8), init_filters=8)
segresnet("segresnet_3d_deconv", 3, 2, 3, (1, 2, 8, 4, 12), init_filters=4, norm={"group": 2}, blocks_down=[1, 2, 1], blocks_up=[2, 1],
          upsampling="deconv", dropout=0)
segresnet("segresnet_2d_pixelshuffle", 2, 3, 2, (2, 3, 12, 8), init_filters=4, norm="batch", activation={"leaky_relu": 0.1}, blocks_down=[2, 1],
          blocks_up=[1], upsampling="pixelshuffle")
segresnet("segresnet_2d", 2, 1, 2, (1, 1, 8, 20), init_filters=4, norm="instance", blocks_down=[1, 1, 1], blocks_up=[1, 1])
# Without random numbers: the latent variables are their means.
segresnet("segresnet_vae_3d", 3, 1, 2, (2, 1, 8, 16, 8), init_filters=4, norm={"group": 2}, blocks_down=[1, 1], blocks_up=[1],
          vae={"image_size": [8, 16, 8], "latent": 6, "deviation": 0.0})
segresnet("segresnet_vae_2d", 2, 2, 2, (1, 2, 8, 16), init_filters=4, norm={"group": 4}, blocks_down=[1, 2], blocks_up=[1],
          upsampling="deconv", vae={"image_size": [8, 16], "latent": 5, "deviation": 0.0})

if __name__ == "__main__":
    main("monai_volumes")
