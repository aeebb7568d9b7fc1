"""torchvision's AlexNet, VGG, GoogLeNet and Inception v3: `zoo_torchvision_classic.py [NAME ...]`."""
from torch import nn
from torchvision import models

from zoo import golden, main, preset

CLASSES = 5
CONVOLUTIONS = {11: [1, 1, 2, 2, 2], 13: [2, 2, 2, 2, 2], 16: [2, 2, 3, 3, 3], 19: [2, 2, 4, 4, 4]}

preset("alexnet", models.alexnet, (1, 3, 224, 224))
for layers in CONVOLUTIONS:
    for name in (f"vgg{layers}", f"vgg{layers}_bn"):
        preset(name, lambda name=name: getattr(models, name)(init_weights=False), (1, 3, 224, 224))
preset("googlenet", lambda: models.googlenet(init_weights=False, transform_input=True), (1, 3, 224, 224))
# Two images: the auxiliary head has a batch norm of one value for each image and channel.
preset("inception_v3", lambda: models.inception_v3(init_weights=False, transform_input=True), (2, 3, 299, 299))


def narrowed(net, ratio, features):
    """The network with other layers: the channels of convolutions and norms but the image's three are multiplied by `ratio`,
    a pair; `features` maps the numbers of features of linear layers, those of the classes excepted."""
    narrow = lambda channels: channels if channels == 3 else channels * ratio[0] // ratio[1]
    linear = lambda count: count if count == CLASSES else features[count]
    for name, m in list(net.named_children()):
        match m:
            case nn.Conv2d():
                new = nn.Conv2d(narrow(m.in_channels), narrow(m.out_channels), m.kernel_size, m.stride, m.padding, bias=m.bias is not None)
            case nn.BatchNorm2d():
                new = nn.BatchNorm2d(narrow(m.num_features), eps=m.eps)
            case nn.Linear():
                new = nn.Linear(linear(m.in_features), linear(m.out_features))
            case _:
                new = narrowed(m, ratio, features)
        setattr(net, name, new)
    return net


def alexnet(name, *inputs):
    widths = [8, 24, 48, 32, 32]
    build = lambda: narrowed(models.AlexNet(CLASSES), (1, 8), {256 * 36: 32 * 36, 4096: 24})
    config = {"network": "alexnet", "in_channels": 3, "classes": CLASSES, "widths": widths, "hidden": 24, "dropout": 0.0}
    golden(name, build, config, *inputs)


alexnet("alexnet", (2, 3, 224, 224))
alexnet("alexnet_smallest", (1, 3, 63, 85))


def vgg(name, shape, batch_norm, convolutions, widths):
    layers = [layer for count, width in zip(convolutions, widths) for layer in [*[width] * count, "M"]]

    def build():
        net = models.VGG(models.vgg.make_layers(layers, batch_norm), CLASSES, init_weights=False)
        hidden = {512 * 49: widths[-1] * 49, 4096: 16}
        net.classifier = narrowed(net.classifier, (1, 1), hidden)
        return net

    config = {"network": "vgg", "in_channels": 3, "classes": CLASSES, "convolutions": convolutions, "widths": widths,
              "batch_norm": batch_norm, "hidden": 16, "dropout": 0.0}
    golden(name, build, config, shape)


vgg("vgg_plain", (2, 3, 47, 32), False, CONVOLUTIONS[11], [4, 6, 8, 8, 10])
vgg("vgg_bn", (2, 3, 64, 70), True, CONVOLUTIONS[16], [4, 6, 6, 8, 8])
vgg("vgg_shallow", (1, 3, 28, 28), True, [1, 2], [4, 6])


def googlenet(name, shape, **arguments):
    features = {2048: 256, 1024: 128}
    build = lambda: narrowed(models.GoogLeNet(CLASSES, init_weights=False, **arguments), (1, 8), features)
    config = {"network": "googlenet", "in_channels": 3, "classes": CLASSES, "width": 8, "auxiliary_dropout": 0.0, "auxiliary": arguments.get("aux_logits", True),
              "transform_input": arguments.get("transform_input", False), "dropout": 0.0}
    golden(name, build, config, shape)


googlenet("googlenet", (2, 3, 75, 64))
googlenet("googlenet_transformed", (1, 3, 64, 65), aux_logits=False, transform_input=True)
googlenet("googlenet_smallest", (3, 3, 15, 16), aux_logits=False)


def inception(name, shape, **arguments):
    build = lambda: narrowed(models.Inception3(CLASSES, init_weights=False, **arguments), (1, 16), {2048: 128, 768: 48})
    config = {"network": "inception_v3", "in_channels": 3, "classes": CLASSES, "width": 2, "auxiliary": arguments.get("aux_logits", True),
              "transform_input": arguments.get("transform_input", False), "dropout": 0.0}
    golden(name, build, config, shape)


inception("inception_v3", (2, 3, 299, 299))
inception("inception_v3_transformed", (3, 3, 75, 80), aux_logits=False, transform_input=True)

if __name__ == "__main__":
    main("torchvision_classic")
