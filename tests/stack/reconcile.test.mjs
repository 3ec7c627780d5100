// A settlement whose answer was lost: nobody is told to pay again, nobody is given anything that was not paid, and
// what became of it is found out without anybody asking.
//
// The tests of one describe run at the same time, each with a payer and a topic of its own: they wait for alarms.
import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, beforeEach, describe, test } from 'node:test';
import { encodeFunctionData, parseAbi, parseSignature } from 'viem';
import { drop, reply } from '../../dev/facilitator.mjs';
import { delta, end, open, say, shut, start, stop } from '../support/claude.mjs';
import {
  CHAIN_ID, HAIKU, HAIKU_PRICE, NETWORK, USDC, ada, decodeHeader, decodeReceipt, gate, ledgerId, networks, readSse, sleep, startStack, until,
} from '../support/stack.mjs';

const WHOLE = 1_000_000n;
const SECRET = 'SECRET OF THE ANSWER';
const LIMITS = JSON.stringify({ settleSeconds: 3, claudeBeginSeconds: 1, settleMarginSeconds: 1 });
/** An unanswered settlement is looked into after one or two seconds. */
const SOON = { timeout: 8000, every: 50 };
let stack;
let serial = 0;
before(async () => { stack = await startStack({ vars: { LIMITS } }); });
after(() => stack?.close());

// The bank has one account: its transactions go one after the other.
let turn = Promise.resolve();
const inTurn = (work) => (turn = turn.then(work, work));

const accounts = [];
let earnedBesides = 0n; // from wallets that have paid for several runs
const plans = new Map();
const scripts = new Map();
beforeEach(() => {
  stack.claude.script = (request) => scripts.get(/topic: (topic \d+ of this file)/.exec(JSON.stringify(request.body))?.[1])?.() ?? say('SECRET', ' OF THE ', 'ANSWER');
  stack.facilitator.onSettle = (call, next) => plans.get(payerOf(call))?.(call, next);
});
const payerOf = ({ body }) => body.paymentPayload.payload.authorization.from;

/** A payer with a request of their own. `plan(call, next, n)` is what the facilitator does at their nth settle. */
async function customer({ accept = 'text/event-stream', authorization, plan } = {}) {
  const account = await inTurn(() => stack.payer());
  accounts.push(account);
  const input = { topic: `topic ${++serial} of this file` };
  const headers = { accept, ...(await stack.signPayment(HAIKU, input, account, { authorization })) };
  const signed = decodeHeader(headers['payment-signature']).payload.authorization;
  let n = 0;
  plans.set(account.address, (call, next) => plan?.(call, next, ++n));
  return {
    account, input, headers, signed,
    present: () => stack.post(HAIKU, input, headers),
    calls: (kind) => stack.facilitator.calls.filter((c) => c.kind === kind && payerOf(c) === account.address),
    asked: () => stack.claude.requests.filter((r) => JSON.stringify(r.body).includes(`${input.topic}\\n`)).length,
    balance: () => stack.balance(account),
    rows: (status) => stack.rows('payer = ? AND status = ?', account.address, status),
    spent: () => stack.chain.nonceUsed(account.address, signed.nonce),
  };
}

/** The request is answered with 503 SETTLEMENT_UNKNOWN, and not with a word of the text. */
async function unknown(response) {
  const text = await response.text();
  assert.equal(response.status, 503, text);
  assert.equal(text.includes('SECRET'), false);
  const { error } = JSON.parse(text);
  const run = response.headers.get('x-run-id');
  assert.deepEqual([error.code, error.charged, error.retryable, error.runUrl], ['SETTLEMENT_UNKNOWN', null, true, `/runs/${run}`]);
  assert.match(error.message, /Do not sign another/);
  assert.ok(Number(response.headers.get('retry-after')) > 0);
  for (const name of ['payment-required', 'payment-response', 'x-payment-response']) assert.equal(response.headers.get(name), null, name);
  return run;
}

const show = async (run) => (await fetch(`${stack.url}/runs/${run}`)).json();

/** Delivered, for one price, by one row. */
async function bought(them, run, settles) {
  await until(async () => (await them.rows('delivered')).length, { ...SOON, what: 'delivered by the alarm alone' });
  assert.equal(await them.balance(), WHOLE - HAIKU_PRICE, 'the price, once');
  assert.equal(them.asked(), 1);
  assert.equal(them.calls('settle').length, settles, 'calls of settle');
  const rows = await stack.rows('payer = ?', them.account.address);
  assert.deepEqual(rows.map((r) => [r.id, r.status, r.amount]), [[ledgerId(run), 'delivered', String(HAIKU_PRICE)]]);
  const { status, output, charged, receipt } = await show(run);
  assert.deepEqual([status, output, charged], ['delivered', SECRET, true]);
  // And the same payment has it, for nothing more.
  const response = await them.present();
  assert.equal(response.status, 200);
  const text = await response.text();
  assert.ok(text.includes('SECRET'), text);
  assert.equal(response.headers.get('x-run-id'), run);
  assert.equal(decodeReceipt(response).success, true);
  assert.equal(await them.balance(), WHOLE - HAIKU_PRICE);
  assert.equal(them.calls('settle').length, settles);
  return { row: rows[0], receipt };
}

/** Not delivered, not charged, and no word of the text, by whatever way. */
async function nothing(them, run) {
  assert.equal((await them.rows('delivered')).length, 0);
  assert.equal(await them.balance(), WHOLE);
  const answers = await Promise.all([
    them.present().then((r) => r.text()),
    fetch(`${stack.url}/runs/${run}`).then((r) => r.text()),
    fetch(`${stack.url}/runs/${run}/stream`).then((r) => r.text()),
  ]);
  for (const text of answers) assert.equal(text.includes('SECRET'), false, text);
}

// The payer's own way to make an authorization worthless.
const abi = parseAbi([
  'function cancelAuthorization(address authorizer, bytes32 nonce, uint8 v, bytes32 r, bytes32 s)',
  'function transferWithAuthorization(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, uint8 v, bytes32 r, bytes32 s)',
]);
const domain = { name: 'USDC', version: '2', chainId: CHAIN_ID, verifyingContract: USDC };
async function send(functionName, args, signature) {
  const { r, s, yParity } = parseSignature(signature);
  const [from] = await stack.chain.rpc('eth_accounts');
  const data = encodeFunctionData({ abi, functionName, args: [...args, 27 + yParity, r, s] });
  const { status } = await inTurn(async () => stack.chain.receipt(await stack.chain.rpc('eth_sendTransaction', { from, to: USDC, data })));
  assert.equal(status, 'success');
}
async function cancel({ account, signed }) {
  const types = { CancelAuthorization: [{ name: 'authorizer', type: 'address' }, { name: 'nonce', type: 'bytes32' }] };
  const message = { authorizer: account.address, nonce: signed.nonce };
  await send('cancelAuthorization', [account.address, signed.nonce], await account.signTypedData({ domain, types, primaryType: 'CancelAuthorization', message }));
}
async function payThemselves({ account, signed }) {
  const fields = [['from', 'address'], ['to', 'address'], ['value', 'uint256'], ['validAfter', 'uint256'], ['validBefore', 'uint256'], ['nonce', 'bytes32']];
  const types = { TransferWithAuthorization: fields.map(([name, type]) => ({ name, type })) };
  const message = { from: account.address, to: account.address, value: BigInt(signed.value), validAfter: BigInt(signed.validAfter), validBefore: BigInt(signed.validBefore), nonce: signed.nonce };
  const signature = await account.signTypedData({ domain, types, primaryType: 'TransferWithAuthorization', message });
  await send('transferWithAuthorization', Object.values(message), signature);
}

// What goes wrong at the first settle (every later one is done properly), and how often settle is asked then.
const troubles = {
  'lost before it is done': [() => drop, 2],
  'lost after it is done': [async (call, next) => { await next(); return drop; }, 1],
  '500 before it is done': [() => reply(500, { error: 'oops' }), 2],
  '500 after it is done': [async (call, next) => { await next(); return reply(500, 'oops'); }, 1],
  'malformed after it is done': [async (call, next) => { await next(); return reply(200, '<html>'); }, 1],
  'an answer of another form': [async (call, next) => { await next(); return { settled: true }; }, 1],
  'too late, and done by then': [async (call, next) => { const answer = await next(); await sleep(3600); return answer; }, 1],
  'too late, and refused in vain': [async () => { await sleep(3600); return { success: false, errorReason: 'insufficient_funds', transaction: '', network: NETWORK }; }, 2],
  'an answer that it is pending, after it was done': [async (call, next) => { await next(); return failure('settlement_pending'); }, 1],
};
const failure = (errorReason) => ({ success: false, errorReason, transaction: '', network: NETWORK });
// An answer that it failed is no silence: only the chain can say that it was done all the same.
const failures = {
  'said to have failed on the chain, after it was done': [async (call, next) => { await next(); return failure('invalid_transaction_state'); }, 1],
  'an unexpected error after it was done': [async (call, next) => { await next(); return failure('unexpected_settle_error'); }, 1],
  'an unexpected error before it was done': [() => failure('unexpected_settle_error'), 2],
};

async function isFoundOut(accept, trouble, settles) {
  const them = await customer({ accept, plan: (call, next, n) => (n === 1 ? trouble(call, next) : next()) });
  const run = await unknown(await them.present());
  return bought(them, run, settles);
}

describe('with a node of the chain', { concurrency: 6 }, () => {
  for (const [name, [trouble, settles]] of Object.entries({ ...troubles, ...failures })) {
    test(`${name}: 503, found out by the alarm alone, paid once, and the same payment has the text`, async () => {
      const { row, receipt } = await isFoundOut('text/event-stream', trouble, settles);
      assert.equal((await stack.chain.receipt(row.tx)).status, 'success', 'the transaction is the one on the chain');
      assert.equal(receipt.transaction, row.tx);
    });
  }
  for (const name of ['lost before it is done', 'lost after it is done']) {
    test(`a document, ${name}: the same`, () => isFoundOut('application/json', ...troubles[name]));
  }

  for (const [name, script] of [['is still writing', () => say('SECRET', ' OF THE ', 'ANSWER', { every: 60 })], ['has written it all', undefined]]) {
    test(`the ledger says that it is not known, also where Claude ${name} as the answer is lost`, async () => {
      const them = await customer({ accept: script ? 'text/event-stream' : 'application/json', plan: (call, next, n) => (n === 1 ? drop : next()) });
      if (script) scripts.set(them.input.topic, script);
      const run = await unknown(await them.present());
      const row = await until(async () => (await stack.rows('id = ?', ledgerId(run)))[0], { timeout: 900, what: 'the row' });
      assert.deepEqual([row.status, row.code, row.amount, row.tx], ['unknown', 'SETTLEMENT_UNKNOWN', '0', null]);
      await bought(them, run, 2);
    });
  }

  test('done only after we have looked and asked again: moved once all the same', async () => {
    const them = await customer({ plan: async (call, next, n) => { if (n === 1) await sleep(5500); return next(); } });
    const run = await unknown(await them.present());
    assert.equal((await readSse(await them.present())).text, SECRET); // looked for at once, and asked for again
    await bought(them, run, 2);
    await sleep(3000);
    assert.equal(await them.balance(), WHOLE - HAIKU_PRICE, 'the late one moved nothing more');
    assert.equal((await stack.rows('payer = ?', them.account.address)).length, 1);
  });

  test('never done: when the payment has expired it is refused, and nothing was charged', async () => {
    const now = Math.floor(Date.now() / 1000);
    const them = await customer({ authorization: { validBefore: String(now + 10) }, plan: () => drop });
    const run = await unknown(await them.present());
    await sleep(Math.max(0, (now + 11) * 1000 - Date.now()));
    await stack.chain.mine(); // the chain's clock is that of its last block
    const again = await them.present();
    assert.equal(again.status, 402);
    assert.equal((await again.json()).code, 'SETTLEMENT_REJECTED');
    assert.equal(decodeReceipt(again).success, false);
    await until(async () => (await them.rows('refused')).length, { what: 'refused' });
    const { status, error, charged } = await show(run);
    assert.deepEqual([status, error.code, charged], ['refused', 'SETTLEMENT_REJECTED', false]);
    await nothing(them, run);
    assert.equal(await them.spent(), false);
    assert.equal(them.asked(), 1);
  });

  const ways = { cancelled: cancel, 'spent on themselves': payThemselves };
  for (const [name, spoil] of Object.entries(ways)) {
    for (const accept of ['text/event-stream', 'application/json']) {
      test(`${name} by the payer between verify and settle: SETTLEMENT_REJECTED at once, nothing delivered (${accept})`, async () => {
        const them = await customer({ accept, plan: async (call, next) => { await spoil(them); return next(); } });
        const response = await them.present();
        const text = await response.text();
        assert.equal(response.status, 402, text);
        assert.equal(text.includes('SECRET'), false);
        assert.equal(JSON.parse(text).code, 'SETTLEMENT_REJECTED');
        assert.equal(decodeReceipt(response).success, false);
        const run = response.headers.get('x-run-id');
        assert.deepEqual([(await stack.row(run)).status, (await stack.row(run)).amount], ['refused', '0']);
        await nothing(them, run);
      });
    }

    test(`${name} by the payer, and settle's answer lost: 503, then SETTLEMENT_REJECTED, nothing delivered`, async () => {
      const them = await customer({ plan: async (call, next, n) => { if (n > 1) return next(); await spoil(them); return drop; } });
      const run = await unknown(await them.present());
      await until(async () => (await them.rows('refused')).length, { ...SOON, what: 'refused by the alarm alone' });
      const { status, error } = await show(run);
      assert.deepEqual([status, error.code], ['refused', 'SETTLEMENT_REJECTED']);
      await nothing(them, run);
    });
  }

  test('somebody else has settled it meanwhile: it is paid, and the facilitator that says "nonce used" is no refusal', async () => {
    const them = await customer({ plan: async (call, next) => { await next(); return { success: false, errorReason: 'invalid_exact_evm_nonce_already_used', transaction: '', network: NETWORK, payer: them.account.address }; } });
    const response = await them.present();
    assert.equal(response.status, 200);
    assert.equal((await readSse(response)).text, SECRET);
    assert.equal((await stack.chain.receipt(decodeReceipt(response).transaction)).status, 'success');
    assert.equal(await them.balance(), WHOLE - HAIKU_PRICE);
    assert.equal(them.calls('settle').length, 1);
  });

  test('presented again, it is looked for at once and not by the alarm', async () => {
    const them = await customer({ plan: async (call, next) => { await next(); return drop; } });
    await unknown(await them.present());
    const again = await them.present();
    assert.equal(again.status, 200);
    assert.equal((await readSse(again)).text, SECRET);
    assert.deepEqual([them.calls('settle').length, them.asked()], [1, 1]);
    assert.equal(await them.balance(), WHOLE - HAIKU_PRICE);
  });

  test('20 callers present it again at once: one look, one charge, the same text for all', async () => {
    const them = await customer({ plan: (call, next, n) => (n === 1 ? drop : next()) });
    await unknown(await them.present());
    const again = await Promise.all(Array.from({ length: 20 }, () => them.present()));
    assert.deepEqual(again.map((r) => r.status), Array(20).fill(200));
    assert.equal(new Set(await Promise.all(again.map((r) => r.text()))).size, 1);
    assert.deepEqual([them.calls('settle').length, them.asked()], [2, 1]);
    assert.equal(await them.balance(), WHOLE - HAIKU_PRICE);
  });
});

describe('without a node: what the facilitator verifies is the evidence', { concurrency: 6 }, () => {
  before(() => stack.restart({ NETWORKS: networks() }));

  for (const [name, [trouble, settles]] of Object.entries(troubles)) {
    test(`${name}: 503, found out by the alarm alone, paid once, and the same payment has the text`, () => isFoundOut('text/event-stream', trouble, settles));
  }
  test('a document, lost after it is done: the same', () => isFoundOut('application/json', ...troubles['lost after it is done']));

  test('an unexpected error after it was done says nothing: the same', () => isFoundOut('text/event-stream', failures['an unexpected error after it was done'][0], 1));

  for (const name of ['said to have failed on the chain, after it was done']) {
    test(`${name}: nobody can tell who spent it, so nothing is given away and nothing more is charged`, async () => {
      const them = await customer({ plan: (call, next, n) => (n === 1 ? failures[name][0](call, next) : next()) });
      const run = await unknown(await them.present());
      await sleep(3000);
      assert.equal(await unknown(await them.present()), run);
      assert.equal((await show(run)).status, 'unknown');
      assert.equal(await them.balance(), WHOLE - HAIKU_PRICE);
      assert.equal(them.calls('settle').length, 1);
    });
  }

  test('a caller who presents it while it is looked for waits for the answer', async () => {
    const them = await customer({ plan: (call, next, n) => (n === 1 ? drop : next()) });
    const slow = gate();
    stack.facilitator.onVerify = async (call, next) => { if (payerOf(call) === them.account.address && them.calls('verify').length > 1) await slow.opened; return next(); };
    await unknown(await them.present());
    let answered = false;
    const again = them.present().finally(() => { answered = true; });
    await until(() => them.calls('verify').length === 2);
    await sleep(400);
    assert.equal(answered, false, 'answered before anything was found out');
    slow.open();
    const response = await again;
    assert.equal(response.status, 200);
    assert.equal((await readSse(response)).text, SECRET);
    assert.equal(await them.balance(), WHOLE - HAIKU_PRICE);
    assert.deepEqual([them.calls('settle').length, them.asked()], [2, 1]);
  });

  for (const [name, spoil] of Object.entries({ cancelled: cancel, 'spent on themselves': payThemselves })) {
    test(`${name} by the payer between verify and settle: nothing is delivered, and nobody is asked to sign again`, async () => {
      const them = await customer({ plan: async (call, next) => { if (!(await them.spent())) await spoil(them); return next(); } });
      const run = await unknown(await them.present());
      await sleep(3000);
      await nothing(them, run);
      assert.equal(them.asked(), 1);
      assert.ok(them.calls('settle').length <= 2, `settle was asked ${them.calls('settle').length} times`);
    });
  }
});

describe('a node that is not to be relied on', () => {
  let node;
  let proxy;
  const selector = '0xe94a0102'; // authorizationState(address,bytes32)
  before(async () => {
    proxy = http.createServer(async (req, res) => {
      const chunks = [];
      for await (const chunk of req) chunks.push(chunk);
      const body = Buffer.concat(chunks).toString();
      node.calls += 1;
      if (node.status) return res.writeHead(node.status).end('no');
      if (node.lags && body.includes(selector)) return res.end(JSON.stringify({ jsonrpc: '2.0', id: JSON.parse(body).id, result: `0x${'0'.repeat(64)}` }));
      const call = JSON.parse(body);
      if (node.behind && call.method === 'eth_getBlockByNumber' && call.params[0] === 'latest') {
        call.params[0] = `0x${(BigInt(await stack.chain.rpc('eth_blockNumber')) - 1n).toString(16)}`;
      }
      const answer = await fetch(stack.chain.url, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(call) });
      res.writeHead(answer.status, { 'content-type': 'application/json' }).end(await answer.text());
    });
    await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
    await stack.restart({ NETWORKS: networks(`http://127.0.0.1:${proxy.address().port}`) });
  });
  after(async () => {
    await stack.restart(); // with the chain's own node
    proxy?.close();
    proxy?.closeAllConnections();
  });
  beforeEach(() => { node = { calls: 0, lags: false, status: 0 }; });

  test('one that is down: it is asked until it answers, whatever the facilitator says', async () => {
    node.status = 503;
    const them = await customer({ plan: async (call, next) => { await next(); return drop; } });
    const run = await unknown(await them.present());
    await until(() => node.calls >= 1, SOON);
    assert.equal((await them.rows('delivered')).length, 0, "a facilitator's “spent” is no evidence");
    node.status = 0;
    await until(async () => (await them.rows('delivered')).length, { timeout: 30_000, every: 100 });
    await bought(them, run, 1);
  });

  for (const [name, spoil] of Object.entries({ cancelled: cancel, 'spent on themselves': payThemselves })) {
    for (const status of [429, 500]) {
      test(`${name} by the payer while the node answers ${status}: nothing is given away`, async () => {
        node.status = status;
        const them = await customer({ plan: async () => { await spoil(them); return drop; } });
        const run = await unknown(await them.present());
        await until(() => node.calls >= 1, SOON);
        await nothing(them, run);
        node.status = 0;
        await until(async () => (await them.rows('refused')).length, { timeout: 70_000, every: 100 });
        await nothing(them, run);
      });
    }
  }

  test('one that is a block behind a facilitator that has settled and says no: the payer is not told to sign again', async () => {
    node.behind = true;
    const them = await customer({ plan: async (call, next) => { await next(); return failure('insufficient_funds'); } });
    const response = await them.present();
    assert.equal(response.status, 200, await response.clone().text());
    assert.ok((await response.text()).includes('SECRET'));
    await until(async () => (await them.rows('delivered')).length, SOON);
    assert.equal(await them.balance(), WHOLE - HAIKU_PRICE);
    assert.equal(them.calls('settle').length, 1);
  });

  test('one that is a block behind a facilitator whose no is true: 402, and nothing is charged', async () => {
    node.behind = true;
    const them = await customer({ plan: () => failure('insufficient_funds') });
    const response = await them.present();
    assert.equal(response.status, 402);
    assert.equal((await response.json()).code, 'SETTLEMENT_REJECTED');
    assert.equal(await them.balance(), WHOLE);
  });

  test('a facilitator invents a transaction: the stream does not wait, and the books do not count it', async () => {
    const invented = `0x${'12'.repeat(32)}`;
    const soon = String(Math.floor(Date.now() / 1000) + 25);
    const them = await customer({ authorization: { validBefore: soon }, plan: () => ({ success: true, transaction: invented, network: NETWORK, payer: them.account.address }) });
    const response = await them.present();
    assert.ok((await response.text()).includes('SECRET'));
    const run = response.headers.get('x-run-id');
    const row = await stack.row(run);
    assert.deepEqual([row.status, row.amount, row.tx], ['unknown', '0', null]);
    await until(async () => (await stack.row(run)).status === 'refused', { timeout: 90_000, every: 500, what: 'the chain says never' });
    const { status, amount, tx, code } = await stack.row(run);
    assert.deepEqual([status, amount, tx, code], ['refused', '0', null, 'SETTLEMENT_REJECTED']);
  });

  test('a facilitator names the wrong transaction for a payment that it has made: the books have the chain’s', async () => {
    let real;
    const them = await customer({ plan: async (call, next) => { real = await next(); return { ...real, transaction: `0x${'34'.repeat(32)}` }; } });
    const response = await them.present();
    assert.ok((await response.text()).includes('SECRET'));
    const row = await stack.row(response.headers.get('x-run-id'), (r) => r.status === 'delivered');
    assert.equal(row.tx, real.transaction);
  });

  test('one that lags behind the facilitator: nobody is asked over and over, and the run is paid once', async () => {
    node.lags = true;
    const them = await customer({ plan: async (call, next) => { if (!(await them.spent())) await next(); return { success: false, errorReason: 'invalid_exact_evm_nonce_already_used', transaction: '', network: NETWORK }; } });
    const presented = them.present();
    await until(() => them.calls('settle').length);
    await sleep(1500);
    const calls = [them.calls('settle').length, node.calls];
    node.lags = false;
    const response = await presented;
    await response.text();
    assert.ok(calls[0] <= 4, `in 1.5 s settle was asked ${calls[0]} times, the node ${calls[1]}`);
    await until(async () => (await them.rows('delivered')).length, SOON);
    assert.equal(await them.balance(), WHOLE - HAIKU_PRICE);
  });
});

describe('several runs of one wallet', () => {
  test('a settlement in doubt is found by the alarm, although another run of the wallet is read after an eviction', async () => {
    const them = await customer();
    await (await them.present()).text();
    await until(async () => (await them.rows('delivered')).length);
    // Another payment of the same wallet, of which the answer of settle is lost.
    plans.set(them.account.address, async (call, next) => { await next(); return drop; });
    const doubtful = await stack.signPayment(HAIKU, them.input, them.account);
    await unknown(await stack.post(HAIKU, them.input, doubtful));
    await stack.evict();
    // The object begins anew, and what it is asked for needs nothing for a day.
    assert.equal((await readSse(await them.present())).text, SECRET);
    await until(async () => (await them.rows('delivered')).length === 2, { ...SOON, what: 'both delivered' });
    assert.equal(await them.balance(), WHOLE - 2n * HAIKU_PRICE);
    accounts.splice(accounts.indexOf(them.account), 1); // it has paid twice
    earnedBesides += 2n * HAIKU_PRICE;
  });
});

describe('the runtime dies', () => {
  before(() => stack.restart());

  // Text that nobody has been shown is not stored before the stream is paid: Claude is asked again.
  for (const [name, isWhole] of [['while the answer is written', false], ['when the answer is whole', true]]) {
    test(`while settle is under way, ${name}: the same payment finds the settlement and has the text, for one price`, async () => {
      const done = gate();
      const them = await customer({ plan: async (call, next, n) => { const answer = await next(); if (n > 1) return answer; done.open(); await new Promise(() => {}); } });
      stack.claude.script = (request, n) => [start(), open(), delta('SECRET'), ...(isWhole || them.asked() > 1 ? [] : [() => new Promise(() => {})]), delta(' OF THE ANSWER'), shut(), end(), stop];
      await stack.restart({ LIMITS: JSON.stringify({ settleSeconds: 30 }) });
      const first = them.present().catch((error) => error);
      await done.opened;
      await sleep(200);
      await stack.restart();
      await first;
      const again = await them.present();
      assert.equal(again.status, 200);
      assert.equal((await readSse(again)).text, SECRET);
      assert.deepEqual([them.calls('settle').length, them.asked()], [1, 2]);
      assert.equal(await them.balance(), WHOLE - HAIKU_PRICE);
      await until(async () => (await them.rows('delivered')).length);
      assert.equal((await stack.rows('payer = ?', them.account.address)).length, 1);
    });
  }
});

test('nobody has paid twice, and ada has been paid for every run that was delivered', async () => {
  let moved = earnedBesides;
  for (const account of accounts) {
    const spent = WHOLE - (await stack.balance(account));
    const rows = await stack.rows('payer = ?', account.address);
    assert.ok(spent === 0n || spent === HAIKU_PRICE, `${spent} by one payment`);
    assert.equal(rows.length, 1);
    if (rows[0].status === 'delivered') assert.equal(spent, HAIKU_PRICE);
    if (rows[0].status === 'refused') assert.equal(spent, 0n);
    moved += spent;
  }
  assert.equal(await stack.balance(ada), moved);
  const delivered = await stack.rows("status = 'delivered'");
  const [{ amount }] = await stack.earnings('template_ada_haiku');
  assert.equal(BigInt(amount), HAIKU_PRICE * BigInt(delivered.length));
});
