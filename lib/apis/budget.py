"""How much may be asked: a number that somebody wrote down, counted down with every attempt."""

import threading

from lib.apis.errors import ApiError
from lib.bounds.arguments import whole_number


class BudgetSpent(ApiError):
    """The next query would be one too many. Nothing is lost: the answers so far are in the log."""


class Budget:
    """At most `queries` images may be sent, retries included; the cap is hard, also for threads side by side.

    ValueError unless it is a whole number >= 0.
    """

    def __init__(self, queries: int) -> None:
        self.queries = whole_number(queries, "queries", 0)
        self.spent = 0
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        """How many images may still be sent."""
        return self.queries - self.spent

    def take(self, images: int) -> None:
        """Count `images` that are about to be sent. BudgetSpent, and nothing is counted, where they are too many."""
        with self._lock:
            if images > self.left:
                raise BudgetSpent(f"the budget of {self.queries} queries allows {self.left} more; {images} would go "
                                  "out: give a larger Budget, and the run goes on where it stopped")  # fmt: skip
            self.spent += images

    def announcement(self, price: float) -> str:
        """What is to be said before the first query, for a price in dollars for 1,000 images."""
        return f"up to {self.queries:,} queries, at most ${self.queries * price / 1000:.2f}"
