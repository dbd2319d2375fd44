"""What can go wrong. Every error of this package is an AuditError; no message
holds a value of an event."""

from __future__ import annotations

from typing import Any, Optional


class AuditError(Exception):
    """An error of this package.

    ``code`` is the holder's word for it, where a holder said it.
    """

    code: str = ""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        if code:
            self.code = code


class RefusedError(AuditError, ValueError):
    """The event itself: it can't be recorded, now or later."""

    code = "refused"


class ConflictError(AuditError):
    """The idempotency key was used for a different event."""

    code = "conflict"


class DeniedError(AuditError, PermissionError):
    """The holder or the system does not let this user do it."""

    code = "denied"


class ProtocolError(AuditError):
    """The other end of the socket speaks something else."""

    code = "protocol"


class ClosedError(AuditError):
    """The manager was closed."""


class UnavailableError(AuditError):
    """No holder took it within the time given.

    ``idempotency_key`` is the event's, where one event was to be recorded:
    recording it again with that key is safe.
    """

    idempotency_key: Optional[str] = None


class HolderError(UnavailableError):
    """Nobody holds the trail, and no holder could be started."""


class FullError(UnavailableError):
    """The disk or a quota is full: not recorded."""

    code = "full"


class OutcomeUnknownError(UnavailableError):
    """The event was sent and no answer came: it may be recorded or not."""

    code = "unknown"


class BatchError(AuditError):
    """Some events of a batch were not recorded.

    ``results`` has, in the order of the events, a Receipt or the error.
    """

    def __init__(self, results: "list[Any]") -> None:
        failed = [r for r in results if isinstance(r, AuditError)]
        super().__init__(
            f"record {len(results)} events: {len(failed)} not recorded, the first: {failed[0]}"
        )
        self.results = results


_BY_CODE = {
    "refused": RefusedError,
    "conflict": ConflictError,
    "denied": DeniedError,
    "full": FullError,
    "unknown": OutcomeUnknownError,
    "protocol": ProtocolError,
    "not_found": AuditError,
    "closed": UnavailableError,
    "stopped": UnavailableError,
    "busy": UnavailableError,
}


def from_answer(what: str, error: Any) -> AuditError:
    """The error for the holder's ``{"code":…,"message":…}``."""
    if not isinstance(error, dict):
        return ProtocolError(f"{what}: the holder's answer has no error object")
    code = str(error.get("code", ""))
    kind = _BY_CODE.get(code, AuditError)
    return kind(f"{what}: {error.get('message') or code}", code)
