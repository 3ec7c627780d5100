// Every run is in the ledger: once, with what it cost and who paid, and never in the answer's way.
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { cut, delta, end, open, say, shut, start, stop } from '../support/claude.mjs';
import { HAIKU, HAIKU_PRICE, INPUT, NETWORK, USDC, ada, decodeReceipt, gate, grace, ledgerId, readSse, sleep, sse, startStack, until } from '../support/stack.mjs';

const HAIKU_ID = 'template_ada_haiku';
const MODEL = 'claude-haiku-4-5-20251001';
let stack;
before(async () => { stack = await startStack(); });
after(() => stack?.close());
beforeEach(() => stack.reset(() => say('Hello', ', ', 'world', { input_tokens: 31, output_tokens: 17 })));

const counters = async (id = HAIKU_ID) => {
  const { runs, delivered, owner_tests, input_tokens, output_tokens } = await stack.template(id);
  return { runs, delivered, owner_tests, input_tokens, output_tokens };
};
const earned = async (id = HAIKU_ID) => BigInt((await stack.earnings(id)).reduce((sum, row) => sum + row.amount, 0));

/** What `work` adds to a template's counters and earnings. */
async function added(work, settled, id = HAIKU_ID) {
  const [a, e] = [await counters(id), await earned(id)];
  const result = await work();
  await settled(result);
  const b = await counters(id);
  return { result, earned: (await earned(id)) - e, ...Object.fromEntries(Object.keys(b).map((k) => [k, b[k] - a[k]])) };
}

describe('the row', () => {
  for (const [version, pay] of [['v2', 'payV2'], ['v1', 'payV1']]) {
    test(`of a delivered run, paid by ${version}`, async () => {
      const payer = await stack.payer();
      const begun = Date.now();
      const { result, ...moved } = await added(
        async () => {
          const response = await stack[pay](HAIKU, INPUT, {}, payer);
          return { response, done: (await readSse(response)).done };
        },
        ({ done }) => stack.row(done.run),
      );
      const row = await stack.row(result.done.run);
      const { started_at, duration_ms, payer: who, asset, ...rest } = row;
      assert.deepEqual(rest, {
        id: ledgerId(result.done.run), template_id: HAIKU_ID, creator_id: ada.id, owner_test: 0, network: NETWORK, amount: String(HAIKU_PRICE),
        tx: decodeReceipt(result.response, version === 'v2' ? 'payment-response' : 'x-payment-response').transaction,
        status: 'delivered', code: null, model: MODEL, stop_reason: 'end_turn', input_tokens: 31, output_tokens: 17,
      });
      assert.equal(who.toLowerCase(), payer.address.toLowerCase());
      assert.equal(asset.toLowerCase(), USDC.toLowerCase());
      assert.ok(started_at >= begun - 1 && started_at <= Date.now());
      assert.ok(duration_ms > 0 && duration_ms <= Date.now() - begun);
      assert.deepEqual(moved, { earned: HAIKU_PRICE, runs: 1, delivered: 1, owner_tests: 0, input_tokens: 31, output_tokens: 17 });
    });
  }

  test('of a JSON answer', async () => {
    const payer = await stack.payer();
    const { run } = await (await stack.payV2(HAIKU, INPUT, { accept: 'application/json' }, payer)).json();
    const row = await stack.row(run);
    assert.deepEqual([row.status, row.amount, row.output_tokens], ['delivered', '10000', 17]);
  });

  test("of an owner's test: marked, no payer, no earnings", async () => {
    const { result, ...moved } = await added(
      async () => (await readSse(await stack.ownerTest(HAIKU, INPUT))).done.run,
      (run) => stack.row(run),
    );
    const row = await stack.row(result);
    assert.deepEqual([row.owner_test, row.payer, row.network, row.asset, row.amount, row.tx, row.status], [1, null, null, null, '0', null, 'delivered']);
    assert.deepEqual(moved, { earned: 0n, runs: 0, delivered: 0, owner_tests: 1, input_tokens: 31, output_tokens: 17 });
  });

  test("of a run that a creator's own wallet has paid: a test, with what was paid, and no earnings", async () => {
    const own = await stack.payer();
    await stack.DB.prepare('UPDATE creators SET wallets = ? WHERE id = ?').bind(JSON.stringify({ ...ada.wallets, 'eip155:1': own.address.toLowerCase() }), ada.id).run();
    try {
      await stack.restart();
      const { result, ...moved } = await added(
        async () => (await readSse(await stack.payV2(HAIKU, INPUT, {}, own))).done.run,
        (run) => stack.row(run),
      );
      const row = await stack.row(result);
      assert.deepEqual([row.owner_test, row.payer, row.amount, row.status], [1, own.address, String(HAIKU_PRICE), 'delivered']);
      assert.ok(row.tx);
      assert.deepEqual(moved, { earned: 0n, runs: 0, delivered: 0, owner_tests: 1, input_tokens: 31, output_tokens: 17 });
    } finally {
      await stack.DB.prepare('UPDATE creators SET wallets = ? WHERE id = ?').bind(JSON.stringify(ada.wallets), ada.id).run();
      await stack.restart();
    }
  });

  test('of a run that Claude failed: nothing charged, nothing earned, why; and another row once it succeeds', async () => {
    const payer = await stack.payer();
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const good = stack.claude.script;
    stack.claude.script = () => ({ status: 529, headers: {}, error: { type: 'overloaded_error', message: 'x' } });
    const failed = await added(
      async () => (await (await stack.post(HAIKU, INPUT, headers)).json()).error.run,
      (run) => stack.row(run),
    );
    const row = await stack.row(failed.result);
    assert.deepEqual([row.status, row.code, row.amount, row.tx, row.input_tokens, row.output_tokens], ['failed', 'CLAUDE_OVERLOADED', '0', null, 0, 0]);
    assert.equal(row.payer.toLowerCase(), payer.address.toLowerCase());
    assert.deepEqual([failed.runs, failed.delivered, failed.earned], [1, 0, 0n]);

    stack.claude.script = good;
    const then = await added(
      async () => (await readSse(await stack.post(HAIKU, INPUT, headers))).done.run,
      (run) => stack.row(run, (r) => r.status === 'delivered'),
    );
    assert.equal((await stack.rows('payer = ?', row.payer)).length, 2);
    assert.deepEqual([then.runs, then.delivered, then.earned], [1, 1, HAIKU_PRICE]);
  });

  test('of a run that broke off after its text was released, and was finished later: one row, earned once', async () => {
    const payer = await stack.payer();
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const good = stack.claude.script;
    stack.claude.script = () => [start({ input_tokens: 31 }), open(), delta('half'), 200, cut];
    const { error } = await readSse(await stack.post(HAIKU, INPUT, headers));
    const row = await stack.row(error.run);
    assert.deepEqual([row.status, row.code, row.amount], ['interrupted', 'CLAUDE_CUT_OFF', '10000']);
    assert.ok(row.tx);
    stack.claude.script = good;
    const then = await added(
      async () => (await stack.post(HAIKU, INPUT, headers)).text(),
      () => stack.row(error.run, (r) => r.status === 'delivered'),
    );
    assert.deepEqual([then.runs, then.delivered, then.earned], [0, 1, 0n]);
    const whole = await stack.row(error.run);
    assert.equal(whole.tx, row.tx);
    assert.equal(whole.input_tokens, 62, 'Anthropic was paid for both calls');
    assert.equal(whole.code, null);
  });

  test('of a settlement that was refused', async () => {
    const payer = await stack.payer();
    stack.facilitator.onSettle = () => ({ success: false, errorReason: 'insufficient_funds', transaction: '', network: NETWORK });
    const { result, ...moved } = await added(
      async () => {
        const response = await stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, payer));
        await response.text();
        return response.headers.get('x-run-id');
      },
      (run) => stack.row(run),
    );
    const row = await stack.row(result);
    assert.deepEqual([row.status, row.code, row.amount, row.tx], ['refused', 'SETTLEMENT_REJECTED', '0', null]);
    assert.deepEqual([moved.delivered, moved.earned], [0, 0n]);
  });

  test('does not exist for what never became a run', async () => {
    const payer = await stack.payer();
    const before = (await stack.rows()).length;
    await (await stack.post(HAIKU, INPUT)).text();
    await (await stack.post(HAIKU, { topic: 1 })).text();
    await (await stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, payer, { authorization: { value: '1' } }))).text();
    await (await stack.post(HAIKU, INPUT, { 'payment-signature': 'x' })).text();
    await sleep(600);
    assert.equal((await stack.rows()).length, before);
  });

  test('is one, however often the payment is presented', async () => {
    const payer = await stack.payer();
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const moved = await added(
      async () => { for (let i = 0; i < 5; i++) await (await stack.post(HAIKU, INPUT, headers)).text(); },
      () => until(async () => (await stack.rows('payer = ?', payer.address)).length),
    );
    await sleep(600);
    assert.equal((await stack.rows('payer = ?', payer.address)).length, 1);
    assert.deepEqual([moved.runs, moved.earned], [1, HAIKU_PRICE]);
  });
});

test('counters and earnings are exact after 20 parallel paid runs of four wallets', async () => {
  // One wallet may have eight unpaid runs under way at once.
  const payers = [];
  while (payers.length < 4) payers.push(await stack.payer());
  const headers = await Promise.all(Array.from({ length: 20 }, (_, i) => stack.signPayment(HAIKU, INPUT, payers[i % 4])));
  const moved = await added(
    () => Promise.all(headers.map(async (h) => { const { done } = await readSse(await stack.post(HAIKU, INPUT, h)); return done.run; })),
    (runs) => Promise.all(runs.map((run) => stack.row(run))),
  );
  assert.equal(new Set(moved.result).size, 20);
  const { result, ...sums } = moved;
  assert.deepEqual(sums, { earned: 20n * HAIKU_PRICE, runs: 20, delivered: 20, owner_tests: 0, input_tokens: 20 * 31, output_tokens: 20 * 17 });
  for (const payer of payers) assert.equal(await stack.balance(payer), 1_000_000n - 5n * HAIKU_PRICE);
  const rows = await stack.rows('payer IN (?, ?, ?, ?)', ...payers.map(({ address }) => address));
  assert.equal(new Set(rows.map((r) => r.tx)).size, 20);
});

test('earnings are kept for each template and asset apart', async () => {
  const payer = await stack.payer();
  const path = '/@grace/explain-error';
  const moved = await added(async () => (await readSse(await stack.payV2(path, { error: 'x' }, {}, payer))).done.run, (run) => stack.row(run), 'template_grace_explain-error');
  assert.equal(moved.earned, 10_000n);
  const [row] = await stack.earnings('template_grace_explain-error');
  assert.equal(row.network, NETWORK);
  assert.equal(row.asset.toLowerCase(), USDC.toLowerCase());
  assert.equal(await stack.balance(grace), 10_000n);
});

test('the row is written after the answer', async () => {
  const payer = await stack.payer();
  const more = gate();
  stack.claude.script = () => [start(), open(), delta('one'), () => more.opened, shut(), end(), stop];
  const response = await stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, payer));
  const events = sse(response);
  assert.equal((await events.next()).value.content, 'one');
  assert.deepEqual(await stack.rows('payer = ?', payer.address), []);
  more.open();
  const { value } = await events.next();
  assert.equal(value.type, 'done');
  assert.equal((await stack.row(value.run)).status, 'delivered');
});

test('a ledger that cannot be written keeps nobody from their answer, and the fault is logged', async () => {
  const payer = await stack.payer();
  await stack.DB.prepare("CREATE TRIGGER ledger_away BEFORE INSERT ON runs BEGIN SELECT RAISE(ABORT, 'away'); END").run();
  let run;
  try {
    const { text, done } = await readSse(await stack.payV2(HAIKU, INPUT, {}, payer));
    assert.equal(text, 'Hello, world');
    run = done.run;
    await until(() => stack.logs.some(({ level, message }) => level === 'error' && message.includes('ledger')), { what: 'the fault in the log' });
  } finally {
    await stack.DB.prepare('DROP TRIGGER ledger_away').run();
  }
  // The row is owed, and written when the run is woken: the alarm does it after 30 seconds.
  assert.deepEqual(await stack.rows('id = ?', ledgerId(run)), []);
});
