"""Callbacks of a composed training."""

from lightning.pytorch.callbacks import ProgressBar

from vesuvius.runtime.compose_config import compose_config
from vesuvius.runtime.train import build_callbacks


def num_bars(tmp_path, *overrides):
    cfg = compose_config("train", [f"paths.output_dir={tmp_path}", *overrides])
    return sum(isinstance(c, ProgressBar) for c in build_callbacks(cfg, tmp_path))


def test_a_progress_bar_that_is_switched_off_is_left_out(tmp_path):
    assert num_bars(tmp_path) == 1
    assert num_bars(tmp_path, "trainer.enable_progress_bar=false") == 0
