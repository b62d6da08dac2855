"""How much a measurement measures."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """How much `make bench` measures.

    Attributes:
        repeats: of the designs whose throughput is compared.
        scale: of all amounts. Less than 1 tries the bench itself.
        write: renew docs/benchmarks.md and its images.
    """

    repeats: int
    scale: float
    write: bool

    def of(self, amount: int) -> int:
        return max(1, round(amount * self.scale))
