"""Six ways in which services take images and give labels: what is sent, and what an answer means.

The wire forms are those of the services' documentation (read in 2025 and 2026) and of their SDKs; docs/apis.md says how
each was held against them.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import urlsplit

from lib.apis.errors import ApiError, Refused, Retryable
from lib.apis.png import decoded
from lib.apis.querylog import Answer

Headers = dict[str, str]


@dataclass(frozen=True)
class Service:
    """Where to ask, and in which form. `endpoint`: the address, without a key; `model`: its name, where it has one."""

    endpoint: str
    model: str = ""
    kind: ClassVar[str] = ""
    per_request: ClassVar[int] = 1  # images
    side: ClassVar[int] = 1  # the least pixels of the shorter side
    in_flight: ClassVar[int] = 8  # requests side by side
    environment: ClassVar[tuple[str, ...]] = ()  # the variables that hold the keys

    def identity(self) -> dict[str, str]:
        """What tells answers of this service from those of another."""
        return {"service": self.kind, "endpoint": self.endpoint, "model": self.model}

    def keys(self) -> list[str]:
        """The keys, from the environment. ValueError, with the variable's name, where one is missing."""
        missing = [name for name in self.environment if not os.environ.get(name)]
        if missing:
            raise ValueError(f"{self.kind} needs a key in the environment variable {missing[0]}")
        return [os.environ[name] for name in self.environment]

    def request(self, pngs: Sequence[bytes]) -> tuple[str, Headers, bytes]:
        """(address, headers, body) of a POST that asks about these images."""
        raise NotImplementedError

    def answers(self, body: Any) -> tuple[list[Answer], str]:
        """Of a JSON answer the labels of each image, the likeliest first, and the model's version ("" if not said)."""
        raise NotImplementedError

    def fault(self, status: int, body: Any) -> ApiError | None:
        """What an answer says that is none, in the service's own words; None where it is an answer."""
        if status < 400:
            return None
        words = re.sub(r"\s+", " ", str(body))[:300]
        kind = Retryable if status in (408, 429) or status >= 500 else Refused
        return kind(f"{self.kind}: HTTP {status}: {words}")


def _post(service: Service, path: str, body: Any, headers: Headers) -> tuple[str, Headers, bytes]:
    content = json.dumps(body, separators=(",", ":")).encode()
    return service.endpoint.rstrip("/") + path, {"Content-Type": "application/json"} | headers, content


def _text(png: bytes) -> str:
    return base64.b64encode(png).decode()


def _sorted(pairs: Sequence[tuple[str, float]]) -> Answer:
    """The likeliest first; labels of one score in the order of the alphabet."""
    return sorted(((str(label), float(score)) for label, score in pairs), key=lambda pair: (-pair[1], pair[0]))


@dataclass(frozen=True)
class HuggingFace(Service):
    """Image classification of Hugging Face's inference endpoints: raw bytes, and [{label, score}] comes back.

    A key in HF_TOKEN is sent where there is one.
    """

    kind: ClassVar[str] = "huggingface"

    def request(self, pngs: Sequence[bytes]) -> tuple[str, Headers, bytes]:
        token = os.environ.get("HF_TOKEN")
        headers = {"Content-Type": "image/png"} | ({"Authorization": f"Bearer {token}"} if token else {})
        return self.endpoint.rstrip("/") + (f"/{self.model}" if self.model else "/"), headers, pngs[0]

    def keys(self) -> list[str]:
        return [token] if (token := os.environ.get("HF_TOKEN")) else []

    def answers(self, body: Any) -> tuple[list[Answer], str]:
        return [_sorted([(row["label"], row["score"]) for row in body])], ""


@dataclass(frozen=True)
class OpenInference(Service):
    """Open Inference Protocol v2 (KServe, Triton, OpenVINO): pixels in [0, 1] as numbers, scores come back.

    Labels are the numbers of the classes, as text. `input_name`: what the model calls its input.
    """

    input_name: str = "images"
    kind: ClassVar[str] = "openinference"
    per_request: ClassVar[int] = 16

    def identity(self) -> dict[str, str]:
        return super().identity() | {"input": self.input_name}

    def request(self, pngs: Sequence[bytes]) -> tuple[str, Headers, bytes]:
        pixels = [decoded(png).transpose(2, 0, 1) / 255 for png in pngs]
        shape = [len(pixels), *pixels[0].shape]
        data = [round(float(value), 8) for image in pixels for value in image.ravel()]
        tensor = {"name": self.input_name, "shape": shape, "datatype": "FP32", "data": data}
        return _post(self, f"/v2/models/{self.model or 'model'}/infer", {"inputs": [tensor]}, {})

    def answers(self, body: Any) -> tuple[list[Answer], str]:
        output = body["outputs"][0]
        images, classes = output["shape"]
        rows = [output["data"][i * classes : (i + 1) * classes] for i in range(images)]
        return [_sorted([(str(k), score) for k, score in enumerate(row)]) for row in rows], body.get(
            "model_version", ""
        )


@dataclass(frozen=True)
class GoogleVision(Service):
    """Google Cloud Vision, label detection, with an API key in GOOGLE_API_KEY. 16 images a request, each is billed."""

    endpoint: str = "https://vision.googleapis.com"
    kind: ClassVar[str] = "google"
    per_request: ClassVar[int] = 16
    environment: ClassVar[tuple[str, ...]] = ("GOOGLE_API_KEY",)

    def request(self, pngs: Sequence[bytes]) -> tuple[str, Headers, bytes]:
        features = [{"type": "LABEL_DETECTION", "maxResults": 10}]
        rows = [{"image": {"content": _text(png)}, "features": features} for png in pngs]
        return _post(self, "/v1/images:annotate", {"requests": rows}, {"X-goog-api-key": self.keys()[0]})

    def answers(self, body: Any) -> tuple[list[Answer], str]:
        rows = [row.get("labelAnnotations", []) for row in body["responses"]]
        return [_sorted([(one["description"], one["score"]) for one in row]) for row in rows], ""

    def fault(self, status: int, body: Any) -> ApiError | None:
        failed = [row["error"] for row in body.get("responses", []) if "error" in row] if isinstance(body, dict) else []
        if status < 400 and failed:  # an image's own failure comes inside an HTTP 200
            kind = Retryable if failed[0].get("code") in (8, 14) else Refused
            return kind(f"google: {failed[0].get('message', failed[0])}")
        return super().fault(status, body)


@dataclass(frozen=True)
class Clarifai(Service):
    """Clarifai's general model, with a personal access token in CLARIFAI_PAT; up to 128 images a request.

    At risk: its makers went elsewhere in May 2026, and whether the general model still answers is not known.
    """

    endpoint: str = "https://api.clarifai.com"
    model: str = "general-image-recognition"
    kind: ClassVar[str] = "clarifai"
    per_request: ClassVar[int] = 128
    environment: ClassVar[tuple[str, ...]] = ("CLARIFAI_PAT",)

    def request(self, pngs: Sequence[bytes]) -> tuple[str, Headers, bytes]:
        path = f"/v2/users/clarifai/apps/main/models/{self.model}/outputs"
        rows = [{"data": {"image": {"base64": _text(png)}}} for png in pngs]
        return _post(self, path, {"inputs": rows}, {"Authorization": f"Key {self.keys()[0]}"})

    def answers(self, body: Any) -> tuple[list[Answer], str]:
        rows = [output["data"]["concepts"] for output in body["outputs"]]
        version = body["outputs"][0].get("model", {}).get("model_version", {}).get("id", "")
        return [_sorted([(one["name"], one["value"]) for one in row]) for row in rows], version

    def fault(self, status: int, body: Any) -> ApiError | None:
        said = body.get("status", {}) if isinstance(body, Mapping) else {}
        if status < 400 and said.get("code", 10000) != 10000:
            return Retryable(f"clarifai: {said.get('description', said)}")
        if said.get("code") == 11005:  # its throttle
            return Retryable(f"clarifai: {said.get('description', said)}")
        return super().fault(status, body)


@dataclass(frozen=True)
class AzureImageAnalysis(Service):
    """Azure AI Vision, Image Analysis 4.0, tags, with a key in VISION_KEY. The service retires on 2028-09-25."""

    kind: ClassVar[str] = "azure"
    side: ClassVar[int] = 50
    environment: ClassVar[tuple[str, ...]] = ("VISION_KEY",)

    def request(self, pngs: Sequence[bytes]) -> tuple[str, Headers, bytes]:
        path = "/computervision/imageanalysis:analyze?api-version=2023-10-01&features=tags"
        headers = {"Content-Type": "application/octet-stream", "Ocp-Apim-Subscription-Key": self.keys()[0]}
        return self.endpoint.rstrip("/") + path, headers, pngs[0]

    def answers(self, body: Any) -> tuple[list[Answer], str]:
        tags = body["tagsResult"]["values"]
        return [_sorted([(one["name"], one["confidence"]) for one in tags])], body.get("modelVersion", "")


@dataclass(frozen=True)
class AWSRekognition(Service):
    """AWS Rekognition, DetectLabels, signed with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (Signature Version 4).

    `endpoint`: https://rekognition.REGION.amazonaws.com; the region is read from it, or from AWS_REGION. Images of less
    than 80 pixels a side are refused, so they are enlarged.
    """

    endpoint: str = "https://rekognition.us-east-1.amazonaws.com"
    kind: ClassVar[str] = "aws"
    side: ClassVar[int] = 80
    environment: ClassVar[tuple[str, ...]] = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    now: Any = field(default=None, compare=False, repr=False)  # a time of its own, for tests

    def request(self, pngs: Sequence[bytes]) -> tuple[str, Headers, bytes]:
        body = {"Image": {"Bytes": _text(pngs[0])}, "MaxLabels": 10, "MinConfidence": 0}
        content = json.dumps(body).encode()
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": "RekognitionService.DetectLabels",
            **({"X-Amz-Security-Token": token} if (token := os.environ.get("AWS_SESSION_TOKEN")) else {}),
        }
        access, secret = self.keys()
        now = self.now or datetime.datetime.now(datetime.UTC)
        return self.endpoint, signed(self.endpoint, headers, content, self.region, access, secret, now), content

    @property
    def region(self) -> str:
        """Of the endpoint's name, else of the environment, else us-east-1."""
        named = re.search(r"rekognition\.([\w-]+)\.amazonaws", self.endpoint)
        return named[1] if named else os.environ.get("AWS_REGION", "us-east-1")

    def answers(self, body: Any) -> tuple[list[Answer], str]:
        rows = [(one["Name"], one["Confidence"] / 100) for one in body["Labels"]]
        return [_sorted(rows)], body.get("LabelModelVersion", "")

    def fault(self, status: int, body: Any) -> ApiError | None:
        kind = str(body.get("__type", "")) if isinstance(body, Mapping) else ""
        if re.search("Throttling|ProvisionedThroughput|InternalServer", kind):  # these come as HTTP 400
            return Retryable(f"aws: {kind.split('#')[-1]}: {body.get('Message', body.get('message', ''))}")
        return super().fault(status, body)


def signed(
    url: str, headers: Headers, body: bytes, region: str, access: str, secret: str, now: datetime.datetime
) -> Headers:
    """`headers` with AWS's Signature Version 4 for the service rekognition; `now` in UTC."""
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    every = headers | {"X-Amz-Date": stamp, "Host": urlsplit(url).netloc}
    names = sorted(name.lower() for name in every)
    lines = {name.lower(): value for name, value in every.items()}
    canonical = "\n".join(
        ["POST", urlsplit(url).path or "/", "", *(f"{name}:{lines[name]}" for name in names), "", ";".join(names),
         hashlib.sha256(body).hexdigest()]
    )  # fmt: skip
    scope = f"{day}/{region}/rekognition/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for part in (day, region, "rekognition", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    said = f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}"
    return {name: value for name, value in every.items() if name != "Host"} | {"Authorization": said}


SERVICES: dict[str, type[Service]] = {
    kind.kind: kind for kind in (HuggingFace, OpenInference, GoogleVision, Clarifai, AzureImageAnalysis, AWSRekognition)
}
