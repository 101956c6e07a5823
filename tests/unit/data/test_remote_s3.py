"""A volume in a real S3 API: moto's server, started by the test where moto is installed."""

import numpy as np
import pytest
import zarr

from vesuvius.data.remote import RemoteSettings
from vesuvius.data.volume import open_volume
from vesuvius.errors import RemoteReadError

pytest.importorskip("obstore")
moto_server = pytest.importorskip("moto.server")
boto3 = pytest.importorskip("boto3")

VOLUME = np.random.default_rng(0).integers(1, 256, (8, 12, 10), dtype=np.uint8)


@pytest.fixture
def bucket(monkeypatch):
    """An empty bucket; the environment points to its server."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket="scrolls")
    yield client
    server.stop()


def test_read_and_missing_bucket(tmp_path, bucket):
    zarr.create_array(tmp_path / "v.zarr", data=VOLUME, chunks=(4, 4, 5), shards=(4, 12, 10))
    for path in (tmp_path / "v.zarr").rglob("*"):
        if path.is_file():
            key = f"a/{path.relative_to(tmp_path).as_posix()}"
            bucket.put_object(Bucket="scrolls", Key=key, Body=path.read_bytes())
    volume = open_volume("s3://scrolls/a/v.zarr", remote=RemoteSettings(timeout_s=5, attempts=2))
    np.testing.assert_array_equal(volume.read((1, 2, 3), (7, 11, 10)), VOLUME[1:7, 2:11, 3:10])
    for name in ("c/1/0/0", "c/0/0/0"):  # never written, like a sparse scan
        bucket.delete_object(Bucket="scrolls", Key=f"a/v.zarr/{name}")
    assert not volume.read_all().any()


def test_refused(bucket, monkeypatch):
    del bucket
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(RemoteReadError, match=r"s3://scrolls/a\.zarr/.* after 2 attempts"):
        open_volume("s3://scrolls/a.zarr", remote=RemoteSettings(attempts=2, wait_s=0.01))
