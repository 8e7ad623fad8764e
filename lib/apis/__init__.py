"""Models that one can only query: a vision service as a base classifier, with a budget, a log and offline replay.

    service = HuggingFace("http://127.0.0.1:8765")
    f = RemoteClassifier(service, ("cat", "dog"), side=224, log="runs/queries.jsonl", budget=Budget(500))
    g = SmoothedClassifier(f, sigma=0.25, num_classes=f.num_classes)      # the last class: anything else
    result = g.certify(images, ids, n0=20, n=100, alpha=0.001)            # asks, and writes each answer down
    replay(g, images, ids, n0=20, n=100, alpha=0.01)                      # the same answers again, without a query

Images go out as PNG. What is sent and what comes back is a fixed function of the image, as far as the service keeps to
it: answers are kept by the hash of what was sent, so a query is paid once, and a change of the service's model stops
the run. Keys come from the environment and stay there.
"""

from lib.apis.budget import Budget, BudgetSpent
from lib.apis.errors import ApiError, MissingAnswers, Refused, Retryable, VersionChanged
from lib.apis.prices import PRICES, Price
from lib.apis.querylog import QueryLog
from lib.apis.remote import RemoteClassifier, replay
from lib.apis.services import (
    SERVICES,
    AWSRekognition,
    AzureImageAnalysis,
    Clarifai,
    GoogleVision,
    HuggingFace,
    OpenInference,
    Service,
)

__all__ = [
    "PRICES", "SERVICES", "AWSRekognition", "ApiError", "AzureImageAnalysis", "Budget", "BudgetSpent", "Clarifai",
    "GoogleVision", "HuggingFace", "MissingAnswers", "OpenInference", "Price", "QueryLog", "Refused",
    "RemoteClassifier", "Retryable", "Service", "VersionChanged", "replay",
]  # fmt: skip
