"""What is wrong with a centre's data: a code and numbers, which may leave the centre, and a text, which may not.

Texts hold what a file says of itself, so they are put on one line of printable characters here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from basics.words import one_line


@dataclass(frozen=True)
class Problem:
    """One fault of one thing: `code` names the kind, `text` the file or row, the value and the remedy."""

    code: str
    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", one_line(self.text))


class BadFile(ValueError):
    """A file that cannot be used. `code` is that of its `Problem`; the text follows the file's name: "does not decode (...)"."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(one_line(text))
        self.code = code


class DataError(ValueError):
    """Data that cannot be used.

    `code` and `numbers` (rounded counts and field names, never ids or paths) are safe to send to a server. `str(error)` is one
    line that names files and rows, and stays at the centre; `problems` lists every fault that was found.
    """

    def __init__(
        self, code: str, text: str, *, problems: tuple[Problem, ...] = (), **numbers: int | float | str
    ) -> None:
        super().__init__(one_line(text))
        self.code = code
        self.numbers = numbers
        self.problems = problems or (Problem(code, text),)

    def __reduce__(self):
        # The default would call DataError(text) in the process that unpickles it.
        return _restored, (self.code, str(self), self.problems, self.numbers)

    @classmethod
    def of(cls, problems: list[Problem], what: str, *, shown: int = 3) -> DataError:
        """One error for all problems of a source: the most frequent code, the count, and the first few."""
        codes = [problem.code for problem in problems]
        counts = {code: codes.count(code) for code in dict.fromkeys(codes)}
        code = max(counts, key=lambda c: counts[c])
        first = "; ".join(problem.text for problem in problems[:shown])
        more = f"; and {len(problems) - shown} more" if len(problems) > shown else ""
        plural = "problem" if len(problems) == 1 else "problems"
        return cls(code, f"{what}: {len(problems)} {plural}: {first}{more}", problems=tuple(problems), **counts)


def allowed(problems: list[Problem], total: int, bad_fraction: float, what: str) -> dict[str, int]:
    """How many of `total` things are left out, by code. Raises DataError where that is more than the fraction allowed."""
    if len(problems) > bad_fraction * total:
        raise DataError.of(problems, what)
    return dict(Counter(problem.code for problem in problems))


def _restored(code: str, text: str, problems: tuple[Problem, ...], numbers: dict) -> DataError:
    return DataError(code, text, problems=problems, **numbers)
