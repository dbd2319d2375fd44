// Package mcpaudit has recorded what clients and servers of
// github.com/modelcontextprotocol/go-sdk do:
//
//	client := mcpaudit.NewClient(hooks, &mcp.Implementation{Name: "agent"}, nil)
//
//	mcpaudit.RecordServer(hooks, server)
//
// Every request is an entry, on the side that records, whichever side sent it:
//
//	request                  event type   action
//	tools/call               TOOL_USE     tool_use:<tool>
//	sampling/createMessage   LLM_CALL     llm_call:<model that answered>
//	resources/read           DATA_ACCESS  retriever
//	any other                MCP_REQUEST  mcp:<method>
//
// Pings and notifications have none. inputs are a tool's arguments, else the
// request's params; outputs are the result, or {"error":{…}} as it came. A tool that
// says isError has failed. metadata.mcp says the method, the role of this side, the
// peer and the version of the protocol; metadata.gen_ai what is known of a model.
// Of a server's caller with a token, metadata.user_id is whom the token names.
//
// outcome is input_required where the answer asks the client for more (such a request
// comes again with what was asked for, and is another entry), denied where a user
// declined what an elicitation asks for, cancelled where it was dismissed or the call
// was cancelled.
//
// A request is a child of the action that its context belongs to. To the other side
// it carries that in _meta.traceparent (W3C Trace Context), and a request that is
// received with it, outside of any action, is a child of the action there: the trees
// of both sides are one. What a peer says there is taken as it is, so a caller can
// choose in which trace it is shown.
//
// No HTTP header is recorded, nor a session id, with which one could take over the
// session. Of values that have the name of a header that carries a credential
// (authorization, cookie, …) {"omitted":"credential"} is kept.
//
// It is a module of its own, so that programs without the SDK do without it.
package mcpaudit
