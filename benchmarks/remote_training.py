"""Training crops from a volume behind a network: crops/s and the share of time spent waiting.

    python benchmarks/remote_training.py     # about a minute

A local HTTP server (slow_server.py) answers every request after `--latency-ms`. A step of the
network is a sleep of `--step-ms` (a GPU at work leaves the CPU alone). The peer reads the same
crops with zarr-python through obstore, as its documentation shows, without any cache. The same
draws in every row; a row's clock starts with its first batch, so that the start of processes is
not in it.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from torch.utils.data import DataLoader, Dataset

from vesuvius.data.surface_dataset import SurfaceDataset, collate_surface
from vesuvius.data.surface_volumes import SurfaceVolumesDataModule

SHAPE = (512, 384, 384)
CHUNK = (64, 64, 64)


def write_scroll(folder: Path) -> None:
    """Write an image and labels; a third of the label chunks exist."""
    rng = np.random.default_rng(0)
    image = zarr.create_array(
        folder / "image.zarr", shape=SHAPE, chunks=CHUNK, dtype="uint8", compressors=None
    )
    label = zarr.create_array(folder / "label.zarr", shape=SHAPE, chunks=CHUNK, dtype="uint8")
    sheets = (np.arange(SHAPE[1])[None, :, None] % 24 < 3).astype(np.uint8)
    for z in range(0, SHAPE[0], CHUNK[0]):
        image[z : z + CHUNK[0]] = rng.integers(0, 256, (CHUNK[0], *SHAPE[1:]), dtype=np.uint8)
        if z // CHUNK[0] % 3 == 0:
            label[z : z + CHUNK[0]] = np.broadcast_to(sheets, (CHUNK[0], *SHAPE[1:]))


class PlainZarr(Dataset[Any]):
    """The same crops, each read with zarr-python, nothing kept."""

    def __init__(self, url: str, origins: dict[tuple[int, int], tuple[int, int, int]]) -> None:
        self.url, self.origins = url, origins
        self._arrays: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}}

    def __len__(self) -> int:
        return len(self.origins)

    def _read(self, name: str, box: tuple[slice, ...]) -> np.ndarray[Any, Any]:
        if name not in self._arrays:
            from obstore.store import HTTPStore
            from zarr.storage import ObjectStore

            store = HTTPStore.from_url(
                f"{self.url}/{name}.zarr", client_options={"allow_http": True}
            )
            self._arrays[name] = zarr.open_array(ObjectStore(store, read_only=True), mode="r")
        return np.asarray(self._arrays[name][box])[None]

    def __getitem__(self, index: tuple[int, int]) -> dict[str, Any]:
        origin = self.origins[index]
        box = tuple(slice(o, o + 64) for o in origin)
        arrays = {name: self._read(name, box) for name in ("image", "label")}
        return {**arrays, "volume_id": "image", "origin_zyx": origin}


def measure(loader: DataLoader[Any], step_s: float) -> tuple[float, float, list[Any]]:
    """Return crops/s, waiting share and the origins of all crops."""
    origins = []
    waited = crops = 0.0
    batches = iter(loader)
    origins.append(next(batches)["origin_zyx"])
    start = time.perf_counter()
    while True:
        time.sleep(step_s)
        asked = time.perf_counter()
        batch = next(batches, None)
        waited += time.perf_counter() - asked
        if batch is None:
            break
        origins.append(batch["origin_zyx"])
        crops += len(batch["volume_id"])
    total = time.perf_counter() - start
    return crops / total, waited / total, torch.cat(origins).tolist()


def module_of(url: str, cache: Path, workers: int, args: argparse.Namespace) -> Any:
    return SurfaceVolumesDataModule(
        [{"image": f"{url}/image.zarr", "label": f"{url}/label.zarr"}],
        cache_folder=cache,
        num_workers=workers,
        batch_size=args.batch,
        samples_per_volume=args.batches * args.batch,
        val_share=0,
        augment="none",
        cache_mb=args.cache_mb,
    )


def origin_of(data: SurfaceDataset, epoch: int, i: int) -> tuple[int, int, int]:
    """Return where sample i of an epoch lies, without asking for its chunks."""
    volume, positive = data._draw_plan(epoch, i)
    rng = np.random.default_rng((data.seed, epoch, i))
    return data._origin(data.volumes()[volume], rng, positive=positive)


def plain_loader(url: str, like: Any, workers: int) -> DataLoader[Any]:
    """Return the peer's loader of the crops that ours draws."""
    loader = like.train_dataloader()
    data = loader.dataset
    indices = list(loader.sampler)
    origins = {index: origin_of(data, *index) for index in indices}
    options: dict[str, Any] = {"num_workers": workers}
    if workers:
        options |= {"multiprocessing_context": "forkserver", "prefetch_factor": 4}
    return DataLoader(
        PlainZarr(url, origins),
        batch_size=loader.batch_size,
        sampler=indices,
        collate_fn=collate_surface,
        **options,
    )


def run(url: str, folder: Path, args: argparse.Namespace) -> None:
    """Print one row for each way of reading."""
    step_s = args.step_ms / 1000
    rows: list[tuple[str, float, float]] = []
    draws: list[Any] = []

    def add(name: str, loader: DataLoader[Any]) -> None:
        rate, share, origins = measure(loader, step_s)
        rows.append((name, rate, share))
        print(f"{name:36} {rate:7.1f} {share:8.0%}  {rate / rows[0][1]:5.1f}x", flush=True)
        draws.append(origins)

    start = time.perf_counter()
    module_of(url, folder / "a", 0, args).setup()
    print(f"index of the labels: {time.perf_counter() - start:.1f} s, once")
    bound = args.batch / step_s
    print(f"{'':36} crops/s  waiting  (the network alone: {bound:.0f} crops/s)")
    shutil.copytree(folder / "a" / "indexes", folder / "b" / "indexes")
    for workers in (0, 2):
        like = module_of(url, folder / "a", 0, args)
        add(f"zarr-python, no cache, {workers} workers", plain_loader(url, like, workers))
    for cache, workers in (("a", 0), ("b", 2)):
        for state in ("cold", "warm disk"):
            module = module_of(url, folder / cache, workers, args)
            add(f"ours, {state}, {workers} workers", module.train_dataloader())
    assert all(origins == draws[0] for origins in draws), "rows read different crops"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency-ms", type=float, default=50.0)
    parser.add_argument("--step-ms", type=float, default=200.0)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--cache-mb", type=int, default=64)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scroll(folder / "data")
        command = [str(Path(__file__).with_name("slow_server.py")), str(folder / "data")]
        server = subprocess.Popen(
            [sys.executable, *command, str(args.latency_ms)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            run(f"http://127.0.0.1:{server.stdout.readline().strip()}", folder, args)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
