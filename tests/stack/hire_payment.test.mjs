// Payments: a contract is paid by its seeker only, and one payment buys one delivery, wherever it is presented.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { reply } from '../../dev/facilitator.mjs';
import { apiError, delta, end, open, shut, start, stop } from '../support/claude.mjs';
import { NOTHING, PAID, WHOLE, account, asked, books, earnings, ended, gated, hello, newAccount, refused, seeker, seekerStack, settles, stack } from '../support/seeker_stack.mjs';
import { HAIKU, HAIKU_PRICE, INPUT, decodeHeader, decodeTerms, encodeHeader, gate, grace, sleep, until } from '../support/stack.mjs';

seekerStack();

describe('who pays', () => {
  test("another wallet than the seeker's: 403 SEEKER_MISMATCH, and Claude is not asked", async () => {
    const hired = await seeker.hire(account);
    const other = await stack.payer();
    refused(await seeker.execute(hired.id, INPUT, await seeker.pay(hired.id, INPUT, other)), 403, 'SEEKER_MISMATCH');
    assert.equal(await stack.balance(other), WHOLE);
    assert.equal(stack.facilitator.calls.length, 0);
    await books(hired, NOTHING);
    // The contract's own seeker can still execute it.
    assert.equal((await seeker.buy(hired, INPUT)).body.status, 'completed');
    await books(hired, PAID);
  });

  const now = () => Math.floor(Date.now() / 1000);
  for (const [name, options, code, field] of [
    ['too little', () => ({ authorization: { value: '9999' } }), 'PAYMENT_MISMATCH', 'authorization.value'],
    ['too much', () => ({ authorization: { value: '10001' } }), 'PAYMENT_MISMATCH', 'authorization.value'],
    ['for another recipient', () => ({ authorization: { to: grace.address } }), 'PAYMENT_MISMATCH', 'authorization.to'],
    ['for terms with another recipient', () => ({ accepted: { payTo: grace.address } }), 'PAYMENT_MISMATCH', 'payTo'],
    ['expired', () => ({ authorization: { validBefore: String(now() - 1) } }), 'PAYMENT_EXPIRED'],
    ['too short', () => ({ authorization: { validBefore: String(now() + 10) } }), 'PAYMENT_EXPIRED'],
    ['not valid yet', () => ({ authorization: { validAfter: String(now() + 100) } }), 'PAYMENT_NOT_YET_VALID'],
  ]) {
    test(`a payment that is ${name}: 402 with the field's name, and nothing is begun`, async () => {
      const hired = await seeker.hire(account);
      const answer = await seeker.execute(hired.id, INPUT, await seeker.pay(hired.id, INPUT, account, options()));
      refused(answer, 402, code);
      if (field) assert.equal(answer.body.details.details.field, field);
      assert.ok(answer.headers.get('payment-required'));
      assert.equal(answer.headers.get('x-payment-amount'), hired.contract.terms.price.amount);
      await books(hired, NOTHING);
    });
  }

  test('a wallet that holds too little: 402, and the contract can still be executed', async () => {
    const poor = await stack.payer(5_000n);
    const hired = await seeker.hire(poor);
    const payment = await seeker.pay(hired.id, INPUT, poor);
    refused(await seeker.execute(hired.id, INPUT, payment), 402, 'PAYMENT_INVALID');
    await books(hired, { ...NOTHING, whole: 5_000n });
    await stack.chain.mint(poor.address, 5_000n);
    assert.equal((await seeker.execute(hired.id, INPUT, payment)).body.status, 'completed');
    await books(hired, { ...PAID, whole: 10_000n });
  });

  test("a stranger's signature in the seeker's name does not get the seeker refused", async () => {
    const hired = await seeker.hire(account);
    const payment = await seeker.pay(hired.id, INPUT, account);
    // Only the facilitator can judge a signature of this form; the nonce is the stranger's own.
    const terms = decodeTerms(await stack.post('/execute', INPUT, { 'x-contract-id': hired.id }));
    const payload = await stack.authorize(account, terms.accepts[0]);
    const forged = { 'payment-signature': encodeHeader({ x402Version: 2, resource: terms.resource, accepted: terms.accepts[0], payload: { ...payload, signature: `0x${'22'.repeat(100)}` } }) };
    const [bogus, real] = await Promise.all([seeker.execute(hired.id, INPUT, forged), seeker.execute(hired.id, INPUT, payment)]);
    assert.equal(real.status, 200, JSON.stringify(real.body));
    // In either order the stranger gets no more than the seeker's result, for they knew contract and input.
    assert.ok([200, 402].includes(bogus.status), `${bogus.status}`);
    assert.equal(stack.facilitator.count('verify'), 1, 'nobody is troubled with what no wallet can have signed');
    await books(hired, PAID);
  });
});

describe('one payment, one delivery', () => {
  const prompt = async (headers) => {
    const response = await stack.post(HAIKU, INPUT, { accept: 'application/json', ...headers });
    return { status: response.status, body: await response.json() };
  };
  const code = ({ body }) => (body.error?.code ?? body.details?.code ?? body.code);

  /** One of these answers is a delivery, the others are PAYMENT_REUSED; one call of Claude, one settlement, one charge. */
  async function oneOf(answers) {
    assert.deepEqual(answers.map((a) => a.status).sort(), [200, ...Array(answers.length - 1).fill(409)], JSON.stringify(answers.map(code)));
    for (const answer of answers.filter((a) => a.status === 409)) {
      assert.equal(code(answer), 'PAYMENT_REUSED');
      assert.ok(!JSON.stringify(answer.body).includes('Coin falls'));
    }
    assert.equal(asked(), 1);
    assert.equal(settles(), 1);
    assert.equal(await stack.balance(account), WHOLE - HAIKU_PRICE);
    assert.equal(await earnings(), HAIKU_PRICE);
  }

  const pairs = {
    'two contracts': async () => {
      const [a, b] = [await seeker.hire(account), await seeker.hire(account)];
      const payment = await seeker.pay(a.id, INPUT, account);
      return [a, b].map((hired) => ({ hired, go: () => seeker.execute(hired.id, INPUT, payment) }));
    },
    'a contract and a prompt': async () => {
      const hired = await seeker.hire(account);
      const payment = await seeker.pay(hired.id, INPUT, account, { named: false });
      return [{ hired, go: () => seeker.execute(hired.id, INPUT, payment) }, { go: () => prompt(payment) }];
    },
    'a contract by v2 and a prompt by v1': async () => {
      const hired = await seeker.hire(account);
      const payment = await seeker.pay(hired.id, INPUT, account);
      const { payload } = decodeHeader(payment['payment-signature']);
      const v1 = { 'x-payment': encodeHeader({ x402Version: 1, scheme: 'exact', network: 'base-sepolia', payload }) };
      return [{ hired, go: () => seeker.execute(hired.id, INPUT, payment) }, { go: () => prompt(v1) }];
    },
    'a prompt and a contract': async () => (await pairs['a contract and a prompt']()).reverse(),
  };
  for (const [name, make] of Object.entries(pairs)) {
    test(`${name}, the second while the first is under way, and after it, and after eviction`, async () => {
      const more = gated();
      const [first, second] = await make();
      const answer = first.go();
      await until(asked);
      const meanwhile = await second.go();
      more.open();
      const delivered = await answer;
      await oneOf([delivered, meanwhile]);
      assert.equal(meanwhile.status, 409);
      await oneOf([delivered, await second.go()]);
      await until(async () => (await stack.rows('payer = ?', account.address))[0]);
      await stack.evict();
      await oneOf([await first.go(), await second.go()]);
      assert.deepEqual((await first.go()).body, delivered.body);
      if (first.hired) await books(first.hired, PAID);
      if (second.hired) await books(second.hired, { ...PAID, state: 'SIGNED' });
      // The other contract can still be executed, with a payment of its own.
      if (second.hired) {
        assert.equal((await seeker.buy(second.hired, INPUT)).body.status, 'completed');
        await books(second.hired, { paid: 2n * HAIKU_PRICE, calls: 2, state: 'COMPLETED' });
      }
    });

    test(`${name}, at the same moment, and again after eviction (6 rounds)`, async () => {
      for (let round = 0; round < 6; round++) {
        stack.reset(hello);
        await newAccount();
        const more = gated();
        const both = await make();
        const answers = both.map(({ go }) => go());
        await until(asked);
        await sleep(150);
        assert.equal(asked(), 1, 'Claude works twice for one payment');
        more.open();
        const results = await Promise.all(answers);
        await oneOf(results);
        for (const [i, { hired }] of both.entries()) {
          if (hired) await books(hired, { ...PAID, state: results[i].status === 200 ? 'COMPLETED' : 'SIGNED' });
        }
        await until(async () => (await stack.rows('payer = ?', account.address))[0]);
        await stack.evict();
        const again = await Promise.all(both.map(({ go }) => go()));
        await oneOf(again);
        assert.deepEqual(again.map((a) => a.status), results.map((a) => a.status));
      }
    });
  }

  test('a payment for the terms of a contract buys no prompt, and one for those of a prompt no contract', async () => {
    const hired = await seeker.hire(account);
    const contracts = await seeker.pay(hired.id, INPUT, account);
    const prompts = await stack.signPayment(HAIKU, INPUT, account);
    const [a, b] = [await prompt(contracts), await seeker.execute(hired.id, INPUT, prompts)];
    assert.deepEqual([a.status, b.status], [402, 402]);
    for (const answer of [a, b]) assert.match(JSON.stringify(answer.body), /resource differs|PAYMENT_MISMATCH/);
    assert.deepEqual([asked(), settles()], [0, 0]);
    assert.equal((await seeker.execute(hired.id, INPUT, contracts)).body.status, 'completed');
    await books(hired, PAID);
  });

  test('a payment whose contract has failed buys nothing elsewhere; the contract executes again with it', async () => {
    stack.claude.script = () => apiError(401);
    const hired = await seeker.hire(account);
    const payment = await seeker.pay(hired.id, INPUT, account, { named: false });
    assert.equal((await seeker.execute(hired.id, INPUT, payment)).body.status, 'failed');
    stack.claude.script = hello;
    const elsewhere = await prompt(payment);
    assert.deepEqual([elsewhere.status, code(elsewhere)], [409, 'PAYMENT_REUSED']);
    assert.equal((await seeker.execute(hired.id, INPUT)).body.status, 'completed');
    await books(hired, { ...PAID, calls: 2 });
  });
});

// Nothing is kept of a payment that cannot be verified; what was kept before stays.
describe('a payment that cannot be verified', () => {
  const down = () => reply(500, { error: 'down' });

  test('at a template, and is then used for a contract, buys nothing else', async () => {
    const reserved = await seeker.hire(account);
    const payment = await seeker.pay(reserved.id, INPUT, account, { named: false });
    stack.facilitator.onVerify = down;
    assert.equal((await stack.post(HAIKU, INPUT, { accept: 'application/json', ...payment })).status, 503);
    stack.facilitator.onVerify = undefined;
    const opened = gate();
    stack.claude.script = () => [start(), open(), delta('slowly'), () => opened.opened, shut(), end(), stop];
    const pending = await seeker.execute(reserved.id, INPUT, { ...payment, prefer: 'respond-async' });
    assert.equal(pending.status, 202);
    await until(asked);
    stack.claude.script = hello;
    const elsewhere = await stack.post(HAIKU, INPUT, { accept: 'application/json', ...payment });
    opened.open();
    const report = await ended(pending.body.task_id, reserved.id, 20_000);
    assert.deepEqual([elsewhere.status, report.body.status], [409, 'completed']);
    await books(reserved, PAID);
  });

  test('for a contract that has failed before: the earlier execution still counts', async () => {
    const failing = await seeker.hire(account, { sla: { retry_policy: '2 attempts' } });
    const payment = await seeker.pay(failing.id, INPUT, account);
    const another = await seeker.pay(failing.id, INPUT, account);
    stack.claude.script = () => apiError(401);
    assert.equal((await seeker.execute(failing.id, INPUT, payment)).body.attempts_left, 1);
    stack.facilitator.onVerify = down;
    refused(await seeker.execute(failing.id, INPUT, another), 503, 'FACILITATOR_UNAVAILABLE');
    stack.facilitator.onVerify = undefined;
    await stack.evict();
    const last = await seeker.execute(failing.id, INPUT, payment);
    assert.deepEqual([last.body.status, last.body.attempts_left], ['failed', 0]);
    refused(await seeker.execute(failing.id, INPUT, another), 409, 'RETRIES_EXHAUSTED');
    await books(failing, { paid: 0n, calls: 2, state: 'REJECTED' });
  });
});
