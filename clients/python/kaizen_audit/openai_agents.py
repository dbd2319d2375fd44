"""A tracing processor for the OpenAI Agents SDK.

    from agents import add_trace_processor
    from kaizen_audit import OpenAIAgentsAuditProcessor

    add_trace_processor(OpenAIAgentsAuditProcessor(manager))

The SDK calls a processor in the event loop, so events are recorded by a
thread in the background; ``force_flush`` waits for it, and the SDK calls
``shutdown`` when the process ends.
"""

from __future__ import annotations

import datetime
from typing import Any, Optional

from ._capture import Capture, failure
from ._manager import AuditTrailManager

# What a span of each type is in the documented words: the event type, the
# action's verb, the member that names what it acts on.
_SPANS = {
    "agent": ("SPECIALIST_INVOKE", "agent", "name"),
    "function": ("TOOL_USE", "tool_use", "name"),
    "generation": ("LLM_CALL", "llm_call", "model"),
    "response": ("LLM_CALL", "llm_call", "model"),
    "transcription": ("LLM_CALL", "transcription", "model"),
    "speech": ("LLM_CALL", "speech", "model"),
    "handoff": ("SPECIALIST_INVOKE", "handoff", "to_agent"),
    "guardrail": ("PERMISSION_CHECK", "guardrail", "name"),
    "mcp_tools": ("TOOL_USE", "mcp_list_tools", "server"),
    "custom": ("CUSTOM_SPAN", "custom", "name"),
    "task": ("AGENT_TASK", "task", "name"),
    "turn": ("AGENT_TURN", "turn", "agent_name"),
}

# The members of a span that go in; all others came out.
_INPUTS = ("input", "model_config", "handoffs", "tools", "from_agent", "to_agent", "server", "mcp_data", "turn")


class OpenAIAgentsAuditProcessor(Capture):
    """Records a trace as AGENT_LOOP_START and AGENT_LOOP_END, and every span
    in between as one entry with its duration: TOOL_USE, LLM_CALL,
    SPECIALIST_INVOKE (agents and handoffs), PERMISSION_CHECK (guardrails).

    The agent of an entry is the nearest agent span around it, else the
    workflow; the group of a trace is its ``session_id``.
    """

    _class: Any = None

    def __new__(cls, *_: Any, **__: Any) -> "OpenAIAgentsAuditProcessor":
        if cls is not OpenAIAgentsAuditProcessor:
            return super().__new__(cls)
        if OpenAIAgentsAuditProcessor._class is None:
            bases: tuple[Any, ...] = (cls,)
            try:
                from agents.tracing.processor_interface import TracingProcessor

                bases = (cls, TracingProcessor)
            except ImportError:
                pass
            OpenAIAgentsAuditProcessor._class = type(cls.__name__, bases, {"__module__": __name__})
        return super().__new__(OpenAIAgentsAuditProcessor._class)

    def __init__(
        self,
        manager: AuditTrailManager,
        agent_id: Optional[str] = None,
        metadata: Optional[dict[str, Any]] = None,
        *,
        background: bool = True,
    ) -> None:
        super().__init__(manager, agent_id, metadata, False, background)
        # Of the traces and spans under way: the agent, and whether one failed.
        self._agents: dict[str, str] = {}
        self._traces: dict[str, dict[str, Any]] = {}

    def on_trace_start(self, trace: Any) -> None:
        metadata = dict(getattr(trace, "metadata", None) or {})
        metadata["workflow"] = trace.name
        if getattr(trace, "group_id", None):
            metadata["session_id"] = trace.group_id
        event = {
            "agent_id": trace.name, "trace_id": trace.trace_id, "metadata": metadata,
            "event_type": "AGENT_LOOP_START", "action": "agent_execution_start",
        }  # fmt: skip
        self._agents[trace.trace_id] = trace.name
        self._traces[trace.trace_id] = {"session_id": metadata.get("session_id"), "error": None}
        self.record(dict(event))
        self.begin(
            trace.trace_id, {**event, "event_type": "AGENT_LOOP_END", "action": "agent_execution_end"}
        )

    def on_trace_end(self, trace: Any) -> None:
        self._agents.pop(trace.trace_id, None)
        state = self._traces.pop(trace.trace_id, None) or {}
        event = self.take(trace.trace_id)
        if event is not None:
            self.record({**event, **(state.get("error") or {})})

    def on_span_start(self, span: Any) -> None:
        data = span.span_data
        agent = self._agents.get(span.parent_id or span.trace_id) or self._agents.get(span.trace_id)
        if data.type == "agent":
            agent = data.name
        self._agents[span.span_id] = agent or "unspecified"
        self.begin(span.span_id, self._event(span, {}))

    def on_span_end(self, span: Any) -> None:
        # The data is whole only now, so the event is made anew.
        begun = self.take(span.span_id) or {}
        self.record(self._event(span, begun))
        self._agents.pop(span.span_id, None)

    def force_flush(self) -> None:
        self.flush()

    def shutdown(self) -> None:
        self.close()

    def _event(self, span: Any, begun: dict[str, Any]) -> dict[str, Any]:
        data = span.span_data
        kind, verb, member = _SPANS.get(data.type, ("CUSTOM_SPAN", str(data.type), "name"))
        members = _members(data)
        response = members.pop("response", None)
        if response is not None:
            members["output"] = getattr(response, "output", None)
            members["response_id"] = getattr(response, "id", None)
            members.setdefault("model", getattr(response, "model", None))
            if members.get("usage") is None:
                members["usage"] = getattr(response, "usage", None)
        target = members.pop(member, None)
        if data.type == "handoff":
            members[member] = target
        metadata = dict(members.pop("metadata", None) or {})
        session = (self._traces.get(span.trace_id) or {}).get("session_id")
        if session:
            metadata.setdefault("session_id", session)
        event: dict[str, Any] = {
            "timestamp": _time(span.started_at) or begun.get("timestamp"),
            "event_type": kind, "agent_id": self._agents.get(span.span_id),
            "trace_id": span.trace_id, "span_id": span.span_id, "parent_span_id": span.parent_id,
            "action": f"{verb}:{target}" if target else verb,
            "inputs": {k: v for k, v in members.items() if k in _INPUTS and v is not None},
            "outputs": {k: v for k, v in members.items() if k not in _INPUTS and v is not None},
            "metadata": metadata,
        }  # fmt: skip
        started, ended = _time(span.started_at), _time(span.ended_at)
        if started and ended:
            event["duration_ms"] = round(max(0.0, (ended - started).total_seconds() * 1000), 3)
        elif "duration_ms" in begun:
            event["duration_ms"] = begun["duration_ms"]
        if members.get("triggered"):
            event.update(success=False, outcome="denied")
        if span.error:
            failed = failure(span.error.get("message") or "error")
            event.update(failed)
            event["outputs"]["error_data"] = span.error.get("data")
            if data.type == "agent" and span.trace_id in self._traces:
                self._traces[span.trace_id]["error"] = failed
        return event


def _members(data: Any) -> dict[str, Any]:
    names: list[str] = []
    for kind in type(data).__mro__:
        slots = getattr(kind, "__slots__", ())
        names += [slots] if isinstance(slots, str) else slots
    names += getattr(data, "__dict__", ())
    return {n: getattr(data, n, None) for n in names if not n.startswith("_")}


def _time(text: Optional[str]) -> Optional[datetime.datetime]:
    if not text:
        return None
    at = datetime.datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    return at if at.tzinfo else at.replace(tzinfo=datetime.timezone.utc)
