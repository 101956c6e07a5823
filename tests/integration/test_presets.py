"""Every preset trains a few steps through train.py's own path and overfits one crop, made tiny."""

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from vesuvius.data.surface_dataset import SurfaceDataset, collate_surface
from vesuvius.runtime.run_folder import RunFolder

UNET = ("model.n_filters=8", "model.norm=instance")
RESENC = (
    "model.features_per_stage=[8,16,16]",
    "model.blocks_per_stage=[1,1,1]",
    "model.strides_zyx=[[1,1,1],[2,2,2],[1,2,2]]",
    "model.deep_supervision=1",
    "loss.level_weights=[1,0.5]",
)
LOWRES = tuple(o.replace("model.", "model.network.") for o in RESENC[:-1]) + RESENC[-1:]
PRESETS = {
    "preset_resenc_m": RESENC,
    "preset_resenc_l": RESENC,
    "preset_finetune_192": RESENC,
    "preset_finetune_256": RESENC,
    "preset_train128_infer192": RESENC,
    "preset_lowres_cascade": LOWRES,
    "preset_sdf": UNET,
    "preset_medial": UNET,
    "preset_skeleton": UNET,
    "preset_surface_dice": UNET,
    "preset_separation": UNET,
    "preset_muon": UNET,
    "preset_schedule_free": UNET,
    "preset_ema": UNET,
    "preset_label_processing": UNET,
    "[preset_resenc_m,preset_sdf,preset_surface_dice,preset_muon,preset_ema]": RESENC,
}
COARSE = ("preset_lowres_cascade",)
"""Half the resolution cannot draw the faces of sheets of 2 to 3 voxels exactly."""
RUN = (
    "data=surface_zarr",
    "data.patch_zyx=[32,32,32]",
    "data.batch_size=1",
    "data.samples_per_volume=2",
    "data.val_crops_per_volume=1",
    "data.val_share=0.34",
    "trainer=default",
    "trainer.max_epochs=1",
    "trainer.precision=32-true",
    "trainer.enable_progress_bar=false",
    "callbacks.comparison=null",
    "callbacks.postprocess=null",
    "callbacks.curves=null",
    "callbacks.progress=null",
    "callbacks.volume_validation.roi_zyx=[32,32,32]",
)


@pytest.fixture(params=PRESETS)
def preset(request):
    return request.param


def options(preset, root, weights=None):
    chosen = [f"experiment={preset}", *RUN, f"data.root={root}", *PRESETS[preset]]
    return [*chosen, f"weights={weights}"] if "finetune" in preset else chosen


def save_weights(cfg, path):
    """Store fresh weights of the configured network as a checkpoint of ours."""
    state = instantiate(cfg.model, _convert_="all").state_dict()
    torch.save({"state_dict": {f"model.{k}": v for k, v in state.items()}}, path)


@pytest.mark.slow
def test_trains_and_validates(preset, prepared, tmp_path, compose_config):
    from vesuvius.runtime.train import train

    weights = tmp_path / "weights.ckpt"
    cfg = compose_config("train", options(preset, prepared / "train", weights), tmp_path)
    save_weights(cfg, weights)
    score = train(cfg)
    assert 0 <= score <= 1
    assert (tmp_path / "checkpoints" / "best.ckpt").is_file()


def first_crop(cfg, prepared):
    volumes = sorted((prepared / "train").glob("*.zarr"))[:1]
    data = SurfaceDataset(volumes, cfg.data.patch_zyx, positive_share=1.0, seed=1)
    batch = collate_surface([data[0]])
    assert (batch["label"] == 1).sum() > 300
    return batch


@pytest.mark.slow
def test_overfits_one_crop(preset, prepared, tmp_path, compose_config):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cfg = compose_config("train", options(preset, prepared / "train", "none"), tmp_path)
    module = instantiate(cfg.module, _convert_="all")
    batch = first_crop(cfg, prepared)
    optimizer = module.make_optimizer([p for p in module.parameters() if p.requires_grad])
    for group in optimizer.param_groups:
        group["lr"] = 4e-3
    switch = getattr(optimizer, "train", lambda: None)
    least = 0.7 if preset in COARSE else 0.95
    dice = 0.0
    for step in range(400):
        switch()
        loss = module.loss(module.forward_batch(batch), batch)["total"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 19:
            getattr(optimizer, "eval", lambda: None)()
            dice = trained_dice(module, batch)
            if dice > least:
                break
    assert dice > least


@torch.no_grad()
def trained_dice(module, batch):
    """Return the Dice against the label the loss sees, where that is not ignored."""
    label = batch["label"] if module.loss.labels is None else module.loss.labels(batch["label"])
    module.eval()
    mask = (module.forward_batch(batch)["surface_logit"] > 0) & (label != 2)
    module.train()
    surface = label == 1
    return (2 * (mask & surface).sum() / (mask.sum() + surface.sum())).item()


def test_inference_uses_the_window_of_validation(tmp_path, compose_config):
    for preset, window in (("preset_train128_infer192", 192), ("preset_resenc_m", 128)):
        cfg = compose_config("train", [f"experiment={preset}", "data.root=x"], tmp_path)
        (tmp_path / ".hydra").mkdir(exist_ok=True)
        cfg.callbacks.volume_validation.folder = "predictions"
        OmegaConf.save(cfg, tmp_path / ".hydra" / "config.yaml")
        assert RunFolder(tmp_path).patch_zyx() == [window] * 3


def test_levers_join_a_preset(tmp_path, compose_config):
    levers = "[preset_resenc_m,preset_sdf,preset_medial,preset_schedule_free,preset_ema]"
    cfg = compose_config("train", [f"experiment={levers}", "data.root=x"], tmp_path)
    assert list(cfg.loss.term) == ["dice", "bce", "normal", "sdf", "medial_recall"]
    assert cfg.model.sdf_distance == 4
    assert cfg.model.deep_supervision == 2
    assert cfg.optimizer._target_ == "schedulefree.RAdamScheduleFree"
    assert cfg.scheduler is None
    assert "ema" in cfg.callbacks
