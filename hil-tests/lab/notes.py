"""A server on a computer of home B that an app leads to: says what is in a file, and what it was told of who asks.

    notes.py PORT FILE
"""

import http.server
import json
import pathlib
import socket
import sys


class Notes(http.server.BaseHTTPRequestHandler):
    """Answers every request with JSON."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # noqa: N802 (the library's name)
        body = json.dumps({"text": pathlib.Path(sys.argv[2]).read_text(), "headers": [[name.lower(), value] for name, value in self.headers.items()]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    """Takes both families."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


if __name__ == "__main__":
    Server(("::", int(sys.argv[1])), Notes).serve_forever()
