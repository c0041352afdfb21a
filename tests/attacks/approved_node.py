"""A node that has approved a study, and a server that may send it anything: the real code of both sides, over the envelope."""

from dataclasses import replace

from clients import app
from clients.approval import Approvals
from clients.centre_file import CentreFile
from federation.wire.code_digest import code_digest
from federation.wire.job import Job, Reply
from federation.wire.units import digest, scenario_digest
from scenarios.plan import Plan
from scenarios.reader import resolved_yaml

# What the server finds out on the way, where an attack does not choose it.
FOUND = {
    "federation": "ab12", "fresh": 0, "introduce": False, "state_unit": "", "attempt": 0, "round": 0, "from_step": 0, "version": 0,
    "batches": 1, "labels": (1,), "send_discriminator": False, "discriminator_of": "", "signature": "", "history": {}, "best": {},
    "pools": (),
}  # fmt: skip


class ApprovedNode:
    """One centre of a scenario.

    Args:
        centre_file: the fixture.
        settings: of centre.yaml.
    """

    def __init__(self, centre_file, folder, scenario, centre="B", approve=True, **settings):
        self.path = centre_file(folder / centre, centre, **settings)
        self.file = CentreFile.read(self.path)
        self.file.workspace.mkdir(parents=True, exist_ok=True)
        self.file.workspace.chmod(0o700)
        self.centre, self.plan = centre, Plan(scenario, deployed=True)
        self.resolved = resolved_yaml(scenario)
        self.digest = scenario_digest(self.resolved)
        self.approvals = Approvals(self.file.workspace)
        if approve:
            self.approvals.add(self.resolved)

    def asked(self, kind, strategy=None, number=0):
        """One of the study's asks of this centre."""
        return [
            ask for ask in self.plan.asks()
            if (ask.kind.name, ask.centre) == (kind, self.centre) and strategy in (None, ask.strategy)
        ][number]  # fmt: skip

    def job(self, ask, arrays=None, state=None, unit=None, **found):
        """A job of an ask, as the server would send it."""
        known = {key: found.get(key, FOUND.get(key)) for key in ask.free}
        body = ask.kind.body.model_construct(**ask.fixed, **known).model_dump(mode="json", warnings=False)
        if "compute" in body:
            body["compute"] |= {"device": "cpu", "precision": "fp32"}  # as after the survey
        unit = unit or digest([ask.kind.name, body, state])
        return Job("study", unit, self.centre, ask.kind.name, body, arrays or {}, code=code_digest(), scenario=self.digest,
                   strategy=ask.strategy, expects_state=state)  # fmt: skip

    def answer(self, job, **changes):
        """The node's reply."""
        job = replace(job, **changes)
        received = Job.from_record(job.to_record())
        return Reply.from_record(app.answer(received, {"centre_file": str(self.path)}).to_record(), job)

    def ask(self, ask, arrays=None, state=None, unit=None, **found):
        """The node's reply to a job of an ask."""
        return self.answer(self.job(ask, arrays, state, unit, **found))
