"""Block inference: memory against the size of the volume, and where the time goes.

    python benchmarks/blocks.py                                  # 256^3 and 256 x 512 x 512
    python benchmarks/blocks.py --shapes 256,256,256 512,1024,1024 --filters 2 --overlap 0.125
    python benchmarks/blocks.py --shapes 256,256,256 512,1024,1024 --constant   # memory, in minutes

Each shape runs in a process of its own: a random uint8 Zarr is predicted into a block store with a
small U-Net (`--filters` channels at the first level; windows of 64, `--overlap`, fp32), or, with
`--constant`, by one constant answer: all but the network's own time and workspace. "network"
is the time inside the network's call, "read" and "write" are those of the image and of the blocks
(write without the pyramid), "rest" is the blending, the records and everything else, "pyramid" the
end. Memory is the peak of the anonymous resident memory (RssAnon: without mapped files, which the
kernel drops when it needs room) sampled every 5 ms, and its growth over that before predicting.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

ROI = (64, 64, 64)


def anonymous_mb():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no RssAnon: this benchmark needs Linux")


class Peak:
    """Samples the anonymous memory of this process."""

    def __enter__(self):
        self.before = self.peak = anonymous_mb()
        self.running = True
        self.thread = threading.Thread(target=self.sample)
        self.thread.start()
        return self

    def sample(self):
        while self.running:
            self.peak = max(self.peak, anonymous_mb())
            time.sleep(0.005)

    def __exit__(self, *_):
        self.running = False
        self.thread.join()


class Clock:
    """Adds up the time of the calls it wraps."""

    def __init__(self, call):
        self.call, self.seconds = call, 0.0

    def __call__(self, *args, **named):
        start = time.perf_counter()
        try:
            return self.call(*args, **named)
        finally:
            self.seconds += time.perf_counter() - start


class Timed:
    """An image whose reads are timed."""

    def __init__(self, image):
        self.shape, self.dtype = image.shape, image.dtype
        self.read = Clock(image.__getitem__)

    def __getitem__(self, key):
        return self.read(key)


def make_volume(path, shape):
    """Write a random volume of grains, chunk row by chunk row."""
    import zarr

    rng = np.random.default_rng(0)
    array = zarr.create_array(path, shape=shape, chunks=(64, 64, 64), dtype="uint8")
    for z in range(0, shape[0], 64):
        coarse = rng.integers(1, 256, (32, -(-shape[1] // 2), -(-shape[2] // 2)), dtype=np.uint8)
        fine = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)
        array[z : z + 64] = fine[: shape[0] - z, : shape[1], : shape[2]]


def constant_answer(predict):
    """Return a predictor that asks the network once and repeats its answer."""
    answers = []

    def repeat(windows):
        if not answers:
            answers.append(predict(windows))
        return answers[0]

    return repeat


def one(folder, shape, args):
    """Predict one volume and print the figures as JSON."""
    import torch

    from vesuvius.data.region import RegionView
    from vesuvius.data.volume import Volume
    from vesuvius.inference import prepare_network, surface_predictor
    from vesuvius.inference.blocks import predict_blocks
    from vesuvius.inference.prediction_blocks import PredictionBlocks
    from vesuvius.models.dual_head_unet import DualHeadResUNet3D

    torch.manual_seed(0)
    network = DualHeadResUNet3D(n_filters=args.filters).eval()
    predict = Clock(surface_predictor(prepare_network(network, device="cpu", precision="fp32")))
    if args.constant:
        predict = Clock(constant_answer(predict))
    image = Timed(RegionView(Volume(folder / "volume.zarr")))
    store = PredictionBlocks(folder, "out", shape_zyx=shape, block=args.edge)
    write, finish = Clock(store.write), Clock(store.finish)
    write_seconds = []

    def finish_timed():  # writes the pyramid through write(), which is not counted as writing
        write_seconds.append(write.seconds)
        return finish()

    store.write, store.finish = write, finish_timed
    with torch.inference_mode():
        predict(torch.zeros(1, 1, *ROI))
    predict.seconds = 0.0
    with Peak() as memory:
        start = time.perf_counter()
        report = predict_blocks(
            predict,
            image,
            store,
            roi_zyx=ROI,
            overlap=args.overlap,
            device="cpu",
            max_bytes=args.max_mb << 20,
        )
        total = time.perf_counter() - start
    pyramid = finish.seconds
    writing = write_seconds[0]
    rest = total - predict.seconds - image.read.seconds - writing - pyramid
    print(
        json.dumps(
            {
                "shape": shape, "total": total, "network": predict.seconds,
                "read": image.read.seconds, "write": writing, "rest": rest, "pyramid": pyramid,
                "peak_mb": memory.peak, "extra_mb": memory.peak - memory.before,
                "windows": report["windows"], "windows_once": report["windows_once"],
            }
        )
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shapes", nargs="+", default=["256,256,256", "256,512,512"])
    parser.add_argument("--filters", type=int, default=4, help="of the U-Net's first level")
    parser.add_argument("--overlap", type=float, default=0.5, help="of windows, a share")
    parser.add_argument("--edge", type=int, default=128, help="of a block")
    parser.add_argument("--max-mb", type=int, default=190, help="for sums and finished planes")
    parser.add_argument("--constant", action="store_true", help="no network: memory and the rest")
    parser.add_argument("--one", type=Path, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    shapes = [tuple(int(n) for n in text.split(",")) for text in args.shapes]
    if args.one is not None:
        one(args.one, shapes[0], args)
        return
    print("shape              total s  network   read  write   rest  pyramid  over net  peak MiB  "
          "extra MiB  Mvoxel/s  windows twice")  # fmt: skip
    for text, shape in zip(args.shapes, shapes, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            make_volume(Path(folder) / "volume.zarr", shape)
            child = [sys.executable, __file__, "--one", folder, "--shapes", text]
            child += [
                "--filters",
                str(args.filters),
                "--edge",
                str(args.edge),
                "--overlap",
                str(args.overlap),
            ]
            done = subprocess.run(
                [*child, "--max-mb", str(args.max_mb), *["--constant"] * args.constant],
                check=True,
                capture_output=True,
                text=True,
            )
        r = json.loads(done.stdout.strip().splitlines()[-1])
        over = math.nan if args.constant else (r["total"] - r["network"]) / r["network"]
        speed = math.prod(shape) / r["total"] / 1e6
        print(f"{text:<18} {r['total']:7.1f} {r['network']:8.1f} {r['read']:6.2f} "
              f"{r['write']:6.2f} {r['rest']:6.2f} {r['pyramid']:8.2f} {over:8.1%} "
              f"{r['peak_mb']:9.0f} {r['extra_mb']:10.0f} {speed:9.3f}"
              f" {r['windows'] / r['windows_once'] - 1:13.1%}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
