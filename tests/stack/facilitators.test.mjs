// Several facilitators: who is asked, who is asked next, who is left alone, and what none of them can make us do.
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { drop, reply, startFacilitator } from '../../dev/facilitator.mjs';
import { say } from '../support/claude.mjs';
import {
  HAIKU, HAIKU_PRICE, INPUT, NETWORK, USDC, ada, decodeReceipt, grace, readSse, sleep, startStack, until,
} from '../support/stack.mjs';

const WHOLE = 1_000_000n;
const HASH = `0x${'ab'.repeat(32)}`;
let stack;
let payer;
let first;
let second;
const vars = () => ({ FACILITATOR_URL: ` ${first.url} , ${second.url}/ `, LIMITS: JSON.stringify({ verifySeconds: 1, settleSeconds: 1 }) });
before(async () => {
  stack = await startStack();
  first = stack.facilitator;
  second = await startFacilitator({ rpcUrl: stack.chain.url });
  await stack.restart(vars());
});
after(async () => {
  await second?.close();
  await stack?.close();
});
beforeEach(async () => {
  stack.reset(() => say('Hello', ', ', 'world'));
  second.reset();
  second.onVerify = second.onSettle = undefined;
  payer = await stack.payer();
});
/** An isolate that remembers nothing of them. */
const afresh = () => stack.restart(vars());

const asked = () => stack.claude.requests.length;
/** `[verify, settle]` of the first, then of the second. */
const calls = () => [first, second].map((f) => [f.count('verify'), f.count('settle')]);
const buy = async (headers = {}) => stack.post(HAIKU, INPUT, { ...headers, ...(await stack.signPayment(HAIKU, INPUT, payer)) });

async function delivered(response, calls = 1) {
  const { text, error } = await readSse(response);
  assert.equal(error, undefined);
  assert.equal(text, 'Hello, world');
  assert.equal((await stack.chain.receipt(decodeReceipt(response).transaction)).status, 'success');
  assert.equal(await stack.balance(payer), WHOLE - HAIKU_PRICE);
  assert.equal(asked(), calls);
  const row = await stack.row(response.headers.get('x-run-id'), (r) => r.status === 'delivered');
  assert.equal(row.amount, String(HAIKU_PRICE));
}

async function refused(response, status, code, calls = 0) {
  const text = await response.text();
  assert.equal(response.status, status, text);
  assert.equal(text.includes('Hello'), false);
  assert.equal(JSON.parse(text).code ?? JSON.parse(text).error.code, code);
  assert.equal(asked(), calls);
}

const badVerify = {
  drop: () => drop,
  500: () => reply(500, 'oops'),
  'a yes with 500': () => reply(500, { isValid: true }),
  'a yes with 402': () => reply(402, { isValid: true }),
  '429': () => reply(429, 'slow down'),
  malformed: () => reply(200, '<html>'),
  'another form': () => ({ valid: true }),
  'another payer': () => ({ isValid: true, payer: grace.address }),
  'no answer in time': async () => { await sleep(1300); return { isValid: true }; },
};

describe('verify', () => {
  test('asks the first, and nobody else where that one answers', async () => {
    await delivered(await buy());
    assert.deepEqual(calls(), [[1, 1], [0, 0]]);
  });

  for (const [name, trouble] of Object.entries(badVerify)) {
    test(`moves on to the next where one gives no usable answer, and settle stays with who verified: ${name}`, async () => {
      await afresh();
      first.onVerify = trouble;
      await delivered(await buy());
      assert.deepEqual(calls(), [[1, 0], [1, 1]]);
    });
  }

  test('a no is an answer: the next is not asked', async () => {
    first.onVerify = () => ({ isValid: false, invalidReason: 'insufficient_funds', payer: payer.address });
    await refused(await buy(), 402, 'PAYMENT_INVALID');
    assert.deepEqual(calls(), [[1, 0], [0, 0]]);
  });

  test('both down: 503, the payment is untouched, and buys the run later', async () => {
    await afresh();
    first.onVerify = second.onVerify = () => drop;
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const response = await stack.post(HAIKU, INPUT, headers);
    assert.ok(Number(response.headers.get('retry-after')) > 0);
    await refused(response, 503, 'FACILITATOR_UNAVAILABLE');
    assert.deepEqual(calls(), [[1, 0], [1, 0]]);
    assert.equal(await stack.balance(payer), WHOLE);
    first.onVerify = second.onVerify = undefined;
    await delivered(await stack.post(HAIKU, INPUT, headers));
  });
});

describe('settle', () => {
  for (const status of [401, 403, 404, 405, 429, 501]) {
    test(`moves on where nothing can have been submitted: ${status} without a settle response`, async () => {
      first.onSettle = () => reply(status, { error: 'no' });
      await delivered(await buy());
      assert.deepEqual(calls(), [[1, 1], [0, 1]]);
    });
  }

  const unsure = {
    drop: () => drop,
    'drop after it was done': async (call, next) => { await next(); return drop; },
    500: () => reply(500, 'oops'),
    502: () => reply(502, '<html>'),
    503: () => reply(503, { error: 'busy' }),
    504: () => reply(504, ''),
    400: () => reply(400, 'bad'),
    malformed: () => reply(200, '<html>'),
    'no answer in time': async () => { await sleep(1300); return drop; },
  };
  for (const [name, trouble] of Object.entries(unsure)) {
    test(`never moves on where something may have been submitted: ${name}`, async () => {
      first.onSettle = trouble;
      const headers = await stack.signPayment(HAIKU, INPUT, payer);
      await refused(await stack.post(HAIKU, INPUT, headers), 503, 'SETTLEMENT_UNKNOWN', 1);
      assert.deepEqual(calls(), [[1, 1], [0, 0]], 'the second one was asked');
      // Once it is known what became of it, the money moves, or has moved, once.
      first.onSettle = undefined;
      const again = await stack.post(HAIKU, INPUT, headers);
      await delivered(again);
      assert.equal(second.count('settle'), 0);
    });
  }

  test('a refusal is an answer: the second one is not asked', async () => {
    first.onSettle = () => ({ success: false, errorReason: 'insufficient_funds', transaction: '', network: NETWORK, payer: payer.address });
    await refused(await buy(), 402, 'SETTLEMENT_REJECTED', 1);
    assert.deepEqual(calls(), [[1, 1], [0, 0]]);
    assert.equal(await stack.balance(payer), WHOLE);
  });

  test('none of them takes it: 503, nothing moved, and the same payment buys the run later', async () => {
    first.onSettle = second.onSettle = () => reply(404, 'no');
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const response = await stack.post(HAIKU, INPUT, headers);
    const text = await response.text();
    assert.equal(response.status, 503, text);
    assert.equal(text.includes('Hello'), false);
    assert.deepEqual(calls(), [[1, 1], [0, 1]]);
    assert.equal(await stack.balance(payer), WHOLE);
    first.onSettle = second.onSettle = undefined;
    await delivered(await stack.post(HAIKU, INPUT, headers), 2); // nothing was sent: it is another run
  });
});

describe('a facilitator that lies', () => {
  const lies = {
    'success without a hash': () => ({ success: true, transaction: '', network: NETWORK }),
    'success with something that is no hash': () => ({ success: true, transaction: '0x12', network: NETWORK }),
    'success on another network': () => ({ success: true, transaction: HASH, network: 'eip155:8453' }),
    'success for another payer': () => ({ success: true, transaction: HASH, network: NETWORK, payer: grace.address }),
    'success with 500': () => reply(500, { success: true, transaction: HASH, network: NETWORK }),
    'success as a text': () => ({ success: 'true', transaction: HASH, network: NETWORK }),
  };
  for (const [name, lie] of Object.entries(lies)) {
    test(`is not believed, nor is the payer told to sign again: ${name}`, async () => {
      first.onSettle = lie;
      const headers = await stack.signPayment(HAIKU, INPUT, payer);
      const response = await stack.post(HAIKU, INPUT, headers);
      assert.equal(response.headers.get('payment-response'), null);
      await refused(response, 503, 'SETTLEMENT_UNKNOWN', 1);
      assert.equal(await stack.balance(payer), WHOLE);
      first.onSettle = undefined;
      await delivered(await stack.post(HAIKU, INPUT, headers));
      assert.equal(first.count('settle'), 2, 'the chain says that nothing has moved, so it is asked again');
    });
  }

  test('verify yes, settle no: nothing is delivered and nothing is charged', async () => {
    const poor = await stack.payer(0n);
    first.onVerify = () => ({ isValid: true, payer: poor.address });
    const response = await stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, poor));
    assert.equal(decodeReceipt(response)?.success, false);
    await refused(response, 402, 'SETTLEMENT_REJECTED', 1);
    const row = await stack.row(response.headers.get('x-run-id'));
    assert.deepEqual([row.status, row.amount, row.tx], ['refused', '0', null]);
    assert.deepEqual([await stack.balance(poor), await stack.balance(payer)], [0n, WHOLE]);
  });

  test('success told to each of two runs: each has its own payment, and its own transaction is asked for', async () => {
    let told;
    first.onSettle = async (call, next) => (told ??= await next());
    await delivered(await buy());
    const other = await stack.payer();
    const headers = await stack.signPayment(HAIKU, INPUT, other);
    const response = await stack.post(HAIKU, INPUT, headers);
    // It names the payer of the other run.
    await refused(response, 503, 'SETTLEMENT_UNKNOWN', 2);
    assert.equal(await stack.balance(other), WHOLE);
    first.onSettle = undefined;
    assert.equal((await readSse(await stack.post(HAIKU, INPUT, headers))).text, 'Hello, world');
    assert.equal(await stack.balance(other), WHOLE - HAIKU_PRICE);
  });

  test('success is asked for once, however often it would be told', async () => {
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    await delivered(await stack.post(HAIKU, INPUT, headers));
    const earned = await stack.earnings('template_ada_haiku');
    await (await stack.post(HAIKU, INPUT, headers)).text();
    assert.deepEqual(calls(), [[1, 1], [0, 0]]);
    assert.deepEqual(await stack.earnings('template_ada_haiku'), earned);
  });
});

describe('what is known of a facilitator', () => {
  test('one that failed five times in a row is left alone for a while, then asked again', async () => {
    await afresh();
    first.onVerify = () => drop;
    for (let i = 0; i < 5; i++) {
      payer = await stack.payer();
      await (await buy()).text();
    }
    assert.equal(first.count('verify'), 5);
    const opened = Date.now();
    payer = await stack.payer();
    await (await buy()).text();
    assert.equal(await stack.balance(payer), WHOLE - HAIKU_PRICE);
    assert.ok(Date.now() - opened < 2500, 'too slow to tell');
    assert.equal(first.count('verify'), 5, 'it was asked all the same');
    assert.equal(second.count('verify'), 6);
    first.onVerify = undefined;
    await sleep(Math.max(0, opened + 3200 - Date.now()));
    stack.claude.reset();
    payer = await stack.payer();
    await delivered(await buy());
    assert.deepEqual([first.count('verify'), first.count('settle'), second.count('verify')], [6, 1, 6]);
  });

  test('four failures and a success are no reason', async () => {
    await afresh();
    let n = 0;
    first.onVerify = () => (++n % 5 === 0 ? undefined : drop);
    for (let i = 0; i < 6; i++) {
      payer = await stack.payer();
      await (await buy()).text();
    }
    assert.equal(first.count('verify'), 6);
  });

  test('a "no" is no failure', async () => {
    await afresh();
    first.onVerify = () => ({ isValid: false, invalidReason: 'insufficient_funds', payer: payer.address });
    for (let i = 0; i < 6; i++) {
      payer = await stack.payer();
      assert.equal((await buy()).status, 402);
    }
    assert.deepEqual(calls(), [[6, 0], [0, 0]]);
    assert.equal(asked(), 0);
  });

  test('one whose /supported lacks the network is passed over, once that is known', async () => {
    // A third one, for a facilitator's list of what it supports is its own.
    const { createServer } = await import('node:http');
    const seen = [];
    let supported = { kinds: [{ x402Version: 2, scheme: 'exact', network: 'eip155:8453' }], extensions: [], signers: {} };
    const server = createServer((req, res) => {
      seen.push(req.url);
      req.resume();
      if (req.url === '/supported') return res.end(JSON.stringify(supported));
      res.writeHead(500).end();
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    try {
      const url = `http://127.0.0.1:${server.address().port}`;
      await stack.restart({ ...vars(), FACILITATOR_URL: `${url},${second.url}` });
      await delivered(await buy());
      await until(() => seen.includes('/supported'));
      await sleep(100);
      assert.deepEqual(seen.filter((u) => u === '/verify').length, 1, 'until it is known, it is asked');
      for (let i = 0; i < 3; i++) {
        stack.claude.reset();
        payer = await stack.payer();
        await delivered(await buy());
      }
      assert.equal(seen.filter((u) => u === '/verify').length, 1, 'it was asked about a network that it does not settle');
      assert.equal(seen.filter((u) => u === '/supported').length, 1, 'and it is not asked each time what it supports');

      // The only one there is: nobody can verify.
      await stack.restart({ ...vars(), FACILITATOR_URL: url });
      stack.claude.reset();
      payer = await stack.payer();
      for (let i = 0; i < 2; i++) {
        await refused(await buy(), 503, 'FACILITATOR_UNAVAILABLE');
        await sleep(100);
      }
      assert.equal(await stack.balance(payer), WHOLE);

      // A list that cannot be read is no reason to pass it over.
      supported = 'nonsense';
      await stack.restart({ ...vars(), FACILITATOR_URL: `${url},${second.url}` });
      const before = seen.filter((u) => u === '/verify').length;
      for (let i = 0; i < 2; i++) {
        payer = await stack.payer();
        await (await buy()).text();
        await sleep(100);
      }
      assert.equal(seen.filter((u) => u === '/verify').length, before + 2);
    } finally {
      server.close();
      server.closeAllConnections();
      await afresh();
    }
  });
});

test('what the chain says in the end: every row that claims money has its transfer, and no more has moved', async () => {
  const claims = async () => (await stack.rows()).filter((r) => r.amount !== '0');
  const held = await stack.balance(ada);
  // Of what a restart has cut off, the next alarm writes the row.
  await until(async () => HAIKU_PRICE * BigInt((await claims()).length) === held, { timeout: 45_000, every: 250, what: 'the last rows' }).catch(() => {});
  const rows = await claims();
  assert.equal(held, HAIKU_PRICE * BigInt(rows.length));
  for (const row of rows) {
    const { logs, status } = await stack.chain.receipt(row.tx);
    assert.equal(status, 'success');
    assert.ok(logs.some((log) => log.address.toLowerCase() === USDC.toLowerCase()));
  }
  assert.equal(new Set(rows.map((r) => r.tx)).size, rows.length, 'one transaction was counted twice');
});
