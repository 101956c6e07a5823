"""Block and sliding-window inference; the network comes in as a callable."""

from vesuvius.inference.network import InferenceNetwork, prepare_network
from vesuvius.inference.predictor import (
    ensemble_predictor,
    surface_predictor,
    with_normals_from,
)
from vesuvius.inference.report import RunReport
from vesuvius.inference.sliding_window import Predict, Progress, VolumePrediction, predict_volume
from vesuvius.inference.store import PredictionWriter, finished_prediction, write_mask

__all__ = [
    "InferenceNetwork",
    "Predict",
    "PredictionWriter",
    "Progress",
    "RunReport",
    "VolumePrediction",
    "ensemble_predictor",
    "finished_prediction",
    "predict_volume",
    "prepare_network",
    "surface_predictor",
    "with_normals_from",
    "write_mask",
]
