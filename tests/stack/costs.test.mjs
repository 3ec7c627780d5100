// What a run asks of the runtime, counted: a later change cannot make it dearer unnoticed. The counts do not depend on
// the machine, as times would. docs/performance.md has the times.
import assert from 'node:assert/strict';
import { gzipSync } from 'node:zlib';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { say } from '../support/claude.mjs';
import { counts } from '../support/counting.mjs';
import { HAIKU, INPUT, readSse, root, sleep, startStack } from '../support/stack.mjs';

const DELTAS = 200;

let stack, payer;
before(async () => {
  const deltas = Array.from({ length: DELTAS }, (_, i) => `word ${i} `);
  stack = await startStack({ counting: true, vars: { LIMITS: JSON.stringify({ cacheSeconds: 60 }) }, script: () => say(...deltas) });
  payer = await stack.payer(100_000_000n);
  await run();
});
after(() => stack?.close());

async function run(account = payer, headers = {}) {
  const payment = await stack.signPayment(HAIKU, INPUT, account);
  await counts(stack);
  const { done } = await readSse(await stack.post(HAIKU, INPUT, { ...payment, ...headers }));
  assert.ok(done);
  const atEnd = await counts(stack);
  await stack.row(done.run, ({ status }) => status === 'delivered');
  await sleep(100); // the object notes that the ledger has the row
  const withLedger = await counts(stack);
  return { atEnd, withLedger };
}

test('a run', async () => {
  console.log(await run());
  console.log(await run());
  console.log(await run(await stack.payer(1_000_000n)));
  await counts(stack);
  await stack.ask402(HAIKU);
  console.log(await counts(stack));
});
