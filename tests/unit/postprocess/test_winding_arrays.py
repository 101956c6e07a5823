"""The whole-array stages (the CUDA path) against the compiled loops.

No GPU is needed: NumPy runs the same lines, once plainly and once behind a double of CuPy that
refuses to mix arrays of host and device, as CuPy does.
"""

from typing import Any

import numpy as np
import pytest

from benchmarks.winding_cases import DEFAULT, Case, make_case
from vesuvius.errors import DeviceError
from vesuvius.postprocess import winding_field
from vesuvius.postprocess.winding import FieldSettings, MaskSettings, device
from vesuvius.postprocess.winding.backend import ArrayBackend, CompiledBackend
from vesuvius.postprocess.winding.field import solve_field
from vesuvius.postprocess.winding.result import sheet_labels


class OnDevice(np.ndarray):
    """An array that only meets its own kind and plain numbers."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", ())
        if out:
            kwargs["out"] = tuple(unwrapped(o) for o in out)
        result = getattr(ufunc, method)(*[unwrapped(i) for i in inputs], **kwargs)
        return out[0] if out else wrapped(result)

    def __array_function__(self, func: Any, *_: Any) -> Any:
        raise TypeError(f"numpy.{func.__name__} on an array of the device")

    def __getitem__(self, index: Any) -> Any:
        return wrapped(np.asarray(self)[unwrapped(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        np.asarray(self)[unwrapped(index)] = unwrapped(value)


def unwrapped(value: Any) -> Any:
    if isinstance(value, OnDevice):
        return value.view(np.ndarray)
    if isinstance(value, np.ndarray):
        raise TypeError("an array of the host among arrays of the device")
    if isinstance(value, list | tuple):
        return type(value)(unwrapped(v) for v in value)
    return value


def wrapped(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.view(OnDevice)
    return tuple(wrapped(v) for v in value) if isinstance(value, tuple) else value


class Double:
    """Stands in for the module cupy."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        if isinstance(found, np.ufunc | type) or not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            kwargs = {key: unwrapped(value) for key, value in kwargs.items()}
            return wrapped(found(*unwrapped(args), **kwargs))

        return call

    def asarray(self, array: Any) -> Any:
        return wrapped(np.array(array))

    def asnumpy(self, array: Any) -> Any:
        return unwrapped(array)


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case(DEFAULT, (48, 57, 50), seed=3)


def test_the_double_refuses_what_cupy_refuses():
    there = Double().asarray(np.ones(3))
    with pytest.raises(TypeError, match="host"):
        there + np.ones(3)
    with pytest.raises(TypeError, match=r"numpy\.concatenate"):
        np.concatenate([there, there])
    with pytest.raises(TypeError, match="host"):
        there[np.array([0])]


@pytest.mark.parametrize("module", [np, Double()], ids=["numpy", "double of cupy"])
def test_arrays_and_loops_give_the_same_field_and_labels(case, module):
    backend = ArrayBackend(module)
    loops = solve_field(case.probability)
    arrays = solve_field(case.probability, backend=backend)
    np.testing.assert_allclose(arrays.field, loops.field, atol=1e-3)
    assert arrays.iterations == loops.iterations
    for settings in (MaskSettings(), MaskSettings(support=0.0, hole_support=0.0, thickness=2.0)):
        expected = sheet_labels(case.probability, loops, settings, threads=1)
        found = sheet_labels(case.probability, arrays, settings, threads=1, backend=backend)
        assert np.count_nonzero(found != expected) < 1e-3 * np.count_nonzero(expected)


def test_profiles_agree_voxel_by_voxel(case, monkeypatch):
    monkeypatch.setattr("vesuvius.postprocess.winding.arrays.CHUNK", 10_000)  # several portions
    axis = solve_field(case.probability).axis
    stages = (ArrayBackend(np), CompiledBackend(1))
    found, expected = (s.slab_profile(case.probability, axis, dip=0.15) for s in stages)
    for mine, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, reference, atol=1e-4)
    found, expected = (s.smooth(case.probability, axis, sigma=1.8) for s in stages)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("stiffness", [1.0, 3.0])
@pytest.mark.parametrize("cells", [(9, 14, 5), (8, 8, 16), (1, 3, 2)])
def test_poisson_solutions_agree(cells, stiffness):
    rng = np.random.default_rng(0)
    normals = rng.standard_normal((3, *cells)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=0)
    rhs = rng.standard_normal(cells).astype(np.float32)
    results = [
        backend.poisson(cells, normals=normals, stiffness=stiffness).solve(
            rhs, tolerance=1e-5, iterations=60
        )
        for backend in (ArrayBackend(np), CompiledBackend(1))
    ]
    assert results[0][2] == results[1][2]
    np.testing.assert_allclose(results[0][0], results[1][0], atol=1e-4)


def test_cuda_without_a_device_is_refused_and_auto_runs_on_the_cpu(case, monkeypatch):
    monkeypatch.setattr(device, "_find_cupy", lambda: (None, "CuPy finds no CUDA device"))
    with pytest.raises(DeviceError, match="'cuda', but CuPy finds no CUDA device; use device"):
        winding_field(case.probability, device="cuda")
    assert device.resolve_device("auto") == "cpu"


def test_auto_takes_the_gpu_where_there_is_one(case, monkeypatch):
    monkeypatch.setattr(device, "_find_cupy", lambda: (Double(), ""))
    assert isinstance(device.make_backend("auto", 1), ArrayBackend)
    assert isinstance(device.make_backend("cpu", 1), CompiledBackend)


@pytest.mark.gpu
def test_cuda_gives_the_field_of_the_cpu():
    cupy = pytest.importorskip("cupy", reason="needs CuPy")
    if not cupy.cuda.is_available():
        pytest.skip("needs a CUDA device")
    probability = make_case(DEFAULT, (96, 96, 96), seed=3).probability
    settings = FieldSettings()
    there = winding_field(probability, device="cuda", settings=settings)
    here = winding_field(probability, device="cpu", settings=settings)
    assert np.quantile(np.abs(there.field - here.field), 0.999) < 1e-3
    assert np.count_nonzero(there.labels != here.labels) < 1e-3 * np.count_nonzero(here.labels)
