"""MONAI's networks for volumes: V-Net, SegResNet, DynUNet: `zoo_monai_volumes.py [NAME ...]`."""
import torch
from monai.networks.nets import VNet
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

main("monai_volumes")
