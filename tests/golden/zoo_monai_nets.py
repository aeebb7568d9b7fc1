"""MONAI's smaller networks, and a network over slices: `zoo_monai_nets.py [NAME ...]`."""
import types
import warnings
from unittest import mock

import torch
from monai.networks import nets
from monai.networks.blocks import fcn as monai_fcn
from torch import nn

import networks
from zoo import golden, last_first, main, preset

warnings.filterwarnings("ignore")

NORMS = {"batch": "batch", "instance": "instance", "instance_affine": ("instance", {"affine": True}), "none": None}
ACTIVATIONS = {"prelu": "PRELU", "relu": "RELU", "gelu": "GELU", "silu": "SWISH", "sigmoid": "SIGMOID", "tanh": "TANH"}


def norm_of(norm):
    return ("group", {"num_groups": norm["group"]}) if isinstance(norm, dict) else NORMS[norm]


def activation_of(activation):
    if isinstance(activation, dict):
        return ("leakyrelu", {"negative_slope": activation["leaky_relu"]})
    return ACTIVATIONS[activation]


def single(sizes):
    return sizes if isinstance(sizes, int) else tuple(sizes)


def style_of(config):
    style = {"kernel": 3, "activation": "prelu", "norm": "instance", "bias": True, "dropout": None} | config.get("style", {})
    return {"kernel_size": single(style["kernel"]), "act": activation_of(style["activation"]),
            "norm": norm_of(style["norm"]), "bias": style["bias"], "dropout": style["dropout"]}


def strides_of(config):
    return tuple(single(stride) for stride in config["strides"])


def coder_arguments(config):
    inner = {"channels": None, "dilations": None, "residual_units": 2} | config.get("inner", {})
    return {"out_channels": config["out_channels"], "channels": tuple(config["channels"]), "strides": strides_of(config),
            "up_kernel_size": single(config.get("up_kernel", 3)), "num_res_units": config.get("residual_units", 0),
            "inter_channels": inner["channels"], "inter_dilations": inner["dilations"],
            "num_inter_units": inner["residual_units"]} | style_of(config)


def autoencoder(config):
    return nets.AutoEncoder(config["rank"], config["in_channels"], **coder_arguments(config))


def coder(name, shape, **config):
    config = {"network": "autoencoder", "rank": len(shape) - 2, "in_channels": shape[1], "out_channels": 2} | config
    golden(name, lambda: autoencoder(config), config, shape)


coder("autoencoder_2d", (2, 1, 16, 24), channels=[4, 6, 8], strides=[2, 2, 2])
coder("autoencoder_residual", (2, 2, 8, 6, 12), channels=[4, 6], strides=[2, [1, 2, 2]], residual_units=2,
      style={"norm": "batch", "activation": {"leaky_relu": 0.1}})
coder("autoencoder_inner", (2, 1, 15, 18), channels=[4, 5], strides=[2, 1], up_kernel=5,
      inner={"channels": [6, 6, 4], "dilations": [1, 2, 4], "residual_units": 2}, style={"kernel": [3, 5], "bias": False})
coder("autoencoder_1d", (2, 1, 12), channels=[4], strides=[3],
      inner={"channels": [5], "dilations": [2], "residual_units": 0}, style={"norm": {"group": 1}, "activation": "relu"})


def var_autoencoder(config):
    """Without noise (`noise` is 0): the code in training is the mean. In inference the original adds in place, where autograd
    refuses; the sum is the same."""
    net = nets.VarAutoEncoder(len(config["size"]), (config["in_channels"], *config["size"]),
                              latent_size=config["latent_size"], use_sigmoid=config.get("sigmoid", True),
                              use_mean_at_inference=config.get("mean_at_inference", False), **coder_arguments(config))
    is_mean = lambda: net.training or net.use_mean_at_inference
    net.reparameterize = lambda mu, logvar: mu if is_mean() else mu + torch.exp(0.5 * logvar)
    return net


def variational(name, shape, **config):
    config = {"network": "var_autoencoder", "in_channels": shape[1], "out_channels": 1, "size": list(shape[2:]),
              "noise": 0.0} | config
    golden(name, lambda: var_autoencoder(config), config, shape)


variational("var_autoencoder_2d", (2, 1, 16, 12), latent_size=3, channels=[4, 6], strides=[1, 2])
variational("var_autoencoder_3d", (2, 2, 9, 8, 6), latent_size=2, channels=[4, 6], strides=[2, 2], residual_units=1,
            mean_at_inference=True, sigmoid=False, inner={"channels": [5, 6]}, out_channels=2, style={"norm": "batch"})


def strided(name, kind, shape, extra, **config):
    """A network that is a regressor; `extra(config)` has the arguments of its kind."""
    family = {"Regressor": "regressor", "Classifier": "monai_classifier"}.get(kind, "discriminator")
    config = {"network": family, "in_channels": shape[1], "size": list(shape[2:])} | config
    if family == "discriminator":
        config = {"style": {"dropout": 0.0}} | config
    build = lambda: getattr(nets, kind)((shape[1], *shape[2:]), channels=tuple(config["channels"]),
                                        strides=strides_of(config), num_res_units=config.get("residual_units", 2),
                                        **style_of(config), **extra)
    golden(name, build, config, shape)


strided("regressor_2d", "Regressor", (2, 1, 16, 20), {"out_shape": (2,)}, out_shape=[2], channels=[2, 4], strides=[2, 2])
strided("regressor_3d", "Regressor", (3, 2, 8, 9, 6), {"out_shape": (3, 2)}, out_shape=[3, 2], channels=[4, 6],
        strides=[[1, 2, 2], 2], residual_units=0, style={"norm": "batch", "kernel": 3})
strided("monai_classifier_2d", "Classifier", (2, 1, 13, 16), {"classes": 3}, classes=3, channels=[4, 6], strides=[2, 2],
        residual_units=1)
strided("monai_classifier_act", "Classifier", (1, 1, 8, 8, 8), {"classes": 3, "last_act": "sigmoid"}, classes=3,
        last_activation="sigmoid", channels=[4], strides=[2], style={"activation": "gelu", "norm": "instance_affine"})
strided("discriminator_2d", "Discriminator", (2, 1, 16, 16), {}, channels=[4, 6], strides=[2, 2])
strided("discriminator_linear", "Discriminator", (2, 1, 24), {"last_act": None}, head="linear", channels=[4, 6], strides=[2, 3],
        residual_units=0)
strided("critic_3d", "Critic", (2, 1, 8, 8, 6), {}, head="mean", channels=[4, 6], strides=[2, 1])


def generator(name, latent, config):
    config = {"network": "generator"} | config
    build = lambda: nets.Generator((config["latent_size"],), (config["start_channels"], *config["start_size"]),
                                   tuple(config["channels"]), strides_of(config),
                                   num_res_units=config.get("residual_units", 2), **style_of(config))
    golden(name, build, config, latent)


generator("generator_2d", (2, 5), {"latent_size": 5, "start_size": [4, 3], "start_channels": 6, "channels": [4, 1],
                                   "strides": [2, 2]})
generator("generator_3d", (2, 3, 2), {"latent_size": 6, "start_size": [2, 3, 2], "start_channels": 4, "channels": [4, 2],
                                      "strides": [2, [1, 2, 2]], "residual_units": 0, "style": {"norm": "batch"}})


def fully_connected(name, shape, **config):
    config = {"network": "fully_connected", "in_channels": 12, "out_channels": 3} | config
    build = lambda: nets.FullyConnectedNet(12, 3, config["hidden_channels"], bias=config.get("bias", True),
                                           act=activation_of(config.get("activation", "prelu")), dropout=0.1)
    golden(name, build, config, shape)


fully_connected("fully_connected_prelu", (3, 12), hidden_channels=[10, 5])
fully_connected("fully_connected_relu", (2, 12, 1), hidden_channels=[4], activation="relu", bias=False)


def patch_arguments(config):
    return {"spatial_dims": config["rank"], "channels": config["channels"], "in_channels": config["in_channels"],
            "out_channels": config.get("out_channels", 1), "num_layers_d": config["layers"],
            "kernel_size": config.get("kernel", 4), "activation": activation_of(config.get("activation", {"leaky_relu": 0.2})),
            "norm": norm_of(config.get("norm", "batch")), "bias": config.get("bias", False)}


def patch(name, shape, **config):
    config = {"network": "patch_discriminator", "rank": len(shape) - 2, "in_channels": shape[1]} | config
    build = lambda: nets.PatchDiscriminator(padding=config.get("padding", 1), last_conv_kernel_size=config.get("last_kernel"),
                                            **patch_arguments(config))
    golden(name, build, config, shape, outputs=last_first)


patch("patch_discriminator_2d", (2, 1, 32, 40), channels=4, layers=3)
patch("patch_discriminator_3d", (1, 2, 16, 17, 12), channels=4, layers=2, kernel=3, last_kernel=1, norm="instance", bias=True,
      out_channels=2, activation="relu")


def patches(name, shape, **config):
    config = {"network": "multi_scale_patch_discriminator", "rank": len(shape) - 2, "in_channels": shape[1],
              "smallest_image": 16} | config
    build = lambda: nets.MultiScalePatchDiscriminator(
        num_d=config["discriminators"], minimum_size_im=config["smallest_image"],
        last_conv_kernel_size=config.get("last_kernel", 1), **patch_arguments(config))
    golden(name, build, config, shape)


patches("multi_scale_patch_2d", (2, 1, 48, 40), channels=4, layers=2, discriminators=2)
patches("multi_scale_patch_3d", (1, 1, 20, 16, 18), channels=4, layers=1, discriminators=2, norm="instance", last_kernel=3)


def fcn(config):
    """MONAI's FCN with an encoder of fewer blocks and channels."""
    width, layers = config["width"], config["layers"]
    encoder = lambda **_: networks.resnet(2, "bottleneck", layers, 1, 1, 64, width)
    own = monai_fcn.GCN
    kind = monai_fcn.MCFCN if config.get("projection") else monai_fcn.FCN
    mode = {"bilinear": "bilinear", "transposed": "transpose"}[config.get("upsampling", "bilinear")]
    more = {"in_channels": config["in_channels"]} if config.get("projection") else {}
    with mock.patch.object(monai_fcn, "models", types.SimpleNamespace(resnet50=encoder)), \
            mock.patch.object(monai_fcn, "GCN", lambda inputs, outputs: own(inputs * width // 64, outputs)):
        net = kind(out_channels=config["classes"], upsample_mode=mode, pretrained=False, **more)
    net.transformer = nn.Conv2d(4 * width, width, 1)
    return net


def fully_convolutional(name, shape, **config):
    config = {"network": "fcn", "in_channels": shape[1], "classes": 2, "width": 4, "layers": [1, 1, 1, 1]} | config
    golden(name, lambda: fcn(config), config, shape)


fully_convolutional("fcn_bilinear", (2, 3, 65, 72))
fully_convolutional("fcn_projection", (2, 2, 64, 34), projection=True, layers=[1, 2, 1, 1], classes=3)
fully_convolutional("fcn_transposed", (2, 3, 64, 32), upsampling="transposed")


class SliceSequence(nn.Module):
    """An encoder of slices, a recurrent network over them, a linear layer."""

    def __init__(self, config):
        super().__init__()
        self.config = {"block": "basic", "cell": "lstm", "recurrent_layers": 1, "bidirectional": True, "pooling": "last"} | config
        c, channels = self.config, config["in_channels"]
        self.encoder = networks.resnet(2, c["block"], c["layers"], 1, 1, 64, c["width"])
        features = self.encoder.fc.in_features
        self.encoder.conv1 = nn.Conv2d(channels, c["width"], 7, 2, 3, bias=False)
        self.encoder.fc = nn.Identity()
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[c["cell"]]
        self.rnn = kind(features, c["hidden"], c["recurrent_layers"], batch_first=True, bidirectional=c["bidirectional"])
        self.classifier = nn.Linear(c["hidden"] * (1 + c["bidirectional"]), c["classes"])

    def forward(self, x):
        codes = self.encoder(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (x.shape[0], x.shape[2]))
        sequence, state = self.rnn(codes)
        if self.config["pooling"] == "mean":
            return self.classifier(sequence.mean(1))
        hidden = state[0] if self.config["cell"] == "lstm" else state
        directions = 1 + self.config["bidirectional"]
        return self.classifier(torch.cat(list(hidden[-directions:]), dim=1))


def slices(name, shape, **config):
    config = {"network": "slice_sequence", "in_channels": shape[1], "classes": 3, "layers": [1, 1, 1, 1], "width": 4,
              "hidden": 5} | config
    golden(name, lambda: SliceSequence(config), config, shape)


slices("slice_lstm", (2, 1, 4, 20, 17), recurrent_layers=2)
slices("slice_lstm_mean", (1, 2, 5, 16, 16), bidirectional=False, pooling="mean", block="bottleneck")
slices("slice_gru", (2, 1, 3, 16, 20), cell="gru", recurrent_layers=2)
slices("slice_gru_one", (2, 1, 1, 16, 16), cell="gru", bidirectional=False)


def slice_preset(cell):
    config = {"in_channels": 1, "classes": 2, "layers": [2, 2, 2, 2], "width": 64, "hidden": 256, "cell": cell}
    return lambda: SliceSequence(config)


preset("fcn", lambda: monai_fcn.FCN(pretrained=False), (1, 3, 256, 256))
preset("mcfcn", lambda: monai_fcn.MCFCN(pretrained=False), (1, 3, 256, 256))
preset("fcn_transposed", lambda: monai_fcn.FCN(upsample_mode="transpose", pretrained=False), (1, 3, 256, 256))
# Floating-point operations of the recurrent layer aren't counted there.
preset("slice_lstm_resnet18", slice_preset("lstm"))
preset("slice_gru_resnet18", slice_preset("gru"))
preset("autoencoder", lambda: nets.AutoEncoder(2, 1, 1, (4, 8, 16), (2, 2, 2)), (1, 1, 64, 64))
preset("autoencoder_dilated", lambda: nets.AutoEncoder(2, 1, 1, (4,), (2,), inter_channels=(8, 8, 8), inter_dilations=(1, 2, 4),
                                                       num_inter_units=2), (1, 1, 64, 64))
preset("autoencoder_3d", lambda: nets.AutoEncoder(3, 1, 1, (16, 32, 64), (2, 2, 2), num_res_units=2), (1, 1, 32, 32, 32))
preset("var_autoencoder", lambda: nets.VarAutoEncoder(2, (1, 32, 32), 1, 2, (16, 32, 64), (1, 2, 2)), (1, 1, 32, 32))
preset("var_autoencoder_3d", lambda: nets.VarAutoEncoder(3, (1, 64, 64, 64), 1, 128, (16, 32, 64), (2, 2, 2)),
       (1, 1, 64, 64, 64))
preset("generator", lambda: nets.Generator((64,), (64, 8, 8), (32, 16, 1), (2, 2, 2)), (1, 64))
preset("generator_3d", lambda: nets.Generator((64,), (64, 8, 8, 8), (32, 16, 1), (2, 2, 2)), (1, 64))
preset("regressor", lambda: nets.Regressor((1, 64, 64), (2,), (2, 4, 8), (2, 2, 2)), (1, 1, 64, 64))
preset("regressor_3d", lambda: nets.Regressor((1, 64, 64, 64), (1,), (16, 32, 64, 64), (2, 2, 2, 2)), (1, 1, 64, 64, 64))
preset("monai_classifier", lambda: nets.Classifier((1, 64, 64), 6, (16, 32, 64), (2, 2, 2)), (1, 1, 64, 64))
preset("monai_classifier_3d", lambda: nets.Classifier((1, 64, 64, 64), 2, (16, 32, 64, 64), (2, 2, 2, 2)), (1, 1, 64, 64, 64))
preset("discriminator", lambda: nets.Discriminator((1, 64, 64), (8, 16, 32, 64), (2, 2, 2, 2)), (1, 1, 64, 64))
preset("critic", lambda: nets.Critic((1, 64, 64), (8, 16, 32, 64), (2, 2, 2, 2)), (1, 1, 64, 64))
preset("discriminator_3d", lambda: nets.Discriminator((1, 64, 64, 64), (8, 16, 32, 64), (2, 2, 2, 2)), (1, 1, 64, 64, 64))
preset("fully_connected", lambda: nets.FullyConnectedNet(4, 3, [10, 20, 10], dropout=0.2), (1, 4))
preset("patch_discriminator", lambda: nets.PatchDiscriminator(2, 64, 1), (1, 1, 256, 256), last_first)
preset("patch_discriminator_3d", lambda: nets.PatchDiscriminator(3, 64, 1), (1, 1, 64, 64, 64), last_first)
preset("multi_scale_patch_discriminator", lambda: nets.MultiScalePatchDiscriminator(2, 3, 2, 64, 1), (1, 1, 256, 256))
preset("multi_scale_patch_discriminator_3d", lambda: nets.MultiScalePatchDiscriminator(2, 2, 3, 32, 1), (1, 1, 64, 64, 64))

if __name__ == "__main__":
    main("monai_nets")
