"""predict_volume: exact identity, independence of batching and blocks, memory, error text."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from vesuvius.errors import CheckpointError, ConfigError, ShapeMismatchError, VolumeFormatError
from vesuvius.inference import predict_volume


def identity(image):
    """Probability = image; normals (p, -p, 0)."""
    return {"probability": image, "normals": torch.cat([image, -image, 0 * image], 1)}


def context(image):
    """A predictor that depends on its neighbourhood, so that blending shows."""
    return {"probability": F.avg_pool3d(image, 3, 1, 1)}


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 20)] * 3),
    roi=st.tuples(*[st.integers(4, 12)] * 3),
    overlap=st.sampled_from((0, 0.25, 0.5, 0.75)),
    batch=st.integers(1, 7),
    slab=st.sampled_from((1, 20_000, 1 << 30)),
    blend=st.sampled_from(("gaussian", "constant")),
)
def test_identity_is_exact(shape, roi, overlap, batch, slab, blend):
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    prediction = predict_volume(
        identity,
        image,
        roi_zyx=roi,
        overlap=overlap,
        batch_size=batch,
        blend=blend,
        device="cpu",
        max_slab_bytes=slab,
    )
    np.testing.assert_array_equal(prediction.probability, image)
    np.testing.assert_array_equal(
        prediction.normals[0], np.round(np.float32(image) * 127 / 255).astype(np.int8)
    )
    np.testing.assert_array_equal(prediction.normals[1], -prediction.normals[0])
    assert not prediction.normals[2].any()
    assert prediction.report["mask_share"] == pytest.approx((image >= 128).mean())


def test_batches_and_blocks_give_the_same_bits(rng):
    image = rng.integers(0, 65536, (21, 33, 27), dtype=np.uint16)
    common = {"roi_zyx": (8, 10, 12), "overlap": 0.5, "device": "cpu"}
    one = predict_volume(context, image, **common)
    for changes in ({"batch_size": 4}, {"max_slab_bytes": 8 * 4 * 5 * 15 * 15}, {"batch_size": 99}):
        other = predict_volume(context, image, **common, **changes)
        np.testing.assert_array_equal(one.probability, other.probability)
    assert one.report["blocks"] == 1


def test_against_a_direct_implementation(rng):
    """Whole-volume sums with explicit weights, written independently."""
    image = rng.random((9, 14, 11)).astype(np.float32)
    roi = (6, 6, 6)

    def starts(n):
        count = -(-(n - 6) // 3) + 1
        return [round(i * (n - 6) / (count - 1)) for i in range(count)]

    gauss = np.maximum(np.exp(-0.5 * ((np.arange(6) - 2.5) / 0.75) ** 2), 0)
    gauss = np.maximum(gauss / gauss.max(), 1e-3)
    weight = gauss[:, None, None] * gauss[:, None] * gauss
    total, norm = np.zeros(image.shape), np.zeros(image.shape)
    for z in starts(9):
        for y in starts(14):
            for x in starts(11):
                part = (slice(z, z + 6), slice(y, y + 6), slice(x, x + 6))
                window = torch.from_numpy(image[part])[None, None]
                total[part] += weight * context(window)["probability"][0, 0].numpy()
                norm[part] += weight
    expected = 255 * total / norm
    got = predict_volume(context, image, roi_zyx=roi, device="cpu").probability
    assert np.abs(got - expected).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<f4", ">f4", "f8"])
def test_types_are_scaled_alike(dtype):
    image = (np.arange(64).reshape(4, 4, 4) / 63).astype(np.float32)
    typed = image.astype(dtype) if "f" in dtype else np.round(65535 * image).astype(dtype)
    got = predict_volume(identity, typed, roi_zyx=(4, 4, 4), device="cpu").probability
    np.testing.assert_array_equal(got, np.round(255 * image).astype(np.uint8))


def test_small_volume_is_mirrored_not_blackened():
    image = np.full((3, 4, 5), 200, np.uint8)
    seen = []

    def record(window):
        seen.append(window.clone())
        return {"probability": window}

    predict_volume(record, image, roi_zyx=(8, 8, 8), device="cpu")
    assert seen[0].shape == (1, 1, 8, 8, 8)
    torch.testing.assert_close(seen[0], torch.full((1, 1, 8, 8, 8), 200 / 255))


def test_opposite_normals_do_not_cancel(rng):
    """Windows that answer n and -n in turn: as axes they agree, as vectors they cancel."""
    calls = iter(range(1000))

    def flipping(window):
        sign = 1 if next(calls) % 2 else -1
        normals = torch.zeros(1, 3, *window.shape[2:])
        normals[:, 0] = sign
        return {"probability": torch.ones_like(window), "normals": normals}

    image = rng.integers(0, 256, (8, 8, 32), dtype=np.uint8)
    common = {"roi_zyx": (8, 8, 8), "device": "cpu", "blend": "constant"}
    axial = predict_volume(flipping, image, **common)
    assert (np.abs(axial.normals[0]) == 127).all()
    assert axial.report["normal_length_mean"] == pytest.approx(1, abs=1e-6)
    signed = predict_volume(flipping, image, axial_normals=False, **common)
    assert not signed.normals[0, ..., 4:28].any()  # two windows there, +1 and -1


def test_short_normals_are_reported(caplog):
    def short(window):
        return {
            "probability": torch.ones_like(window),
            "normals": torch.full((1, 3, *window.shape[2:]), 0.1),
        }

    result = predict_volume(short, np.zeros((4, 4, 4), np.uint8), roi_zyx=(4, 4, 4), device="cpu")
    assert result.report["normal_length_mean"] == pytest.approx(0.1 * 3**0.5)
    assert result.report["normal_length_std"] == pytest.approx(0, abs=1e-6)
    assert "mean length 0.17 where p > 0.3" in caplog.text


def test_density_and_selected_outputs():
    def dense(window):
        return {**identity(window), "density": torch.full_like(window, 0.125)}

    image = np.zeros((4, 4, 4), np.uint8)
    everything = predict_volume(dense, image, roi_zyx=(4, 4, 4), device="cpu").outputs
    assert set(everything) == {"probability", "normals", "density"}
    assert (everything["density"] == 8192).all()  # 0.125 * 65535 = 8191.9
    kept = {"probability": np.empty((4, 4, 4), np.uint8)}
    assert set(predict_volume(dense, image, roi_zyx=(4, 4, 4), out=kept).outputs) == {"probability"}


def test_streams_from_zarr_to_zarr_in_whole_chunks(tmp_path, rng):
    data = rng.integers(0, 256, (40, 24, 24), dtype=np.uint8)
    source = zarr.create_array(tmp_path / "in.zarr", data=data, chunks=(16, 16, 16))
    out = zarr.create_array(
        tmp_path / "p.zarr", shape=data.shape, chunks=(16, 24, 24), dtype="uint8"
    )
    written = []

    class Spy:
        shape, dtype, chunks = out.shape, out.dtype, out.chunks

        def __setitem__(self, key, value):
            written.append((key[0].start, key[0].stop))
            out[key] = value

    predict_volume(identity, source, roi_zyx=(12, 12, 12), out={"probability": Spy()}, device="cpu")
    np.testing.assert_array_equal(out[:], data)
    assert written == [(0, 16), (16, 32), (32, 40)]


def test_each_plane_is_read_once(rng):
    data = rng.integers(0, 256, (40, 8, 8), dtype=np.uint8)
    reads = []

    class Spy:
        shape, dtype = data.shape, data.dtype

        def __getitem__(self, key):
            reads.append((key[0].start, key[0].stop))
            return data[key]

    predict_volume(identity, Spy(), roi_zyx=(16, 8, 8), device="cpu")
    assert reads == [(0, 16), (16, 24), (24, 32), (32, 40)]


def test_empty_windows_are_skipped_on_request(rng):
    image = np.zeros((8, 8, 64), np.uint8)
    image[..., :8] = rng.integers(1, 256, (8, 8, 8))

    def bright(window):
        return {"probability": torch.ones_like(window)}

    all_windows = predict_volume(bright, image, roi_zyx=(8, 8, 8), device="cpu")
    assert all_windows.report["mask_share"] == 1
    some = predict_volume(bright, image, roi_zyx=(8, 8, 8), device="cpu", skip_empty=True)
    assert some.report["windows_skipped"] == 13  # of 15, those that start at 8 or beyond 8 - 8
    assert (some.probability[..., :4] == 255).all()
    assert not some.probability[..., 12:].any()


def test_progress_counts_every_window(rng):
    image = rng.integers(0, 256, (12, 12, 12), dtype=np.uint8)
    steps = []
    predict_volume(
        identity, image, roi_zyx=(8, 8, 8), batch_size=3, device="cpu", progress=steps.append
    )
    assert [step.done for step in steps] == [3, 4, 7, 8]
    assert {step.total for step in steps} == {8}
    assert steps[-1].eta_s == 0
    assert steps[-1].rss_mb > 10
    assert str(steps[-1]).startswith("window 8/8")


def call(predict=identity, image=None, **changes):
    image = np.zeros((8, 8, 8), np.uint8) if image is None else image
    return predict_volume(predict, image, **{"roi_zyx": (8, 8, 8), "device": "cpu", **changes})


def with_nan(kind=np.float32):
    image = np.zeros((20, 8, 8), kind)
    image[17, 3, 3] = np.nan
    return image


@pytest.mark.parametrize(
    ("error", "text", "arguments"),
    [
        (VolumeFormatError, "non-empty 3-D volume", {"image": np.zeros((8, 8), np.uint8)}),
        (VolumeFormatError, "non-empty 3-D volume", {"image": np.zeros((1, 8, 8, 8), np.uint8)}),
        (
            VolumeFormatError,
            "dtype int32, expected uint8",
            {"image": np.zeros((8, 8, 8), np.int32)},
        ),
        (VolumeFormatError, "NaN between z=1\\d and z=", {"image": with_nan()}),
        (
            VolumeFormatError,
            "in \\[0, 1\\], got values from 0 to 7",
            {"image": np.full((8, 8, 8), 7.0) * np.arange(8) / 7},
        ),
        (ConfigError, "batch_size must be at least 1, got 0", {"batch_size": 0}),
        (
            ConfigError,
            "'probability', got \\['surface_logit'\\]",
            {"predict": lambda t: {"surface_logit": t}},
        ),
        (ConfigError, "does it return logits", {"predict": lambda t: {"probability": t - 2}}),
        (
            CheckpointError,
            "NaN in 'probability', window at \\(z, y, x\\) = \\(0, 0, 0\\)",
            {"predict": lambda t: {"probability": t * float("nan")}},
        ),
        (
            ShapeMismatchError,
            "shape \\(1, 1, 4, 8, 8\\), expected \\(1, 1, 8, 8, 8\\)",
            {"predict": lambda t: {"probability": t[:, :, ::2]}},
        ),
        (
            ConfigError,
            "asks for \\['density'\\]",
            {
                "out": {
                    "probability": np.zeros((8, 8, 8), np.uint8),
                    "density": np.zeros((8, 8, 8), np.uint16),
                }
            },
        ),
        (
            ShapeMismatchError,
            "expected \\(3, 8, 8, 8\\)",
            {"out": {"normals": np.zeros((8, 8, 8), np.int8)}},
        ),
        (
            ConfigError,
            "dtype float32, expected uint8",
            {"out": {"probability": np.zeros((8, 8, 8), np.float32)}},
        ),
        (ConfigError, "out holds 'mask'", {"out": {"mask": np.zeros((8, 8, 8), np.uint8)}}),
    ],
)
def test_bad_input_says_what_is_wrong(error, text, arguments):
    with pytest.raises(error, match=text):
        call(**arguments)
