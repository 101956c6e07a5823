"""The harmonic field against a direct solve written independently, hand numbers, edge cases."""

import logging
import sys
import types

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.sparse.linalg import spsolve

from vesuvius.errors import SolverError
from vesuvius.postprocess import HarmonicPostprocess, harmonic_field, harmonic_mask
from vesuvius.postprocess.harmonic import solve_harmonic
from vesuvius.postprocess.harmonic_solve import conjugate_gradients, solve_system


def direct(probability, normals, threshold=0.5, rim=2, axial=False):
    """Loops and a dense-minded direct solve: nodes, edges, seeds, components, all spelled out."""
    shape = probability.shape
    nodes = [tuple(v) for v in np.argwhere(probability > threshold)]
    number = {voxel: i for i, voxel in enumerate(nodes)}
    laplacian = sparse.lil_matrix((len(nodes), len(nodes)))
    links = sparse.lil_matrix((len(nodes), len(nodes)))
    for voxel, i in number.items():
        for step in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
            j = number.get(tuple(np.add(voxel, step)))
            if j is None:
                continue
            a, b = (normals[(slice(None), *nodes[k])].astype(float) for k in (i, j))
            weight = abs(a @ b) if axial else max(a @ b, 0)
            if weight > 0:
                laplacian[i, j] = laplacian[j, i] = -weight
                laplacian[i, i] += weight
                laplacian[j, j] += weight
                links[i, j] = 1
    is_rim = [any(c < rim or c >= n - rim for c, n in zip(v, shape, strict=True)) for v in nodes]
    centre = np.array(shape) // 2
    inner = [i for i in range(len(nodes)) if not is_rim[i]]
    field = np.zeros(shape)
    if not inner:
        return field
    start = min(inner, key=lambda i: (((np.array(nodes[i]) - centre) ** 2).sum(), i))
    value = {i: 0.0 for i in range(len(nodes)) if is_rim[i]} | {start: 1.0}
    _, component = sparse.csgraph.connected_components(links, directed=False)
    seeded = {component[i] for i in value}
    free = [i for i in range(len(nodes)) if i not in value and component[i] in seeded]
    known = sorted(value)
    if free:
        matrix = laplacian.tocsr()
        rhs = -matrix[free][:, known] @ np.array([value[i] for i in known])
        for i, u in zip(
            free, np.atleast_1d(spsolve(matrix[free][:, free].tocsc(), rhs)), strict=True
        ):
            field[nodes[i]] = u
    for i, u in value.items():
        field[nodes[i]] = u
    return field


def block(shape=(7, 7, 7), normal=(1, 0, 0)):
    normals = np.zeros((3, *shape), np.float32)
    normals[:] = np.reshape(normal, (3, 1, 1, 1))
    return np.ones(shape, np.float32), normals


def test_path_of_five_by_hand():
    """A row of 9 voxels, rim 2: seeds 0 at both ends, 1 in the middle, halves between."""
    probability, normals = block((5, 5, 9))
    probability[:] = 0
    probability[2, 2, :] = 1
    field = harmonic_field(probability, normals)
    np.testing.assert_allclose(field[2, 2], [0, 0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3, 0, 0], atol=1e-6)
    assert field.dtype == np.float32
    assert field.sum() == pytest.approx(3, abs=1e-5)


def test_weights_by_hand():
    """Edge weights are conductances in series: u falls most over the weakest edge."""
    probability, normals = block((5, 5, 8))
    probability[:] = 0
    probability[2, 2, 4:] = 1  # centre seed at 4, rim seed at 6
    normals[0, 2, 2] = [1, 1, 1, 1, 1, 0.5, 0.5, 1]
    field = harmonic_field(probability, normals, rim=2)
    # 4 -> 5 weight 1/2, 5 -> 6 weight 1/4: resistances 2 and 4, u(5) = 4/6
    np.testing.assert_allclose(field[2, 2, 4:], [1, 4 / 6, 0, 0], atol=1e-6)


def test_opposed_normals_cut_and_axial_ones_do_not():
    probability, normals = block((5, 5, 9))
    probability[:] = 0
    probability[2, 2, :] = 1
    normals[0, 2, 2, 5:] = -1
    signed = solve_harmonic(probability, normals)
    np.testing.assert_allclose(signed.field[2, 2], [0, 0, 1 / 3, 2 / 3, 1, 0, 0, 0, 0], atol=1e-6)
    axial = solve_harmonic(probability, normals, axial_normals=True)
    assert axial.field[2, 2, 5] == pytest.approx(2 / 3, abs=1e-6)


def random_case(seed, shape, share, flat):
    rng = np.random.default_rng(seed)
    probability = (rng.random(shape) * 0.5).astype(np.float32)
    probability[rng.random(shape) < share] += 0.5
    normals = rng.standard_normal((3, *shape)).astype(np.float32)
    normals[0] += flat
    normals[:, rng.random(shape) < 0.05] = 0
    return probability, normals


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    share=st.floats(0.2, 1),
    flat=st.floats(0, 5),
    rim=st.integers(1, 3),
    axial=st.booleans(),
)
def test_equals_direct_solve(seed, shape, share, flat, rim, axial):
    probability, normals = random_case(seed, shape, share, flat)
    nodes = probability > 0.5
    assume(not nodes.any() or normals[:, nodes].any())  # without a normal there is no graph
    expected = direct(probability, normals, rim=rim, axial=axial)
    solution = solve_harmonic(probability, normals, rim=rim, axial_normals=axial)
    if not solution.fallback:
        np.testing.assert_allclose(solution.field, expected, atol=1e-5)


@pytest.mark.parametrize("flat", [0.5, 2.0, 10.0])
def test_multigrid_equals_direct_solve(flat):
    probability, normals = random_case(3, (20, 22, 21), 0.9, flat)
    solution = solve_harmonic(probability, normals, device="cpu")
    assert solution.report["solver"] == "amg-cg"
    assert solution.report["converged"]
    np.testing.assert_allclose(solution.field, direct(probability, normals), atol=1e-4)


def test_part_on_a_weak_edge_is_right():
    """A block that hangs on one edge of weight 1e-8 has u = 1; a residual alone would miss it."""
    probability, normals = block((16, 16, 40), (1, 0, 0))
    probability[:, :, 27] = 0
    probability[8, 8, 27] = 1
    normals[0, 8, 8, 27] = 1e-8
    probability[:2], probability[-2:], probability[:, :2], probability[:, -2:] = 0, 0, 0, 0
    probability[:, :, -2:] = 0  # beyond the bridge there is no rim seed
    expected = direct(probability, normals)
    assert expected[8, 8, 30] > 0.01
    got = harmonic_field(probability, normals)
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_components_without_a_seed_are_zero_and_counted():
    probability, normals = block((11, 11, 11))
    probability[:] = 0
    probability[5, 5, :] = 1  # seeded
    probability[3, 3, 3:6] = 1  # no seed: 3 nodes
    probability[7, 7, 7] = 1  # no seed: 1 node
    probability[0, 0, 0] = 1  # a rim seed alone
    solution = solve_harmonic(probability, normals)
    assert solution.report["components"] == 4
    assert solution.report["components_without_seed"] == 2
    assert solution.report["nodes_without_seed"] == 4
    assert solution.report["nodes"] == 16
    assert not solution.field[3, 3].any()
    assert solution.field[5, 5, 5] == 1


def test_solid_block():
    """All voxels nodes: the centre of symmetry is the seed, and the field is symmetric about it."""
    probability, normals = block((15, 15, 15))
    field = harmonic_field(probability, normals)
    np.testing.assert_allclose(field, direct(probability, normals), atol=1e-4)
    np.testing.assert_allclose(field, field[::-1], atol=1e-5)
    assert field[7, 7, 7] == 1
    assert not field[:2].any()


def test_mask_with_each_porosity():
    probability, normals = block((5, 5, 9))
    probability[:] = 0.1
    probability[2, 2, :] = 1
    probability[0, 0, 0] = 0.45

    def mask_of(**how):
        return harmonic_mask(probability, normals, **how)

    assert mask_of().sum() == 10
    assert mask_of().dtype == np.uint8
    assert mask_of(porosity="none")[2, 2].tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0]
    assert mask_of(porosity="none", winding_threshold=0.3).sum() == 5
    assert mask_of(porosity="intersection").sum() == 3
    assert mask_of(porosity="intersection", porosity_threshold=1.0).sum() == 0
    np.testing.assert_array_equal(mask_of(), probability > np.float32(0.4))  # the spec's finding


def test_closing_bridges_a_gap():
    probability, normals = block((7, 7, 11))
    probability[:] = 0
    probability[3, 3, :] = 1
    probability[3, 3, 7] = 0  # the gap
    without = HarmonicPostprocess(porosity="none")(probability, normals)
    bridged = HarmonicPostprocess(porosity="none", closing=1)(probability, normals)
    assert without.mask[3, 3].tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]
    # seeds at columns 1, 5 and 9: u(7) = 1/2 on the bridge, which the closing adds
    assert bridged.mask[3, 3].tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0]
    assert bridged.report["components"] == 1 < without.report["components"]


def test_nothing_above_the_threshold(caplog):
    probability, normals = block()
    result = HarmonicPostprocess()(0.45 * probability, normals)
    assert result.mask.sum() == 0
    assert result.mask.shape == probability.shape
    assert result.report["fallback"] == "no voxel above the threshold"
    assert "no voxel above the threshold" in caplog.text


@pytest.mark.parametrize(("where", "rim", "seed"), [(3, 2, "rim"), (0, 2, "centre"), (3, 0, "rim")])
def test_no_seed_falls_back_to_the_threshold(where, rim, seed, caplog):
    probability, normals = block()
    probability[:] = 0.45  # above porosity, below threshold
    probability[where, 3, 3] = 0.9
    result = HarmonicPostprocess(rim=rim)(probability, normals)
    assert np.argwhere(result.mask).tolist() == [[where, 3, 3]]
    assert result.report["fallback"] == f"no {seed} seed"
    assert f"no {seed} seed" in caplog.text


def test_int8_normals_count_as_unit():
    probability, normals = random_case(1, (8, 8, 8), 0.7, 3.0)
    coded = np.round(127 * normals / np.linalg.norm(normals, axis=0).clip(1e-6)).astype(np.int8)
    np.testing.assert_allclose(
        harmonic_field(probability, coded),
        harmonic_field(probability, coded.astype(np.float32) / 127),
        atol=1e-6,
    )


def test_not_converged_is_reported(caplog):
    probability, normals = random_case(3, (20, 22, 21), 0.9, 2.0)
    solution = solve_harmonic(probability, normals, maxiter=1, tol=1e-10, device="cpu")
    assert solution.report["converged"] is False
    assert solution.report["iterations"] == 1
    assert 1e-10 < solution.report["residual"] < 1
    assert "not converged after 1 iterations, relative residual" in caplog.text


def with_value(array, value):
    changed = array.copy()
    changed.reshape(-1)[5] = value
    return changed


P, N = block((6, 6, 6))


@pytest.mark.parametrize(
    ("text", "probability", "normals"),
    [
        ("holds NaN in 1 of 216 voxels", with_value(P, np.nan), N),
        ("must lie in \\[0, 1\\], got 1 to 2", with_value(P, 2), N),
        ("must lie in \\[0, 1\\], got -1 to 1", with_value(P, -1), N),
        ("got 1 to 255; divide stored uint8", with_value(P.astype(np.uint8), 255), N),
        ("non-empty volume \\(z, y, x\\), got shape \\(6, 6\\)", P[0], N),
        ("non-empty volume", P[:0], N[:, :0]),
        ("dtype complex64", P.astype(np.complex64), N),
        ("shape \\(3, 5, 6, 6\\), expected \\(3, 6, 6, 6\\)", P, N[:, 1:]),
        ("shape \\(6, 6, 6\\), expected \\(3, 6, 6, 6\\)", P, N[0]),
        ("normals hold NaN or infinity in 1 of 648", P, with_value(N, np.inf)),
        ("normals are zero at all 216 voxels", P, 0 * N),
        ("normals are missing", P, None),
    ],
)
def test_bad_volumes(text, probability, normals):
    with pytest.raises(SolverError, match=text):
        HarmonicPostprocess()(probability, normals)


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("threshold must lie in \\[0, 1\\], got 128", {"threshold": 128}),
        ("winding_threshold must lie", {"winding_threshold": -1}),
        ("porosity_threshold must lie", {"porosity_threshold": 2}),
        ("porosity must be 'union', 'intersection' or 'none', got 'both'", {"porosity": "both"}),
        ("got rim=-1", {"rim": -1}),
        ("tol=0", {"tol": 0}),
        ("maxiter=0", {"maxiter": 0}),
    ],
)
def test_bad_arguments(text, arguments):
    with pytest.raises(SolverError, match=text):
        HarmonicPostprocess(**arguments)


def grid_laplacian(n):
    line = sparse.diags([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], [-1, 0, 1])
    return sparse.csr_matrix(sparse.kronsum(line, line))


def test_conjugate_gradients_against_spsolve():
    matrix, rhs = grid_laplacian(20), np.random.default_rng(0).random(400)
    inverse = 1 / matrix.diagonal()
    values, steps, done = conjugate_gradients(
        matrix, rhs, lambda r: inverse * r, tol=1e-10, maxiter=500
    )
    assert done
    assert 10 < steps < 100
    np.testing.assert_allclose(values, spsolve(matrix.tocsc(), rhs), rtol=1e-7)


def test_weak_edges_do_not_end_the_solve_early():
    """Weights over ten decades: by the residual alone the solve stops at once, 0.3 off."""
    rng = np.random.default_rng(1)
    number = np.arange(16**3).reshape(16, 16, 16)
    steps = [(number[1:], number[:-1]), (number[:, 1:], number[:, :-1])]
    steps.append((number[:, :, 1:], number[:, :, :-1]))
    i = np.concatenate([a.ravel() for a, _ in steps])
    j = np.concatenate([b.ravel() for _, b in steps])
    weight = 10 ** rng.uniform(-10, 0, len(i)) * (rng.random(len(i)) < 0.45)
    links = sparse.csr_matrix((weight, (i, j)), shape=(16**3, 16**3))
    links.eliminate_zeros()
    _, component = sparse.csgraph.connected_components(links, directed=False)
    links = links + links.T
    laplacian = (sparse.diags(np.asarray(links.sum(1)).ravel()) - links).tocsr()
    inside = np.flatnonzero(component == np.bincount(component).argmax())
    seed = inside[len(inside) // 2]
    free = np.setdiff1d(inside[inside >= 256], [seed])  # the first plane is the rim
    matrix = laplacian[free][:, free].tocsr()
    rhs = -laplacian[free][:, [seed]].toarray().ravel()
    solution = solve_system(matrix, rhs, tol=1e-6, maxiter=5000, device="cpu")
    assert solution.converged
    assert solution.iterations > 10
    np.testing.assert_allclose(solution.values, spsolve(matrix.tocsc(), rhs), atol=1e-4)


def test_missing_cupy_is_said(caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    matrix, rhs = grid_laplacian(30), np.ones(900)
    with caplog.at_level(logging.INFO):
        solution = solve_system(matrix, rhs, tol=1e-8, maxiter=100, device="cuda")
    assert "CuPy is not installed, solving on the CPU" in caplog.text
    assert caplog.records[0].levelname == "WARNING"
    assert solution.method == "amg-cg"
    np.testing.assert_allclose(solution.values, spsolve(matrix.tocsc(), rhs), rtol=1e-6)


def fake_cupy(monkeypatch, devices):
    """NumPy under CuPy's names: runs the GPU branch's own logic without a GPU."""
    runtime = types.SimpleNamespace(getDeviceCount=lambda: devices)
    cupy = types.ModuleType("cupy")
    cupy.cuda = types.SimpleNamespace(runtime=runtime)
    cupy.asarray, cupy.asnumpy = np.asarray, np.asarray
    cupyx, scipy_module = types.ModuleType("cupyx"), types.ModuleType("cupyx.scipy")
    scipy_module.sparse = sparse
    for name, module in (("cupy", cupy), ("cupyx", cupyx), ("cupyx.scipy", scipy_module)):
        monkeypatch.setitem(sys.modules, name, module)


def test_gpu_branch_and_its_fallbacks(caplog, monkeypatch):
    matrix, rhs = grid_laplacian(30), np.ones(900)
    expected = spsolve(matrix.tocsc(), rhs)
    fake_cupy(monkeypatch, devices=1)
    on_gpu = solve_system(matrix, rhs, tol=1e-9, maxiter=500, device="auto")
    assert on_gpu.method == "jacobi-cg-cuda"
    np.testing.assert_allclose(on_gpu.values, expected, rtol=1e-6)
    late = solve_system(matrix, rhs, tol=1e-9, maxiter=20, device="cuda")
    assert late.method == "amg-cg"  # 20 Jacobi steps are too few, 20 multigrid steps are not
    assert late.converged
    assert "CuPy did not converge in 20 iterations" in caplog.text
    fake_cupy(monkeypatch, devices=0)
    assert solve_system(matrix, rhs, tol=1e-9, maxiter=50, device="cuda").method == "amg-cg"
    assert "no CUDA device" in caplog.text
    with pytest.raises(SolverError, match="device must be 'auto', 'cpu' or 'cuda', got 'gpu'"):
        solve_system(matrix, rhs, tol=1e-9, maxiter=50, device="gpu")
