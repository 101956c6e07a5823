"""Sliding-window inference against MONAI, same network, window and overlap: time and memory.

    python benchmarks/inference.py                    # 160^3 and 320^3, 5 minutes on one thread
    python benchmarks/inference.py --size 0           # memory of a 320^3 chunk only
    python benchmarks/inference.py --size 256 --rounds 1 --chunk 0

Each run is a process of its own (imports, network and volume made before the clock starts), and the
contenders take turns. "extra" is the peak of the resident memory while predicting minus the
resident memory before; at 160^3 the network's own workspace is most of it, so a second stage runs
a whole chunk (320^3) with overlap 0 (fewest windows, the same arrays) for memory alone. MONAI
returns float32 in memory; ours writes uint8 probability and int8 normals to a compressed Zarr
store, which is included in its time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

ROI = (64, 64, 64)
CONTENDERS = ("monai-fp32", "ours-fp32", "ours-auto")


class PeakRss:
    """Samples the resident memory of this process every 2 ms."""

    def __enter__(self):
        import psutil

        self.process, self.running = psutil.Process(), True
        self.before = self.peak = self.process.memory_info().rss
        self.thread = threading.Thread(target=self.sample)
        self.thread.start()
        return self

    def sample(self):
        while self.running:
            self.peak = max(self.peak, self.process.memory_info().rss)
            time.sleep(0.002)

    def __exit__(self, *_):
        self.running = False
        self.thread.join()

    @property
    def extra_mb(self):
        return (self.peak - self.before) / 2**20


def make_network(n_filters):
    """Return a network with seeded weights and norm statistics as after some training."""
    import torch

    from vesuvius.models.dual_head_unet import DualHeadResUNet3D

    torch.manual_seed(0)
    network = DualHeadResUNet3D(n_filters=n_filters)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def run_monai(network, image, overlap):
    import torch
    from monai.inferers import sliding_window_inference

    def predict(window):
        heads = network(window)
        return torch.cat([torch.sigmoid(heads["surface_logit"]), heads["normals"]], 1)

    with torch.inference_mode():
        volume = torch.from_numpy(image)[None, None].float().div_(255)
        result = sliding_window_inference(
            volume, ROI, 1, predict, overlap=overlap, mode="gaussian", progress=False
        )
    return result[0, 0]


def run_ours(network, image, overlap, precision, folder):
    from vesuvius.inference import (
        PredictionWriter,
        predict_volume,
        prepare_network,
        surface_predictor,
    )

    predict = surface_predictor(prepare_network(network, device="cpu", precision=precision))
    with PredictionWriter(folder, "volume", shape_zyx=image.shape) as writer:
        result = predict_volume(
            predict, image, roi_zyx=ROI, overlap=overlap, device="cpu", out=writer.arrays
        )
        writer.finish(result.report)
    return writer.path


def worker(name, arguments):
    """Run one contender once and print its figures."""
    import torch
    import zarr

    torch.set_num_threads(arguments.threads)
    if name.startswith("monai"):
        import monai.inferers  # noqa: F401  # imported before the clock starts
    else:
        import vesuvius.inference  # noqa: F401
    network = make_network(arguments.n_filters)
    image = np.random.default_rng(0).integers(0, 256, (arguments.size,) * 3, dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        with PeakRss() as memory:
            start = time.perf_counter()
            if name == "monai-fp32":
                result = run_monai(network, image, arguments.overlap)
            else:
                precision = "fp32" if name == "ours-fp32" else "auto"
                result = run_ours(network, image, arguments.overlap, precision, folder)
            seconds = time.perf_counter() - start
        if name == "monai-fp32":
            probability = np.round(255 * result.numpy()).astype(np.uint8)
        else:
            probability = zarr.open_group(result, mode="r")["probability"][:]
    np.save(Path(arguments.save) / f"{name}.npy", probability)
    print(json.dumps({"seconds": seconds, "extra_mb": memory.extra_mb}))


def start(name, arguments, folder):
    """Run a contender in a fresh process and return its figures."""
    keys = ("size", "n_filters", "overlap", "threads")
    options = [f"--{key}={getattr(arguments, key)}" for key in keys]
    command = [sys.executable, __file__, f"--worker={name}", f"--save={folder}", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    print(name, arguments.size, figures, file=sys.stderr, flush=True)
    return figures


def compare(names, arguments):
    """Run the contenders in turn and return medians beside those of the first."""
    figures = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.rounds):
            for name in names:
                figures[name].append(start(name, arguments, folder))
        maps = {name: np.load(Path(folder) / f"{name}.npy").astype(int) for name in names}
    middle = {
        name: {key: statistics.median(run[key] for run in runs) for key in ("seconds", "extra_mb")}
        for name, runs in figures.items()
    }
    peer = middle[names[0]]
    for name, row in middle.items():
        row["speed_vs_monai"] = round(peer["seconds"] / row["seconds"], 2)
        row["extra_memory_vs_monai"] = round(row["extra_mb"] / peer["extra_mb"], 2)
        row["max_difference_of_255"] = int(np.abs(maps[name] - maps[names[0]]).max())
    return middle


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--size", type=int, default=160, help="edge of the volume in voxels, 0: none"
    )
    parser.add_argument("--n_filters", type=int, default=16)
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--chunk", type=int, default=320, help="edge for the memory stage, 0: none")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--save", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments)
        return
    results = {"settings": vars(arguments)}
    if arguments.size:
        results["time"] = compare(CONTENDERS, arguments)
    if arguments.chunk:
        changes = {"size": arguments.chunk, "overlap": 0.0, "rounds": 1}
        chunk = argparse.Namespace(**{**vars(arguments), **changes})
        results["memory_of_a_chunk"] = compare(("monai-fp32", "ours-auto"), chunk)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
