// Many runs at once, each with one fault by chance: in the facilitator, in the chain's node, in Claude, or in how its
// caller behaves. Three
// of them at a time are of one wallet. Whatever happens, the chain and the ledger agree, and who paid has the text or is
// owed a refund.
//   RUNS=1000               how many
//   SEED=1a2b3c4d           the same faults as another time
//   ONLY=17                 one run of them, alone
//   EXCLUDE=a,b             without these faults
//   REST=45                 how many seconds the Worker has for finishing by itself
import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, test } from 'node:test';
import { encodeFunctionData, parseAbi } from 'viem';
import { drop, reply } from '../../dev/facilitator.mjs';
import { apiError, cut, end, errorEvent, hang, head, open, shut, start, stop } from '../support/claude.mjs';
import { booksOf, chance, comeBack, inLanes, intention, isWhole, kindsOf, present, rest, retold, seed, sum, transfers, wallets, write } from '../support/soak.mjs';
import { HAIKU, HAIKU_PRICE, NETWORK, USDC, ada, networks, sleep, sse, startStack } from '../support/stack.mjs';

const RUNS = Number(process.env.RUNS ?? 60);
const ONLY = process.env.ONLY === undefined ? undefined : Number(process.env.ONLY);
const LANES = 3; // wallets at a time
const OF_ONE_WALLET = 3; // runs that live at the same time
const VISIT_SECONDS = 25; // how long a caller comes back
const REST_SECONDS = Number(process.env.REST ?? 120);
const LIMITS = { verifySeconds: 2, settleSeconds: 2, claudeBeginSeconds: 3, claudeIdleSeconds: 2, maxTimeoutSeconds: 60 };
const ELSEWHERE = '0x00000000000000000000000000000000000e15e0';
const FUNDS = 2n * BigInt(OF_ONE_WALLET) * HAIKU_PRICE;

let stack;
let node;
const ours = new Map(); // runs by index and by nonce

/** The chain's node as the Worker sees it: it fails the first calls about a run's nonce as often as the run's fault says. */
async function startNode() {
  const server = http.createServer(async (req, res) => {
    const chunks = [];
    for await (const chunk of req) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString();
    const [, nonce] = /"eth_call".*"data":"0x[0-9a-f]{72}([0-9a-f]{64})"/.exec(body) ?? [];
    const status = ours.get(`0x${nonce}`)?.node.shift();
    if (status) return res.writeHead(status).end('no');
    const answer = await fetch(stack.chain.url, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
    res.writeHead(answer.status, { 'content-type': 'application/json' }).end(await answer.text());
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

before(async () => {
  node = await startNode();
  stack = await startStack({ vars: { LIMITS: JSON.stringify(LIMITS), NETWORKS: networks(`http://127.0.0.1:${node.address().port}`) } });
  stack.claude.script = (request) => ours.get(Number(/topic \S+-(\d+)\./.exec(request.raw)[1])).claude();
  const step = (list) => (call, next) => list(ours.get(call.body.paymentPayload.payload.authorization.nonce)).shift()?.(call, next);
  stack.facilitator.onVerify = step((run) => run.verify);
  stack.facilitator.onSettle = step((run) => run.settle);
});
after(async () => {
  await stack?.close();
  node?.closeAllConnections();
  node?.close();
});

// What a facilitator does once: as interceptors (dev/facilitator.mjs), one for each call.
const done = (answer) => async (call, next) => { const real = await next(); return answer(real); };
const lies = (real) => ({ ...real, success: false, errorReason: 'unexpected_settle_error', transaction: '' });
const refusesFunds = (real) => ({ ...real, success: false, errorReason: 'insufficient_funds', transaction: '' });
const oddly = (real) => ({ ...real, invalidReason: real.isValid ? null : real.invalidReason, errorReason: real.success ? 7 : real.errorReason, extra: [null] });
const invents = (run) => () => ({ success: true, transaction: `0x${'ab'.repeat(32)}`, network: NETWORK, payer: run.payer.address });
const idempotent = () => {
  let first;
  return [done((real) => { first = real; return drop; }), () => first];
};
async function emptyTheWallet(run) {
  const { rpc } = stack.chain;
  const transfer = parseAbi(['function transfer(address to, uint256 amount)']);
  const data = encodeFunctionData({ abi: transfer, args: [ELSEWHERE, FUNDS] });
  await rpc('anvil_setBalance', run.payer.address, '0xde0b6b3a7640000');
  await rpc('anvil_impersonateAccount', run.payer.address);
  await stack.chain.receipt(await rpc('eth_sendTransaction', { from: run.payer.address, to: USDC, data }));
}

// What Claude does the first time: of the steps of a whole answer, or something else.
const textAt = (steps) => steps.findIndex((step) => step.type === 'content_block_delta');
const upTo = (run, steps, pieces) => steps.slice(0, textAt(steps) + pieces * (run.every ? 2 : 1));
const broken = (...ending) => (run, steps) => [...upTo(run, steps, run.by.between(1, run.count - 1)), run.by.pick([0, 400]), ...ending];
const raw = (text) => Buffer.from(`${text}\n\n`);
const ASIDES = [
  raw('event: ping\ndata:'), raw('event: keepalive\ndata: []'), raw('data: still alive'), raw('data: {"type": null}'),
  { type: 'tomorrow', delta: null }, { type: 'message_delta', delta: null, usage: null }, { type: 'message_delta', delta: {}, usage: { output_tokens: 1.5 } },
];
const withAsides = (run, steps) => steps.flatMap((step) => [step, run.by.pick(ASIDES)]);
const refuses = (status, headers) => () => apiError(status, { headers });

// How a caller behaves before they come back as everybody does.
const leavingAfter = (least, most) => async (run) => {
  const leaving = AbortSignal.timeout(run.by.between(least, most));
  const response = await stack.post(HAIKU, run.first.input, run.first.headers, { signal: leaving }).catch(() => {});
  await response?.text().catch(() => {});
};
const leavesMidway = async (run) => {
  if (run.json) return leavingAfter(50, 400)(run);
  const events = sse(await stack.post(HAIKU, run.first.input, run.first.headers));
  await events.next();
  await events.return();
};
const oncePresented = async (run) => void run.told.push(await present(stack, run.first));
const threeAtOnce = async (run) => {
  const all = await Promise.all([run.first, run.again, run.again].map((payment) => present(stack, payment)));
  const texts = new Set(all.map(({ text }) => text));
  if (texts.size !== 1 || !all.every(({ whole }) => whole)) run.wrong.push(`three at once: ${all.map((one) => retold([one]))}`);
};
const withAnotherInput = async (run) => {
  const first = await stack.post(HAIKU, run.first.input, run.first.headers);
  const other = await present(stack, { ...run.first, input: { topic: `${run.topic} And another.` } });
  if (other.status !== 409 || other.text) run.wrong.push(`another input: ${retold([other])}`);
  await first.text();
};

// Each fault once: `ends` is how the run ends when its caller comes back. One that ruins its wallet has it alone.
const FAULTS = {
  'none': {},
  'verify-drop': { verify: () => [() => drop] },
  'verify-500': { verify: () => [() => reply(500, { error: 'out of order' })] },
  'verify-malformed': { verify: () => [() => reply(200, '{"isValid": tru')] },
  'verify-slow': { verify: () => [async (call, next) => { await sleep(1000); return next(); }] },
  'verify-too-slow': { verify: () => [async (call, next) => { await sleep(2500); return next(); }] },
  'verify-invalid': { verify: () => [() => ({ isValid: false, invalidReason: 'invalid_exact_evm_payload_signature' })], ends: 'refused' },
  'verify-other-payer': { verify: () => [done((real) => ({ ...real, payer: ELSEWHERE }))] },
  'settle-drop-before': { settle: () => [() => drop] },
  'settle-drop-after': { settle: () => [done(() => drop)] },
  'settle-500-after': { settle: () => [done(() => reply(500, { error: 'out of order' }))] },
  'settle-malformed-after': { settle: () => [done(() => reply(200, '{"success": tru'))] },
  'settle-slow': { settle: (run) => [async (call, next) => { await sleep(run.by.between(300, 1500)); return next(); }] },
  'settle-too-slow': { settle: () => [async (call, next) => { const real = await next(); await sleep(2500); return real; }] },
  'settle-late': { settle: () => [async (call, next) => { await sleep(2500); return next(); }] },
  'settle-lies': { settle: () => [done(lies)] },
  'settle-twice': { settle: idempotent },
  'settle-no-after': { settle: () => [done(refusesFunds)] },
  'settle-odd-fields': { verify: () => [done(oddly)], settle: () => [done(oddly)] },
  // The creator's risk with this facilitator: the text is given on its word, and the books do not count it.
  'settle-invents': { settle: (run) => [invents(run)], ends: 'refused', given: true },
  'node-down': { settle: () => [done(() => drop)], node: () => [503, 503, 429] },
  'node-down-at-confirmation': { settle: () => [done((real) => ({ ...real, transaction: `0x${'cd'.repeat(32)}` }))], node: () => [500] },
  'settle-no-funds': { settle: (run) => [async (call, next) => { await emptyTheWallet(run); return next(); }], ends: 'refused', ruins: true },
  'claude-side-events': { claude: withAsides, always: true },
  'claude-empty': { claude: (run) => [start(), ...run.by.pick([[], [open(), shut()]]), end(), stop] },
  'claude-pauses': { claude: (run, steps) => [...steps.slice(0, -2), end({ stop_reason: 'pause_turn' }), stop] },
  'claude-429': { claude: refuses(429, { 'retry-after': '1' }) },
  'claude-500': { claude: refuses(500) },
  'claude-529': { claude: refuses(529) },
  'claude-no-head': { claude: () => [cut] },
  'claude-no-start': { claude: () => [head, 20, cut] },
  'claude-no-text': { claude: (run) => [start(), open(), run.by.pick([0, 400]), cut] },
  'claude-cut': { claude: broken(cut) },
  'claude-error-event': { claude: broken(errorEvent()) },
  'claude-no-stop': { claude: (run, steps) => steps.filter((step) => step !== stop) },
  'claude-silence': { claude: broken(hang) },
  'claude-never': { claude: broken(cut), always: true, ends: 'given up' },
  'caller-leaves-early': { caller: leavingAfter(0, 150) },
  'caller-leaves-midway': { caller: leavesMidway },
  'caller-leaves-at-end': { caller: oncePresented },
  'three-at-once': { caller: threeAtOnce },
  'another-input': { caller: withAnotherInput },
};
const kinds = kindsOf(FAULTS);

const kindOf = (index) => chance(seed, 'fault', index).pick(kinds);

/** The runs of each wallet. */
function ofWallets(indices) {
  const alone = indices.filter((index) => FAULTS[kindOf(index)].ruins);
  const others = indices.filter((index) => !alone.includes(index));
  const groups = alone.map((index) => [index]);
  while (others.length) groups.push(others.splice(0, OF_ONE_WALLET));
  return groups;
}

async function plan(index, payer) {
  const by = chance(seed, 'fault', index);
  const kind = by.pick(kinds);
  const fault = FAULTS[kind];
  const run = { index, kind, payer, by, json: by.coin(), count: by.between(2, 6), every: by.pick([0, 10, 40]), topic: `topic ${seed}-${index}.`, editions: 0, wrong: [], nonces: new Set(), told: [] };
  Object.assign(run, {
    ends: fault.ends ?? 'delivered',
    verify: fault.verify?.(run) ?? [],
    settle: fault.settle?.(run) ?? [],
    node: fault.node?.(run) ?? [],
    claude() {
      run.editions += 1;
      const steps = write(run.topic, run.editions, run.count, run.every);
      return fault.claude && (fault.always || run.editions === 1) ? fault.claude(run, steps) : steps;
    },
  });
  const input = { topic: run.topic };
  // With a key, the caller signs another payment when they come back.
  const key = by.coin() ? `key ${seed}-${index}` : undefined;
  run.way = `${run.json ? 'JSON' : 'stream'}${key ? ', signs anew' : ''}`;
  ours.set(index, run);
  const sees = (nonce) => void (run.nonces.add(nonce), ours.set(nonce, run));
  return Object.assign(run, await intention(stack, payer, input, { accept: run.json ? 'application/json' : 'text/event-stream' }, key, sees));
}

/** One run: its fault, and its caller until the end. */
async function live(run) {
  try {
    const { caller } = FAULTS[run.kind];
    await caller?.(run);
    run.told.push(...(await comeBack(stack, run.again, { seconds: VISIT_SECONDS, first: caller ? run.again : run.first })));
  } catch (error) {
    run.wrong.push(error.stack);
  }
}

/** Who was neither served nor refused may have their text once everything is at rest. */
async function comeLater(run) {
  if (!run.told.some(({ whole, status }) => whole || status === 402)) run.told.push(await present(stack, run.again));
}

/** How the run ended, by the books: `{ end, amount }`; what is wrong is added to `run.wrong`. */
function judge(run, rows, paid) {
  const booked = rows.filter((row) => row.tx !== null);
  const texts = run.told.filter(({ whole }) => whole).map(({ text }) => text);
  const seen = run.told.some(({ text }) => text);
  const refundable = booked.some((row) => ['refundable', 'refunded'].includes(row.status));
  const delivered = booked.some((row) => row.status === 'delivered') && texts.length > 0;
  const unpaid = run.ends === 'given up' ? 'given up' : 'refused';
  const end = !paid.length ? unpaid : refundable ? 'refundable' : delivered ? 'delivered' : 'paid for nothing';
  const asExpected = end === run.ends || (run.ends === 'given up' && end === 'refundable');
  const wrong = [
    [paid.length > 1, `charged ${paid.length} times`],
    [booked.length > 1, `${booked.length} rows with a transaction`],
    [booked.length !== paid.length, `${paid.length} transfers, ${booked.length} rows with a transaction, of ${rows.map((row) => `${row.status} ${row.code}`)}`],
    [booked.some((row) => row.tx !== paid[0]?.tx), "the row's transaction is not the chain's"],
    [booked.some((row) => !['delivered', 'refundable', 'refunded'].includes(row.status)), `the row is ${booked.map((row) => `${row.status} ${row.code}`)}`],
    [paid.length && !texts.length && !refundable, 'paid, and neither text nor refund'],
    [!paid.length && seen && !FAULTS[run.kind].given, 'text, and not paid'],
    [texts.some((text) => !isWhole(text, run.topic, run.editions, run.count)), `not one whole edition: ${texts}`],
    [paid.length && run.told.some(({ status }) => status === 402), 'a 402 although it is paid'],
    [!asExpected, `expected to end ${run.ends}, ended ${end}`],
  ];
  run.wrong.push(...wrong.filter(([is]) => is).map(([, what]) => what));
  return { end, amount: paid.length ? HAIKU_PRICE : 0n };
}

const tally = (words) => {
  const counts = new Map();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  return [...counts].sort().map(([word, count]) => `${count} ${word}`).join(', ');
};

test(`${ONLY === undefined ? `${RUNS} runs` : `run ${ONLY}`}, each with a fault by chance (SEED=${seed}): the chain, the ledger and the callers agree`, async () => {
  const begun = Date.now();
  const indices = ONLY === undefined ? Array.from({ length: RUNS }, (_, i) => i) : [ONLY];
  const groups = ofWallets(indices);
  const payers = await wallets(stack, groups.length, FUNDS);
  const runs = [];
  await inLanes(LANES, groups.entries(), async ([i, group]) => {
    const planned = await Promise.all(group.map((index) => plan(index, payers[i])));
    runs.push(...planned);
    await Promise.all(planned.map(live));
  });
  const wanting = await rest(stack, ada, payers, REST_SECONDS);
  await inLanes(LANES, runs, comeLater);
  wanting.push(...(wanting.length ? [] : await rest(stack, ada, payers, REST_SECONDS)));

  const [rows, paid] = await Promise.all([stack.rows(), transfers(stack, { to: ada.address })]);
  const ends = runs.map((run) => {
    const books = booksOf(run, paid, rows);
    return judge(run, books.rows, books.paid);
  });
  const booked = rows.filter((row) => row.tx !== null);
  const sums = {
    onChain: sum(paid.map(({ value }) => value)),
    inLedger: sum(booked.map(({ amount }) => amount)),
    ended: sum(booked.filter((row) => ['delivered', 'refundable', 'refunded'].includes(row.status)).map(({ amount }) => amount)),
    earned: sum((await stack.earnings('template_ada_haiku')).map(({ amount }) => amount)),
    held: await stack.balance(ada),
  };
  const bad = runs.filter((run) => run.wrong.length);
  console.log(
    `SEED=${seed}: ${runs.length} runs in ${Math.round((Date.now() - begun) / 1000)} s; ${tally(ends.map(({ end }) => end))}; ` +
      `settled ${Number(sums.onChain) / 1e6} USDC; faults: ${tally(runs.map(({ kind }) => kind))}${bad.length ? `; failed: ${tally(bad.map(({ kind }) => kind))}` : ''}`,
  );
  const replay = (run) => `run ${run.index} (${run.kind}, ${run.way}; SEED=${seed} ONLY=${run.index}): ${run.wrong.join('; ')}; told ${retold(run.told)}`;
  assert.deepEqual([...bad.map(replay), ...wanting.map((what) => `not at rest: ${what}`)], []);
  const expected = sum(ends.map(({ amount }) => amount));
  assert.deepEqual(sums, { onChain: expected, inLedger: expected, ended: expected, earned: expected, held: expected });
});
