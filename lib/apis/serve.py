"""A local service: any classifier of the kit behind every wire form that `lib.apis` knows, with faults as switches.

    python -m lib.apis.serve --arch digits_cnn --weights runs/digits/weights/FILE.pt --data digits --port 8765

It listens on the loopback interface only and prints its address. --fault "429 3" answers the first three requests with
HTTP 429; there are 500, 503, malformed, drop and version besides, and --slow SECONDS, --least PIXELS.
"""

import argparse
import base64
import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch
from torch import nn

from lib.apis.png import decoded

Classify = Callable[[list[np.ndarray]], list[list[float]]]  # (H, W, 3) uint8 each -> scores of the classes each


class LocalService:
    """Answers on 127.0.0.1 while the `with` block lasts. `address`: where. `requests`: how many came.

    `faults`: {"429": 3} spoils the first three requests so: 429 (with Retry-After), 500, 503, malformed, drop. `slow`:
    seconds before each answer; `least`: pixels below which an image is refused; `version`: what the model is called.
    All may be changed while it runs. `key`: what a client must send, "" for none.
    """

    def __init__(self, classify: Classify, labels: Sequence[str], port: int = 0) -> None:
        self.classify, self.labels = classify, list(labels)
        self.faults: dict[str, int] = {}
        self.slow, self.least, self.version, self.key, self.retry_after = 0.0, 1, "1", "", "0"
        self.requests = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> "LocalService":
        """Answer in a thread of its own, until `stop`."""
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self) -> None:
        """Answer no more, and free the port."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> "LocalService":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def serve_forever(self) -> None:
        """Serve in this thread, until it is interrupted."""
        self._server.serve_forever()

    def fault(self) -> str:
        """The fault of this request, counted down; "" for none."""
        with self._lock:
            self.requests += 1
            name = next((name for name, left in self.faults.items() if left > 0), "")
            if name:
                self.faults[name] -= 1
            return name

    def scored(self, pngs: Sequence[bytes]) -> list[list[tuple[str, float]]]:
        """(label, score) of each image. ValueError for what is no image, or too small."""
        images = [decoded(png) for png in pngs]
        small = [image.shape for image in images if min(image.shape[:2]) < self.least]
        if small:
            raise ValueError(f"image of {small[0][1]} x {small[0][0]} pixels, at least {self.least} are needed")
        return [list(zip(self.labels, map(float, scores))) for scores in self.classify(images)]


def of_module(f: nn.Module, size: tuple[int, int], channels: int) -> Classify:
    """A classifier of the kit as what the server asks: images are brought to its size by averaging whole blocks."""
    lock = threading.Lock()

    def classify(images: list[np.ndarray]) -> list[list[float]]:
        rows = [torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255 for image in images]
        batch = torch.stack([nn.functional.adaptive_avg_pool2d(row, size) for row in rows])[:, :channels]
        with lock, torch.no_grad():
            return f(batch).softmax(1).tolist()

    return classify


def _handler(service: LocalService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # headers and body leave in one write: else each request waits 40 ms

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            time.sleep(service.slow)
            fault = service.fault()
            if fault == "drop":
                self.close_connection = True
                self.connection.close()
                return
            if fault == "malformed":
                self._say(200, b'{"labels": [')
            elif fault:
                self._say(int(fault), json.dumps({"error": f"fault {fault}"}).encode())
            else:
                self._answer(body)

        def _answer(self, body: bytes) -> None:
            if service.key and service.key not in " ".join(self.headers.values()):
                self._say(401, json.dumps({"error": "wrong key"}).encode())
                return
            try:
                self._say(200, json.dumps(answered(service, self.path, self.headers, body)).encode())
            except (ValueError, KeyError) as error:
                self._say(400, json.dumps({"error": str(error)}).encode())

        def _say(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if status == 429:
                self.send_header("Retry-After", service.retry_after)
            self.end_headers()
            self.wfile.write(content)

    return Handler


def answered(service: LocalService, path: str, headers: Any, body: bytes) -> Any:
    """The JSON answer in the wire form that path and headers ask for. ValueError for bytes that are no image."""
    version = service.version
    if path.startswith("/computervision"):
        rows = _best(service.scored([body])[0])
        return {"modelVersion": version, "tagsResult": {"values": [{"name": n, "confidence": s} for n, s in rows]},
                "metadata": {"width": 1, "height": 1}}  # fmt: skip
    if headers.get("X-Amz-Target", "").endswith("DetectLabels"):
        rows = _best(service.scored([base64.b64decode(json.loads(body)["Image"]["Bytes"])])[0])
        return {"LabelModelVersion": version, "Labels": [{"Name": n, "Confidence": 100 * s} for n, s in rows]}
    if path.startswith("/v1/images:annotate"):
        pngs = [base64.b64decode(row["image"]["content"]) for row in json.loads(body)["requests"]]
        labels = [[{"description": n, "score": s} for n, s in _best(row)] for row in service.scored(pngs)]
        return {"responses": [{"labelAnnotations": row} for row in labels]}
    if path.startswith("/v2/users/"):
        pngs = [base64.b64decode(row["data"]["image"]["base64"]) for row in json.loads(body)["inputs"]]
        concepts = [[{"name": n, "value": s} for n, s in _best(row)] for row in service.scored(pngs)]
        model = {"model_version": {"id": version}}
        return {"status": {"code": 10000}, "outputs": [{"model": model, "data": {"concepts": row}} for row in concepts]}
    if path.startswith("/v2/models/"):
        tensor = json.loads(body)["inputs"][0]
        images = (np.asarray(tensor["data"], float).reshape(tensor["shape"]) * 255).round().astype(np.uint8)
        scores = service.classify([image.transpose(1, 2, 0) for image in images])
        output = {"name": "scores", "datatype": "FP32", "shape": [len(scores), len(scores[0])]}
        return {"model_version": version, "outputs": [output | {"data": [value for row in scores for value in row]}]}
    return [{"label": n, "score": s} for n, s in _best(service.scored([body])[0])]


def _best(row: list[tuple[str, float]]) -> list[tuple[str, float]]:
    return sorted(row, key=lambda pair: -pair[1])[:10]


def main() -> None:
    """Serve until it is interrupted."""
    from lib.datasets import load_dataset
    from lib.models import build_classifier, load_classifier

    parser = argparse.ArgumentParser(prog="python -m lib.apis.serve", description="A vision service of your own.")
    parser.add_argument("--arch", default="digits_cnn", help="a classifier of the kit (default: digits_cnn)")
    parser.add_argument("--weights", help="its file; without one its weights are random")
    parser.add_argument("--data", default="digits", help="the data set whose classes it knows (default: digits)")
    parser.add_argument("--data-dir", default="data", help="folder of the data sets")
    parser.add_argument("--port", type=int, default=0, help="0 (the default): any that is free")
    parser.add_argument("--slow", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--least", type=int, default=1, help="pixels below which an image is refused")
    parser.add_argument(
        "--fault", nargs=2, action="append", default=[], metavar=("KIND", "TIMES"), help="429, 500, ..."
    )
    options = parser.parse_args()
    data = load_dataset(options.data, options.data_dir)
    f = load_classifier(options.weights, data, arch=options.arch) if options.weights else build_classifier(
        options.arch, data
    ).eval().requires_grad_(False)  # fmt: skip
    channels, *size = data.image_shape
    service = LocalService(of_module(f, (size[0], size[1]), channels), data.class_names, options.port)
    service.slow, service.least = options.slow, options.least
    service.faults = {kind: int(times) for kind, times in options.fault}
    sys.stdout.write(f"{service.address}\n")
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        service.serve_forever()


if __name__ == "__main__":
    main()
