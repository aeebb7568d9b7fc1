"""A checkpoint as nnU-Net's trainer writes it, of a tiny network: `zoo/nnunet_checkpoint.pth` with `nnunet_checkpoint.output.json`, what the
network gives for s("input")."""
import json

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from formula import signed
from zoo import HERE, sample

ARGUMENTS = {
    "n_stages": 2, "features_per_stage": [2, 4], "conv_op": "torch.nn.modules.conv.Conv2d", "kernel_sizes": [[3, 3], [3, 3]],
    "strides": [[1, 1], [2, 2]], "n_conv_per_stage": [2, 1], "n_conv_per_stage_decoder": [1], "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d", "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "dropout_op": None,
    "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
}
SHAPE = (1, 1, 8, 12)

torch.manual_seed(0)
network = PlainConvUNet(1, num_classes=3, deep_supervision=True, **ARGUMENTS | {
    "conv_op": nn.Conv2d, "norm_op": nn.InstanceNorm2d, "nonlin": nn.LeakyReLU})
network.apply(network.initialize)
optimizer = torch.optim.SGD(network.parameters(), 1e-2, momentum=0.99, weight_decay=3e-5, nesterov=True)
network(signed("input", SHAPE).float())[0].square().mean().backward()
optimizer.step()
plans = {"dataset_name": "Dataset999_Tiny", "plans_name": "nnUNetPlans", "configurations": {"2d": {
    "batch_size": 2, "patch_size": [8, 12], "spacing": [1.0, 1.0], "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet", "arch_kwargs": ARGUMENTS,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]}}}}
torch.save({
    "network_weights": network.state_dict(), "optimizer_state": optimizer.state_dict(), "grad_scaler_state": None,
    "logging": {"mean_fg_dice": [np.float64(0.5)], "train_losses": [np.float32(-0.1)], "lrs": [0.01], "epoch_start_timestamps": [1.5]},
    "_best_ema": np.float64(0.5), "current_epoch": 1, "init_args": {
        "plans": plans, "configuration": "2d", "fold": 0, "dataset_json": {"labels": {"background": 0, "a": 1, "b": 2}},
        "device": torch.device("cuda")},
    "trainer_name": "nnUNetTrainer", "inference_allowed_mirroring_axes": (0, 1),
}, HERE / "nnunet_checkpoint.pth")
with torch.no_grad():
    outputs = network.eval()(signed("input", SHAPE).float())
numbers = [[round(value, 7) for value in sample(output).tolist()] for output in outputs]
(HERE / "nnunet_checkpoint.output.json").write_text(json.dumps({"plans": plans, "input": SHAPE, "outputs": numbers}) + "\n")
