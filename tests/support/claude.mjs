// The Anthropic Messages API, scripted: each test says what Claude does, down to the byte.
//
//   const claude = await startClaude((request, n) => say('Hello'));
//   claude.script = () => apiError(529);          // from the next request on
//   claude.script = () => [head, 50, ...say('Hel', 'lo').slice(0, 4), cut];
//
// A script is a list of steps, or `{ steps, status, headers, chop }`, or what `apiError` returns.
// Steps, in order:
//   { type: 'ping' }       an event, written as `event: <type>` and `data: <the object>`
//   250                    wait that many milliseconds
//   async () => {}         wait for the test, or do something in the middle
//   Buffer                 these bytes, as they are
//   head                   send status and headers now (else they go out with the first bytes)
//   cut                    break the connection
//   hang                   nothing more, until the client or the test ends it
// The list's end ends the body, with or without a message_stop.
import http from 'node:http';

export const head = Symbol('head');
export const cut = Symbol('cut');
export const hang = Symbol('hang');

export const GOOD_KEY = `sk-ant-api03-${'g'.repeat(95)}`;
export const BAD_KEY = `sk-ant-api03-${'b'.repeat(95)}`;

const TYPES = {
  400: 'invalid_request_error',
  401: 'authentication_error',
  402: 'billing_error',
  403: 'permission_error',
  404: 'not_found_error',
  413: 'request_too_large',
  429: 'rate_limit_error',
  500: 'api_error',
  504: 'timeout_error',
  529: 'overloaded_error',
};

/** A refusal before the stream. `apiError(429, { headers: { 'retry-after': '7' } })` */
export const apiError = (status, { type = TYPES[status] ?? 'api_error', message = type, headers = {} } = {}) => ({
  status,
  headers,
  error: { type, message },
});

/** The event that ends a stream which had begun well. Nothing follows it. */
export const errorEvent = (type = 'overloaded_error', message = 'Overloaded') => ({ type: 'error', error: { type, message } });

export const start = ({ model = 'claude-haiku-4-5-20251001', input_tokens = 25, id = 'msg_scripted', ...usage } = {}) => ({
  type: 'message_start',
  message: {
    id,
    type: 'message',
    role: 'assistant',
    model,
    content: [],
    stop_reason: null,
    stop_sequence: null,
    usage: { input_tokens, cache_creation_input_tokens: 0, cache_read_input_tokens: 0, output_tokens: 1, ...usage },
  },
});
export const open = (index = 0, content_block = { type: 'text', text: '' }) => ({ type: 'content_block_start', index, content_block });
export const delta = (text, index = 0) => ({ type: 'content_block_delta', index, delta: { type: 'text_delta', text } });
export const shut = (index = 0) => ({ type: 'content_block_stop', index });
export const end = ({ stop_reason = 'end_turn', stop_sequence = null, output_tokens = 10, ...usage } = {}) => ({
  type: 'message_delta',
  delta: { stop_reason, stop_sequence },
  usage: { output_tokens, ...usage },
});
export const stop = { type: 'message_stop' };
export const ping = { type: 'ping' };

/**
 * A whole, good answer as steps: one delta for each piece. Options come last:
 * `say('Hel', 'lo', { every: 20, stop_reason: 'max_tokens', input_tokens: 7, output_tokens: 2 })`.
 */
export function say(...pieces) {
  const options = typeof pieces.at(-1) === 'object' ? pieces.pop() : {};
  const { every = 0, model, input_tokens, stop_reason, output_tokens = pieces.length } = options;
  return [
    start({ model, input_tokens }),
    open(),
    ping,
    ...pieces.flatMap((piece) => (every ? [every, delta(piece)] : [delta(piece)])),
    shut(),
    end({ stop_reason, output_tokens }),
    stop,
  ];
}

/** The bytes of events, for `chop` and for comparing. */
export const encode = (...events) =>
  Buffer.from(events.map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join(''));

/** For `chop`: pieces of `size` bytes, through lines, escapes and UTF-8 characters alike. */
export const every = (size) => (bytes) =>
  Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.subarray(i * size, (i + 1) * size));

/**
 * Starts the mock. `script(request, n)` is called for each POST /v1/messages, n counting from 1; it may
 * be replaced at any time as `claude.script`. `goodKey(key)` decides 401.
 *
 * `claude.requests` holds, oldest first:
 * `{ n, at, method, path, headers, key, body, raw, status, sent, endedAt, hungUp, done }`; `sent` counts
 * events, `hungUp` tells that the client left before the end, `done` resolves when the exchange is over.
 */
export async function startClaude(script = () => say('Hello', ', ', 'world'), { port = 0, goodKey = (key) => key !== BAD_KEY } = {}) {
  const claude = { script, goodKey, requests: [] };
  let models = 0;

  async function serve(req, res) {
    const path = req.url;
    const key = req.headers['x-api-key'] ?? req.headers.authorization?.replace(/^Bearer /i, '');
    const record = { at: Date.now(), method: req.method, path, headers: req.headers, key, sent: 0, hungUp: false };
    record.done = new Promise((resolve) => {
      res.on('close', () => {
        record.endedAt = Date.now();
        record.hungUp = !res.writableFinished && !record.cut && !claude.closing;
        resolve(record);
      });
    });
    const gone = new Promise((resolve) => res.on('close', resolve));
    const isMessages = path.split('?')[0] === '/v1/messages' && req.method === 'POST';
    if (isMessages) record.n = claude.requests.push(record);
    const chunks = [];
    for await (const chunk of req) chunks.push(chunk);
    record.raw = Buffer.concat(chunks);

    const refuse = (status, message) => fail(res, record, apiError(status, { message }));
    if (!key || !claude.goodKey(key)) return refuse(401, 'invalid x-api-key');
    if (!req.headers['anthropic-version']) return refuse(400, 'anthropic-version: header is required');
    if (req.method === 'GET' && path.startsWith('/v1/models')) {
      models += 1;
      const data = [{ type: 'model', id: 'claude-haiku-4-5-20251001', display_name: 'Claude Haiku 4.5', created_at: '2025-10-01T00:00:00Z' }];
      return json(res, record, 200, { data, has_more: false, first_id: data[0].id, last_id: data[0].id });
    }
    if (!isMessages) return refuse(404, 'Not found');
    try {
      record.body = JSON.parse(record.raw);
    } catch {
      return refuse(400, 'The request body is not valid JSON');
    }
    // What the real API insists on, so that a malformed request fails here as it would there.
    for (const field of ['model', 'max_tokens', 'messages']) {
      if (record.body[field] === undefined) return refuse(400, `${field}: Field required`);
    }
    if (!record.body.messages.length) return refuse(400, 'messages: at least one message is required');
    if (record.body.messages.some(({ content }) => !content?.length)) return refuse(400, 'messages: content must be non-empty');

    const plan = await claude.script(record, record.n);
    if (plan.error) return fail(res, record, plan);
    await play(res, record, Array.isArray(plan) ? { steps: plan } : plan, gone);
  }

  async function play(res, record, { steps, status = 200, headers = {}, chop = (bytes) => [bytes] }, gone) {
    const streaming = record.body.stream === true;
    const said = [];
    const sendHead = () => {
      if (res.headersSent) return;
      record.status = status;
      const type = streaming ? 'text/event-stream; charset=utf-8' : 'application/json';
      res.writeHead(status, { 'content-type': type, 'cache-control': 'no-cache', 'request-id': `req_${record.n}`, ...headers });
      res.flushHeaders();
    };
    const write = async (bytes) => {
      sendHead();
      for (const piece of chop(bytes)) {
        res.write(piece);
        // A turn of the loop between pieces, so that they leave as packets of their own.
        await new Promise(setImmediate);
      }
    };
    for (const step of steps) {
      if (res.destroyed) return;
      if (step === head) sendHead();
      else if (step === hang) return gone;
      else if (step === cut) {
        record.cut = true;
        // Let what was written leave first: the client shall see it, and then the break.
        await new Promise((resolve) => (res.headersSent ? setTimeout(resolve, 10) : resolve()));
        return res.destroy();
      } else if (typeof step === 'number') await Promise.race([new Promise((resolve) => setTimeout(resolve, step)), gone]);
      else if (typeof step === 'function') await Promise.race([step(record), gone]);
      else if (Buffer.isBuffer(step)) await write(step);
      else {
        if (streaming) await write(encode(step));
        said.push(step);
        record.sent += 1;
      }
    }
    if (!streaming) await write(Buffer.from(JSON.stringify(fold(said))));
    res.end();
  }

  const server = http.createServer((req, res) => {
    // A script that throws is a mistake in the test: say so where it shows.
    serve(req, res).catch((error) => (res.destroyed ? undefined : (console.error(error), res.destroy())));
  });
  server.keepAliveTimeout = 60_000; // longer than any test, so that a kept connection never races its end
  await new Promise((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve));
  return Object.assign(claude, {
    url: `http://127.0.0.1:${server.address().port}`,
    /** How often GET /v1/models was answered with 200. */
    modelChecks: () => models,
    reset: () => void (claude.requests.length = 0),
    close: () =>
      new Promise((resolve) => {
        claude.closing = true;
        server.close(resolve);
        server.closeAllConnections();
      }),
  });
}

function fail(res, record, { status, headers, error }) {
  json(res, record, status, { type: 'error', error, request_id: `req_${record.n ?? 0}` }, headers);
}

function json(res, record, status, body, headers = {}) {
  record.status = status;
  res.writeHead(status, { 'content-type': 'application/json', 'request-id': `req_${record.n ?? 0}`, ...headers });
  res.end(JSON.stringify(body));
}

/** The Message that a stream's events amount to: the answer to a request without `stream`. */
function fold(events) {
  const message = structuredClone(events.find((event) => event.type === 'message_start')?.message ?? {});
  for (const event of events) {
    if (event.type === 'content_block_start') message.content[event.index] = structuredClone(event.content_block);
    if (event.delta?.type === 'text_delta') message.content[event.index].text += event.delta.text;
    if (event.type === 'message_delta') {
      Object.assign(message, event.delta);
      Object.assign(message.usage, event.usage);
    }
  }
  return message;
}
