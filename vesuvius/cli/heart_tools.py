"""What the actions of `vesuvius heart` print; imported when one runs."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from vesuvius.data.heart import inventory
from vesuvius.data.heart.dense import geometry_of, true_labels
from vesuvius.data.heart.format import HeartCase, load_case
from vesuvius.data.heart.index import list_cases, read_index, split_cases, write_index
from vesuvius.data.heart.labels import find_label_maps
from vesuvius.data.heart.phantom import HeartPhantomSettings
from vesuvius.data.heart.phantom_files import write_heart_phantoms
from vesuvius.data.heart.prepare import prepare_hearts
from vesuvius.data.heart.quality import CRITICAL, Quality, check_quality, contradictions
from vesuvius.data.heart.sampler import SamplerOptions
from vesuvius.errors import ConfigError, VesuviusError
from vesuvius.types import HEART_CLASSES

_STDERR = Console(stderr=True)


def phantom(args: argparse.Namespace) -> int:
    """Write label maps; return 0."""
    x, y, z = _three(args.size, "--size")
    spacing = args.spacing or [120 / n for n in (x, y, z)]
    a, b, c = _three(spacing, "--spacing")
    settings = HeartPhantomSettings(
        shape=(int(x), int(y), int(z)),
        spacing=(float(a), float(b), float(c)),
        missing=tuple(args.missing),
        touch_border=args.border,
        wall_mm=args.wall_mm,
    )
    made = write_heart_phantoms(args.out, count=args.count, seed=args.seed, settings=settings)
    steps = track(made, total=args.count, description="hearts", console=_STDERR, transient=True)
    written = sum(new for _, new in steps)
    print(f"{args.out}: {written} hearts written, {args.count - written} were there")
    return 0


def prepare(args: argparse.Namespace) -> int:
    """Prepare label maps; return 0, or 1 if one or more failed."""
    options = SamplerOptions(
        num_surface_points=args.num_surface_points,
        num_vol_points=args.num_vol_points,
        min_surface_per_class=args.min_surface_per_class,
        vol_per_class=args.vol_per_class,
        near_std=args.near_std,
        sdf_mode=args.sdf_mode,
        class_names=class_names(args.classes, args.class_names),
        min_class_voxels=args.min_class_voxels,
        block=args.batch_size,
        seed=args.seed,
    )
    sources = find_label_maps(args.input_dir, args.pattern)[args.start_idx : args.end_idx]
    if not sources:
        raise ConfigError(
            f"--start-idx {args.start_idx}, --end-idx {args.end_idx} leave no label map"
        )
    outcomes = prepare_hearts(
        sources,
        args.output_dir,
        options,
        file_workers=args.file_workers,
        threads=args.workers,
        overwrite=args.overwrite,
    )
    counts: Counter[str] = Counter()
    for outcome in track(
        outcomes, total=len(sources), description="preparing", console=_STDERR, transient=True
    ):
        counts[outcome.status] += 1
        if outcome.status == "failed":
            print(f"error: {outcome.source.name}: {outcome.error}", file=sys.stderr)
        if outcome.missing:
            print(f"{outcome.source.name}: has no {', '.join(outcome.missing)}", file=sys.stderr)
    print(
        f"{args.output_dir}: {counts['done']} prepared, {counts['skipped']} already finished, "
        f"{counts['failed']} failed, of {len(sources)}"
    )
    return 1 if counts["failed"] else 0


def check(args: argparse.Namespace) -> int:
    """Print verdicts; return 1 if a case is critical or cannot be read."""
    paths = [args.path] if args.path.is_file() else list_cases(args.path)
    found: list[Quality] = []
    broken = 0
    for path in paths:
        try:
            quality = check_quality(load_case(path))
        except VesuviusError as error:
            broken += 1
            print(f"{CRITICAL:>9}  {error}")
            continue
        found.append(quality)
        if args.verbose or len(paths) == 1:
            _print_quality(quality)
        else:
            _print_verdicts(quality, quiet=True)
    critical = sum(quality.critical for quality in found)
    _print_summary(found)
    print(f"{len(paths)} cases: {critical} critical, {broken} cannot be read")
    return 1 if critical or broken else 0


def inspect(args: argparse.Namespace) -> int:
    """Print one case; return 1 if signs and labels contradict each other."""
    case = load_case(args.file)
    _print_header(case)
    wrong = 0
    for part in ("vol", "near"):
        sdf, labels = getattr(case, f"{part}_sdf"), getattr(case, f"{part}_labels")
        points = getattr(case, f"{part}_points")
        inside = int((sdf < 0).sum())
        kinds = contradictions(sdf, labels)
        wrong += sum(map(len, kinds))
        print(f"{part}: {inside} inside, {len(sdf) - inside} outside")
        for text, which, total in (
            ("inside, but background", kinds[0], inside),
            ("outside, but of a class", kinds[1], len(sdf) - inside),
        ):
            print(f"  {text}: {len(which)} of {total}")
            for i in which[: args.show]:
                where = ", ".join(f"{v:+.3f}" for v in points[i])
                print(f"    point {i} ({where}): sdf {sdf[i]:+.5f}, label {labels[i]}")
    _print_classes(case)
    return 1 if wrong else 0


def missing(args: argparse.Namespace) -> int:
    """Print classes and cases that are missing; return 1 if a case cannot be read."""
    paths = list_cases(args.cases)
    names = _first_names(paths)
    found = inventory.case_inventory(paths, names)
    _print_inventory(found)
    if args.labels is not None:
        rest = inventory.unprepared(find_label_maps(args.labels, args.pattern), args.cases)
        print(f"{len(rest)} label maps have no case in {args.cases}")
        for path in rest:
            print(f"  {path.name}")
        if rest and args.link is not None:
            inventory.link_all(rest, args.link)
        folder = args.labels if args.link is None else args.link
        if rest:
            print(f"prepare them: vesuvius heart prepare {folder} {args.cases}")
    return 1 if found.broken else 0


def classes(args: argparse.Namespace) -> int:
    """Print the classes of label maps; return 1 if one cannot be used."""
    names = class_names(args.classes, args.class_names)
    paths = find_label_maps(args.labels, args.pattern)
    found = inventory.source_inventory(paths, names)
    _print_inventory(found)
    return 1 if found.broken else 0


def csv(args: argparse.Namespace) -> int:
    """Write train.csv and val.csv; return 0."""
    cases = [case for folder in args.folders for case in list_cases(folder)]
    ids = [case.stem for case in cases]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise ConfigError(f"several folders hold a case of the same name: {twice[:5]}")
    split = split_cases(
        cases,
        val_share=1 - args.train_share,
        seed=args.seed,
        patient_pattern=args.patient_pattern,
    )
    by_id = dict(zip(ids, cases, strict=True))
    for side, chosen in split.items():
        path = args.out / f"{side}.csv"
        write_index(path, [by_id[name] for name in chosen], category=args.category)
        print(f"{path}: {len(chosen)} cases")
    return 0


def view(args: argparse.Namespace) -> int:
    """Draw a case's points over its labels; return 0."""
    from vesuvius.pictures.heart_points import draw_heart_points

    path = args.path
    if path.suffix != ".npz":
        paths = read_index(path) if path.suffix == ".csv" else list_cases(path)
        if not 0 <= args.index < len(paths):
            raise ConfigError(f"--index is {args.index}; expected 0 to {len(paths) - 1}")
        path = paths[args.index]
    case = load_case(path)
    if not 8 <= args.resolution <= 2048:
        raise ConfigError(f"--resolution is {args.resolution}; expected 8 to 2048")
    line = (np.arange(args.resolution) + 0.5) * 2 / args.resolution - 1
    first, second = np.meshgrid(line, line, indexing="ij")
    points = np.insert(np.stack([first, second], -1), args.axis, args.position, axis=-1)
    draw_heart_points(
        true_labels(geometry_of(case), points),
        case.surface_points,
        case.vol_points,
        case.vol_sdf < 0,
        args.out,
        axis=args.axis,
        position=args.position,
        class_names=case.class_names,
        title=case.case_id,
    )
    print(args.out)
    return 0


def class_names(count: int | None, names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the class names that --classes and --class-names ask for.

    Raises:
        ConfigError: they contradict each other.
    """
    if names is not None:
        if count is not None and count != len(names):
            raise ConfigError(f"--classes is {count}, but --class-names gives {len(names)}")
        return tuple(names)
    if count is None or count == len(HEART_CLASSES):
        return HEART_CLASSES
    return tuple(f"class_{c}" for c in range(1, count + 1))


def _three(values: Sequence[float], name: str) -> tuple[float, float, float]:
    if len(values) not in (1, 3):
        raise ConfigError(f"{name} has {len(values)} numbers; expected one, or three for x y z")
    x, y, z = list(values) * (3 // len(values))
    return x, y, z


def _first_names(paths: Sequence[Path]) -> tuple[str, ...]:
    for path in paths:
        try:
            return load_case(path).class_names
        except VesuviusError:
            continue
    return HEART_CLASSES


def _print_verdicts(quality: Quality, *, quiet: bool) -> None:
    for level, text in quality.verdicts:
        if not quiet or level == CRITICAL:
            print(f"{level:>9}  {quality.case_id}: {text}")


def _print_quality(quality: Quality) -> None:
    for name, pool in quality.pools.items():
        print(
            f"{quality.case_id} {name}: {pool.count} points, {pool.positive:.1%} outside, sdf mean "
            f"{pool.mean:+.4f}, std {pool.std:.4f}, {pool.low:+.4f} to {pool.high:+.4f}"
        )
    counts = " ".join(f"{c}:{n}" for c, n in quality.class_counts.items())
    print(f"{quality.case_id} vol points by class: {counts}")
    shares = " ".join(f"{c}:{share:.0%}" for c, share in quality.near_inside.items())
    if shares:
        print(f"{quality.case_id} near points inside their class: {shares}")
    _print_verdicts(quality, quiet=False)


def _print_summary(found: Sequence[Quality]) -> None:
    if not found:
        return
    for name in ("vol", "near"):
        positive = [quality.pools[name].positive for quality in found]
        print(f"{name.capitalize()}+ {np.mean(positive):.1%} +- {np.std(positive):.1%} outside")
    consistency = [quality.consistency for quality in found]
    print(f"consistency {np.mean(consistency):.2%}, lowest {min(consistency):.2%}")
    totals: Counter[int] = Counter()
    for quality in found:
        totals.update({sum(n > 0 for n in quality.class_counts.values()): 1})
    print("classes in the volume points: " + ", ".join(f"{n}: {c}" for n, c in totals.items()))


def _print_header(case: HeartCase) -> None:
    print(f"{case.case_id}: {case.num_classes} classes, sdf_mode {case.sdf_mode}")
    if case.geometry is None:
        print("no geometry stored (a file of the original project)")
        return
    spacing = " x ".join(f"{s:.4g}" for s in case.geometry.spacing)
    shape = " x ".join(map(str, case.geometry.grid_shape))
    print(f"label map {shape} of {spacing} mm; radius {1 / case.geometry.scale:.1f} mm")


def _print_classes(case: HeartCase) -> None:
    print(f"{'class':<16}{'surface':>9}{'volume':>9}{'near':>9}")
    for c, name in enumerate(case.class_names, start=1):
        numbers = [
            int((getattr(case, f"{p}_labels") == c).sum()) for p in ("surface", "vol", "near")
        ]
        note = "" if c in case.present_classes else "  absent"
        if numbers[0] and not numbers[1]:
            note = "  surface points, but no volume points"
        print(f"{c:>2} {name:<13}" + "".join(f"{n:>9}" for n in numbers) + note)


def _print_inventory(found: inventory.Inventory) -> None:
    total = max(len(found.present), 1)
    print(f"{len(found.present)} files with {len(found.class_names)} classes at most")
    for c, files in found.missing.items():
        share = len(files) / total
        line = f"{c:>2} {found.class_names[c - 1]:<13} missing in {len(files):>5} ({share:.1%})"
        print(f"{line} {inventory.mark(share)}".rstrip())
    for number, count in found.by_number.items():
        print(f"{number} classes: {count} files")
    for c, count in sorted(found.lone_gaps.items()):
        print(f"only {c} {found.class_names[c - 1]} missing: {count} files")
    for error in found.broken.values():
        print(f"cannot be used: {error}")
