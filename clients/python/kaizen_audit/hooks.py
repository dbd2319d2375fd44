"""The hook for Kaizen's hook manager.

    from kaizen_audit import AuditTrailHook

    hook = AuditTrailHook(audit_manager=manager)
    agent._hook_manager.register_hook(hook)

It follows the documented protocol (``events``, ``async handle(context)``,
``HookResult``) and imports Kaizen only where Kaizen is already loaded.
"""

from __future__ import annotations

import dataclasses
import datetime
import sys
from typing import Any, Optional

from ._capture import Capture, failure
from ._manager import AuditTrailManager

# The lifecycle events of Kaizen: pre_X and post_X of each.
_ACTIONS = {
    "agent_loop": ("AGENT_LOOP", "agent_execution"),
    "tool_use": ("TOOL_USE", "tool_use"),
    "llm_call": ("LLM_CALL", "llm_call"),
    "specialist_invoke": ("SPECIALIST_INVOKE", "specialist_invoke"),
    "permission_check": ("PERMISSION_CHECK", "permission_check"),
    "checkpoint_save": ("CHECKPOINT_SAVE", "checkpoint_save"),
    "interrupt": ("INTERRUPT", "interrupt"),
    "plan_generation": ("PLAN_GENERATION", "plan_generation"),
    "memory_save": ("MEMORY_SAVE", "memory_save"),
    "memory_load": ("MEMORY_LOAD", "memory_load"),
    "memory_delete": ("MEMORY_DELETE", "memory_delete"),
}

# Where a context's data names what is acted on, what goes in, what came out.
_NAMES = ("tool_name", "specialist_name", "model", "name")
_INPUTS = ("inputs", "tool_params", "tool_input", "arguments", "parameters", "params")
_OUTPUTS = ("result", "tool_result", "outputs", "output", "response")


@dataclasses.dataclass
class _HookResult:
    """As Kaizen's, where Kaizen is not loaded."""

    success: bool
    data: Optional[dict[str, Any]] = None
    error: Optional[str] = None
    duration_ms: float = 0.0


class AuditTrailHook(Capture):
    """Records Kaizen's lifecycle events: an agent loop as AGENT_LOOP_START and
    AGENT_LOOP_END, every other PRE and POST as one entry with its duration.

    Kaizen makes a new trace id for every event unless its caller gives one.
    Within an agent's only open loop such events have the loop's trace id.
    """

    name = "audit_trail_hook"

    def __init__(
        self,
        audit_manager: AuditTrailManager,
        events_to_audit: Optional[list[Any]] = None,
        *,
        metadata: Optional[dict[str, Any]] = None,
        fail_closed: bool = False,
    ) -> None:
        super().__init__(audit_manager, None, metadata, fail_closed)
        self.audit_manager = audit_manager
        self._only = {_value(e) for e in events_to_audit or ()}

    @property
    def events(self) -> list[Any]:
        """What register_hook registers it for: all events that Kaizen has."""
        types = sys.modules.get("kaizen.core.autonomy.hooks.types")
        if types is not None:
            every = list(types.HookEvent)
        else:
            every = [p + a for a in _ACTIONS for p in ("pre_", "post_") if a not in ("llm_call", "memory_delete")]
        return [e for e in every if not self._only or _value(e) in self._only]

    async def handle(self, context: Any) -> Any:
        """Records what a context tells. It never fails the agent's action
        unless the hook was made with fail_closed."""
        name = _value(context.event_type)
        if self._only and name not in self._only:
            return _result(True, {"audited": False, "reason": "event_filter"})
        for event in self._events(name, context):
            await self.arecord(event)
        return _result(True, {"audited": True})

    async def on_error(self, error: Exception, context: Any) -> None:
        """The error was raised because of fail_closed: there is no more."""

    def _events(self, name: str, context: Any) -> list[dict[str, Any]]:
        phase, _, action = name.partition("_")
        if phase not in ("pre", "post"):
            phase, action = "post", name
        kind, verb = _ACTIONS.get(action, (_type(action), action))
        data = context.data if isinstance(context.data, dict) else {"value": context.data}
        agent, trace = context.agent_id, context.trace_id
        target = next((str(data[n]) for n in _NAMES if data.get(n)), "")
        at = datetime.datetime.fromtimestamp(context.timestamp, datetime.timezone.utc)
        metadata = dict(context.metadata or {})
        if data.get("session_id") and "session_id" not in metadata:
            metadata["session_id"] = data["session_id"]
        event: dict[str, Any] = {
            "timestamp": at, "event_type": kind, "agent_id": agent, "trace_id": trace,
            "action": f"{verb}:{target}" if target else verb, "metadata": metadata,
        }  # fmt: skip
        if action == "agent_loop":
            key = ("loop", agent, trace)
            if phase == "pre":
                start = {
                    **event, "event_type": "AGENT_LOOP_START", "action": "agent_execution_start",
                    "inputs": _pick(data, _INPUTS, data),
                }  # fmt: skip
                self.begin(key, {**event, "event_type": "AGENT_LOOP_END", "action": "agent_execution_end"})
                return [start]
            begun = self._take(key)
            end = {**event, "event_type": "AGENT_LOOP_END", "action": "agent_execution_end"}
            if begun:
                end.update(trace_id=begun["trace_id"], duration_ms=begun["duration_ms"])
            return [{**end, "outputs": _pick(data, _OUTPUTS, data), **_success(data)}]
        self._join_loop(event)
        key = (action, agent, target, event["trace_id"])
        if phase == "pre":
            self.begin(key, {**event, "inputs": _pick(data, _INPUTS, _without(data, _NAMES))})
            return []
        begun = self._take(key)
        if begun:
            event = {**begun, "metadata": {**begun["metadata"], **event["metadata"]}}
        elif "duration_ms" in data:
            event["duration_ms"] = data["duration_ms"]
        if "inputs" not in event and any(n in data for n in _INPUTS):
            event["inputs"] = _pick(data, _INPUTS, {})
        rest = _without(data, _NAMES + _INPUTS)
        return [{**event, "outputs": _pick(rest, _OUTPUTS, rest), **_success(data)}]

    def _join_loop(self, event: dict[str, Any]) -> None:
        with self._mu:
            loops = [k[2] for k in self._open if k[0] == "loop" and k[1] == event["agent_id"]]
        if len(loops) == 1 and event["trace_id"] not in loops:
            event["metadata"]["hook_trace_id"] = event["trace_id"]
            event["trace_id"] = loops[0]

    def _take(self, key: Any) -> Optional[dict[str, Any]]:
        """The open action of key, or the only one that differs in its trace."""
        begun = self.take(key)
        if begun is None:
            with self._mu:
                alike = [k for k in self._open if k[:-1] == key[:-1]]
            if len(alike) == 1:
                begun = self.take(alike[0])
        return begun


def _value(event_type: Any) -> str:
    return str(getattr(event_type, "value", event_type))


def _type(action: str) -> str:
    """An event type of the form that a trail takes, [A-Z][A-Z0-9_]*."""
    text = "".join(c if c.isascii() and c.isalnum() else "_" for c in action).upper()
    text = text if text[:1].isalpha() else "HOOK_" + text
    return "HOOK_" + text if text.startswith("AUDIT_") else text


def _pick(data: dict[str, Any], names: tuple[str, ...], default: Any) -> Any:
    return next((data[n] for n in names if n in data), default)


def _without(data: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {k: v for k, v in data.items() if k not in names}


def _success(data: dict[str, Any]) -> dict[str, Any]:
    result = data.get("tool_result")
    error = data.get("error") or (isinstance(result, dict) and result.get("error")) or None
    members: dict[str, Any] = {}
    if error or data.get("success") is False:
        members = failure(error) if error else {"success": False}
    if data.get("allowed") is False or data.get("granted") is False:
        members.update(success=False, outcome="denied")
    return members


def _result(success: bool, data: dict[str, Any]) -> Any:
    types = sys.modules.get("kaizen.core.autonomy.hooks.types")
    return (types.HookResult if types is not None else _HookResult)(success=success, data=data)
