// What a run asks of the runtime, counted: a later change cannot make it dearer unnoticed. The counts do not depend on
// the machine, as times would. docs/performance.md has the times; the size of the release is checked by `make release`.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { say } from '../support/claude.mjs';
import { counts } from '../support/counting.mjs';
import { HAIKU, INPUT, readSse, sleep, startStack } from '../support/stack.mjs';

const DELTAS = 200;
const answer = (deltas, every = 0) => () => say(...Array.from({ length: deltas }, (_, i) => `word ${i} `), { every });

let stack, payer;
before(async () => {
  stack = await startStack({ counting: true, vars: { LIMITS: JSON.stringify({ cacheSeconds: 60 }) }, script: answer(DELTAS) });
  payer = await stack.payer(100_000_000n);
  await run();
});
after(() => stack?.close());

/** The counts of one run up to its last event, and those of its ledger row. */
async function run(account = payer, headers = {}) {
  const payment = await stack.signPayment(HAIKU, INPUT, account);
  await sleep(200); // what the run before has left to do
  await counts(stack);
  const { done } = await readSse(await stack.post(HAIKU, INPUT, { ...payment, ...headers }));
  assert.ok(done);
  const atEnd = await counts(stack);
  await stack.row(done.run, ({ status }) => status === 'delivered');
  await sleep(200); // the object notes that the ledger has the row
  return { atEnd, ledger: await counts(stack) };
}

function atMost(counted, limits) {
  for (const [what, limit] of Object.entries(limits)) {
    assert.ok(counted[what] <= limit, `${what}: ${counted[what]}, and ${limit} are allowed, in ${JSON.stringify(counted)}`);
  }
}

describe('a good run', { concurrency: false }, () => {
  test('of a known wallet: two commits before the ledger, one hop (and one to the ledger), no read of D1 or KV', async () => {
    const { atEnd, ledger } = await run();
    atMost(atEnd, { statements: 5, writes: 4, commits: 2, alarms: 0, hops: 2, fetches: 6, queries: 0, kvReads: 0, timers: 20 });
    atMost(ledger, { statements: 1, writes: 1, commits: 1, alarms: 1, hops: 1, fetches: 3, queries: 1, kvReads: 0 });
    assert.ok(atEnd.commits > 0 && atEnd.fetches >= 3 && atEnd.fetches + ledger.fetches === 6, 'what is counted is there: verify, Claude and settle; for the ledger, three calls of the node that confirms the settlement');
  });

  test('of a new wallet: its tables, and one alarm', async () => {
    const { atEnd } = await run(await stack.payer(1_000_000n));
    atMost(atEnd, { statements: 6, commits: 2, alarms: 1, hops: 2, fetches: 6, queries: 0, kvReads: 0 });
  });

  test('with an idempotency key: one statement to look for it, and one to keep it', async () => {
    const { atEnd } = await run(payer, { 'idempotency-key': crypto.randomUUID() });
    atMost(atEnd, { statements: 7, commits: 2, hops: 2, fetches: 6, queries: 0, kvReads: 0 });
  });

  test('costs a few calls of JavaScript for each piece of text that comes alone', async () => {
    const crossings = async (deltas) => {
      stack.claude.script = answer(deltas, 2);
      return (await run()).atEnd.crossings;
    };
    const [few, many] = [await crossings(50), await crossings(350)];
    const each = (many - few) / 300;
    assert.ok(each > 1 && each <= 22, `${each} for each delta`);
    stack.claude.script = answer(DELTAS);
  });
});

test('a request without a payment asks for nothing but its terms', async () => {
  await stack.ask402(HAIKU);
  await counts(stack);
  await stack.ask402(HAIKU);
  atMost(await counts(stack), { statements: 0, commits: 0, alarms: 0, hops: 0, fetches: 0, queries: 0, kvReads: 0, timers: 0, crossings: 110 });
});

test('a forged payment touches no object', async () => {
  const headers = await stack.signPayment(HAIKU, INPUT, payer, { edit: (p) => ({ ...p, payload: { ...p.payload, signature: `0x${'11'.repeat(64)}1b` } }) });
  await counts(stack);
  const response = await stack.post(HAIKU, INPUT, headers);
  assert.equal(response.status, 402);
  // A node says that the payer has no code, so that only a key can have signed.
  atMost(await counts(stack), { statements: 0, hops: 0, fetches: 2, queries: 0, kvReads: 0 });
  await stack.post(HAIKU, INPUT, headers);
  atMost(await counts(stack), { statements: 0, hops: 0, fetches: 0, queries: 0, kvReads: 0 });
});
