"""Small prepared hearts and trainings of a heart experiment on them, inside the process."""

from pathlib import Path

from conftest import composed
from omegaconf import OmegaConf

from vesuvius.data.heart.phantom import HeartPhantomSettings
from vesuvius.data.heart.phantom_files import write_heart_phantoms
from vesuvius.data.heart.prepare import prepare_hearts
from vesuvius.data.heart.sampler import SamplerOptions

TINY = (
    "data=heart_npz",
    "data.sdf_size=64",
    "data.point_cloud_size=128",
    "data.batch_size=2",
    "data.val_share=0.34",
    "model.dim=16",
    "model.depth=1",
    "model.dim_head=8",
    "model.num_latents=8",
    "trainer.log_every_n_steps=1",
    "trainer.precision=32-true",
    "trainer.enable_progress_bar=false",
    "trainer.max_epochs=2",
)
"""Overrides that make training take seconds."""
CALLBACKS = ("callbacks.progress=null", "callbacks.heart_dense.resolution=12")


def prepared_hearts(folder: Path, *, count: int = 3, size: int = 40, num_points: int = 600) -> Path:
    """Return a folder of cases of hearts with distances to each class."""
    step = 120 / size
    settings = HeartPhantomSettings(shape=(size, size, size), spacing=(step, step, step))
    made = write_heart_phantoms(folder / "labels", count=count, seed=0, settings=settings)
    options = SamplerOptions(
        num_surface_points=num_points,
        num_vol_points=num_points,
        min_surface_per_class=num_points // 30,
        vol_per_class=num_points // 30,
        min_class_voxels=1,
        sdf_mode="per_class",
    )
    sources = [path for path, _ in made]
    outcomes = list(prepare_hearts(sources, folder / "cases", options))
    assert [outcome.error for outcome in outcomes if outcome.error] == []
    return folder / "cases"


def train_hearts(
    cases: Path,
    folder: Path,
    experiment: str,
    *overrides: str,
    callbacks: tuple[str, ...] = CALLBACKS,
) -> float | None:
    """Train as `python train.py experiment=... <TINY> <overrides> hydra.run.dir=<folder>` would."""
    from vesuvius.runtime.train import train

    given = [f"experiment={experiment}", *TINY, *callbacks, f"data.root={cases}", *overrides]
    cfg = composed("train", given, folder)
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    return train(cfg)
