"""The adapters, driven as their frameworks drive them: by the documented calls
everywhere, and by the frameworks themselves where they are installed."""

import asyncio
import dataclasses
import enum
import importlib.util
import logging
import os
import threading
import time
import types
import unittest
import uuid
from unittest import mock

from common import EVENT, TrailTest

from kaizen_audit import AuditTrailHook, LangChainAuditHandler, OpenAIAgentsAuditProcessor, UnavailableError


def installed(name):
    return importlib.util.find_spec(name) is not None


def brief(entries):
    return [(e.event_type, e.action, e.success) for e in entries]


# Kaizen: the documented types.


class HookEvent(enum.Enum):
    PRE_AGENT_LOOP = "pre_agent_loop"
    POST_AGENT_LOOP = "post_agent_loop"
    PRE_TOOL_USE = "pre_tool_use"
    POST_TOOL_USE = "post_tool_use"
    POST_PERMISSION_CHECK = "post_permission_check"
    PRE_CHECKPOINT_SAVE = "pre_checkpoint_save"
    POST_CHECKPOINT_SAVE = "post_checkpoint_save"
    POST_NEW_THING = "post_new_thing"


@dataclasses.dataclass
class HookContext:
    event_type: HookEvent
    agent_id: str
    timestamp: float
    data: dict
    metadata: dict = dataclasses.field(default_factory=dict)
    trace_id: str = None


class Kaizen(TrailTest):
    def trigger(self, hook, event, data, trace=None, agent="qa-agent-001", **metadata):
        # As Kaizen: a new trace id for every event whose caller gives none.
        context = HookContext(event, agent, time.time(), data, metadata, trace or str(uuid.uuid4()))
        return asyncio.run(hook.handle(context))

    def test_a_run_becomes_the_documented_entries(self):
        manager = self.manager()
        hook = AuditTrailHook(audit_manager=manager, metadata={"environment": "production"})
        self.assertTrue(self.trigger(hook, HookEvent.PRE_AGENT_LOOP, {"inputs": {"question": "What is GDPR?"}}, "t1", user_id="user123").success)
        self.trigger(hook, HookEvent.PRE_TOOL_USE, {"tool_name": "calculator", "tool_params": {"e": "6*7"}, "cycle": 1})
        time.sleep(0.02)
        self.trigger(hook, HookEvent.POST_TOOL_USE, {"tool_name": "calculator", "tool_result": {"success": True, "result": 42}, "success": True, "cycle": 1})
        self.trigger(hook, HookEvent.PRE_TOOL_USE, {"tool_name": "search", "tool_params": {}})
        self.trigger(hook, HookEvent.POST_TOOL_USE, {"tool_name": "search", "tool_result": {"error": "no network"}, "success": False})
        self.trigger(hook, HookEvent.POST_PERMISSION_CHECK, {"tool_name": "rm", "allowed": False})
        self.trigger(hook, HookEvent.POST_CHECKPOINT_SAVE, {"checkpoint_id": "c1"})
        self.trigger(hook, HookEvent.POST_NEW_THING, {"x": 1})
        self.trigger(hook, HookEvent.POST_AGENT_LOOP, {"result": {"answer": "a law"}}, "t1")
        entries = manager.audit_entries
        self.assertEqual(brief(entries), [
            ("AGENT_LOOP_START", "agent_execution_start", True),
            ("TOOL_USE", "tool_use:calculator", True),
            ("TOOL_USE", "tool_use:search", False),
            ("PERMISSION_CHECK", "permission_check:rm", False),
            ("CHECKPOINT_SAVE", "checkpoint_save", True),
            ("NEW_THING", "new_thing", True),
            ("AGENT_LOOP_END", "agent_execution_end", True),
        ])  # fmt: skip
        self.assertEqual({e.trace_id for e in entries}, {"t1"})
        self.assertEqual({e.agent_id for e in entries}, {"qa-agent-001"})
        self.assertEqual({e.metadata["environment"] for e in entries}, {"production"})
        start, tool, search, permission = entries[:4]
        self.assertEqual(start.inputs, {"question": "What is GDPR?"})
        self.assertEqual(start.metadata["user_id"], "user123")
        self.assertEqual((tool.inputs, tool.outputs), ({"e": "6*7"}, {"success": True, "result": 42}))
        self.assertGreaterEqual(tool.duration_ms, 20)
        self.assertEqual(search.error, "no network")
        self.assertEqual(permission.outcome, "denied")
        self.assertEqual(entries[-1].outputs, {"answer": "a law"})
        self.assertGreaterEqual(entries[-1].duration_ms, tool.duration_ms)

    def test_what_never_ended_is_recorded_as_unknown(self):
        manager = self.manager()
        hook = AuditTrailHook(audit_manager=manager)
        self.trigger(hook, HookEvent.PRE_TOOL_USE, {"tool_name": "t", "tool_params": {"a": 1}}, "t1")
        hook.close()
        (entry,) = manager.audit_entries
        self.assertEqual((entry.action, entry.outcome, entry.success, entry.inputs), ("tool_use:t", "unknown", False, {"a": 1}))

    def test_concurrent_loops_of_one_agent_are_kept_apart(self):
        manager = self.manager()
        hook = AuditTrailHook(audit_manager=manager)
        for t in ("a", "b"):
            self.trigger(hook, HookEvent.PRE_AGENT_LOOP, {}, t)
            self.trigger(hook, HookEvent.PRE_TOOL_USE, {"tool_name": "x", "tool_params": t}, t)
        for t in ("a", "b"):
            self.trigger(hook, HookEvent.POST_TOOL_USE, {"tool_name": "x", "tool_result": t}, t)
            self.trigger(hook, HookEvent.POST_AGENT_LOOP, {}, t)
        for t in ("a", "b"):
            tool = [e for e in manager.query_by_trace(t) if e.event_type == "TOOL_USE"]
            self.assertEqual([(e.inputs, e.outputs) for e in tool], [({"value": t}, {"value": t})])

    def test_it_registers_for_every_event_or_those_asked_for(self):
        manager = self.manager()
        hook = AuditTrailHook(audit_manager=manager)
        self.assertIsInstance(hook.events, list)
        self.assertIn("pre_agent_loop", hook.events)
        kaizen = types.ModuleType("kaizen.core.autonomy.hooks.types")
        kaizen.HookEvent, kaizen.HookResult = HookEvent, mock.Mock()
        with mock.patch.dict("sys.modules", {kaizen.__name__: kaizen}):
            self.assertEqual(hook.events, list(HookEvent))
            only = AuditTrailHook(manager, [HookEvent.POST_TOOL_USE])
            self.assertEqual(only.events, [HookEvent.POST_TOOL_USE])
            self.trigger(only, HookEvent.PRE_AGENT_LOOP, {})
            kaizen.HookResult.assert_called_with(success=True, data={"audited": False, "reason": "event_filter"})
        self.trigger(only, HookEvent.POST_TOOL_USE, {"tool_name": "t", "duration_ms": 5})
        self.assertEqual([(e.action, e.duration_ms) for e in manager.audit_entries], [("tool_use:t", 5)])

    def test_a_trail_that_fails_does_not_fail_the_agent_and_is_told_later(self):
        manager = self.manager()
        hook = AuditTrailHook(audit_manager=manager)
        with mock.patch.object(manager._client, "post", side_effect=UnavailableError("no holder")):
            with self.assertLogs("kaizen_audit", logging.WARNING) as logged:
                self.assertTrue(self.trigger(hook, HookEvent.POST_TOOL_USE, {"tool_name": "secret-value"}).success)
                self.trigger(hook, HookEvent.POST_TOOL_USE, {"tool_name": "t"})
            self.assertNotIn("secret-value", "".join(logged.output))
            with self.assertRaises(UnavailableError):
                self.trigger(AuditTrailHook(manager, fail_closed=True), HookEvent.POST_TOOL_USE, {})
        self.assertEqual(hook.lost, 2)
        self.trigger(hook, HookEvent.POST_TOOL_USE, {"tool_name": "t"})
        self.assertEqual(brief(manager.audit_entries), [("TOOL_USE", "tool_use:t", True), ("CAPTURE_LOST", "capture_lost", False)])
        self.assertEqual(manager.audit_entries[1].inputs, {"count": 2})

    def test_an_event_that_is_refused_is_recorded_without_its_values(self):
        manager = self.manager()
        hook = AuditTrailHook(audit_manager=manager)
        self.trigger(hook, HookEvent.POST_TOOL_USE, {"tool_name": "t", "duration_ms": "soon", "result": {"a": 1}})
        processor = OpenAIAgentsAuditProcessor(manager)
        processor.record({**EVENT, "duration_ms": "soon", "trace_id": "background"})
        processor.record({**EVENT, "trace_id": "background"})
        processor.force_flush()
        (entry,) = [e for e in manager.audit_entries if e.action == "tool_use:t"]
        self.assertIn("duration_ms", entry.outputs["omitted"])
        self.assertEqual(len(manager.query_by_trace("background")), 2)

    @unittest.skipUnless(installed("kaizen"), "kaizen is not installed")
    def test_with_kaizens_own_hook_manager(self):
        from kaizen.core.autonomy.hooks import HookEvent, HookManager

        manager = self.manager()
        hooks = HookManager()
        hooks.register_hook(AuditTrailHook(audit_manager=manager))

        async def run():
            await hooks.trigger(HookEvent.PRE_AGENT_LOOP, "a", {"inputs": {"q": 1}}, trace_id="t")
            await hooks.trigger(HookEvent.PRE_TOOL_USE, "a", {"tool_name": "x", "tool_params": {"p": 1}})
            await hooks.trigger(HookEvent.POST_TOOL_USE, "a", {"tool_name": "x", "tool_result": {"r": 2}})
            return await hooks.trigger(HookEvent.POST_AGENT_LOOP, "a", {"result": {"r": 2}}, trace_id="t")

        self.assertTrue(all(r.success for r in asyncio.run(run())))
        self.assertEqual([e.action for e in manager.query_by_trace("t")], ["agent_execution_start", "tool_use:x", "agent_execution_end"])


class Message:
    def __init__(self, type, content, **more):
        self.type, self.content = type, content
        self.__dict__.update(more)


class LangChain(TrailTest):
    """The calls of a LangGraph run with one agent node, a model and a tool."""

    def test_a_run_becomes_the_documented_entries(self):
        manager = self.manager()
        handler = LangChainAuditHandler(manager, metadata={"user_id": "user123"})
        root, node, step, model, tool, find = (uuid.uuid4() for _ in range(6))
        graph = {"thread_id": "session456", "langgraph_node": "agent"}
        handler.on_chain_start({"id": ["langgraph", "LangGraph"]}, {"messages": ["hi"]}, run_id=root, name="assistant", metadata={"thread_id": "session456"}, tags=["a"])
        handler.on_chain_start(None, {"messages": ["hi"]}, run_id=node, parent_run_id=root, name="agent", metadata=graph)
        handler.on_chain_start(None, {"x": 1}, run_id=step, parent_run_id=node, name="RunnableSequence", metadata=graph)
        handler.on_chat_model_start({"name": "ChatOpenAI"}, [[Message("human", "hi")]], run_id=model, parent_run_id=step, metadata={**graph, "ls_model_name": "gpt-4o"}, invocation_params={"tools": [{"name": "calculator"}]})
        handler.on_llm_new_token("4", run_id=model)
        said = Message("ai", "", tool_calls=[{"name": "calculator", "args": {"e": "6*7"}, "id": "c1"}], usage_metadata={"total_tokens": 7})
        handler.on_llm_end(types.SimpleNamespace(generations=[[types.SimpleNamespace(message=said, text="")]], llm_output=None), run_id=model)
        handler.on_tool_start({"name": "calculator"}, "{'e': '6*7'}", run_id=tool, parent_run_id=node, inputs={"e": "6*7"})
        time.sleep(0.02)
        handler.on_tool_end(Message("tool", "42", tool_call_id="c1", status="success"), run_id=tool, parent_run_id=node)
        handler.on_retriever_start({"name": "VectorStore"}, "q", run_id=find, parent_run_id=node)
        handler.on_retriever_error(asyncio.TimeoutError(), run_id=find, parent_run_id=node)
        handler.on_chain_end({"y": 1}, run_id=step, parent_run_id=node)
        handler.on_chain_end({"messages": ["42"]}, run_id=node, parent_run_id=root)
        handler.on_chain_end({"messages": ["42"]}, run_id=root)
        entries = manager.audit_entries
        self.assertEqual(brief(entries), [
            ("AGENT_LOOP_START", "agent_execution_start", True),
            ("LLM_CALL", "llm_call:gpt-4o", True),
            ("TOOL_USE", "tool_use:calculator", True),
            ("DATA_ACCESS", "retriever:VectorStore", False),
            ("GRAPH_NODE", "graph_node:agent", True),
            ("AGENT_LOOP_END", "agent_execution_end", True),
        ])  # fmt: skip
        self.assertEqual({e.trace_id for e in entries}, {str(root)})
        self.assertEqual({e.agent_id for e in entries}, {"assistant"})
        self.assertEqual({e.metadata["user_id"] for e in entries}, {"user123"})
        start, llm, use, data, graph_node, end = entries
        self.assertEqual(start.metadata["session_id"], "session456")
        self.assertEqual(llm.inputs, {"messages": [{"role": "human", "content": "hi"}], "tools": [{"name": "calculator"}]})
        self.assertEqual(llm.outputs["messages"][0]["tool_calls"][0]["args"], {"e": "6*7"})
        self.assertEqual(use.inputs, {"e": "6*7"})
        self.assertEqual(use.outputs["content"], "42")
        self.assertGreaterEqual(use.duration_ms, 20)
        self.assertEqual((use.span_id, use.parent_span_id), (str(tool), str(node)))
        self.assertEqual((data.outcome, data.error), ("timeout", "TimeoutError"))
        self.assertEqual(end.outputs, {"messages": ["42"]})
        self.assertEqual(handler._runs, {})

    def test_a_run_that_fails_says_so(self):
        manager = self.manager()
        handler = LangChainAuditHandler(manager, agent_id="mine", chains=True)
        root, step = uuid.uuid4(), uuid.uuid4()
        handler.on_chain_start({}, {"q": 1}, run_id=root, name="chain")
        handler.on_chain_start({}, {"q": 1}, run_id=step, parent_run_id=root, name="prompt")
        handler.on_chain_error(ValueError("bad"), run_id=step, parent_run_id=root)
        handler.on_chain_error(ValueError("bad"), run_id=root)
        self.assertEqual(brief(manager.query_by_agent("mine")), [
            ("AGENT_LOOP_START", "agent_execution_start", True),
            ("CHAIN_RUN", "chain:prompt", False),
            ("AGENT_LOOP_END", "agent_execution_end", False),
        ])  # fmt: skip
        self.assertEqual(manager.audit_entries[-1].error, "ValueError: bad")

    def test_a_model_or_a_tool_alone_is_a_trace_of_its_own(self):
        manager = self.manager()
        handler = LangChainAuditHandler(manager)
        run = uuid.uuid4()
        handler.on_llm_start({"id": ["x", "FakeLLM"]}, ["hi"], run_id=run)
        handler.on_llm_end(types.SimpleNamespace(generations=[[types.SimpleNamespace(text="yo")]], llm_output={"n": 1}), run_id=run)
        (entry,) = manager.query_by_trace(str(run))
        self.assertEqual((entry.action, entry.inputs), ("llm_call:FakeLLM", {"prompts": ["hi"]}))
        self.assertEqual(entry.outputs, {"messages": [{"text": "yo"}], "llm_output": {"n": 1}})

    @unittest.skipUnless(installed("langchain_core"), "langchain-core is not installed")
    def test_with_langchain_itself(self):
        from langchain_core.language_models import FakeListChatModel
        from langchain_core.tools import tool

        @tool
        def calculator(expression: str) -> str:
            """Calculates."""
            return "42"

        manager = self.manager()
        handler = LangChainAuditHandler(manager)
        chain = FakeListChatModel(responses=["42"]) | (lambda m: calculator.invoke({"expression": m.content}))
        self.assertEqual(chain.invoke("6*7", config={"callbacks": [handler]}), "42")
        asyncio.run(chain.ainvoke("6*7", config={"callbacks": [handler]}))
        kinds = [e.event_type for e in manager.audit_entries]
        self.assertEqual(kinds.count("AGENT_LOOP_START"), 2)
        self.assertEqual(kinds.count("AGENT_LOOP_END"), 2)
        self.assertEqual(kinds.count("LLM_CALL"), 2)
        self.assertGreaterEqual(kinds.count("TOOL_USE"), 1)

    @unittest.skipUnless(installed("langgraph"), "langgraph is not installed")
    def test_with_langgraph_itself(self):
        from langgraph.graph import END, START, MessagesState, StateGraph

        graph = StateGraph(MessagesState)
        graph.add_node("agent", lambda state: {"messages": [("ai", "42")]})
        graph.add_edge(START, "agent")
        graph.add_edge("agent", END)
        manager = self.manager()
        handler = LangChainAuditHandler(manager)
        graph.compile(name="assistant").invoke({"messages": [("human", "6*7")]}, config={"callbacks": [handler]})
        self.assertEqual([e.action for e in manager.query_by_agent("assistant")], ["agent_execution_start", "graph_node:agent", "agent_execution_end"])


class Span:
    """A span of the OpenAI Agents SDK, by its documented members."""

    def __init__(self, kind, trace, parent=None, error=None, **members):
        class Data:
            __slots__ = tuple(members)
            type = kind

        self.span_data = Data()
        for name, value in members.items():
            setattr(self.span_data, name, value)
        self.span_id, self.trace_id, self.parent_id = "span_" + uuid.uuid4().hex, trace, parent
        self.started_at, self.ended_at, self.error = None, None, error


class OpenAIAgents(TrailTest):
    def test_a_run_becomes_the_documented_entries(self):
        manager = self.manager()
        processor = OpenAIAgentsAuditProcessor(manager, metadata={"environment": "test"})
        trace = types.SimpleNamespace(trace_id="trace_1", name="Support", group_id="session456", metadata={"user_id": "user123"})
        processor.on_trace_start(trace)
        agent = Span("agent", "trace_1", name="triage", handoffs=["refunds"], tools=["calculator"], output_type="str", metadata=None)
        model = Span("response", "trace_1", agent.span_id, response=types.SimpleNamespace(id="r1", model="gpt-4o", output=[{"x": 1}], usage=None), input="6*7", usage={"total": 7})
        tool = Span("function", "trace_1", agent.span_id, name="calculator", input='{"e":"6*7"}', output="42", mcp_data=None)
        guard = Span("guardrail", "trace_1", agent.span_id, name="pii", triggered=True)
        hand = Span("handoff", "trace_1", agent.span_id, {"message": "no such agent", "data": {"n": 1}}, from_agent="triage", to_agent="refunds")
        own = Span("new_kind", "trace_1", agent.span_id, name="x", data={"a": 1})
        at = "2025-10-26T10:53:45.%03d000+00:00"
        agent.started_at = at % 0
        processor.on_span_start(agent)
        for i, span in enumerate((model, tool, guard, hand, own)):
            span.started_at = at % (10 * i)
            processor.on_span_start(span)
            span.ended_at = at % (10 * i + 5)
            processor.on_span_end(span)
        agent.ended_at = at % 100
        processor.on_span_end(agent)
        processor.on_trace_end(trace)
        processor.force_flush()
        entries = manager.query_by_trace("trace_1")
        self.assertEqual(brief(entries), [
            ("AGENT_LOOP_START", "agent_execution_start", True),
            ("LLM_CALL", "llm_call:gpt-4o", True),
            ("TOOL_USE", "tool_use:calculator", True),
            ("PERMISSION_CHECK", "guardrail:pii", False),
            ("SPECIALIST_INVOKE", "handoff:refunds", False),
            ("CUSTOM_SPAN", "new_kind:x", True),
            ("SPECIALIST_INVOKE", "agent:triage", True),
            ("AGENT_LOOP_END", "agent_execution_end", True),
        ])  # fmt: skip
        start, llm, use, guardrail, handoff = entries[:5]
        self.assertEqual(start.agent_id, "Support")
        self.assertEqual((start.metadata["session_id"], start.metadata["user_id"], start.metadata["environment"]), ("session456", "user123", "test"))
        self.assertEqual({e.agent_id for e in entries[1:7]}, {"triage"})
        self.assertEqual((llm.inputs, llm.outputs), ({"input": "6*7"}, {"output": [{"x": 1}], "response_id": "r1", "usage": {"total": 7}}))
        self.assertEqual((use.inputs, use.outputs, use.duration_ms), ({"input": '{"e":"6*7"}'}, {"output": "42"}, 5))
        self.assertEqual(use.parent_span_id, agent.span_id)
        self.assertEqual(guardrail.outcome, "denied")
        self.assertEqual((handoff.error, handoff.inputs), ("no such agent", {"from_agent": "triage", "to_agent": "refunds"}))
        self.assertEqual((processor._agents, processor._traces, processor._open), ({}, {}, {}))

    def test_the_loop_does_not_wait_for_the_disk(self):
        manager = self.manager()
        manager.record_event(EVENT)
        processor = OpenAIAgentsAuditProcessor(manager)
        with mock.patch.object(manager, "record_events", side_effect=lambda events: time.sleep(0.3)):
            begun = time.perf_counter()
            for _ in range(100):
                processor.record(dict(EVENT))
            self.assertLess(time.perf_counter() - begun, 0.2)
            processor.force_flush()

    def test_shutdown_records_what_is_queued_and_what_never_ended(self):
        manager = self.manager()
        processor = OpenAIAgentsAuditProcessor(manager)
        span = Span("function", "trace_2", name="t", input="i", output=None, mcp_data=None)
        processor.on_span_start(span)
        processor.shutdown()
        self.assertEqual([(e.action, e.outcome) for e in manager.query_by_trace("trace_2")], [("tool_use:t", "unknown")])

    def test_a_child_of_fork_records_its_own_and_not_its_parents(self):
        manager = self.manager()
        processor = OpenAIAgentsAuditProcessor(manager)
        processor.record({**EVENT, "trace_id": "parent"})
        processor.on_span_start(Span("function", "parent", name="t", input="i", output=None, mcp_data=None))
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                processor.record({**EVENT, "trace_id": "child"})
                processor.shutdown()
                code = 0
            finally:
                os._exit(code)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        processor.shutdown()
        self.assertEqual(len(manager.query_by_trace("child")), 1)
        self.assertEqual(len(manager.query_by_trace("parent")), 2)

    def test_what_is_queued_is_recorded_when_the_process_ends(self):
        manager = self.manager()
        pid = os.fork()
        if pid == 0:
            import subprocess, sys

            code = "import sys; sys.path[:0]=%r; from kaizen_audit import *; p=OpenAIAgentsAuditProcessor(AuditTrailManager(%r)); [p.record(%r) for _ in range(50)]" % (sys.path, self.log, EVENT)
            os._exit(subprocess.run([sys.executable, "-c", code]).returncode)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.assertEqual(len(manager.audit_entries), 50)

    @unittest.skipUnless(installed("agents"), "openai-agents is not installed")
    def test_with_the_sdk_itself(self):
        from agents import set_trace_processors
        from agents.tracing import agent_span, function_span, trace

        manager = self.manager()
        processor = OpenAIAgentsAuditProcessor(manager)
        set_trace_processors([processor])
        with trace("Support", group_id="s1"):
            with agent_span(name="triage"):
                with function_span(name="calculator", input="6*7") as span:
                    span.span_data.output = "42"
        processor.force_flush()
        self.assertEqual([e.action for e in manager.audit_entries], ["agent_execution_start", "tool_use:calculator", "agent:triage", "agent_execution_end"])
