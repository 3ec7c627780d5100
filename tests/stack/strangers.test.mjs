// Strangers without money, with every form of payment that makes a facilitator fail: whoever has money is served.
import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { drop, reply, startFacilitator } from '../../dev/facilitator.mjs';
import { say } from '../support/claude.mjs';
import { HAIKU, HAIKU_PRICE, INPUT, encodeHeader, readSse, sleep, startStack } from '../support/stack.mjs';

const WHOLE = 1_000_000n;
const STRANGERS = 60;
const HONEST = 50;
const MAGIC = '6492'.repeat(16);
const LONG = 'x'.repeat(501);
let stack;
let second;
before(async () => {
  stack = await startStack();
  second = await startFacilitator({ rpcUrl: stack.chain.url });
});
after(async () => {
  await second?.close();
  await stack?.close();
});
const restart = (...urls) => stack.restart({ FACILITATOR_URL: urls.join(','), LIMITS: JSON.stringify({ verifySeconds: 2, settleSeconds: 30 }) });

/** As public facilitators are: long texts get a 400 without a verdict. The reference itself answers 500 to EIP-6492's magic. */
async function strict({ body }, next) {
  const { signature } = body.paymentPayload.payload;
  if (signature.includes('33'.repeat(90))) { await sleep(2500); return drop; }
  if (signature.includes('44'.repeat(90))) return drop;
  const { resource = {}, extensions = {} } = body.paymentPayload;
  const { resource: url = '', description = '' } = body.paymentRequirements;
  const texts = [resource.url, resource.description, url, description, JSON.stringify(extensions)];
  return texts.some((text) => text?.length > 500) ? reply(400, { error: 'too long' }) : next();
}

beforeEach(() => {
  stack.reset(() => say('Hello', ', ', 'world'));
  second.reset();
  stack.facilitator.onVerify = second.onVerify = strict;
});

const forms = {
  'EIP-6492 magic': (payment) => ({ ...payment, payload: { ...payment.payload, signature: `0x${'22'.repeat(96)}${MAGIC}` } }),
  'EIP-6492 around a factory': (payment) => ({ ...payment, payload: { ...payment.payload, signature: `0x${'00'.repeat(12)}${'11'.repeat(20)}${'00'.repeat(31)}60${'00'.repeat(31)}80${'00'.repeat(64)}${MAGIC}` } }),
  'a contract that never answers': (payment) => ({ ...payment, payload: { ...payment.payload, signature: `0x${'33'.repeat(96)}` } }),
  'a contract that breaks the connection': (payment) => ({ ...payment, payload: { ...payment.payload, signature: `0x${'44'.repeat(96)}` } }),
  'a long description': (payment) => ({ ...payment, resource: { ...payment.resource, description: LONG } }),
  'a long URL': (payment) => ({ ...payment, resource: { ...payment.resource, url: `${payment.resource.url}?${LONG.repeat(8)}` } }),
  'odd extensions': (payment) => ({ ...payment, extensions: { bazaar: { info: { input: LONG } }, more: LONG } }),
  'odd terms': (payment) => ({ ...payment, accepted: { ...payment.accepted, description: LONG, extra: { ...payment.accepted.extra, more: LONG } } }),
  'a wrong checksum': (payment) => ({ ...payment, payload: { ...payment.payload, authorization: { ...payment.payload.authorization, from: `0x${payment.payload.authorization.from.slice(2).toUpperCase()}` } } }),
  'no money': (payment) => payment,
};

/** A payment of a wallet without money, in one of the forms; every second one calls a very long URL of ours. */
async function stranger(i, terms) {
  const account = await stack.payer(0n);
  const accepted = terms.accepts[0];
  const payload = await stack.authorize(account, accepted);
  const edit = Object.values(forms)[i % Object.keys(forms).length];
  const path = i % 2 ? `${HAIKU}?${'y'.repeat(5000)}` : HAIKU;
  return () => stack.post(path, INPUT, { 'payment-signature': encodeHeader(edit({ x402Version: 2, resource: terms.resource, accepted, payload })) });
}

async function honest(i, terms, v1) {
  const payer = await stack.payer();
  const headers = i % 5 === 4
    ? { 'x-payment': encodeHeader({ x402Version: 1, scheme: 'exact', network: 'base-sepolia', payload: await stack.authorize(payer, v1.accepts[0]) }) }
    : { 'payment-signature': encodeHeader({ x402Version: 2, resource: terms.resource, accepted: terms.accepts[0], payload: await stack.authorize(payer, terms.accepts[0]) }) };
  return { payer, buy: () => stack.post(HAIKU, INPUT, headers) };
}

for (const count of [1, 2]) {
  test(`${STRANGERS} strangers without money while ${HONEST} honest payers buy, through ${count} facilitator${count > 1 ? 's' : ''}: all of them are served`, async () => {
    await restart(...[stack.facilitator.url, second.url].slice(0, count));
    const { terms, v1 } = await stack.ask402(HAIKU, INPUT);
    const payers = [];
    for (let i = 0; i < HONEST; i++) payers.push(await honest(i, terms, v1));
    const strangers = await Promise.all(Array.from({ length: STRANGERS }, (_, i) => stranger(i, terms)));

    const refused = (async () => {
      const statuses = [];
      // The first ones alone, so that they could open a circuit before anybody honest is there.
      for (let i = 0; i < STRANGERS; i += 10) {
        statuses.push(...(await Promise.all(strangers.slice(i, i + 10).map(async (send) => {
          const response = await send();
          await response.text();
          return response.status;
        }))));
      }
      return statuses;
    })();
    await sleep(500);
    let served = 0;
    for (let i = 0; i < HONEST; i += 5) {
      await Promise.all(payers.slice(i, i + 5).map(async ({ payer, buy }) => {
        const response = await buy();
        const { text, error } = await readSse(response);
        assert.equal(response.status, 200);
        assert.equal(error, undefined);
        assert.equal(text, 'Hello, world');
        assert.equal(await stack.balance(payer), WHOLE - HAIKU_PRICE);
        served += 1;
      }));
      await sleep(200);
    }
    assert.equal(served, HONEST);
    for (const status of await refused) assert.ok(status === 402 || status === 503, `${status}`);
    assert.equal(stack.claude.requests.length, HONEST);
    assert.equal(second.count('settle'), 0, 'the first facilitator was always good enough for the honest ones');
  });
}

test('a facilitator that seems ill is asked all the same where there is no other', async () => {
  await restart(stack.facilitator.url);
  stack.facilitator.onVerify = () => drop;
  for (let i = 0; i < 8; i++) {
    const { terms, v1 } = await stack.ask402(HAIKU, INPUT);
    const { buy } = await honest(0, terms, v1);
    assert.equal((await buy()).status, 503);
  }
  stack.facilitator.onVerify = undefined;
  const { terms, v1 } = await stack.ask402(HAIKU, INPUT);
  const { buy } = await honest(0, terms, v1);
  assert.equal((await readSse(await buy())).text, 'Hello, world');
});

test('what the facilitator is asked with holds our own resource and terms, in both versions', async () => {
  await restart(stack.facilitator.url);
  const { terms, v1 } = await stack.ask402(HAIKU, INPUT);
  for (const i of [0, 4]) assert.equal((await readSse(await (await honest(i, terms, v1)).buy())).text, 'Hello, world');
  const asked = stack.facilitator.calls.map(({ kind, body }) => [kind, body.x402Version, Object.keys(body.paymentPayload).sort().join()]);
  const [two, one] = ['accepted,payload,resource,x402Version', 'network,payload,scheme,x402Version'];
  assert.deepEqual(asked, [['verify', 2, two], ['settle', 2, two], ['verify', 1, one], ['settle', 1, one]]);
  assert.deepEqual(stack.facilitator.calls[0].body.paymentPayload.resource, terms.resource);
  assert.deepEqual(stack.facilitator.calls[0].body.paymentPayload.accepted, terms.accepts[0]);
});
