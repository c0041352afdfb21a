"""Every job that a study may ask of a centre, read from the product: (strategy, kind, centre, task, fixed body, free keys)."""

from clients import approved_study
from federation.wire.job import Job


def asked(plan):
    """Yields one entry per kind of job, in no particular order."""
    from clients.approved_study import (
        _adoptions,
        _cells,
        _classifier_rounds,
        _discriminators,
        _measurements,
        _orders,
        _rounds,
        _sums,
        _surveys,
        _syntheses,
        _tests,
        _validations,
    )  # fmt: skip
    from scenarios.federations import federated_classifier, federations

    approved_study._alike = lambda plan, job: plan.cells()
    kinds = {
        "survey": _surveys, "train_generator": _orders, "feature_sums": _sums, "measure_generator": _measurements,
        "train_round": _rounds, "train_discriminator": _discriminators, "synthesise": _syntheses, "learn": _cells, "test": _tests,
        "validate_classifier": _validations, "adopt_classifier": _adoptions,
    }  # fmt: skip
    for centre in plan.scenario.centres:
        for kind, of in kinds.items():
            for one in of(plan, centre, Job("s", "u", centre, kind, {})):
                yield one.strategy, kind, centre, one.fixed, sorted(one.ranges)
        seen = set()
        for cell in plan.cells():
            if cell.strategy == "fedavg_classifier":
                for member in federated_classifier(plan, cell).federation.members:
                    if member.centre == centre and member.body["seed"] not in seen:
                        seen.add(member.body["seed"])
                        job = Job("s", "u", centre, "train_classifier_round", member.body)
                        for one in _classifier_rounds(plan, centre, job):
                            yield one.strategy, "train_classifier_round", centre, one.fixed, sorted(one.ranges)
    for transfer in plan.transfers():
        for centre, body in transfer.bodies.items():
            yield "pooled", "send_patches", centre, body, []
            yield "pooled", "receive_patches", transfer.receiver, {}, []
    for planned in federations(plan):
        f = planned.federation
        for centre, body in (f.pooled or {}).items():
            yield f.strategy, "send_patches", centre, body, []
            yield f.strategy, "receive_patches", f.members[0].centre, {}, []
