"""The errors of this package: what went wrong, in words for the centre and as a code with numbers for the server."""

from __future__ import annotations


class ModelError(ValueError):
    """A model that cannot be built, trained or read as asked.

    Attributes:
        code: short name of the problem, e.g. "batch_too_large", "diverged", "bad_package".
        numbers: settings and field names that explain it, no counts of patients; they may cross the wire; never an identifier, a path
            or pixels.
    """

    def __init__(self, code: str, message: str, **numbers: int | float | str):
        super().__init__(message)
        self.code = code
        self.numbers = numbers


class PackageError(ModelError):
    """A generator package that is missing, incomplete or altered."""

    def __init__(self, message: str, **numbers: int | float | str):
        super().__init__("bad_package", message, **numbers)
