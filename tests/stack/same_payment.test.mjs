// One payment, one run, one settlement, whatever is presented, however often, in whatever order.
import assert from 'node:assert/strict';
import http from 'node:http';
import { describe, test } from 'node:test';
import { delta, end, hang, open, say, shut, start, stop } from '../support/claude.mjs';
import { WHOLE, asked, hello, payer, payerStack, settles, stack } from '../support/file_stack.mjs';
import { HAIKU, HAIKU_PRICE, INPUT, decodeHeader, decodeReceipt, encodeHeader, gate, ledgerId, readSse, sleep, sse, until } from '../support/stack.mjs';

// Where Claude refuses, it is asked once: what is counted here is callers, not attempts.
payerStack({ vars: { LIMITS: JSON.stringify({ startAttempts: 1 }) } });

async function chargedOnce() {
  assert.equal(asked(), 1, 'Claude was asked more than once');
  assert.equal(settles(), 1, 'settle was asked more than once');
  assert.equal(await stack.balance(payer), WHOLE - HAIKU_PRICE);
}

describe('at once', () => {
  for (const [name, accept] of [['streams', 'text/event-stream'], ['JSON documents', 'application/json']]) {
    test(`20 identical paid requests: one Claude call, one settlement, 20 identical ${name}`, async () => {
      stack.claude.script = () => say(...'a coin falls into the slot'.split(/(?= )/), { every: 15 });
      const headers = { accept, ...(await stack.signPayment(HAIKU, INPUT, payer)) };
      const responses = await Promise.all(Array.from({ length: 20 }, () => stack.post(HAIKU, INPUT, headers)));
      const bodies = await Promise.all(responses.map((r) => r.text()));
      assert.deepEqual(responses.map((r) => r.status), Array(20).fill(200));
      assert.equal(new Set(bodies).size, 1);
      assert.ok(bodies[0].includes('slot'));
      assert.equal(new Set(responses.map((r) => decodeReceipt(r).transaction)).size, 1);
      assert.equal(new Set(responses.map((r) => r.headers.get('x-run-id'))).size, 1);
      await chargedOnce();
      const rows = await until(async () => { const r = await stack.rows('payer = ?', payer.address); return r.length && r; });
      assert.equal(rows.length, 1);
    });
  }

  test('20 identical requests while Claude refuses: one Claude call a round, the same refusal for all, nothing charged', async () => {
    const more = gate();
    stack.claude.script = async () => { await more.opened; return { status: 529, error: { type: 'overloaded_error', message: 'x' }, headers: {} }; };
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const responses = Array.from({ length: 20 }, () => stack.post(HAIKU, INPUT, headers));
    await until(asked);
    await sleep(600);
    more.open();
    for (const response of await Promise.all(responses)) {
      assert.equal(response.status, 503);
      assert.equal((await response.json()).error.code, 'CLAUDE_OVERLOADED');
    }
    assert.equal(asked(), 1);
    assert.equal(settles(), 0);
    assert.equal(await stack.balance(payer), WHOLE);
  });

  test('a stream and a JSON document of one payment are the same run', async () => {
    stack.claude.script = () => say('Hello', ', ', 'world', { every: 30 });
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const [stream, document] = await Promise.all([
      stack.post(HAIKU, INPUT, headers).then(readSse),
      stack.post(HAIKU, INPUT, { ...headers, accept: 'application/json' }).then((r) => r.json()),
    ]);
    assert.equal(stream.text, 'Hello, world');
    assert.equal(document.output, 'Hello, world');
    assert.equal(document.run, stream.done.run);
    await chargedOnce();
  });
});

test('one body in two spellings is one request', async () => {
  const headers = await stack.signPayment('/@ada/haiku', { topic: 't', mood: 'm' }, payer);
  const one = await (await stack.post(HAIKU, '{"topic":"t","mood":"m"}', headers)).text();
  const two = await (await stack.post(HAIKU, ' { "mood": "\\u006d", "topic" : "t" } ', headers)).text();
  assert.equal(two, one);
  await chargedOnce();
});

test('a late joiner gets the text from its start, then goes on live', async () => {
  const more = gate();
  stack.claude.script = () => [start(), open(), delta('one'), 40, delta(' two'), () => more.opened, delta(' three'), shut(), end(), stop];
  const headers = await stack.signPayment(HAIKU, INPUT, payer);
  const first = sse(await stack.post(HAIKU, INPUT, headers));
  let seen = '';
  while (seen !== 'one two') seen += (await first.next()).value.content;
  const late = sse(await stack.post(HAIKU, INPUT, headers));
  let replayed = '';
  while (replayed !== 'one two') replayed += (await late.next()).value.content;
  more.open();
  for (const events of [first, late]) {
    assert.equal((await events.next()).value.content, ' three');
    const { value } = await events.next();
    assert.equal(value.type, 'done');
  }
  await chargedOnce();
});

test('presented again after its end, it is replayed byte for byte and charged once', async () => {
  const headers = await stack.signPayment(HAIKU, INPUT, payer);
  const first = await stack.post(HAIKU, INPUT, headers);
  const body = await first.text();
  const again = await stack.post(HAIKU, INPUT, headers);
  assert.equal(await again.text(), body);
  assert.equal(again.headers.get('payment-response'), first.headers.get('payment-response'));
  await chargedOnce();
  assert.equal(stack.facilitator.count('verify'), 1);
});

test('presented again after its time window is over, or after the price has changed, it is still replayed', async () => {
  const now = Math.floor(Date.now() / 1000);
  const headers = await stack.signPayment(HAIKU, INPUT, payer, { authorization: { validBefore: String(now + 39) } });
  const body = await (await stack.post(HAIKU, INPUT, headers)).text();
  await stack.changeTemplate('template_ada_haiku', { price: '0.03' });
  try {
    await sleep(4000); // fewer than the 36 seconds are left that beginning and settling may need
    const again = await stack.post(HAIKU, INPUT, headers);
    assert.equal(again.status, 200);
    assert.equal(await again.text(), body);
  } finally {
    await stack.changeTemplate('template_ada_haiku', { price: '0.01' });
  }
  await chargedOnce();
});

describe('with another request', () => {
  test('another body is a 409, while it runs and afterwards, and executes nothing', async () => {
    const more = gate();
    stack.claude.script = () => [start(), open(), delta('one'), () => more.opened, delta(' two'), shut(), end(), stop];
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const running = stack.post(HAIKU, INPUT, headers);
    const first = await running;
    for (const moment of ['running', 'over']) {
      const response = await stack.post(HAIKU, { topic: 'another' }, headers);
      assert.equal(response.status, 409, moment);
      const text = await response.text();
      assert.equal(JSON.parse(text).error.code, 'PAYMENT_REUSED');
      assert.equal(text.includes('one'), false);
      if (moment === 'running') {
        more.open();
        assert.equal((await readSse(first)).text, 'one two');
      }
    }
    await chargedOnce();
  });

  test('another template of the same price is a 409', async () => {
    const path = await stack.addTemplate('twin', { prompt: 'twin: {topic}{/topic}', parameters: [{ name: 'topic', required: true }] });
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    await (await stack.post(HAIKU, INPUT, headers)).text();
    const response = await stack.post(path, INPUT, headers);
    assert.equal(response.status, 409);
    await chargedOnce();
  });

  test('another query is a 409', async () => {
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    await (await stack.post(HAIKU, INPUT, headers)).text();
    assert.equal((await stack.post(`${HAIKU}?n=2`, INPUT, headers)).status, 409);
    await chargedOnce();
  });

  test('two requests race with one payment: one is run, the other is a 409', async () => {
    stack.claude.script = () => say('Hello', { every: 50 });
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const responses = await Promise.all([INPUT, { topic: 'b' }, { topic: 'c' }].map((input) => stack.post(HAIKU, input, headers)));
    assert.deepEqual(responses.map((r) => r.status).sort(), [200, 409, 409]);
    await Promise.all(responses.map((r) => r.text()));
    await chargedOnce();
  });
});

describe("somebody else's signature under the same nonce", () => {
  // Of a form that only the facilitator can judge: 65 bytes are checked here, before anybody is asked.
  const forge = (headers, signature = `0x${'22'.repeat(100)}`) => {
    const payment = decodeHeader(headers['payment-signature']);
    payment.payload.signature = signature;
    return { 'payment-signature': encodeHeader(payment) };
  };

  test('presented first, it is refused and does not keep the payer out', async () => {
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const bogus = await stack.post(HAIKU, INPUT, forge(headers));
    assert.equal(bogus.status, 402);
    await bogus.text();
    assert.equal((await readSse(await stack.post(HAIKU, INPUT, headers))).text, 'Hello, world');
    await chargedOnce();
  });

  test('of 65 bytes, it is refused without asking anybody, before, during and after the run', async () => {
    const more = gate();
    stack.claude.script = () => [start(), open(), delta('one'), () => more.opened, delta(' two'), shut(), end(), stop];
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const bogus = async () => {
      const [verifies, calls] = [stack.facilitator.count('verify'), asked()];
      const response = await stack.post(HAIKU, INPUT, forge(headers, `0x${'22'.repeat(64)}1c`));
      assert.equal(response.status, 402);
      assert.equal(response.headers.get('x-run-id'), null);
      assert.equal((await response.json()).code, 'PAYMENT_INVALID');
      assert.deepEqual([stack.facilitator.count('verify'), asked()], [verifies, calls]);
    };
    await bogus();
    const real = await stack.post(HAIKU, INPUT, headers);
    await bogus();
    more.open();
    assert.equal((await readSse(real)).text, 'one two');
    await bogus();
    await chargedOnce();
  });

  test('presented at the same moment, it neither blocks the payer nor sees the text', async () => {
    const slow = gate();
    stack.facilitator.onVerify = async (call, next) => { if (call.body.paymentPayload.payload.signature.startsWith('0x2222')) await slow.opened; return next(); };
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const bogus = stack.post(HAIKU, INPUT, forge(headers));
    await until(() => stack.facilitator.count('verify'));
    const real = stack.post(HAIKU, INPUT, headers);
    await sleep(100);
    slow.open();
    assert.equal((await readSse(await real)).text, 'Hello, world');
    const refused = await bogus;
    assert.ok([402, 409].includes(refused.status));
    assert.equal((await refused.text()).includes('Hello'), false);
    await chargedOnce();
  });

  test('presented while the run is under way and afterwards, it sees nothing of it', async () => {
    const more = gate();
    stack.claude.script = () => [start(), open(), delta('one'), () => more.opened, delta(' two'), shut(), end(), stop];
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const real = await stack.post(HAIKU, INPUT, headers);
    for (const moment of ['running', 'over']) {
      const bogus = await stack.post(HAIKU, INPUT, forge(headers));
      assert.ok([402, 409].includes(bogus.status), `${moment}: ${bogus.status}`);
      assert.equal((await bogus.text()).includes('one'), false);
      assert.equal(bogus.headers.get('x-run-id'), null);
      if (moment === 'running') {
        more.open();
        assert.equal((await readSse(real)).text, 'one two');
      }
    }
    await chargedOnce();
  });
});

describe('what survives', () => {
  test('the object is evicted: the same payment is replayed from storage', async () => {
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const first = await stack.post(HAIKU, INPUT, headers);
    const body = await first.text();
    await stack.row(first.headers.get('x-run-id'));
    await stack.evict();
    const again = await stack.post(HAIKU, INPUT, headers);
    assert.equal(again.status, 200);
    assert.equal(await again.text(), body);
    assert.equal(again.headers.get('payment-response'), first.headers.get('payment-response'));
    await chargedOnce();
    // And it still belongs to its request.
    assert.equal((await stack.post(HAIKU, { topic: 'another' }, headers)).status, 409);
  });

  test('the runtime is restarted: the same payment is replayed from storage', async () => {
    stack.claude.script = () => say(...Array.from({ length: 200 }, (_, i) => `${i} é🎉 `));
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const first = await stack.post(HAIKU, INPUT, headers);
    const body = await first.text();
    await stack.row(first.headers.get('x-run-id'));
    await stack.restart();
    const again = await stack.post(HAIKU, INPUT, headers);
    assert.equal(again.status, 200, 'the request is named by its path, not by the port it came to');
    assert.equal(await again.text(), body);
    await chargedOnce();
  });

  test('the runtime dies in the middle of a paid answer: the same payment gets it whole, one settlement', async () => {
    stack.claude.script = () => [start(), open(), delta('half'), hang];
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const broken = sse(await stack.post(HAIKU, INPUT, headers));
    assert.equal((await broken.next()).value.content, 'half');
    const rest = broken.next().catch((error) => error);
    stack.claude.script = hello;
    await stack.restart();
    await rest;
    const again = await readSse(await stack.post(HAIKU, INPUT, headers));
    assert.equal(again.text, 'Hello, world');
    assert.ok(again.done);
    assert.equal(settles(), 1);
    assert.equal(await stack.balance(payer), WHOLE - HAIKU_PRICE);
  });

  test('the caller hangs up in the middle: the run is finished without them, and replayed whole', async () => {
    const more = gate();
    stack.claude.script = () => [start(), open(), delta('one'), () => more.opened, delta(' two'), shut(), end(), stop];
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    // A connection of its own, really broken.
    const url = new URL(HAIKU, stack.url);
    await new Promise((resolve, reject) => {
      const request = http.request(url, { method: 'POST', agent: false, headers: { 'content-type': 'application/json', ...headers } }, (response) => {
        response.once('data', () => { request.destroy(); resolve(); });
        response.on('error', () => {});
      });
      request.on('error', () => {});
      request.once('close', () => reject(new Error('closed early')));
      request.end(JSON.stringify(INPUT));
    });
    await sleep(200);
    more.open();
    const exchange = await stack.claude.requests[0].done;
    assert.equal(exchange.hungUp, false, 'Claude was left in the middle');
    const [row] = await until(async () => { const r = await stack.rows('payer = ?', payer.address); return r.length && r; });
    assert.equal(row.status, 'delivered');
    const { text, done } = await readSse(await stack.post(HAIKU, INPUT, headers));
    assert.equal(text, 'one two');
    assert.equal(ledgerId(done.run), row.id);
    await chargedOnce();
  });

  test('the caller hangs up before Claude has begun: Claude is stopped, nothing is charged, and the same payment buys the run', async () => {
    const more = gate();
    stack.claude.script = async () => { await more.opened; return hello(); };
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const leaving = stack.caller(HAIKU, INPUT, headers);
    await until(asked);
    await leaving.hangUp();
    assert.equal((await Promise.race([stack.claude.requests[0].done, sleep(2000)]))?.hungUp, true, "Claude's connection is left open");
    assert.equal(settles(), 0);
    more.open();
    const { text } = await readSse(await stack.post(HAIKU, INPUT, headers));
    assert.equal(text, 'Hello, world');
    assert.equal(asked(), 2);
    assert.equal(settles(), 1);
    assert.equal(await stack.balance(payer), WHOLE - HAIKU_PRICE);
  });

  test('one of two callers hangs up: the other does not notice', async () => {
    stack.claude.script = () => say(...'abcdefghij', { every: 25 });
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const leaving = new AbortController();
    const [going, staying] = await Promise.all([stack.post(HAIKU, INPUT, headers, { signal: leaving.signal }), stack.post(HAIKU, INPUT, headers)]);
    going.text().catch(() => {});
    setTimeout(() => leaving.abort(), 60);
    assert.equal((await readSse(staying)).text, 'abcdefghij');
    await chargedOnce();
  });

  test('a caller who does not read keeps nobody waiting', async () => {
    const long = Array.from({ length: 400 }, (_, i) => `${String(i).padStart(500, '.')}`);
    stack.claude.script = () => say(...long);
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const [idle, staying] = await Promise.all([stack.post(HAIKU, INPUT, headers), stack.post(HAIKU, INPUT, headers)]);
    assert.equal((await readSse(staying)).text, long.join(''));
    await idle.body.cancel();
    await chargedOnce();
  });
});

test('a payment that was spent elsewhere is refused, and Claude is not asked', async () => {
  const headers = await stack.signPayment(HAIKU, INPUT, payer);
  const { accepted, ...payment } = decodeHeader(headers['payment-signature']);
  const settled = await fetch(`${stack.facilitator.url}/settle`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ x402Version: 2, paymentPayload: { ...payment, accepted }, paymentRequirements: accepted }),
  });
  assert.equal((await settled.json()).success, true);
  stack.facilitator.reset();
  const response = await stack.post(HAIKU, INPUT, headers);
  assert.equal(response.status, 409, 'a 402 would have the payer pay again');
  assert.equal((await response.json()).error.code, 'PAYMENT_REUSED');
  assert.equal(asked(), 0);
  assert.equal(settles(), 0);
});
