"""A trained network as files that other programs read, each checked against the network."""

import importlib
import importlib.util
import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from vesuvius import __version__
from vesuvius.errors import ConfigError, ExportError
from vesuvius.inference.store import write_json
from vesuvius.runtime.model_facts import call_network, random_image, summary_text
from vesuvius.runtime.run_folder import EXPORTED_CONFIG, EXPORTED_WEIGHTS, RunFolder, file_hash
from vesuvius.runtime.versions import git_commit, package_versions
from vesuvius.runtime.weights import read_safetensors

log = logging.getLogger(__name__)

FORMATS = ("safetensors", "exported", "onnx")
TOLERANCE = 1e-4
_PACKAGES = ("torch", "numpy", "safetensors", "onnx", "onnxscript", "onnxruntime")


def export_run(
    run_dir: str | Path,
    out: str | Path,
    *,
    formats: Sequence[str] = FORMATS,
    checkpoint: str = "best",
    shape_zyx: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Write the network of a run to a new folder; return what `export.json` says.

    The folder holds `config.yaml` (the run's whole configuration), `summary.txt`, `export.json`
    (provenance, shapes, greatest difference of each format), `model.safetensors` always, and
    `model.pt2` (torch.export) and `model.onnx` as asked. Both take float32 images
    (1, channels, z, y, x) in [0, 1] of the one shape given and return the heads in the order
    listed. It appears under its name only when all of it is written and checked.

    Args:
        run_dir: folder of a training run.
        out: folder that does not exist yet.
        formats: any of FORMATS.
        checkpoint: "best", "last" or a path.
        shape_zyx: of the image; None = the crop of training.

    Raises:
        ConfigError: unknown format, missing package, or `out` exists.
        CheckpointError: the run's weights cannot be read.
        ExportError: the outputs of a file differ from the network's by more than TOLERANCE.
    """
    _check(formats, Path(out))
    run = RunFolder(run_dir)
    weights = run.checkpoint(checkpoint)
    network = run.network(weights).eval()
    shape = [int(n) for n in shape_zyx or run.patch_zyx()]
    image = random_image(shape, channels=int(getattr(network, "in_channels", 1)))
    with torch.no_grad():
        heads = call_network(network, image)
    partial = Path(out).with_name(Path(out).name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        differences = _write_formats(network, image, heads, formats, partial)
        OmegaConf.save(run.config, partial / EXPORTED_CONFIG)
        (partial / "summary.txt").write_text(summary_text(network, image), encoding="utf-8")
        if (run.path / "split.json").is_file():
            shutil.copy(run.path / "split.json", partial)
        facts = {
            "input": {"shape": list(image.shape), "range": [0, 1], "dtype": "float32"},
            "outputs": {name: list(value.shape) for name, value in heads.items()},
            "num_parameters": sum(p.numel() for p in network.parameters()),
            "greatest_difference": differences,
            "checkpoint": {"name": weights.name, "sha256": file_hash(weights)},
            "run": _run_facts(run),
            "vesuvius": __version__,
            "git_commit": git_commit(),
            "packages": package_versions(_PACKAGES),
        }
        write_json(partial / "export.json", facts)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return facts


def _check(formats: Sequence[str], out: Path) -> None:
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise ConfigError(f"format {unknown[0]!r} is unknown; expected any of {', '.join(FORMATS)}")
    if out.exists():
        raise ConfigError(f"{out} exists already; give --out a new folder, or remove it first.")
    if "onnx" in formats:
        missing = [n for n in ("onnx", "onnxscript") if importlib.util.find_spec(n) is None]
        if missing:
            raise ConfigError(
                f"--format onnx needs {' and '.join(missing)}: pip install 'vesuvius[export]', or "
                "leave it out (--format safetensors,exported)."
            )


def _write_formats(
    network: nn.Module,
    image: Tensor,
    heads: dict[str, Tensor],
    formats: Sequence[str],
    folder: Path,
) -> dict[str, float | None]:
    """Write the files; return the greatest difference of each format's outputs, None = unchecked.

    The weights are always written: without them `infer.py` has nothing to run.
    """
    found: dict[str, float | None] = {"safetensors": _save_weights(network, folder)}
    if "exported" in formats:
        found["exported"] = _save_program(network, image, heads, folder / "model.pt2")
    if "onnx" in formats:
        found["onnx"] = _save_onnx(network, image, heads, folder / "model.onnx")
    for name, difference in found.items():
        if difference is not None and not difference <= TOLERANCE:
            raise ExportError(
                f"The {name} file gives outputs that differ by {difference:.3g} from the network's "
                f"(allowed {TOLERANCE:g}); nothing was kept. Leave the format out, or report the "
                "network and the versions of `vesuvius diagnose`."
            )
    return found


def _save_weights(network: nn.Module, folder: Path) -> float:
    """Write `model.safetensors`; return the greatest difference after reading it again."""
    from safetensors.torch import save

    # safetensors refuses tensors that share memory or are not contiguous
    state = {name: value.detach().clone().contiguous() for name, value in _state(network).items()}
    path = folder / EXPORTED_WEIGHTS
    path.write_bytes(save(state, metadata={"format": "pt"}))  # `save_file` makes it private
    again = read_safetensors(path)
    return max(
        (
            float((again[n].double() - v.double()).abs().max())
            for n, v in state.items()
            if v.numel()
        ),
        default=0.0,
    )


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in network.state_dict().items()}


def _save_program(network: nn.Module, image: Tensor, heads: dict[str, Tensor], path: Path) -> float:
    """Write a torch.export program; return the greatest difference of the one read again."""
    with _quiet():
        program = torch.export.export(network, (image,))
        torch.export.save(program, path)
        again = torch.export.load(path).module()
        with torch.no_grad():
            outputs = again(image)
    return max(float((outputs[n] - value).abs().max()) for n, value in heads.items())


def _save_onnx(
    network: nn.Module, image: Tensor, heads: dict[str, Tensor], path: Path
) -> float | None:
    """Write one ONNX file; return the greatest difference under onnxruntime, None without it."""
    with _quiet():
        ops = torch.ops.aten
        pools = (ops.adaptive_avg_pool3d.default, ops._adaptive_avg_pool3d.default)
        table = dict.fromkeys(pools, _pool_by_means)
        program = torch.onnx.export(
            torch.export.export(network, (image,)).run_decompositions(table),
            dynamo=True,
            verbose=False,
            input_names=["image"],
            output_names=list(heads),
        )
        assert program is not None
        program.save(str(path))
    if importlib.util.find_spec("onnxruntime") is None:
        log.warning("onnxruntime is not installed: model.onnx was written but not checked")
        return None
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs = session.run(list(heads), {"image": image.numpy()})
    return max(
        float(np.abs(got - value.numpy()).max())
        for got, value in zip(outputs, heads.values(), strict=True)
    )


def _pool_by_means(image: Tensor, size_zyx: Sequence[int]) -> Tensor:
    """Return adaptive average pooling as means of slices, which ONNX can express.

    Means over boxes are means along each axis in turn; output i averages voxels floor(i n / m) to
    ceil((i + 1) n / m) - 1, as in torch.
    """
    for axis, num_out in zip((2, 3, 4), size_zyx, strict=True):
        num_in = int(image.shape[axis])
        parts = []
        for i in range(num_out):
            begin, end = i * num_in // num_out, -(-(i + 1) * num_in // num_out)
            parts.append(image.narrow(axis, begin, end - begin).mean(axis, keepdim=True))
        image = torch.cat(parts, dim=axis)
    return image


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' remarks off the screen: torch 2.13's own deprecated calls."""
    names = {
        "torch.onnx._internal.exporter._registration": logging.ERROR,  # "no torchvision"
        "onnxscript": logging.WARNING,
        "onnx_ir": logging.WARNING,
    }
    levels = {name: logging.getLogger(name).level for name in names}
    for name, level in names.items():
        logging.getLogger(name).setLevel(level)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _run_facts(run: RunFolder) -> Any:
    """Return the run's own provenance, {} if it left none."""
    path = run.path / "run.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
