"""What turns counts into certified radii: a bound on probabilities, sample sizes, a level and a rule to stop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from lib.bounds.anytime import anytime_lower_bound, anytime_upper_bound
from lib.bounds.arguments import checked_open_unit, real_number, whole_number
from lib.bounds.binomial import lower_confidence_bound, upper_confidence_bound

ABSTAIN = -1


class HasRadius(Protocol):
    """What a certificate asks of the noise, see `lib.sampling.noise`: the radius that two probabilities give."""

    def radius(self, p_a: ArrayLike, p_b: ArrayLike | None = None) -> np.ndarray: ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class Bound:
    """Bounds on the probabilities of the selected class, and of the runner-up where `two_class`, from their votes.

    `anytime`: valid however often one looked at the votes before (`lib.bounds.anytime`), else Clopper-Pearson, valid
    for a number of samples that was fixed beforehand. Without `two_class` all other mass counts as one class.
    """

    anytime: bool = False
    two_class: bool = False

    @property
    def name(self) -> str:
        """What a record calls it, such as "clopper-pearson" or "anytime, two-class"."""
        return ("anytime" if self.anytime else "clopper-pearson") + ", two-class" * self.two_class

    @classmethod
    def named(cls, name: str) -> Bound:
        """The bound of that name. ValueError, with the names there are, for another."""
        if name not in BOUNDS:
            raise ValueError(f"bound = {name!r}: expected one of {', '.join(map(repr, BOUNDS))}")
        return BOUNDS[name]

    def probabilities(
        self, n_a: ArrayLike, n_b: ArrayLike, n: ArrayLike, alpha: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """(p_a, p_b): with probability at least 1 - alpha p_a is not above its truth and p_b, if not None, not below.

        With two classes each bound has alpha / 2. No union over classes is needed: the true runner-up is one fixed
        class, its count is at most n_b, and the upper bound grows with the count. The class of n_a must come from other
        samples.
        """
        lower = anytime_lower_bound if self.anytime else lower_confidence_bound
        if not self.two_class:
            return lower(n_a, n, alpha), None
        upper, half = anytime_upper_bound if self.anytime else upper_confidence_bound, np.asarray(alpha) / 2
        return lower(n_a, n, half), upper(n_b, n, half)

    def radius(self, n_a: ArrayLike, n_b: ArrayLike, n: ArrayLike, alpha: ArrayLike, noise: HasRadius) -> np.ndarray:
        """The radius that n_a votes for the selected class and at most n_b for any other, of n, certify; 0 for none."""
        return noise.radius(*self.probabilities(n_a, n_b, n, alpha))


_KNOWN = (Bound(), Bound(two_class=True), Bound(anytime=True), Bound(anytime=True, two_class=True))
BOUNDS = {bound.name: bound for bound in _KNOWN}  # what a record may name; a new certificate is a line here


class StoppingRule:
    """When an image has been sampled enough: `AfterN` here, and those of `lib.bounds.stopping`.

    A rule that looks at votes needs an anytime bound, which no rule can void.
    """

    looks_at_votes = True

    def looks(self, n: int) -> Iterator[int]:
        """The sample sizes after which an image may stop, ascending; the last is `n`."""
        raise NotImplementedError

    def settled(
        self, n_a: np.ndarray, n_b: np.ndarray, n: int, certificate: Certificate, noise: HasRadius
    ) -> np.ndarray:
        """Whether more samples than the n so far, certificate.n at most, would be a waste; bool, one for each n_a."""
        raise NotImplementedError


@dataclass(frozen=True)
class AfterN(StoppingRule):
    """Every image gets n samples, as in the papers: nobody looks at the votes before."""

    looks_at_votes = False

    def looks(self, n: int) -> Iterator[int]:
        yield n


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """How CERTIFY certifies: n0 samples select a class, n fresh ones at most bound its probability, at level alpha.

    `rule` says when an image has had enough samples, `bound` what probabilities its votes support. By default every
    image gets n and the bound is Clopper-Pearson's. ValueError for sizes below 1, alpha outside (0, 1), and for a rule
    that looks at the votes under a bound that must not be looked at.
    """

    n0: int
    n: int
    alpha: float
    rule: StoppingRule = AfterN()
    bound: Bound = Bound()

    def __post_init__(self) -> None:
        object.__setattr__(self, "n0", whole_number(self.n0, "n0"))  # the dataclass is frozen
        object.__setattr__(self, "n", whole_number(self.n, "n"))
        object.__setattr__(self, "alpha", float(checked_open_unit(real_number(self.alpha, "alpha", 0.001), "alpha")))
        if not isinstance(self.rule, StoppingRule):
            raise ValueError(f"rule = {self.rule!r}: expected a rule such as AtRadii(radii=(0, 0.5)) of lib.bounds")
        if not isinstance(self.bound, Bound):
            raise ValueError(f"bound = {self.bound!r}: expected a Bound, such as Bound(two_class=True)")
        if self.rule.looks_at_votes and not self.bound.anytime:
            raise ValueError(
                f"{type(self.rule).__name__} looks at the votes before it stops, and the {self.bound.name} bound holds "
                "only for a fixed n: use Bound(anytime=True)"
            )

    @classmethod
    def of(
        cls,
        n0: int | None,
        n: int | None,
        alpha: float | None,
        rule: StoppingRule | None = None,
        two_class: bool = False,
    ) -> Certificate:
        """The certificate that `certify(n0=, n=, alpha=, rule=, two_class=)` asks for; no rule means a fixed n."""
        if n0 is None or n is None or alpha is None:
            raise ValueError(f"say n0, n and alpha, such as n0=100, n=10_000, alpha=0.001; got {n0=}, {n=}, {alpha=}")
        if not isinstance(two_class, (bool, np.bool_)):
            raise ValueError(f"two_class must be True or False; got {two_class!r:.80}")
        rule = AfterN() if rule is None else rule
        looked_at = getattr(rule, "looks_at_votes", False)
        return cls(n0=n0, n=n, alpha=alpha, rule=rule, bound=Bound(anytime=looked_at, two_class=bool(two_class)))

    def radius(self, n_a: ArrayLike, n_b: ArrayLike, n: ArrayLike, noise: HasRadius) -> np.ndarray:
        """The certified radius of n_a and n_b votes out of the n that were taken; 0 where nothing is certified."""
        return self.bound.radius(n_a, n_b, n, self.alpha, noise)

    def parameters(self) -> dict[str, Any]:
        """What a record's manifest says of it, as JSON values."""
        numbers = {
            field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("rule", "bound")
        }
        return numbers | {"rule": {"name": type(self.rule).__name__} | vars(self.rule), "bound": self.bound.name}
