// What a wallet may have for nothing: each way to make Claude work, or to fill the storage, without paying is tried, and
// comes to an end; whoever is honest beside it is served.
import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';
import { reply } from '../../dev/facilitator.mjs';
import { delta, end, open, say, shut, start, stop } from '../support/claude.mjs';
import { WHOLE, asked, hello, payer, payerStack, settles, stack } from '../support/file_stack.mjs';
import { inObjects, objectFiles } from '../support/objects.mjs';
import { transfers } from '../support/soak.mjs';
import { HAIKU, HAIKU_PRICE, INPUT, ada, decodeHeader, encodeHeader, gate, grace, readSse, sleep, until } from '../support/stack.mjs';

const [AT_ONCE, A_DAY] = [8, 20]; // the defaults of limits.unpaidPerWallet and limits.unpaidPerWalletDay
// What is cached is not read from the local D1 and KV, whose simulation grows with each read.
const LIMITS = { claudeBeginSeconds: 5, settleMarginSeconds: 1, ownerTestsPerDay: 4, cacheSeconds: 60 };
payerStack({ vars: { LIMITS: JSON.stringify(LIMITS) } });

const JSON_ = { accept: 'application/json' };
const seconds = () => Math.floor(Date.now() / 1000);
const verifies = () => stack.facilitator.count('verify');
const post = (headers, input = INPUT, path = HAIKU) => stack.post(path, input, headers);
const sign = (account = payer, { input = INPUT, path = HAIKU, ...more } = {}) => stack.signPayment(path, input, account, more);
const code = async (response) => {
  const { code: here, error } = await response.json();
  return here ?? error.code ?? error;
};
const isServed = async (response) => {
  assert.equal(response.status, 200, response.ok ? '' : await response.text());
  const { text, done } = await readSse(response);
  assert.equal(text, 'Hello, world');
  return done.run;
};
/** Over the limit of the day: 429, and back when the first of what counts is a day old. */
async function isOverTheDay(response) {
  const body = await response.text();
  assert.equal(response.status, 429, body);
  const { error } = JSON.parse(body);
  assert.deepEqual([error.code, error.retryable], ['TOO_MANY_UNPAID_RUNS', true]);
  const wait = Number(response.headers.get('retry-after'));
  assert.ok(wait > 86_000 && wait <= 86_400, `Retry-After: ${wait}`);
}
/** An honest wallet beside the others, served by a Claude that says hello. */
async function honestIsServed() {
  const script = stack.claude.script;
  stack.claude.script = hello;
  const honest = await stack.payer();
  await isServed(await post(await sign(honest)));
  stack.claude.script = script;
}
/** How many objects have stored anything. */
const storing = () => inObjects(stack, () => true).length;
/** The most calls of Claude at once. That one has been stopped shows there a moment later. */
const callsAtOnce = () => Math.max(...stack.claude.requests.map(({ at }) => stack.claude.requests.filter((other) => other.at <= at && !(other.endedAt - 100 <= at)).length));
/** The last call of Claude, once `look` says that it is as far. */
const lastCall = (n, look) => until(() => stack.claude.requests[n - 1] && look(stack.claude.requests[n - 1]) && stack.claude.requests[n - 1], { what: `call ${n} of Claude` });
/** Hangs up as soon as the `n`th call of Claude has sent this many events, and waits until Claude has been stopped. */
async function hangsUpAt(sent, n, headers) {
  const caller = stack.caller(HAIKU, INPUT, headers);
  const call = await lastCall(n, (request) => request.sent >= sent);
  await caller.hangUp();
  return lastCall(n, () => call.endedAt);
}

// First, while there are no objects.
test('a forged signature touches no object, and nobody is asked about it', async () => {
  const { 'payment-signature': good } = await sign();
  for (let i = 0; i < 10; i++) {
    const payment = decodeHeader(good);
    payment.payload.authorization.nonce = `0x${String(i).repeat(64)}`;
    const response = await post({ 'payment-signature': encodeHeader(payment), 'idempotency-key': `key ${i}`, ...(i % 2 ? JSON_ : {}) });
    assert.equal(response.status, 402);
    assert.equal(await code(response), 'PAYMENT_INVALID');
  }
  assert.deepEqual([await stack.objects(), objectFiles(stack).map(({ path }) => path), verifies()], [[], [], 0]);
  // A good payment does touch one.
  await isServed(await post({ 'payment-signature': good }));
  assert.equal((await stack.objects()).length, 1);
});

test('60 signatures of three empty wallets with bodies of 480 KB: each is verified and refused, and nothing of them is stored or stays in memory', async () => {
  const path = await stack.addTemplate('long', { prompt: 'Long: {topic}{/topic}', parameters: [{ name: 'topic', required: true }], allow_user_message: 1 });
  const input = `{"topic":"x","user_message":"${'\\ud83d\\ude00'.repeat(40_000)}"}`;
  assert.ok(input.length > 480_000);
  const { terms } = await stack.ask402(path, { topic: 'x' });
  const wallets = await Promise.all([1, 2, 3].map(() => stack.payer(0n)));
  const rounds = async (count) => {
    for (let i = 0; i < count; i++) {
      const payload = await stack.authorize(wallets[i % 3], terms.accepts[0]);
      const headers = { 'payment-signature': encodeHeader({ x402Version: 2, resource: terms.resource, accepted: terms.accepts[0], payload }) };
      const response = await post(headers, input, path);
      const body = await response.text();
      assert.equal(response.status, 402, body);
      assert.equal(JSON.parse(body).code, 'PAYMENT_INVALID');
      assert.equal(response.headers.get('x-run-id'), null);
    }
  };
  await rounds(10); // what is only allocated once
  const [before, memory] = [storing(), stack.memory()];
  await rounds(60);
  assert.deepEqual([verifies(), asked()], [70, 0]);
  assert.equal(storing(), before, 'objects that have stored anything');
  assert.ok(objectFiles(stack).every(({ path: file, bytes }) => file.endsWith('.sqlite-shm') || bytes.length < 480_000), 'a body in a file');
  const grown = stack.memory() - memory;
  assert.ok(grown < 60e6, `${grown} bytes of memory`);
  // What is good is stored.
  await isServed(await post(await sign()));
  assert.equal(storing(), before + 1);
});

describe('Claude for nothing', () => {
  test('hanging up near the last word of a document, with one authorization: Claude is called 20 times in a day, then 429; also after an eviction and a kill', async () => {
    const headers = { ...JSON_, ...(await sign()) };
    stack.claude.script = () => [start(), open(), ...Array.from({ length: 20 }, () => delta('word ')), () => new Promise(() => {}), delta('the last'), shut(), end(), stop];
    for (let n = 1; n <= A_DAY; n++) {
      const call = await hangsUpAt(22, n, headers);
      assert.equal(call.hungUp, true, 'Claude is stopped');
    }
    assert.deepEqual([asked(), verifies(), settles()], [A_DAY, A_DAY, 0]);
    for (let n = 0; n < 5; n++) await isOverTheDay(await post(headers));
    // Another payment, another template, and a stream are no way around it.
    await isOverTheDay(await post(await sign()));
    const explain = { error: 'x' };
    await isOverTheDay(await post(await sign(payer, { path: '/@grace/explain-error', input: explain }), explain, '/@grace/explain-error'));
    assert.deepEqual([asked(), verifies(), settles()], [A_DAY, A_DAY, 0], 'refused before anybody is asked');
    await honestIsServed();
    await stack.evict();
    await isOverTheDay(await post(headers));
    await stack.kill();
    await stack.revive();
    await isOverTheDay(await post(headers));
    await honestIsServed();
    assert.equal(await stack.balance(payer), WHOLE);
    const rows = await until(async () => { const all = await stack.rows('payer = ?', payer.address); return all.length === A_DAY && all; }, { what: 'a row of each' });
    assert.deepEqual([...new Set(rows.map(({ status, code: why, amount }) => `${status} ${why} ${amount}`))], ['failed CALLER_GONE 0']);
  });

  test('hanging up right after message_start: at most 20 calls of Claude in vain, whatever is charged', async () => {
    stack.claude.script = () => [start(), () => new Promise(() => {})];
    let refused = 0;
    for (let n = 1; !refused && n <= 60; n++) {
      const calls = asked();
      const caller = stack.caller(HAIKU, INPUT, await sign());
      const call = await until(() => stack.claude.requests[calls]?.sent, { timeout: 2000 }).catch(() => {});
      if (!call) refused = n;
      await caller.hangUp();
      if (call) await lastCall(calls + 1, ({ endedAt }) => endedAt);
    }
    const charged = Number((WHOLE - (await stack.balance(payer))) / HAIKU_PRICE);
    assert.ok(refused, `${asked()} calls, ${charged} charges, and none was refused`);
    assert.ok(asked() - charged <= A_DAY, `${asked()} calls, ${charged} charges`);
    await isOverTheDay(await post(await sign()));
    await honestIsServed();
  });

  for (const accept of ['text/event-stream', 'application/json']) {
    test(`40 payments at once on a balance of one price, with a facilitator that does not look at balances: at most 8 calls of Claude at once, 20 in vain in a day, one charge (${accept})`, async () => {
      const poor = await stack.payer(HAIKU_PRICE);
      stack.facilitator.onVerify = ({ body }) => ({ isValid: true, payer: body.paymentPayload.payload.authorization.from });
      stack.claude.script = () => say('Hello', ', ', 'world', { every: 100 });
      const payments = await Promise.all(Array.from({ length: 40 }, () => sign(poor)));
      const present = async (headers) => {
        const response = await post({ accept, ...headers });
        await response.text();
        return response;
      };
      const first = await Promise.all(payments.map(present));
      const count = (responses, status) => responses.filter((response) => response.status === status).length;
      assert.deepEqual([count(first, 200), count(first, 402) + count(first, 429)], [1, 39], first.map(({ status }) => status).join());
      assert.ok(first.filter(({ status }) => status === 429).every(({ headers }) => Number(headers.get('retry-after')) > 0));
      assert.ok(callsAtOnce() <= AT_ONCE, `${callsAtOnce()} at once`);
      const others = payments.filter((_, i) => first[i].status !== 200);
      for (let round = 0, left = others.length; left && round < 20; round++) {
        const again = await Promise.all(others.map(present));
        left = again.length - again.filter(({ status, headers }) => status === 429 && Number(headers.get('retry-after')) > 60).length;
      }
      assert.equal(asked(), A_DAY + 1, 'one was paid');
      for (const headers of others.slice(0, 3)) await isOverTheDay(await post(headers));
      assert.ok(callsAtOnce() <= AT_ONCE, `${callsAtOnce()} at once`);
      assert.equal((await transfers(stack, { from: poor.address })).length, 1);
      assert.equal(await stack.balance(poor), 0n);
      // Who has paid still has what was paid for.
      const paid = await post({ accept, ...payments[first.findIndex(({ status }) => status === 200)] });
      assert.equal(paid.status, 200);
      assert.match(await paid.text(), /world/);
      stack.facilitator.onVerify = undefined;
      await honestIsServed();
    });
  }

  test('a ninth run at once waits for none of the eight: 429 with a short Retry-After, and served once one of them is paid', async () => {
    const more = gate();
    stack.claude.script = () => [start(), () => more.opened, ...hello().slice(1)];
    const eight = await Promise.all(Array.from({ length: AT_ONCE }, () => sign()));
    const running = eight.map((headers) => post({ ...JSON_, ...headers }));
    await until(() => asked() === AT_ONCE);
    const ninth = await sign();
    const refused = await post(ninth);
    assert.equal(await code(refused), 'TOO_MANY_UNPAID_RUNS');
    assert.deepEqual([refused.status, Number(refused.headers.get('retry-after')) <= 5, asked(), verifies()], [429, true, AT_ONCE, AT_ONCE]);
    // What is under way already may be joined, and does not count twice.
    const joined = post({ ...JSON_, ...eight[0] });
    await honestIsServed();
    more.open();
    for (const response of await Promise.all([...running, joined])) assert.equal((await response.json()).output, 'Hello, world');
    await isServed(await post(ninth));
    assert.equal(await stack.balance(payer), WHOLE - 9n * HAIKU_PRICE);
  });

  test('a document whose template usually takes longer than the payment is valid: 402, before anybody is asked; as a stream, or with a longer payment, it is served', async () => {
    const path = await stack.addTemplate('slow', { prompt: 'Slow: {topic}{/topic}', parameters: [{ name: 'topic', required: true }] });
    const row = (i) => ["INSERT INTO runs (id, template_id, creator_id, owner_test, amount, status, model, input_tokens, output_tokens, started_at, duration_ms) VALUES (?, 'template_ada_slow', ?, 0, '0', 'delivered', 'm', 0, 0, ?, 60000)", `slow ${i}`, ada.id, i];
    for (let i = 0; i < 3; i++) { const [query, ...values] = row(i); await stack.DB.prepare(query).bind(...values).run(); }
    const short = () => sign(payer, { path, authorization: { validBefore: String(seconds() + 30) } });
    const refused = await post({ ...JSON_, ...(await short()) }, INPUT, path);
    assert.deepEqual([refused.status, await code(refused), asked(), verifies()], [402, 'PAYMENT_EXPIRED', 0, 0]);
    await isServed(await post(await short(), INPUT, path));
    const whole = await post({ ...JSON_, ...(await sign(payer, { path })) }, INPUT, path);
    assert.equal((await whole.json()).output, 'Hello, world');
  });

  test('an authorization that never expires, or not soon: 402 with the field, before anybody is asked', async () => {
    const { terms } = await stack.ask402(HAIKU);
    const longest = terms.accepts[0].maxTimeoutSeconds + 60;
    for (const validBefore of [String(2n ** 48n), String(seconds() + longest + 30)]) {
      const response = await post(await sign(payer, { authorization: { validBefore } }));
      const body = await response.json();
      assert.deepEqual([response.status, body.code], [402, 'PAYMENT_MISMATCH']);
      assert.match(JSON.stringify(body), /authorization\.validBefore/);
    }
    assert.deepEqual([asked(), verifies()], [0, 0]);
    await isServed(await post(await sign(payer, { authorization: { validBefore: String(seconds() + longest - 5) } })));
  });

  test('what Claude or the facilitator fails does not count', async () => {
    const headers = await sign();
    for (let n = 0; n < A_DAY + 2; n++) {
      stack.claude.script = () => ({ status: 401, headers: {}, error: { type: 'authentication_error', message: 'x' } });
      const response = await post(headers);
      assert.deepEqual([response.status, await code(response)], [503, 'CLAUDE_KEY_INVALID']);
    }
    stack.claude.script = hello;
    stack.facilitator.onSettle = () => reply(404, { error: 'not here' });
    for (let n = 0; n < 3; n++) assert.equal(await code(await post(headers)), 'FACILITATOR_UNAVAILABLE');
    stack.facilitator.onSettle = undefined;
    await isServed(await post(headers));
  });
});

describe('a window that is too short', () => {
  const FEW = 5;
  before(() => stack.restart({ LIMITS: JSON.stringify({ ...LIMITS, unpaidPerWalletDay: FEW }) }));
  after(() => stack.restart());

  test('a document that takes longer than its payment is valid: 504 PAYMENT_WINDOW_OVER, which counts', async () => {
    stack.claude.script = () => [start(), open(), ...Array.from({ length: 200 }, () => [250, delta('word ')]).flat(), shut(), end(), stop];
    // Facilitators that want six seconds more would refuse it.
    stack.facilitator.onVerify = ({ body }) => ({ isValid: true, payer: body.paymentPayload.payload.authorization.from });
    const validBefore = String(seconds() + LIMITS.claudeBeginSeconds + LIMITS.settleMarginSeconds + 6);
    const headers = await Promise.all(Array.from({ length: FEW }, () => sign(payer, { authorization: { validBefore } })));
    const answers = await Promise.all(headers.map((h) => post({ ...JSON_, ...h })));
    for (const answer of answers) assert.deepEqual([answer.status, await code(answer)], [504, 'PAYMENT_WINDOW_OVER']);
    assert.deepEqual([asked(), settles()], [FEW, 0]);
    await isOverTheDay(await post(await sign()));
    assert.equal(await stack.balance(payer), WHOLE);
    await honestIsServed();
  });
});

describe("a stranger who names another's wallet", () => {
  /** A payment in the payer's name whose signature only a facilitator can tell from a contract wallet's. */
  async function inTheNameOf(account, terms) {
    const payload = await stack.authorize(account, terms.accepts[0]);
    return { 'payment-signature': encodeHeader({ x402Version: 2, resource: terms.resource, accepted: terms.accepts[0], payload: { ...payload, signature: `0x${'22'.repeat(100)}` } }) };
  }

  test('100 times at once, with signatures that only a facilitator can judge: caps, keys and places of the wallet are untouched, and it is served meanwhile', async () => {
    const { terms } = await stack.ask402(HAIKU);
    const bogus = await Promise.all(Array.from({ length: 100 }, () => inTheNameOf(payer, terms)));
    const held = gate();
    const isBogus = ({ body }) => body.paymentPayload.payload.signature.startsWith('0x2222');
    stack.facilitator.onVerify = async (call, next) => { if (isBogus(call)) await held.opened; return next(); };
    const strangers = bogus.map((headers, i) => post({ ...headers, 'idempotency-key': `next ${i % 10}`, ...(i % 2 ? JSON_ : {}) }));
    await until(() => stack.facilitator.calls.filter(isBogus).length >= 20, { what: 'strangers who wait for verify' });

    // The wallet has all of its eight places, and its keys.
    const more = gate();
    stack.claude.script = () => [start(), () => more.opened, ...hello().slice(1)];
    const eight = await Promise.all(Array.from({ length: AT_ONCE }, async (_, i) => ({ ...JSON_, 'idempotency-key': `next ${i}`, ...(await sign()) })));
    const running = eight.map((headers) => post(headers));
    await until(() => asked() === AT_ONCE, { what: 'eight runs of the wallet at once' });
    more.open();
    const runs = await Promise.all(running.map(async (response) => (await (await response).json()).run));
    assert.equal(new Set(runs).size, AT_ONCE);
    assert.equal(await stack.balance(payer), WHOLE - BigInt(AT_ONCE) * HAIKU_PRICE);

    held.open();
    for (const response of await Promise.all(strangers)) {
      const body = await response.text();
      assert.ok([402, 503].includes(response.status), `${response.status} ${body}`);
      assert.equal(body.includes('Hello'), false);
    }
    assert.deepEqual([asked(), settles()], [AT_ONCE, AT_ONCE]);
    assert.equal((await stack.rows('payer = ?', payer.address)).every(({ status }) => status === 'delivered'), true);
    // And nothing of it counts, nor are its keys taken.
    stack.claude.script = hello;
    const again = await isServed(await post({ 'idempotency-key': 'next 9', ...(await sign()) }));
    assert.equal(runs.includes(again), false);
  });

  test('with a payment that is seen on the chain takes none of its next Idempotency-Keys; one payment takes one key at the most', async () => {
    const public_ = await sign();
    const first = await isServed(await post({ 'idempotency-key': 'the first', ...public_ }));
    const keys = Array.from({ length: 12 }, (_, i) => `next ${i}`);
    for (const [i, key] of keys.entries()) {
      // With the request that it has bought it shows that run; with any other it is refused.
      const input = i % 2 ? { topic: `another ${i}` } : INPUT;
      const response = await post({ 'idempotency-key': key, ...public_ }, input);
      if (i % 2) assert.deepEqual([response.status, await code(response)], [409, 'PAYMENT_REUSED']);
      else assert.equal(await isServed(response), first);
    }
    const runs = new Set([first]);
    for (const key of keys) runs.add(await isServed(await post({ 'idempotency-key': key, ...(await sign()) })));
    assert.equal(runs.size, 1 + keys.length, 'each key is free, and buys a run of its own');
    assert.equal(await isServed(await post({ 'idempotency-key': 'the first', ...(await sign()) })), first);
    assert.equal(await stack.balance(payer), WHOLE - BigInt(runs.size) * HAIKU_PRICE);
  });
});

const reverted = { success: false, errorReason: 'transaction_reverted', transaction: `0x${'ab'.repeat(32)}`, network: 'eip155:84532' };
for (const [name, settle] of [['is never answered', () => reply(500, { error: 'out of order' })], ['is reverted on the chain', () => reverted]]) {
  test(`a settlement that ${name} is asked for 5 times, however often the payment is presented, and then has an end`, async () => {
    stack.facilitator.onVerify = ({ body }) => ({ isValid: true, payer: body.paymentPayload.payload.authorization.from });
    stack.facilitator.onSettle = settle;
    const validBefore = seconds() + LIMITS.claudeBeginSeconds + LIMITS.settleMarginSeconds + 6;
    const headers = await sign(payer, { authorization: { validBefore: String(validBefore) } });
    for (let n = 0; n < 15; n++) {
      const response = await post(headers);
      assert.deepEqual([response.status, await code(response)], [503, 'SETTLEMENT_UNKNOWN']);
    }
    assert.deepEqual([asked(), settles()], [1, 5]);
    await sleep(Math.max(0, (validBefore + 1) * 1000 - Date.now()));
    await stack.chain.mine();
    const last = await post(headers);
    assert.deepEqual([last.status, await code(last)], [402, 'SETTLEMENT_REJECTED']);
    const [row] = await until(async () => { const rows = await stack.rows("payer = ? AND status = 'refused'", payer.address); return rows.length && rows; });
    assert.deepEqual([row.code, row.amount, settles()], ['SETTLEMENT_REJECTED', '0', 5]);
    assert.equal(await stack.balance(payer), WHOLE);
  });
}

describe("owners' tests", () => {
  const a_day = LIMITS.ownerTestsPerDay;
  const ownTest = async (headers = {}, creator = ada) => stack.ownerTest(creator === ada ? HAIKU : '/@grace/explain-error', creator === ada ? INPUT : { error: 'x' }, await stack.token(creator), headers);
  async function isOver() {
    const response = await ownTest();
    assert.deepEqual([response.status, await code(response)], [429, 'TOO_MANY_OWNER_TESTS']);
    const wait = Number(response.headers.get('retry-after'));
    assert.ok(wait > 86_000 && wait <= 86_400, `Retry-After: ${wait}`);
  }

  test('over ownerTestsPerDay: 429, also of many at once, also after an eviction and a kill; payers and other owners are not concerned', async () => {
    const answers = await Promise.all(Array.from({ length: a_day + 4 }, (_, i) => ownTest(i % 2 ? JSON_ : {})));
    assert.deepEqual(answers.map(({ status }) => status).sort(), [...Array(a_day).fill(200), ...Array(4).fill(429)]);
    await Promise.all(answers.map((response) => response.text()));
    assert.equal(asked(), a_day);
    await isOver();
    await isServed(await post(await sign()));
    await isServed(await ownTest({}, grace));
    await stack.evict();
    await isOver();
    await stack.kill();
    await stack.revive();
    await isOver();
    assert.equal(asked(), a_day + 2);
    // A wrong request is told what is wrong with it, and takes nothing.
    assert.equal((await stack.ownerTest(HAIKU, { nothing: 'x' })).status, 400);
  });
});

describe('a reader of the same wallet', () => {
  const PIECE = 'a piece of a long answer. '.repeat(1000);
  const PIECES = 300;
  const long = () => say(...Array.from({ length: PIECES }, (_, i) => `${i}: ${PIECE}`));
  const isLong = (request) => request.raw.includes('LONG');
  const script = (request) => (isLong(request) ? long() : hello());
  const LONG = { topic: 'LONG' };

  /** A caller of whose answer nothing is read before `read()`. */
  function reader(headers, path = HAIKU) {
    const request = http.request(new URL(path, stack.url), { method: 'POST', agent: false, headers: { 'content-type': 'application/json', ...headers } });
    const response = new Promise((resolve, reject) => { request.once('error', reject); request.once('response', (res) => (res.pause(), resolve(res))); });
    request.end(JSON.stringify(LONG));
    return { response, leave: () => request.destroy() };
  }

  test('who never reads, or slowly, keeps none of its other runs waiting, and the long answer is finished and paid', async () => {
    stack.claude.script = script;
    const [never, slowly] = [reader(await sign(payer, { input: LONG })), reader(await sign(payer, { input: LONG }))];
    const [unread, slow] = await Promise.all([never.response, slowly.response]);
    assert.deepEqual([unread.statusCode, slow.statusCode], [200, 200]);
    for (let n = 0; n < 10; n++) {
      await isServed(await post(await sign()));
      const { output } = await (await post({ ...JSON_, ...(await sign()) })).json();
      assert.equal(output, 'Hello, world');
    }
    // Both long runs end although one of them is read by nobody.
    for (const response of [unread, slow]) await stack.row(response.headers['x-run-id'], ({ status }) => status === 'delivered');
    never.leave();
    let text = '';
    for await (const chunk of slow) {
      text += chunk;
      if (text.length < 1_000_000) await sleep(5);
    }
    const events = text.split('\n\n').filter(Boolean).map((event) => JSON.parse(event.split('\ndata: ')[1]));
    assert.equal(events.at(-1).type, 'done');
    assert.equal(events.slice(0, -1).map(({ content }) => content).join(''), Array.from({ length: PIECES }, (_, i) => `${i}: ${PIECE}`).join(''));
    assert.equal(await stack.balance(payer), WHOLE - 22n * HAIKU_PRICE);
  });

  test('whose answer was never paid, and is still being read, hides no later run of the same payment or key', async () => {
    const path = await stack.addTemplate('early', { prompt: 'early {topic}{/topic}', parameters: [{ name: 'topic', required: true }], release: 'verified' });
    stack.claude.script = long;
    const refused = gate();
    stack.facilitator.onSettle = async () => { await refused.opened; return { success: false, errorReason: 'insufficient_funds', transaction: '', network: 'eip155:84532', payer: payer.address }; };
    const key = { 'idempotency-key': 'of a reader' };
    const headers = { ...key, ...(await sign(payer, { path, input: LONG })) };
    const first = reader(headers, path);
    assert.equal((await first.response).statusCode, 200);
    await until(() => stack.claude.requests[0].endedAt, { timeout: 10_000 });
    refused.open();
    await stack.row((await first.response).headers['x-run-id'], ({ status }) => status === 'refused');

    stack.facilitator.onSettle = undefined;
    stack.claude.script = hello;
    const bought = await isServed(await post(headers, LONG, path));
    await stack.row(bought);
    assert.equal(await isServed(await post(headers, LONG, path)), bought);
    assert.equal(await isServed(await post({ ...key, ...(await sign(payer, { path, input: LONG })) }, LONG, path)), bought);
    assert.equal(await stack.balance(payer), WHOLE - HAIKU_PRICE);
    first.leave();
  });
});
