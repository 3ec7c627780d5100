// The platform's rate limit, by the caller's address: it stands in front of requests that show no valid payment.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { asked, payer, payerStack, stack } from '../support/file_stack.mjs';
import { HAIKU, INPUT, NETWORK, encodeHeader, readSse, until } from '../support/stack.mjs';

const LIMIT = 3;
// The count begins anew at each full ten seconds, which may come in the middle of a test.
const TOO_MANY = 2 * LIMIT + 1;
let terms;
payerStack({ rateLimit: { limit: LIMIT, period: 10 }, prepare: async () => ({ terms } = await stack.ask402(HAIKU)) });

let last = 0;
/** The headers of a caller whose address no other test has. */
const stranger = () => ({ 'cf-connecting-ip': `192.0.2.${(last += 1)}` });
/** A payment by terms that were asked for once. */
async function sign(account, edit = (payload) => payload) {
  const accepted = terms.accepts.find((offer) => offer.network === NETWORK);
  const payload = edit(await stack.authorize(account, accepted));
  return { 'payment-signature': encodeHeader({ x402Version: 2, resource: terms.resource, accepted, payload }) };
}
const code = async (response) => {
  const body = await response.json();
  return body.code ?? body.error.code;
};
/** The codes of as many requests as no limit allows, one after the other. */
async function codes(request) {
  const codes = [];
  while (codes.length < TOO_MANY) codes.push(await code(await request()));
  return codes;
}
/** How often the facilitator was asked to verify. */
const verifies = () => stack.facilitator.count('verify');

test('requests without a payment are refused above the limit, for that address alone', async () => {
  const address = stranger();
  const got = await codes(() => stack.post(HAIKU, INPUT, address));
  assert.deepEqual(got.slice(0, LIMIT), Array(LIMIT).fill('PAYMENT_REQUIRED'));
  assert.equal(got.at(-1), 'RATE_LIMITED');
  const refused = await stack.post(HAIKU, INPUT, address);
  assert.deepEqual([refused.status, refused.headers.get('retry-after'), refused.headers.get('access-control-allow-origin')], [429, '10', '*']);
  assert.equal((await stack.post('/@ada/unknown', INPUT, address)).status, 429, 'before anything is read');
  assert.equal((await stack.post(HAIKU, INPUT, stranger())).status, 402);
});

test('whoever has asked for the terms too often can still pay, test as the owner, and read a run', async () => {
  const address = stranger();
  const signed = await sign(payer);
  assert.equal((await codes(() => stack.post(HAIKU, INPUT, address))).at(-1), 'RATE_LIMITED');
  const paid = await stack.post(HAIKU, INPUT, { ...signed, ...address });
  assert.equal((await readSse(paid)).text, 'Hello, world');
  for (let n = 0; n < TOO_MANY; n += 1) {
    assert.equal((await fetch(`${stack.url}/runs/${paid.headers.get('x-run-id')}`, { headers: address })).status, 200);
    assert.equal((await readSse(await stack.ownerTest(HAIKU, INPUT, undefined, address))).text, 'Hello, world');
  }
  const tokenless = await stack.post(HAIKU, INPUT, { 'x-owner-test': 'true', ...address });
  assert.equal(tokenless.status, 429);
});

test('forged and unreadable payments are counted together; above the limit a valid one has to wait', async () => {
  const address = stranger();
  const signed = await sign(payer);
  const forge = (payload) => ({ ...payload, signature: `0x${'11'.repeat(64)}1b` });
  const forged = await sign(payer, forge);
  const payments = [forged, { 'payment-signature': 'nonsense' }];
  const got = await codes(() => stack.post(HAIKU, INPUT, { ...payments.reverse()[0], ...address }));
  assert.deepEqual(got.slice(0, LIMIT), ['PAYMENT_MALFORMED', 'PAYMENT_INVALID', 'PAYMENT_MALFORMED']);
  assert.equal(got.at(-1), 'RATE_LIMITED');
  const refused = await stack.post(HAIKU, INPUT, { ...signed, ...address });
  assert.equal(refused.status, 429);
  assert.deepEqual([verifies(), asked()], [0, 0]);
  const elsewhere = await stack.post(HAIKU, INPUT, { ...(await sign(payer)), ...stranger() });
  assert.equal((await readSse(elsewhere)).text, 'Hello, world');
  const later = () => stack.post(HAIKU, INPUT, { ...signed, ...address });
  const served = await until(async () => [await later()].find(({ status }) => status === 200), { timeout: 21_000, every: 500, what: 'the wait that Retry-After names' });
  assert.equal((await readSse(served)).text, 'Hello, world');
});

test('payments that the facilitator does not accept are counted, and above the limit it is not asked any more', async () => {
  const address = stranger();
  const penniless = await stack.payer(0n);
  const pay = async () => stack.post(HAIKU, INPUT, { ...(await sign(penniless)), ...address });
  const got = await codes(pay);
  assert.deepEqual(got.slice(0, LIMIT), Array(LIMIT).fill('PAYMENT_INVALID'));
  assert.equal(got.at(-1), 'RATE_LIMITED');
  const before = verifies();
  assert.ok(before < TOO_MANY, `${before} were verified`);
  assert.equal((await pay()).status, 429);
  assert.deepEqual([verifies(), asked()], [before, 0]);
});

test('the addresses of one IPv6 network are one caller', async () => {
  let n = 0;
  const post = (network) => stack.post(HAIKU, INPUT, { 'cf-connecting-ip': `2001:db8:${network}:1::${(n += 1)}` });
  assert.equal((await codes(() => post('a'))).at(-1), 'RATE_LIMITED');
  assert.equal((await post('b')).status, 402);
});
