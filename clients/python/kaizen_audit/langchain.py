"""A callback handler for LangChain and LangGraph.

    from kaizen_audit import LangChainAuditHandler

    handler = LangChainAuditHandler(manager, metadata={"user_id": "user123"})
    chain.invoke(question, config={"callbacks": [handler]})

A handler may serve many runs and threads at once. langchain_core is imported
when the first one is made.
"""

from __future__ import annotations

from typing import Any, Optional

from ._capture import Capture, failure
from ._manager import AuditTrailManager

# LangGraph ends a node with these to ask a person: no failure.
_INTERRUPTS = ("GraphInterrupt", "NodeInterrupt", "GraphBubbleUp", "ParentCommand")


class LangChainAuditHandler(Capture):
    """Records a run as AGENT_LOOP_START and AGENT_LOOP_END, and in between
    every model call (LLM_CALL), tool call (TOOL_USE), retrieval (DATA_ACCESS)
    and node of a graph (GRAPH_NODE), each with its duration.

    The run's id is the trace id, a step's its span id; ``session_id`` is the
    thread of a LangGraph checkpointer where there is one.

    :param chains: record the steps of chains inside a run too (CHAIN_RUN):
        there are many, and each repeats its inputs.
    """

    # What LangChain asks of a handler.
    raise_error = False
    run_inline = False
    ignore_llm = ignore_retry = ignore_chain = ignore_agent = False
    ignore_retriever = ignore_chat_model = ignore_custom_event = False

    _class: Any = None

    def __new__(cls, *_: Any, **__: Any) -> "LangChainAuditHandler":
        if cls is not LangChainAuditHandler:
            return super().__new__(cls)
        if LangChainAuditHandler._class is None:
            # Where LangChain checks for its own base class, it finds it.
            bases: tuple[Any, ...] = (cls,)
            try:
                from langchain_core.callbacks.base import BaseCallbackHandler

                bases = (cls, BaseCallbackHandler)
            except ImportError:
                pass
            LangChainAuditHandler._class = type(cls.__name__, bases, {"__module__": __name__})
        return super().__new__(LangChainAuditHandler._class)

    def __init__(
        self,
        manager: AuditTrailManager,
        agent_id: Optional[str] = None,
        metadata: Optional[dict[str, Any]] = None,
        *,
        chains: bool = False,
        fail_closed: bool = False,
        background: bool = False,
    ) -> None:
        super().__init__(manager, agent_id, metadata, fail_closed, background)
        self.raise_error = fail_closed
        self.chains = chains
        # Of the runs under way: a step's parent tells its trace and agent.
        self._runs: dict[Any, tuple[str, str]] = {}

    def __getattr__(self, name: str) -> Any:
        # Callbacks that tell nothing to record, now and of versions to come.
        if name.startswith("on_"):
            return _nothing
        raise AttributeError(name)

    # Chains and graphs.

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: Any, parent_run_id: Any = None,
        tags: Any = None, metadata: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        name = _name(serialized, kwargs)
        if parent_run_id is None or parent_run_id not in self._runs:
            event = self._event("AGENT_LOOP_START", "agent_execution_start", name, run_id, parent_run_id, tags, metadata)
            self.record({**event, "inputs": inputs})
            self.begin(run_id, {**event, "event_type": "AGENT_LOOP_END", "action": "agent_execution_end"})
            return
        node = (metadata or {}).get("langgraph_node")
        if node is not None and node == name:
            kind, action = "GRAPH_NODE", f"graph_node:{name}"
        elif self.chains:
            kind, action = "CHAIN_RUN", f"chain:{name}"
        else:
            self._runs[run_id] = self._runs[parent_run_id]
            return
        event = self._event(kind, action, name, run_id, parent_run_id, tags, metadata)
        self.begin(run_id, {**event, "inputs": inputs})

    def on_chain_end(self, outputs: Any, *, run_id: Any, **_: Any) -> None:
        self._end(run_id, {"outputs": outputs})

    def on_chain_error(self, error: BaseException, *, run_id: Any, **_: Any) -> None:
        if type(error).__name__ in _INTERRUPTS:
            event = self.take(run_id)
            self._runs.pop(run_id, None)
            if event is not None:
                interrupt = {**event, "event_type": "INTERRUPT", "outputs": {"interrupt": error.args}}
                self.record(interrupt if event["event_type"] == "GRAPH_NODE" else {**event, "outcome": "cancelled"})
            return
        self._end(run_id, failure(error))

    # Models.

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: Any, parent_run_id: Any = None,
        tags: Any = None, metadata: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        # One call may have several conversations.
        batch = [[_message(m) for m in conversation] for conversation in messages]
        inputs = {"messages": batch[0]} if len(batch) == 1 else {"batch": batch}
        self._model(serialized, inputs, run_id, parent_run_id, tags, metadata, kwargs)

    def on_llm_start(
        self, serialized: Any, prompts: Any, *, run_id: Any, parent_run_id: Any = None,
        tags: Any = None, metadata: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        self._model(serialized, {"prompts": prompts}, run_id, parent_run_id, tags, metadata, kwargs)

    def _model(
        self, serialized: Any, inputs: Any, run_id: Any, parent_run_id: Any, tags: Any, metadata: Any,
        kwargs: Any,
    ) -> None:  # fmt: skip
        parameters = kwargs.get("invocation_params") or {}
        model = (
            (metadata or {}).get("ls_model_name")
            or parameters.get("model")
            or parameters.get("model_name")
            or _name(serialized, kwargs)
        )
        event = self._event("LLM_CALL", f"llm_call:{model}", str(model), run_id, parent_run_id, tags, metadata)
        if parameters.get("tools"):
            inputs = {**inputs, "tools": parameters["tools"]}
        self.begin(run_id, {**event, "inputs": inputs})

    def on_llm_end(self, response: Any, *, run_id: Any, **_: Any) -> None:
        generations = getattr(response, "generations", None)
        if generations is None:
            outputs: Any = {"messages": [_message(response)]}
        else:
            said = [
                _message(g.message) if getattr(g, "message", None) is not None else {"text": g.text}
                for row in generations
                for g in row
            ]
            outputs = {"messages": said}
            if getattr(response, "llm_output", None):
                outputs["llm_output"] = response.llm_output
        self._end(run_id, {"outputs": outputs})

    def on_llm_error(self, error: BaseException, *, run_id: Any, **_: Any) -> None:
        self._end(run_id, failure(error))

    # Tools.

    def on_tool_start(
        self, serialized: Any, input_str: str, *, run_id: Any, parent_run_id: Any = None,
        tags: Any = None, metadata: Any = None, inputs: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        name = _name(serialized, kwargs)
        event = self._event("TOOL_USE", f"tool_use:{name}", name, run_id, parent_run_id, tags, metadata)
        self.begin(run_id, {**event, "inputs": inputs if inputs is not None else {"input": input_str}})

    def on_tool_end(self, output: Any, *, run_id: Any, **_: Any) -> None:
        members: dict[str, Any] = {"outputs": _message(output)}
        if getattr(output, "status", None) == "error":
            members.update(failure(str(getattr(output, "content", "error"))))
        self._end(run_id, members)

    def on_tool_error(self, error: BaseException, *, run_id: Any, **_: Any) -> None:
        self._end(run_id, failure(error))

    # Retrievers.

    def on_retriever_start(
        self, serialized: Any, query: str, *, run_id: Any, parent_run_id: Any = None,
        tags: Any = None, metadata: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        name = _name(serialized, kwargs)
        event = self._event("DATA_ACCESS", f"retriever:{name}", name, run_id, parent_run_id, tags, metadata)
        self.begin(run_id, {**event, "inputs": {"query": query}})

    def on_retriever_end(self, documents: Any, *, run_id: Any, **_: Any) -> None:
        self._end(run_id, {"outputs": {"documents": list(documents)}})

    def on_retriever_error(self, error: BaseException, *, run_id: Any, **_: Any) -> None:
        self._end(run_id, failure(error))

    def _event(
        self, kind: str, action: str, name: str, run_id: Any, parent_run_id: Any, tags: Any, metadata: Any,
    ) -> dict[str, Any]:  # fmt: skip
        trace, agent = self._runs.get(parent_run_id) or (str(parent_run_id or run_id), name)
        self._runs[run_id] = trace, agent
        kept = dict(metadata or {})
        if "thread_id" in kept and "session_id" not in kept:
            kept["session_id"] = kept["thread_id"]
        if tags:
            kept["tags"] = tags
        return {
            "event_type": kind, "agent_id": agent, "trace_id": trace, "action": action,
            "span_id": str(run_id), "parent_span_id": str(parent_run_id) if parent_run_id else None,
            "metadata": kept,
        }  # fmt: skip

    def _end(self, run_id: Any, members: dict[str, Any]) -> None:
        self._runs.pop(run_id, None)
        event = self.take(run_id)
        if event is not None:
            self.record({**event, **members})


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _name(serialized: Any, kwargs: dict[str, Any]) -> str:
    if kwargs.get("name"):
        return str(kwargs["name"])
    if isinstance(serialized, dict):
        if serialized.get("name"):
            return str(serialized["name"])
        if serialized.get("id"):
            return str(serialized["id"][-1])
    return "langchain"


def _message(message: Any) -> Any:
    """A message as an object with what it has and nothing that is empty."""
    if not hasattr(message, "content") or not hasattr(message, "type"):
        return message
    kept = {"role": message.type, "content": message.content}
    for name in (
        "name", "tool_calls", "invalid_tool_calls", "tool_call_id", "status", "artifact",
        "usage_metadata", "response_metadata", "id",
    ):  # fmt: skip
        value = getattr(message, name, None)
        if value:
            kept[name] = value
    return kept
