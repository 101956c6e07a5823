"""What a sweep's command line expands to, and the options of sweepers and launchers."""

import inspect
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_class

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture
def hydra():
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        yield GlobalHydra.instance()


def test_glob_is_every_surface_model_and_nothing_else(hydra):
    parser = OverridesParser.create(config_loader=hydra.config_loader())
    (override,) = parser.parse_overrides(["experiment=glob(surface_*)"])
    assert override.is_sweep_override()
    there = sorted(path.stem for path in (CONF / "experiment").glob("surface_*.yaml"))
    assert list(override.sweep_string_iterator()) == there
    assert len(there) >= 4


def test_a_grid_is_every_combination(hydra):
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    parser = OverridesParser.create(config_loader=hydra.config_loader())
    lines = ["optimizer.lr=1e-3,2e-3", "seed=0,1", "loss/term=[dice,bce]"]
    (batch,) = BasicSweeper.split_arguments(parser.parse_overrides(lines), max_batch_size=None)
    assert len(batch) == 4
    assert {job[2] for job in batch} == {"loss/term=[dice,bce]"}  # a list is one value
    assert len({tuple(job) for job in batch}) == 4


@pytest.mark.parametrize(("launcher", "key"), [("slurm", "signal_delay_s"), ("joblib_2", "n_jobs")])
def test_launchers_compose(hydra, launcher, key):
    pytest.importorskip(
        f"hydra_plugins.hydra_{'joblib' if 'job' in launcher else 'submitit'}_launcher"
    )
    cfg = compose("train", overrides=[f"hydra/launcher={launcher}"], return_hydra_config=True)
    assert cfg.hydra.launcher[key] in (120, 2)


def test_the_search_composes_and_fits_the_sweeper(hydra):
    cfg = compose("train", overrides=["hparams_search=surface_optuna"], return_hydra_config=True)
    sweeper = cfg.hydra.sweeper
    accepted = set(inspect.signature(get_class(sweeper._target_)).parameters)
    assert {key for key in sweeper if key != "_target_"} == accepted
    assert str(cfg.hydra.mode) == "RunMode.MULTIRUN"
    assert sweeper.storage.startswith("sqlite:///logs/train/searches/surface_optuna/")
    parser = OverridesParser.create(config_loader=hydra.config_loader())
    for key, value in sweeper.params.items():
        assert parser.parse_override(f"{key}={value}").is_sweep_override()
