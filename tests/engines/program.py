"""The `serve` program of the tests' image: a small model server that can be told to misbehave (`DO`).

Runs in the container on a Python with few modules: what is imported here is put into the image.
"""

import http.server
import json
import os
import signal
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

MODELS: dict[str, str] = {}  # of a multi-model container: what each one's weights say
DO, _, HOW = os.environ.get("DO", "serve").partition(":")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.path.startswith("/models"):
            name = self.path.removeprefix("/models").strip("/")
            self._answer(200 if name in MODELS else 404, json.dumps(MODELS.get(name)).encode())
        else:
            if DO == "memory":  # by now whoever looks after the container knows its cgroup
                print(len(b"x" * (1 << 30)))
            self._answer(503 if DO == "unwell" else 200, b"")

    def do_DELETE(self) -> None:
        self._answer(404 if MODELS.pop(self.path.rpartition("/")[2], None) is None else 200, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/models":
            wanted = json.loads(body)
            MODELS[wanted["model_name"]] = (Path(wanted["url"]) / "weights.txt").read_text()
            body = b""
        elif self.path.startswith("/models/"):
            body = MODELS[self.path.split("/")[2]].encode()
        elif self.headers["Content-Type"] == "application/json":
            body = json.dumps(_obey(**json.loads(body))).encode()
        self._answer(200, body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _obey(
    environ: str = "", read: str = "", write: str = "", fetch: str = "", fill: int = 0, end: int = 0
) -> Any:
    try:
        if environ:
            return os.environ.get(environ)
        if read:
            return Path(read).read_text()
        if write:
            Path(write).parent.mkdir(parents=True, exist_ok=True)
            return Path(write).write_text("x")
        if fetch:
            token = (
                Path(os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]).read_text()
                if "TOKEN" in fetch
                else ""
            )
            request = urllib.request.Request(fetch.replace("TOKEN", ""), headers={"Authorization": token})
            return urllib.request.urlopen(request, timeout=60).read().decode()
        if fill:
            return len(b"x" * fill)
        if end:
            os._exit(end)
    except OSError as error:
        return f"refused: {error}"
    return {"arguments": sys.argv[1:], "uid": os.getuid()}


def main() -> None:
    print("DO", DO, *sys.argv[1:], flush=True)
    if DO == "exit":
        sys.exit(int(HOW or 3))
    if DO == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    if DO == "fill":
        with Path("/filler").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * (1 << 20))
                time.sleep(0.01)
    if DO == "print":
        for _ in range(int(HOW)):
            os.write(1, b"x" * 1023 + b"\n")
        print("printed all", flush=True)
    port = int(HOW) if DO == "port" else int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
    http.server.ThreadingHTTPServer(("", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
