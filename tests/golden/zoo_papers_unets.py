"""U-Nets of papers and of their repositories, rebuilt in a few lines with the repositories' names: `zoo_papers_unets.py [NAME ...]`."""
import torch
from torch import nn
from torch.nn import functional as F

from zoo import golden, kaiming_, last_first, main, preset

WIDTHS = (64, 128, 256, 512, 1024)
CONV = [None, nn.Conv1d, nn.Conv2d, nn.Conv3d]
TRANSPOSED = [None, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]
BATCH = [None, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d]
POOL = [None, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d]
LINEAR = [None, "linear", "bilinear", "trilinear"]


def named(**children):
    """A module that only has these children."""
    module = nn.Module()
    for name, child in children.items():
        module.add_module(name, child)
    return module


class UNet(nn.Module):
    """Pytorch-UNet's network; unpadded, without norms and with cropping it is that of the paper of 2015."""

    def __init__(self, rank, inputs, classes, widths=WIDTHS, padded=True, norm="batch", linear=False, bias=False):
        super().__init__()
        self.rank, self.padded, self.levels = rank, padded, len(widths) - 1

        def double(a, b, middle=None):
            middle, layers = middle or b, []
            for a, b in ((a, middle), (middle, b)):
                layers.append(CONV[rank](a, b, 3, padding=int(padded), bias=bias or norm == "none"))
                if norm != "none":
                    layers.append(BATCH[rank](b) if norm == "batch" else nn.GroupNorm(norm["group"], b))
                layers.append(nn.ReLU(inplace=True))
            return named(double_conv=nn.Sequential(*layers))

        factor = 2 if linear else 1
        self.inc = double(inputs, widths[0])
        for level in range(1, self.levels + 1):
            below = widths[level] // (factor if level == self.levels else 1)
            self.add_module(f"down{level}", named(maxpool_conv=nn.Sequential(POOL[rank](2), double(widths[level - 1], below))))
        for place, level in enumerate(reversed(range(self.levels)), 1):
            wide, fine = widths[level + 1], widths[level]
            if linear:
                up = nn.Upsample(scale_factor=2, mode=LINEAR[rank], align_corners=True)
                conv = double(wide, fine // 2 if level > 0 else fine, wide // 2)
            else:
                up, conv = TRANSPOSED[rank](wide, wide // 2, 2, 2), double(wide, fine)
            self.add_module(f"up{place}", named(up=up, conv=conv))
        self.outc = named(conv=CONV[rank](widths[0], classes, 1))

    def forward(self, x):
        skips = [x := self.inc.double_conv(x)]
        for level in range(1, self.levels + 1):
            pool, conv = self.get_submodule(f"down{level}.maxpool_conv")
            skips.append(x := conv.double_conv(pool(x)))
        for place, skip in enumerate(skips[-2::-1], 1):
            up = self.get_submodule(f"up{place}")
            x = up.up(x)
            differences = [a - b for a, b in zip(skip.shape[2:], x.shape[2:])]
            if self.padded:
                x = F.pad(x, [width for d in reversed(differences) for width in (d // 2, d - d // 2)])
            else:
                for axis, d in enumerate(differences, 2):
                    skip = skip.narrow(axis, d // 2, x.shape[axis])
            x = up.conv.double_conv(torch.cat([skip, x], dim=1))
        return self.outc.conv(x)


def unet(name, shape, **config):
    config = {"network": "unet", "rank": len(shape) - 2, "in_channels": shape[1], "classes": 3, "widths": [4, 6, 8]} | config
    build = lambda: UNet(config["rank"], config["in_channels"], config["classes"], config["widths"], config.get("padded", True),
                         config.get("norm", "batch"), config.get("upsampling") == "linear", config.get("bias", False))
    golden(name, build, config, shape)


unet("unet_paper", (2, 1, 44, 52), padded=False, norm="none", widths=[4, 8, 16])
unet("unet_paper_3d", (1, 2, 20, 22, 24), padded=False, norm="none", widths=[4, 8])
unet("unet_odd", (2, 3, 21, 30), widths=[4, 8, 16])
unet("unet_bilinear", (2, 1, 24, 19), upsampling="linear", widths=[4, 8, 16], bias=True)
unet("unet_3d", (1, 1, 9, 12, 8), widths=[4, 8, 16], norm={"group": 2})
unet("unet_1d", (2, 2, 19), widths=[4, 8, 16])


class NestedUNet(nn.Module):
    """UNet++ as in pytorch-nested-unet: linear upsampling, all nodes of a level concatenated."""

    def __init__(self, rank, inputs, classes, widths=(32, 64, 128, 256, 512), deep_supervision=False):
        super().__init__()
        self.deep_supervision, self.last = deep_supervision, len(widths) - 1
        self.pool = POOL[rank](2, 2)
        self.up = nn.Upsample(scale_factor=2, mode=LINEAR[rank], align_corners=True)
        for j in range(len(widths)):
            for i in range(len(widths) - j):
                a = j * widths[i] + widths[i + 1] if j else widths[i - 1] if i else inputs
                b = widths[i]
                self.add_module(f"conv{i}_{j}", named(conv1=CONV[rank](a, b, 3, padding=1), bn1=BATCH[rank](b),
                                                      conv2=CONV[rank](b, b, 3, padding=1), bn2=BATCH[rank](b)))
        for name in [f"final{j}" for j in range(1, len(widths))] if deep_supervision else ["final"]:
            self.add_module(name, CONV[rank](widths[0], classes, 1))

    def node(self, i, j, x):
        block = self.get_submodule(f"conv{i}_{j}")
        return F.relu(block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x))))))

    def forward(self, x):
        nodes = {}
        for d in range(self.last + 1):
            nodes[d, 0] = self.node(d, 0, x if d == 0 else self.pool(nodes[d - 1, 0]))
            for j in range(1, d + 1):
                i = d - j
                nodes[i, j] = self.node(i, j, torch.cat([*(nodes[i, k] for k in range(j)), self.up(nodes[i + 1, j - 1])], 1))
        if not self.deep_supervision:
            return self.final(nodes[0, self.last])
        return [self.get_submodule(f"final{j}")(nodes[0, j]) for j in range(1, self.last + 1)]


def nested(name, shape, **config):
    config = {"network": "nested_unet", "rank": len(shape) - 2, "in_channels": shape[1], "classes": 3} | config
    build = lambda: NestedUNet(config["rank"], config["in_channels"], config["classes"], config["widths"],
                               config.get("deep_supervision", False))
    golden(name, build, config, shape, outputs=last_first if config.get("deep_supervision") else None)


nested("nested_unet_2d", (2, 3, 32, 16), widths=[4, 5, 6, 7, 8])
nested("nested_unet_deep", (2, 1, 24, 16), widths=[4, 6, 8, 6], deep_supervision=True)
nested("nested_unet_3d", (1, 1, 8, 16, 8), widths=[4, 6, 8], deep_supervision=True)


class Gate(nn.Module):
    """The grid attention gate of Attention-Gated-Networks."""

    def __init__(self, rank, channels, signal, mode, stride):
        super().__init__()
        conv = CONV[rank]
        self.mode, self.linear = mode, LINEAR[rank]
        self.W = nn.Sequential(conv(channels, channels, 1), BATCH[rank](channels))
        self.theta = conv(channels, channels, stride, stride, bias=False)
        self.phi = conv(signal, channels, 1)
        self.psi = conv(channels, 1, 1)

    def forward(self, x, signal):
        theta = self.theta(x)
        f = theta + F.interpolate(self.phi(signal), size=theta.shape[2:], mode=self.linear)
        f = self.psi(F.softplus(f) if self.mode == "concatenation_debug" else F.relu(f))
        f = f.flatten(2).softmax(2).reshape(f.shape) if self.mode == "concatenation_residual" else f.sigmoid()
        return self.W(F.interpolate(f, size=x.shape[2:], mode=self.linear) * x)


class AttentionGated(nn.Module):
    """unet_CT_single_att_dsv_3D (one gate) and unet_CT_multi_att_dsv_3D (two)."""

    def __init__(self, rank, inputs, classes, widths=(16, 32, 64, 128, 256), gates=1, mode="concatenation", stride=2):
        super().__init__()
        conv, batch, n = CONV[rank], BATCH[rank], len(widths)
        self.n, self.linear, self.pool = n, LINEAR[rank], POOL[rank](2)

        def block(a, b):
            part = lambda a: nn.Sequential(conv(a, b, 3, padding=1), batch(b), nn.ReLU(inplace=True))
            return named(conv1=part(a), conv2=part(b))

        one = lambda a, b: nn.Sequential(conv(a, b, 1), batch(b), nn.ReLU(inplace=True))
        for level, (a, b) in enumerate(zip((inputs, *widths), widths), 1):
            self.add_module(f"conv{level}" if level < n else "center", block(a, b))
        self.gating = named(conv1=one(widths[-1], widths[-1]))
        for level in range(2, n):
            a, signal = widths[level - 1], widths[level]
            parts = {f"gate_block_{k}": Gate(rank, a, signal, mode, stride) for k in range(1, gates + 1)}
            self.add_module(f"attentionblock{level}", named(**parts, combine_gates=one(gates * a, a)))
        for level in range(n - 1, 0, -1):
            a, b = widths[level], widths[level - 1]
            self.add_module(f"up_concat{level}", named(conv=block(a + b, b), up=nn.Upsample(scale_factor=2, mode=self.linear)))
        for level in range(n - 1, 1, -1):
            head = nn.Sequential(conv(widths[level - 1], classes, 1), nn.Upsample(scale_factor=2 ** (level - 1), mode=self.linear))
            self.add_module(f"dsv{level}", named(dsv=head))
        self.dsv1 = conv(widths[0], classes, 1)
        self.final = conv(classes * (n - 1), classes, 1)
        kaiming_(self)

    def forward(self, x):
        maps = []
        for level in range(1, self.n + 1):
            block = self.get_submodule(f"conv{level}" if level < self.n else "center")
            maps.append(x := block.conv2(block.conv1(self.pool(x) if level > 1 else x)))
        signal, logits = self.gating.conv1(x), []
        for level in range(self.n - 1, 0, -1):
            skip = maps[level - 1]
            if level > 1:
                *gates, combine = self.get_submodule(f"attentionblock{level}").children()
                skip = combine(torch.cat([gate(skip, signal) for gate in gates], 1))
            up = self.get_submodule(f"up_concat{level}")
            signal = x = up.conv.conv2(up.conv.conv1(torch.cat([skip, up.up(x)], 1)))
            logits.insert(0, self.dsv1(x) if level == 1 else self.get_submodule(f"dsv{level}.dsv")(x))
        return self.final(torch.cat(logits, 1))


def gated(name, shape, **config):
    config = {"network": "attention_gated_unet", "rank": len(shape) - 2, "in_channels": shape[1], "classes": 3} | config
    stride = config.get("gate_stride", 2)
    build = lambda: AttentionGated(config["rank"], config["in_channels"], config["classes"], config["widths"],
                                   config.get("gates", 1), config.get("gate_mode", "concatenation"), stride)
    golden(name, build, config, shape)


gated("attention_gated_single", (1, 1, 16, 32, 16), widths=[4, 5, 6, 7, 8])
gated("attention_gated_multi", (2, 2, 8, 16, 8), widths=[4, 6, 5, 8], gates=2, gate_mode="concatenation_residual")
gated("attention_gated_2d", (2, 1, 24, 16), widths=[4, 6, 8], gates=3, gate_mode="concatenation_debug", gate_stride=[2, 4])


def meshnet(inputs, classes, width, dilations):
    """Fedorov et al. 2017, as in meshnet.py."""
    channels = [inputs] + [width] * len(dilations)
    blocks = [nn.Sequential(nn.Conv3d(a, width, 3, padding=d, dilation=d), nn.BatchNorm3d(width), nn.ReLU())
              for a, d in zip(channels, dilations)]
    return nn.Sequential(*blocks, nn.Conv3d(width, classes, 1))


config = {"network": "meshnet", "in_channels": 2, "classes": 3, "width": 5, "dilations": [1, 2, 4, 1]}
golden("meshnet_3d", lambda: meshnet(2, 3, 5, (1, 2, 4, 1)), config, (1, 2, 9, 12, 7))

preset("unet_2015", lambda: UNet(2, 1, 2, padded=False, norm="none"), (1, 1, 572, 572))
preset("pytorch_unet", lambda: UNet(2, 3, 2), (1, 3, 256, 256))
preset("pytorch_unet_bilinear", lambda: UNet(2, 3, 2, linear=True), (1, 3, 256, 256))
preset("nested_unet", lambda: NestedUNet(2, 3, 1), (1, 3, 256, 256))
preset("nested_unet_deep_supervision", lambda: NestedUNet(2, 3, 1, deep_supervision=True), (1, 3, 256, 256), last_first)
preset("unet_ct_single_att_dsv", lambda: AttentionGated(3, 1, 4), (1, 1, 96, 160, 160))
preset("unet_ct_multi_att_dsv", lambda: AttentionGated(3, 1, 4, gates=2), (1, 1, 96, 160, 160))
preset("brain_tissue", lambda: meshnet(1, 3, 21, (1, 1, 2, 4, 8, 16, 1)), (1, 1, 38, 38, 38))
preset("stroke_lesions", lambda: meshnet(1, 2, 26, (1, 2, 4, 8, 16, 16, 8, 4, 2)), (1, 1, 64, 64, 64))

if __name__ == "__main__":
    main("papers_unets")
