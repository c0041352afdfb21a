"""Error codes that cross the wire, and the sentence that a person reads for each.

A centre sends a code and numbers; the reader's side builds the sentence. `{centre}` and `{label}` are always known;
the other names come from the reply's `numbers`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from basics.words import one_line
from federation.wire.names import is_plain_name

# Codes of input that the user can correct before any training: the run ends with status 2.
INPUT_CODES = frozenset(
    {
        "bad_annotation", "bad_columns", "bad_encoding", "bad_image", "bad_package", "bad_photometric", "bad_row",
        "bad_table", "bad_value", "bad_weights", "batch_too_large", "class_missing", "contour_outside",
        "duplicate_file", "duplicate_image", "duplicate_lesion", "empty_mask", "file_too_large", "file_without_row",
        "image_size", "image_too_large", "label_without_row", "lesion_without_row", "mask_size", "missing_decoder",
        "missing_file", "missing_reader", "mixed_storage", "nan_pixels", "no_images", "no_label", "no_lesions",
        "no_positives", "no_validation", "not_converted", "one_class", "outside_classes", "partition_too_large",
        "row_without_file", "several_frames", "too_few_examples", "too_few_images", "too_few_negatives",
        "too_few_positives", "too_few_to_measure", "unknown_centre", "unknown_label",
    }
)  # fmt: skip
# Codes with which a centre refuses a job: it decided to, and nothing went wrong.
REFUSAL_CODES = frozenset(
    {
        "answered_before", "approval_altered", "approval_ended", "below_minimum", "bundle_not_approved", "code_mismatch", "counts_lost",
        "data_changed", "foreign_study", "foreign_weights", "job_altered", "message_too_large", "near_copies", "not_addressed",
        "not_in_strategy", "not_in_study", "not_signed", "outside_hours", "paused", "plugin_altered", "plugin_differs",
        "plugin_missing", "plugin_not_listed", "policy", "protocol_mismatch", "strategy_refused", "study_not_approved",
        "sum_refused", "too_alike", "no_weights", "unknown_weights",
    }
)  # fmt: skip

TEXTS = {
    "too_few_positives": "has {have} positive training examples in task {task!r} but {need} are needed; "
    "lower study.minimum_positives, give the centre more patients, or remove its generators",
    "too_few_negatives": "has {have} negative training examples in task {task!r} but {need} are needed; "
    "give the centre more patients",
    "too_few_images": "has {have} training images in task {task!r} but study.real_images asks for {need}; lower it",
    "partition_too_large": "gets a part of an archive with {have} images, but the partition asks for {need}; lower its numbers, or "
    "use shares instead",
    "no_lesions": "has no lesion of the kind that task.lesions asks for; name the table of lesions in data.lesions, or change the task",
    "no_positives": "has no positive training example in task {task!r}; check which labels or lesions count as positive, or give the "
    "centre other data or another part",
    "no_images": "has no images; check data.path and its filters",
    "no_label": "has images without a known label; name the label's column in data.columns, and for malignancy the words for positive "
    "in data.positive",
    "mixed_storage": "has images of 8 and of 16 bits for one classifier; give all tasks and packages of {label} the same storage",
    "other_classes": "has training images of other classes than it told before {label}; its data changed: run the study anew",
    "outside_classes": "has images or lesions of none of the classes of its task; see the line below, and add their class to "
    "task.classes, or set task.others: leave_out",
    "missing_file": "lacks a file or folder that its data section names; see the line below, and correct data.path or the table",
    "row_without_file": "has rows in its table without an image file; see the line below, and copy the file or remove the row",
    "bad_image": "has images that cannot be decoded; see the line below, and copy them again or remove their rows",
    "nan_pixels": "has images with NaN pixels; see the line below, and export them again or remove their rows",
    "bad_columns": "has a table that lacks columns; see the line below, and name them in data.columns",
    "bad_table": "has a table that cannot be read; see the line below",
    "bad_row": "has rows in its tables that cannot be read; see the line below, and correct the rows",
    "image_too_large": "has images of more pixels than data.limits allows; see the line below, and remove their rows or raise it",
    "file_too_large": "has files of more bytes than data.limits allows; see the line below, and remove them or raise it",
    "several_frames": "has image files of several frames or pages; see the line below, and export them one by one",
    "bad_value": "has impossible values in its table; see the line below, and correct the rows",
    "bad_encoding": "has a table in another encoding; name it in data.encoding",
    "duplicate_image": "lists an image twice in its table; see the line below, and keep one row",
    "duplicate_file": "has a folder or table twice, and not the same; see the line below, and keep one",
    "label_without_row": "has labels of images that its table does not list; see the line below, and add or drop their rows",
    "lesion_without_row": "has lesions in images that its table does not list; see the line below",
    "unknown_label": "has words in its tables that are not known labels; see the line below, and correct them or list them in data",
    "duplicate_lesion": "lists a lesion twice in its table; see the line below, and keep one row",
    "file_without_row": "has images that its table does not list; see the line below, and add rows or move the files away",
    "contour_outside": "has outlines outside their image; see the line below, and correct or remove them",
    "bad_annotation": "has annotations that cannot be read; see the line below, and copy them again",
    "bad_photometric": "has DICOM images that are not greyscale; see the line below, and remove their rows",
    "missing_decoder": "has compressed DICOM images without a decoder; see the line below, and install it",
    "missing_reader": "has a spreadsheet without a reader; see the line below, and install it or save it as .csv",
    "not_converted": "has images that have not been converted yet; see the line below",
    "mask_size": "has masks that differ in size from their image; see the line below, and copy them again",
    "empty_mask": "has masks that mark nothing; see the line below, and remove their rows",
    "image_size": "has images that differ in size from what its tables say; see the line below, and copy them again",
    "unknown_centre": "has no row of the centre in data.centre in its table; see the line below, and correct data.centre",
    "class_missing": "has no training examples of one class for {label}; give it more patients",
    "bad_weights": "cannot read the pretrained weights of {label}; name another file",
    "bad_package": "cannot use the generator package of {label}; fetch it again",
    "no_workspace": "cannot write to its workspace; free space there, or correct its permissions",
    "too_few_examples": "has {have} training examples in task {task!r} but {need} are needed; lower study.minimum_positives, or give "
    "the centre more patients",
    "one_class": "has training examples of fewer than two classes in task {task!r} ({have}), and two are needed to tell classes apart; "
    "give it more patients, or leave it out",
    "no_validation": "has validation examples of fewer than two classes in task {task!r}; two classes "
    "are needed to choose a classifier; give the centre more patients or a larger split.val",
    "batch_too_large": "has fewer training patches for {label} than its batch_size of {batch_size}; "
    "lower batch_size or give the centre more patients",
    "too_few_to_measure": "has {have} patients to measure distances on but {need} are needed; set fidelity.spaces: [] or choose by "
    "validation, give the centre more patients, or in a simulation lower fewest_patients",
    "too_alike": "keeps its sums of features back: they differ by fewer than {need} patients from sums that left before; use the data, "
    "task and split of that study, or set fidelity.spaces: []",
    "state_lost": "no longer holds the state that {label} builds on; it starts again from the beginning",
    "missing_input": "no longer holds an input of {label}; run again with --resume to send it again",
    "policy": "refuses {label} by its own policy ({rule})",
    "below_minimum": "refuses {label}: {rule} of its centre.yaml asks for {asks}, and the study has {has}; change the study, or ask the "
    "centre",
    "near_copies": "keeps {label}: more than {allowed} of its images are near copies of training images; train for fewer steps, or with "
    "more patients",
    "study_not_approved": "has not approved this study (scenario {scenario}); its administrator can read it with "
    "`polycentre centre plan` and approve it with `polycentre centre approve`",
    "answered_before": "has answered {kind!r} of this study as often as it does; its administrator can let the study ask everything "
    "again with `polycentre centre approve --again`",
    "counts_lost": "no longer knows what it has answered of this study, so it answers nothing more; its administrator can let it begin "
    "anew with `polycentre centre approve --again`",
    "data_changed": "has other data than when it first answered this study; its administrator can let the study begin anew with "
    "`polycentre centre approve --again`",
    "foreign_weights": "refuses {label}: the weights of number {number} lie {far} from those it knows, and may lie {allowed}; the "
    "server's software differs, or it sends weights of another training",
    "no_weights": "has no file of the weights with which {label} begins (SHA-256: {sha256}); its administrator gets the file and lists it "
    "under `weights` in centre.yaml. Where none is named, read the scenario with `polycentre validate` where the file is, and have "
    "that approved",
    "unknown_weights": "refuses {label}: its weights are not among those that came in a round before; the server's software differs, or "
    "it sends weights of another training",
    "approval_ended": "approved this study (scenario {scenario}) for a time that is over; its administrator can approve it for longer "
    "with `polycentre centre approve`",
    "approval_altered": "holds an approval of scenario {scenario} that was altered afterwards; approve the study there again",
    "not_in_study": "refuses {label}: its {key} differs from that of the study which the centre approved",
    "strategy_refused": "does not take part in strategy {strategy!r}, by its own policy; remove that arm, or ask the centre",
    "not_in_strategy": "refuses {label}: strategy {strategy!r} has no job {kind!r}; server and clients run different code",
    "bad_plugin": "cannot use a plug-in of the study; the centre's own log names it and says why",
    "plugin_missing": "lacks plug-in {plugin!r} {version}; install that version there",
    "plugin_differs": "has another plug-in {plugin!r} ({theirs}) than the study uses ({ours}); install the same version on both sides",
    "plugin_not_listed": "does not allow plug-in {plugin!r} {version}, which the study uses; its administrator can list it in centre.yaml "
    "(`polycentre centre plugins` prints the lines)",
    "plugin_altered": "has plug-in {plugin!r} with other files than its centre.yaml lists; its administrator can install it again, or "
    "list the digest that `polycentre centre plugins` shows",
    "outside_hours": "works only in its own hours ({hours}); resume the run then",
    "paused": "was paused by its administrator; resume the run when the centre works again",
    "undeclared_field": "withholds the answer to {kind!r}: its field {field!r} is not declared as one that may leave; report this as a bug",
    "message_too_large": "refuses {label}: the message has {mib} MiB, and the centre allows at most {limit} MiB",
    "bundle_not_approved": "runs only approved app bundles, and this one (digest {bundle}) is not approved; its own has digest {own}",
    "bad_centre_file": "cannot work: its centre.yaml has a problem, which its own output names; correct it and resume",
    "bad_name": "had a message refused: a name in it could be a path",
    "malformed": "had a message refused: it is not in this project's format",
    "not_finite": "had a message for {label} refused: it holds NaN or infinity",
    "too_large": "had a message for {label} refused: it is larger than the protocol allows",
    "size_mismatch": "had a message for {label} refused: its arrays do not have the size that it declares",
    "bad_dtype": "had a message for {label} refused: it has an array of a type that may not travel",
    "bad_array_name": "had a message for {label} refused: it has an array whose name could be a path",
    "job_altered": "refuses {label}: it has answered a different job under the same id; start a new run",
    "out_of_memory": "has too little memory for {label}; allow more (resources.memory_gib in its centre.yaml), or make the models "
    "or batches smaller",
    "foreign_study": "does not take part in this study",
    "not_addressed": "was addressed at the node of another centre; check the nodes' configurations, and that the run has deployed=true",
    "bad_node_config": "cannot work: the configuration of its node lacks {key}; start the node with "
    "--node-config 'centre=\"NAME\" workspace=\"/absolute/path\" cache=\"/absolute/path\"'",
    "not_signed": "refuses {label}: {what} is not signed by {member!r}, or centre.yaml does not list that member's key; list in `members` "
    "the public keys of all centres of the study",
    "sum_refused": "refuses {label} in a secure sum: {reason}",
    "out_of_range": "holds a number in {name!r} that a secure sum cannot take (at most {largest:.6g}); lower the learning rate if the "
    "weights diverge, or set secure_aggregation: false",
    "bad_body": "refuses {label}: {key} of {kind!r} is missing, unknown or of another type; server and clients run different code",
    "bad_answer": "sent an answer to {kind!r} that was refused: its field {field!r} is missing, or not declared; server and clients run "
    "different code, or the centre is wrong",
    "wrong_arrays": "had a message for {label} refused: its array {name!r} is not as declared",
    "unknown_kind": "does not know the job {kind!r}; server and clients run different code",
    "code_mismatch": "runs other code (digest {theirs}) than the server ({ours}); update one of them",
    "protocol_mismatch": "speaks version {theirs} of the protocol, and the server version {ours}; update the older one",
    "ledger_broken": "cannot continue its record of what left the hospital (ledger.jsonl), so nothing leaves; its administrator "
    "sees why with `polycentre centre log verify`, and lets it go on with `polycentre centre acknowledge`",
    "diverged": "could not train {label}: the loss became NaN at step {step}; lower the learning rate",
    "exception": "failed in {label}; the traceback is in the centre's own log (reference {reference})",
    "timeout": "did not answer {label} within {timeout_s} s",
    "node_unavailable": "cannot be reached; resume the run when its node is back",
    "client_died": "lost the process that worked on {label} (out of memory?); resume the run, if need be with fewer workers",
}  # fmt: skip


class StudyError(Exception):
    """The run cannot continue. `exit_status` is 2 for input that the user can correct, otherwise 1."""

    def __init__(self, text: str, exit_status: int = 1):
        super().__init__(text)
        self.exit_status = exit_status


class EnvelopeError(ValueError):
    """A job or a reply that is refused; `code` and `numbers` are what the other side learns of it."""

    def __init__(self, code: str, text: str, **numbers: int | float | str):
        super().__init__(text)
        self.code, self.numbers = code, shareable(numbers)


# The longest that this project's own refusals say is a policy's rule, of 160 characters.
_LONGEST, _MOST = 300, 16


def shareable(numbers: Mapping[Any, Any]) -> dict[str, int | float | str]:
    """Of the numbers of a refusal those that can travel and be shown, whoever wrote them: at most 16, by plain names; finite
    numbers of at most 64 bits; texts on one line of at most 300 characters."""
    kept: dict[str, int | float | str] = {}
    for name, value in numbers.items():
        if len(kept) == _MOST or not is_plain_name(name):
            continue
        if isinstance(value, str):
            kept[name] = one_line(value[: 2 * _LONGEST], _LONGEST)
        elif isinstance(value, int) and -(2**63) <= value < 2**63 or isinstance(value, float) and math.isfinite(value):
            kept[name] = value
    return kept


class _Known(dict):
    def __missing__(self, key: str) -> str:
        return f"?{key}"


def explain(centre: str, code: str, label: str, numbers: Mapping[str, Any], subject: str = "centre") -> str:
    """One line for a person: which centre (or other subject), what happened, and what to do."""
    said, label = shareable(numbers), label or "the job"
    if code in TEXTS:
        text = TEXTS[code].format_map(_Known(said, label=label, centre=centre))
    else:  # no template: what a centre says is never one
        text = f"could not do {label}: {one_line(code[:_LONGEST], 64)}".replace("_", " ")
        text += "".join(f", {name} {value}" for name, value in sorted(said.items()))
    return f"{subject} {centre!r} {text}"
