"""What a thousand queries cost, with source and date. Prices change: look them up, and edit this table."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Price:
    """Dollars for 1,000 images, and who said so when."""

    dollars: float
    source: str


PRICES: dict[str, Price] = {
    "aws": Price(1.00, "from memory, not verified"),
    "azure": Price(1.00, "from memory, not verified; the service retires on 2028-09-25"),
    "google": Price(1.50, "cloud.google.com/vision/pricing, read 2026-11; the first 1,000 a month are free"),
    "clarifai": Price(
        1.20, "a public note of 2018, not verified; whether the general model still answers is not known"
    ),
    "huggingface": Price(0.0, "a server of your own; hosted endpoints have prices of their own"),
    "openinference": Price(0.0, "a server of your own"),
}
