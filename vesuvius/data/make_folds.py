"""Deals volumes or scrolls out to folds that are alike in scrolls and surface density."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vesuvius.data.folds import UNITS, Folds, VolumeFacts
from vesuvius.data.store import PreparedVolume
from vesuvius.errors import ConfigError
from vesuvius.types import IGNORE, SURFACE

BOX = 64
"""Edge of the central box whose voxels tell whether two volumes are the same."""
Unit = list[VolumeFacts]
"""Volumes that stay on one side."""


def read_facts(paths: Sequence[Path], *, jobs: int = 1) -> Iterator[VolumeFacts]:
    """Yield the facts of prepared volumes, in order."""
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        yield from pool.map(_facts, paths)


def _facts(path: Path) -> VolumeFacts:
    volume = PreparedVolume(path)
    density = 0.0
    if volume.has("label"):
        reader = volume.array("label")
        surface = labelled = 0
        depth, height, width = volume.shape_zyx
        step = max(1, 2**26 // (height * width))
        for z in range(0, depth, step):
            part = reader.read((z, 0, 0), (min(z + step, depth), height, width))
            surface += int(np.count_nonzero(part == SURFACE))
            labelled += int(np.count_nonzero(part != IGNORE))
        density = surface / max(1, labelled)
    low = [max(0, (n - BOX) // 2) for n in volume.shape_zyx]
    high = [min(n, a + BOX) for a, n in zip(low, volume.shape_zyx, strict=True)]
    box = volume.array("image").read((low[0], low[1], low[2]), (high[0], high[1], high[2]))
    digest = hashlib.sha256(repr((volume.shape_zyx, str(box.dtype))).encode() + box.tobytes())
    return VolumeFacts(
        volume_id=volume.volume_id,
        scroll=str(volume.attributes.get("scroll_id") or ""),
        density=density,
        content=digest.hexdigest()[:16],
    )


def make_folds(
    facts: Sequence[VolumeFacts], *, num_folds: int = 5, by: str = "volume", seed: int = 42
) -> Folds:
    """Return folds that are alike in scrolls and surface density.

    By volume: within each scroll, volumes sorted by density are dealt out in rounds, each fold
    getting one a round; a round's densest goes to the fold that is poorest so far. Every scroll's
    volumes spread evenly (counts differ by at most one) and so does the density.
    By scroll: scrolls, largest first, go to the fold with the fewest volumes; as many folds as
    scrolls is leave-one-scroll-out.

    Args:
        facts: of all volumes.
        num_folds: at least 2.
        by: "volume" or "scroll".
        seed: breaks ties.

    Raises:
        ConfigError: too few volumes or scrolls, unknown `by`, volumes without a scroll id.

    Source: own.
    """
    if by not in UNITS:
        raise ConfigError(f"by is {by!r}; expected volume or scroll (--by)")
    if by == "scroll" and any(not f.scroll for f in facts):
        unknown = [f.volume_id for f in facts if not f.scroll]
        raise ConfigError(
            f"--by scroll, but {len(unknown)} volumes have no scroll_id, e.g. {unknown[0]} (it "
            "comes from train.csv at `vesuvius prepare`)"
        )
    units = _units(facts, by)
    if not 2 <= num_folds <= len(units):
        raise ConfigError(
            f"--folds is {num_folds}; expected 2 to {len(units)} (the number of "
            f"{'scrolls' if by == 'scroll' else 'different volumes'})"
        )
    rng = np.random.default_rng(seed)
    dealt = _deal_scrolls(units, num_folds, rng) if by == "scroll" else _deal(units, num_folds, rng)
    fold_of = {f.volume_id: fold for unit, fold in dealt for f in unit}
    return Folds(
        by=by,
        num_folds=num_folds,
        seed=seed,
        fold_of={name: fold_of[name] for name in sorted(fold_of)},
        facts={f.volume_id: f for f in sorted(facts, key=lambda f: f.volume_id)},
    )


def _units(facts: Sequence[VolumeFacts], by: str) -> list[Unit]:
    """Return what stays together: the volumes of a scroll, or those with the same voxels."""
    groups: dict[str, Unit] = defaultdict(list)
    for f in sorted(facts, key=lambda f: f.volume_id):
        groups[f.scroll if by == "scroll" else f.content or f.volume_id].append(f)
    return list(groups.values())


def _deal(
    units: list[Unit], num_folds: int, rng: np.random.Generator
) -> Iterator[tuple[Unit, int]]:
    by_scroll: dict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        by_scroll[unit[0].scroll].append(unit)
    sizes, density = np.zeros(num_folds), np.zeros(num_folds)
    for members in sorted(by_scroll.values(), key=len, reverse=True):
        ranked = sorted(members, key=lambda unit: unit[0].density, reverse=True)
        for first in range(0, len(ranked), num_folds):
            round_ = ranked[first : first + num_folds]
            ties = rng.permutation(num_folds)
            # a last, short round goes to the smallest folds; within a round the poorest come first
            chosen = sorted(range(num_folds), key=lambda k: (sizes[k], ties[k]))[: len(round_)]
            order = sorted(chosen, key=lambda k: (density[k], ties[k]))
            for unit, fold in zip(round_, order, strict=True):
                sizes[fold] += len(unit)
                density[fold] += sum(f.density for f in unit)
                yield unit, fold


def _deal_scrolls(
    units: list[Unit], num_folds: int, rng: np.random.Generator
) -> Iterator[tuple[Unit, int]]:
    sizes, ties = np.zeros(num_folds), rng.permutation(num_folds)
    for unit in sorted(units, key=len, reverse=True):
        fold = min(range(num_folds), key=lambda k: (sizes[k], ties[k]))
        sizes[fold] += len(unit)
        yield unit, fold
