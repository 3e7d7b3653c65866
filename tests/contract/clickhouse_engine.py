"""ClickHouse's own engine behind an HTTP interface like its server's: run with a Python that has `chdb-core`.

Prints its port. Settings in the URL and the format of the body are read by the engine itself; the user and the mapping
from codes to statuses are the server's (src/Server/HTTP/exceptionCodeToHTTPStatus.cpp).
"""

import base64
import gzip
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from chdb.session import Session  # type: ignore[import-not-found]

STATUS = {60: 404, 81: 404, 516: 403, 497: 403, 241: 500, 252: 500}
BAD_REQUEST = {6, 26, 27, 38, 41, 53, 62, 72, 115, 117, 130, 349}
DIRECTORY, LOGIN = sys.argv[1], base64.b64encode(sys.argv[2].encode()).decode()
SESSION, ONE_AT_A_TIME = Session(DIRECTORY), Lock()


def run(target: str, body: bytes) -> bytes:
    settings = dict(parse_qsl(urlsplit(target).query))
    query = settings.pop("query", "")
    settings.pop("wait_end_of_query", None)  # the interface's own
    said = ", ".join(f"{name}='{value}'" for name, value in settings.items())
    if query.startswith("INSERT"):
        query = query.replace(" FORMAT ", f" SETTINGS {said} FORMAT ") + "\n" + body.decode()
    else:
        query = query + body.decode()
    with ONE_AT_A_TIME:
        return bytes(SESSION.query(query, "JSONEachRow").bytes())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.headers.get("Authorization") != f"Basic {LOGIN}":
            self.reply(403, b"Code: 516. DB::Exception: teleport: Authentication failed. (AUTHENTICATION_FAILED)")
            return
        try:
            self.reply(200, run(self.path, body))
        except Exception as error:  # the engine's, of any type
            code = int(re.findall(r"Code: (\d+)", str(error))[0])
            self.reply(400 if code in BAD_REQUEST else STATUS.get(code, 500), str(error).encode())

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: the test asks what it wants to know."""


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
