"""Independent slow reference of the score: boundary matrices reduced column by column.

Nothing is shared with the package: Python sets, scipy and the definitions.
"""

import itertools

import numpy as np
from scipy import ndimage

FACTORS = (0.34, 0.33, 0.33)


def cells(shape, dim):
    """Return the vertex sets of all cells of one dimension as (position, type, vertices)."""
    found = []
    for axes in itertools.combinations(range(3), dim):
        kind = {0: 0, 1: axes[0] if axes else 0, 2: 3 - sum(axes), 3: 0}[dim]
        sizes = [shape[a] - (a in axes) for a in range(3)]
        for position in itertools.product(*(range(s) for s in sizes)):
            corners = [
                tuple(np.add(position, [int(a in subset) for a in range(3)]))
                for size in range(dim + 1)
                for subset in itertools.combinations(axes, size)
            ]
            found.append((position, kind, frozenset(corners)))
    return found


def ordered(found, values):
    """Return [(value, vertices)] sorted by (value, position, type)."""
    keyed = sorted((max(values[v] for v in c), p, k, c) for p, k, c in found)
    return [(value, c) for value, _, _, c in keyed]


def reduce_pairs(columns, rows):
    """Return {column cell: (row cell, row value)} of the reduced boundary matrix."""
    place = {c: i for i, (_, c) in enumerate(rows)}
    owner, pairs = {}, {}
    for _, cell in columns:
        column = {i for c, i in ((c, place[c]) for c in facets(cell, place))}
        while column and max(column) in owner:
            column ^= owner[max(column)]
        if column:
            owner[max(column)] = column
            pairs[cell] = rows[max(column)]
    return pairs


def facets(cell, place):
    """Return the cells of one dimension less on the boundary of `cell`."""
    result = set()
    corners = np.array(sorted(cell))
    for axis in range(3):
        values = np.unique(corners[:, axis])
        if len(values) == 2:
            for value in values:
                side = corners[corners[:, axis] == value]
                result.add(frozenset(tuple(int(i) for i in c) for c in side))
    assert all(c in place for c in result)
    return result


def finite(pairs, values):
    """Return {destroyer: creator} of the bars [0, 1)."""
    return {d: c for d, (v, c) in pairs.items() if v == 0 and max(values[i] for i in d) == 1}


def match_dim(prediction, label, dim):
    """Return (matched, prediction, label) for k = 0 or 1 by image persistence."""
    shape = prediction.shape
    low = [(tuple(p), k, frozenset(tuple(map(int, v)) for v in c)) for p, k, c in cells(shape, dim)]
    high = [
        (tuple(p), k, frozenset(tuple(map(int, v)) for v in c)) for p, k, c in cells(shape, dim + 1)
    ]
    masks = [1 - prediction.astype(int), 1 - label.astype(int)]
    union = np.minimum(*masks)
    own = [finite(reduce_pairs(ordered(high, m), ordered(low, m)), m) for m in masks]
    merged = finite(reduce_pairs(ordered(high, union), ordered(low, union)), union)
    matched = 0
    image = [reduce_pairs(ordered(high, union), ordered(low, m)) for m in masks]
    for face in merged:
        matched += all(
            face in image[i] and image[i][face][1] in set(own[i].values()) for i in range(2)
        )
    return matched, len(own[0]), len(own[1])


def dual_run(edge_order, values, seniority):
    """Union-find of 3-cells over faces in reverse; yield (face, own dying cell, other's)."""
    parent = {}

    def find(a):
        while parent.get(a, a) != a:
            a = parent[a]
        return a

    roots = {}
    for face, sides in edge_order:
        a, b = (find(s) for s in sides)
        if a == b:
            continue
        dying = []
        keep = []
        for rank in seniority:
            ra, rb = roots.get((rank, a), a), roots.get((rank, b), b)
            old, young = (ra, rb) if values[rank][ra] > values[rank][rb] else (rb, ra)
            dying.append(young)
            keep.append(old)
        parent[b] = a
        for rank, old in zip(seniority, keep, strict=True):
            roots[(rank, a)] = old
        yield face, dying


def match_cavities(prediction, label):
    """Return (matched, prediction, label) for k = 2 on the dual graph."""
    shape = prediction.shape
    cubes = [(tuple(p), frozenset(tuple(map(int, v)) for v in c)) for p, _, c in cells(shape, 3)]
    faces = [(tuple(p), k, frozenset(tuple(map(int, v)) for v in c)) for p, k, c in cells(shape, 2)]
    masks = {"p": 1 - prediction.astype(int), "g": 1 - label.astype(int)}
    masks["c"] = np.minimum(masks["p"], masks["g"])
    value = {
        name: {p: (max(m[v] for v in c), p) for p, c in cubes} | {"out": (9, (0, 0, 0))}
        for name, m in masks.items()
    }
    sides = {}
    known = {p for p, _ in cubes}
    for position, kind, corners in faces:
        step = tuple(int(a == kind) for a in range(3))
        both = [position, tuple(np.subtract(position, step).tolist())]
        sides[corners] = [s if s in known else "out" for s in both]
    named = {}
    for name, m in masks.items():
        run = [(c, sides[c]) for _, c in reversed(ordered(faces, m))]
        named[name] = {
            dying[1]
            for face, dying in dual_run(run, value, (name, "c"))
            if value[name][dying[0]][0] == 1 and max(m[v] for v in face) == 0
        }
        if name != "c":
            named[name + "#"] = sum(
                value[name][dying[0]][0] == 1 and max(m[v] for v in face) == 0
                for face, dying in dual_run(run, value, (name, "c"))
            )
    return len(named["c"] & named["p"] & named["g"]), named["p#"], named["g#"]


def match_block(prediction, label):
    """Return {k: (matched, prediction, label)} of one block."""
    return {
        0: match_dim(prediction, label, 0),
        1: match_dim(prediction, label, 1),
        2: match_cavities(prediction, label),
    }


def voi(prediction, label):
    """Return (split, merge) in bits over the union, by loops over labels."""
    box = np.ones((3, 3, 3))
    p = ndimage.label(prediction, box)[0]
    g = ndimage.label(label, box)[0]
    union = prediction | label
    p, g = p[union], g[union]
    split = merge = 0.0
    for i in np.unique(p):
        for j in np.unique(g):
            joint = np.mean((p == i) & (g == j)) if p.size else 0
            if joint:
                split -= joint * np.log2(joint / np.mean(p == i))
                merge -= joint * np.log2(joint / np.mean(g == j))
    return split, merge


def border_codes(mask):
    """Return the (z + 1, y + 1, x + 1) neighbour codes of the zero-padded mask."""
    padded = np.pad(mask, 1).astype(int)
    code = np.zeros(np.array(mask.shape) + 1, int)
    for bit, (dz, dy, dx) in enumerate(itertools.product((1, 0), repeat=3)):
        part = padded[dz:, dy:, dx:][: code.shape[0], : code.shape[1], : code.shape[2]]
        code |= part << bit
    return code


def surface_dice(prediction, label, area, spacing=(1, 1, 1), tolerance=2.0):
    """Return the surface Dice by scipy's exact distance transform, given the area table."""
    codes = [border_codes(prediction), border_codes(label)]
    if not prediction.any() or not label.any():
        return float(prediction.any() == label.any())
    borders = [(c != 0) & (c != 255) for c in codes]
    reach = [ndimage.distance_transform_edt(~b, sampling=spacing) for b in borders]
    within = [area[codes[i][borders[i] & (reach[1 - i] <= tolerance)]].sum() for i in range(2)]
    return sum(within) / sum(area[codes[i][borders[i]]].sum() for i in range(2))
