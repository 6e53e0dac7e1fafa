"""A web server of the standard library's, good or bad, for the tests beside it.

    server.py MODE FOLDER [CERTIFICATE KEY]

Prints its port, and a line for each request: path and range. MODE is `whole` (knows of no ranges), `range`, `cut` (breaks off
after 700,000 bytes each time, until it is asked for the rest), `changed` (the same, and then there is another file), `forever` (a
bundle's first bytes, and then zeros without end), `drip` (a byte a second), `silent`, `round` (redirects to itself), `away`
(redirects to the same file once), `down` (redirects from https to http).
"""

import http.server
import pathlib
import re
import ssl
import sys
import time

mode, folder, *tls = sys.argv[1:]
CUT = 700_000


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked = self.headers.get("Range", "-")
        print(self.path, asked, flush=True)
        if mode == "silent":
            return time.sleep(600)
        if mode == "round":
            return self.lead(self.path)
        if mode == "away" and not self.path.startswith("/there/"):
            return self.lead("/there" + self.path)
        if mode == "down":
            return self.lead("http://127.0.0.1:9" + self.path)
        if mode in ("forever", "drip"):
            return self.never_end()
        path = pathlib.Path(folder, self.path.removeprefix("/there").lstrip("/"))
        if not path.is_file():
            return self.send_error(404)
        data = path.read_bytes()
        first, last, status = 0, len(data) - 1, 200
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
        if found and mode != "whole":
            first, last, status = int(found[1]), min(int(found[2] or last), last), 206
        tag = f'"{len(data)}"' if mode != "changed" or not found else '"other"'
        if self.headers.get("If-Range", tag) != tag:
            first, last, status = 0, len(data) - 1, 200
        self.send_response(status)
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("ETag", tag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        part = data[first : last + 1]
        if mode in ("cut", "changed") and len(part) > CUT:
            self.wfile.write(part[:CUT])
            self.close_connection = True
            return
        self.wfile.write(part)

    def lead(self, where):
        self.send_response(302)
        self.send_header("Location", where)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def never_end(self):
        self.send_response(200)
        self.end_headers()
        try:
            # A manifest of 64 KiB is announced.
            self.wfile.write(b"ALTNETUP\1" + (65536).to_bytes(4, "little"))
            while True:
                self.wfile.write(b"\0" if mode == "drip" else bytes(1 << 20))
                if mode == "drip":
                    time.sleep(1)
        except OSError:
            pass
        self.close_connection = True

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
if tls:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*tls)
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
