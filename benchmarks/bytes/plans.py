"""What is made of which network, and what it is to reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FINAL = ("gentle", "strict", "small")
"""The files of one network, from the largest to the smallest: for its gate, its aim and its stretch."""


@dataclass(frozen=True)
class Plan:
    """How one network is made smaller. `published_error_pct`: of the uncompressed network in the papers."""

    network: str
    parameters: int
    published_error_pct: float
    gate: float
    aim: float
    stretch: float
    dense_epochs: int
    prune_epochs: int
    cluster_epochs: int
    fine_cluster_epochs: int
    """Of the finer codebooks of the gentle and the strict file."""
    kept: Mapping[str, int]
    """How many weights at most, of each file."""
    fine_shift: int = 0
    """Over how many pixels each way the teacher of the finer codebooks looks around (`teacher_shift`)."""
    teacher: str = "lenet5"
    """The network whose dense form is the teacher while weights are taken away and clustered."""
    max_samples: int = 0

    @property
    def float_bytes(self) -> int:
        """Of the parameters as float32."""
        return 4 * self.parameters


def _kept(*weights: int) -> Mapping[str, int]:
    return dict(zip(FINAL, weights, strict=True))


PLANS = {
    plan.network: plan
    for plan in (
        Plan("lenet300", 266_610, 1.64, 40, 70, 100, 25, 40, 12, 24, _kept(30_000, 16_000, 6_000)),
        Plan("lenet5", 431_080, 0.80, 39, 150, 280, 12, 30, 5, 20, _kept(30_000, 11_000, 5_000), 1),
    )
}
