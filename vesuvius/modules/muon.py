"""Muon for the matrices of a network, AdamW for everything else, as one optimizer."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from vesuvius.errors import ConfigError

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration; they bring singular values near 1 in few steps (Jordan et al. 2024)."""


def orthogonalise(matrix: Float[Tensor, "m n"], num_steps: int) -> Float[Tensor, "m n"]:
    """Return the matrix with all singular values near 1 (0.7 to 1.2) and the same directions.

    Newton-Schulz: X <- P X with P = a I + b G + c G^2 and G = X X^T, from the normalised matrix, in
    float32. Every P is a polynomial of the first G, so that they commute: X_k = P_k ... P_1 X_0 and
    G <- P G P need products of the short side alone. Kernels are 27 times longer than wide, and
    two long products instead of two a step take a quarter of the time.
    """
    x: Tensor = matrix.float()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / x.norm().clamp(min=1e-7)
    gram = x @ x.T
    product = factor = _polynomial(gram)
    for _ in range(num_steps - 1):
        gram = factor @ gram @ factor
        factor = _polynomial(gram)
        product = factor @ product
    x = product @ x
    return (x.T if tall else x).to(matrix.dtype)


def _polynomial(gram: Float[Tensor, "m m"]) -> Float[Tensor, "m m"]:
    a, b, c = COEFFICIENTS
    factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal().add_(a)
    return factor


class MuonAdamW(Optimizer):
    """Orthogonalised momentum for weights that are matrices, AdamW for the others.

    A weight (out, in, ...) is the matrix (out, in * ...): kernels of convolutions count with all
    their voxels. Its update has the root mean square of AdamW's, 0.2 sqrt(max(out, in * ...)), so
    that both share one learning rate. Biases, norms and thin matrices (heads of 1 to 3 outputs)
    get AdamW. `torch.optim.Muon` takes matrices alone and no kernels.

    Args:
        params: parameters.
        lr: of both.
        weight_decay: decoupled, of both.
        momentum: of Muon, with Nesterov's look ahead.
        num_steps: of the orthogonalisation.
        betas: of AdamW.
        eps: of AdamW.
        min_side: least rows and columns of a matrix that gets Muon.

    Source: Jordan et al. 2024 (Muon); Liu et al. 2025, Muon is scalable for LLM training, equation
    4 (the scale); Loshchilov and Hutter 2019 (AdamW).

    Raises:
        ConfigError: an argument out of range.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        momentum: float = 0.95,
        num_steps: int = 5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        min_side: int = 8,
    ) -> None:
        if lr <= 0 or weight_decay < 0 or not 0 <= momentum < 1:
            raise ConfigError(
                f"optimizer.lr={lr} must be > 0, optimizer.weight_decay={weight_decay} >= 0, "
                f"optimizer.momentum={momentum} in [0, 1)."
            )
        if num_steps < 1 or min_side < 1:
            raise ConfigError(
                f"optimizer.num_steps={num_steps}, optimizer.min_side={min_side}: both must be "
                ">= 1."
            )
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for parameter in params:
            thin = parameter.ndim < 2 or min(_matrix_shape(parameter)) < min_side
            (others if thin else matrices).append(parameter)
        groups = [
            {"params": part, "muon": muon}
            for part, muon in ((matrices, True), (others, False))
            if part
        ]
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "num_steps": num_steps,
            "betas": (float(betas[0]), float(betas[1])),
            "eps": eps,
        }
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Do one step; return what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            update = self._muon if group["muon"] else self._adamw
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    update(parameter, parameter.grad, self.state[parameter], group)
        return loss

    def _muon(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        average = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(average, group["momentum"]).flatten(1)
        direction = orthogonalise(ahead, group["num_steps"]).reshape(parameter.shape)
        scale = 0.2 * math.sqrt(max(_matrix_shape(parameter)))
        parameter.add_(direction, alpha=-group["lr"] * scale)

    def _adamw(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        state["step"] += 1
        first, second = group["betas"]
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        spread = (state["square"] / (1 - second ** state["step"])).sqrt_().add_(group["eps"])
        rate = group["lr"] / (1 - first ** state["step"])
        parameter.addcdiv_(state["mean"], spread, value=-rate)


def _matrix_shape(parameter: Tensor) -> tuple[int, int]:
    return parameter.shape[0], parameter[0].numel()
