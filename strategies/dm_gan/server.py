"""One generator on the server, a discriminator at every centre that never leaves it (dm-GAN, paper 003; AsynDGAN before it).

Paper 003's equation 2 weights the centres by pi_j and its text calls the training asynchronous; its algorithm 1 is
lock-step with a plain mean. **The asynchrony here is this project's own**: nobody waits for the slowest centre. A centre's job
is a number of training steps of its discriminator on images of one version of the generator; its answer is a
gradient, weighted by

    pi_j J (1 + tau)^-a / |S|        J centres, S the answers of an update, tau the updates since its version

and dropped beyond a bound on tau. With all centres and tau 0 these weights sum to one: the paper's algorithm 1, which is
`lock_step`. An update takes the answers of a quorum, or what is there when its time is up.

Two exchanges give the same gradient of the generator:

    images      the server sends generated images, the centre returns the gradient with respect to them; bytes do not
                depend on the networks
    generator   the server sends the generator, the centre makes its own images and returns the gradient of the weights; for
                generators whose input comes from private images

No term on a real image (L1, perceptual) crosses the wire: its gradient bisects the image. Only adversarial gradients do, clipped
and with noise where asked for. `md_gan` is lock-step with discriminators that change places (Hardy et al. 2019): there
they do leave their centre.

Longer than most files, because it is one exchange: jobs, answers, updates, and the record from which it goes on.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from basics.seeds import derive_seed
from federation.wire.availability import Fate
from federation.wire.centres import Centres
from federation.wire.clock import Arrival, Clock
from federation.wire.exchange import Exchange
from federation.wire.job import Job, Reply
from federation.wire.transport import encode_noting_error
from federation.wire.units import Units, digest
from models.precision import processor
from strategies.dm_gan.generator import Draw, Gradients, RemoteGenerator, combine
from strategies.dm_gan.local import (
    DISCRIMINATE,
    DISCRIMINATOR,
    GENERATOR,
    decode_gradients,
)
from strategies.dm_gan.settings import DmGANPlan
from strategies.dm_gan.sizes import FAKE, LARGEST_BYTES, LARGEST_JOB, adapted, images_layout
from strategies.fidelity_plan import Reference
from strategies.kind import Arrays, layout_bytes
from strategies.members import FederationFailed, Summary, sound, summary_of
from strategies.one_shot import preview_of
from strategies.planned import FederationRecord, Generated, ServerHalf, Shared


@dataclass
class _Centre:
    """The server's view of a centre.

    version, made_by: of its state, and the unit that made it. chain: all that its next job builds on. step: local steps
    done. batches: size of its next job. refused: answers in a row that were none.
    """

    version: int = 0
    chain: str = ""
    fresh: int = 0
    step: int = 0
    batches: int = 1
    refused: int = 0
    swapped_from: str = ""
    made_by: str = ""


@dataclass(frozen=True)
class _Tag:
    """What a job was made from."""

    version: int
    draw: Draw


@dataclass(frozen=True)
class _Discriminator:
    """One that is on its way to another centre.

    Attributes:
        centre: that trained and signed it.
    """

    centre: str
    signature: str
    arrays: Arrays


_NONE = _Discriminator("", "", {})


@dataclass
class _Contribution:
    centre: str
    unit: str
    staleness: int
    gradients: list[Gradients] = field(default_factory=list)


@dataclass
class _Progress:
    identity: str
    update: int = 0
    idle: list[str] = field(default_factory=list)
    centres: dict[str, _Centre] = field(default_factory=dict)
    summary: Summary = field(default_factory=Summary)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    measured: list[dict[str, Any]] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    swapping: dict[str, _Discriminator] = field(default_factory=dict)


class RemoteTraining(ServerHalf[Shared]):
    """Trains one generator with discriminators at the centres; shared under the arm's name."""

    def __init__(self, units: Units, plan: DmGANPlan, clock: Clock):
        self._units, self._plan, self._clock = units, plan, clock
        self._members = {member.centre: member for member in plan.members}
        self._spec = plan.spec
        self._done = _Progress("")
        self._prepared: dict[str, tuple[_Tag, Arrays]] = {}  # by centre, its next job's images
        self._saved_at = (0.0, 0.0)  # when the last recording began and ended (monotonic)
        self._used: list[str] = []  # units whose answers are in the generator and not yet in the recorded progress

    def share(self, centres: Centres) -> Exchange[Shared]:
        try:
            return (yield from self._share(centres))
        except FederationFailed as problem:
            return Shared(problems=[str(problem)], federations=[replace(self._record(), failed=str(problem))])

    def _record(self) -> FederationRecord:
        plan, done = self._plan, self._done
        return FederationRecord(
            plan.arm, plan.task, plan.strategy, "federation", done.update, done.summary, self._clock.rows, done.measured,
            plan.settings.transport,
        )  # fmt: skip

    def _share(self, centres: Centres) -> Exchange[Shared]:
        plan, settings, self._centres = self._plan, self._plan.settings, centres
        reference = yield from plan.fidelity.reference(self._units, centres, self._clock)
        self.weigh(reference)
        key = self._key(reference)
        self._generator = RemoteGenerator(self._spec, plan.build_seed, settings.optimizer_steps, plan.device)
        self._done = _Progress(digest([key, "initial"]), idle=list(self._members))
        for member in plan.members:
            self._done.centres[member.centre] = _Centre(batches=settings.batches_per_job)
        self._federation, self._identities = key, {0: self._done.identity}
        self._resume()
        preview = None
        while self._done.update < settings.updates:
            for name in self._take_idle():
                self._send(name)
            if self._clock.real and not settings.lock_step and settings.exchange == "images":
                yield from self._clock.flush()
                self._prepare()
            contributions = yield from self._collect()
            self._apply(contributions)
            if settings.swap_every and self._done.update % settings.swap_every == 0:
                self._swap()
            if plan.fidelity.due(self._done.update, settings.updates):
                preview = yield from self._measure(reference)
                if self._done.update == settings.updates:
                    # Answers that are still under way are no longer needed, nor are the versions that they were made from.
                    self._clock.drop_outstanding()
                    self._generator.forget_versions(set())
                    self._save()
                elif self._clock.real or self._worth_saving():
                    self._save()
            elif self._clock.real:
                # Answers of a replay would come in another order: only what is recorded counts.
                self._save()
        if preview is None:  # the run was ended after its last update
            preview = yield from self._measure(reference, again=True)
        self._clock.drop_outstanding()
        done = self._done
        card = {
            "data_card": {centre: facts["data_card"] for centre, facts in done.facts.items()},
            "trained_on": {centre: facts["trained_on"] for centre, facts in done.facts.items()},
            "history": {},
        }
        made = Generated(
            done.identity, plan.spec, self._generator.model.shared_arrays(), tuple(done.facts), card, preview,
            reference.classes(plan.spec),
        )  # fmt: skip
        return Shared(
            generators={(plan.arm, plan.task): made}, federations=[self._record()], notes=list(reference.notes)
        )

    def _key(self, reference: Reference) -> str:
        plan, f = self._plan, self._plan.fidelity
        return digest({
            "dm_gan": [plan.arm, plan.task, plan.strategy], "spec": plan.spec.model_dump(mode="json"), "seed": plan.build_seed,
            "settings": asdict(plan.settings) | {"gradients": plan.settings.gradients.model_dump()}, "device": plan.device,
            "members": [member.identity(self._units) for member in plan.members],
            "server": [torch.__version__, processor(plan.device)],
            "fidelity": [f.identity, list(reference.units)],
            "code": self._units.code, "clock": self._clock.identity,
        })  # fmt: skip

    def weigh(self, reference: Reference) -> None:
        """Set the centres' weights pi_j, which sum to one, from their numbers of patches (or equal), and their classes."""
        counts = {
            name: reference.images[name] if self._plan.settings.weights == "patches" else 1 for name in self._members
        }
        self._labels_of, self._labels = reference.labels_of, reference.labels
        self._pi = {name: count / sum(counts.values()) for name, count in counts.items()}

    # -- jobs ----------------------------------------------------------------------------------------------------

    def _take_idle(self) -> list[str]:
        names, self._done.idle = self._done.idle, []
        return names

    def _send(self, name: str) -> None:
        """Send a centre its next job, made from the present generator."""
        centre, prepared = self._done.centres[name], self._prepared.pop(name, None)
        if prepared is not None and self._suits(prepared[0].draw, centre):
            tag, made = prepared
        else:
            seed = int(self._members[name].ask.fixed["seed"])
            draw = Draw(seed, centre.step, centre.batches, self._labels_of[name])
            tag, made = _Tag(self._generator.version, draw), None
        job = self._job(name, tag, made)
        if self._plan.settings.exchange == "images" and made is None:
            self._generator.follow_statistics()
        self._done.summary.jobs += 1
        up = sum(array.nbytes for n, array in job.arrays.items() if n.endswith("generator")) or job.nbytes
        self._clock.send(job, work_s=tag.draw.batches * self._plan.settings.step_s, bytes_up=up, tag=tag)

    def _can_go_on(self, name: str) -> bool:
        """Whether an idle centre's next job is at hand."""
        ahead = self._prepared.get(name)
        return name in self._done.idle and ahead is not None and self._suits(ahead[0].draw, self._done.centres[name])

    def _suits(self, draw: Draw, centre: _Centre) -> bool:
        """Whether images that were made ahead are those of a centre's next job, and about as many as it is to get by now."""
        return draw.from_step == centre.step and 0.8 <= draw.batches / centre.batches <= 1.25

    def _prepare(self) -> None:
        """Make the images of each centre's next job while it works on the present one.

        In a deployment, where making them would keep its node waiting; the answer will be as much staler as updates come in between.
        """
        for arrival in self._clock.under_way:
            name, under_way = arrival.centre, arrival.tag.draw
            if name not in self._prepared:
                batches = self._done.centres[name].batches
                draw = replace(under_way, from_step=under_way.from_step + under_way.batches, batches=batches)
                tag = _Tag(self._generator.version, draw)
                self._prepared[name] = (tag, self._made(tag))
                self._generator.follow_statistics()

    def _made(self, tag: _Tag) -> Arrays:
        """What a job brings, as it travels.

        Raises:
            FederationFailed: it is not finite.
        """
        settings = self._plan.settings
        if settings.exchange == "images":
            plain = {FAKE + phase: images for phase, images in self._generator.images(tag.version, tag.draw).items()}
        else:
            plain = {GENERATOR + name: array for name, array in self._generator.weights(tag.version).items()}
        try:
            if not all(np.isfinite(array).all() for array in plain.values()):
                raise ValueError("the generator is not finite; lower learning_rate")
            arrays, error = encode_noting_error(plain, settings.transport)
        except ValueError as problem:
            raise FederationFailed(f"{self._plan.arm}: after update {tag.version}: {problem}") from None
        self._note_error(error)
        return arrays

    def _job(self, name: str, tag: _Tag, made: Arrays | None = None) -> Job:
        settings, member, centre, draw = self._plan.settings, self._members[name], self._done.centres[name], tag.draw
        brought = self._done.swapping.get(name, _NONE)
        arrays = (self._made(tag) if made is None else made) | brought.arrays
        number = tag.version
        swaps = settings.swap_every and (self._done.update + 1) % settings.swap_every == 0
        job = member.ask.job(
            self._units, inputs=[self._identities[tag.version], centre.chain, centre.swapped_from], arrays=arrays,
            label=f"{self._plan.arm} · images of version {number} of {settings.updates}", federation=self._federation,
            version=number, from_step=draw.from_step, batches=draw.batches, labels=draw.labels, fresh=centre.fresh,
            state_unit=centre.made_by, introduce=name not in self._done.facts, send_discriminator=bool(swaps),
            discriminator_of=brought.centre, signature=brought.signature,
        )  # fmt: skip
        return replace(job, expects_state=centre.version)

    # -- answers -------------------------------------------------------------------------------------------------

    def _collect(self) -> Exchange[list[_Contribution]]:
        """The answers of one update.

        Raises:
            FederationFailed: nothing is under way and nothing has come.
        """
        settings, clock, until = self._plan.settings, self._clock, math.inf
        found: list[_Contribution] = []
        while True:
            active = [n for n in self._members if n not in self._done.summary.gone]
            wanted = len(active) if settings.lock_step else min(settings.quorum, max(1, len(active)))
            if found and len(found) >= wanted:
                return found
            if not clock.outstanding:
                if found:
                    return found
                gone = ", ".join(f"{c} from {at_s:.0f} s on" for c, at_s in self._done.summary.gone.items())
                raise FederationFailed(
                    f"{self._plan.arm}: no centre answers any more at update {self._done.update} of {settings.updates} "
                    f"(gone: {gone}); bring one back and resume"
                )
            arrival = yield from clock.next(until)
            if arrival is None:
                if found:
                    return found  # its time is up
                until = math.inf
                continue
            contribution = self._judge(arrival)
            if clock.real and self._can_go_on(arrival.centre):
                self._done.idle.remove(arrival.centre)
                self._send(arrival.centre)
                yield from clock.flush()  # before its answer is worked into the generator
            if contribution is not None:
                assert arrival.reply is not None, "or there would be no contribution"
                contribution.gradients = self._gradients(arrival.reply, arrival.tag)
                found.append(contribution)
                if len(found) == 1 and settings.update_timeout_s is not None:
                    until = clock.now + settings.update_timeout_s
            # Who answered goes on at once, but with the new version if this answer completes the update, and in
            # lock-step only together with the others.
            complete = len(found) >= wanted
            if not complete and (contribution is None or not settings.lock_step):
                for name in self._take_idle_but(found if settings.lock_step else []):
                    self._send(name)

    def _take_idle_but(self, waiting: list[_Contribution]) -> list[str]:
        waits = {contribution.centre for contribution in waiting}
        names = [name for name in self._done.idle if name not in waits]
        self._done.idle = [name for name in self._done.idle if name in waits]
        return names

    def _judge(self, arrival: Arrival) -> _Contribution | None:
        """What an answer adds to the update; a centre that is to work on is idle afterwards."""
        done, clock, name, tag, reply = self._done, self._clock, arrival.centre, arrival.tag, arrival.reply
        summary, centre = done.summary, done.centres[name]
        if reply is None:
            summary.lost += 1
            clock.note(arrival, tag.version, _KIND, arrival.fate.lost or "lost")
            # A simulated dropout is declared; real losses in a row mean that something is wrong there.
            if clock.real or clock.unreachable(name):
                if clock.real and not self._plan.settings.lock_step:
                    # It may have done this job, and does the same steps once only; the next one is made from a later version.
                    centre.step += tag.draw.batches
                centre.refused += 1
                if clock.gone(name) or centre.refused >= self._plan.settings.refusals:
                    summary.gone[name] = clock.now
                    return None
            done.idle.append(name)
            return None
        if reply.code == "state_lost" and centre.version:
            summary.state_lost.append((name, done.update))
            clock.note(arrival, tag.version, _KIND, "refused")
            centre.version, centre.fresh, centre.chain = 0, done.update + 1, digest(["fresh", done.update])
            centre.made_by = ""
            done.idle.append(name)
            return None
        problem = self._trouble_with(reply)
        if problem:
            text = f"{name}: {problem}"
            summary.refused[text] = summary.refused.get(text, 0) + 1
            clock.note(arrival, tag.version, _KIND, "refused")
            self._centres.discard([reply.unit])  # a resumed run asks again instead of reading it once more
            centre.refused += 1
            if centre.refused >= self._plan.settings.refusals:
                summary.gone[name] = clock.now
            else:
                # Another attempt is another job: the same one would be answered from what was kept.
                centre.chain = digest([centre.chain, "again", centre.refused])
                done.idle.append(name)
            return None
        return self._accept(arrival, reply, tag, centre)

    def _accept(self, arrival: Arrival, reply: Reply, tag: _Tag, centre: _Centre) -> _Contribution | None:
        settings, done, name = self._plan.settings, self._done, arrival.centre
        centre.version, centre.chain, centre.refused = centre.version + 1, reply.unit, 0
        centre.made_by = reply.unit
        centre.step, centre.swapped_from = centre.step + tag.draw.batches, ""
        done.swapping.pop(name, None)  # another centre's discriminator has arrived; the next job would set it back
        done.seen[name] = done.seen.get(name, 0) + self._generator.images_seen(tag.draw)
        done.idle.append(name)
        self._used.append(reply.unit)
        self._note_error(float(reply.body["transport_error"]))
        if settings.adapt:
            centre.batches = adapted(
                tag.draw.batches, reply.finished - reply.started, arrival.fate, self._largest_job()
            )
        if settings.swap_every:
            sent = {n: a for n, a in reply.arrays.items() if n.startswith(DISCRIMINATOR)}
            if sent:
                done.swapping[name] = _Discriminator(name, str(reply.body.get("signature", "")), sent)
        staleness = self._generator.version - tag.version
        bound = settings.max_staleness if settings.max_staleness is not None else STALENESS * len(self._members)
        if staleness > bound:
            done.summary.stale += 1
            self._clock.note(arrival, tag.version, _KIND, "stale", staleness)
            return None
        done.summary.used += 1
        done.facts.setdefault(name, {k: reply.body[k] for k in _FACTS if k in reply.body})
        self._clock.note(arrival, tag.version, _KIND, "used", staleness)
        return _Contribution(name, reply.unit, staleness)

    def _largest_job(self) -> int:
        """Batches of a job at most: by number, and by the bytes of their images."""
        if self._plan.settings.exchange == "generator":
            return LARGEST_JOB
        down = layout_bytes(images_layout(self._spec, 1, self._plan.settings.transport)) or 1
        return max(1, min(LARGEST_JOB, LARGEST_BYTES // down))

    def _trouble_with(self, reply: Reply) -> str:
        """A code for why an answer cannot be used; empty: it can."""
        if not reply.ok:
            return reply.code
        # Finite as it travelled; a scale may still be too large for what it multiplies.
        received = decode_gradients(reply.arrays, self._plan.settings.transport)
        if not all(np.isfinite(array).all() for array in received.values()):
            return "not_finite"
        introduction = () if reply.centre in self._done.facts else _FACTS
        return "" if sound(reply.body, (), introduction) else "bad_body"

    def _gradients(self, reply: Reply, tag: _Tag) -> list[Gradients]:
        received = decode_gradients(reply.arrays, self._plan.settings.transport)
        if self._plan.settings.exchange == "generator":
            return [[torch.from_numpy(np.array(received[n])) for n, _ in self._generator.generator.named_parameters()]]
        found = self._generator.gradients_of(tag.version, tag.draw, received["images"])
        return found if self._plan.settings.steps == "each" else [combine([1 / len(found)] * len(found), found)]

    # -- updates -------------------------------------------------------------------------------------------------

    def _apply(self, contributions: list[_Contribution]) -> None:
        """One update: as many optimizer steps as the answers hold gradients."""
        for number in range(max(len(c.gradients) for c in contributions)):
            having = [c for c in contributions if number < len(c.gradients)]
            weights = [self.weight_of(c.centre, c.staleness, len(having)) for c in having]
            self._generator.step(combine(weights, [c.gradients[number] for c in having]))
        if not self._generator.finite:
            raise FederationFailed(
                f"{self._plan.arm}: after update {self._done.update + 1}: the generator is not finite; lower learning_rate"
            )
        self._generator.version += 1
        self._generator.keep_version()
        if self._plan.settings.exchange == "generator":
            self._generator.draw_statistics(self._plan.build_seed, self._labels)
        done = self._done
        done.update += 1
        done.identity = digest([done.identity, [c.unit for c in contributions]])
        needed = {arrival.tag.version for arrival in self._clock.under_way} | {
            t.version for t, _ in self._prepared.values()
        }
        self._generator.forget_versions(needed)
        self._identities = {v: i for v, i in self._identities.items() if v in needed} | {done.update: done.identity}

    def weight_of(self, centre: str, staleness: int, answers: int) -> float:
        """Weight of an answer among those of an update."""
        # Over the centres that are left: of those that are gone no weight is kept.
        left = {name: pi for name, pi in self._pi.items() if name == centre or name not in self._done.summary.gone}
        share = self._pi[centre] / sum(left.values())
        return share * len(left) * (1 + staleness) ** -self._plan.settings.staleness_power / answers

    def _swap(self) -> None:
        """Each discriminator goes to another centre: round by an offset that is drawn anew each time."""
        done = self._done
        names = [name for name in self._members if name in done.swapping]
        if len(names) < 2:
            done.swapping = {}
            return
        rng = np.random.default_rng(derive_seed(self._plan.build_seed, "swap", "", done.update))
        offset = int(rng.integers(1, len(names)))
        sent = done.swapping
        done.swapping = {name: sent[names[(i + offset) % len(names)]] for i, name in enumerate(names)}
        for i, name in enumerate(names):
            done.centres[name].swapped_from = digest([names[(i + offset) % len(names)], done.update, done.identity])

    def _measure(self, reference: Reference, again: bool = False) -> Exchange[tuple[np.ndarray, np.ndarray] | None]:
        """Have the generator measured; after the last update with a preview."""
        plan, done = self._plan, self._done
        last = done.update == plan.settings.updates
        reply = yield from plan.fidelity.measurement(
            self._units, reference, done.identity, self._generator.model.shared_arrays(), preview=last,
            label=f"fidelity of {plan.arm} after update {done.update}",
        )  # fmt: skip
        if not again:
            done.measured += [
                {
                    "series": "federation", "centre": name, "round": done.update, "virtual_s": self._clock.now,
                    "metric": metric, "images_seen": done.seen.get(name, 0), "value": value,
                    "floor": reference.floors[metric],
                }
                for metric, value in reply.body["distances"].items() for name in self._members
            ]  # fmt: skip
        return preview_of(reply) if last else None

    def _note_error(self, error: float) -> None:
        self._done.summary.transport_error = max(self._done.summary.transport_error, error)

    # -- progress ------------------------------------------------------------------------------------------------

    def _worth_saving(self) -> bool:
        """Whether recording takes little of the time, or much has to be replayed without it.

        Only for a simulation, where a resumed run replays recorded answers to the same result from wherever it begins.
        """
        began, ended = self._saved_at
        return time.monotonic() - ended >= _SAVING * (ended - began) or len(self._used) >= _REPLAYED

    def _save(self) -> None:
        """Record where the exchange stands: after an update, with what is under way."""
        done, began = self._done, time.monotonic()
        info = {
            "identity": done.identity, "update": done.update, "idle": done.idle, "summary": asdict(done.summary),
            "facts": done.facts, "measured": done.measured, "seen": done.seen, "clock": self._clock.state(),
            "centres": {name: asdict(centre) for name, centre in done.centres.items()},
            "identities": {str(version): identity for version, identity in self._identities.items()},
            "swapping": {
                name: [brought.centre, brought.signature, sorted(brought.arrays)] for name, brought in done.swapping.items()
            },
            "under_way": [
                {"centre": a.centre, "unit": a.unit, "fate": asdict(a.fate), "tag": asdict(a.tag)}
                for a in self._clock.under_way
            ],
        }  # fmt: skip
        arrays = self._generator.state()
        for name, brought in done.swapping.items():
            arrays |= {f"swapping.{name}.{key}": array for key, array in brought.arrays.items()}
        self._centres.save_progress(self._federation, info, arrays)
        self._centres.discard(self._used)
        self._used = []
        self._saved_at = (began, time.monotonic())

    def _resume(self) -> None:
        saved = self._centres.load_progress(self._federation)
        if saved is None:
            return
        info, arrays = saved
        self._done = _Progress(
            info["identity"], info["update"], info["idle"],
            {name: _Centre(**centre) for name, centre in info["centres"].items()},
            summary_of(info["summary"]), info["facts"], info["measured"], info["seen"],
            {
                name: _Discriminator(centre, signature, {key: arrays[f"swapping.{name}.{key}"] for key in keys})
                for name, (centre, signature, keys) in info["swapping"].items()
            },
        )  # fmt: skip
        self._identities = {int(version): identity for version, identity in info["identities"].items()}
        self._generator.load_state(arrays, info["update"])
        self._clock.load_state(info["clock"])
        for name in [name for name in self._done.summary.gone if not self._clock.gone(name)]:
            # Asked again: it may be back.
            del self._done.summary.gone[name]
            self._done.centres[name].refused = 0
            self._done.idle.append(name)
        for entry in info["under_way"]:
            draw = entry["tag"]["draw"]
            tag = _Tag(entry["tag"]["version"], Draw(**{**draw, "labels": tuple(draw["labels"])}))
            job = self._job(entry["centre"], tag)
            assert job.unit == entry["unit"], "a job made again is the same job"
            self._clock.send_again(job, Fate(**entry["fate"]), tag)


_KIND = DISCRIMINATE.name
# In a simulation progress is recorded when this many times its duration has passed, or so many answers have come.
_SAVING, _REPLAYED = 50, 500
# Default bound on staleness, in updates per centre.
STALENESS = 20
_FACTS = ("data_card", "trained_on")
