"""What is made of which network, and what it is to reach."""

from __future__ import annotations

from dataclasses import dataclass


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
    """Of the finer codebooks of the strict file."""
    kept: tuple[int, int]
    teacher: str = "lenet5"
    """The network whose dense form is the teacher while weights are taken away and clustered."""
    max_samples: int = 0

    @property
    def float_bytes(self) -> int:
        """Of the parameters as float32."""
        return 4 * self.parameters


PLANS = {
    plan.network: plan
    for plan in (
        Plan("lenet300", 266_610, 1.64, 40, 70, 100, 25, 40, 12, 24, (16_000, 6_000)),
        Plan("lenet5", 431_080, 0.80, 39, 150, 280, 12, 30, 5, 20, (11_000, 5_000)),
    )
}
