"""How dm-GAN's exchange is run, and what one training of it is; see `server` for the algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from federation.wire.transport import Transport
from models import GeneratorSpec
from strategies.ask import Ask
from strategies.dm_gan.local import (
    Exchanged,
    GradientRules,
)
from strategies.fidelity_plan import Fidelity
from strategies.members import Member


@dataclass(frozen=True)
class DmGANSettings:
    """How the exchange is run.

    Attributes:
        updates: generator updates in all; each takes the answers of a quorum.
        batches_per_job: training steps of a discriminator in one job.
        steps: each: an update is one optimizer step per batch of a job; mean: one step with their mean (needed where
            only the mean comes back, exchange generator).
        lock_step: every update waits for every centre (the paper's algorithm 1).
        quorum: answers of an asynchronous update.
        update_timeout_s: after this, from its first answer, an update takes what is there.
        max_staleness: bound on tau; none: twenty updates per centre, so that one ten times slower is still heard.
        staleness_power: a.
        weights: pi_j by number of patches, or equal.
        swap_every: updates after which discriminators change places (md_gan).
        adapt: choose each centre's job size from its measured round trip (deployment).
        refusals: errors of a centre in a row after which it is asked no more.
    """

    updates: int
    batches_per_job: int = 8
    steps: Literal["each", "mean"] = "each"
    lock_step: bool = False
    quorum: int = 1
    update_timeout_s: float | None = None
    max_staleness: int | None = None
    staleness_power: float = 0.5
    weights: Literal["patches", "equal"] = "patches"
    exchange: Exchanged = "images"
    gradients: GradientRules = GradientRules()
    transport: Transport = "fp32"
    swap_every: int | None = None
    adapt: bool = False
    step_s: float = 1.0
    refusals: int = 5

    @property
    def optimizer_steps(self) -> int:
        """Steps of the generator's optimizer in all, at the job size that jobs begin with."""
        return self.updates * (self.batches_per_job if self.steps == "each" else 1)


@dataclass(frozen=True)
class DmGANPlan:
    """One generator, trained for one task; see `strategies.fedavg_gan.server.Federation` for the fields of the same names."""

    arm: str
    task: str
    strategy: str
    spec: GeneratorSpec
    build_seed: int
    members: tuple[Member, ...]
    settings: DmGANSettings
    fidelity: Fidelity
    device: str = "cpu"

    @property
    def asks(self) -> tuple[Ask, ...]:
        """All that it asks of the centres."""
        return (*(member.ask for member in self.members), *self.fidelity.asks)
