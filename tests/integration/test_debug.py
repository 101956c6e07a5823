"""`debug=...`: each option runs through, and one batch is learned by heart."""

import pytest
from conftest import CALLBACKS, TINY

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*overfit.*", "ignore:.*does not have many workers", "ignore:.*isinstance.treespec"
)

FAST = tuple(o for o in TINY if not o.startswith(("trainer.max_epochs", "trainer.log")))


@pytest.mark.parametrize("option", ["fdr", "limit", "profiler"])
def test_an_option_runs_through_and_leaves_no_metrics_of_a_real_run(
    option, tmp_path, run_train, caplog
):
    caplog.set_level("INFO")
    run_train(tmp_path, f"debug={option}", tiny=FAST + CALLBACKS)
    assert "finished after" in caplog.text
    assert not (tmp_path / "metrics.csv").exists()  # loggers are off
    epochs = {"fdr": 1, "limit": 3, "profiler": 1}[option]
    assert f"finished after {epochs} epochs" in caplog.text


def test_overfit_says_when_a_batch_is_not_learned(tmp_path, run_train, caplog):
    run_train(
        tmp_path, "debug=overfit", "callbacks.progress=null", "trainer.max_epochs=2", tiny=FAST
    )
    assert "one batch not learned by heart: Dice 0." in caplog.text
    assert "trainer.max_epochs" in caplog.text


@pytest.mark.slow
def test_one_batch_is_learned_by_heart(tmp_path, run_train, caplog):
    caplog.set_level("INFO")
    run_train(tmp_path, "debug=overfit", "callbacks.progress=null", "model.n_filters=8", tiny=FAST)
    assert "one batch learned by heart: Dice" in caplog.text  # at least 0.98
