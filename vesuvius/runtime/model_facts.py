"""What a network is: layers, sizes, cost; from a run, an export, or configuration overrides."""

from collections.abc import Sequence
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vesuvius.errors import ConfigError
from vesuvius.runtime.compose_config import compose_config
from vesuvius.runtime.run_folder import RunFolder


def load_config(what: Sequence[str]) -> tuple[DictConfig, RunFolder | None]:
    """Return the configuration that arguments of a command name, and the run if they name one.

    Args:
        what: one folder of a run or an export, or any number of `key=value` overrides.

    Raises:
        ConfigError: neither.
    """
    if len(what) == 1 and "=" not in what[0]:
        run = RunFolder(what[0])
        return run.config, run
    wrong = [word for word in what if "=" not in word]
    if wrong:
        raise ConfigError(
            f"{wrong[0]!r} is no override; give one run folder, or overrides such as "
            "model=dual_head_unet model.n_filters=8."
        )
    return compose_config("train", what), None


def build_network(config: DictConfig, run: RunFolder | None, checkpoint: str) -> nn.Module:
    """Return the network: with the run's weights, or freshly made from the configuration."""
    if run is not None:
        return run.network(run.checkpoint(checkpoint))
    network = instantiate(config.model, _convert_="all")
    assert isinstance(network, nn.Module)
    return network


def random_image(shape_zyx: Sequence[int], *, batch: int = 1, channels: int = 1) -> Tensor:
    """Return seeded noise in [0, 1] of shape (batch, channels, z, y, x)."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, channels, *shape_zyx, generator=generator)


def call_network(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Return the heads of one forward pass.

    Raises:
        ConfigError: the network returns something else than a mapping of tensors.
    """
    heads: Any = network(image)
    if not isinstance(heads, dict):
        raise ConfigError(
            f"{type(network).__name__} returns a {type(heads).__name__}; expected a dict of heads."
        )
    return heads


def count_gflop(network: nn.Module, image: Tensor) -> float:
    """Return 10^9 floating-point operations of one forward pass (a multiply-add counts 2)."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    return float(counter.get_total_flops()) / 1e9


def summary_text(network: nn.Module, image: Tensor, *, depth: int = 2) -> str:
    """Return a table of the parts down to `depth`: type, output shape, parameters."""
    shapes: dict[str, str] = {}
    handles = []

    def hook(name: str) -> Any:
        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            shapes[name] = _shape_text(output)

        return keep

    parts = [(n, m) for n, m in network.named_modules() if n.count(".") < depth and n]
    for name, part in parts:
        handles.append(part.register_forward_hook(hook(name)))
    try:
        with torch.no_grad():
            heads = call_network(network, image)
    finally:
        for handle in handles:
            handle.remove()
    total = sum(p.numel() for p in network.parameters())
    rows = [("part", "type", "output", "parameters")]
    for name, part in parts:
        count = sum(p.numel() for p in part.parameters())
        rows.append((name, type(part).__name__, shapes.get(name, "-"), f"{count:,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines += [
        "",
        f"{type(network).__name__}: {total:,} parameters",
        f"image {_shape_text(image)}: {count_gflop(network, image):.2f} GFLOP forward",
        *(f"head {name} {_shape_text(value)}" for name, value in heads.items()),
    ]
    return "\n".join(lines) + "\n"


def _shape_text(output: Any) -> str:
    return "x".join(map(str, output.shape)) if isinstance(output, Tensor) else type(output).__name__
