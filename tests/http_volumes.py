"""An HTTP server for tests: serves a folder with range requests and fails on demand."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Server:
    """A running server.

    Attributes:
        url: of the folder, without trailing slash.
        faults: part of a path -> faults that its next requests meet, first come first served:
            a status (500, 403, 429), "cut" (half of the body, then the connection closes),
            "stall" (no answer for half a second), "drop" (closed without an answer). A list that
            ends in "always" repeats its last fault for ever.
        requests: (path, range header) of every GET.
    """

    url: str = ""
    faults: dict[str, list[int | str]] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def next_fault(self, path: str) -> int | str | None:
        """Take the fault of one request, None if it is to succeed."""
        for part, left in self.faults.items():
            if part in path and left:
                if left[-1] == "always" and len(left) == 2:
                    return left[0]
                return left.pop(0)
        return None


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD from `folder`, as `state` wants it; both are set by `serve`."""

    protocol_version = "HTTP/1.1"
    folder: Path
    state: Server
    lock: threading.Lock

    def log_message(self, *args):
        del args

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.lstrip("/")
        with self.lock:
            self.state.requests.append((path, self.headers.get("Range")))
            fault = self.state.next_fault(path)
        if fault == "drop":
            self.close_connection = True
            return
        if fault == "stall":
            time.sleep(0.5)
        file = self.folder / path
        if isinstance(fault, int):
            self._answer(fault, b"no")
        elif not file.is_file():
            self._answer(404, b"")
        else:
            self._file(file.read_bytes(), cut=fault == "cut")

    def _file(self, content: bytes, *, cut: bool) -> None:
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if asked is None:
            return self._answer(200, content, cut=cut)
        size = len(content)
        if asked[1]:
            start, stop = int(asked[1]), min(int(asked[2] or size - 1) + 1, size)
        else:
            start, stop = max(0, size - int(asked[2])), size
        where = f"bytes {start}-{stop - 1}/{size}"
        return self._answer(206, content[start:stop], cut=cut, content_range=where)

    def _answer(
        self, status: int, body: bytes, *, cut: bool = False, content_range: str = ""
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        if self.command == "GET":
            with suppress(OSError):  # the client gave up waiting
                self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True


class _BurstServer(ThreadingHTTPServer):
    """With the default of 5, further connections of a burst wait a second for another try."""

    request_queue_size = 256
    daemon_threads = True


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """Serve `folder` on a free local port until the block ends."""
    state = Server()
    bound = {"folder": folder, "state": state, "lock": threading.Lock()}
    server = _BurstServer(("127.0.0.1", 0), type("BoundHandler", (_Handler,), bound))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
