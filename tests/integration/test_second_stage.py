"""Second stages end to end: stored predictions -> train -> validate -> infer with a prior."""

import numpy as np
import pytest
import zarr
from conftest import CALLBACKS, TINY

from vesuvius.errors import ConfigError
from vesuvius.inference import PredictionWriter
from vesuvius.inference.store import load_prediction

FAST = tuple(o for o in TINY if not o.startswith("model.")) + CALLBACKS


@pytest.fixture(scope="module")
def priors(prepared, tmp_path_factory):
    """Predictions as a first stage leaves them: the surface, thinned and shifted by a voxel."""
    folder = tmp_path_factory.mktemp("first_stage")
    for path in sorted(prepared.glob("*/*.zarr")):
        surface = np.asarray(zarr.open_group(path, mode="r")["surface"]) > 0
        with PredictionWriter(
            folder, path.stem, shape_zyx=surface.shape, outputs=["probability"]
        ) as writer:
            writer.arrays["probability"][:] = np.where(np.roll(surface, 1, 0), 200, 20)
    return folder


@pytest.mark.parametrize("experiment", ["refine", "deform"])
def test_a_second_stage_trains_on_stored_predictions_and_refines_others(
    experiment, priors, prepared, tmp_path, run_train, run_infer
):
    run = tmp_path / "run"
    score = run_train(
        run,
        *(f"experiment={experiment}", f"data.prior_root={priors}", "model.backbone.n_filters=2"),
        "callbacks.postprocess.every_n_epochs=5",
        tiny=FAST,
    )
    assert score is not None
    with pytest.raises(ConfigError, match="this run refines predictions: give prior="):
        run_infer(run, tmp_path / "without")
    run_infer(run, tmp_path / "out", f"prior={priors}", "pictures=false", "postprocess=none")
    name = next((prepared / "test").glob("*.zarr")).stem
    before, _ = load_prediction(priors / f"{name}.zarr")
    after, normals = load_prediction(tmp_path / "out" / f"{name}.zarr")
    # hardly trained, a second stage still says what the first said
    agreement = ((after > 0.5) == (before > 0.5)).mean()
    assert agreement > 0.9
    assert (normals is None) == (experiment == "deform")
