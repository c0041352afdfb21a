"""Error codes that cross the wire, and the sentence a person reads for each.

A centre sends a code and numbers; the sentence is put together on the reader's side. `{centre}` and
`{label}` are always known; the other names come from the reply's `numbers`.
"""

from __future__ import annotations

from typing import Any

# Codes of input that the user can mend before any training: the run ends with status 2.
INPUT_CODES = frozenset(
    {
        "bad_columns", "bad_encoding", "bad_image", "bad_package", "bad_table", "bad_value", "bad_weights", "batch_too_large",
        "class_missing", "duplicate_image", "lesion_without_row", "missing_file", "nan_pixels", "no_images", "no_label",
        "no_lesions", "no_validation", "row_without_file", "too_few_negatives", "too_few_positives", "unknown_centre",
    }
)  # fmt: skip

TEXTS = {
    "too_few_positives": "has {have} positive training examples in task {task!r} but {need} are needed; "
    "lower study.minimum_positives, give the centre more patients, or drop its generators",
    "too_few_negatives": "has {have} negative training examples in task {task!r} but {need} are needed; "
    "give the centre more patients",
    "no_validation": "has {positives} positive and {negatives} negative validation examples in task {task!r}; both classes "
    "are needed to choose a classifier: give the centre more patients or a larger split.val",
    "batch_too_large": "has {have} training patches for {label} but batch_size is {batch_size}; "
    "lower batch_size or give the centre more patients",
    "missing_input": "no longer holds an input of {label}; run again with --resume to send it once more",
    "policy": "refuses {label} by its own policy ({rule})",
    "foreign_study": "does not take part in this study",
    "not_addressed": "received a job for another centre; check the node's configuration",
    "unknown_kind": "does not know the duty {kind!r}; server and clients run different code",
    "code_mismatch": "runs other code (digest {theirs}) than the server ({ours}); update one of them",
    "protocol_mismatch": "speaks another version of the protocol; update server or clients",
    "diverged": "could not train {label}: the loss became NaN at step {step}; lower the learning rate",
    "exception": "failed in {label}; the traceback is in the centre's own log (reference {reference})",
    "timeout": "did not answer {label} within {timeout_s} s",
    "node_unavailable": "is not reachable; the run can be resumed when its node is back",
    "client_died": "lost the process that worked on {label} (out of memory?); resume the run, if need be with fewer workers",
}  # fmt: skip


class StudyError(Exception):
    """The run cannot go on. `exit_status` is 2 for input that the user can mend, else 1."""

    def __init__(self, text: str, exit_status: int = 1):
        super().__init__(text)
        self.exit_status = exit_status


class _Known(dict):
    def __missing__(self, key: str) -> str:
        return f"?{key}"


def explain(centre: str, code: str, label: str, numbers: dict[str, Any]) -> str:
    """One line for a person: which centre, what happened, what to do."""
    default = (
        "could not do {label}: " + code.replace("_", " ") + "".join(f", {k} {v}" for k, v in sorted(numbers.items()))
    )
    return f"centre {centre!r} " + TEXTS.get(code, default).format_map(
        _Known(numbers, label=label or "the job", centre=centre)
    )
