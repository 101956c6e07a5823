"""Seconds a heart's label map takes to become a case, against signed distances to its meshes.

    python benchmarks/heart_prepare.py                # 256^3 phantom; trimesh on a sample of points
    python benchmarks/heart_prepare.py --size 128 --points 400

Both get the same meshes and points. `trimesh.proximity.signed_distance` (needs rtree) is measured
on `--points` points of each class and its time scaled to all of them: in full it takes an hour.
"""

import argparse
import resource
import time

import numpy as np
import trimesh

from vesuvius.data.heart.field import box_around, crop_padded
from vesuvius.data.heart.labels import LabelMap
from vesuvius.data.heart.mesh import class_mesh
from vesuvius.data.heart.phantom import HeartPhantomSettings, make_heart
from vesuvius.data.heart.sampler import SamplerOptions, sample_case
from vesuvius.types import HEART_CLASSES


def phantom(size: int, seed: int) -> LabelMap:
    spacing = 120 / size
    shape = (size, size, size)
    start = time.perf_counter(), time.process_time()
    labels = make_heart(seed, HeartPhantomSettings(shape=shape, spacing=(spacing,) * 3))
    share = (labels == 9).mean()
    print(
        f"phantom {size}^3: {time.perf_counter() - start[0]:.2f} s wall, "
        f"{time.process_time() - start[1]:.2f} s CPU, coronary {share:.3%} of the volume"
    )
    return LabelMap(labels, np.full(3, spacing), np.diag([spacing] * 3 + [1.0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--points", type=int, default=300, help="of each class, for trimesh")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    label_map = phantom(args.size, args.seed)
    options = SamplerOptions(sdf_mode="per_class")
    wall, cpu = [], []
    for _ in range(args.repeats):
        start = time.perf_counter(), time.process_time()
        case = sample_case(label_map, options, case_id="bench")
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    total = len(case.surface_points) + len(case.vol_points) + len(case.near_points)
    print(
        f"voxel distances: {min(wall):.1f} s wall, {min(cpu):.1f} s CPU for {total} points x "
        f"{len(case.present_classes)} classes; peak memory "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB"
    )
    compare(label_map, case, args.points, np.random.default_rng(args.seed), min(cpu), total)


def compare(label_map, case, count, rng, seconds, total) -> None:
    geometry = case.geometry
    voxel = float(label_map.spacing[0])
    spent, errors = 0.0, []
    print(f"\n{'class':<14}{'CPU s / 1000':>16}{'mean':>8}{'p95':>8}{'max |diff|':>12}  voxels")
    for number in case.present_classes:
        mask = label_map.labels == number
        box = box_around(mask, 1)
        local = crop_padded(mask.view(np.uint8), box).view(bool)
        mesh = class_mesh(
            local, label_map.spacing, [s.start for s in box], HEART_CLASSES[number - 1]
        )
        half = count // 2
        chosen = {"vol": rng.choice(len(case.vol_points), half, replace=False)}
        own = np.flatnonzero(case.surface_labels == number)
        chosen["near"] = rng.choice(own, count - half, replace=False)
        points = np.concatenate([getattr(case, f"{p}_points")[i] for p, i in chosen.items()])
        ours = np.concatenate([case.class_sdf[p][i, number - 1] for p, i in chosen.items()])
        mm = points.astype(np.float64) / geometry.scale + geometry.shift
        start = time.process_time()
        theirs = -trimesh.proximity.signed_distance(mesh, mm)  # positive inside
        elapsed = time.process_time() - start
        spent += elapsed / count
        error = np.abs(ours / geometry.scale - theirs) / voxel
        errors.append(error)
        print(
            f"{HEART_CLASSES[number - 1]:<14}{1000 * elapsed / count:>16.2f}{error.mean():>8.3f}"
            f"{np.percentile(error, 95):>8.3f}{error.max():>12.3f}"
        )
    everything = np.concatenate(errors)
    print(
        f"all: mean {everything.mean():.3f}, p95 {np.percentile(everything, 95):.3f}, "
        f"max {everything.max():.3f} voxel; within half a voxel {(everything <= 0.5).mean():.2%}"
    )
    full = spent * total
    print(
        f"trimesh, scaled to all points and classes: {full:.0f} CPU s, {full / seconds:.0f} x ours"
    )


if __name__ == "__main__":
    main()
