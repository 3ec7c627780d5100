// Whatever Claude does: the caller hears which it was, in our words, and pays for nothing that they did
// not get.
import assert from 'node:assert/strict';
import net from 'node:net';
import { describe, test } from 'node:test';
import { apiError, cut, delta, encode, end, errorEvent, every, hang, head, open, ping, say, shut, start, stop } from '../support/claude.mjs';
import { WHOLE, asked, hello, payer, payerStack, stack } from '../support/file_stack.mjs';
import { HAIKU, HAIKU_PRICE, INPUT, decodeReceipt, gate, readSse, sleep, sse, until } from '../support/stack.mjs';

const THEIRS = 'req_011 upstream words of Anthropic';
const LIMITS = { claudeBeginSeconds: 1, claudeIdleSeconds: 1, startAttempts: 1, paidAttempts: 2 };
payerStack({ config: { revision: 'failures', limits: LIMITS } });

const api = (status, message = '', headers) => () => apiError(status, { message: `${message} ${THEIRS}`, headers });
const typed = (status, type) => () => apiError(status, { type, message: THEIRS });

// What Claude does, then: status, code, Retry-After (a number, `true` for any, `null` for none).
const table = [
  ['401', api(401), 503, 'CLAUDE_KEY_INVALID', null],
  ['403', api(403), 503, 'CLAUDE_PERMISSION_DENIED', null],
  ['402 billing_error', api(402), 503, 'CLAUDE_BILLING', null],
  ['400 with an empty credit balance', api(400, 'Your credit balance is too low to access the Anthropic API.'), 503, 'CLAUDE_BILLING', null],
  ['404, a retired model', api(404, 'model: claude-haiku-4-5-20251001'), 503, 'CLAUDE_MODEL_RETIRED', null],
  ['400, too long', api(400, 'prompt is too long: 210000 tokens > 200000 maximum'), 413, 'CLAUDE_INPUT_TOO_LONG', null],
  ['400 for another reason', api(400, 'temperature: not supported'), 502, 'CLAUDE_REQUEST_REJECTED', null],
  ['413', api(413), 413, 'CLAUDE_INPUT_TOO_LONG', null],
  ['429 with Retry-After', api(429, '', { 'retry-after': '7' }), 429, 'CLAUDE_RATE_LIMITED', 7],
  ['429 without Retry-After, a spend cap', api(429), 429, 'CLAUDE_RATE_LIMITED', 3600],
  ['500', api(500), 502, 'CLAUDE_ERROR', true],
  ['503 without a body of the API', () => ({ status: 503, steps: [Buffer.from(`<html>${THEIRS}</html>`)] }), 503, 'CLAUDE_OVERLOADED', true],
  ['504', api(504), 504, 'CLAUDE_TIMEOUT', true],
  ['529', api(529), 503, 'CLAUDE_OVERLOADED', true],
  ['a type that nobody knows yet, with 418', typed(418, 'teapot_error'), 502, 'CLAUDE_ERROR', true],
  ['a redirect', () => ({ status: 302, headers: { location: 'https://example.invalid/' }, steps: [head] }), 502, 'CLAUDE_ERROR', true],
  ['a connection that breaks before any answer', () => [cut], 502, 'CLAUDE_UNREACHABLE', true],
  ['no answer at all', () => [hang], 504, 'CLAUDE_TIMEOUT', true],
  ['a head and then nothing', () => [head, hang], 504, 'CLAUDE_TIMEOUT', true],
  ['pings and then nothing', () => [ping, ping, hang], 504, 'CLAUDE_TIMEOUT', true],
  ['a break before message_start', () => [head, 20, cut], 502, 'CLAUDE_CUT_OFF', true],
  ['an end before message_start', () => [ping], 502, 'CLAUDE_CUT_OFF', true],
  ['an error event before message_start', () => [errorEvent('overloaded_error', THEIRS)], 503, 'CLAUDE_OVERLOADED', true],
  ['a 200 that is not the Messages API', () => [Buffer.from(`data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"${THEIRS}"}}\n\n`)], 502, 'CLAUDE_STREAM_ERROR', true],
  ['an HTML page with 200', () => [Buffer.from(`<html>${THEIRS}</html>`)], 502, 'CLAUDE_CUT_OFF', true],
  ['a break at once after message_start', () => [start(), cut], 502, 'CLAUDE_CUT_OFF', true],
  ['an error event at once after message_start', () => [encode(start(), open(), errorEvent('api_error', THEIRS))], 502, 'CLAUDE_STREAM_ERROR', true],
  ['an empty answer', () => [start(), end(), stop], 502, 'CLAUDE_EMPTY_ANSWER', true],
  ['an empty block of text', () => [start(), open(), shut(), end(), stop], 502, 'CLAUDE_EMPTY_ANSWER', true],
  ['white space alone', () => [encode(...say(' ', '\n\u200b'))], 502, 'CLAUDE_EMPTY_ANSWER', true],
  ['thinking up to the limit, and no text', () => [start(), open(0, { type: 'thinking', thinking: '' }), { type: 'content_block_delta', index: 0, delta: { type: 'thinking_delta', thinking: THEIRS } }, shut(0), end({ stop_reason: 'max_tokens' }), stop], 502, 'CLAUDE_EMPTY_ANSWER', true],
  ['a refusal at once', () => [Buffer.concat([encode(start(), open(), delta(THEIRS), shut(), end({ stop_reason: 'refusal' }), stop)])], 422, 'CLAUDE_REFUSED', null],
  ['a refusal without a word', () => [start(), end({ stop_reason: 'refusal' }), stop], 422, 'CLAUDE_REFUSED', null],
];
// What only JSON can still refuse with a status: the answer had begun well.
const midway = [
  ['an error event midway', () => [start(), open(), delta(THEIRS), 60, errorEvent('overloaded_error', THEIRS)], 502, 'CLAUDE_STREAM_ERROR', true],
  ['a break midway', () => [start(), open(), delta(THEIRS), 60, cut], 502, 'CLAUDE_CUT_OFF', true],
  ['an end without message_stop', () => [start(), open(), delta(THEIRS), shut(), end()], 502, 'CLAUDE_CUT_OFF', true],
  ['a pause midway', () => say('Hel', { stop_reason: 'pause_turn' }), 502, 'CLAUDE_CUT_OFF', true],
  ['a call of a tool that nobody offered', () => say('Hel', { stop_reason: 'tool_use' }), 502, 'CLAUDE_CUT_OFF', true],
  ['silence midway', () => [start(), open(), delta(THEIRS), hang], 504, 'CLAUDE_TIMEOUT', true],
  ['a refusal after some text', () => [start(), open(), delta(THEIRS), 60, shut(), end({ stop_reason: 'refusal' }), stop], 422, 'CLAUDE_REFUSED', null],
];

/** A request that Claude fails: refused by name and not charged; then, with Claude well again, served. */
async function refused(accept, script, status, code, retryAfter) {
  const headers = { accept, ...(await stack.signPayment(HAIKU, INPUT, payer)) };
  stack.claude.script = script;
  const response = await stack.post(HAIKU, INPUT, headers);
  const body = await response.text();
  assert.equal(response.status, status, body);
  const { error } = JSON.parse(body);
  assert.equal(error.code, code);
  assert.ok(error.message.length > 10);
  const told = response.headers.get('retry-after');
  if (retryAfter === null) assert.equal(told, null);
  else if (retryAfter === true) assert.ok(Number(told) > 0, `Retry-After: ${told}`);
  else assert.equal(told, String(retryAfter));
  assert.equal(error.retryable, retryAfter !== null);
  assert.equal(body.includes('upstream words') || JSON.stringify([...response.headers]).includes('upstream words'), false, `Anthropic's text in ${body}`);
  assert.equal(stack.facilitator.count('settle'), 0, 'settle was asked');
  assert.equal(await stack.balance(payer), WHOLE);
  const row = await stack.row(response.headers.get('x-run-id') ?? error.run);
  assert.deepEqual([row.status, row.code, row.amount, row.tx], ['failed', code, '0', null]);

  stack.claude.script = hello;
  const again = await stack.post(HAIKU, INPUT, headers);
  assert.equal(again.status, 200, 'the same payment buys the run when Claude is well');
  assert.match(await again.text(), /Hello/);
  assert.equal(stack.facilitator.count('settle'), 1);
  assert.equal(await stack.balance(payer), WHOLE - HAIKU_PRICE);
}

describe('as a stream', { concurrency: false }, () => {
  for (const [name, ...expected] of table) test(`${name}: ${expected[2]}`, () => refused('text/event-stream', ...expected));
});

describe('as JSON', { concurrency: false }, () => {
  for (const [name, ...expected] of [...table.filter(([, , status]) => status !== 504), ...midway]) {
    test(`${name}: ${expected[2]}`, () => refused('application/json', ...expected));
  }
});

test('a refused connection: CLAUDE_UNREACHABLE', async () => {
  const server = net.createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve)); // nobody listens there now
  await stack.restart({ ANTHROPIC_BASE_URL: `http://127.0.0.1:${port}` });
  try {
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const response = await stack.post(HAIKU, INPUT, headers);
    assert.equal(response.status, 502);
    assert.equal((await response.json()).error.code, 'CLAUDE_UNREACHABLE');
    assert.equal(stack.facilitator.count('settle'), 0);
  } finally {
    await stack.restart();
  }
});

describe('after text was released', () => {
  const trouble = {
    'a break': [[cut], 'CLAUDE_CUT_OFF'],
    'an end without message_stop': [[shut(), end()], 'CLAUDE_CUT_OFF'],
    'an error event': [[errorEvent('overloaded_error', THEIRS)], 'CLAUDE_STREAM_ERROR'],
    silence: [[hang], 'CLAUDE_TIMEOUT'],
  };
  for (const [name, [steps, code]] of Object.entries(trouble)) {
    test(`${name} ends the stream with the error ${code}, and the same payment gets the whole text for no more money`, async () => {
      const headers = await stack.signPayment(HAIKU, INPUT, payer);
      const seen = gate();
      stack.claude.script = () => [start(), open(), delta('half'), () => seen.opened, ...steps];
      const events = sse(await stack.post(HAIKU, INPUT, headers));
      assert.equal((await events.next()).value.content, 'half');
      seen.open();
      const { value: error } = await events.next();
      assert.equal(error.type, 'error');
      assert.equal(error.code, code);
      assert.equal(error.charged, true);
      assert.match(error.message, /present the same payment again/);
      assert.equal(JSON.stringify(error).includes('upstream words'), false);
      assert.match(error.run, /^run_/);
      assert.equal((await events.next()).done, true, 'nothing follows the error');
      const row = await stack.row(error.run);
      assert.deepEqual([row.status, row.code, row.amount], ['interrupted', code, String(HAIKU_PRICE)]);

      stack.claude.script = hello;
      const again = await readSse(await stack.post(HAIKU, INPUT, headers));
      assert.equal(again.text, 'Hello, world');
      assert.equal(again.done.run, error.run);
      assert.equal(stack.facilitator.count('settle'), 1);
      assert.equal(stack.facilitator.count('verify'), 1);
      assert.equal(await stack.balance(payer), WHOLE - HAIKU_PRICE);
      await stack.row(error.run, (r) => r.status === 'delivered');
      const earned = await stack.rows('payer = ?', payer.address);
      assert.equal(earned.length, 1, 'one run, one row');
    });
  }

  test('a refusal is told at the end of the stream', async () => {
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const seen = gate();
    stack.claude.script = () => [start(), open(), delta('I would rath'), () => seen.opened, shut(), end({ stop_reason: 'refusal' }), stop];
    const events = sse(await stack.post(HAIKU, INPUT, headers));
    assert.equal((await events.next()).value.content, 'I would rath');
    seen.open();
    const { value: error } = await events.next();
    assert.deepEqual([error.type, error.code], ['error', 'CLAUDE_REFUSED']);
    const row = await stack.row(error.run);
    assert.equal(row.status, 'refundable');
    await (await stack.post(HAIKU, INPUT, headers)).text();
    assert.equal(stack.claude.requests.length, 1, 'a model that declined is not asked again');
    assert.equal(stack.facilitator.count('settle'), 1);
  });

  test('Claude failing for good: the run is marked for refund, and never reported as delivered', async () => {
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    stack.claude.script = () => [start(), open(), delta('half'), 150, cut];
    const answers = [];
    for (let i = 0; i < 4; i++) answers.push(await (await stack.post(HAIKU, INPUT, headers)).text());
    assert.equal(stack.claude.requests.length, LIMITS.paidAttempts);
    for (const answer of answers) {
      assert.ok(answer.includes('"error"'), answer);
      assert.equal(answer.includes('"done"'), false);
    }
    await until(async () => (await stack.rows('payer = ? AND status = ?', payer.address, 'refundable')).length, { what: 'a refundable row' });
    assert.equal((await stack.rows('payer = ?', payer.address)).length, 1);
    assert.equal(stack.facilitator.count('settle'), 1);
  });
});

describe('after it was settled, before any text', () => {
  const trouble = { 'a break': [cut], 'an end': [], 'an error event': [errorEvent('api_error', THEIRS)], silence: [hang] };
  for (const [name, steps] of Object.entries(trouble)) {
    test(`${name}: Claude is asked again, the caller sees nothing of it and pays once`, async () => {
      const headers = await stack.signPayment(HAIKU, INPUT, payer);
      stack.claude.script = (request, n) => (n === 1 ? [start(), open(), () => until(() => stack.facilitator.calls.some((c) => c.kind === 'settle' && c.ms !== undefined)), 100, ...steps] : hello());
      const response = await stack.post(HAIKU, INPUT, headers);
      assert.equal(response.status, 200);
      const { text, done, error } = await readSse(response);
      assert.equal(error, undefined);
      assert.equal(text, 'Hello, world');
      assert.ok(done);
      assert.equal(stack.claude.requests.length, 2);
      assert.equal(stack.facilitator.count('settle'), 1);
      assert.equal(await stack.balance(payer), WHOLE - HAIKU_PRICE);
      const row = await stack.row(done.run, (r) => r.status === 'delivered');
      assert.equal(row.input_tokens, 50, 'tokens of both calls are counted');
    });
  }

  test('breaking off while the settlement is under way: asked again, one charge, full text', async () => {
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const settling = gate();
    stack.facilitator.onSettle = async (call, next) => { settling.open(); await sleep(200); return next(); };
    stack.claude.script = (request, n) => (n === 1 ? [start(), open(), delta('half'), () => settling.opened, cut] : hello());
    const { text, done } = await readSse(await stack.post(HAIKU, INPUT, headers));
    assert.equal(text, 'Hello, world');
    assert.ok(done);
    assert.equal(stack.facilitator.count('settle'), 1);
    assert.equal(await stack.balance(payer), WHOLE - HAIKU_PRICE);
  });
});

describe('bytes', () => {
  const text = 'é — 🎉 "quoted" \\ \u2028 日本語 {"type":"message_stop"} \r\n end';
  for (const size of [1, 2, 3, 7]) {
    test(`in pieces of ${size}, through UTF-8 characters and lines, are the same text`, async () => {
      stack.claude.script = () => ({ steps: say(...text.split(/(?<= )/)), chop: every(size) });
      const { text: got, done } = await readSse(await stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, payer)));
      assert.equal(got, text);
      assert.ok(done);
    });
  }

  test('events and deltas that nobody knows yet are passed over', async () => {
    stack.claude.script = () => [
      start(), { type: 'tomorrow', data: [1] }, open(0, { type: 'thinking', thinking: '' }),
      { type: 'content_block_delta', index: 0, delta: { type: 'thinking_delta', thinking: THEIRS } },
      { type: 'content_block_delta', index: 0, delta: { type: 'signature_delta', signature: 'x' } }, shut(0),
      open(1), { type: 'content_block_delta', index: 1, delta: { type: 'novel_delta', x: 1 } }, delta('Hello', 1), ping, shut(1), end({ output_tokens: 3 }), stop,
    ];
    const { text: got, done } = await readSse(await stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, payer)));
    assert.equal(got, 'Hello');
    assert.equal(done.usage.output_tokens, 3);
  });

  // What proxies and compatible endpoints write between the events of a whole answer.
  const raw = (text) => Buffer.from(`${text}\n\n`);
  const asides = [
    raw('event: ping\ndata:'), raw('event: ping\ndata: {"type": "ping"'), raw('event: keepalive\ndata: []'), raw('data: still alive'),
    raw('data: null'), raw('data: {"type": null}'), raw(': comment'), raw('event: heartbeat\ndata: {now}'),
    { type: 'content_block_delta', index: 0, delta: null }, { type: 'message_delta', delta: null, usage: null },
    { type: 'message_delta', delta: { stop_reason: null }, usage: { output_tokens: 3.7, input_tokens: null } },
  ];
  for (const accept of ['text/event-stream', 'application/json']) {
    test(`odd events and side figures around a whole answer change nothing of it (${accept})`, async () => {
      const steps = [{ type: 'message_start', message: null }, ...say('Hel', 'lo').slice(1, -2), { type: 'message_delta', delta: { stop_reason: 'end_turn' }, usage: null }, stop];
      stack.claude.script = () => [steps[0], ...asides, ...steps.slice(1).flatMap((step) => [step, ...asides])];
      const response = await stack.post(HAIKU, INPUT, { accept, ...(await stack.signPayment(HAIKU, INPUT, payer)) });
      assert.equal(response.status, 200);
      assert.equal(accept === 'application/json' ? (await response.json()).output : (await readSse(response)).text, 'Hello');
      assert.equal(stack.claude.requests.length, 1);
      assert.equal(await stack.balance(payer), WHOLE - HAIKU_PRICE);
      await stack.row(response.headers.get('x-run-id'), (r) => r.status === 'delivered');
    });
  }

  test('an answer that stops at max_tokens says so', async () => {
    stack.claude.script = () => say('Hel', { stop_reason: 'max_tokens' });
    const response = await stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, payer));
    const { done } = await readSse(response);
    assert.equal(done.stop_reason, 'max_tokens');
    assert.equal(decodeReceipt(response).success, true);
  });
});
