// Limits: no unbounded unpaid work, no result without payment, no payment without a result.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { reply } from '../../dev/facilitator.mjs';
import { apiError, delta, end, open, say, shut, start, stop } from '../support/claude.mjs';
import { startListener } from '../support/hire.mjs';
import { TEXT, WHOLE, account, asked, seeker, seekerStack, stack, stateOf } from '../support/seeker_stack.mjs';
import { HAIKU_PRICE, INPUT, ada, gate, sleep, until } from '../support/stack.mjs';

seekerStack({ vars: { LIMITS: JSON.stringify({ unpaidPerWalletDay: 4 }) } });

/** Waits until the contract is in this state. */
const rests = ({ id }, state) => until(async () => (await stateOf(id)) === state, { what: `a contract that is ${state}` });
/** From now on the facilitator refuses every settlement. */
const refuseToSettle = () => void (stack.facilitator.onSettle = () => reply(200, { success: false, errorReason: 'insufficient_funds', transaction: '', network: 'eip155:84532' }));

describe('work that is not paid', () => {
  test('an execution whose settlement was refused counts: with retry_policy none there is no other, with any input', async () => {
    const contract = await seeker.hire(account, { sla: { retry_policy: 'none' } });
    refuseToSettle();
    const first = await seeker.buy(contract, INPUT);
    assert.equal(first.status, 402, JSON.stringify(first.body));
    await rests(contract, 'REJECTED');
    stack.facilitator.onSettle = undefined;
    for (const input of [INPUT, { topic: 'another' }]) {
      const again = await seeker.execute(contract.id, input);
      assert.equal(again.status, 409, JSON.stringify(again.body));
    }
    assert.equal(asked(), 1);
    assert.equal(await stack.balance(account), WHOLE);
  });

  test('an execution whose settlement was not sent counts too, and the same payment is tried again without its header', async () => {
    const contract = await seeker.hire(account, { sla: { retry_policy: '2 attempts' } });
    stack.facilitator.onSettle = () => reply(404, { error: 'not here' });
    const first = await seeker.buy(contract, INPUT);
    assert.equal(first.status, 503, JSON.stringify(first.body));
    await rests(contract, 'SIGNED');
    stack.facilitator.onSettle = undefined;
    const second = await seeker.execute(contract.id, INPUT);
    assert.equal(second.body.status, 'completed', JSON.stringify(second.body));
    assert.equal(second.body.metadata.execution, 2);
    assert.equal(asked(), 2);
    assert.equal(await stack.balance(account), WHOLE - HAIKU_PRICE);
  });

  test('a wallet has a daily limit of executions that came to nothing by its doing; paid ones do not count, nor do faults of Claude', async () => {
    // No JSON, so the contract asks for what cannot be had.
    const failing = { task: { output_type: 'json' }, sla: { retry_policy: 'none' } };
    const fail = async (options) => {
      const contract = await seeker.hire(account, options);
      assert.equal((await seeker.buy(contract, INPUT)).body.status, 'failed');
    };
    for (let n = 0; n < 3; n++) await fail(failing);
    stack.claude.script = () => apiError(400);
    for (let n = 0; n < 2; n++) await fail({ sla: { retry_policy: 'none' } });
    stack.claude.script = () => say(TEXT);
    for (let n = 0; n < 3; n++) {
      const contract = await seeker.hire(account);
      assert.equal((await seeker.buy(contract, INPUT)).body.status, 'completed');
      await rests(contract, 'COMPLETED');
    }
    const contract = await seeker.hire(account, { task: { output_type: 'json' } });
    assert.equal((await seeker.buy(contract, INPUT)).body.status, 'failed');
    const before = asked();
    // Its second execution would be the wallet's fifth that is not paid.
    const again = await seeker.execute(contract.id, INPUT);
    assert.deepEqual([again.status, again.body.error?.code], [429, 'TOO_MANY_UNPAID_RUNS'], JSON.stringify(again.body));
    assert.ok(Number(again.headers.get('retry-after')) > 0);
    assert.equal(asked(), before);
    // Another wallet's executions are counted separately.
    const other = await seeker.hire(await stack.payer());
    assert.equal((await seeker.buy(other, INPUT)).body.status, 'completed');
  });

  test('of many contracts at once on one balance, Claude is called for as many as the limit only', async () => {
    const account = await stack.payer(HAIKU_PRICE);
    const contracts = await Promise.all(Array.from({ length: 8 }, () => seeker.hire(account)));
    const before = await stack.balance(ada);
    const answers = await Promise.all(contracts.map((contract) => seeker.buy(contract, INPUT)));
    assert.ok(asked() <= 4, `${asked()} calls`);
    assert.equal(answers.filter((a) => a.status === 200).length, 1);
    assert.equal((await stack.balance(ada)) - before, HAIKU_PRICE);
  });
});

describe('what was paid for', () => {
  test('a result that is nested too deeply to be read is no result, and is not charged', async () => {
    const deep = (n) => '['.repeat(n) + ']'.repeat(n);
    for (const [depth, wanted] of [[90, 'completed'], [97, 'failed'], [126, 'failed'], [127, 'failed'], [400, 'failed']]) {
      stack.claude.script = () => say(deep(depth));
      const contract = await seeker.hire(account, { task: { output_type: 'json' }, sla: { retry_policy: 'none' } });
      const balance = await stack.balance(account);
      const done = await seeker.buy(contract, INPUT);
      assert.equal(done.body.status, wanted, `${depth}: ${JSON.stringify(done.body).slice(0, 300)}`);
      assert.equal(balance - (await stack.balance(account)), wanted === 'completed' ? HAIKU_PRICE : 0n);
      const polled = await seeker.task(done.body.task_id, contract.id);
      assert.deepEqual([polled.status, polled.body.status], [200, wanted]);
    }
  });

  test('a stream that has begun in time is finished after its deadline, and is paid once', async () => {
    const slow = gate();
    stack.claude.script = () => [start(), open(), delta('Coin '), () => slow.opened, delta('falls'), shut(), end(), stop];
    const contract = await seeker.hire(account, { task: { output_type: 'stream' }, sla: { max_latency_ms: 1500 } });
    const begun = await seeker.buy(contract, INPUT);
    assert.equal(begun.status, 202, JSON.stringify(begun.body));
    await sleep(2500);
    slow.open();
    const done = await until(async () => {
      const { body } = await seeker.task(begun.body.task_id, contract.id);
      return body.status !== 'pending' && body;
    });
    assert.equal(done.status, 'completed', JSON.stringify(done));
    assert.equal(await stack.balance(account), WHOLE - HAIKU_PRICE);
  });

  test('a later change of the capability does not change a registered contract', async () => {
    const [before, later] = [await seeker.hire(account), await seeker.hire(account)];
    const done = await seeker.buy(before, INPUT);
    assert.equal(done.body.output.type, 'text');
    await stack.DB.prepare("INSERT INTO capabilities (template_id, output, output_schema) VALUES ('template_ada_haiku', 'json', '{\"type\":\"object\"}')").run();
    try {
      assert.deepEqual((await seeker.execute(before.id, INPUT)).body, done.body);
      const late = await seeker.buy(later, INPUT);
      assert.deepEqual([late.status, late.body.output?.type], [200, 'text'], JSON.stringify(late.body));
    } finally {
      await stack.DB.prepare("DELETE FROM capabilities WHERE template_id = 'template_ada_haiku'").run();
    }
  });
});

describe('time', () => {
  test('respond-async is answered at once, though the facilitator is slow; the refusal comes by webhook and poll', async () => {
    const listener = await startListener();
    try {
      const account = await stack.payer();
      const contract = await seeker.hire(account, { party: { webhook_url: listener.url } });
      const payment = await seeker.pay(contract.id, INPUT, account);
      stack.facilitator.onVerify = async () => {
        await sleep(5000);
        return reply(200, { isValid: false, invalidReason: 'insufficient_funds', payer: account.address });
      };
      const began = Date.now();
      const answer = await seeker.execute(contract.id, INPUT, { ...payment, prefer: 'respond-async' });
      assert.ok(Date.now() - began < 4000, `${Date.now() - began} ms`);
      assert.deepEqual([answer.status, answer.body.status], [202, 'pending'], JSON.stringify(answer.body));
      await until(() => listener.received.length, { timeout: 10_000 });
      const message = JSON.parse(listener.received[0].body);
      assert.deepEqual([message.event, message.error.code, message.refund.charged], ['task_failed', 'PAYMENT_INVALID', false]);
      assert.equal((await seeker.task(answer.body.task_id, contract.id)).body.status, 'failed');
      await rests(contract, 'SIGNED');
      assert.equal(asked(), 0);
    } finally {
      await listener.close();
    }
  });

  test('Preference-Applied has the longest wait that was applied', async () => {
    const contract = await seeker.hire(await stack.payer());
    const done = await seeker.buy(contract, INPUT, { prefer: 'wait=600' });
    assert.equal(done.headers.get('preference-applied'), 'wait=27');
  });
});
