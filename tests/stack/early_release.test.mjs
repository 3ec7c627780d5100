// `release = 'verified'`: the text of a stream is shown as it is written, before its payment is settled. The creator
// bears the risk, and limits.outstandingPerPayer says for how many runs of one payer at once.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { drop } from '../../dev/facilitator.mjs';
import { cut, delta, encode, hang, open, say, start } from '../support/claude.mjs';
import { WHOLE, asked, payer, payerStack, settles, stack } from '../support/file_stack.mjs';
import { HAIKU_PRICE, INPUT, NETWORK, decodeReceipt, gate, readSse, sleep, sse, until } from '../support/stack.mjs';

const PARAMETERS = [{ name: 'topic', required: true }];
let path;
let careful;
payerStack({
  vars: { LIMITS: JSON.stringify({ outstandingPerPayer: 1 }) },
  async prepare() {
    path = await stack.addTemplate('early', { prompt: 'early {topic}{/topic}', parameters: PARAMETERS, release: 'verified' });
    careful = await stack.addTemplate('careful', { prompt: 'careful {topic}{/topic}', parameters: PARAMETERS });
  },
});

const spent = async (account = payer) => WHOLE - (await stack.balance(account));
const buy = async ({ where = path, headers = {}, account = payer, init } = {}) => stack.post(where, INPUT, { ...headers, ...(await stack.signPayment(where, INPUT, account)) }, init);
const refusal = () => ({ success: false, errorReason: 'insufficient_funds', transaction: '', network: NETWORK, payer: payer.address });
/** Settle waits until the gate opens. */
function heldSettle(then) {
  const held = gate();
  stack.facilitator.onSettle = async (call, next) => { await held.opened; return then ? then(call, next) : next(); };
  return held;
}
const next = async (events) => (await events.next()).value;
/** What `promise` gives within `ms`, else `undefined`. */
const within = (ms, promise) => Promise.race([promise, sleep(ms)]);

describe('text', () => {
  test('arrives before settle answers, and the run is paid and delivered all the same', async () => {
    const held = heldSettle();
    const response = await buy();
    assert.equal(response.status, 200);
    assert.equal(response.headers.get('payment-response'), null, 'there is no receipt yet, and none is made up');
    const events = sse(response);
    const texts = [await next(events), await next(events), await next(events)].map((e) => e.content);
    assert.equal(texts.join(''), 'Hello, world');
    const settle = await until(() => stack.facilitator.calls.find((c) => c.kind === 'settle'));
    assert.equal(settle.ms, undefined, 'settle had answered by then');
    assert.equal(await within(200, events.next()), undefined, 'it does not end before it is paid');
    assert.equal(await spent(), 0n);
    held.open();
    const run = response.headers.get('x-run-id');
    const row = await stack.row(run, (r) => r.status === 'delivered');
    assert.deepEqual([row.amount, asked(), settles()], [String(HAIKU_PRICE), 1, 1]);
    assert.equal(await spent(), HAIKU_PRICE);
    assert.equal((await stack.chain.receipt(row.tx)).status, 'success');
  });

  test('the event at the end has the receipt', async () => {
    const held = heldSettle();
    const response = await buy();
    const answer = readSse(response);
    await until(settles);
    held.open();
    const { text, done, error } = await answer;
    assert.equal(error, undefined);
    assert.equal(text, 'Hello, world');
    assert.equal((await stack.chain.receipt(done.receipt.transaction)).status, 'success');
    assert.equal(await spent(), HAIKU_PRICE);
  });

  test('does not arrive before the payment is verified', async () => {
    const held = gate();
    stack.facilitator.onVerify = async (call, next) => { await held.opened; return next(); };
    const response = buy();
    await until(() => stack.facilitator.count('verify'));
    assert.equal(await within(200, response), undefined);
    assert.equal(asked(), 0);
    held.open();
    assert.equal((await readSse(await response)).text, 'Hello, world');
  });

  test('of a payment that is not valid never comes', async () => {
    const poor = await stack.payer(0n);
    const response = await buy({ account: poor });
    assert.equal(response.status, 402);
    assert.equal((await response.text()).includes('Hello'), false);
    assert.deepEqual([asked(), settles()], [0, 0]);
  });

  for (const [name, request] of [['a template that does not say so', () => ({ where: careful })], ['a document', () => ({ headers: { accept: 'application/json' } })]]) {
    test(`of ${name} waits for settle`, async () => {
      const held = heldSettle();
      const response = buy(request());
      await until(settles);
      assert.equal(await within(300, response), undefined, 'answered before it was settled');
      held.open();
      assert.match(await (await response).text(), /Hello/);
      assert.equal(await spent(), HAIKU_PRICE);
    });
  }
});

describe('a settlement that is refused', () => {
  test('ends the stream with SETTLEMENT_REJECTED, stops Claude, and is in the ledger as refused', async () => {
    const held = heldSettle(refusal);
    stack.claude.script = () => [start(), open(), delta('Hello'), hang];
    const response = await buy();
    const events = sse(response);
    assert.equal((await next(events)).content, 'Hello');
    held.open();
    const error = await next(events);
    assert.deepEqual([error.type, error.code, error.charged], ['error', 'SETTLEMENT_REJECTED', false]);
    assert.equal((await events.next()).done, true);
    assert.equal((await within(1500, stack.claude.requests[0].done))?.hungUp, true, 'Claude works on for nobody');
    const row = await stack.row(response.headers.get('x-run-id'));
    assert.deepEqual([row.status, row.code, row.amount, row.tx], ['refused', 'SETTLEMENT_REJECTED', '0', null]);
    assert.equal(await spent(), 0n);
    assert.equal((await stack.earnings('template_ada_early')).length > 0, true, 'of the other tests');
    const shown = await fetch(`${stack.url}/runs/${response.headers.get('x-run-id')}`).then((r) => r.text());
    assert.equal(shown.includes('Hello'), false);
  });

  test('after the whole answer was shown: the stream ends with the error and never with done', async () => {
    const held = heldSettle(refusal);
    const response = await buy();
    const answer = readSse(response);
    await until(settles);
    await sleep(150);
    held.open();
    const { text, done, error } = await answer;
    assert.equal(text, 'Hello, world');
    assert.equal(done, undefined);
    assert.equal(error.code, 'SETTLEMENT_REJECTED');
    assert.equal(await spent(), 0n);
  });

  test('keeps the place: the payer gets nothing more before it is paid', async () => {
    stack.facilitator.onSettle = refusal;
    await (await buy()).text();
    stack.facilitator.onSettle = undefined;
    const held = heldSettle();
    const second = buy();
    await until(() => settles() === 2);
    assert.equal(await within(400, second), undefined, 'shown before it was settled, to who has not paid the last time');
    held.open();
    assert.equal((await readSse(await second)).text, 'Hello, world');
    assert.equal(await spent(), HAIKU_PRICE);
  });
});

test('a settlement whose answer is lost: the stream ends with SETTLEMENT_UNKNOWN, and the same payment has it to the end, for one price', async () => {
  stack.facilitator.onSettle = async (call, next) => { await next(); return drop; };
  const headers = await stack.signPayment(path, INPUT, payer);
  const first = await readSse(await stack.post(path, INPUT, headers));
  assert.equal(first.done, undefined);
  assert.equal(first.error.code, 'SETTLEMENT_UNKNOWN');
  stack.facilitator.onSettle = undefined;
  const again = await readSse(await stack.post(path, INPUT, headers));
  assert.equal(again.text, 'Hello, world');
  assert.ok(again.done);
  assert.deepEqual([asked(), settles()], [1, 1]);
  assert.equal(await spent(), HAIKU_PRICE);
});

test('Claude breaking off before settle has answered: the caller is told, and the money is not gone for nothing', async () => {
  const held = heldSettle();
  const broke = gate();
  stack.claude.script = (request, n) => (n === 1 ? [start(), open(), delta('half'), () => broke.opened, cut] : say('Hello', ', ', 'world'));
  const headers = await stack.signPayment(path, INPUT, payer);
  const events = sse(await stack.post(path, INPUT, headers));
  assert.equal((await next(events)).content, 'half');
  broke.open();
  await sleep(150);
  held.open();
  const error = await next(events);
  assert.deepEqual([error.type, error.charged], ['error', true]);
  const again = await readSse(await stack.post(path, INPUT, headers));
  assert.equal(again.text, 'Hello, world');
  assert.ok(again.done);
  assert.equal(settles(), 1);
  assert.equal(await spent(), HAIKU_PRICE);
});

describe('outstandingPerPayer 1', () => {
  test('the second run at once is held back until it is settled; the place is free when the first is', async () => {
    const holds = new Map();
    stack.facilitator.onSettle = async (call, next) => {
      const { nonce } = call.body.paymentPayload.payload.authorization;
      const held = gate();
      holds.set(nonce, held);
      await held.opened;
      return next();
    };
    const first = await within(2000, buy());
    assert.ok(first, 'the first is shown before it is settled');
    assert.equal((await next(sse(first.clone()))).content, 'Hello');
    const second = buy();
    await until(() => settles() === 2);
    assert.equal(await within(400, second), undefined, 'the second was shown too');
    const [one, two] = [...holds.values()];
    two.open();
    const shown = await second;
    assert.equal(decodeReceipt(shown).success, true, 'shown once it was settled');
    assert.equal((await readSse(shown)).text, 'Hello, world');
    // The first still holds the place.
    const third = buy();
    await until(() => settles() === 3);
    assert.equal(await within(400, third), undefined, 'the third was shown too');
    one.open();
    await readSse(first);
    [...holds.values()][2].open();
    assert.equal((await readSse(await third)).text, 'Hello, world');
    // Now it is free.
    const fourth = await within(2000, buy());
    assert.ok(fourth, 'the place is free again');
    assert.equal(fourth.headers.get('payment-response'), null);
    assert.equal(settles() <= 4, true);
    await until(() => holds.size === 4);
    [...holds.values()][3].open();
    assert.equal((await readSse(fourth)).text, 'Hello, world');
    assert.equal(await spent(), 4n * HAIKU_PRICE);
    assert.deepEqual([asked(), settles()], [4, 4]);
    const rows = await until(async () => { const r = await stack.rows("payer = ? AND status = 'delivered'", payer.address); return r.length === 4 && r; });
    assert.equal(new Set(rows.map((r) => r.tx)).size, 4);
  });

  test('is counted for each payer alone', async () => {
    const other = await stack.payer();
    const held = heldSettle();
    const responses = await within(3000, Promise.all([buy(), buy({ account: other })]));
    assert.ok(responses, 'both are shown before they are settled');
    held.open();
    for (const response of responses) assert.equal((await readSse(response)).text, 'Hello, world');
    assert.deepEqual([await spent(), await spent(other)], [HAIKU_PRICE, HAIKU_PRICE]);
  });

  test('three at the same moment: one is shown early, and all are paid', async () => {
    const held = heldSettle();
    let early = 0;
    const responses = [buy(), buy(), buy()].map((p) => p.then((r) => { early += r.headers.get('payment-response') === null; return r; }));
    await until(() => settles() === 3);
    await sleep(300);
    assert.equal(early, 1);
    held.open();
    for (const response of responses) assert.equal((await readSse(await response)).text, 'Hello, world');
    assert.equal(await spent(), 3n * HAIKU_PRICE);
  });

  test('a place is free again where Claude failed before anything was shown', async () => {
    stack.claude.script = () => [encode(start(), open(), { type: 'error', error: { type: 'invalid_request_error', message: 'x' } })];
    const failed = await buy({ headers: {} });
    await failed.text();
    stack.claude.script = () => say('Hello', ', ', 'world');
    const held = heldSettle();
    const response = await within(2500, buy());
    assert.ok(response, 'the place is still taken');
    held.open();
    assert.equal((await readSse(response)).text, 'Hello, world');
    assert.equal(await spent(), HAIKU_PRICE);
  });
});

test('outstandingPerPayer 0 is as if no template said so', async () => {
  await stack.restart({ LIMITS: JSON.stringify({ outstandingPerPayer: 0 }) });
  try {
    const held = heldSettle();
    const response = buy();
    await until(settles);
    assert.equal(await within(300, response), undefined);
    held.open();
    assert.equal((await readSse(await response)).text, 'Hello, world');
  } finally {
    await stack.restart();
  }
});
