// Claude and a facilitator for the benchmark, in a process of its own: `node stubs.mjs`, started by `fork`.
// It sends its parent `{ url }`, and takes a plan from it: `{ deltas, every, first, verify, settle }`, see `plan` below.
// The facilitator says yes to everything, with no chain behind it. Nothing is counted or kept.
import { createHash } from 'node:crypto';
import http from 'node:http';
import { NETWORK } from '../chain.mjs';

const WORDS = ['the', ' coin', ' falls', ' into', ' the', ' slot', ',', ' and', ' a', ' small', ' bright', ' sound', '\n', ' is', ' heard', '.'];

/** The text of delta `n`: about four characters, as Claude's are. */
export const word = (n) => WORDS[n % WORDS.length];

/** What a whole answer of `deltas` deltas reads. */
export const answerOf = (deltas) => Array.from({ length: deltas }, (_, n) => word(n)).join('');

const plan = {
  deltas: 200,
  every: 0, // milliseconds between two deltas; 0: the whole answer in one write
  first: 0, // milliseconds until Claude begins, with its first text
  verify: 0, // milliseconds until verify is answered
  settle: 0,
};

const event = (data) => Buffer.from(`event: ${data.type}\ndata: ${JSON.stringify(data)}\n\n`);
const usage = { input_tokens: 25, cache_creation_input_tokens: 0, cache_read_input_tokens: 0, output_tokens: 1 };
const head = Buffer.concat(
  [
    {
      type: 'message_start',
      message: { id: 'msg_bench', type: 'message', role: 'assistant', model: 'claude-haiku-4-5-20251001', content: [], stop_reason: null, stop_sequence: null, usage },
    },
    { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
    { type: 'ping' },
  ].map(event),
);
const tail = (deltas) =>
  Buffer.concat(
    [
      { type: 'content_block_stop', index: 0 },
      { type: 'message_delta', delta: { stop_reason: 'end_turn', stop_sequence: null }, usage: { output_tokens: deltas } },
      { type: 'message_stop' },
    ].map(event),
  );
const deltaEvents = WORDS.map((text) => event({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text } }));
const deltas = (from, to) =>
  to - from === 1 ? deltaEvents[from % WORDS.length] : Buffer.concat(Array.from({ length: to - from }, (_, i) => deltaEvents[(from + i) % WORDS.length]));

const wholes = new Map();
function whole(n) {
  if (!wholes.has(n)) wholes.set(n, Buffer.concat([head, deltas(0, n), tail(n)]));
  return wholes.get(n);
}

// The streams that are being written at a pace. One timer serves them all; a delta that is late goes with the next one.
const streams = new Set();
let timer;

function tick() {
  const now = performance.now();
  for (const stream of streams) {
    const due = Math.min(Math.floor((now - stream.begun) / stream.every) + 1, stream.deltas);
    if (due > stream.sent) {
      stream.response.write(deltas(stream.sent, due));
      stream.sent = due;
    }
    if (due === stream.deltas) {
      stream.response.end(tail(stream.deltas));
      streams.delete(stream);
    }
  }
  if (streams.size === 0) timer = clearInterval(timer);
}

async function claude(response) {
  const { deltas, every, first } = plan;
  if (first) await sleep(first);
  response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache', 'request-id': 'req_bench' });
  if (!every) return response.end(whole(deltas));
  response.write(head);
  const stream = { response, deltas, every, begun: performance.now(), sent: 0 };
  streams.add(stream);
  response.on('close', () => streams.delete(stream));
  timer ??= setInterval(tick, 1);
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const json = (response, body) => response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body));

const answers = {
  'GET /v1/models': (response) => json(response, { data: [{ type: 'model', id: 'claude-haiku-4-5-20251001' }], has_more: false }),
  'POST /v1/messages': claude,
  'GET /supported': (response) => json(response, { kinds: [{ x402Version: 2, scheme: 'exact', network: NETWORK }], extensions: [], signers: {} }),
  async 'POST /verify'(response, { paymentPayload }) {
    if (plan.verify) await sleep(plan.verify);
    json(response, { isValid: true, payer: paymentPayload.payload.authorization.from });
  },
  async 'POST /settle'(response, { paymentPayload }) {
    if (plan.settle) await sleep(plan.settle);
    const { from, nonce } = paymentPayload.payload.authorization;
    const transaction = `0x${createHash('sha256').update(nonce).digest('hex')}`;
    json(response, { success: true, transaction, network: NETWORK, payer: from });
  },
};

if (process.send) {
  const server = http.createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const answer = answers[`${request.method} ${request.url.split('?')[0]}`];
    if (!answer) return response.writeHead(404).end();
    await answer(response, chunks.length ? JSON.parse(Buffer.concat(chunks)) : undefined);
  });
  server.keepAliveTimeout = 600_000; // a kept connection must not end under a request
  server.listen(0, '127.0.0.1', () => process.send({ url: `http://127.0.0.1:${server.address().port}` }));
  process.on('message', ({ id, ...next }) => {
    Object.assign(plan, { deltas: 200, every: 0, first: 0, verify: 0, settle: 0 }, next);
    process.send({ planned: id });
  });
  process.on('disconnect', () => process.exit());
}
