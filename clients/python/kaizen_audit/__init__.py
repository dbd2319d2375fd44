"""Records what AI agents did in a kaizen-audit trail, and reads it.

    from kaizen_audit import AuditTrailManager

    manager = AuditTrailManager(audit_log_path="audit.jsonl")
    manager.record_event({"event_type": "TOOL_USE", "agent_id": "qa-agent-001",
                          "action": "tool_use:calculator"})
    for entry in manager.query_by_agent("qa-agent-001"):
        print(entry.timestamp, entry.action, entry.duration_ms)

It needs nothing but Python 3.9 and the program kaizen-audit, on PATH or named
in KAIZEN_AUDIT_BIN. The adapters for Kaizen, LangChain, LangGraph and the
OpenAI Agents SDK import these only when they are made.
"""

from ._errors import (
    AuditError,
    BatchError,
    ClosedError,
    ConflictError,
    DeniedError,
    FullError,
    HolderError,
    OutcomeUnknownError,
    ProtocolError,
    RefusedError,
    UnavailableError,
)
from ._manager import AuditTrailManager, Entry, Receipt
from .hooks import AuditTrailHook
from .langchain import LangChainAuditHandler
from .openai_agents import OpenAIAgentsAuditProcessor

__all__ = [
    "AuditError",
    "AuditTrailHook",
    "AuditTrailManager",
    "BatchError",
    "ClosedError",
    "ConflictError",
    "DeniedError",
    "Entry",
    "FullError",
    "HolderError",
    "LangChainAuditHandler",
    "OpenAIAgentsAuditProcessor",
    "OutcomeUnknownError",
    "ProtocolError",
    "Receipt",
    "RefusedError",
    "UnavailableError",
]

__version__ = "0.1.0"
