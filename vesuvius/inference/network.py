"""Make a trained network fast for inference: folded norms, low precision, channels last."""

import contextlib
import copy
import logging
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from vesuvius.cpu_conv import mend_cpu_convolutions
from vesuvius.errors import ConfigError
from vesuvius.inference.device import select_device
from vesuvius.layout import to_channels_last

_LOG = logging.getLogger(__name__)

Precision = Literal["auto", "fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PROBE_ZYX = (16, 32, 32)
"""Size of the random image on which folding is found and verified."""
FOLD_TOLERANCE = 1e-3
"""Greatest relative change of any output that folding may cause (rounding gives about 1e-6)."""


class InferenceNetwork:
    """A network ready for inference: (b, c, z, y, x) float32 in, mapping of float32 heads out.

    Attributes:
        precision: "fp32", "bf16" or "fp16", as resolved.
        folded: how many batch norms were folded into their convolution.
        device: where it runs.
        in_channels: of its images; 2 = the image and a former prediction.
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
        self.in_channels = int(getattr(network, "in_channels", 1))
        self.device, self.precision, self.folded = device, precision, folded

    def __call__(self, image: Tensor) -> Mapping[str, Tensor]:
        """Return the heads as float32."""
        image = image.to(self.device)
        if self._channels_last:
            image = to_channels_last(image)
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
    fast = _frozen_copy(network, chosen)
    folded = fold_batch_norms(fast) if fold_norms else 0
    if folded is None:
        fast, folded = _frozen_copy(network, chosen), 0
    mend_cpu_convolutions(fast)
    last = resolved != "fp32" if channels_last is None else channels_last
    if last:
        fast = fast.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return InferenceNetwork(
        fast, device=chosen, precision=resolved, channels_last=last, folded=folded
    )


def _frozen_copy(network: nn.Module, device: torch.device) -> nn.Module:
    return copy.deepcopy(network).eval().requires_grad_(requires_grad=False).to(device)


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


def fold_batch_norms(network: nn.Module) -> int | None:
    """Fold, in place, each batch norm into the convolution before it; return how many.

    Pairs are found by watching one forward pass (a norm whose input is the very tensor that one
    convolution returned), so any module layout works. Weights are scaled where they lie: no second
    copy of them.

    Returns:
        Number of folded norms; None if the folded network answers differently on that input (a
        convolution's output is used elsewhere too), and then the network is spoiled.
    """
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(0)
    channels = int(getattr(network, "in_channels", 1))
    probe = torch.rand((1, channels, *PROBE_ZYX), generator=generator).to(device)
    with torch.no_grad():  # not inference_mode: weights made in it cannot be used outside
        try:
            pairs, before = _conv_norm_pairs(network, probe)
        except (RuntimeError, ValueError) as error:
            _LOG.info("norms are not folded: the network does not take %s (%s)", PROBE_ZYX, error)
            return 0
        for conv_name, norm_name in pairs:
            _fold_pair(network, conv_name, norm_name)
        after = network(probe) if pairs else before
    for name, value in before.items():
        scale = max(float(value.abs().max()), 1e-6)
        if not float((after[name] - value).abs().max()) <= FOLD_TOLERANCE * scale:
            _LOG.info("norms are not folded: %r would change by over %g", name, FOLD_TOLERANCE)
            return None
    return len(pairs)


def _fold_pair(network: nn.Module, conv_name: str, norm_name: str) -> None:
    """Scale a convolution's filters by its norm and put the identity in the norm's place."""
    conv, norm = network.get_submodule(conv_name), network.get_submodule(norm_name)
    assert isinstance(conv, nn.Conv3d)
    assert isinstance(norm, nn.BatchNorm3d)
    assert norm.running_var is not None
    assert norm.running_mean is not None
    factor = torch.rsqrt(norm.running_var + norm.eps)
    if norm.affine:
        factor *= norm.weight
    bias = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
    bias = bias * factor + (norm.bias if norm.affine else 0)
    conv.weight.mul_(factor.view(-1, 1, 1, 1, 1))
    conv.bias = nn.Parameter(bias, requires_grad=False)
    network.set_submodule(norm_name, nn.Identity())


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
