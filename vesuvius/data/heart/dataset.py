"""Prepared hearts as training samples: surface points, queries with distance and class.

Sample i of epoch e is a pure function of (seed, e, i). Source of the composition: vecset-heart
specification, 1.6: of `sdf_size` = 4 q queries are drawn q inside, q outside, q near.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from vesuvius.data.heart.augment import draw_motion
from vesuvius.data.heart.format import ABSENT_SDF, HeartCase, load_case
from vesuvius.data.heart.partial import draw_kept, subset
from vesuvius.errors import CaseFormatError, ConfigError
from vesuvius.types import HEART_CLASSES, HeartLayout, HeartSample

Ints = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class HeartDraws:
    """What is drawn from a heart.

    Attributes:
        sdf_size: 4 q; q queries inside, q outside, q near the surface.
        point_cloud_size: surface points P.
        class_names: of the data's classes 1..K.
        num_channels: C, class channels; above K the rest is padding. None = K.
        rotation_std: of training turns, rad; 0 = none.
        permute_axes: training: axes are swapped and flipped, by turns only unless `mirror`.
        mirror: training: mirror images too (anatomy is chiral: off).
        partial_prob: training: share of samples whose input lacks classes.
        min_remove, max_remove: how many classes are removed then.
        subsets: kept instead of removing at random, by name or numbers; empty = at random.
        input_classes: validation: classes in the input, by name or numbers; None = all.
    """

    sdf_size: int = 4096
    point_cloud_size: int = 8192
    class_names: tuple[str, ...] = HEART_CLASSES
    num_channels: int | None = None
    rotation_std: float = 1.0
    permute_axes: bool = False
    mirror: bool = False
    partial_prob: float = 0.0
    min_remove: int = 2
    max_remove: int = 5
    subsets: tuple[str | tuple[int, ...], ...] = ()
    input_classes: str | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.sdf_size < 4 or self.sdf_size % 4:
            raise ConfigError(f"sdf_size is {self.sdf_size}; expected a positive multiple of 4")
        if self.point_cloud_size < 1:
            raise ConfigError(f"point_cloud_size is {self.point_cloud_size}; expected 1 or more")
        if not self.class_names:
            raise ConfigError("class_names is empty; expected the names of classes 1..K")
        if self.channels < len(self.class_names):
            raise ConfigError(
                f"num_channels is {self.num_channels}; expected {len(self.class_names)} (classes) "
                "or more"
            )
        if self.rotation_std < 0 or not 0 <= self.partial_prob <= 1:
            raise ConfigError(
                f"rotation_std is {self.rotation_std}, partial_prob {self.partial_prob}; expected "
                "0 or more, 0 to 1"
            )
        if not 0 <= self.min_remove <= self.max_remove < max(len(self.class_names), 2):
            raise ConfigError(
                f"min_remove is {self.min_remove}, max_remove {self.max_remove}; expected 0 <= "
                f"min_remove <= max_remove < {len(self.class_names)} (classes)"
            )
        for kept in (*self.subsets, *([self.input_classes] if self.input_classes else [])):
            subset(kept, len(self.class_names))

    @property
    def channels(self) -> int:
        """Return C."""
        return len(self.class_names) if self.num_channels is None else self.num_channels

    @property
    def layout(self) -> HeartLayout:
        """Return where volume, near and surface points lie."""
        return HeartLayout(self.sdf_size // 2, self.sdf_size // 4, self.point_cloud_size)


class HeartDataset(Dataset[HeartSample]):
    """Samples of prepared hearts; index with i or (epoch, i).

    Args:
        cases: `<id>.npz` of `vesuvius heart prepare`.
        draws: what is drawn.
        samples_per_case: samples of each heart in an epoch.
        seed: of everything drawn.
        fixed: validation: hearts in order, every epoch the same points, no augmentation.
        cache_cases: hearts kept in memory (about 2 MB each).
        with_class_sdf: add the distances to each class; the cases need sdf_mode per_class.

    Raises:
        ConfigError: a number out of range.
    """

    def __init__(
        self,
        cases: Sequence[str | Path],
        draws: HeartDraws,
        *,
        samples_per_case: int = 1,
        seed: int = 0,
        fixed: bool = False,
        cache_cases: int = 64,
        with_class_sdf: bool = False,
    ) -> None:
        if samples_per_case < 1 or cache_cases < 0:
            raise ConfigError(
                f"samples_per_case is {samples_per_case}, cache_cases {cache_cases}; expected 1 or "
                "more, 0 or more"
            )
        self.paths = [Path(p) for p in cases]
        self.draws = draws
        self.samples_per_case = samples_per_case
        self.seed = seed
        self.fixed = fixed
        self.cache_cases = cache_cases
        self.with_class_sdf = with_class_sdf
        self._cache: OrderedDict[Path, HeartCase] = OrderedDict()
        self._order: tuple[int, list[int]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Drop what was read: each worker reads for itself."""
        return {**self.__dict__, "_cache": OrderedDict(), "_order": None}

    def __len__(self) -> int:
        return len(self.paths) * self.samples_per_case

    def __getitem__(self, index: int | tuple[int, int]) -> HeartSample:
        epoch, i = index if isinstance(index, tuple) else (0, index)
        if self.fixed:
            epoch = 0
        case = self._case(self.paths[self._which(epoch, i)])
        rng = np.random.default_rng((self.seed, epoch, i))
        return self._sample(case, rng)

    def _which(self, epoch: int, i: int) -> int:
        if self.fixed:
            return i % len(self) // self.samples_per_case
        if self._order is None or self._order[0] != epoch:
            slots = np.repeat(np.arange(len(self.paths)), self.samples_per_case)
            order = np.random.default_rng((self.seed, epoch)).permutation(slots)
            self._order = (epoch, order.tolist())
        return self._order[1][i % len(self)]

    def _case(self, path: Path) -> HeartCase:
        case = self._cache.pop(path, None)
        if case is None:
            case = load_case(path)
            self._check(case, path)
        self._cache[path] = case
        if len(self._cache) > self.cache_cases:
            self._cache.popitem(last=False)
        return case

    def _check(self, case: HeartCase, path: Path) -> None:
        if case.num_classes != len(self.draws.class_names):
            raise CaseFormatError(
                f"{path}: has {case.num_classes} classes; expected {len(self.draws.class_names)} "
                "(data.class_names)"
            )
        if self.with_class_sdf and not case.class_sdf:
            raise CaseFormatError(
                f"{path}: has no distances per class (sdf_mode {case.sdf_mode}); prepare it with "
                "--sdf-mode per_class, or set data.with_class_sdf=false"
            )

    def _sample(self, case: HeartCase, rng: np.random.Generator) -> HeartSample:
        draws, count = self.draws, self.draws.point_cloud_size
        vol, near = _queries(case, draws.sdf_size // 4, rng)
        shown = _pick(np.arange(len(case.surface_points)), count, rng)
        kept = self._kept(case, rng)
        seen = shown
        if kept != case.present_classes:
            pool = np.flatnonzero(np.isin(case.surface_labels, kept))
            seen = _pick(pool, count, rng)
        motion = np.eye(3, dtype=np.float32)
        if not self.fixed:
            motion = draw_motion(
                rng,
                rotation_std=draws.rotation_std,
                permute_axes=draws.permute_axes,
                mirror=draws.mirror,
            )
        points = np.concatenate([case.vol_points[vol], case.near_points[near]]) @ motion.T
        sdf = np.concatenate([case.vol_sdf[vol], case.near_sdf[near]])
        label = np.concatenate([case.vol_labels[vol], case.near_labels[near]])
        sample: dict[str, Any] = {
            "surface": self._surface(case, seen, motion),
            "surface_target": self._surface(case, shown, motion),
            "points": np.ascontiguousarray(points, np.float32),
            "target": np.stack([sdf, label.astype(np.float32)], -1),
            "valid_class_mask": self._mask(range(1, case.num_classes + 1)),
            "present_class_mask": self._mask(case.present_classes),
            "input_class_mask": self._mask(kept),
            "scale": np.float32(np.nan if case.geometry is None else case.geometry.scale),
            "case_id": case.case_id,
        }
        if self.with_class_sdf:
            each = np.concatenate([case.class_sdf["vol"][vol], case.class_sdf["near"][near]])
            sample["points_class_sdf"] = self._padded(each)
            sample["surface_class_sdf"] = self._padded(case.class_sdf["surface"][shown])
        return cast(HeartSample, sample)

    def _kept(self, case: HeartCase, rng: np.random.Generator) -> tuple[int, ...]:
        """Return the classes of this sample's input; a heart with none of them shows all."""
        present, draws = case.present_classes, self.draws
        if self.fixed:
            if draws.input_classes is None:
                return present
            chosen = subset(draws.input_classes, case.num_classes)
            return tuple(c for c in present if c in chosen) or present
        if rng.random() >= draws.partial_prob or len(present) < 2:
            return present
        return draw_kept(
            rng,
            present,
            min_remove=draws.min_remove,
            max_remove=draws.max_remove,
            subsets=[subset(s, case.num_classes) for s in draws.subsets],
        )

    def _surface(
        self, case: HeartCase, chosen: Ints, motion: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        out = np.zeros((len(chosen), 3 + self.draws.channels), np.float32)
        out[:, :3] = case.surface_points[chosen] @ motion.T
        out[np.arange(len(chosen)), 2 + case.surface_labels[chosen].astype(int)] = 1
        return out

    def _mask(self, classes: Sequence[int]) -> npt.NDArray[np.float32]:
        mask = np.zeros(self.draws.channels, np.float32)
        mask[np.array(classes, int) - 1] = 1
        return mask

    def _padded(self, table: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        missing = self.draws.channels - table.shape[1]
        return np.pad(table, ((0, 0), (0, missing)), constant_values=ABSENT_SDF)


def _queries(case: HeartCase, count: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Return indices of `count` inside then `count` outside volume points, and of near points."""
    inside = case.vol_sdf < 0
    every = np.arange(len(inside))
    pools = [np.flatnonzero(inside), np.flatnonzero(~inside)]
    vol = [_pick(pool if len(pool) else every, count, rng) for pool in pools]
    near = _pick(np.arange(len(case.near_points)), count, rng)
    return np.concatenate(vol), near


def _pick(pool: Ints, count: int, rng: np.random.Generator) -> Ints:
    """Return `count` of the pool, each at most once if there are enough."""
    if len(pool) < count:
        return pool[rng.integers(len(pool), size=count)]
    return rng.choice(pool, size=count, replace=False, shuffle=True)
