"""Flower's own error replies: they leave without a word of what went wrong, and with a line in the record.

Flower answers by itself where this project's code never saw a message, or ended in the middle: a client process that was
killed, a message of another type, a fault in Flower's own code. Its client process would send the text of the exception, with the paths
and names in it (`without_text`); the SuperNode stores every reply before it sends it, and there it is recorded (`record`).
"""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path
from uuid import uuid4

from flwr.app import Error, Message

from clients import node_log
from clients.centre_file import CentreFileError
from clients.ledger import Ledger, LedgerError
from clients.ledger_line import FLOWER_ERROR
from federation.wire.job import canonical_json

log = logging.getLogger("flwr")


def without_text(message: Message, workspace: Path | None) -> Message:
    """An error reply whose text stays here, in node.log or where there is none on the console."""
    reference = uuid4().hex[:8]
    text = f"Flower's error {message.error.code}: reference {reference}\n{message.error.reason}"
    if workspace is None:
        log.error("%s", node_log.shown(text))
    else:
        node_log.write(workspace, text)
    message.error = Error(message.error.code, f"the text stays at the node (reference {reference})")
    return message


def is_error_reply(message: Message) -> bool:
    """Whether a message is one of Flower's own error replies."""
    return message.has_error() and bool(message.metadata.reply_to_message_id)


def record(message: Message, path: Path) -> None:
    """Write the line of an error reply into the record of a centre.

    One that cannot be recorded is said on the console and leaves all the same: it holds Flower's number and a fixed sentence. So does
    the refusal of a job that cannot be recorded.

    Args:
        path: the centre's own file, read again as for every job.
    """
    error = message.error
    try:
        centre, ledger = Ledger.of_path(path)
        sent = canonical_json({"code": error.code, "reason": error.reason}).encode()
        ledger.record_other(
            FLOWER_ERROR, f"flower_{error.code}", centre, received=received_by_flower(message),
            sha256=hashlib.sha256(sent).hexdigest(), bytes_up=len(sent),
        )  # fmt: skip
    except (CentreFileError, LedgerError, OSError) as problem:
        log.error("Flower's error reply %s is not in the record: %s", error.code, problem)


def received_by_flower(reply: Message) -> str:
    """Flower's id of the message that a reply answers, which is the SHA-256 of that message in Flower's own form."""
    asked = reply.metadata.reply_to_message_id
    if re.fullmatch(r"[0-9a-f]{64}", asked):
        return asked
    return hashlib.sha256(asked.encode(errors="surrogatepass")).hexdigest()
