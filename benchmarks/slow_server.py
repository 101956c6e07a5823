"""An HTTP server that answers every request late, for benchmarks/remote_training.py.

    python benchmarks/slow_server.py FOLDER LATENCY_MS    # prints its port

A process and a file of its own: it shares no interpreter lock with what is measured.
"""

import functools
import http.server
import sys
import time
from typing import Any


class SlowHandler(http.server.SimpleHTTPRequestHandler):
    """Whole files only, which is all that chunks need."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else headers and body wait 40 ms for each other
    latency_s = 0.0

    def log_message(self, *args: Any) -> None:
        del args

    def do_GET(self) -> None:
        time.sleep(self.latency_s)
        super().do_GET()


class Server(http.server.ThreadingHTTPServer):
    """Takes a burst of connections; with the default of 5 the others wait a second."""

    request_queue_size = 256
    daemon_threads = True


def main() -> None:
    SlowHandler.latency_s = float(sys.argv[2]) / 1000
    handler = functools.partial(SlowHandler, directory=sys.argv[1])
    server = Server(("127.0.0.1", 0), handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
