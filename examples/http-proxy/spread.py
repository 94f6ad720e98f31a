"""usage: spread.py PORT BACKEND_PORT...: answers HTTP on PORT with what the next backend answers."""

import itertools
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

backends = itertools.cycle(sys.argv[2:])


class Spread(BaseHTTPRequestHandler):
    def do_GET(self):
        url = f"http://127.0.0.1:{next(backends)}{self.path}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                status, body = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read()
        except OSError as error:
            status, body = 502, f"{url}: {error}\n".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Spread).serve_forever()
