// Tasks: pending, polled, and their deadlines; and what survives when the runtime is killed.
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { delta, hang, open, say, start } from '../support/claude.mjs';
import { ASYNC, PAID, TEXT, account, asked, books, ended, gated, hello, hire, refused, seeker, seekerStack, settles, stack } from '../support/seeker_stack.mjs';
import { HAIKU_PRICE, INPUT, ledgerId, sleep, until } from '../support/stack.mjs';

seekerStack();

/** The seeker's first row with this status. It is read from D1, so that nobody polls the task meanwhile. */
const rested = (status, timeout = 10_000) =>
  until(async () => (await stack.rows('payer = ?', account.address)).find((row) => row.status === status), { timeout, what: `a row that is ${status}` });

describe('tasks', () => {
  test('respond-async: 202 at once, and the run ends without a caller', async () => {
    const more = gated();
    const hired = await hire();
    const began = Date.now();
    const pending = await seeker.buy(hired, INPUT, ASYNC);
    assert.ok(Date.now() - began < 1500);
    assert.equal(pending.status, 202);
    assert.equal(pending.headers.get('location'), `${stack.url}/tasks/${pending.body.task_id}`);
    assert.match(pending.headers.get('retry-after'), /^\d+$/);
    assert.equal(pending.headers.get('preference-applied'), 'respond-async');
    await until(asked);
    more.open();
    const row = await rested('delivered');
    const report = await seeker.get(pending.headers.get('location'), { 'x-contract-id': hired.id });
    assert.deepEqual([report.status, report.body.status, report.body.output.content, ledgerId(report.body.metadata.run)], [200, 'completed', TEXT, row.id]);
    assert.equal(report.headers.get('retry-after'), null);
    await books(hired, PAID);
  });

  test('the caller hangs up: the task ends without them, charged once, and its result is there', async () => {
    const more = gated();
    const hired = await hire();
    const caller = stack.caller('/execute', INPUT, { 'x-contract-id': hired.id, ...(await seeker.pay(hired.id, INPUT, account)) });
    await until(asked);
    await caller.hangUp();
    await sleep(300);
    more.open();
    await rested('delivered');
    assert.equal((await stack.claude.requests[0].done).hungUp, false);
    assert.equal((await seeker.execute(hired.id, INPUT)).body.output.content, TEXT);
    await books(hired, PAID);
  });

  test('wait=1: pending after a second; by default the result is waited for', async () => {
    stack.claude.script = () => [3000, ...hello()];
    const hired = await hire();
    const began = Date.now();
    const pending = await seeker.buy(hired, INPUT, { prefer: 'wait=1' });
    const took = Date.now() - began;
    assert.equal(pending.status, 202);
    assert.ok(took >= 900 && took < 2200, `${took} ms`);
    assert.equal(pending.headers.get('preference-applied'), 'wait=1');
    const done = await seeker.execute(hired.id, INPUT);
    assert.deepEqual([done.status, done.body.output?.content], [200, TEXT]);
    await books(hired, PAID);
  });

  test("a task is shown with its contract's id only: 404 with another, 400 without one, 404 for an unknown task", async () => {
    const more = gated();
    const hired = await hire();
    const other = await hire();
    const { body: { task_id } } = await seeker.buy(hired, INPUT, ASYNC);
    const pending = await seeker.task(task_id, hired.id);
    assert.deepEqual([pending.status, pending.body.status], [200, 'pending']);
    assert.match(pending.headers.get('retry-after'), /^\d+$/);
    more.open();
    await ended(task_id, hired.id);
    for (const [task, contract, status, code] of [
      [task_id, other.id, 404, 'NOT_FOUND'],
      [task_id, undefined, 400, 'CONTRACT_ID_MISSING'],
      [task_id, 'ctr_', 400, 'CONTRACT_ID_MISSING'],
      [task_id.replace(/.$/, (c) => (c === '0' ? '1' : '0')), hired.id, 404, 'NOT_FOUND'],
      ['task_123', hired.id, 404, 'NOT_FOUND'],
    ]) {
      const answer = await seeker.get(`/tasks/${task}`, contract === undefined ? {} : { 'x-contract-id': contract });
      refused(answer, status, code);
      assert.ok(!JSON.stringify(answer.body).includes('Coin falls'));
    }
    await books(hired, PAID);
  });

  test('after the object was evicted the result is the same', async () => {
    const hired = await hire();
    const done = await seeker.buy(hired, INPUT);
    await rested('delivered');
    await stack.evict();
    assert.deepEqual((await seeker.task(done.body.task_id, hired.id)).body, done.body);
    await books(hired, PAID);
  });
});

describe('moments', () => {
  test('an estimate is never in the past', async () => {
    // The recent runs of this template were short.
    await stack.addTemplate('quick', { prompt: 'On {topic}{/topic}', parameters: [{ name: 'topic', required: true }] });
    const quick = () => hire({}, { capability: 'quick' });
    for (let i = 0; i < 5; i++) assert.equal((await seeker.buy(await quick(), INPUT)).status, 200);
    await until(async () => (await stack.rows("payer = ? AND status = 'delivered'", account.address)).length === 5);
    stack.reset(hello);
    const more = gated();
    const hired = await quick();
    const pending = await seeker.buy(hired, INPUT, ASYNC);
    await sleep(Math.max(0, Math.min(3000, Date.parse(pending.body.estimated_completion) - Date.now() + 500)));
    const report = await seeker.task(pending.body.task_id, hired.id);
    const now = Date.now();
    more.open();
    await ended(pending.body.task_id, hired.id);
    assert.equal(report.body.status, 'pending');
    assert.ok(Date.parse(report.body.estimated_completion) >= now - 100, `${report.body.estimated_completion} at ${new Date(now).toISOString()}`);
    await books(hired, { ...PAID, paid: 6n * HAIKU_PRICE });
  });

  test('the caller hangs up at any moment: the contract is executed, or is as it was', async () => {
    const contracts = [];
    const bad = [];
    for (let i = 0; i < 24; i++) {
      const by = await stack.payer();
      const hired = await seeker.hire(by);
      const caller = stack.caller('/execute', INPUT, { 'x-contract-id': hired.id, ...(await seeker.pay(hired.id, INPUT, by)) });
      await sleep(i * 1.5);
      await caller.hangUp();
      contracts.push(hired);
    }
    await sleep(1500);
    for (const { id, account: by } of contracts) {
      const { state } = (await seeker.get(`/contracts/${id}`)).body;
      const paid = 1_000_000n - (await stack.balance(by));
      if (!((state === 'SIGNED' && paid === 0n) || (state === 'COMPLETED' && paid === HAIKU_PRICE))) bad.push(`${state}, paid ${paid}`);
    }
    assert.deepEqual(bad, []);
  });
});

describe('deadlines', () => {
  const LATENCY = 1500;
  const sla = { max_latency_ms: LATENCY, refund_conditions: ['deadline_missed'] };
  const missed = { condition: 'deadline_missed', agreed: true, charged: false, reported: false };
  for (const [name, script] of [
    ['has not answered', () => [hang]],
    ['has begun, and is silent', () => [start(), open(), delta('Coin'), hang]],
    ['writes and writes', () => say(...Array(80).fill('Coin '), { every: 100 })],
  ]) {
    test(`Claude ${name}: DEADLINE_MISSED soon after max_latency_ms, not charged, and Claude is stopped`, async () => {
      stack.claude.script = script;
      const hired = await hire({}, { sla });
      const payment = await seeker.pay(hired.id, INPUT, account);
      const began = Date.now();
      const failed = await seeker.execute(hired.id, INPUT, payment);
      const took = Date.now() - began;
      refused(failed, 504, 'DEADLINE_MISSED');
      assert.deepEqual(failed.body.refund, missed);
      assert.equal(failed.body.output, undefined);
      assert.equal((await Promise.race([stack.claude.requests[0].done, sleep(2000)]))?.hungUp, true, "Claude's connection is left open");
      await books(hired, { calls: 1, state: 'SIGNED' });
      assert.ok(took >= LATENCY - 100 && took < LATENCY + 2000, `${took} ms`);
      stack.claude.script = hello;
      assert.equal((await seeker.execute(hired.id, INPUT)).body.status, 'completed');
      await books(hired, { ...PAID, calls: 2 });
    });

    test(`Claude ${name}, and no caller is left: the alarm ends the run`, async () => {
      stack.claude.script = script;
      const hired = await hire({}, { sla });
      const pending = await seeker.buy(hired, INPUT, ASYNC);
      const began = Date.now();
      assert.ok(Date.parse(pending.body.estimated_completion) <= began + LATENCY);
      const row = await rested('failed', 30_000);
      const took = Date.now() - began;
      assert.equal(row.code, 'DEADLINE_MISSED');
      const report = await seeker.task(pending.body.task_id, hired.id);
      assert.deepEqual([report.status, report.body.error.code, report.body.refund], [200, 'DEADLINE_MISSED', missed]);
      await books(hired, { calls: 1, state: 'SIGNED' });
      assert.ok(took < LATENCY + 2000, `${took} ms`);
    });
  }

  test('verifying takes longer than max_latency_ms: DEADLINE_MISSED, and Claude is not called in vain', async () => {
    stack.facilitator.onVerify = async (call, next) => (await sleep(LATENCY + 700), next());
    stack.claude.script = () => [hang];
    const hired = await hire({}, { sla });
    const began = Date.now();
    refused(await seeker.buy(hired, INPUT), 504, 'DEADLINE_MISSED');
    const took = Date.now() - began;
    assert.ok(took < LATENCY + 3000, `${took} ms`);
    await books(hired, { calls: 0, state: 'SIGNED' });
  });

  const within = (ms) => ({ terms: { deadline: new Date(Date.now() + ms).toISOString() } });
  test("the contract's deadline passes before it is executed: DEADLINE_MISSED, with a payment and without; REJECTED", async () => {
    const hired = await hire({}, within(1800));
    const payment = await seeker.pay(hired.id, INPUT, account);
    await sleep(1900);
    for (const headers of [{}, payment]) refused(await seeker.execute(hired.id, INPUT, headers), 504, 'DEADLINE_MISSED');
    assert.equal(stack.facilitator.calls.length, 0);
    await books(hired, { calls: 0, state: 'REJECTED' });
  });

  test("the contract's deadline passes while Claude writes: DEADLINE_MISSED, not charged, and no other execution", async () => {
    stack.claude.script = () => [start(), open(), delta('Coin'), hang];
    const began = Date.now();
    const hired = await hire({}, within(2500));
    const payment = await seeker.pay(hired.id, INPUT, account);
    refused(await seeker.execute(hired.id, INPUT, payment), 504, 'DEADLINE_MISSED');
    stack.claude.script = hello;
    await books(hired, { calls: 1, state: 'REJECTED' });
    const again = await seeker.execute(hired.id, INPUT, payment);
    assert.ok(['DEADLINE_MISSED', 'CONTRACT_ENDED'].includes(again.body.error.code), JSON.stringify(again.body));
    assert.ok(!/result is not kept/.test(again.body.error.message), 'there never was a result');
    await books(hired, { calls: 1, state: 'REJECTED' });
    assert.ok(Date.now() - began < 6500, `${Date.now() - began} ms`);
  });

  test('a contract that was completed in time stays so after its deadline', async () => {
    const hired = await hire({}, within(2000));
    const done = await seeker.buy(hired, INPUT);
    await sleep(2100);
    assert.deepEqual((await seeker.execute(hired.id, INPUT)).body, done.body);
    await books(hired, PAID);
  });

  test('a result that was whole in time is delivered, though its settlement takes longer', async () => {
    stack.facilitator.onSettle = async (call, next) => (await sleep(LATENCY + 1000), next());
    const hired = await hire({}, { sla });
    const done = await seeker.buy(hired, INPUT);
    assert.deepEqual([done.status, done.body.status], [200, 'completed']);
    await books(hired, PAID);
  });

  test('the call that corrects an answer has the same deadline', async () => {
    stack.claude.script = (_, n) => (n === 1 ? say('no JSON', { every: 800 }) : [hang]);
    const hired = await hire({ output_type: 'json' }, { sla });
    const began = Date.now();
    refused(await seeker.buy(hired, INPUT), 504, 'DEADLINE_MISSED');
    await books(hired, { calls: 2, state: 'SIGNED' });
    assert.ok(Date.now() - began < LATENCY + 2500);
  });
});

describe('the runtime is killed', () => {
  const never = new Promise(() => {});
  for (const [name, hold] of [
    ['amid the work', () => { stack.claude.script = () => [start(), open(), delta('half'), hang]; return () => asked(); }],
    ['before Claude answers', () => { stack.claude.script = () => [hang]; return () => asked(); }],
    ['while the settlement is asked for', () => { stack.facilitator.onSettle = () => never; return () => settles(); }],
    ['when the settlement is done, and not answered', () => {
      let done = false;
      stack.facilitator.onSettle = async (call, next) => { await next(); done = true; return never; };
      return () => done;
    }],
  ]) {
    test(`${name}: the task ends without a caller, charged once`, async () => {
      const hired = await hire();
      const there = hold();
      const pending = await seeker.buy(hired, INPUT, ASYNC);
      assert.equal(pending.status, 202);
      await until(there);
      await sleep(150);
      await stack.kill();
      stack.claude.script = hello;
      stack.facilitator.onSettle = undefined;
      await stack.revive();
      const row = await rested('delivered', 70_000);
      const report = await seeker.task(pending.body.task_id, hired.id);
      assert.deepEqual([report.body.status, report.body.output?.content, ledgerId(report.body.metadata.run)], ['completed', TEXT, row.id]);
      assert.equal((await stack.rows('payer = ?', account.address)).length, 1);
      await books(hired, { paid: HAIKU_PRICE, state: 'COMPLETED' });
    });
  }

  test('while a task runs whose deadline passes meanwhile: DEADLINE_MISSED, not charged', async () => {
    stack.claude.script = () => [start(), open(), delta('half'), hang];
    const hired = await hire({}, { sla: { max_latency_ms: 1500 } });
    const pending = await seeker.buy(hired, INPUT, ASYNC);
    await until(asked);
    await stack.kill();
    stack.claude.script = () => [hang];
    await stack.revive();
    const row = await rested('failed', 70_000);
    assert.equal(row.code, 'DEADLINE_MISSED');
    assert.equal((await seeker.task(pending.body.task_id, hired.id)).body.error.code, 'DEADLINE_MISSED');
    await books(hired, { state: 'SIGNED' });
  });
});
