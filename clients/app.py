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

from clients import plugins, policy
from clients.introduction import introduction
from clients.ledger import recorded
from clients.local_state import remembered
from clients.node import Node, Refusal
from clients.side import NodeSide
from federation.wire.arrays import check_arrays
from federation.wire.code_digest import code_digest
from federation.wire.errors import TEXTS, EnvelopeError
from federation.wire.job import IDENTIFY, Job, Reply, canonical_json
from federation.wire.names import is_plain_name
from strategies import KINDS, STRATEGIES

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
        reply = _recorded(node, None, Reply("", "", "", "", code=problem.code, numbers=problem.numbers))
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
    try:
        with plugins.allowed_at(node):
            reply = _answered(node, job)
    except Exception as problem:  # the one place where everything that a job can raise ends
        code, numbers = _as_code(problem, node, job)
        reply = Reply.error(job, code, **numbers)
    # What a hospital calls its machines is not the server's business.
    worker = f"{node.centre if node.deployed else socket.gethostname()}/{os.getpid()}"
    return replace(_recorded(node, job, reply), started=started, finished=time.time(), worker=worker)


def _answered(node: Node, job: Job) -> Reply:
    if job.kind == IDENTIFY:  # whoever asks, with whatever code: the server cannot address a job before it knows
        plugins.check(node, job)
        return replace(Reply.error(job, "ok"), body=introduction(node))
    _check_code(node, job)
    policy.accept(node, job)
    return policy.release(node, job, _done(node, policy.on_own_terms(node, job)))


def _recorded(node: Node | None, job: Job | None, reply: Reply) -> Reply:
    return reply if node is None or not node.deployed else recorded(node.workspace, node.centre, job, reply)


def _done(node: Node, job: Job) -> Reply:
    kind, here = KINDS[job.kind], NodeSide(node, job)
    body = kind.parse(job.body)
    wrong = kind.misfit_in(body, job.arrays)
    if wrong:
        raise Refusal("wrong_arrays", name=wrong[:64])
    compute = getattr(body, "compute", None)
    torch.set_num_threads(compute.threads if compute is not None else 1)
    if kind.stateful:
        answer, arrays = remembered(node, job, body, lambda state: kind.work(here, body, job.arrays, state))
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
        node.log(f"{job.label or job.kind} [{job.unit}]: {code}: {problem}")
        numbers = getattr(problem, "numbers", {})
        # Only what a template can show: numbers and short setting names, as the raiser declared them.
        return code, {k: v for k, v in numbers.items() if isinstance(v, int | float | str | bool)} | (
            {} if code in TEXTS else {"reference": job.unit}
        )
    reference = uuid4().hex[:8]
    full = isinstance(problem, MemoryError) or "can't allocate memory" in str(problem)  # the second is torch's
    node.log(
        f"{job.label or job.kind} [{job.unit}]: reference {reference}\n{''.join(traceback.format_exception(problem))}"
    )
    if getattr(problem, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(problem):
        return "no_workspace", {}  # the second is safetensors'
    return "out_of_memory" if full else "exception", {"reference": reference}
