"""AlexNet as its paper has it: `zoo_papers_classic.py [NAME ...]`."""
import torch
from torch import nn
from torch.nn import functional as F

from zoo import golden, main, preset


class AlexNet2012(nn.Module):
    """Krizhevsky, Sutskever, Hinton 2012, with the names of layers in Caffe. PyTorch's alpha is of the mean of squares."""

    def __init__(self, classes=1000, widths=(96, 256, 384, 384, 256), groups=2, hidden=4096):
        super().__init__()
        a, b, c, d, e = widths
        self.conv1 = nn.Conv2d(3, a, 11, stride=4)
        self.conv2 = nn.Conv2d(a, b, 5, padding=2, groups=groups)
        self.conv3 = nn.Conv2d(b, c, 3, padding=1)
        self.conv4 = nn.Conv2d(c, d, 3, padding=1, groups=groups)
        self.conv5 = nn.Conv2d(d, e, 3, padding=1, groups=groups)
        self.norm = nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)
        self.drop = nn.Dropout(0.5)
        self.fc6 = nn.Linear(e * 36, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.fc8 = nn.Linear(hidden, classes)

    def forward(self, x):
        pool = lambda x: F.max_pool2d(x, 3, 2)
        x = pool(self.norm(self.conv1(x).relu()))
        x = pool(self.norm(self.conv2(x).relu()))
        x = pool(self.conv5(self.conv4(self.conv3(x).relu()).relu()).relu()).flatten(1)
        x = self.drop(self.fc6(x).relu())
        return self.fc8(self.drop(self.fc7(x).relu()))


preset("alexnet_2012", AlexNet2012, (1, 3, 227, 227))

small = {"classes": 5, "widths": [8, 12, 12, 12, 8], "groups": 2, "hidden": 16}
config = {"network": "alexnet", "form": "paper", "in_channels": 3, "dropout": 0.0}
golden("alexnet_paper", lambda: AlexNet2012(**small), config | small, (2, 3, 227, 227))

assert sum(p.numel() for p in AlexNet2012(groups=1).parameters()) == 62_378_344
if __name__ == "__main__":
    main("papers_classic")
