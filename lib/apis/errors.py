"""What can go wrong with a service: for the moment, for good, or in what it has become."""


class ApiError(RuntimeError):
    """An answer that cannot be used."""


class Retryable(ApiError):
    """Trouble that may pass: too many requests, a fault of the server, a dropped connection, no JSON.

    `after`: the seconds that the service asked to wait, or None.
    """

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class Refused(ApiError):
    """What will not get better by asking again: a wrong key, an image that is too small. Holds the service's words."""


class VersionChanged(ApiError):
    """The service answers by another model than before: answers of two models are not votes for one f."""


class MissingAnswers(ApiError):
    """A replay asks for answers that the log does not hold. `missing`: how many."""

    def __init__(self, missing: int) -> None:
        super().__init__(f"the log lacks {missing} of the answers that are needed: ask for fewer samples, or give a "
                         "Budget, and only these are asked for")  # fmt: skip
        self.missing = missing
