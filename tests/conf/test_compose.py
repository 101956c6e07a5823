"""Every option composes, every `_target_` imports, every argument is in the signature."""

import copy
import inspect
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class, get_method
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

CONF = Path(__file__).parents[2] / "conf"
OPTIONS = sorted(
    (path.parent.as_posix(), path.stem)
    for path in (found.relative_to(CONF) for found in CONF.rglob("*.yaml"))
    if len(path.parts) > 1 and not {"local", "hydra", "base"} & set(path.parts)
)
# needs `pip install vesuvius[track]` or `[tensorboard]`, checked by name only
OPTIONAL = ("lightning.pytorch.loggers.WandbLogger", "lightning.pytorch.loggers.TensorBoardLogger")


TASKS = {"petct": "petct_cocoseg", "cocoseg": "petct_cocoseg", "heart": "heart_vecset"}
"""Options of another task compose under its experiment."""
UNET_PRESETS = (
    *("preset_resenc", "preset_finetune", "preset_train128", "preset_lowres", "preset_unet"),
)  # the others are levers that join any experiment


def composed(config, *overrides):
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        cfg = compose(config, overrides=list(overrides), return_hydra_config=True)
    with open_dict(cfg), read_write(cfg.hydra):
        cfg.hydra.runtime.output_dir = "out"
        cfg.hydra.sweep.dir = "sweep"  # Hydra resolves both before a job starts
        HydraConfig.instance().set_config(copy.deepcopy(cfg))  # which the pop below would break
        cfg.pop("hydra")
    return cfg


def nodes(cfg, key=""):
    """Yield (key, node) of every mapping with a `_target_`."""
    if isinstance(cfg, DictConfig):
        if "_target_" in cfg:
            yield key, cfg
        for name in cfg:
            if not OmegaConf.is_missing(cfg, name):
                yield from nodes(cfg[name], f"{key}.{name}".strip("."))


def check_targets(cfg):
    found = list(nodes(cfg))
    for key, node in found:
        target = node["_target_"]
        try:
            function = get_class(target)
        except ValueError:
            function = get_method(target)
        if target in OPTIONAL:
            continue
        given = {k for k in node if k not in ("_target_", "_partial_", "_convert_")}
        accepted = inspect.signature(function).parameters
        takes_any = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
        unknown = given - set(accepted)
        assert takes_any or not unknown, f"{key}: {target} takes no {sorted(unknown)}"
        if not node.get("_partial_"):
            needed = {
                name
                for name, p in accepted.items()
                if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
            }
            assert needed <= given, f"{key}: {target} needs {sorted(needed - given)}"
    return found


def overrides_for(group, option):
    if group == "experiment":
        chosen = [f"experiment={option}"]
        if option == "quick":
            return [*chosen, "data.root=somewhere"]
        if option in ("refine", "deform"):
            return [*chosen, "data.root=somewhere", "data.prior_root=elsewhere"]
        if option.startswith("preset_finetune"):
            chosen.append("weights=somewhere")
        needs_root = option.startswith(("demo", *UNET_PRESETS))
        return [*chosen, "data.root=somewhere"] if needs_root else chosen
    if group == "debug":
        return [f"debug={option}"]
    if group == "loss/term":
        return [f"loss/term=[{option}]"]
    if group == "postprocess/step":
        return ["postprocess=chain", f"postprocess/step=[{option}]"]
    root = ["data.root=somewhere"] if option in ("surface_zarr", "heart_npz") else []
    if option == "surface_volumes":
        root = ["data.volumes=[{image: s3://bucket/a.zarr, label: b.zarr, val: true}]"]
    task = [f"experiment={e}" for start, e in TASKS.items() if option.startswith(start)]
    return [*task, f"{group}={option}", *root]


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda value: str(value))
def test_option_composes_and_fits_its_signatures(group, option):
    cfg = composed("train", *overrides_for(group, option))
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert len(check_targets(cfg)) >= 3


def test_infer_composes():
    cfg = composed("infer", "run_dir=run", "volume=volume")
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert [key for key, _ in check_targets(cfg)] == ["postprocess"]


def test_required_values_are_not_silently_null():
    cfg = composed("infer")
    assert OmegaConf.is_missing(cfg, "run_dir")
    assert OmegaConf.is_missing(cfg, "volume")


def test_the_configuration_page_names_every_group_and_option():
    page = (CONF.parent / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = {
        line.split("|")[1].strip(" `"): line for line in page.splitlines() if line.startswith("| `")
    }
    missing = [
        f"{g}={o}"
        for g, o in OPTIONS
        if g not in ("callbacks", "loss/term") and o not in rows.get(g, "")
    ]
    assert missing == []
