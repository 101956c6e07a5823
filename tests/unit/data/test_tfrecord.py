"""TFRecords written here byte by byte from the format's description, read back; damage is named."""

import gzip
import io
import struct
import zlib

import numpy as np
import pytest

from vesuvius.cli.main import main
from vesuvius.data.prepare import PrepareOptions, prepare_all
from vesuvius.data.sources import find_items
from vesuvius.data.store import PreparedVolume
from vesuvius.data.tfrecord import RecordFile, masked_crc, parse_example
from vesuvius.data.volume import Volume
from vesuvius.errors import VolumeFormatError

SHAPE = (20, 24, 28)


def slow_crc32c(data):
    """Castagnoli polynomial bit by bit (RFC 3720)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def varint(n):
    n &= (1 << 64) - 1
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def feature(value):
    if isinstance(value, bytes):
        return field(1, field(1, value))
    if isinstance(value[0], float):
        return field(2, field(1, struct.pack(f"<{len(value)}f", *value)))
    return field(3, field(1, b"".join(map(varint, value))))


def example(**features):
    entries = [
        field(1, field(1, name.encode()) + field(2, feature(value)))
        for name, value in features.items()
    ]
    return field(1, b"".join(entries))


def record(data):
    length = struct.pack("<Q", len(data))
    crcs = [struct.pack("<I", masked_crc(part)) for part in (length, data)]
    return length + crcs[0] + data + crcs[1]


@pytest.fixture
def volumes(rng):
    image = rng.integers(0, 256, (3, *SHAPE), dtype=np.uint8)
    label = np.zeros((3, *SHAPE), np.uint8)
    label[:, 4:7] = 1
    label[..., -3:] = 2
    return image, label


def shaped(array):
    return list(array.shape)


def write_shard(path, image, label, **more):
    content = [
        record(
            example(
                image=i.tobytes(),
                label=t.tobytes(),
                image_shape=shaped(i),
                label_shape=shaped(t),
                **{name: values[n] for name, values in more.items()},
            )
        )
        for n, (i, t) in enumerate(zip(image, label, strict=True))
    ]
    path.write_bytes(b"".join(content))
    return content


def test_the_checksum_is_the_masked_castagnoli_crc():
    assert slow_crc32c(b"123456789") == 0xE3069283  # the published check value
    for data in (b"", b"123456789", bytes(range(256))):
        crc = slow_crc32c(data)
        assert masked_crc(data) == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def test_features_of_every_kind():
    data = example(a=b"xyz", b=[1, -2, 3 << 40], c=[0.5, -1.5])
    unpacked = field(3, b"\x08\x05\x08\x80\x01")  # integers one by one: 5, 128
    data += field(1, field(1, field(1, b"d") + field(2, unpacked)))
    found = parse_example(memoryview(data))
    assert bytes(found["a"][0]) == b"xyz"
    assert found["b"] == [1, -2, 3 << 40]
    assert found["c"] == [0.5, -1.5]
    assert found["d"] == [5, 128]


def test_a_shard_becomes_prepared_stores(tmp_path, volumes):
    image, label = volumes
    (tmp_path / "shards").mkdir()
    write_shard(tmp_path / "shards" / "training_shard_0.tfrec", image[:2], label[:2])
    write_shard(tmp_path / "shards" / "training_shard_1.tfrec", image[2:], label[2:])
    items = find_items(tmp_path / "shards")
    names = ["training_shard_0_000", "training_shard_0_001", "training_shard_1_000"]
    assert [item.volume_id for item in items] == names
    outcomes = list(prepare_all(items, tmp_path / "out", PrepareOptions()))
    assert [o.status for o in outcomes] == ["done"] * 3
    for number, name in enumerate(names):
        store = PreparedVolume(tmp_path / "out" / f"{name}.zarr")
        box = ((0, 0, 0), SHAPE)
        for array, expected in (("image", image), ("label", label)):
            out = np.empty(SHAPE, np.uint8)
            store.array(array).read_into(out, *box)
            assert np.array_equal(out, expected[number])
    again = list(prepare_all(items, tmp_path / "out", PrepareOptions()))
    assert [o.status for o in again] == ["skipped"] * 3


@pytest.mark.parametrize(
    ("dtype", "pack"),
    [
        (np.uint8, lambda a: a.tobytes()),
        (np.uint16, lambda a: a.tobytes()),
        (np.float32, lambda a: a.tobytes()),
        (np.uint8, lambda a: gzip.compress(a.tobytes())),
        (np.uint16, lambda a: zlib.compress(a.tobytes())),
        (np.uint8, lambda a: npy(a)),
    ],
    ids=["uint8", "uint16", "float32", "gzip", "zlib", "npy"],
)
def test_encodings(tmp_path, rng, dtype, pack):
    array = (rng.random(SHAPE) * (1 if dtype == np.float32 else 200)).astype(dtype)
    path = tmp_path / "a.tfrec"
    path.write_bytes(record(example(image=pack(array), shape=[1, *SHAPE, 1])))
    volume = Volume(path)
    assert volume.dtype == dtype
    assert volume.shape_zyx == SHAPE
    assert np.array_equal(volume.read((1, 2, 3), (9, 20, 28)), array[1:9, 2:20, 3:28])
    (item,) = find_items(path)
    assert item.label is None


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_dtype_and_names_come_from_features_and_a_cube_needs_no_shape(tmp_path, rng):
    array = rng.integers(0, 2**15, (6, 6, 6)).astype(np.int16)
    cube = rng.integers(0, 255, (5, 5, 5), dtype=np.uint8)
    path = tmp_path / "a.tfrecord"
    path.write_bytes(
        record(example(image=array.tobytes(), shape=[6, 6, 6], image_dtype=b"int16", id=b"v7"))
        + record(example(image=cube.tobytes(), id=[1234]))
    )
    assert [i.volume_id for i in find_items(path)] == ["v7", "1234"]
    assert Volume(path).dtype == np.int16
    assert np.array_equal(Volume(path, array="1/image").read_all(), cube)


def test_a_truncated_shard_names_the_record_and_keeps_the_others(tmp_path, volumes, capsys):
    path = tmp_path / "shard.tfrec"
    content = b"".join(write_shard(path, *volumes))
    path.write_bytes(content[: len(content) - 100])
    assert main(["prepare", str(path), str(tmp_path / "out"), "--jobs", "1"]) == 1
    error = capsys.readouterr().err
    assert "shard_002" in error
    assert f"record 2 of 3: truncated; it needs {len(content)} bytes" in error.replace("\n", " ")
    assert sorted(p.name for p in (tmp_path / "out").glob("*.zarr")) == [
        *("shard_000.zarr", "shard_001.zarr")
    ]


def test_damaged_records_are_named(tmp_path, volumes):
    path = tmp_path / "shard.tfrec"
    parts = write_shard(path, *volumes)
    flipped = bytearray(parts[1])
    flipped[5000] ^= 1
    path.write_bytes(parts[0] + bytes(flipped) + parts[2])
    with pytest.raises(VolumeFormatError, match="record 1 of 3: checksum does not match"):
        Volume(path, array="1/image").read_all()
    assert np.array_equal(Volume(path, array="2/image").read_all(), volumes[0][2])
    header = bytearray(parts[1])
    header[3] ^= 1
    path.write_bytes(parts[0] + bytes(header) + parts[2])
    with pytest.raises(VolumeFormatError, match="record 1 of 2: damaged or truncated header"):
        Volume(path, array="1/image").read_all()
    with pytest.raises(VolumeFormatError, match=r"no record 5; it has 2 \(0 to 1\)"):
        Volume(path, array="5/image").read_all()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x0b", "record 0 of 1 is no tf.train.Example"),
        (example(image=b"abc", image_shape=[2, 2, 2]), "'image' has 3 bytes for shape"),
        (example(image=b"abcdef"), "6 bytes and no image_shape feature"),
        (example(image=b"abcdef", image_shape=[2, 3]), r"image_shape is \[2, 3\]; expected z, y"),
        (example(picture=b"abc"), r"'image' is no single bytes value; the record has \['pic"),
        (example(image=[1, 2]), "'image' is no single bytes value"),
        (example(image=gzip.compress(b"a" * 99)[:20]), "record 0: "),
    ],
    ids=["no example", "size", "no shape", "2-d", "no image", "numbers", "broken gzip"],
)
def test_other_content_is_explained(tmp_path, data, message):
    path = tmp_path / "a.tfrec"
    path.write_bytes(record(data))
    with pytest.raises(VolumeFormatError, match=message):
        Volume(path).read_all()


def test_empty_and_compressed_files_are_explained(tmp_path):
    path = tmp_path / "a.tfrec"
    path.write_bytes(b"")
    with pytest.raises(VolumeFormatError, match="empty file"):
        RecordFile(path)
    path.write_bytes(gzip.compress(record(example(image=b"a"))))
    with pytest.raises(VolumeFormatError, match="whole file is gzip-compressed"):
        RecordFile(path)


def test_two_records_of_one_name_are_refused(tmp_path, volumes):
    path = tmp_path / "a.tfrec"
    write_shard(path, volumes[0][:2], volumes[1][:2], id=[b"same", b"same"])
    with pytest.raises(VolumeFormatError, match=r"record 1 is called 'same' like one of a\.tfrec"):
        find_items(path)
