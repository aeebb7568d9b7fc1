"""U-Nets of papers, each rebuilt in few lines with the names of its repository: `zoo_papers_unets2.py [NAME ...]`.

UNet 3+: ZJUGiveLab/UNet-Version; residual U-Net: rishikksh20/ResUnet; U²-Net: xuebinqin/U-2-Net. Half-UNet has no PyTorch code by
its authors: its numbers of parameters are the paper's.
"""
import math

from torch import cat, nn, relu, sigmoid
from torch.nn import functional as F

from zoo import golden, kaiming_, main, preset

CONV = [None, nn.Conv1d, nn.Conv2d, nn.Conv3d]
CONV_TRANSPOSE = [None, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]
NORM = [None, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d]
MAX_POOL = [None, F.max_pool1d, F.max_pool2d, F.max_pool3d]
ADAPTIVE_MAX = [None, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d]
LINEAR = [None, "linear", "bilinear", "trilinear"]


def resized(rank, x, **to):
    return F.interpolate(x, mode=LINEAR[rank], align_corners=False, **to)


# U²-Net ---------------------------------------------------------------------------------------------------------------------

class Rebnconv(nn.Module):
    def __init__(self, rank, inputs, outputs, dilation):
        super().__init__()
        self.conv_s1 = CONV[rank](inputs, outputs, 3, padding=dilation, dilation=dilation)
        self.bn_s1 = NORM[rank](outputs)

    def forward(self, x):
        return relu(self.bn_s1(self.conv_s1(x)))


class Rsu(nn.Module):
    """RSU-`height`; RSU-4F if it isn't pooled."""

    def __init__(self, rank, height, pooled, inputs, inner, outputs):
        super().__init__()
        self.rank, self.height, self.pooled = rank, height, pooled
        self.rebnconvin = Rebnconv(rank, inputs, outputs, 1)
        for k in range(1, height + 1):
            dilation = (2 if k == height else 1) if pooled else 2 ** (k - 1)
            setattr(self, f"rebnconv{k}", Rebnconv(rank, outputs if k == 1 else inner, inner, dilation))
        for k in range(height - 1, 0, -1):
            dilation = 1 if pooled else 2 ** (k - 1)
            setattr(self, f"rebnconv{k}d", Rebnconv(rank, 2 * inner, outputs if k == 1 else inner, dilation))

    def forward(self, x):
        whole = y = self.rebnconvin(x)
        levels = []
        for k in range(1, self.height + 1):
            if self.pooled and 1 < k < self.height:
                y = MAX_POOL[self.rank](y, 2, 2, ceil_mode=True)
            y = getattr(self, f"rebnconv{k}")(y)
            levels.append(y)
        for k in range(self.height - 1, 0, -1):
            skip = levels[k - 1]
            y = getattr(self, f"rebnconv{k}d")(cat([resized(self.rank, y, size=skip.shape[2:]), skip], 1))
        return y + whole


class U2Net(nn.Module):
    def __init__(self, rank, inputs, classes, encoder, decoder):
        super().__init__()
        self.rank, before = rank, inputs
        heights = [7, 6, 5, 4, 4, 4]
        for k, (inner, outputs) in enumerate(encoder, 1):
            setattr(self, f"stage{k}", Rsu(rank, heights[k - 1], k < 5, before, inner, outputs))
            before = outputs
        at_sides = [before]
        for k, (inner, outputs) in zip(range(5, 0, -1), decoder):
            setattr(self, f"stage{k}d", Rsu(rank, heights[k - 1], k < 5, before + encoder[k - 1][1], inner, outputs))
            before = outputs
            at_sides.append(before)
        for k, channels in enumerate(reversed(at_sides), 1):
            setattr(self, f"side{k}", CONV[rank](channels, classes, 3, padding=1))
        self.outconv = CONV[rank](6 * classes, classes, 1)

    def forward(self, x):
        size, levels = x.shape[2:], []
        for k in range(1, 7):
            if k > 1:
                x = MAX_POOL[self.rank](x, 2, 2, ceil_mode=True)
            x = getattr(self, f"stage{k}")(x)
            levels.append(x)
        sides = [self.side6(x)]
        for k in range(5, 0, -1):
            skip = levels[k - 1]
            x = getattr(self, f"stage{k}d")(cat([resized(self.rank, x, size=skip.shape[2:]), skip], 1))
            sides.insert(0, getattr(self, f"side{k}")(x))
        sides = [resized(self.rank, side, size=size) for side in sides]
        return [sigmoid(y) for y in (self.outconv(cat(sides, 1)), *sides)]


FULL = [[32, 64], [32, 128], [64, 256], [128, 512], [256, 512], [256, 512]], [[256, 512], [128, 256], [64, 128], [32, 64], [16, 64]]
preset("u2net", lambda: U2Net(2, 3, 1, *FULL), (1, 3, 320, 320))
preset("u2netp", lambda: U2Net(2, 3, 1, [[16, 64]] * 6, [[16, 64]] * 5), (1, 3, 320, 320))


def u2net(name, shape, rank=2, classes=1):
    encoder = [[2, 3], [3, 4], [2, 5], [3, 4], [2, 4], [2, 3]]
    decoder = [[3, 4], [2, 5], [2, 3], [3, 2], [2, 4]]
    config = {"network": "u2net", "rank": rank, "in_channels": shape[1], "classes": classes, "encoder": encoder, "decoder": decoder}
    golden(name, lambda: U2Net(rank, shape[1], classes, encoder, decoder), config, shape)


u2net("u2net", (2, 3, 64, 96))
u2net("u2net_odd", (2, 1, 37, 75), classes=3)
u2net("u2net_3d", (2, 2, 20, 17, 33), rank=3)
u2net("u2net_1d", (2, 1, 101), rank=1)


# UNet 3+ --------------------------------------------------------------------------------------------------------------------

def conv_norm(module, names, rank, inputs, outputs):
    setattr(module, names[0], CONV[rank](inputs, outputs, 3, padding=1))
    setattr(module, names[1], NORM[rank](outputs))


class UNet3Plus(nn.Module):
    def __init__(self, rank, inputs, classes, widths, supervision):
        super().__init__()
        self.rank, self.depth, self.supervision = rank, len(widths), supervision
        before, joined = inputs, widths[0] * len(widths)
        for k, width in enumerate(widths, 1):
            block = nn.Module()
            for conv in ("conv1", "conv2"):
                setattr(block, conv, nn.Sequential(CONV[rank](before, width, 3, padding=1), NORM[rank](width), nn.ReLU()))
                before = width
            setattr(self, f"conv{k}", block)
        for to in range(self.depth - 1, 0, -1):
            for k in range(1, self.depth + 1):
                name, channels = self.branch(k, to), joined if to < k < self.depth else widths[k - 1]
                conv_norm(self, (f"{name}_conv", f"{name}_bn"), rank, channels, widths[0])
            conv_norm(self, (f"conv{to}d_1", f"bn{to}d_1"), rank, joined, joined)
        for k in range(1, 2 if supervision == "none" else self.depth + 1):
            setattr(self, f"outconv{k}", CONV[rank](widths[-1] if k == self.depth else joined, classes, 3, padding=1))
        if supervision == "deep_guided":
            self.cls = nn.Sequential(nn.Dropout(0.5), CONV[rank](widths[-1], 2, 1), ADAPTIVE_MAX[rank](1), nn.Sigmoid())
        kaiming_(self)

    def branch(self, k, to):
        return f"h{k}_PT_hd{to}" if k < to else f"h{k}_Cat_hd{to}" if k == to else f"hd{k}_UT_hd{to}"

    def layer(self, conv, norm, x):
        return relu(getattr(self, norm)(getattr(self, conv)(x)))

    def forward(self, x):
        maps = {}
        for k in range(1, self.depth + 1):
            block = getattr(self, f"conv{k}")
            maps[k] = x = block.conv2(block.conv1(x if k == 1 else MAX_POOL[self.rank](x, 2)))
        presence = self.cls(x).flatten(1) if self.supervision == "deep_guided" else None
        for to in range(self.depth - 1, 0, -1):
            parts = []
            for k in range(1, self.depth + 1):
                name, y = self.branch(k, to), maps[k]
                if k < to:
                    y = MAX_POOL[self.rank](y, 2 ** (to - k), 2 ** (to - k), ceil_mode=True)
                if k > to:
                    y = resized(self.rank, y, scale_factor=2 ** (k - to))
                parts.append(self.layer(f"{name}_conv", f"{name}_bn", y))
            # The decoder's map replaces the encoder's, which only finer levels read.
            decoded = self.layer(f"conv{to}d_1", f"bn{to}d_1", cat(parts, 1))
            maps[to] = decoded
        outputs = []
        for k in range(1, 2 if self.supervision == "none" else self.depth + 1):
            y = getattr(self, f"outconv{k}")(maps[k])
            y = y if k == 1 else resized(self.rank, y, scale_factor=2 ** (k - 1))
            if presence is not None:
                y = y * presence.argmax(1).double().view(-1, *[1] * (self.rank + 1))
            outputs.append(sigmoid(y))
        # The repository's network doesn't return the last one.
        return outputs if presence is None else [*outputs, presence]


WIDTHS = [64, 128, 256, 512, 1024]
for name, supervision in (("unet_3plus", "none"), ("unet_3plus_deepsup", "deep"), ("unet_3plus_deepsup_cgm", "deep_guided")):
    build = lambda supervision=supervision: UNet3Plus(2, 3, 1, WIDTHS, supervision)
    preset(name, build, (1, 3, 320, 320))


def unet3plus(name, shape, supervision, rank=2, classes=1, widths=(2, 3, 4, 5, 6)):
    config = {"network": "unet3plus", "rank": rank, "in_channels": shape[1], "classes": classes, "widths": list(widths),
              "supervision": supervision, "dropout": 0.0}
    golden(name, lambda: UNet3Plus(rank, shape[1], classes, widths, supervision), config, shape)


unet3plus("unet3plus", (2, 3, 32, 48), "none")
unet3plus("unet3plus_deep", (1, 1, 32, 16), "deep", classes=2)
unet3plus("unet3plus_guided", (3, 1, 16, 32), "deep_guided")
unet3plus("unet3plus_3d", (2, 2, 8, 12, 4), "deep_guided", rank=3, widths=(3, 2, 4))
unet3plus("unet3plus_1d", (2, 1, 48), "deep", rank=1)


# Residual U-Net -------------------------------------------------------------------------------------------------------------

class ResidualConv(nn.Module):
    def __init__(self, rank, inputs, outputs, stride):
        super().__init__()
        conv = lambda inputs, stride: CONV[rank](inputs, outputs, 3, stride, 1)
        half = lambda inputs, stride: (NORM[rank](inputs), nn.ReLU(), conv(inputs, stride))
        self.conv_block = nn.Sequential(*half(inputs, stride), *half(outputs, 1))
        self.conv_skip = nn.Sequential(conv(inputs, stride), NORM[rank](outputs))

    def forward(self, x):
        return self.conv_block(x) + self.conv_skip(x)


class ResUNet(nn.Module):
    def __init__(self, rank, inputs, classes, widths):
        super().__init__()
        self.depth = len(widths) - 1
        conv = lambda inputs: CONV[rank](inputs, widths[0], 3, padding=1)
        self.input_layer = nn.Sequential(conv(inputs), NORM[rank](widths[0]), nn.ReLU(), conv(widths[0]))
        self.input_skip = nn.Sequential(conv(inputs))
        for k in range(1, self.depth + 1):
            name = "bridge" if k == self.depth else f"residual_conv_{k}"
            setattr(self, name, ResidualConv(rank, widths[k - 1], widths[k], 2))
        for k in range(1, self.depth + 1):
            coarse, fine = widths[self.depth + 1 - k], widths[self.depth - k]
            up = nn.Module()
            up.upsample = CONV_TRANSPOSE[rank](coarse, coarse, 2, 2)
            setattr(self, f"upsample_{k}", up)
            setattr(self, f"up_residual_conv{k}", ResidualConv(rank, coarse + fine, fine, 1))
        self.output_layer = nn.Sequential(CONV[rank](widths[0], classes, 1), nn.Sigmoid())

    def forward(self, x):
        levels = [self.input_layer(x) + self.input_skip(x)]
        for k in range(1, self.depth + 1):
            levels.append(getattr(self, "bridge" if k == self.depth else f"residual_conv_{k}")(levels[-1]))
        x = levels.pop()
        for k in range(1, self.depth + 1):
            x = getattr(self, f"up_residual_conv{k}")(cat([getattr(self, f"upsample_{k}").upsample(x), levels.pop()], 1))
        return self.output_layer(x)


preset("res_unet", lambda: ResUNet(2, 3, 1, [64, 128, 256, 512]), (1, 3, 256, 256))


def res_unet(name, shape, widths, rank=2, classes=1):
    config = {"network": "res_unet", "rank": rank, "in_channels": shape[1], "classes": classes, "widths": widths}
    golden(name, lambda: ResUNet(rank, shape[1], classes, widths), config, shape)


res_unet("res_unet", (2, 3, 24, 40), [3, 4, 5, 6])
res_unet("res_unet_3d", (2, 1, 8, 4, 12), [2, 3, 4], rank=3, classes=2)
res_unet("res_unet_1d", (2, 1, 16), [2, 3], rank=1)


# Half-UNet ------------------------------------------------------------------------------------------------------------------

class Ghost(nn.Module):
    def __init__(self, rank, inputs, width, convolution):
        super().__init__()
        half = width if convolution == "full" else width // 2
        self.conv = CONV[rank](inputs, half, 3, padding=1)
        self.bn = NORM[rank](half, eps=1e-3, momentum=0.01)
        if convolution != "full":
            self.depthwise = CONV[rank](half, half, 3, padding=1, groups=half, bias=convolution == "ghost")
        if convolution == "ghost_separable":
            self.pointwise = CONV[rank](half, half, 1)

    def forward(self, x):
        y = relu(self.bn(self.conv(x)))
        if not hasattr(self, "depthwise"):
            return y
        other = self.depthwise(y)
        return cat([y, relu(self.pointwise(other) if hasattr(self, "pointwise") else other)], 1)


class HalfUNet(nn.Module):
    def __init__(self, rank, inputs, classes, width, levels, convolution, upsampling):
        super().__init__()
        self.rank, self.mode = rank, upsampling
        pair = lambda inputs: nn.Sequential(Ghost(rank, inputs, width, convolution), Ghost(rank, width, width, convolution))
        self.encoder = nn.ModuleList(pair(inputs if k == 0 else width) for k in range(levels))
        self.decoder = pair(width)
        self.head = CONV[rank](width, classes, 1)
        # As in Keras versions: `he_normal`, a normal distribution truncated at two deviations, for the convolutions, and Keras' default,
        # Glorot's, for the others.
        for name, module in self.named_modules():
            if isinstance(module, tuple(CONV[1:])):
                if name.endswith(".conv"):
                    deviation = math.sqrt(2 / module.weight[0].numel()) / 0.87962566103423978
                    nn.init.trunc_normal_(module.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
                else:
                    nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x):
        size, total = x.shape[2:], 0
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else MAX_POOL[self.rank](x, 2))
            grown = resized(self.rank, x, size=size) if self.mode == "linear" else F.interpolate(x, size=size, mode="nearest")
            total = total + grown
        return sigmoid(self.head(self.decoder(total)))


for name, convolution, upsampling in (("half_unet", "ghost", "linear"), ("half_unet_keras", "ghost_separable", "nearest"),
                                      ("half_unet_full", "full", "linear")):
    build = lambda convolution=convolution, upsampling=upsampling: HalfUNet(2, 1, 1, 64, 5, convolution, upsampling)
    preset(name, build, (1, 1, 128, 128))


def half_unet(name, shape, convolution, upsampling, rank=2, classes=1, width=6, levels=4):
    config = {"network": "half_unet", "rank": rank, "in_channels": shape[1], "classes": classes, "width": width, "levels": levels,
              "convolution": convolution, "upsampling": upsampling}
    golden(name, lambda: HalfUNet(rank, shape[1], classes, width, levels, convolution, upsampling), config, shape)


half_unet("half_unet", (2, 1, 32, 48), "ghost", "linear")
half_unet("half_unet_keras", (2, 3, 19, 29), "ghost_separable", "nearest", classes=2)
half_unet("half_unet_full", (2, 1, 17, 24), "full", "linear", width=3)
half_unet("half_unet_3d", (2, 1, 8, 9, 12), "ghost", "linear", rank=3, levels=3)
half_unet("half_unet_1d", (2, 2, 21), "ghost_separable", "linear", rank=1, classes=2, levels=3)

if __name__ == "__main__":
    main("papers_unets2")
