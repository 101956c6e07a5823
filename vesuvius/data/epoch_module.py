"""What the data modules of all tasks share: loaders over (epoch, i), ranks, resuming in an epoch.

Sample i of epoch e is a pure function of (seed, e, i). Ranks take every world_size-th i, so the
batches of R ranks together hold what one process with R times the batch size would see, and a run
resumed at an epoch's start sees what an uninterrupted one does.

Loader processes never import this file: what they unpickle (data set, collation) must live where
Lightning is not imported, which would cost each of them seconds.
"""

import math
from collections.abc import Callable, Iterator
from numbers import Integral
from typing import Any

from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from vesuvius.errors import ConfigError


class EpochDataModule(LightningDataModule):
    """Loaders of `train_dataset` and `val_dataset`, which `setup` of a subclass fills.

    Both are indexed with (epoch, i) and have a length.

    Args:
        batch_size: samples of one process and step.
        num_workers: loader processes, 0 = none.
        pin_memory: page-locked batches, for a GPU.
        start_method: how workers start, "forkserver" or "spawn".
        prefetch_factor: batches each worker holds ready; None = PyTorch's 2.
        collate: samples -> batch; None = PyTorch's.

    Raises:
        ConfigError: an argument out of range.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        num_workers: int = 0,
        pin_memory: bool = False,
        start_method: str = "forkserver",
        prefetch_factor: int | None = None,
        collate: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__()
        low: dict[str, tuple[Any, int]] = {
            "batch_size": (batch_size, 1),
            "num_workers": (num_workers, 0),
            "prefetch_factor": (1 if prefetch_factor is None else prefetch_factor, 1),
        }
        for name, (value, least) in low.items():
            if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
                raise ConfigError(
                    f"data.{name} is {value!r}; expected a whole number, {least} or more"
                )
        if start_method not in ("forkserver", "spawn"):
            raise ConfigError(
                f"start_method is {start_method!r}; expected forkserver or spawn (forked workers "
                "inherit open maps and threads)"
            )
        self.batch_size = batch_size
        self._loader_args: dict[str, Any] = {
            "num_workers": num_workers,
            "pin_memory": pin_memory,
            "collate_fn": collate,
        }
        if num_workers > 0:
            self._loader_args |= {
                "multiprocessing_context": start_method,
                "persistent_workers": True,
                "prefetch_factor": prefetch_factor,
            }
        self._skip = 0
        self.train_dataset: Any = None
        self.val_dataset: Any = None

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of this rank's training samples."""
        self.setup("fit")
        loader = self._loader(self.train_dataset, multiple_of=self.batch_size * self._world()[1])
        assert isinstance(loader.sampler, EpochSampler)
        loader.sampler.num_skipped, self._skip = self._skip * self.batch_size, 0
        return loader

    def skip_batches(self, num_batches: int) -> None:
        """Leave out the first batches of the next training epoch, once: they were trained on."""
        self._skip = num_batches

    def val_dataloader(self) -> list[DataLoader[Any]] | DataLoader[Any]:
        """Return the loader of this rank's fixed samples, or [] if nothing validates."""
        self.setup("fit")
        return self._loader(self.val_dataset, multiple_of=1) if len(self.val_dataset) else []

    def _world(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _loader(self, dataset: Dataset[Any], *, multiple_of: int) -> DataLoader[Any]:
        rank, world_size = self._world()
        sampler = EpochSampler(dataset, multiple_of=multiple_of, rank=rank, world_size=world_size)
        return DataLoader(dataset, batch_size=self.batch_size, sampler=sampler, **self._loader_args)


class EpochSampler(DistributedSampler[Any]):
    """Yields (epoch, i) for the i of one rank; Lightning calls `set_epoch`.

    The class derives from `DistributedSampler` so that Lightning leaves it in place under DDP.

    Args:
        dataset: what is indexed with (epoch, i); it has a length.
        multiple_of: the number of samples of all ranks together is rounded up to a multiple of
            it. Beyond the data set's length a training set draws new crops.
        rank: of this process.
        world_size: number of processes.

    `num_skipped` samples of the next epoch alone are left out: they were drawn before the run was
    interrupted.
    """

    def __init__(
        self, dataset: Dataset[Any], *, multiple_of: int = 1, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=False)
        unit = math.lcm(multiple_of, world_size)
        self.total_size = -(-len(dataset) // unit) * unit  # type: ignore[arg-type]
        self.num_samples = self.total_size // world_size
        self.num_skipped = 0

    def __iter__(self) -> Iterator[Any]:
        first, self.num_skipped = self.num_skipped, 0
        for i in range(self.rank, self.total_size, self.num_replicas)[first:]:
            yield (self.epoch, i)
