// What can fail around a run that no other file makes fail: payments used twice or not to be settled, payers who
// play tricks on the chain, a ledger, a store or a node that is away, clocks that differ, two regions at once. After
// each, the chain, the calls of Claude and of the facilitator, and the ledger are held against each other.
import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, beforeEach, describe, test } from 'node:test';
import { encodeFunctionData, parseAbi, parseSignature } from 'viem';
import { drop } from '../../dev/facilitator.mjs';
import { apiError, cut, delta, end, open, say, shut, start, stop } from '../support/claude.mjs';
import { transfers } from '../support/soak.mjs';
import {
  HAIKU, HAIKU_PRICE, USDC, ada, decodeHeader, decodeReceipt, gate, grace, networks, readSse, sleep, sse, startStack, until,
} from '../support/stack.mjs';

const WHOLE = 1_000_000n;
const SECRET = 'SECRET OF THE ANSWER';
const EXPLAIN = '/@grace/explain-error';
const ELSEWHERE = '0x00000000000000000000000000000000000e15e0';
const LIMITS = { verifySeconds: 10, settleSeconds: 3, claudeBeginSeconds: 2, settleMarginSeconds: 1, claudeIdleSeconds: 5, maxTimeoutSeconds: 1500 };
const NEEDED = LIMITS.claudeBeginSeconds + LIMITS.settleMarginSeconds;
const [STREAM, JSON_] = ['text/event-stream', 'application/json'];
const whole = () => say('SECRET', ' OF THE ', 'ANSWER');
const seconds = () => Math.floor(Date.now() / 1000);

let stack;
let node; // what stands between the Worker and its node of the chain
before(async () => {
  node = await startNode();
  stack = await startStack({ vars: { LIMITS: JSON.stringify(LIMITS), NETWORKS: networks(node.url) }, elsewhere: true });
});
after(() => Promise.all([stack?.close(), node?.close()]));
beforeEach(() => {
  node.answer = undefined;
  stack.claude.script = whole;
  const planned = (kind) => (call, next) => plans.get(payerOf(call))?.[kind]?.(call, next);
  stack.facilitator.onVerify = planned('verify');
  stack.facilitator.onSettle = planned('settle');
});

/** A node that passes everything on, but for what `node.answer(method, call)` answers itself: a string is the body. */
async function startNode() {
  const self = { answer: undefined, calls: 0 };
  const server = http.createServer(async (req, res) => {
    const chunks = [];
    for await (const chunk of req) chunks.push(chunk);
    const call = JSON.parse(Buffer.concat(chunks));
    self.calls += 1;
    const ours = await self.answer?.(call.method, call);
    if (ours === drop) return res.destroy();
    if (typeof ours === 'string') return res.writeHead(200, { 'content-type': 'text/html' }).end(ours);
    if (ours) return res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ jsonrpc: '2.0', id: call.id, ...ours }));
    const theirs = await fetch(stack.chain.url, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(call) });
    res.writeHead(theirs.status, { 'content-type': 'application/json' }).end(await theirs.text());
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  self.url = `http://127.0.0.1:${server.address().port}`;
  self.close = () => { server.close(); server.closeAllConnections(); };
  return self;
}

// Customers: each with a wallet and a topic of their own, by which their calls are told apart.
const payerOf = ({ body }) => body.paymentPayload.payload.authorization.from;
const plans = new Map();
let serial = 0;
let turn = Promise.resolve(); // the bank has one account: its transactions go one after the other
const inTurn = (work) => (turn = turn.then(work, work));

/** A payment that names no resource. */
const unnamed = ({ resource, ...payment }) => payment;

/** `verify` and `settle` are what the facilitator does for them, each time (dev/facilitator.mjs). */
async function customer({ path = HAIKU, field = 'topic', accept = STREAM, funds = WHOLE, authorization, verify, settle, edit } = {}) {
  const account = await inTurn(() => stack.payer(funds));
  const input = { [field]: `topic ${++serial} of this file` };
  const sign = async (overrides = authorization, where = path, what = input) => ({ accept, ...(await stack.signPayment(where, what, account, { authorization: overrides, edit })) });
  const headers = await sign();
  const them = {
    account, path, input, headers, sign, funds,
    signed: decodeHeader(headers['payment-signature']).payload.authorization,
    present: (more = {}) => stack.post(path, input, { ...headers, ...more }),
    calls: (kind) => stack.facilitator.calls.filter((c) => c.kind === kind && payerOf(c) === account.address).length,
    asked: () => stack.claude.requests.filter(({ raw }) => raw.includes(`${input[field]}\\n`)).length,
    rows: () => stack.rows('payer = ? COLLATE NOCASE', account.address),
  };
  plans.set(account.address, { verify, settle });
  return them;
}

/** An answer, read: `{ status, text, code, charged, run, tx }`; `text` is what Claude wrote. */
async function read(response) {
  const tx = decodeReceipt(response)?.transaction;
  const run = response.headers.get('x-run-id');
  const { status } = response;
  if (response.headers.get('content-type').startsWith(STREAM)) {
    const { text, done, error } = await readSse(response);
    return { status, text, done: Boolean(done), code: error?.code, charged: error?.charged, run, tx };
  }
  const body = await response.text();
  const json = JSON.parse(body);
  if (status === 200) return { status, text: json.output, done: true, run, tx };
  assert.equal(body.includes('SECRET'), false, body);
  const { code, charged } = typeof json.error === 'object' ? json.error : json;
  return { status, text: '', done: false, code, charged, run, tx };
}
const ask = async (them, more) => read(await them.present(more));

async function isServed(answer) {
  const { status, text, done, tx, code } = await answer;
  assert.deepEqual([status, text, done], [200, SECRET, true], code);
  return tx;
}
async function isRefused(answer, status, code) {
  const told = await answer;
  assert.deepEqual([told.status, told.code, told.text], [status, code, '']);
  return told;
}

/**
 * What everybody's books say of a customer: `rows` are [status, code] in their order, `spent` how many prices have
 * left their wallet. A row that says paid has its transfer on the chain, and every transfer its row.
 */
async function books(them, { asked, settles, rows, spent = 0, price = HAIKU_PRICE, to = ada, timeout = 4000 }) {
  const said = async () => (await them.rows()).map(({ status, code }) => [status, code]);
  await until(async () => JSON.stringify(await said()) === JSON.stringify(rows), { timeout, what: 'the rows' }).catch(() => {});
  assert.deepEqual(await said(), rows, 'the ledger');
  const paid = (await transfers(stack, { from: them.account.address })).filter((t) => t.to.toLowerCase() === to.address.toLowerCase());
  assert.deepEqual(paid.map(({ value }) => value), Array(spent).fill(price), 'transfers on the chain');
  const booked = (await them.rows()).filter(({ tx }) => tx !== null);
  assert.deepEqual(booked.map(({ tx, amount }) => [tx, amount]), paid.map(({ tx }) => [tx, String(price)]), 'rows with a transaction');
  assert.deepEqual([them.asked(), them.calls('settle')], [asked, settles], 'calls of Claude and of settle');
}
const DELIVERED = ['delivered', null];
const REJECTED = ['refused', 'SETTLEMENT_REJECTED'];
const nothing = { asked: 0, settles: 0, rows: [] };

// What people do on the chain themselves.
const abi = parseAbi([
  'function transfer(address to, uint256 amount)',
  'function transferWithAuthorization(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, uint8 v, bytes32 r, bytes32 s)',
]);
async function send(from, functionName, args) {
  const { rpc, receipt } = stack.chain;
  const data = encodeFunctionData({ abi, functionName, args });
  const mined = await inTurn(async () => {
    await rpc('anvil_setBalance', from, '0xde0b6b3a7640000');
    await rpc('anvil_impersonateAccount', from);
    return receipt(await rpc('eth_sendTransaction', { from, to: USDC, data }));
  });
  assert.equal(mined.status, 'success');
  return mined.transactionHash;
}
/** A payment is public once somebody has seen it: anybody may bring it to the chain. */
function frontRun({ headers }) {
  const { signature, authorization: a } = decodeHeader(headers['payment-signature']).payload;
  const { r, s, yParity } = parseSignature(signature);
  return send(ELSEWHERE, 'transferWithAuthorization', [a.from, a.to, a.value, a.validAfter, a.validBefore, a.nonce, 27 + yParity, r, s]);
}
const moveFunds = ({ account, funds }) => send(account.address, 'transfer', [ELSEWHERE, funds]);
const lost = async (call, next) => { await next(); return drop; };
/** The first time `first`, then `then`. */
const once = (first, then) => { let n = 0; return (call, next) => (n++ ? then?.(call, next) : first(call, next)); };

// Facilitators that do not look at the payment's time: the reference one wants six seconds of it.
const yes = (call) => ({ isValid: true, payer: payerOf(call) });
const over = ({ signed }) => sleep(Math.max(0, (Number(signed.validBefore) + 1) * 1000 - Date.now()));

// As a node of another chain does that has the same token at the same address.
const ofAnotherChain = (method) => ({
  eth_chainId: { result: '0x1' },
  net_version: { result: '1' },
  eth_getBlockByNumber: { result: { number: '0x10', timestamp: `0x${seconds().toString(16)}` } },
  eth_call: { result: `0x${'0'.repeat(64)}` },
  eth_getLogs: { result: [] },
  eth_getTransactionReceipt: { result: null },
})[method];

/** `work` while D1 takes no row of the ledger. */
async function withoutLedger(work) {
  await stack.DB.prepare("CREATE TRIGGER ledger_away BEFORE INSERT ON runs BEGIN SELECT RAISE(ABORT, 'away'); END").run();
  try {
    return await work();
  } finally {
    await stack.DB.prepare('DROP TRIGGER ledger_away').run();
  }
}

/** `work` while D1 lacks a table. */
async function without(table, work) {
  await stack.DB.prepare(`ALTER TABLE ${table} RENAME TO ${table}_away`).run();
  try {
    return await work();
  } finally {
    await stack.DB.prepare(`ALTER TABLE ${table}_away RENAME TO ${table}`).run();
  }
}

// First, so that the half minute until the alarm writes what is owed is spent on all the others.
const owed = {};
let owedSince;
test('the ledger is away while runs end: each caller is told what they would be told with it', async () => {
  owed.stream = await customer();
  owed.document = await customer({ accept: JSON_ });
  owed.unfunded = await customer({ settle: async (call, next) => { await moveFunds(owed.unfunded); return next(); } });
  owed.failed = await customer();
  owed.broken = await customer();
  stack.claude.script = () => [start(), open(), delta('half'), 300, cut];
  assert.equal((await ask(owed.broken)).code, 'CLAUDE_CUT_OFF');
  await until(async () => (await owed.broken.rows()).length); // a row that is to be brought up to date
  stack.claude.script = (request) => (request.raw.includes(`${owed.failed.input.topic}\\n`) ? apiError(401) : whole());
  await withoutLedger(async () => {
    await Promise.all([
      isServed(ask(owed.stream)),
      isServed(ask(owed.document)),
      isServed(ask(owed.broken)),
      isRefused(ask(owed.unfunded), 402, 'SETTLEMENT_REJECTED'),
      isRefused(ask(owed.failed), 503, 'CLAUDE_KEY_INVALID'),
    ]);
    await until(() => stack.log().split('ledger').length > 5, { what: 'five faults in the log' });
    await isServed(ask(owed.stream)); // replayed, though still not written
    await stack.kill(); // what is owed is not in memory alone
    await stack.revive();
  });
  owedSince = Date.now();
  // A run whose alarm was under way at the kill may have written its row already.
  assert.ok((await stack.rows()).length < 5, 'the ledger was away');
});

describe('one signed payment at two templates', () => {
  const explainInput = { error: 'an error of this file' };
  const other = (them, path = EXPLAIN) => stack.post(path, explainInput, them.headers).then(read);

  test("another creator's, before it has bought anything: 402, untouched, and good for its own", async () => {
    const them = await customer();
    await isRefused(other(them), 402, 'PAYMENT_MISMATCH');
    await books(them, nothing);
    await isServed(ask(them));
    await books(them, { asked: 1, settles: 1, rows: [DELIVERED], spent: 1 });
  });

  test("another creator's, while it runs and afterwards: 409, and nothing is run there", async () => {
    const more = gate();
    const them = await customer({ settle: async (call, next) => { await more.opened; return next(); } });
    const running = ask(them);
    await until(() => them.calls('settle'));
    await isRefused(other(them), 409, 'PAYMENT_REUSED');
    more.open();
    await isServed(running);
    await isRefused(other(them), 409, 'PAYMENT_REUSED');
    await books(them, { asked: 1, settles: 1, rows: [DELIVERED], spent: 1 });
  });

  test('six times at each of two creators, at the same moment: one run at its own, refusals at the other', async () => {
    const them = await customer();
    const [own, others] = await Promise.all([
      Promise.all(Array.from({ length: 6 }, () => ask(them))),
      Promise.all(Array.from({ length: 6 }, () => other(them))),
    ]);
    assert.equal(new Set(await Promise.all(own.map(isServed))).size, 1, 'one transaction');
    for (const { status, text } of others) assert.ok([402, 409].includes(status) && !text, String(status));
    await books(them, { asked: 1, settles: 1, rows: [DELIVERED], spent: 1 });
  });

  test('where both creators are paid at the same address, and the payment would do for either: one run, 409 for the other', async () => {
    const path = await stack.addTemplate('same-address', { prompt: 'same: {error}{/error}', parameters: [{ name: 'error', required: true }], creator: grace });
    await stack.DB.prepare('UPDATE creators SET wallets = ? WHERE id = ?').bind(JSON.stringify(ada.wallets), grace.id).run();
    try {
      const them = await customer({ edit: unnamed });
      const asked = stack.claude.requests.length;
      const answers = await Promise.all([ask(them), other(them, path), ask(them), other(them, path)]);
      const [mine, theirs] = [answers.filter((_, i) => i % 2 === 0), answers.filter((_, i) => i % 2)];
      const [won, lostThere] = mine[0].status === 200 ? [mine, theirs] : [theirs, mine];
      for (const answer of won) await isServed(answer);
      for (const answer of lostThere) await isRefused(answer, 409, 'PAYMENT_REUSED');
      const rows = await until(async () => { const all = await them.rows(); return all.length && all; });
      assert.deepEqual(rows.map(({ status }) => status), ['delivered']);
      assert.equal(rows[0].template_id, won === mine ? 'template_ada_haiku' : 'template_grace_same-address');
      assert.equal(await stack.balance(them.account), WHOLE - HAIKU_PRICE);
      assert.deepEqual([stack.claude.requests.length - asked, them.calls('settle')], [1, 1]);
    } finally {
      await stack.DB.prepare('UPDATE creators SET wallets = ? WHERE id = ?').bind(JSON.stringify(grace.wallets), grace.id).run();
    }
  });

  test('two payments that the payer signed with one nonce, to two creators at the same moment: one is settled, one run, 409 or 402 for the other', async () => {
    const them = await customer();
    const twin = await them.sign({ nonce: them.signed.nonce }, EXPLAIN, explainInput);
    const asked = stack.claude.requests.length;
    const answers = await Promise.all([ask(them), stack.post(EXPLAIN, explainInput, twin).then(read)]);
    const served = answers.filter(({ status }) => status === 200);
    assert.equal(served.length, 1, answers.map(({ status, code }) => `${status} ${code}`).join());
    await isServed(served[0]);
    const [no] = answers.filter(({ status }) => status !== 200);
    assert.ok([402, 409].includes(no.status) && !no.text);
    const rows = await until(async () => { const all = await them.rows(); return all.length && all; });
    assert.deepEqual(rows.map(({ status, tx }) => [status, tx]), [['delivered', served[0].tx]]);
    assert.equal(await stack.balance(them.account), WHOLE - HAIKU_PRICE);
    assert.deepEqual([stack.claude.requests.length - asked, them.calls('settle')], [1, 1]);
  });
});

describe('a payment whose time is short', { concurrency: 4 }, () => {
  test('one second less than beginning and settling may take: 402 before anybody is asked; enough of it: served', async () => {
    const them = await customer();
    const short = await them.sign({ validBefore: String(seconds() + NEEDED) });
    await isRefused(ask(them, short), 402, 'PAYMENT_EXPIRED');
    await books(them, nothing);
    assert.equal(them.calls('verify'), 0);
    const enough = await them.sign({ validBefore: String(seconds() + NEEDED + 5) });
    await isServed(ask(them, enough));
    await books(them, { asked: 1, settles: 1, rows: [DELIVERED], spent: 1 });
  });

  test('not valid yet: 402 before anybody is asked, and good from then on', async () => {
    const them = await customer({ authorization: { validAfter: String(seconds() + 3) } });
    await isRefused(ask(them), 402, 'PAYMENT_NOT_YET_VALID');
    await books(them, nothing);
    assert.equal(them.calls('verify'), 0);
    await sleep(Math.max(0, (Number(them.signed.validAfter) + 1) * 1000 - Date.now()));
    await stack.chain.mine(); // the chain's clock is that of its last block
    await isServed(ask(them));
    await books(them, { asked: 1, settles: 1, rows: [DELIVERED], spent: 1 });
  });

  test('a document that would not be whole before the payment is over: 504, Claude is stopped in time, nothing is charged', async () => {
    const them = await customer({ accept: JSON_, authorization: { validBefore: String(seconds() + NEEDED + 2) }, verify: yes });
    stack.claude.script = (request) => (request.raw.includes(`${them.input.topic}\\n`) ? [start(), open(), ...Array.from({ length: 40 }, () => [250, delta('SECRET ')]).flat(), shut(), end(), stop] : whole());
    await isRefused(ask(them), 504, 'PAYMENT_WINDOW_OVER');
    assert.ok(Date.now() < (Number(them.signed.validBefore) + 1) * 1000, 'told before the payment was over');
    await books(them, { asked: 1, settles: 0, rows: [['failed', 'PAYMENT_WINDOW_OVER']] });
    await isRefused(ask(them), 402, 'PAYMENT_EXPIRED');
  });

  test('a facilitator that verifies until the payment is over: refused, nothing is charged', async () => {
    const them = await customer({ verify: async (call) => { await sleep(5000); return yes(call); }, authorization: { validBefore: String(seconds() + NEEDED + 2) } });
    const told = await ask(them);
    assert.ok([402, 504].includes(told.status) && !told.text, `${told.status} ${told.code}`);
    assert.equal(await stack.balance(them.account), WHOLE);
    assert.ok(them.asked() <= 1 && them.calls('settle') === 0);
    assert.equal((await them.rows()).some(({ tx }) => tx !== null), false);
  });
});

describe('a wallet', { concurrency: 4 }, () => {
  test('that lacks one millionth: 402, Claude is not asked; with it, the same payment buys the run', async () => {
    const them = await customer({ funds: HAIKU_PRICE - 1n });
    await isRefused(ask(them), 402, 'PAYMENT_INVALID');
    await books(them, nothing);
    await inTurn(() => stack.chain.mint(them.account.address, 1n));
    await isServed(ask(them));
    await books(them, { asked: 1, settles: 1, rows: [DELIVERED], spent: 1 });
  });

  for (const accept of [STREAM, JSON_]) {
    test(`emptied between verify and settle: 402, not a word, nothing charged; filled again, the same payment buys the run (${accept})`, async () => {
      const them = await customer({ accept, settle: once(async (call, next) => { await moveFunds(them); return next(); }) });
      await isRefused(ask(them), 402, 'SETTLEMENT_REJECTED');
      await books(them, { asked: 1, settles: 1, rows: [REJECTED] });
      await inTurn(() => stack.chain.mint(them.account.address, HAIKU_PRICE));
      await isServed(ask(them));
      await books(them, { asked: 2, settles: 2, rows: [REJECTED, DELIVERED], spent: 1 });
      assert.equal(await stack.balance(them.account), 0n);
    });

    test(`that can pay one of two runs, both verified: one is served, 402 and not a word for the other (${accept})`, async () => {
      const both = gate();
      const wait = async (call, next) => { if (them.calls('settle') === 2) both.open(); await both.opened; return next(); };
      const them = await customer({ accept, funds: HAIKU_PRICE, settle: wait });
      const second = await them.sign();
      const answers = await Promise.all([ask(them), ask(them, second)]);
      const [yes, no] = answers[0].status === 200 ? answers : answers.reverse();
      await isServed(yes);
      await isRefused(no, 402, 'SETTLEMENT_REJECTED');
      await until(async () => (await them.rows()).length === 2);
      const rows = await them.rows();
      assert.deepEqual(rows.map(({ status, tx }) => [status, tx]).sort(), [['delivered', yes.tx], ['refused', null]]);
      assert.deepEqual([them.asked(), them.calls('settle'), await stack.balance(them.account)], [2, 2, 0n]);
    });
  }
});

describe('a payment that somebody else brings to the chain', { concurrency: 4 }, () => {
  for (const accept of [STREAM, JSON_]) {
    test(`between verify and settle: ada has the money, so the caller has the run, by that transaction (${accept})`, async () => {
      let theirs;
      const them = await customer({ accept, settle: async (call, next) => { theirs = await frontRun(them); return next(); } });
      assert.equal(await isServed(ask(them)), theirs);
      await books(them, { asked: 1, settles: 1, rows: [DELIVERED], spent: 1 });
      assert.equal(await isServed(ask(them)), theirs);
      await books(them, { asked: 1, settles: 1, rows: [DELIVERED], spent: 1 });
    });
  }

  test('and settle is not answered: 503, then the run, by that transaction', async () => {
    let theirs;
    const them = await customer({ settle: async () => { theirs = await frontRun(them); return drop; } });
    await isRefused(ask(them), 503, 'SETTLEMENT_UNKNOWN');
    assert.equal(await isServed(ask(them)), theirs);
    await books(them, { asked: 1, settles: 1, rows: [DELIVERED], spent: 1 });
  });

  test('after settle was not answered and nothing had been done: found, and not paid again', async () => {
    const them = await customer({ settle: () => drop });
    await isRefused(ask(them), 503, 'SETTLEMENT_UNKNOWN');
    const theirs = await frontRun(them);
    assert.equal(await isServed(ask(them)), theirs);
    assert.ok(them.calls('settle') <= 2);
    await books(them, { asked: 1, settles: them.calls('settle'), rows: [DELIVERED], spent: 1 });
  });
});

describe('a node of the chain', () => {
  const mute = () => 'nobody is here';
  const unwell = {
    'breaks the connection': () => drop,
    'answers with a page': mute,
    'answers with errors': () => ({ error: { code: -32005, message: 'limit exceeded' } }),
    'answers with nulls': () => ({ result: null }),
    'answers with numbers out of range': () => ({ result: `0x${'f'.repeat(80)}` }),
    'refuses to look through blocks': (method) => (method === 'eth_getLogs' ? { error: { code: -32000, message: 'range' } } : undefined),
    'is of another chain with the same token': (...call) => ofAnotherChain(...call),
    'is of a chain without the token': (method) => (method === 'eth_call' ? { result: '0x' } : undefined),
  };
  for (const [name, answer] of Object.entries(unwell)) {
    test(`that ${name}: it is asked again until it answers, and nothing is paid twice`, async () => {
      node.answer = answer;
      const them = await customer({ settle: lost });
      for (let i = 0; i < 2; i++) await isRefused(ask(them), 503, 'SETTLEMENT_UNKNOWN');
      node.answer = undefined;
      await isServed(ask(them));
      await books(them, { asked: 1, settles: 1, rows: [DELIVERED], spent: 1 });
    });
  }

  test('that is away together with the facilitator: 503 for as long, and found out once it is back', async () => {
    const them = await customer({ settle: lost, verify: once((call, next) => next(), () => drop) });
    node.answer = () => drop;
    for (let i = 0; i < 3; i++) await isRefused(ask(them), 503, 'SETTLEMENT_UNKNOWN');
    const rows = await until(async () => { const all = await them.rows(); return all.length && all; });
    assert.deepEqual(rows.map(({ status, tx }) => [status, tx]), [['unknown', null]]);
    assert.equal(await stack.balance(them.account), WHOLE - HAIKU_PRICE);
    node.answer = undefined;
    await isServed(ask(them));
    await books(them, { asked: 1, settles: 1, rows: [DELIVERED], spent: 1 });
  });

});

describe('D1', () => {
  test('fails before there is a payment to look at: 500 to everybody, nothing is verified or charged, and the payment is good afterwards', async () => {
    const them = await customer();
    await without('templates', async () => {
      await isRefused(ask(them), 500, 'INTERNAL');
      assert.equal((await stack.post(HAIKU, them.input)).status, 500, 'no terms either');
    });
    await books(them, nothing);
    assert.equal(them.calls('verify'), 0);
    await isServed(ask(them));
    await books(them, { asked: 1, settles: 1, rows: [DELIVERED], spent: 1 });
  });

  test('fails in the middle of a run: nobody notices', async () => {
    const more = gate();
    const them = await customer({ settle: async (call, next) => { await more.opened; return next(); } });
    const running = ask(them);
    await until(() => them.calls('settle'));
    await without('templates', async () => {
      more.open();
      await isServed(running);
    });
    assert.equal(await stack.balance(them.account), WHOLE - HAIKU_PRICE);
    assert.deepEqual([them.asked(), them.calls('settle')], [1, 1]);
  });
});

describe('KV', () => {
  const name = `claude-key/${ada.id}`;
  test('holds what is no key: 500, nothing is verified or charged, and the payment is good once it is mended', async () => {
    const them = await customer();
    const good = await stack.KV.get(name);
    for (const spoiled of ['no JSON', '{"envelope":7}']) {
      await stack.KV.put(name, spoiled);
      await isRefused(ask(them), 500, 'INTERNAL');
    }
    await books(them, nothing);
    assert.equal(them.calls('verify'), 0);
    await stack.KV.put(name, good);
    await isServed(ask(them));
    await books(them, { asked: 1, settles: 1, rows: [DELIVERED], spent: 1 });
  });

  test("loses the key after the answer broke off in sight of the caller: who asks again waits, and has it all once the key is back, for no more money", async () => {
    const more = gate();
    const them = await customer();
    stack.claude.script = (request) => (them.asked() > 1 ? whole() : [start(), open(), delta('half'), () => more.opened, cut]);
    const good = await stack.KV.get(name);
    const events = sse(await them.present());
    assert.equal((await events.next()).value.content, 'half');
    await stack.KV.delete(name);
    more.open();
    assert.deepEqual([(await events.next()).value].map(({ code, charged }) => [code, charged]), [['CLAUDE_CUT_OFF', true]]);
    const again = ask(them);
    await sleep(500);
    assert.equal(them.asked(), 1, 'asked without a key');
    await stack.KV.put(name, good);
    await isServed(again);
    await books(them, { asked: 2, settles: 1, rows: [DELIVERED], spent: 1 });
  });

  test('has lost the key for good: the paid run is given up for refund, and never charged again', async () => {
    const them = await customer();
    const more = gate();
    stack.claude.script = () => [start(), open(), delta('half'), () => more.opened, cut];
    const good = await stack.KV.get(name);
    const events = sse(await them.present());
    await events.next();
    await stack.KV.delete(name);
    more.open();
    await events.next();
    try {
      let told;
      for (let i = 0; i < 6; i++) {
        told = await ask(them);
        assert.ok(told.charged && told.status !== 402, `${told.status} ${told.code}`);
        if (told.code === 'RUN_REFUNDABLE') break;
      }
      assert.equal(told.code, 'RUN_REFUNDABLE');
    } finally {
      await stack.KV.put(name, good);
    }
    await isRefused(ask(them), 502, 'RUN_REFUNDABLE');
    await books(them, { asked: 1, settles: 1, rows: [['refundable', 'CLAUDE_KEY_INVALID']], spent: 1 });
  });

  test('is no binding of the Worker: nothing is sold, nothing is verified or charged, and the payment is good with it', async () => {
    const them = await customer();
    await stack.restart({}, { without: ['KV'] });
    try {
      assert.equal((await stack.post(HAIKU, them.input)).status, 500);
      await isRefused(ask(them), 500, 'INTERNAL');
      assert.equal(them.calls('verify'), 0);
    } finally {
      await stack.restart();
    }
    await books(them, nothing);
    await isServed(ask(them));
    await books(them, { asked: 1, settles: 1, rows: [DELIVERED], spent: 1 });
  });
});

describe('two regions', () => {
  const places = (i) => (i % 2 ? stack.elsewhere : stack.url);
  const post = (i, them, headers = them.headers) =>
    fetch(`${places(i)}${them.path}`, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(them.input) });

  for (const accept of [STREAM, JSON_]) {
    test(`20 identical paid requests over both at once: one call of Claude, one settlement, 20 identical answers (${accept})`, async () => {
      const them = await customer({ accept });
      stack.claude.script = () => say('SECRET', ' OF THE ', 'ANSWER', { every: 30 });
      const responses = await Promise.all(Array.from({ length: 20 }, (_, i) => post(i, them)));
      assert.deepEqual(responses.map((r) => r.status), Array(20).fill(200));
      assert.equal(new Set(responses.map((r) => r.headers.get('x-run-id'))).size, 1);
      assert.equal(new Set(responses.map((r) => decodeReceipt(r).transaction)).size, 1);
      const bodies = await Promise.all(responses.map((r) => r.text()));
      assert.equal(new Set(bodies).size, 1);
      assert.ok(bodies[0].includes('SECRET'));
      await books(them, { asked: 1, settles: 1, rows: [DELIVERED], spent: 1 });
      await isServed(post(1, them).then(read));
      await books(them, { asked: 1, settles: 1, rows: [DELIVERED], spent: 1 });
    });
  }

  test('12 payments with one Idempotency-Key over both at once: one run, one charge, the same text for all', async () => {
    // The two have different ports here, so a payment for the one would not begin a run at the other.
    const them = await customer({ edit: unnamed });
    const payments = await Promise.all(Array.from({ length: 12 }, () => them.sign()));
    const key = { 'idempotency-key': 'one key for twelve' };
    const answers = await Promise.all(payments.map((headers, i) => post(i, them, { ...headers, ...key }).then(read)));
    assert.equal(new Set(await Promise.all(answers.map(isServed))).size, 1, 'one transaction');
    assert.equal(new Set(answers.map(({ run }) => run)).size, 1, 'one run');
    await books(them, { asked: 1, settles: 1, rows: [DELIVERED], spent: 1 });
  });

  test('a payment in doubt is asked about in both: one look is enough, one charge, the same text', async () => {
    const them = await customer({ settle: once(() => drop) });
    await isRefused(post(0, them).then(read), 503, 'SETTLEMENT_UNKNOWN');
    const again = await Promise.all(Array.from({ length: 8 }, (_, i) => post(i, them).then(read)));
    assert.equal(new Set(await Promise.all(again.map(isServed))).size, 1);
    await books(them, { asked: 1, settles: 2, rows: [DELIVERED], spent: 1 });
  });
});

describe('the runtime is killed', () => {
  const never = () => new Promise(() => {});
  const half = [start(), open(), delta('SECRET')];
  const isDone = (them) => until(() => stack.chain.nonceUsed(them.account.address, them.signed.nonce));
  // When, what happens until then, how the caller asked, and what is in the books at last: calls of Claude and of settle,
  // rows. Of a run that nothing was paid for, nothing is left: the same payment begins anew.
  const phases = [
    ['while it is verified', { verify: once(never) }, STREAM, (them) => until(() => them.calls('verify')), [1, 1, [DELIVERED]]],
    ['before Claude has begun', { claude: [never] }, STREAM, (them) => until(them.asked), [2, 1, [DELIVERED]]],
    ['while an unpaid answer is written', { claude: [...half, never] }, JSON_, (them) => until(() => sent(them) === 3), [2, 1, [DELIVERED]]],
    ['while settle has done nothing yet', { settle: once(never) }, JSON_, (them) => until(() => them.calls('settle')), [1, 2, [DELIVERED]]],
    ['when settle has done it and not said so', { settle: once(async (call, next) => { await next(); return never(); }) }, JSON_, isDone, [1, 1, [DELIVERED]]],
    ['while a paid answer is written', { claude: [...half, never] }, STREAM, async (them, first) => (await sse(await first).next()).value.content, [2, 1, [DELIVERED]]],
    ['when all has been said', {}, STREAM, async (them, first) => (await first).text(), [1, 1, [DELIVERED]]],
  ];
  const sent = (them) => stack.claude.requests.find(({ raw }) => raw?.includes(`${them.input.topic}\\n`))?.sent;
  for (const [name, { verify, settle, claude }, accept, moment, [asked, settles, rows]] of phases) {
    test(`${name}: the same payment has the run, charged once (${accept})`, async () => {
      const them = await customer({ accept, verify, settle });
      stack.claude.script = () => (claude && them.asked() === 1 ? claude : whole());
      const first = them.present();
      first.catch(() => {});
      await moment(them, first);
      await stack.kill();
      await stack.revive();
      await isServed(ask(them));
      // A row that was being written is written by the next alarm.
      await books(them, { asked, settles, rows, spent: 1, timeout: 45_000 });
    });
  }
});

// Near the end: the chain's clock goes back and forth.
describe("the chain's clock", () => {
  const TEN = 600;
  const turnClock = async (by) => {
    await stack.chain.rpc('evm_setTime', seconds() + by);
    await stack.chain.mine();
    const { timestamp } = await stack.chain.client.getBlock();
    assert.ok(Math.abs(Number(timestamp) - seconds() - by) < 5, `the chain is ${Number(timestamp) - seconds()} s ahead`);
  };
  after(() => turnClock(0));

  for (const [name, by, authorization] of [
    ['ten minutes ahead, by which the payment is over', TEN, { validBefore: 300 }],
    ['ten minutes behind, by which the payment is not valid yet', -TEN, { validAfter: -60 }],
  ]) {
    const signedWith = () => Object.fromEntries(Object.entries(authorization).map(([field, from]) => [field, String(seconds() + from)]));
    test(`${name}: 402, Claude is not asked, nothing is charged`, async () => {
      await turnClock(by);
      const them = await customer({ authorization: signedWith() });
      await isRefused(ask(them), 402, 'PAYMENT_INVALID');
      await books(them, nothing);
    });

    for (const accept of [STREAM, JSON_]) {
      test(`${name}, and verify does not notice: settle is refused, not a word, nothing charged (${accept})`, async () => {
        await turnClock(by);
        const them = await customer({ accept, authorization: signedWith(), verify: yes });
        await isRefused(ask(them), 402, 'SETTLEMENT_REJECTED');
        await books(them, { asked: 1, settles: 1, rows: [REJECTED] });
      });
    }
  }

  for (const [name, by, authorization] of [
    ['ahead', TEN, () => ({ validBefore: String(seconds() + 2 * TEN) })],
    ['behind', -TEN, () => ({ validAfter: String(seconds() - 2 * TEN) })],
  ]) {
    test(`ten minutes ${name}, and a payment that both clocks allow: served; its settlement in doubt: found, and charged once`, async () => {
      await turnClock(by);
      const them = await customer({ authorization: authorization() });
      await isServed(ask(them));
      await books(them, { asked: 1, settles: 1, rows: [DELIVERED], spent: 1 });
      for (const settle of [lost, once(() => drop)]) {
        const doubtful = await customer({ authorization: authorization(), settle });
        await isRefused(ask(doubtful), 503, 'SETTLEMENT_UNKNOWN');
        await isServed(ask(doubtful));
        await books(doubtful, { asked: 1, settles: settle === lost ? 1 : 2, rows: [DELIVERED], spent: 1 });
      }
    });
  }

  test('leaps ten minutes ahead after a settlement that was lost before it was done: refused at once, for the chain takes it no more', async () => {
    await turnClock(0);
    const them = await customer({ authorization: { validBefore: String(seconds() + 300) }, settle: async () => { await turnClock(TEN); return drop; } });
    await isRefused(ask(them), 503, 'SETTLEMENT_UNKNOWN');
    await isRefused(ask(them), 402, 'SETTLEMENT_REJECTED');
    await books(them, { asked: 1, settles: 1, rows: [REJECTED] });
  });

  test('ten minutes behind when the Worker thinks that the payment in doubt is over: 503 as long as the chain may take it, then refused', async () => {
    await turnClock(-TEN);
    const times = { validAfter: String(seconds() - 2 * TEN), validBefore: String(seconds() + NEEDED + 2) };
    const them = await customer({ authorization: times, verify: yes, settle: () => drop });
    await isRefused(ask(them), 503, 'SETTLEMENT_UNKNOWN');
    await over(them);
    await isRefused(ask(them), 503, 'SETTLEMENT_UNKNOWN');
    await turnClock(0);
    await isRefused(ask(them), 402, 'SETTLEMENT_REJECTED');
    await books(them, { asked: 1, settles: them.calls('settle'), rows: [REJECTED] });
  });
});

describe('in the end', () => {
  test('what the ledger was owed is there, by the alarm alone', async () => {
    const all = Object.values(owed);
    const timeout = Math.max(2000, owedSince + 120_000 - Date.now());
    await until(async () => (await Promise.all(all.map((one) => one.rows()))).every((rows) => rows.length && rows[0].status !== 'interrupted'), { timeout, every: 250, what: 'the rows' });
    await books(owed.stream, { asked: 1, settles: 1, rows: [DELIVERED], spent: 1 });
    await books(owed.document, { asked: 1, settles: 1, rows: [DELIVERED], spent: 1 });
    await books(owed.broken, { asked: 2, settles: 1, rows: [DELIVERED], spent: 1 });
    await books(owed.unfunded, { asked: 1, settles: 1, rows: [REJECTED] });
    await books(owed.failed, { asked: 1, settles: 0, rows: [['failed', 'CLAUDE_KEY_INVALID']] });
  });

  test('the counters are those of the rows, the earnings those of the chain', async () => {
    const rows = await stack.rows("template_id = 'template_ada_haiku'");
    const of = (field) => rows.reduce((all, row) => all + row[field], 0);
    const { runs, delivered, input_tokens, output_tokens } = await stack.template('template_ada_haiku');
    assert.deepEqual(
      { runs, delivered, input_tokens, output_tokens },
      { runs: rows.length, delivered: rows.filter(({ status }) => status === 'delivered').length, input_tokens: of('input_tokens'), output_tokens: of('output_tokens') },
    );
    const earned = (await stack.DB.prepare('SELECT sum(amount) AS all_of_it FROM earnings').first()).all_of_it;
    assert.equal(BigInt(earned), (await stack.balance(ada)) + (await stack.balance(grace)));
  });
});

// After the books are closed: here the chain knows of more than the ledger.
test('a node of another chain, asked when the payment is over: it has nothing to say of a payment that was charged', async () => {
  const them = await customer({ verify: yes, settle: async () => { await frontRun(them); return drop; }, authorization: { validBefore: String(seconds() + NEEDED + 2) } });
  node.answer = ofAnotherChain;
  await isRefused(ask(them), 503, 'SETTLEMENT_UNKNOWN');
  await over(them);
  const told = await ask(them);
  node.answer = undefined;
  assert.notEqual(told.code, 'SETTLEMENT_REJECTED', 'told that nothing was charged, and to sign again');
  await isServed(ask(them));
  await books(them, { asked: 1, settles: them.calls('settle'), rows: [DELIVERED], spent: 1 });
});

test('a facilitator that settles and says "insufficient funds": with a node to ask, nobody is told to sign again for what is paid', async () => {
  const them = await customer({ settle: once(async (call, next) => { const { network, payer } = await next(); return { success: false, errorReason: 'insufficient_funds', transaction: '', network, payer }; }) });
  const told = await ask(them);
  assert.notEqual(told.status, 402, `${told.code}, and ada has the money`);
  await isServed(ask(them));
  await books(them, { asked: 1, settles: 1, rows: [DELIVERED], spent: 1 });
});

test('a payment that somebody else brings to the chain before Claude fails: not told to pay again for what ada has', async () => {
  const them = await customer();
  stack.claude.script = async () => { if (them.asked() > 1) return whole(); await frontRun(them); return apiError(401); };
  await isRefused(ask(them), 503, 'CLAUDE_KEY_INVALID');
  await isRefused(ask(them), 409, 'PAYMENT_REUSED');
  assert.deepEqual([them.asked(), them.calls('settle')], [1, 0]);
});
