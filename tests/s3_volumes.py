"""A real S3 API for tests: moto's server, which can be told to fail like tests/http_volumes.py."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from http_volumes import Server

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What a client needs besides the endpoint, `AWS_ENDPOINT_URL`."""


@dataclass
class S3Server(Server):
    """A running server; `url` is its endpoint, `faults` and `requests` as in `Server`.

    Attributes:
        client: boto3's, of this server.
    """

    client: Any = None
    lock: Lock = field(default_factory=Lock)

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make any S3 client talk to this server."""
        return {**ENVIRONMENT, "AWS_ENDPOINT_URL": self.url}

    def put(self, folder: Path, url: str) -> str:
        """Copy a folder to `s3://bucket/prefix`, make the bucket if it lacks, return `url`."""
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self.client.create_bucket(Bucket=bucket)
        for path in folder.rglob("*"):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(folder).as_posix()}"
                self.client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
        return url

    def reset(self) -> None:
        """Forget buckets, faults and requests."""
        from moto.core.models import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].reset()
        self.faults.clear()
        self.requests.clear()


def _with_faults(app: Callable[..., Iterable[bytes]], state: S3Server) -> Callable[..., Any]:
    """Return a WSGI application that answers as `app`, or fails as `state.faults` wants it."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"].lstrip("/")
        fault = None
        if environ["REQUEST_METHOD"] == "GET":
            with state.lock:
                state.requests.append((path, environ.get("HTTP_RANGE")))
                fault = state.next_fault(path)
        if fault == "drop":
            raise ConnectionResetError  # werkzeug closes the connection without an answer
        if fault == "stall":
            time.sleep(0.5)
        if isinstance(fault, int):
            body = b"<Error><Code>InternalError</Code><Message>on purpose</Message></Error>"
            start_response(f"{fault} on purpose", [("Content-Length", str(len(body)))])
            return [body]
        body = b"".join(app(environ, start_response))
        return [body[: len(body) // 2] if fault == "cut" else body]

    return answer


@contextmanager
def serve_s3() -> Iterator[S3Server]:
    """Serve an S3 without buckets on a free local port until the block ends."""
    import boto3
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *args):  # a line a request
            del args

    state = S3Server()
    app = _with_faults(DomainDispatcherApplication(create_backend_app), state)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    state.client = boto3.client(
        "s3",
        endpoint_url=state.url,
        region_name=ENVIRONMENT["AWS_REGION"],
        aws_access_key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
    )
    try:
        yield state
    finally:
        state.client.close()
        server.shutdown()
        server.server_close()
        thread.join()
