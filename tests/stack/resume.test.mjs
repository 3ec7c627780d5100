// A run belongs to who paid for it, not to a connection: it is looked at, resumed, finished without anybody, and
// stopped where nobody has paid and nobody waits.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { apiError, cut, delta, end, hang, head, open, say, shut, start, stop } from '../support/claude.mjs';
import { WHOLE, asked, hello, payer, payerStack, settles, stack } from '../support/file_stack.mjs';
import {
  DRAFT, HAIKU, HAIKU_PRICE, INPUT, NETWORK, ada, decodeReceipt, gate, grace, ledgerId, readSse, sleep, sse, until,
} from '../support/stack.mjs';
import { drop } from '../../dev/facilitator.mjs';

payerStack();

const show = async (id) => {
  const response = await fetch(`${stack.url}/runs/${id}`);
  return { response, status: response.status, body: await response.json() };
};
const follow = (id, last) => fetch(`${stack.url}/runs/${id}/stream`, { headers: last === undefined ? {} : { 'last-event-id': String(last) } });
const isDelivered = (r) => r.status === 'delivered';

/** One settlement, the price moved once, one row, of this status. */
async function chargedOnce(status = 'delivered', calls = 1) {
  assert.equal(asked(), calls, 'calls of Claude');
  assert.equal(settles(), 1, 'settle was asked more than once');
  assert.equal(await stack.balance(payer), WHOLE - HAIKU_PRICE);
  const rows = await until(async () => { const r = await stack.rows('payer = ? AND status = ?', payer.address, status); return r.length && r; }, { what: `a ${status} row` });
  assert.deepEqual(rows.map((r) => r.amount), [String(HAIKU_PRICE)]);
  assert.equal((await stack.rows('payer = ?', payer.address)).length, 1, 'one run, one row');
  return rows[0];
}

/** A stream of `pieces`; the answer stops before the piece at `at` until the gate opens. */
function gated(pieces, at) {
  const more = gate();
  stack.claude.script = () => [
    start(), open(), ...pieces.slice(0, at).map((p) => delta(p)), () => more.opened, ...pieces.slice(at).map((p) => delta(p)), shut(), end(), stop,
  ];
  return more;
}

async function buy(headers = {}) {
  const response = await stack.post(HAIKU, INPUT, { ...headers, ...(await stack.signPayment(HAIKU, INPUT, payer)) });
  return { response, run: response.headers.get('x-run-id') };
}

describe('the URL of a run', () => {
  for (const [name, headers] of [['stream', {}], ['document', { accept: 'application/json' }]]) {
    test(`is in the head of a ${name}`, async () => {
      const { response, run } = await buy(headers);
      assert.equal(response.status, 200);
      assert.match(run, /^run_[0-9a-f]{32}_[0-9a-f]{32}$/);
      assert.equal(response.headers.get('content-location'), `/runs/${run}`);
      await response.text();
      for (const exposed of ['content-location', 'x-run-id']) {
        assert.ok(response.headers.get('access-control-expose-headers').toLowerCase().split(/, */).includes(exposed), exposed);
      }
      await chargedOnce();
    });
  }

  test('is in a refusal too, and pages may send Last-Event-ID', async () => {
    stack.claude.script = () => apiError(401);
    const { response, run } = await buy();
    const { error } = await response.json();
    assert.equal(response.headers.get('content-location'), `/runs/${run}`);
    assert.deepEqual([error.run, error.runUrl, error.charged], [run, `/runs/${run}`, false]);
    const preflight = await fetch(`${stack.url}/runs/${run}/stream`, {
      method: 'OPTIONS',
      headers: { origin: 'https://page.example', 'access-control-request-method': 'GET', 'access-control-request-headers': 'last-event-id' },
    });
    assert.match(preflight.headers.get('access-control-allow-headers').toLowerCase(), /last-event-id/);
    assert.match(preflight.headers.get('access-control-allow-methods'), /GET/);
  });

  test('shows it running, without a word of the text, then delivered, with all of it', async () => {
    const more = gated(['half', ' whole'], 1);
    const { response, run } = await buy();
    const events = sse(response);
    assert.equal((await events.next()).value.content, 'half');
    const running = await show(run);
    assert.equal(running.status, 200);
    assert.deepEqual([running.body.run, running.body.status, running.body.output, running.body.error, running.body.charged], [run, 'running', null, null, true]);
    assert.ok(Number(running.response.headers.get('retry-after')) > 0);
    assert.match(running.response.headers.get('cache-control'), /private, no-store/);
    assert.equal(JSON.stringify(running.body).includes('half'), false);
    more.open();
    await until(async () => (await events.next()).done);
    const over = await show(run);
    assert.deepEqual([over.body.status, over.body.output, over.body.stop_reason, over.body.charged, over.body.amount], ['delivered', 'half whole', 'end_turn', true, String(HAIKU_PRICE)]);
    assert.equal(over.body.receipt.transaction, decodeReceipt(response).transaction);
    assert.equal(decodeReceipt(over.response).transaction, decodeReceipt(response).transaction);
    assert.equal(over.response.headers.get('retry-after'), null);
    assert.equal(over.body.network, NETWORK);
    assert.equal((await fetch(`${stack.url}/runs/${run}`, { method: 'HEAD' })).status, 200);
    await chargedOnce();
    await stack.evict();
    assert.deepEqual((await show(run)).body, over.body, 'also from storage');
  });

  test('shows a run that failed, and that nothing was charged', async () => {
    stack.claude.script = () => apiError(401);
    const { response, run } = await buy();
    await response.text();
    const { body } = await show(run);
    assert.deepEqual([body.status, body.error.code, body.charged, body.amount, body.output, body.receipt], ['failed', 'CLAUDE_KEY_INVALID', false, '0', null, null]);
    assert.equal(settles(), 0);
    assert.equal(await stack.balance(payer), WHOLE);
    const failed = await follow(run);
    assert.equal(failed.status, 503);
    assert.equal((await failed.json()).error.code, 'CLAUDE_KEY_INVALID');
  });

  test('shows a run whose settlement was refused, without its text', async () => {
    stack.claude.script = () => say('SECRET');
    stack.facilitator.onSettle = () => ({ success: false, errorReason: 'insufficient_funds', transaction: '', network: NETWORK, payer: payer.address });
    const { response, run } = await buy();
    assert.equal(response.status, 402);
    await response.text();
    const { body } = await show(run);
    assert.deepEqual([body.status, body.error.code, body.charged, body.output], ['refused', 'SETTLEMENT_REJECTED', false, null]);
    const text = await (await follow(run)).text();
    assert.equal(text.includes('SECRET'), false);
    assert.equal(await stack.balance(payer), WHOLE);
  });

  test('shows a run whose settlement is not known, without its text, until it is', async () => {
    stack.claude.script = () => say('SECRET');
    stack.facilitator.onSettle = async (call, next) => { await next(); return drop; };
    const { response, run } = await buy();
    assert.equal(response.status, 503);
    await response.text();
    const { body } = await show(run);
    assert.deepEqual([body.status, body.error.code, body.charged, body.output], ['unknown', 'SETTLEMENT_UNKNOWN', null, null]);
    assert.equal(JSON.stringify(body).includes('SECRET'), false);
    await stack.row(run, isDelivered);
    const over = await show(run);
    assert.deepEqual([over.body.status, over.body.charged, over.body.output], ['delivered', true, 'SECRET']);
    await chargedOnce();
  });

  test('is nothing where there is no such run', async () => {
    const { response, run } = await buy();
    await response.text();
    const [, object, random] = run.split('_');
    const wrong = [
      'x', 'run', 'run_', 'run__', object, `run_${object}`, `run_${object}_`, `run_${object}_${'0'.repeat(32)}`, `run_${'0'.repeat(32)}_${random}`,
      `run_${'0'.repeat(32)}_${'0'.repeat(32)}`, run.toUpperCase(), `${run}0`, run.slice(0, -1), ` ${run}`, `run_test_${object}_${random}`, `run_test_${'0'.repeat(32)}_${'0'.repeat(32)}`,
      `${run}%00`, `${run}%2f`, '%F0%9F%8E%89', '..', '%2e%2e', 'a'.repeat(5000), "run_' OR 1=1--", `run_${object}_${random.replace(/./, 'g')}`,
    ];
    for (const id of wrong) {
      for (const path of [`/runs/${encodeURI(id)}`, `/runs/${encodeURI(id)}/stream`]) {
        const nothing = await fetch(stack.url + path);
        const body = await nothing.text();
        assert.equal(nothing.status, 404, `${path}: ${nothing.status} ${body}`);
        assert.equal(JSON.parse(body).error.code, 'NOT_FOUND');
        assert.equal(nothing.headers.get('payment-response'), null);
      }
    }
    for (const path of [`/runs/${run}`, `/runs/${run}/stream`]) {
      const posted = await fetch(stack.url + path, { method: 'POST' });
      assert.equal(posted.status, 405);
      assert.match(posted.headers.get('allow'), /GET/);
      await posted.text();
    }
    assert.equal((await fetch(`${stack.url}/runs`)).status, 404);
    assert.equal(stack.log().includes('uncaught'), false);
  });

  test("of an owner's test works as well, and says that it was one", async () => {
    const response = await stack.ownerTest(HAIKU, INPUT);
    const run = response.headers.get('x-run-id');
    const body = await response.text();
    const again = await follow(run);
    assert.equal(again.headers.get('x-owner-test'), 'true');
    assert.equal(await again.text(), body);
    const shown = await show(run);
    assert.deepEqual([shown.body.status, shown.body.charged, shown.body.amount, shown.body.output], ['delivered', false, '0', 'Hello, world']);
    assert.equal(settles(), 0);
  });
});

describe('a stream that is resumed', () => {
  const pieces = ['one', ' é', ' 🎉', '\n\n', 'data: x\n\n', ' five', ' six'];

  test('from the start is the same, byte for byte', async () => {
    stack.claude.script = () => say(...pieces);
    const { response, run } = await buy();
    const body = await response.text();
    const again = await follow(run);
    assert.equal(again.status, 200);
    assert.match(again.headers.get('content-type'), /^text\/event-stream/);
    assert.match(again.headers.get('cache-control'), /private, no-store/);
    assert.equal(again.headers.get('x-run-id'), run);
    assert.equal(again.headers.get('payment-response'), response.headers.get('payment-response'));
    assert.equal(await again.text(), body);
    await chargedOnce();
  });

  for (const [moment, more] of [['after its end', async () => {}], ['after its end, from storage', () => stack.evict()]]) {
    test(`at every position goes on exactly there: ${moment}`, async () => {
      stack.claude.script = () => say(...pieces);
      const { response, run } = await buy();
      const { events } = await readSse(response);
      assert.equal(events.length, pieces.length + 1);
      await stack.row(run);
      await more();
      for (const [i, { id }] of events.entries()) {
        const rest = await follow(run, id);
        if (i === events.length - 1) {
          assert.equal(rest.status, 204, 'all was read: an EventSource stops asking');
          assert.equal(await rest.text(), '');
          continue;
        }
        const read = await readSse(rest);
        assert.deepEqual(read.events.map((e) => e.id), events.slice(i + 1).map((e) => e.id), `after ${id}`);
        assert.equal(read.text, pieces.slice(i + 1).join(''));
        assert.ok(read.done);
      }
      await chargedOnce();
    });
  }

  test('while it is written, at every position, goes on exactly there', async () => {
    const more = gated(pieces, 4);
    const { response, run } = await buy();
    const first = sse(response);
    const ids = [];
    while (ids.length < 4) ids.push((await first.next()).value.id);
    const all = await Promise.all([0, ...ids].map(async (last) => [last, await follow(run, last)]));
    await sleep(50);
    more.open();
    for (const [last, rest] of all) {
      const { text, done, events } = await readSse(rest);
      assert.equal(text, pieces.slice(Number(last)).join(''), `after ${last}`);
      assert.equal(Number(events[0].id), Number(last) + 1);
      assert.ok(done);
    }
    await until(async () => (await first.next()).done);
    await chargedOnce();
  });

  test('with a Last-Event-ID that is none, from the start; with one of no event of this run, after a restart event', async () => {
    const { response, run } = await buy();
    const body = await response.text();
    for (const none of ['x', '-1', '1.5', '1e3', '0', '']) assert.equal(await (await follow(run, none)).text(), body, none);
    for (const other of ['77', '999999', '18446744073709551615']) {
      const { events, text, done } = await readSse(await follow(run, other));
      assert.equal(events[0].type, 'restart', other);
      assert.equal(text, 'Hello, world');
      assert.ok(done);
    }
    await chargedOnce();
  });

  test('after its caller dropped it: the answer is finished, the rest is there, and it was paid once', async () => {
    const more = gated(['one', ' two', ' three'], 2);
    const leaving = new AbortController();
    const response = await stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, payer), { signal: leaving.signal });
    const run = response.headers.get('x-run-id');
    const events = sse(response);
    const { value: first } = await events.next();
    assert.equal(first.content, 'one');
    leaving.abort();
    await events.next().catch(() => {});
    await sleep(300);
    assert.equal(stack.claude.requests[0].endedAt, undefined, 'Claude was stopped');
    const rest = follow(run, first.id);
    more.open();
    const { text, done } = await readSse(await rest);
    assert.equal(text, ' two three');
    assert.equal(done.run, run);
    assert.equal((await stack.claude.requests[0].done).hungUp, false);
    assert.equal((await chargedOnce()).id, ledgerId(run));
  });

  test('twenty times at once is one run', async () => {
    stack.claude.script = () => say(...'abcdefgh', { every: 20 });
    const { response, run } = await buy();
    const all = await Promise.all(Array.from({ length: 20 }, (_, i) => follow(run, i % 3).then(readSse)));
    for (const [i, { text }] of all.entries()) assert.equal(text, 'abcdefgh'.slice(i % 3));
    await response.text();
    await chargedOnce();
  });
});

describe('a caller who is gone before anything is paid', () => {
  const half = () => [start(), open(), delta('half'), hang];
  const cases = [
    ['a stream, before Claude answers', {}, () => [hang]],
    ['a stream, after the head', {}, () => [head, hang]],
    ['a document, before Claude answers', { accept: 'application/json' }, () => [hang]],
    ['a document, in the middle of the answer', { accept: 'application/json' }, half],
  ];
  for (const [name, accept, script] of cases) {
    test(`stops Claude, pays nothing, and the same payment buys the run afterwards: ${name}`, async () => {
      stack.claude.script = script;
      const headers = { ...accept, ...(await stack.signPayment(HAIKU, INPUT, payer)) };
      const leaving = stack.caller(HAIKU, INPUT, headers);
      await until(asked);
      await sleep(150);
      assert.equal(stack.claude.requests[0].endedAt, undefined);
      const left = Date.now();
      await leaving.hangUp();
      const call = await Promise.race([stack.claude.requests[0].done, sleep(3000)]);
      assert.equal(call?.hungUp, true, "Claude's connection is left open");
      assert.ok(call.endedAt - left < 1000, `took ${call.endedAt - left} ms`);
      const [row] = await until(async () => { const r = await stack.rows('payer = ?', payer.address); return r.length && r; });
      assert.deepEqual([row.status, row.code, row.amount, row.tx], ['failed', 'CALLER_GONE', '0', null]);
      await sleep(100);
      assert.deepEqual([asked(), settles()], [1, 0]);
      assert.equal(await stack.balance(payer), WHOLE);

      stack.claude.script = hello;
      const again = await stack.post(HAIKU, INPUT, headers);
      assert.equal(again.status, 200);
      assert.match(await again.text(), /Hello/);
      assert.equal(settles(), 1);
      assert.equal(await stack.balance(payer), WHOLE - HAIKU_PRICE);
      await stack.row(again.headers.get('x-run-id'), isDelivered);
    });
  }

  test('while the payment is verified: Claude is not asked at all', async () => {
    const slow = gate();
    stack.facilitator.onVerify = async (call, next) => { await slow.opened; return next(); };
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const leaving = stack.caller(HAIKU, INPUT, headers);
    await until(() => stack.facilitator.count('verify'));
    await leaving.hangUp();
    await sleep(200);
    slow.open();
    const [row] = await until(async () => { const r = await stack.rows('payer = ?', payer.address); return r.length && r; });
    assert.deepEqual([row.status, row.code, row.amount], ['failed', 'CALLER_GONE', '0']);
    assert.deepEqual([asked(), settles()], [0, 0]);
    stack.facilitator.onVerify = undefined;
    assert.equal((await readSse(await stack.post(HAIKU, INPUT, headers))).text, 'Hello, world');
    assert.deepEqual([asked(), settles()], [1, 1]);
    assert.equal(await stack.balance(payer), WHOLE - HAIKU_PRICE);
  });

  test('between two attempts: Claude is not asked again', async () => {
    stack.claude.script = () => apiError(529);
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const leaving = stack.caller(HAIKU, INPUT, headers);
    await until(asked);
    await sleep(100);
    await leaving.hangUp();
    await sleep(900); // the second attempt would be there by now
    assert.deepEqual([asked(), settles()], [1, 0]);
    const [row] = await stack.rows('payer = ?', payer.address);
    assert.deepEqual([row?.status, row?.code], ['failed', 'CALLER_GONE']);
  });

  for (const [name, one, other] of [['a stream and a stream', {}, {}], ['a document and a stream', { accept: 'application/json' }, {}], ['a stream and a document', {}, { accept: 'application/json' }]]) {
    test(`where another is still there, it goes on: ${name}`, async () => {
      const more = gate();
      stack.claude.script = async () => { await more.opened; return hello(); };
      const headers = await stack.signPayment(HAIKU, INPUT, payer);
      const leaving = stack.caller(HAIKU, INPUT, { ...one, ...headers });
      await until(asked);
      const staying = stack.post(HAIKU, INPUT, { ...other, ...headers });
      await sleep(150);
      await leaving.hangUp();
      await sleep(300);
      assert.equal(stack.claude.requests[0].endedAt, undefined, 'Claude was stopped');
      more.open();
      assert.match(await (await staying).text(), /Hello/);
      assert.equal((await stack.claude.requests[0].done).hungUp, false);
      await chargedOnce();
    });
  }

  test('the last of several is gone: then it stops', async () => {
    stack.claude.script = () => [hang];
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const leaving = Array.from({ length: 3 }, () => stack.caller(HAIKU, INPUT, headers));
    await until(asked);
    await sleep(150);
    for (const [i, one] of leaving.entries()) {
      assert.equal(stack.claude.requests[0].endedAt, undefined, `${i} of 3 had gone`);
      await one.hangUp();
      await sleep(150);
    }
    assert.equal((await Promise.race([stack.claude.requests[0].done, sleep(1000)]))?.hungUp, true);
    assert.deepEqual([asked(), settles()], [1, 0]);
  });
});

describe('a fault of Claude that passes, before anything is paid', () => {
  for (const [name, accept] of [['a stream', {}], ['a document', { accept: 'application/json' }]]) {
    test(`${name}: is asked again, the caller sees nothing of it, and pays once`, async () => {
      stack.claude.script = (request, n) => (n < 3 ? apiError(529) : hello());
      const { response } = await buy(accept);
      assert.equal(response.status, 200);
      assert.match(await response.text(), /Hello/);
      await chargedOnce('delivered', 3);
    });

    test(`${name}: after startAttempts calls it is told, and nothing is paid`, async () => {
      stack.claude.script = () => apiError(529);
      const { response, run } = await buy(accept);
      assert.equal(response.status, 503);
      assert.equal((await response.json()).error.code, 'CLAUDE_OVERLOADED');
      assert.deepEqual([asked(), settles()], [3, 0]);
      assert.equal(await stack.balance(payer), WHOLE);
      assert.equal((await stack.row(run)).status, 'failed');
    });
  }

  for (const [name, script] of [['a bad key', () => apiError(401)], ['a wait that is too long', () => apiError(429, { headers: { 'retry-after': '30' } })]]) {
    test(`one that does not is told at once: ${name}`, async () => {
      stack.claude.script = script;
      const { response } = await buy();
      await response.text();
      assert.ok(response.status >= 400);
      assert.deepEqual([asked(), settles()], [1, 0]);
    });
  }

  test('as JSON in the middle of the answer: the text of the first call is no part of the second', async () => {
    stack.claude.script = (request, n) => (n === 1 ? [start(), open(), delta('half of'), 20, cut] : hello());
    const { response } = await buy({ accept: 'application/json' });
    assert.equal((await response.json()).output, 'Hello, world');
    const row = await chargedOnce('delivered', 2);
    assert.equal(row.input_tokens, 50, 'tokens of both calls are counted');
  });
});

describe('a paid run that broke off', () => {
  /** Buys a run that breaks off after `half`: its id, and the id of the last event that was read. */
  async function interrupted() {
    const seen = gate();
    stack.claude.script = (request, n) => (n === 1 ? [start(), open(), delta('half'), () => seen.opened, cut] : hello());
    const { response, run } = await buy();
    const events = sse(response);
    const { value: first } = await events.next();
    assert.equal(first.content, 'half');
    seen.open();
    const { value: error } = await events.next();
    assert.deepEqual([error.type, error.code, error.charged], ['error', 'CLAUDE_CUT_OFF', true]);
    assert.equal(error.id, undefined, 'an EventSource comes back with the id of the last text');
    return { run, last: first.id };
  }

  test('is finished by the alarm without anybody asking, for no more money', async () => {
    const { run, last } = await interrupted();
    assert.equal((await stack.row(run)).status, 'interrupted');
    await until(async () => (await stack.rows('id = ? AND status = ?', ledgerId(run), 'delivered')).length, { timeout: 10_000, what: 'delivered' });
    const { body } = await show(run);
    assert.deepEqual([body.status, body.output], ['delivered', 'Hello, world']);
    await chargedOnce('delivered', 2);

    // Who comes back with the old id is told that the text begins anew.
    const { events, text, done } = await readSse(await follow(run, last));
    assert.equal(events[0].type, 'restart');
    assert.equal(text, 'Hello, world');
    assert.ok(done);
    const ids = events.map((e) => Number(e.id));
    assert.ok(ids.every((id, i) => i === 0 || id === ids[i - 1] + 1), `${ids}`);
    assert.ok(ids[0] > Number(last), 'ids of the new text are not those of the old');
    // And comes back again from wherever they are in the new one, without another restart.
    for (const [i, id] of ids.entries()) {
      const again = await follow(run, id);
      if (i === ids.length - 1) assert.equal(again.status, 204);
      else assert.deepEqual((await readSse(again)).events.map((e) => Number(e.id)), ids.slice(i + 1));
    }
    const fresh = await readSse(await follow(run));
    assert.deepEqual([fresh.events[0].type, fresh.text], ['text', 'Hello, world'], 'to who has read nothing it is just the text');
    await chargedOnce('delivered', 2);
  });

  test('tells who looks meanwhile that it is not over', async () => {
    const { run, last } = await interrupted();
    const { body } = await show(run);
    if (body.status === 'interrupted') assert.deepEqual([body.charged, body.output, body.error.code], [true, null, 'CLAUDE_CUT_OFF']);
    // An EventSource asks again until it has all.
    let texts = '';
    let from = last;
    let done;
    await until(async () => {
      const response = await follow(run, from);
      assert.equal(response.status, 200);
      for (const event of (await readSse(response)).events) {
        if (event.type === 'restart') texts = '';
        if (event.type === 'text') texts += event.content;
        if (event.type === 'done') done = event;
        from = event.id ?? from;
      }
      return done;
    }, { timeout: 10_000, every: 300, what: 'done' });
    assert.equal(texts, 'Hello, world');
    await chargedOnce('delivered', 2);
  });

  test('is asked again at once where the payment is presented, and by nobody else besides', async () => {
    const { run } = await interrupted();
    stack.claude.script = () => say('Hello', ', ', 'world', { every: 30 });
    // The alarm is due in one or two seconds: none of it may ask a second time.
    const again = await readSse(await follow(run)); // only looks
    assert.ok(again.error);
    await sleep(2500);
    await until(async () => (await stack.rows('id = ? AND status = ?', ledgerId(run), 'delivered')).length, { timeout: 8000 });
    await chargedOnce('delivered', 2);
  });
});

describe("the owner's ledger", () => {
  const list = (path, headers) => fetch(`${stack.url}${path}`, { headers });
  const bearer = async (creator) => ({ authorization: `Bearer ${await stack.token(creator)}` });

  test('is for the owner: 401, 403, 404 for others', async () => {
    const path = `${HAIKU}/runs`;
    const no = [
      [path, {}, 401, 'TOKEN_MISSING'],
      [path, { authorization: 'Bearer x' }, 401, 'TOKEN_INVALID'],
      [path, await bearer(grace), 403, 'NOT_OWNER'],
      ['/@ada/nothing/runs', await bearer(ada), 404, 'NOT_FOUND'],
      ['/@nobody/haiku/runs', await bearer(ada), 404, 'NOT_FOUND'],
      [`${DRAFT}/runs`, await bearer(grace), 404, 'NOT_FOUND'],
      ['/ada/haiku/runs', await bearer(ada), 404, 'NOT_FOUND'],
    ];
    for (const [where, headers, status, code] of no) {
      const response = await list(where, headers);
      assert.equal(response.status, status, where);
      assert.equal((await response.json()).error.code, code, where);
    }
    assert.equal((await list(`${DRAFT}/runs`, await bearer(ada))).status, 200);
    assert.equal((await fetch(`${stack.url}${path}`, { method: 'POST', headers: await bearer(ada) })).status, 405);
  });

  test('has the runs of this template, newest first, without a word of text', async () => {
    const path = await stack.addTemplate('ledgered', { prompt: 'PROMPT {topic}{/topic}', parameters: [{ name: 'topic', required: true }] });
    const runs = [];
    for (const script of [hello, () => apiError(401), () => say('SECRET')]) {
      stack.claude.script = script;
      const response = await stack.post(path, { topic: 'INPUT' }, await stack.signPayment(path, { topic: 'INPUT' }, payer));
      await response.text();
      runs.unshift(response.headers.get('x-run-id'));
      await stack.row(runs[0]);
    }
    const response = await list(`${path}/runs`, await bearer(ada));
    assert.match(response.headers.get('cache-control'), /private, no-store/);
    const text = await response.text();
    assert.equal(/SECRET|PROMPT|INPUT|Hello/.test(text), false);
    const { template, runs: entries } = JSON.parse(text);
    assert.equal(template, path);
    assert.deepEqual(entries.map((e) => e.id), runs.map(ledgerId));
    assert.deepEqual(entries.map((e) => [e.status, e.amount, e.payer]), ['delivered', 'failed', 'delivered'].map((s) => [s, s === 'failed' ? '0' : String(HAIKU_PRICE), payer.address]));
    // The ledger has nothing that opens a caller's answer.
    for (const run of runs) assert.equal(text.includes(run), false);
    for (const { id } of entries) assert.deepEqual((await Promise.all([show(id), show(`run_${id}`)])).map((r) => r.status), [404, 404]);
    const of = async (query) => (await (await list(`${path}/runs?${query}`, await bearer(ada))).json()).runs.map((e) => e.id);
    assert.deepEqual(await of('status=failed'), [ledgerId(runs[1])]);
    assert.deepEqual(await of('status=nothing'), []);
    assert.deepEqual(await of(`before=${entries[1].started_at}`), [ledgerId(runs[2])]);
    assert.deepEqual(await of("status=failed' OR '1'='1"), []);
  });
});
