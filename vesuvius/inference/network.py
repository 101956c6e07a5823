"""Make a trained network fast for inference: folded norms, low precision, channels last."""

import contextlib
import copy
import logging
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vesuvius.errors import ConfigError
from vesuvius.inference.device import select_device

_LOG = logging.getLogger(__name__)

Precision = Literal["auto", "fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PROBE_ZYX = (16, 32, 32)
"""Size of the random image on which folding is found and verified."""
FOLD_TOLERANCE = 1e-3
"""Greatest relative change of any output that folding may cause (rounding gives about 1e-6)."""


class InferenceNetwork:
    """A network ready for inference: (b, 1, z, y, x) float32 in, mapping of float32 heads out.

    Attributes:
        precision: "fp32", "bf16" or "fp16", as resolved.
        folded: how many batch norms were folded into their convolution.
        device: where it runs.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        device: torch.device,
        precision: str,
        channels_last: bool,
        folded: int,
    ) -> None:
        self._network = network
        self._channels_last = channels_last
        self.device, self.precision, self.folded = device, precision, folded

    def __call__(self, image: Tensor) -> Mapping[str, Tensor]:
        """Return the heads as float32."""
        image = image.to(self.device)
        if self._channels_last:
            image = image.contiguous(memory_format=torch.channels_last_3d)
        autocast = (
            contextlib.nullcontext()
            if self.precision == "fp32"
            else torch.autocast(self.device.type, dtype=DTYPES[self.precision])
        )
        with torch.inference_mode(), autocast:
            heads: Mapping[str, Tensor] = self._network(image)
        return {name: value.float() for name, value in heads.items()}


def prepare_network(
    network: nn.Module,
    *,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
    channels_last: bool | None = None,
    fold_norms: bool = True,
) -> InferenceNetwork:
    """Return a fast copy of a network; the network itself stays as it is.

    Args:
        network: module that maps (b, 1, z, y, x) to a mapping of tensors.
        device: "auto", "cpu", "cuda", ...
        precision: "auto" takes bf16 where the CPU computes in it (AMX or AVX512-BF16), or on CUDA
            bf16 (else fp16), and fp32 elsewhere.
        channels_last: memory layout; None takes it for bf16 and fp16 (2 times faster there) and
            not for fp32 (slower on CPU).
        fold_norms: fold each batch norm that follows a convolution into it (same result).

    Raises:
        ConfigError: unknown precision, or fp16 on the CPU.
        DeviceError: the device is not there.
    """
    chosen = select_device(device)
    resolved = resolve_precision(precision, chosen)
    fast = copy.deepcopy(network).eval().requires_grad_(requires_grad=False).to(chosen)
    folded = 0
    if fold_norms:
        fast, folded = fold_batch_norms(fast)
    last = resolved != "fp32" if channels_last is None else channels_last
    if last:
        fast = fast.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return InferenceNetwork(
        fast, device=chosen, precision=resolved, channels_last=last, folded=folded
    )


def resolve_precision(precision: Precision, device: torch.device) -> str:
    """Return "fp32", "bf16" or "fp16" for this device."""
    if precision not in ("auto", *DTYPES):
        msg = f"precision must be 'auto', 'fp32', 'bf16' or 'fp16', got {precision!r}"
        raise ConfigError(msg)
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError("precision='fp16' needs a GPU; use precision=bf16, fp32 or auto on a CPU")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "fp32"


def cpu_has_bf16() -> bool:
    """Return whether the CPU multiplies bf16 natively (AMX or AVX512-BF16)."""
    query = getattr(torch.cpu, "get_capabilities", None)  # newer than our floor of torch
    capabilities = query() if query is not None else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def fold_batch_norms(network: nn.Module) -> tuple[nn.Module, int]:
    """Return a copy whose batch norms are folded into the convolution before, and their number.

    Pairs are found by watching one forward pass (a norm whose input is the very tensor that one
    convolution returned), so any module layout works; the folded copy is kept only if it returns
    the same on that input.
    """
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(0)
    probe = torch.rand((1, 1, *PROBE_ZYX), generator=generator).to(device)
    with torch.no_grad():  # not inference_mode: weights made in it cannot be used outside
        try:
            pairs, before = _conv_norm_pairs(network, probe)
        except (RuntimeError, ValueError) as error:
            _LOG.info("norms are not folded: the network does not take %s (%s)", PROBE_ZYX, error)
            return network, 0
        if not pairs:
            return network, 0
        folded = copy.deepcopy(network)
        for conv_name, norm_name in pairs:
            conv, norm = folded.get_submodule(conv_name), folded.get_submodule(norm_name)
            assert isinstance(conv, nn.Conv3d)
            assert isinstance(norm, nn.BatchNorm3d)
            folded.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
            folded.set_submodule(norm_name, nn.Identity())
        after = folded(probe)
    for name, value in before.items():
        scale = max(float(value.abs().max()), 1e-6)
        if not float((after[name] - value).abs().max()) <= FOLD_TOLERANCE * scale:
            _LOG.info("norms are not folded: %r would change by over %g", name, FOLD_TOLERANCE)
            return network, 0
    return folded, len(pairs)


def _conv_norm_pairs(
    network: nn.Module, probe: Tensor
) -> tuple[list[tuple[str, str]], Mapping[str, Tensor]]:
    """Return the (convolution, norm) names to fold, and what the network returns."""
    made_by: list[tuple[Tensor, str]] = []
    calls: dict[str, int] = {}
    links: list[tuple[str, str]] = []

    def after_conv(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> None:
            calls[name] = calls.get(name, 0) + 1
            made_by.append((output, name))

        return hook

    def before_norm(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            calls[name] = calls.get(name, 0) + 1
            links.extend((conv, name) for output, conv in made_by if output is args[0])

        return hook

    handles = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv3d):
            handles.append(module.register_forward_hook(after_conv(name)))
        elif isinstance(module, nn.BatchNorm3d) and module.track_running_stats:
            handles.append(module.register_forward_pre_hook(before_norm(name)))
    try:
        result = network(probe)
    finally:
        for handle in handles:
            handle.remove()
    return [(conv, norm) for conv, norm in links if calls[conv] == calls[norm] == 1], result
