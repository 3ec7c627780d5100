// What a wallet's object forgets, and when: each run a day after its end, and itself when nothing is left. Here the day is
// over at once: the time of the rows is changed behind the runtime's back. The alarm that follows the next run, within
// half a minute, finds them.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { asked, payer, payerStack, settles, stack, WHOLE } from '../support/file_stack.mjs';
import { inObjects, objectFiles } from '../support/objects.mjs';
import { HAIKU, HAIKU_PRICE, INPUT, readSse, until } from '../support/stack.mjs';

payerStack();

const HALF_A_MINUTE = { timeout: 45_000, every: 250 };
const buy = async (headers) => {
  const response = await stack.post(HAIKU, INPUT, headers);
  assert.equal(response.status, 200);
  const { text, done } = await readSse(response);
  assert.equal(text, 'Hello, world');
  await stack.row(done.run, ({ status }) => status === 'delivered');
  return done.run;
};
const look = async (run) => (await fetch(`${stack.url}/runs/${run}`)).json();
/** As if the runs of these ids had ended long ago. */
async function age(runs) {
  await stack.evict();
  const aged = inObjects(stack, (db) => runs.reduce((all, run) => all + Number(db.prepare('UPDATE runs SET expires = 1 WHERE instr(record, ?) AND expires IS NOT NULL').run(run).changes), 0));
  assert.equal(aged.reduce((all, one) => all + one, 0), runs.length);
}
const counts = (db) => Object.fromEntries(['runs', 'pieces', 'keys'].map((table) => [table, db.prepare(`SELECT count(*) AS n FROM ${table}`).get().n]));

test('a run is forgotten a day after its end, with its text and its key; the other runs of the wallet stay', async () => {
  const sign = (key) => stack.signPayment(HAIKU, INPUT, payer).then((signed) => ({ 'idempotency-key': key, ...signed }));
  const [old, young] = [await sign('old'), await sign('young')];
  const [first, second] = [await buy(old), await buy(young)];
  await age([first]);
  const third = await buy(await sign('third'));
  await until(async () => (await look(first)).ledger, { ...HALF_A_MINUTE, what: 'the first run forgotten' });
  assert.deepEqual(inObjects(stack, counts), [{ runs: 2, pieces: 2, keys: 2 }]);
  assert.equal((await look(first)).ledger.status, 'delivered');
  for (const run of [second, third]) assert.deepEqual([(await look(run)).status, (await look(run)).output], ['delivered', 'Hello, world']);
  assert.equal(await buy(young), second);
  assert.deepEqual([asked(), settles()], [3, 3]);

  // Its payment is spent, and buys nothing; its key is free.
  const spent = await stack.post(HAIKU, INPUT, old);
  assert.deepEqual([spent.status, (await spent.json()).error.code], [409, 'PAYMENT_REUSED']);
  assert.equal([first, second, third].includes(await buy(await sign('old'))), false);
  assert.equal(await stack.balance(payer), WHOLE - 4n * HAIKU_PRICE);
});

test('an object of which nothing is left is deleted, and begins anew', async () => {
  const before = inObjects(stack, () => true).length;
  const run = await buy(await stack.signPayment(HAIKU, INPUT, payer));
  assert.equal(inObjects(stack, () => true).length, before + 1);
  // The alarm that is set for this run comes when it is old already.
  await age([run]);
  await until(() => inObjects(stack, () => true).length === before, { ...HALF_A_MINUTE, what: 'an object that stores nothing' });
  assert.ok((await look(run)).ledger);
  const again = await buy(await stack.signPayment(HAIKU, INPUT, payer));
  assert.deepEqual((await look(again)).output, 'Hello, world');
  assert.ok(objectFiles(stack).length > 0);
});
