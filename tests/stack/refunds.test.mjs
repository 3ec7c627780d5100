// A run that was paid and never finished: the caller is told, the creator sees it, and the refund is reported to who
// takes such reports, until they have it.
import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, beforeEach, describe, test } from 'node:test';
import { cut, delta, end, open, say, shut, start, stop } from '../support/claude.mjs';
import { HAIKU, HAIKU_PRICE, INPUT, USDC, decodeReceipt, gate, readSse, sleep, sse, startStack, until } from '../support/stack.mjs';

const WHOLE = 1_000_000n;
const KEY = 'claims key of the tests';
const LIMITS = { startAttempts: 1, paidAttempts: 2 };
let stack;
let payer;
let front;
/** What reached the claims endpoint of this test's payer, and what it answers. */
let claims;
let onClaim;
const taken = () => ({ status: 200, body: { success: true, claim: { id: 'claim_1' } } });
const settledAndWaits = () => until(() => stack.facilitator.calls.some((c) => c.kind === 'settle' && c.ms !== undefined));

before(async () => {
  stack = await startStack();
  // The facilitator, with a claims endpoint beside what it has.
  front = http.createServer(async (req, res) => {
    const chunks = [];
    for await (const chunk of req) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString();
    if (req.url === '/f/claims/report-failure') {
      const claim = { at: Date.now(), method: req.method, headers: req.headers, body: JSON.parse(body) };
      // What an earlier test left unreported comes again some time.
      const ours = claim.body.userWallet.toLowerCase() === payer.address.toLowerCase();
      if (ours) claims.push(claim);
      const { status, body: answer, headers } = ours ? onClaim(claims.length) : taken();
      return res.writeHead(status, { 'content-type': 'application/json', ...headers }).end(typeof answer === 'string' ? answer : JSON.stringify(answer));
    }
    const answer = await fetch(stack.facilitator.url + req.url.replace(/^\/f/, ''), { method: req.method, headers: { 'content-type': 'application/json' }, ...(body && { body }) });
    return res.writeHead(answer.status, { 'content-type': 'application/json' }).end(await answer.text());
  });
  await new Promise((resolve) => front.listen(0, '127.0.0.1', resolve));
  await stack.restart(withClaims());
});
after(async () => {
  front?.close();
  front?.closeAllConnections();
  await stack?.close();
});
const url = () => `http://127.0.0.1:${front.address().port}/f`;
const withClaims = (more = {}) => ({ FACILITATOR_URL: url(), LIMITS: JSON.stringify(LIMITS), CLAIMS_API_KEY: KEY, ...more });
beforeEach(async () => {
  claims = [];
  onClaim = taken;
  stack.reset(() => say('Hello', ', ', 'world'));
  payer = await stack.payer();
});

const asked = () => stack.claude.requests.length;
const settles = () => stack.facilitator.count('settle');
const broken = () => [start(), open(), settledAndWaits, 60, cut];
const show = async (run) => (await fetch(`${stack.url}/runs/${run}`)).json();

/** Buys a run that Claude breaks off, after it was paid, as often as it is asked. */
async function buyBroken(headers = {}) {
  stack.claude.script = broken;
  const paid = { ...headers, ...(await stack.signPayment(HAIKU, INPUT, payer)) };
  const response = await stack.post(HAIKU, INPUT, paid);
  return { response, paid, run: response.headers.get('x-run-id') };
}

async function chargedOnce(run, status, code) {
  const row = await stack.row(run, (r) => r.status === status);
  assert.deepEqual([row.code, row.amount, row.payer], [code, String(HAIKU_PRICE), payer.address]);
  assert.equal((await stack.chain.receipt(row.tx)).status, 'success');
  assert.equal(await stack.balance(payer), WHOLE - HAIKU_PRICE);
  assert.equal(settles(), 1);
  assert.equal((await stack.rows('payer = ?', payer.address)).length, 1);
  return row;
}

describe('a paid run that Claude never finishes', () => {
  test('as a stream without a word: the error, RUN_REFUNDABLE afterwards, and one report', async () => {
    const { response, paid, run } = await buyBroken();
    assert.equal(response.status, 200);
    const { text, done, error } = await readSse(response);
    assert.deepEqual([text, done, error.charged], ['', undefined, true]);
    assert.match(error.message, /marked for refund/);
    assert.equal(/present the same payment again/.test(error.message), false, 'there is nothing to come back for');
    const row = await chargedOnce(run, 'reported', 'CLAUDE_CUT_OFF');
    assert.equal(asked(), LIMITS.paidAttempts);

    assert.equal(claims.length, 1);
    const [{ method, headers, body }] = claims;
    assert.equal(method, 'POST');
    assert.equal(headers['x-server-api-key'], KEY);
    assert.match(headers['content-type'], /^application\/json/);
    assert.equal(body.originalTxHash, row.tx);
    assert.equal(body.userWallet.toLowerCase(), payer.address.toLowerCase());
    assert.equal(body.amount, String(HAIKU_PRICE));
    assert.equal(body.asset.toLowerCase(), USDC.toLowerCase());
    assert.equal(body.network, 'base-sepolia');
    assert.equal(body.reason, 'CLAUDE_CUT_OFF');
    assert.deepEqual(Object.keys(body).sort(), ['amount', 'asset', 'network', 'originalTxHash', 'reason', 'userWallet']);

    // The same payment is told so, and Claude is left alone.
    for (const accept of ['text/event-stream', 'application/json']) {
      const again = await stack.post(HAIKU, INPUT, { ...paid, accept });
      const told = await again.text();
      assert.equal(again.status, 502, told);
      const { error: refusal } = JSON.parse(told);
      assert.deepEqual([refusal.code, refusal.charged, refusal.run, refusal.retryable], ['RUN_REFUNDABLE', true, run, false], `with accept: ${accept}`);
      assert.equal(decodeReceipt(again).transaction, row.tx, 'the receipt comes with it');
    }
    const shown = await show(run);
    assert.deepEqual([shown.status, shown.charged, shown.output], ['reported', true, null]);
    assert.equal(asked(), LIMITS.paidAttempts);
    await chargedOnce(run, 'reported', 'CLAUDE_CUT_OFF');
    assert.equal(claims.length, 1, 'reported once');
  });

  test('as a document: 502 RUN_REFUNDABLE, and one report', async () => {
    // Settled only when the whole answer is there: it breaks off afterwards only where a stream was paid first.
    const { response, paid, run } = await buyBroken();
    const document = stack.post(HAIKU, INPUT, { ...paid, accept: 'application/json' });
    await response.text();
    const answer = await document;
    const told = await answer.text();
    assert.equal(answer.status, 502, told);
    const { error } = JSON.parse(told);
    assert.deepEqual([error.code, error.charged, error.run, error.retryable], ['RUN_REFUNDABLE', true, run, false]);
    await chargedOnce(run, 'reported', 'CLAUDE_CUT_OFF');
    assert.equal(claims.length, 1);
    const shown = await show(run);
    assert.deepEqual([shown.error.code, shown.error.retryable], ['RUN_REFUNDABLE', false]);
  });

  test('as a stream with half of the text: the half is theirs, with the error, again and again', async () => {
    const seen = gate();
    stack.claude.script = (request, n) => (n === 1 ? [start(), open(), delta('half'), () => seen.opened, cut] : [start(), open(), delta('half'), 30, cut]);
    const paid = await stack.signPayment(HAIKU, INPUT, payer);
    const events = sse(await stack.post(HAIKU, INPUT, paid));
    assert.equal((await events.next()).value.content, 'half');
    seen.open();
    const { value: first } = await events.next();
    assert.deepEqual([first.type, first.charged], ['error', true]);
    await (await stack.post(HAIKU, INPUT, paid)).text(); // the second and last attempt
    const row = await chargedOnce(first.run, 'reported', 'CLAUDE_CUT_OFF');
    const { text, error, done } = await readSse(await stack.post(HAIKU, INPUT, paid));
    assert.deepEqual([text, done, error.charged], ['half', undefined, true]);
    assert.deepEqual([asked(), claims.length], [2, 1]);
    assert.equal(claims[0].body.originalTxHash, row.tx);
  });

  test('one that Claude declines is not asked again, and reported as that', async () => {
    const seen = gate();
    stack.claude.script = () => [start(), open(), delta('I would rath'), () => seen.opened, shut(), end({ stop_reason: 'refusal' }), stop];
    const events = sse(await stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, payer)));
    await events.next();
    seen.open();
    const { value: error } = await events.next();
    assert.equal(error.code, 'CLAUDE_REFUSED');
    await chargedOnce(error.run, 'reported', 'CLAUDE_REFUSED');
    assert.deepEqual(claims.map((c) => c.body.reason), ['CLAUDE_REFUSED']);
    assert.equal(asked(), 1);
  });

  test('a run that is delivered, or was never charged, is not reported', async () => {
    const good = await readSse(await stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, payer)));
    assert.ok(good.done);
    stack.claude.script = () => [start(), cut];
    await (await stack.post(HAIKU, INPUT, { accept: 'application/json', ...(await stack.signPayment(HAIKU, INPUT, payer)) })).text();
    await sleep(300);
    assert.deepEqual(claims, []);
    assert.equal(await stack.balance(payer), WHOLE - HAIKU_PRICE);
  });
});

describe('a report', () => {
  for (const [name, answer] of [['400', { status: 400, body: { success: false, error: 'A claim for this transaction ALREADY EXISTS' } }], ['409', { status: 409, body: { error: 'Claim already exists' } }]]) {
    test(`that was taken before ("already exists" with ${name}) is taken`, async () => {
      onClaim = () => answer;
      const { response, run } = await buyBroken();
      await response.text();
      await chargedOnce(run, 'reported', 'CLAUDE_CUT_OFF');
      assert.equal(claims.length, 1);
    });
  }

  const no = {
    500: { status: 500, body: 'oops' },
    401: { status: 401, body: { error: 'Invalid API key' } },
    'a 200 without success': { status: 200, body: { success: false, error: 'unknown wallet' } },
    'a 200 of another form': { status: 200, body: '<html>' },
    'a redirect': { status: 307, body: '', headers: { location: '/f/claims/report-failure' } },
    'success with 500': { status: 500, body: { success: true } },
  };
  for (const [name, answer] of Object.entries(no)) {
    test(`that is not taken leaves the run refundable: ${name}`, async () => {
      onClaim = () => answer;
      const { response, run } = await buyBroken();
      await response.text();
      await until(() => claims.length);
      await sleep(150);
      await chargedOnce(run, 'refundable', 'CLAUDE_CUT_OFF');
      assert.equal(claims.length, 1, 'not at once again, and not redirected with its key');
      assert.equal(stack.log().includes(KEY), false);
    });
  }

  test('that failed is sent again until it is taken, by the alarm alone', { timeout: 60_000 }, async () => {
    onClaim = (n) => (n === 1 ? { status: 503, body: 'later' } : taken());
    const { response, run } = await buyBroken();
    await response.text();
    await until(() => claims.length);
    await chargedOnce(run, 'refundable', 'CLAUDE_CUT_OFF');
    await until(() => claims.length === 2, { timeout: 40_000, every: 100, what: 'the second report' });
    const waited = claims[1].at - claims[0].at;
    assert.ok(waited >= 14_000 && waited <= 33_000, `after ${waited} ms`);
    assert.deepEqual(claims[1].body, claims[0].body);
    await chargedOnce(run, 'reported', 'CLAUDE_CUT_OFF');
    assert.equal((await show(run)).status, 'reported');
    assert.equal(asked(), LIMITS.paidAttempts);
  });
});

describe('the refund policy', () => {
  const policy = async (path = '/.well-known/refund-policy.json') => {
    const response = await fetch(stack.url + path);
    return { response, text: await response.text() };
  };

  test('says what the software does, to whom it is reported, and is cacheable and readable by pages', async () => {
    const { response, text } = await policy();
    assert.equal(response.status, 200);
    assert.match(response.headers.get('content-type'), /^application\/json/);
    assert.match(response.headers.get('cache-control'), /public, max-age=/);
    assert.equal(response.headers.get('access-control-allow-origin'), '*');
    const body = JSON.parse(text);
    assert.equal(body.version, 1);
    assert.equal(body.paidAndBroken.attempts, LIMITS.paidAttempts);
    assert.equal(body.paidAndBroken.reportedTo, url());
    assert.match(body.paidAndBroken.then, /RUN_REFUNDABLE/);
    assert.deepEqual(body.samePaymentSameRun.forSeconds, 86_400);
    assert.equal(body.operator, null);
    assert.equal(text.includes(KEY) || text.includes('CLAIMS_API_KEY'), false);
    assert.equal((await fetch(`${stack.url}/.well-known/refund-policy.json`, { method: 'HEAD' })).status, 200);
    assert.equal((await fetch(`${stack.url}/.well-known/refund-policy.json`, { method: 'POST' })).status, 405);
    assert.equal((await policy('/.well-known/other.json')).response.status, 404);
  });

  test('without a secret nothing is sent, the run stays refundable, and the policy promises no report', async () => {
    await stack.restart({ FACILITATOR_URL: url(), LIMITS: JSON.stringify(LIMITS), REFUND_POLICY: 'Write to us within 30 days.' });
    try {
      const { response, run } = await buyBroken();
      await response.text();
      await chargedOnce(run, 'refundable', 'CLAUDE_CUT_OFF');
      await sleep(500);
      assert.deepEqual(claims, []);
      const { text } = await policy();
      assert.equal(JSON.parse(text).paidAndBroken.reportedTo, null);
      assert.equal(JSON.parse(text).operator, 'Write to us within 30 days.');
    } finally {
      await stack.restart(withClaims());
    }
  });

  test('a config document names the secret for each facilitator, and only that one gets its key', async () => {
    await stack.setConfig({
      revision: 'claims',
      facilitators: [{ url: stack.facilitator.url }, { url: url(), claimsSecret: 'OTHER_KEY' }],
      refundPolicy: 'Ask us.',
    });
    await stack.restart(withClaims({ OTHER_KEY: 'another key' }));
    try {
      const { response, run } = await buyBroken();
      await response.text();
      await chargedOnce(run, 'reported', 'CLAUDE_CUT_OFF');
      assert.deepEqual(claims.map((c) => c.headers['x-server-api-key']), ['another key']);
      const body = JSON.parse((await policy()).text);
      assert.deepEqual([body.paidAndBroken.reportedTo, body.operator], [url(), 'Ask us.']);
    } finally {
      await stack.KV.delete('config');
      await stack.restart(withClaims());
    }
  });
});
