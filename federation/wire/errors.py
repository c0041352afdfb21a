"""Error codes that cross the wire, and the sentence a person reads for each.

A centre sends a code and numbers; the sentence is put together on the reader's side. `{centre}` and
`{label}` are always known; the other names come from the reply's `numbers`.
"""

from __future__ import annotations

from typing import Any

# Codes of input that the user can mend before any training: the run ends with status 2.
INPUT_CODES = frozenset(
    {
        "bad_annotation", "bad_columns", "bad_encoding", "bad_image", "bad_package", "bad_photometric", "bad_table", "bad_value",
        "bad_weights", "batch_too_large", "class_missing", "contour_outside", "duplicate_image", "duplicate_lesion", "empty_mask",
        "file_without_row", "image_size", "lesion_without_row", "mask_size", "missing_decoder", "missing_file", "missing_reader",
        "nan_pixels", "no_images", "no_label", "no_lesions", "no_validation", "not_converted", "partition_too_large",
        "row_without_file", "too_few_images", "too_few_negatives", "too_few_positives", "too_few_to_measure",
        "unknown_centre", "unknown_label",
    }
)  # fmt: skip
# Codes with which a centre says that it will not do a job: it decided so, and nothing went wrong.
REFUSAL_CODES = frozenset(
    {
        "approval_altered", "bundle_not_approved", "code_mismatch", "foreign_study", "job_altered", "message_too_large",
        "not_addressed", "not_in_strategy", "not_in_study", "outside_hours", "paused", "policy", "protocol_mismatch",
        "strategy_refused", "study_not_approved",
    }
)  # fmt: skip

TEXTS = {
    "too_few_positives": "has {have} positive training examples in task {task!r} but {need} are needed; "
    "lower study.minimum_positives, give the centre more patients, or drop its generators",
    "too_few_negatives": "has {have} negative training examples in task {task!r} but {need} are needed; "
    "give the centre more patients",
    "too_few_images": "has {have} training images in task {task!r} but study.real_images asks for {need}; lower it",
    "partition_too_large": "is dealt a part of an archive with {have} images, of which the partition asks for {need}; lower "
    "its numbers, or give shares",
    "no_lesions": "has no lesion of the wanted kind (task.lesions); name the table of lesions in data.lesions, or change the task",
    "no_images": "has no image; check data.path and its filters",
    "no_label": "has images without a known label; name the label's column in data.columns and its words in data.positive",
    "missing_file": "lacks a file or folder that its data section names; see the line below, and mend data.path or the table",
    "row_without_file": "has rows in its table whose image is not there; see the line below, and copy the file or drop the row",
    "bad_image": "has images that do not decode; see the line below, and copy them again or drop their rows",
    "nan_pixels": "has images with NaN pixels; see the line below, and write them again or drop their rows",
    "bad_columns": "has a table that lacks columns; see the line below, and name them in data.columns",
    "bad_table": "has a table that cannot be read; see the line below",
    "bad_value": "has values in its table that cannot be; see the line below, and mend the rows",
    "bad_encoding": "has a table in another encoding; name it in data.encoding",
    "duplicate_image": "names an image twice in its table; see the line below, and keep one row",
    "lesion_without_row": "has lesions of images that its table does not name; see the line below",
    "unknown_label": "has words in its tables that are no known label; see the line below, and correct them or list them in data",
    "duplicate_lesion": "names a lesion twice in its table; see the line below, and keep one row",
    "file_without_row": "has images that its table does not name; see the line below, and add rows or move the files away",
    "contour_outside": "has outlines outside their image; see the line below, and mend or drop them",
    "bad_annotation": "has annotations that cannot be read; see the line below, and copy them again",
    "bad_photometric": "has DICOM images of a kind that is no grey image; see the line below, and drop their rows",
    "missing_decoder": "has compressed DICOM images without a decoder; see the line below, and install it",
    "missing_reader": "has a spreadsheet without a reader; see the line below, and install it or save it as .csv",
    "not_converted": "has images that were not converted yet; see the line below",
    "mask_size": "has masks of another size than their image; see the line below, and copy them again",
    "empty_mask": "has masks that mark nothing; see the line below, and drop their rows",
    "image_size": "has images of another size than its tables say; see the line below, and copy them again",
    "unknown_centre": "has no row of the wanted centre in its table; see the line below, and mend data.centre",
    "class_missing": "has no training example of one class for {label}; give it more patients",
    "bad_weights": "cannot read the pretrained weights of {label}; name another file",
    "bad_package": "cannot use the generator package of {label}; get it again",
    "no_workspace": "cannot write to its workspace; free space there, or mend its permissions",
    "no_validation": "has {positives} positive and {negatives} negative validation examples in task {task!r}; both classes "
    "are needed to choose a classifier: give the centre more patients or a larger split.val",
    "batch_too_large": "has {have} training patches for {label} but batch_size is {batch_size}; "
    "lower batch_size or give the centre more patients",
    "too_few_to_measure": "has {have} training patches in a half of its data and {need} are needed to measure fidelity; "
    "set fidelity.spaces: [] or give the centre more patients",
    "state_lost": "no longer holds the state that {label} builds on; it begins anew",
    "missing_input": "no longer holds an input of {label}; run again with --resume to send it once more",
    "policy": "refuses {label} by its own policy ({rule})",
    "study_not_approved": "has not approved this study (scenario {scenario}); its administrator looks at it with "
    "`polycentre centre plan` and approves it with `polycentre centre approve`",
    "approval_altered": "holds an approval of scenario {scenario} that was altered since; approve the study there anew",
    "not_in_study": "refuses {label}: its {key} is not that of the study which it approved",
    "strategy_refused": "does not take part in strategy {strategy!r} by its own policy; leave that arm out, or ask the centre",
    "not_in_strategy": "refuses {label}: {kind!r} is no duty of strategy {strategy!r}; server and clients run different code",
    "outside_hours": "works in its own hours only ({hours}); resume the run then",
    "paused": "is paused by its administrator; resume the run when it goes on",
    "undeclared_field": "keeps the answer of {kind!r}: its field {field!r} is not among those that may leave; report it as a fault",
    "message_too_large": "refuses {label}: it takes {mib} MiB, and at most {limit} MiB may cross its wall",
    "bundle_not_approved": "runs approved app bundles only, and this one (digest {bundle}) is none; its own is {own}",
    "bad_centre_file": "cannot work: its centre.yaml has a problem, which its own output names; mend it and resume",
    "bad_name": "got a message with a name that could be a path, and refused it",
    "malformed": "got a message that is none of this project's, and refused it",
    "not_finite": "met NaN or infinity where {label} crosses the wire, and refused it",
    "too_large": "met a message for {label} that is larger than any may be, and refused it",
    "size_mismatch": "got a message for {label} whose arrays are not of the size that it declares, and refused it",
    "bad_dtype": "got a message for {label} with a type of numbers that does not travel, and refused it",
    "bad_array_name": "got a message for {label} with an array whose name could be a path, and refused it",
    "job_altered": "answered another job under the same id before, and refuses {label}; start a new run",
    "out_of_memory": "has too little memory for {label}; let it use more (resources.memory_gib of its centre.yaml), or make "
    "the models or batches smaller",
    "foreign_study": "does not take part in this study",
    "not_addressed": "is another centre than its node; check the nodes' configurations, and that the run has deployed=true",
    "bad_node_config": "cannot work: the configuration of its node lacks {key}; start it with "
    "--node-config 'centre=\"NAME\" workspace=\"/absolute/path\" cache=\"/absolute/path\"'",
    "bad_body": "refuses {label}: {key} of {kind!r} is missing, unknown or of another type; server and clients run different code",
    "wrong_arrays": "met an array {name!r} of {label} that is not as declared, and refused it",
    "unknown_kind": "does not know the duty {kind!r}; server and clients run different code",
    "code_mismatch": "runs other code (digest {theirs}) than the server ({ours}); update one of them",
    "protocol_mismatch": "speaks version {theirs} of the protocol, and the server version {ours}; update the older of them",
    "ledger_broken": "cannot go on with its record of what left the house (ledger.jsonl), so nothing leaves; look at it there with "
    "`polycentre centre log`",
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


def explain(centre: str, code: str, label: str, numbers: dict[str, Any], subject: str = "centre") -> str:
    """One line for a person: which centre (or other subject), what happened, what to do."""
    default = (
        "could not do {label}: " + code.replace("_", " ") + "".join(f", {k} {v}" for k, v in sorted(numbers.items()))
    )
    return f"{subject} {centre!r} " + TEXTS.get(code, default).format_map(
        _Known(numbers, label=label or "the job", centre=centre)
    )
