"""MD-GAN (Hardy et al. 2019): dm_gan in lock-step, with discriminators that change places; there they do leave their centre."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from pydantic import Field

from strategies.dm_gan import Remote, RemoteArm
from strategies.dm_gan.settings import DmGANSettings
from strategies.view import Facts, View


class MdGANArm(RemoteArm):
    """Keys of an arm."""

    strategy: Literal["md_gan"]
    swap_every: int = Field(10, ge=1, description="updates after which discriminators change places")


class MdGAN(Remote):
    """Every update waits for every centre."""

    name, title, keys = "md_gan", "discriminators that change places", MdGANArm

    def problems(self, facts: Facts, name: str, arm: MdGANArm) -> Iterator[str]:
        yield from super().problems(facts, name, arm)
        if len(facts.members(arm)) < 2:
            yield f"arms.{name}.centres: md_gan lets discriminators change places and has one centre; name two"

    def settings(self, view: View, arm: MdGANArm) -> DmGANSettings:
        return replace(super().settings(view, arm), lock_step=True)
