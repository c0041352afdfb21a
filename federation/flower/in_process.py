"""Engine without Flower's runtime: a `Grid` that calls the ClientApp in this process.

For tests and debugging: without Ray and ports, breakpoints work, and a test can inject delays and faults.
Jobs run one at a time, because torch's thread count and global generator belong to the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

FIRST_NODE = 101
Fault = Callable[[Message], Message | None]


class InProcessGrid(Grid):
    """Calls `client_app(message, context)` when replies are pulled.

    Args:
        client_app: the project's ClientApp.
        nodes: how many; their ids are 101, 102, ...
        run_config: what Flower would pass as the configuration of the run.
        fault: called before each job; a returned message replaces the client's answer.
        on_message: called with every message, in both directions.
        node_configs: the configuration of each node, by node id; by default its number, as in Flower's simulation.
    """

    def __init__(
        self,
        client_app: ClientApp,
        nodes: int,
        run_config: dict[str, str | int | float | bool],
        *,
        fault: Fault = lambda message: None,
        on_message: Callable[[Message], None] = lambda message: None,
        node_configs: Mapping[int, Mapping[str, Any]] | None = None,
    ):
        # A message takes its sender from the identity of the process, which Flower sets in the processes that it starts.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, SUPERLINK_NODE_ID
        self._client_app = client_app
        self._run_id = 1
        self._fault = fault
        self._on_message = on_message
        self._contexts = {
            node: Context(
                run_id=self._run_id,
                node_id=node,
                node_config=dict(
                    node_configs[node] if node_configs else {"partition-id": node - FIRST_NODE, "num-partitions": nodes}
                ),
                state=RecordDict(),
                run_config=dict(run_config),
            )
            for node in range(FIRST_NODE, FIRST_NODE + nodes)
        }
        self._waiting: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        self._run_id = run.run_id

    @property
    def run(self) -> Run:
        return Run.create_empty(run_id=self._run_id)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            message_id = str(uuid4())
            # Flower's own in-memory grid also sets the id where it stores the message.
            message.metadata.__dict__.update(_message_id=message_id, _run_id=self._run_id)
            self._on_message(message)
            self._waiting[message_id] = message
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for message_id in message_ids:
            message = self._waiting.pop(message_id, None)
            if message is None:
                continue
            reply = self._fault(message)
            if reply is None:
                try:
                    reply = self._client_app(message, self._contexts[message.metadata.dst_node_id])
                except Exception as problem:  # like Flower, which reports the text of an exception
                    reply = Message(Error(code=2, reason=f"{type(problem)}:<'{problem}'>"), reply_to=message)
            self._on_message(reply)
            return [reply]  # one at a time, so that the server records each unit when it is done
        return []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        waiting = set(self.push_messages(messages))
        replies = []
        while waiting:
            for reply in self.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                replies.append(reply)
        return replies
