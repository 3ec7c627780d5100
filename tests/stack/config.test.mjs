// The operator's document in KV: taken over without a deploy, whole or not at all.
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { hang, say } from '../support/claude.mjs';
import { HAIKU, INPUT, NETWORK, USDC, readSse, startStack, until } from '../support/stack.mjs';

const MODEL = 'claude-haiku-4-5-20251001';
const day = (offset) => new Date(Date.now() + offset * 86_400_000).toISOString().slice(0, 10);
let stack;
before(async () => { stack = await startStack(); });
after(() => stack?.close());
beforeEach(() => stack.reset(() => say('Hello')));

const health = async () => (await fetch(`${stack.url}/healthz`)).json();
/** The terms, or the code of what was said instead. */
async function terms() {
  const response = await stack.post(HAIKU, INPUT);
  const body = await response.json();
  return response.status === 402 ? { status: 402, offers: body.accepts, timeout: body.accepts[0].maxTimeoutSeconds } : { status: response.status, code: body.error.code, response };
}
const within30 = (look, what) => until(look, { timeout: 30_000, every: 200, what });
/** With this document from the start. */
async function startWith(document) {
  await (document === undefined ? stack.KV.delete('config') : stack.setConfig(document));
  await stack.restart();
}

describe('/healthz', () => {
  test('says version, revision and what is reachable, without a document: that of the vars', async () => {
    const response = await fetch(`${stack.url}/healthz`);
    assert.equal(response.status, 200);
    assert.match(response.headers.get('cache-control'), /no-store/);
    const body = await response.json();
    assert.match(body.version, /^\d+\.\d+\.\d+/);
    assert.deepEqual(body.config, { revision: 'vars', paused: false });
    assert.deepEqual(body.reachable, { d1: true, kv: true, facilitator: true, claude: true });
    assert.equal(body.ok, true);
    assert.equal(stack.claude.requests.length, 0, 'no message is paid for');
  });

  test('says what is not reachable, and that nothing can be sold then', async () => {
    await stack.restart({ FACILITATOR_URL: 'http://127.0.0.1:9' });
    const body = await health();
    assert.deepEqual([body.ok, body.reachable.facilitator, body.reachable.claude], [false, false, true]);
    await stack.restart({ ANTHROPIC_BASE_URL: 'http://127.0.0.1:9' });
    const other = await health();
    assert.deepEqual([other.ok, other.reachable.facilitator, other.reachable.claude], [false, true, false]);
    await stack.restart();
  });
});

describe('without a restart', () => {
  test('a document is applied within 30 seconds; an invalid one changes nothing and is logged', async () => {
    await startWith(undefined);
    assert.deepEqual([(await terms()).status, (await terms()).timeout], [402, 300]);

    await stack.setConfig({ revision: 'first', limits: { maxTimeoutSeconds: 123 } });
    await within30(async () => (await terms()).timeout === 123, 'the limits of the document');
    assert.equal((await until(async () => { const h = await health(); return h.config.revision === 'first' && h; })).config.paused, false);

    const before = stack.logs.length;
    await stack.setConfig({ revision: 'broken', limits: { maxTimeoutSeconds: 0 } });
    const logged = () => stack.logs.slice(before).filter(({ message }) => message.includes('config'));
    await within30(async () => (await terms()) && logged().length, 'a line in the log');
    assert.equal(logged()[0].level, 'error');
    assert.match(logged()[0].message, /seconds/, 'the line says what is wrong');
    assert.equal((await terms()).timeout, 123);
    assert.equal((await health()).config.revision, 'first');
  });

  test('paused: 503 with Retry-After before any 402, runs that are paid for are still theirs; without a document, on again', async () => {
    const payer = await stack.payer();
    const bought = await stack.signPayment(HAIKU, INPUT, payer);
    const body = await (await stack.post(HAIKU, INPUT, bought)).text();
    const signed = await stack.signPayment(HAIKU, INPUT, payer);
    stack.facilitator.reset();
    await stack.setConfig({ paused: true, limits: { maxTimeoutSeconds: 123 } });
    await within30(async () => (await terms()).code === 'PAUSED', 'PAUSED');
    const { status, response } = await terms();
    assert.equal(status, 503);
    assert.ok(Number(response.headers.get('retry-after')) > 0);
    assert.equal(response.headers.get('payment-required'), null);
    const refused = await stack.post(HAIKU, INPUT, signed);
    assert.equal(refused.status, 503);
    assert.equal(stack.facilitator.calls.length, 0, 'the payment was not touched');
    assert.equal((await stack.ownerTest(HAIKU, INPUT)).status, 503);
    const replay = await stack.post(HAIKU, INPUT, bought);
    assert.equal(replay.status, 200);
    assert.equal(await replay.text(), body);
    await stack.KV.delete('config');
    await within30(async () => (await terms()).timeout === 300, 'the vars again');
    const again = await stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, payer));
    assert.equal((await readSse(again)).text, 'Hello');
  });
});

describe('what the document holds', () => {
  const network = { id: NETWORK, v1: 'base-sepolia', asset: USDC, decimals: 6, eip712: { name: 'USDC', version: '2' } };

  test('networks: names, decimals and domain go into the terms', async () => {
    await startWith({ networks: [{ ...network, v1: 'sepolia', decimals: 8, eip712: { name: 'Another', version: '7' } }] });
    const { terms: v2, v1 } = await stack.ask402(HAIKU);
    assert.deepEqual([v2.accepts[0].amount, v2.accepts[0].extra], ['1000000', { name: 'Another', version: '7' }]);
    assert.equal(v1.accepts[0].network, 'sepolia');
  });

  test('no network that the creator has a wallet on: 503, not for sale', async () => {
    await startWith({ networks: [{ ...network, id: 'eip155:1', v1: 'ethereum' }] });
    assert.deepEqual(await terms().then(({ status, code }) => [status, code]), [503, 'NOT_FOR_SALE']);
  });

  test('models: one that is retired is a 503 before any 402, from its day on', async () => {
    const models = (retiredOn) => ({ models: [{ id: MODEL, maxOutput: 150, retiredOn }] });
    for (const retired of [day(0), day(-1), '2020-01-01']) {
      await startWith(models(retired));
      assert.deepEqual(await terms().then(({ status, code }) => [status, code]), [503, 'MODEL_UNAVAILABLE'], retired);
    }
    await startWith(models(day(2)));
    const payer = await stack.payer();
    assert.equal((await readSse(await stack.payV2(HAIKU, INPUT, {}, payer))).text, 'Hello');
    assert.equal(stack.claude.requests[0].body.max_tokens, 150, 'never more than the model writes');
  });

  test('models: one that is not listed is a 503', async () => {
    await startWith({ models: [{ id: 'claude-opus-5-5', maxOutput: 100 }] });
    assert.equal((await terms()).code, 'MODEL_UNAVAILABLE');
  });

  test('limits: bodies, values, and how long Claude may take to begin', async () => {
    await startWith({ limits: { bodyBytes: 300, valueChars: 20, claudeBeginSeconds: 1 } });
    const large = await stack.post(HAIKU, { topic: 'x'.repeat(400) });
    assert.equal(large.status, 413);
    const long = await stack.post(HAIKU, { topic: 'x'.repeat(21) });
    assert.equal(long.status, 400);
    assert.match((await long.json()).error.details.expected, /20/);
    stack.claude.script = () => [hang];
    const payer = await stack.payer();
    const began = Date.now();
    const slow = await stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, payer));
    assert.equal(slow.status, 504);
    assert.ok(Date.now() - began < 2500);
  });

  test('facilitators and anthropic: where they are, over the vars', async () => {
    await stack.setConfig({ facilitators: [{ url: `${stack.facilitator.url}/` }], anthropic: { baseUrl: stack.claude.url, version: '2026-10-21' } });
    await stack.restart({ FACILITATOR_URL: 'http://127.0.0.1:9', ANTHROPIC_BASE_URL: 'http://127.0.0.1:9' });
    const payer = await stack.payer();
    assert.equal((await readSse(await stack.payV2(HAIKU, INPUT, {}, payer))).text, 'Hello');
    assert.equal(stack.claude.requests[0].headers['anthropic-version'], '2026-10-21');
  });

  const invalid = {
    'not JSON': '{',
    'an array': '[]',
    'an unknown section': { pause: true },
    'an unknown limit': { paused: true, limits: { bodyByte: 1 } },
    'a type': { paused: 'true' },
    'no facilitator': { facilitators: [] },
    'a facilitator that is no URL': { facilitators: [{ url: 'ftp://x' }] },
    'no model': { models: [] },
    'a day that is none': { models: [{ id: MODEL, maxOutput: 1, retiredOn: 'soon' }] },
    'an asset that is no address': { networks: [{ ...network, asset: '0x12' }] },
    'a network twice': { networks: [network, network] },
    'an issuer without keys': { paused: true, jwt: { issuers: [{ issuer: 'x', audience: 'y' }] } },
  };
  test('one bad line anywhere, from the start: nothing is sold until it is mended; the log says so', async () => {
    for (const [name, document] of Object.entries(invalid)) {
      const before = stack.logs.length;
      await startWith(document);
      const got = await terms();
      assert.equal(got.status, 503, name);
      await until(() => stack.logs.slice(before).some(({ level, message }) => level === 'error' && message.includes('config')), { what: `a line about ${name}` });
      assert.deepEqual((await health()).config, { revision: 'invalid', paused: true }, name);
    }
    await startWith(undefined);
  });
});
