// The runtime is killed with SIGKILL while runs are under way, each at a moment of its own, and started
// again; three of them are of one wallet. Whatever was lost, the payment buys its answer once, and so does another
// payment under the same Idempotency-Key. (A new runtime calls the objects' alarms without being asked for anything, at
// their times; what is overdue at once.)
//   CRASHES=50        how many runs
//   SEED=1a2b3c4d     the same moments as another time
//   EXCLUDE=a,b       without these points
//   REST=45           how many seconds the Worker has for finishing by itself
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { drop } from '../../dev/facilitator.mjs';
import { delta, end, head, open, ping, shut, start, stop } from '../support/claude.mjs';
import { booksOf, chance, comeBack, intention, isWhole, kindsOf, pieces, rest, retold, seed, sum, transfers, wallets } from '../support/soak.mjs';
import { HAIKU_PRICE, ada, gate, sleep, startStack, until } from '../support/stack.mjs';

const CRASHES = Number(process.env.CRASHES ?? 6);
const AT_ONCE = 6; // runs that one kill hits
const OF_ONE_WALLET = 3;
const FUNDS = 2n * BigInt(OF_ONE_WALLET) * HAIKU_PRICE;
const PIECES = 6;
// Alarms come every 20 seconds while a run is under way, and 30 after a row that could not be written.
const REST_SECONDS = Number(process.env.REST ?? 120);
const BACK_SECONDS = 60;

// Where a run is held until the kill, or until shortly before: then it dies anywhere in what comes next.
const POINTS = {
  'verify-asked': 'verify is asked',
  'verified': 'verify has been done, and not been answered',
  'claude-asked': 'Claude is asked',
  'claude-answers': 'Claude has answered, and not begun',
  'claude-begun': 'Claude has begun, and written nothing',
  'claude-writes': 'Claude is writing',
  'claude-ends': 'Claude is about to end',
  'settle-asked': 'settle is asked, and not done',
  'settled': 'the chain has it, and settle is not answered',
};
const points = kindsOf(POINTS);

let stack;
const ours = new Map(); // runs by index and by nonce
before(async () => {
  stack = await startStack();
  stack.claude.script = (request) => ours.get(Number(/topic \S+-(\d+)\./.exec(request.raw)[1])).claude();
  const runOf = (call) => ours.get(call.body.paymentPayload.payload.authorization.nonce);
  stack.facilitator.onVerify = (call, next) => runOf(call).verify(next);
  stack.facilitator.onSettle = (call, next) => runOf(call).settle(next);
});
after(() => stack?.close());

/** A run and the moment of its death. */
async function plan(index, payer) {
  const by = chance(seed, 'crash', index);
  const json = by.coin();
  const run = {
    index,
    payer,
    json,
    point: by.pick(points),
    /** How long before the kill it is let go; 0: it dies where it is held. */
    lead: by.coin() ? by.between(1, 150) : 0,
    /** What a facilitator that was held before it did anything does once its caller is dead: settle, settle late, nothing. */
    then: by.pick([0, 1500, undefined]),
    topic: `topic ${seed}-${index}.`,
    /** With a key, its caller signs another payment when they come back. */
    key: by.coin() ? `key ${seed}-${index}` : undefined,
    nonces: new Set(),
    told: [],
    editions: 0,
    let: gate(),
    here: gate(),
  };
  const held = async (point) => {
    if (point !== run.point || run.isHere) return false;
    run.isHere = true;
    run.here.open();
    await run.let.opened;
    return true;
  };
  run.verify = async (next) => {
    await held('verify-asked');
    const answer = await next();
    await held('verified');
    return answer;
  };
  run.settle = async (next) => {
    if ((await held('settle-asked')) && run.lead === 0) {
      if (run.then === undefined) return drop;
      await sleep(run.then);
    }
    const answer = await next();
    await held('settled');
    return answer;
  };
  run.claude = async () => {
    run.editions += 1;
    const [first, second, ...others] = pieces(run.topic, run.editions, PIECES).map((text) => delta(text));
    await held('claude-asked');
    const hold = (point) => () => held(point);
    return [
      head, hold('claude-answers'), start(), hold('claude-begun'), open(), ping, 10, first, 10, second, hold('claude-writes'),
      ...others.flatMap((piece) => [10, piece]), shut(), end(), hold('claude-ends'), stop,
    ];
  };
  const input = { topic: run.topic };
  ours.set(index, run);
  const sees = (nonce) => void (run.nonces.add(nonce), ours.set(nonce, run));
  Object.assign(run, await intention(stack, payer, input, { accept: json ? 'application/json' : 'text/event-stream' }, run.key, sees));
  run.name = `run ${index} (${json ? 'JSON' : 'stream'}, ${POINTS[run.point]}, let go ${run.lead} ms before, facilitator ${run.then ?? 'stops'}${run.key ? ', signs anew' : ''})`;
  return run;
}

/** Sets the runs out, waits until each is where it is to be, and kills the runtime under them. */
async function killAmid(runs) {
  const callers = runs.map(async (run) => void run.told.push(...(await comeBack(stack, run.first, { seconds: 0 }))));
  await Promise.all(runs.map((run) => run.here.opened));
  const moment = Date.now() + 200;
  await Promise.all([
    ...runs.filter((run) => run.lead).map((run) => sleep(moment - run.lead - Date.now()).then(run.let.open)),
    sleep(moment - Date.now()).then(() => stack.kill()),
  ]);
  runs.forEach((run) => run.let.open());
  await stack.revive();
  await Promise.all(callers);
  // Facilitators that go on although their caller is dead have done so.
  await until(() => stack.facilitator.calls.every((call) => call.answer !== undefined), { what: 'the facilitator idle' });
}

/** Kills once more, as soon as what was broken off is being taken up again, if anything is. */
async function killAmidRecovery(payers, wait) {
  const signs = () => stack.claude.requests.length + stack.facilitator.calls.length;
  const before = signs();
  await until(async () => signs() > before || (await rest(stack, ada, payers, 0)).length === 0, { timeout: 25_000 }).catch(() => {});
  await sleep(wait);
  await stack.kill();
  await stack.revive();
}

/** What is wrong with a run that has been presented again. */
async function complaints(run, told, paidBefore) {
  const { paid, rows } = booksOf(run, await transfers(stack, { from: run.payer.address }), await stack.rows('payer = ? COLLATE NOCASE', run.payer.address));
  const booked = rows.filter((row) => row.tx !== null);
  const last = told.at(-1);
  const wrong = [
    [!last.whole, `no text: ${retold(told)}`],
    [last.whole && !isWhole(last.text, run.topic, run.editions, PIECES), `the text is not one whole edition: ${last.text}`],
    [paidBefore && told.some(({ status }) => status === 402), `a 402 although it is paid: ${retold(told)}`],
    [paid.length !== 1, `${paid.length} transfers`],
    [booked.length !== 1, `${booked.length} rows with a transaction, of ${rows.map((row) => row.status)}`],
    [booked.some((row) => row.status !== 'delivered'), `the row is ${booked.map((row) => `${row.status} ${row.code}`)}`],
    [booked.some((row) => row.tx !== paid[0]?.tx), "the row's transaction is not the chain's"],
  ];
  return wrong.filter(([is]) => is).map(([, what]) => `${run.name}: ${what}`);
}

describe(`kill -9 (SEED=${seed} CRASHES=${CRASHES})`, () => {
  for (let first = 0; first < CRASHES; first += AT_ONCE) {
    const count = Math.min(AT_ONCE, CRASHES - first);
    test(`amid runs ${first} to ${first + count - 1}: each is finished without anybody's asking, and its caller gets it, charged once`, async () => {
      const payers = await wallets(stack, Math.ceil(count / OF_ONE_WALLET), FUNDS);
      const runs = await Promise.all(Array.from({ length: count }, (_, i) => plan(first + i, payers[Math.floor(i / OF_ONE_WALLET)])));
      const by = chance(seed, 'again', first);
      const again = by.coin() ? by.between(0, 100) : undefined;
      await killAmid(runs);
      if (again !== undefined) await killAmidRecovery(payers, again);
      const wrong = (await rest(stack, ada, payers, REST_SECONDS)).map((what) => `not at rest after ${REST_SECONDS} s: ${what}`);
      const paidBefore = new Set((await transfers(stack, { to: ada.address })).map(({ nonce }) => nonce));
      await Promise.all(
        runs.map(async (run) => {
          const wasPaid = [...run.nonces].some((nonce) => paidBefore.has(nonce));
          const told = await comeBack(stack, run.again, { seconds: BACK_SECONDS });
          run.told.push(...told);
          await stack.row(told.at(-1).run, ({ tx }) => tx !== null).catch(() => {});
          wrong.push(...(await complaints(run, told, wasPaid)));
        }),
      );
      for (const payer of payers) {
        const runsOf = runs.filter((run) => run.payer === payer).length;
        const charged = (FUNDS - (await stack.balance(payer))) / HAIKU_PRICE;
        if (Number(charged) !== runsOf) wrong.push(`a wallet with ${runsOf} runs was charged ${charged} times`);
      }
      assert.deepEqual(wrong, [], [...runs.map((run) => run.name), `killed again: ${again === undefined ? 'no' : `${again} ms into the recovery`}`].join('\n'));
    });
  }

  test('at the end the chain, the ledger, the earnings and the creator hold the same sum', async () => {
    const onChain = sum((await transfers(stack, { to: ada.address })).map(({ value }) => value));
    const inLedger = sum((await stack.rows('tx IS NOT NULL')).map(({ amount }) => amount));
    const earned = sum((await stack.earnings('template_ada_haiku')).map(({ amount }) => amount));
    const expected = BigInt(CRASHES) * HAIKU_PRICE;
    assert.deepEqual({ onChain, inLedger, earned, held: await stack.balance(ada) }, { onChain: expected, inLedger: expected, earned: expected, held: expected });
  });
});
