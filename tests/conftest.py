"""Shared fixtures: seeded generators, tiny prepared volumes, runs inside the process."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch start their pools

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

if TYPE_CHECKING:
    from s3_volumes import S3Server

ROOT = Path(__file__).parents[1]

TINY = (
    "data=surface_zarr",
    "data.patch_zyx=[16,32,32]",
    "data.batch_size=2",
    "data.samples_per_volume=2",
    "data.val_crops_per_volume=2",
    "data.val_share=0.34",
    "model.n_filters=2",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "trainer.precision=32-true",
    "trainer.enable_progress_bar=false",
)
"""Overrides that make training take seconds."""
CALLBACKS = (
    "callbacks=[nonfinite,speed,memory,volume_validation,postprocess,comparison,curves,checkpoint,"
    "emergency,requeue]",
    "callbacks.comparison.view3d=null",
)
"""The default callbacks without progress bar and 3-D views."""


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded generator."""
    return np.random.default_rng(0)


def composed(config: str, overrides: list[str], output_dir: Path) -> DictConfig:
    """Return the configuration that `python <config>.py <overrides>` would run with."""
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        cfg = compose(config, overrides=overrides, return_hydra_config=True)
    with open_dict(cfg), read_write(cfg.hydra):
        cfg.hydra.runtime.output_dir = str(output_dir)
        HydraConfig.instance().set_config(cfg)
        cfg.pop("hydra")
    return cfg


@pytest.fixture
def compose_config() -> Callable[..., DictConfig]:
    """`composed`, as a fixture."""
    return composed


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three training and one test volume of 40 x 48 x 48: prepared/train, prepared/test."""
    from vesuvius.data.phantom_files import write_kaggle_phantom
    from vesuvius.data.prepare import PrepareOptions, prepare_all
    from vesuvius.data.sources import find_items

    root = tmp_path_factory.mktemp("volumes")
    write_kaggle_phantom(root / "kaggle", num_train=3, num_test=1, shape_zyx=(40, 48, 48), seed=0)
    outcomes = list(prepare_all(find_items(root / "kaggle"), root / "prepared", PrepareOptions()))
    assert [outcome.status for outcome in outcomes] == ["done"] * 4
    return root / "prepared"


@pytest.fixture
def run_train(prepared: Path) -> Callable[..., float | None]:
    """Train as `python train.py <TINY> <overrides> hydra.run.dir=<folder>` would."""

    def run(
        folder: Path, *overrides: str, tiny: tuple[str, ...] = TINY + CALLBACKS
    ) -> float | None:
        from vesuvius.runtime.train import train

        cfg = composed("train", [*tiny, f"data.root={prepared / 'train'}", *overrides], folder)
        (folder / ".hydra").mkdir(parents=True, exist_ok=True)
        OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
        return train(cfg)

    return run


@pytest.fixture
def run_infer(prepared: Path) -> Callable[..., float | None]:
    """Infer as `python infer.py run_dir=... volume=... <overrides>` would."""

    def run(run_dir: Path, out_dir: Path, *overrides: str) -> float | None:
        from vesuvius.runtime.infer import infer

        base = [f"run_dir={run_dir}", f"volume={prepared / 'test'}", f"out_dir={out_dir}"]
        return infer(composed("infer", [*base, *overrides], out_dir))

    return run


@pytest.fixture(scope="session")
def s3_server() -> "Iterator[S3Server]":
    """A running S3 without buckets, one a session; tests take `s3`."""
    pytest.importorskip("moto.server")
    from s3_volumes import serve_s3

    with serve_s3() as server:
        yield server


@pytest.fixture
def s3(s3_server: "S3Server", monkeypatch: pytest.MonkeyPatch) -> "Iterator[S3Server]":
    """An empty S3; this process and its children are its clients by their environment."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    yield s3_server
    s3_server.reset()
