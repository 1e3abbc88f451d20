"""Files as other programs write them, of one small network whose weights are known."""

import argparse
import collections
import datetime
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Small(nn.Module):
    """A convolution, batch normalisation, a classifier: `[B, 3, 8, 8]` → `[B, classes]`."""

    def __init__(self, num_classes: int = 5, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.fc = nn.Linear(4, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.stem(images).mean((2, 3)))


def trained(seed: int = 1, num_classes: int = 5) -> Small:
    """The network with weights and statistics unlike those of a new one."""
    generator = torch.Generator().manual_seed(seed)
    network = Small(num_classes)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    return network.eval()


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return collections.OrderedDict((prefix + name, tensor) for name, tensor in state.items())


def other(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A second set of weights of the same shapes, which must not be taken."""
    return collections.OrderedDict((name, torch.zeros_like(t)) for name, t in state.items())


def optimiser(network: nn.Module) -> dict[str, Any]:
    sgd = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.randn(2, 3, 8, 8)).sum().backward()
    sgd.step()
    return sgd.state_dict()


def _torchvision(state: dict[str, Tensor]) -> Any:
    """references/classification/train.py."""
    return {
        "model": state,
        "optimizer": optimiser(Small()),
        "lr_scheduler": {"step_size": 30, "base_lrs": [0.1], "last_epoch": 2},
        "epoch": 2,
        "args": argparse.Namespace(model="small", data_path=Path("/data"), lr=0.1),
        "model_ema": {"n_averaged": torch.tensor(7), **prefixed("module.", other(state))},
        "scaler": {"scale": 65536.0},
    }


def _timm(state: dict[str, Tensor]) -> Any:
    """timm.utils.CheckpointSaver."""
    return {
        "epoch": 9,
        "arch": "small",
        "state_dict": state,
        "optimizer": optimiser(Small()),
        "version": 2,
        "args": argparse.Namespace(lr=0.1),
        "state_dict_ema": other(state),
        "metric": np.float64(71.5),
    }


def _lightning(state: dict[str, Tensor]) -> Any:
    return {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": {
            **prefixed("net.", state),
            "criterion.weight": torch.ones(5),
            "train_acc.total": torch.tensor(3),
        },
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(0.7)}},
        "optimizer_states": [optimiser(Small())],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, "when": datetime.date(2024, 1, 2)},
    }


def _mmpretrain(state: dict[str, Tensor]) -> Any:
    return {"meta": {"time": "now", "CLASSES": ["a"]}, "state_dict": prefixed("backbone.", state)}


def _plain_script(state: dict[str, Tensor]) -> Any:
    return {
        "net": prefixed("module.", state),
        "best_acc": np.float64(93.1),
        "history": np.arange(6.0).reshape(2, 3),
        "when": datetime.datetime(2020, 1, 2),
        "config": collections.Counter("ab"),
        "where": Path("checkpoints"),
    }


CONTAINERS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda state: state,
    "repdistiller": lambda state: {"epoch": 240, "accuracy": torch.tensor(79.4), "model": state},
    "torchvision": _torchvision,
    "timm": _timm,
    "lightning": _lightning,
    "mmpretrain": _mmpretrain,
    "plain script": _plain_script,
    "data parallel": lambda state: {"state_dict": prefixed("module.", state), "best_prec1": 1.0},
    "compiled": lambda state: prefixed("_orig_mod.", state),
    "compiled in parallel": lambda state: prefixed("module._orig_mod.", state),
    "wrapped inside": lambda s: {n.replace("stem.", "stem.module."): t for n, t in s.items()},
    "averaged": lambda s: {"n_averaged": torch.tensor(3), **prefixed("module.", s)},
    "deepspeed": lambda s: {"module": s, "ds_config": {"a": 1}, "dp_world_size": 1},
    "any prefix": lambda s: {"a": {"b": [prefixed("left.right.", s)]}},
    "thop": lambda s: {**s, "total_ops": torch.zeros(1), "stem.total_ops": torch.zeros(1)},
    "in parts": lambda s: {
        "stem": {k[5:]: v for k, v in s.items() if k.startswith("stem.")},
        "fc": {k[3:]: v for k, v in s.items() if k.startswith("fc.")},
    },
    "student and teacher": lambda s: {
        "state_dict": {**prefixed("student.", other(s)), **prefixed("teacher.", s)}
    },
}


def whole_module(network: nn.Module) -> bytes:
    """`torch.save(model)`."""
    buffer = io.BytesIO()
    torch.save(network, buffer)
    return buffer.getvalue()


def legacy(content: Any) -> bytes:
    """As PyTorch before 1.6 wrote it."""
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def pickled(content: Any) -> bytes:
    """`pickle.dump`, which puts each storage into the pickle as a file of its own."""
    return pickle.dumps(content)
