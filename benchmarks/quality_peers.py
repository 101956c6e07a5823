"""MONAI and nnU-Net-style contestants of `quality.py`, each with its own library's pieces.

MONAI 1.6.1: SegResNet and DynUNet, its crops, flips and intensity transforms, DiceCELoss, AdamW
with a cosine, sliding-window inference with Gaussian weights. nnU-Net: PlainConvUNet of
dynamic-network-architectures with deep supervision, Dice + CE, SGD (Nesterov, 0.99) with poly
decay, the augmentation of its default trainer from batchgeneratorsv2. Label 2 is ignored by all.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.quality_data import SHAPE_ZYX, Truth

PATCH = (64, 64, 64)
WINDOW = SHAPE_ZYX  # of inference, as for ours: these volumes in one piece
BATCH = 2
WARM_STEPS, TIMED_STEPS = 2, 4


@dataclass
class Peer:
    """One contestant: what it trains and how.

    Attributes:
        network: the network to be trained; returns logits, or a list of them, finest first.
        batches: endless batches {"image" (b, 1, z, y, x) float32, "label" the same, 0/1/2}.
        loss: (outputs, label) -> scalar.
        optimizer: of the network's parameters.
        factor: share of the run done, in [0, 1] -> factor of the learning rate.
        normalise: what inference does to an image first.
        clip: greatest norm of the gradients.
        bf16: autocast and channels last, which none of the peers does by itself on a CPU.
    """

    network: nn.Module
    batches: Iterator[dict[str, Tensor]]
    loss: Callable[[Any, Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    factor: Callable[[float], float]
    normalise: Callable[[Tensor], Tensor]
    clip: float = 12.0
    bf16: bool = False
    rates: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        if self.bf16:
            self.network.to(memory_format=torch.channels_last_3d)

    def outputs(self, image: Tensor) -> Any:
        """Return the network's raw outputs."""
        if self.bf16:
            image = image.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            return self.network(image)

    def step(self, progress: float) -> None:
        """Do one optimizer step at a share of the run."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.factor(progress)
        batch = next(self.batches)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.outputs(batch["image"]), batch["label"])
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        self.optimizer.step()


def train_peer(peer: Peer, minutes: float) -> dict[str, float]:
    """Train for so many minutes of process time; return steps and samples a second.

    The number of steps is fixed after a few timed ones, so that the learning rate ends at its
    last value when the time is over.
    """
    peer.network.train()
    start, times = time.process_time(), []
    for _ in range(WARM_STEPS + TIMED_STEPS):
        before = time.process_time()
        peer.step(0.0)
        times.append(time.process_time() - before)
    per_step = statistics.median(times[WARM_STEPS:])
    left = 60 * minutes - (time.process_time() - start)
    done, rest = len(times), max(0, round(left / per_step))
    for index in range(rest):
        peer.step((done + index) / (done + rest))
    seconds = time.process_time() - start
    steps = done + rest
    return {"steps": steps, "minutes": seconds / 60, "samples_s": steps * BATCH / seconds}


def predict_peer(peer: Peer, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the probability (z, y, x) of one uint8 image by MONAI's sliding window."""
    from monai.inferers import sliding_window_inference

    def finest(window: Tensor) -> Tensor:
        out = peer.outputs(window)
        logits = (out[0] if isinstance(out, (list, tuple)) else out).float()
        if logits.shape[1] == 2:
            return logits.softmax(1)[:, 1:]
        return logits.sigmoid()

    peer.network.eval()
    volume = peer.normalise(torch.from_numpy(image)[None].float())[None]
    with torch.inference_mode():
        result = sliding_window_inference(volume, WINDOW, 1, finest, overlap=0.5, mode="gaussian")
    assert isinstance(result, Tensor)
    return result[0, 0].numpy()


def cosine(progress: float) -> float:
    return 0.01 + 0.99 * 0.5 * (1 + float(np.cos(np.pi * progress)))


def poly(progress: float) -> float:
    return float((1 - progress) ** 0.9)


def z_score(image: Tensor) -> Tensor:
    """Return the image with mean 0 and standard deviation 1, nnU-Net's and MONAI's default."""
    return (image - image.mean()) / image.std().clamp(min=1e-6)


def monai_peer(
    name: str,
    volumes: Sequence[Truth],
    *,
    lr: float,
    seed: int,
    width: int = 16,
    bf16: bool = False,
) -> Peer:
    """Return SegResNet or DynUNet with MONAI's transforms and loss."""
    from monai.losses import DiceCELoss
    from monai.networks.nets import DynUNet, SegResNet
    from monai.utils import set_determinism

    set_determinism(seed)
    network: nn.Module
    if name == "segresnet":
        network = SegResNet(spatial_dims=3, in_channels=1, out_channels=1, init_filters=width)
    else:
        network = DynUNet(
            3, 1, 1, kernel_size=[3] * 5, strides=[1, 2, 2, 2, 2],
            upsample_kernel_size=[2] * 4, filters=[width * 2**level for level in range(5)],
            res_block=True,
        )  # fmt: skip
    dice_ce = DiceCELoss(sigmoid=True, batch=True, squared_pred=False)

    def loss(logits: Tensor, label: Tensor) -> Tensor:
        ignored = label == 2  # a sure and right "background": no gradient from either term
        quiet = logits.float().masked_fill(ignored, -30.0)
        value: Tensor = dice_ce(quiet, (label == 1).float())
        return value

    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=1e-5)
    batches = monai_batches(volumes, seed)
    return Peer(network, batches, loss, optimizer, cosine, z_score, clip=1.0, bf16=bf16)


def monai_batches(volumes: Sequence[Truth], seed: int) -> Iterator[dict[str, Tensor]]:
    """Yield batches of MONAI's BraTS tutorial transforms; volumes are cached normalised."""
    from monai.transforms import (
        Compose,
        RandCropByPosNegLabeld,
        RandFlipd,
        RandRotate90d,
        RandScaleIntensityd,
        RandShiftIntensityd,
    )

    both = ["image", "label"]
    transforms = Compose(
        [
            RandCropByPosNegLabeld(both, "positive", PATCH, pos=7, neg=3, num_samples=1,
                                   fg_indices_key="fg", bg_indices_key="bg"),
            *(RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in range(3)),
            RandRotate90d(both, prob=0.5, spatial_axes=(1, 2)),
            RandScaleIntensityd("image", factors=0.1, prob=1.0),
            RandShiftIntensityd("image", offsets=0.1, prob=1.0),
        ]
    )  # fmt: skip
    transforms.set_random_state(seed)
    cached = []
    for volume in volumes:
        label = torch.from_numpy(volume.label)[None]
        fg, bg = (np.flatnonzero(volume.label == value) for value in (1, 0))
        image = z_score(torch.from_numpy(volume.image)[None].float())
        cached.append({"image": image, "label": label, "positive": label, "fg": fg, "bg": bg})
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(cached))
        for first in range(0, len(order) - BATCH + 1, BATCH):
            crops = [transforms(dict(cached[n]))[0] for n in order[first : first + BATCH]]
            yield {key: torch.stack([torch.as_tensor(c[key]) for c in crops]) for key in both}


def nnunet_peer(
    volumes: Sequence[Truth], *, lr: float, seed: int, width: int = 32, bf16: bool = False
) -> Peer:
    """Return nnU-Net's network, loss, optimizer, schedule and augmentation for a 64^3 patch."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    from benchmarks.quality_nnunet import nnunet_batches

    torch.manual_seed(seed)
    network = PlainConvUNet(
        1, 5, [min(320, width * 2**level) for level in range(5)], nn.Conv3d, 3,
        [1, 2, 2, 2, 2], 2, 2, 2, conv_bias=True, norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True}, deep_supervision=True,
    )  # fmt: skip
    network.apply(network.initialize)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=lr, momentum=0.99, nesterov=True, weight_decay=3e-5
    )
    batches = nnunet_batches(volumes, seed, patch=PATCH, batch_size=BATCH, normalise=z_score)
    return Peer(network, batches, deep_dice_ce, optimizer, poly, z_score, bf16=bf16)


def deep_dice_ce(outputs: Sequence[Tensor], label: Tensor) -> Tensor:
    """Return nnU-Net's Dice + CE over its resolutions, weights 1, 1/2, ..., the coarsest 0."""
    weights = [0.5**level for level in range(len(outputs) - 1)]
    total = torch.zeros(())
    for weight, logits in zip(weights, outputs, strict=False):
        step = [n // m for n, m in zip(label.shape[2:], logits.shape[2:], strict=True)]
        small = label[..., :: step[0], :: step[1], :: step[2]]
        total = total + weight / sum(weights) * _dice_ce(logits.float(), small)
    return total


def _dice_ce(logits: Tensor, label: Tensor) -> Tensor:
    valid = label != 2
    target = torch.where(valid, label, 0)[:, 0].long()
    entropy = F.cross_entropy(logits, torch.where(valid[:, 0], target, -100), ignore_index=-100)
    surface = logits.softmax(1)[:, 1] * valid[:, 0]
    axes = (1, 2, 3)  # per sample, as nnU-Net's 3-D configurations (batch_dice = False)
    both = (surface * target).sum(axes)
    dice = (2 * both + 1e-5) / (surface.sum(axes) + target.sum(axes) + 1e-5).clamp(min=1e-8)
    return entropy - dice.mean()
