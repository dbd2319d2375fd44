// Sends one run of an agent as the SDK for JavaScript does it: argv is the
// encoding, json or proto, and the address. Ids and times are given, so that
// every entry is known.
import { SpanKind, SpanStatusCode, context, trace } from '@opentelemetry/api';
import { SeverityNumber } from '@opentelemetry/api-logs';
import { OTLPLogExporter as LogsJSON } from '@opentelemetry/exporter-logs-otlp-http';
import { OTLPLogExporter as LogsProto } from '@opentelemetry/exporter-logs-otlp-proto';
import { OTLPTraceExporter as TracesJSON } from '@opentelemetry/exporter-trace-otlp-http';
import { OTLPTraceExporter as TracesProto } from '@opentelemetry/exporter-trace-otlp-proto';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { BatchLogRecordProcessor, LoggerProvider } from '@opentelemetry/sdk-logs';
import { BatchSpanProcessor, NodeTracerProvider } from '@opentelemetry/sdk-trace-node';

const [encoding, address] = process.argv.slice(2);
const [Traces, Logs, compression] = encoding === 'json' ? [TracesJSON, LogsJSON, 'none'] : [TracesProto, LogsProto, 'gzip'];

let ids = 0;
const id = (digits) => (++ids).toString(16).padStart(digits, '0');
const at = (ms) => [1767225600 + Math.floor(ms / 1000), (ms % 1000) * 1e6];

const resource = resourceFromAttributes({ 'service.name': 'js-agent', 'service.version': '2.0.1', 'deployment.environment.name': 'test', 'host.cpus': 2 });
const tracing = new NodeTracerProvider({
  resource,
  idGenerator: { generateTraceId: () => id(32), generateSpanId: () => id(16) },
  spanProcessors: [new BatchSpanProcessor(new Traces({ url: address + '/v1/traces', compression }))],
});
tracing.register();
const logging = new LoggerProvider({ resource, processors: [new BatchLogRecordProcessor({ exporter: new Logs({ url: address + '/v1/logs', compression }) })] });
const tracer = tracing.getTracer('example-agent', '1.2.3');
const logger = logging.getLogger('example-agent', '1.2.3');

function begin(parent, name, ms, attributes, kind = SpanKind.INTERNAL) {
  const span = tracer.startSpan(name, { startTime: at(ms), attributes, kind }, parent);
  return [span, trace.setSpan(parent, span)];
}

const root = context.active();
const [run, inRun] = begin(root, 'invoke_agent planner', 0, { 'gen_ai.operation.name': 'invoke_agent', 'gen_ai.agent.name': 'planner', 'gen_ai.conversation.id': 'conv-1', 'user.id': 'user123' });
const [chat, inChat] = begin(inRun, 'chat gpt-4.1-mini', 10, {
  'gen_ai.operation.name': 'chat', 'gen_ai.provider.name': 'openai', 'gen_ai.request.model': 'gpt-4.1-mini', 'gen_ai.agent.name': 'planner',
  'gen_ai.input.messages': '[{"role":"user","parts":[{"type":"text","content":"Grüße, 東京 🗼?"}]}]',
  'gen_ai.output.messages': '[{"role":"assistant","parts":[{"type":"tool_call","id":"c1","name":"weather","arguments":{"city":"Tokyo"}}]}]',
  'gen_ai.response.finish_reasons': ['tool_calls'], 'gen_ai.usage.input_tokens': 21, 'gen_ai.usage.output_tokens': 9, 'gen_ai.request.temperature': 0.2,
}, SpanKind.CLIENT);
logger.emit({ context: inChat, timestamp: at(12), observedTimestamp: at(12), eventName: 'gen_ai.client.inference.operation.details', severityNumber: SeverityNumber.INFO,
  attributes: { 'gen_ai.request.model': 'gpt-4.1-mini', 'gen_ai.input.messages': [{ role: 'user' }] } });
chat.end(at(60));
// Two tools at once; inside one of them another agent.
const [weather, inWeather] = begin(inRun, 'execute_tool weather', 70, { 'gen_ai.operation.name': 'execute_tool', 'gen_ai.tool.name': 'weather', 'gen_ai.tool.call.id': 'c1', 'gen_ai.tool.call.arguments': '{"city":"Tokyo"}' });
const [search, inSearch] = begin(inRun, 'execute_tool search', 71, { 'gen_ai.operation.name': 'execute_tool', 'gen_ai.tool.name': 'search' });
const [sub, inSub] = begin(inWeather, 'invoke_agent meteo', 75, { 'gen_ai.operation.name': 'invoke_agent', 'gen_ai.agent.name': 'meteo' }, SpanKind.CLIENT);
const [http] = begin(inSub, 'GET', 76, { 'http.request.method': 'GET', 'url.full': 'https://u:secret-word@weather.example/v1?key=secret-word&q=Tokyo', 'http.request.header.authorization': ['Bearer secret-word'], retry: false, sizes: [1, 2.5, 3] }, SpanKind.CLIENT);
http.addLink({ context: chat.spanContext(), attributes: { why: 'asked by' } });
http.end(at(90));
sub.end(at(95));
search.recordException({ name: 'TypeError', message: 'no network' }, at(96)); // without a stack, which has paths
search.setStatus({ code: SpanStatusCode.ERROR, message: 'no network' });
search.end(at(97));
weather.setAttribute('gen_ai.tool.call.result', '{"celsius":21}');
weather.end(at(100));
logger.emit({ context: inSearch, timestamp: at(98), observedTimestamp: at(98), severityNumber: SeverityNumber.WARN, severityText: 'WARN', body: { text: 'search is down', tries: 3 } });
run.end(at(120));

await tracing.shutdown();
await logging.shutdown();
console.log('sent');
