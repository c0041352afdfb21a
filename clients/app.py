"""The ClientApp: every message is a job of a declared kind (`strategies.KINDS`), done by that kind's local half.

An exception never leaves the hospital as text: Flower would send `str(exception)` to the server, with the
paths and patient identifiers in it. The server gets a code and numbers; the text stays in `node.log`.
"""

from __future__ import annotations

import errno
import os
import socket
import time
import traceback
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from basics.words import one_line
from clients import minimums, plugins, policy, received_weights
from clients.answers import Answers
from clients.digests import job_digest, record_digest
from clients.introduction import introduction
from clients.ledger import Ledger, recorded
from clients.local_state import remembered
from clients.node import Node, Refusal
from clients.side import NodeSide
from federation.wire.arrays import check_arrays
from federation.wire.code_digest import code_digest
from federation.wire.errors import TEXTS, EnvelopeError
from federation.wire.job import IDENTIFY, Job, Reply, canonical_json
from federation.wire.names import is_plain_name
from strategies import KINDS, STRATEGIES, Kind
from strategies.kind import Arrays

app = ClientApp()


@app.query()
def handle(message: Message, context: Context) -> Message:
    """Do one job and reply; see `federation.wire.job` for the envelope."""
    config = context.node_config
    try:
        node = Node.own(config)
    except Refusal:
        node = None  # said in `answer`, in reply to the job
    try:
        job = Job.from_record(message.content, at_most=policy.largest_message(node))
    except EnvelopeError as problem:
        # Nothing of the message can be trusted, not even whom to answer; the code says why.
        refused = Reply("", "", "", "", code=problem.code, numbers=problem.numbers)
        reply = refused if node is None else _recorded(node, None, refused, record_digest(message.content))
        return Message(reply.to_record(), reply_to=message)
    return Message(answer(job, config).to_record(), reply_to=message)


def answer(job: Job, config: Mapping[str, Any]) -> Reply:
    """Do a job; an exception becomes an error reply with a code.

    Args:
        config: the node's own configuration; see `Node.of`.
    """
    started = time.time()
    try:
        node = Node.of(job, config)
    except OSError:
        return replace(Reply.error(job, "no_workspace"), started=started, finished=time.time())
    except Refusal as refusal:
        return Reply.error(job, refusal.code, **refusal.numbers)
    received = job_digest(job) if node.deployed else ""  # before a job's work, which may write into its arrays
    try:
        if node.deployed:
            _ledger(node).check()
        with plugins.allowed_at(node):
            reply = _answered(node, job)
    except Exception as problem:  # the one place where everything that a job can raise ends
        code, numbers = _as_code(problem, node, job)
        reply = Reply.error(job, code, **numbers)
    # What a hospital calls its machines is not the server's business.
    worker = f"{node.centre if node.deployed else socket.gethostname()}/{os.getpid()}"
    return replace(_recorded(node, job, reply, received), started=started, finished=time.time(), worker=worker)


def _answered(node: Node, job: Job) -> Reply:
    if job.kind == IDENTIFY:  # whoever asks, with whatever code: the server cannot address a job before it knows
        plugins.check(node, job)
        return replace(Reply.error(job, "ok"), body=introduction(node))
    _check_code(node, job)
    question = policy.accept(node, job)
    if question is None or question.kind.once:
        reply = policy.release(node, job, _done(node, policy.on_own_terms(node, job)))
        policy.covered(node, job)
        return reply
    answers, kind = Answers(node.kept), question.kind
    before = answers.answered(question)
    if before and kind.kept and not kind.stateful:
        body, arrays = answers.answer(question)
        return Reply(job.study, job.unit, job.centre, job.kind, body=body, arrays=arrays)
    own = policy.on_own_terms(node, job)
    if not before:
        received_weights.check(node.kept, question, kind.parse(own.body), _fitting(kind, own))
    reply = policy.release(node, job, _done(node, own, question=question.inputs, answered=before))
    answers.keep(question, reply.body, reply.arrays)
    policy.covered(node, job)
    return reply


def _recorded(node: Node, job: Job | None, reply: Reply, received: str) -> Reply:
    return recorded(_ledger(node), node.centre, job, reply, received) if node.deployed else reply


def _ledger(node: Node) -> Ledger:
    return Ledger(node.workspace) if node.file is None else Ledger.of(node.file)


def _fitting(kind: Kind, job: Job) -> Arrays:
    """A job's arrays, which are those that its kind declares.

    Raises:
        Refusal: they are not.
    """
    wrong = kind.misfit_in(kind.parse(job.body), job.arrays)
    if wrong:
        raise Refusal("wrong_arrays", name=wrong[:64])
    return job.arrays


def _done(node: Node, job: Job, *, question: str = "", answered: bool = False) -> Reply:
    """Do a job; see `clients.local_state.remembered` for the arguments."""
    kind, here = KINDS[job.kind], NodeSide(node, job)
    body = kind.parse(job.body)
    _fitting(kind, job)
    minimums.check(node, kind, body)
    compute = getattr(body, "compute", None)
    torch.set_num_threads(compute.threads if compute is not None else 1)
    if kind.stateful:
        answer, arrays = remembered(
            node,
            job,
            body,
            lambda state: kind.work(here, body, job.arrays, state),
            question=question,
            answered=answered,
        )
    else:
        answer, arrays = kind.work(here, body, job.arrays)
    canonical_json(answer)  # a reply that cannot travel is an error of this job, too
    check_arrays(arrays)
    return Reply(job.study, job.unit, job.centre, job.kind, body=answer, arrays=arrays)


def _check_code(node: Node, job: Job) -> None:
    # In a simulation a test may leave it out.
    if (job.code or node.deployed) and job.code != code_digest():
        raise Refusal("code_mismatch", ours=job.code, theirs=code_digest())
    plugins.check(node, job)
    if job.strategy in STRATEGIES:
        STRATEGIES[job.strategy]  # a plug-in's kinds of jobs are known from here on
    if job.kind not in KINDS:
        raise Refusal("unknown_kind", kind=job.kind)


def _as_code(problem: Exception, node: Node, job: Job) -> tuple[str, dict]:
    """(code, numbers that are safe to share); the rest goes into the centre's own log."""
    code = getattr(problem, "code", None)
    if isinstance(code, str) and is_plain_name(code):
        node.log(f"{_label(job)} [{job.unit}]: {code}: {problem}")
        numbers = getattr(problem, "numbers", {})
        # Only what a template can show: numbers and short setting names, as the raiser declared them.
        return code, {k: v for k, v in numbers.items() if isinstance(v, int | float | str | bool)} | (
            {} if code in TEXTS else {"reference": job.unit}
        )
    reference = uuid4().hex[:8]
    full = isinstance(problem, MemoryError) or "can't allocate memory" in str(problem)  # the second is torch's
    node.log(f"{_label(job)} [{job.unit}]: reference {reference}\n{''.join(traceback.format_exception(problem))}")
    if getattr(problem, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(problem):
        return "no_workspace", {}  # the second is safetensors'
    return "out_of_memory" if full else "exception", {"reference": reference}


def _label(job: Job) -> str:
    return one_line(job.label[:256], 64) or job.kind
