"""The central model: real patches of all members move to the first, in a simulation only. What federations compare with."""

from __future__ import annotations

from typing import Literal

from models import GeneratorSpec
from strategies.fedavg_gan import InRounds
from strategies.fedavg_gan.local import LocalRules
from strategies.fidelity_plan import planned_fidelity
from strategies.keys import GenerativeInRounds
from strategies.planned import Planned, Shared
from strategies.pooled import KINDS, planned_moves
from strategies.view import View


class PooledGANArm(GenerativeInRounds):
    """Keys of an arm."""

    strategy: Literal["pooled_gan"]


class PooledGAN(InRounds):
    """A federation of one centre that was given the patches of the others."""

    name, title, keys = "pooled_gan", "a GAN on pooled real images", PooledGANArm
    kinds = (*InRounds.kinds, *KINDS)

    def trainings(
        self, view: View, name: str, arm: PooledGANArm, task: str, spec: GeneratorSpec
    ) -> list[Planned[Shared]]:
        host, *others = view.members(arm)
        moves = planned_moves(view, self.name, host, task, others, spec.labels, None)
        measured = planned_fidelity(view, self.name, name, arm, task, spec, arm.rounds)
        return [self.training(view, name, arm, spec, measured, "central", (host,), LocalRules(), moves)]
