// A contract is executed (HIRE, "Execution"): what is asked, who pays, how often, and what of it is ever charged.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { drop, reply } from '../../dev/facilitator.mjs';
import { apiError, say } from '../support/claude.mjs';
import { inObjects } from '../support/objects.mjs';
import { NOTHING, PAID, TEXT, WHOLE, account, asked, books, gated, hello, refused, seeker, seekerStack, settles, stack } from '../support/seeker_stack.mjs';
import { INPUT, NETWORK, USDC, ada, decodeHeader, decodeReceipt, decodeTerms, encodeHeader, ledgerId, sleep, until } from '../support/stack.mjs';

seekerStack({
  async prepare() {
    const optional = ['brief', 'colors', 'style_references'].map((name) => ({ name }));
    await stack.addTemplate('logo', { prompt: 'brief: {brief}{/brief}\ncolors: {colors}{/colors}\nstyle: {style_references}{/style_references}', parameters: optional });
  },
});

describe('402', () => {
  test("asks for the contract's amount as the contract writes it: in HIRE's headers, in x402's of v2, and in a body of v1", async () => {
    const price = { amount: '0.0200', currency: 'USDC', network: 'base' };
    const hired = await seeker.hire(account, { terms: { price } });
    const response = await stack.post('/execute', INPUT, { 'x-contract-id': hired.id });
    assert.equal(response.status, 402);
    const header = (name) => response.headers.get(name);
    assert.equal(header('x-payment-address').toLowerCase(), ada.address.toLowerCase());
    assert.equal(header('x-payment-amount'), '0.0200');
    assert.equal(header('x-payment-currency'), 'USDC');
    assert.equal(header('x-payment-network'), 'base');
    const exposed = header('access-control-expose-headers').toLowerCase();
    for (const name of ['x-payment-address', 'x-payment-amount', 'x-payment-currency', 'x-payment-network', 'payment-required']) assert.ok(exposed.includes(name), name);

    const terms = decodeTerms(response);
    assert.equal(terms.x402Version, 2);
    assert.equal(terms.resource.url, `${stack.url}/execute`);
    const [offer, ...others] = terms.accepts;
    assert.deepEqual(others, [], 'a contract is paid on its own network only');
    assert.deepEqual([offer.scheme, offer.network, offer.amount, offer.asset.toLowerCase()], ['exact', NETWORK, '20000', USDC.toLowerCase()]);
    assert.equal(offer.payTo.toLowerCase(), ada.address.toLowerCase());

    const body = await response.json();
    assert.equal(body.x402Version, 1);
    assert.deepEqual([body.accepts.length, body.accepts[0].network, body.accepts[0].maxAmountRequired], [1, 'base-sepolia', '20000']);
    assert.equal(typeof body.error, 'string', "x402 v1's `error` is a text");
    assert.deepEqual([body.status, body.contract_id, body.details.code], ['failed', hired.id, 'PAYMENT_REQUIRED']);
    await books(hired, NOTHING);

    // This amount is charged, and not the template's price.
    const done = await seeker.buy(hired, INPUT);
    assert.equal(done.body.status, 'completed');
    await books(hired, { ...PAID, paid: 20_000n });
  });

  test('the terms announce an answer in JSON, and it is', async () => {
    const hired = await seeker.hire(account);
    const response = await stack.post('/execute', INPUT, { 'x-contract-id': hired.id });
    const answer = await seeker.buy(hired, INPUT);
    assert.equal(answer.headers.get('content-type'), 'application/json');
    assert.equal(decodeTerms(response).resource.mimeType, 'application/json');
    assert.equal((await response.json()).accepts[0].mimeType, 'application/json');
    await books(hired, PAID);
  });

  for (const version of ['v2', 'v1', 'the official client']) {
    test(`paid with ${version}`, async () => {
      const hired = await seeker.hire(account);
      const id = { 'x-contract-id': hired.id };
      const pay = {
        v2: async () => stack.post('/execute', INPUT, { ...id, ...(await seeker.pay(hired.id, INPUT, account)) }),
        v1: async () => {
          const asks = await stack.post('/execute', INPUT, id);
          const [offer] = (await asks.json()).accepts;
          const payload = await stack.authorize(account, offer);
          return stack.post('/execute', INPUT, { ...id, 'x-payment': encodeHeader({ x402Version: 1, scheme: 'exact', network: offer.network, payload }) });
        },
        'the official client': () => stack.payV2('/execute', INPUT, id, account),
      };
      const response = await pay[version]();
      const body = await response.json();
      assert.equal(response.status, 200, JSON.stringify(body));
      assert.deepEqual([body.status, body.contract_id, body.output.content], ['completed', hired.id, TEXT]);
      const receipt = decodeReceipt(response, version === 'v1' ? 'x-payment-response' : 'payment-response');
      assert.equal(receipt.success, true);
      assert.equal(receipt.transaction, body.metadata.transaction);
      assert.equal((await stack.chain.receipt(receipt.transaction)).status, 'success');
      await books(hired, PAID);
    });
  }

  test('without a contract there is no price: 400 without an id or for a malformed one, 404 for an unknown one', async () => {
    const payment = await seeker.pay((await seeker.hire(account)).id, INPUT, account);
    for (const [headers, status, code] of [
      [{}, 400, 'CONTRACT_ID_MISSING'],
      [{ 'x-contract-id': 'xyz789' }, 400, 'CONTRACT_ID_MISSING'],
      [{ 'x-contract-id': 'ctr_nobodyhassigned' }, 404, 'NOT_FOUND'],
    ]) {
      refused(await seeker.post('/execute', INPUT, { ...headers, ...payment }), status, code);
    }
    assert.equal(await stack.balance(account), WHOLE);
    assert.equal(asked(), 0);
  });
});

describe('the input', () => {
  for (const [name, input, code, field] of [
    ['without a required parameter', { mood: 'playful' }, 'MISSING_PARAMETER', 'topic'],
    ['with null for a required parameter', { topic: null }, 'MISSING_PARAMETER', 'topic'],
    ['with a parameter that the template does not know', { topic: 'a', colour: 'red' }, 'UNKNOWN_PARAMETER', 'colour'],
    ['with a value that is too long', { topic: 'x'.repeat(201) }, 'VALUE_TOO_LONG', 'topic'],
    ['that is no object', ['topic'], 'INVALID_INPUT', 'body'],
    ['that is no JSON', '{"topic": ', 'INVALID_JSON', 'body'],
  ]) {
    test(`${name}: 400 before any payment is asked for, and with one`, async () => {
      const hired = await seeker.hire(account);
      const payment = await seeker.pay(hired.id, INPUT, account);
      for (const headers of [{}, payment]) {
        const answer = await seeker.execute(hired.id, input, headers);
        refused(answer, 400, code);
        assert.equal(answer.body.contract_id, hired.id);
        assert.equal(answer.body.error.details.field, field);
        assert.equal(answer.headers.get('payment-required'), null);
      }
      assert.equal(stack.facilitator.calls.length, 0);
      await books(hired, NOTHING);
      // The same payment buys the right input.
      assert.equal((await seeker.execute(hired.id, INPUT, payment)).body.status, 'completed');
      await books(hired, PAID);
    });
  }

  test('values other than strings are put into the prompt as JSON text, strings as they are', async () => {
    const input = { brief: 'a "coin" & a slot', colors: ['#FF5733', { dark: true, at: [1, 2.5, null] }], style_references: 7 };
    const hired = await seeker.hire(account, { capability: 'logo' });
    assert.equal((await seeker.buy(hired, input)).body.status, 'completed');
    const { system } = stack.claude.requests[0].body;
    assert.equal(typeof system === 'string' ? system : system[0].text, 'brief: a "coin" & a slot\ncolors: ["#FF5733",{"at":[1,2.5,null],"dark":true}]\nstyle: 7');
    await books(hired, PAID);
  });

  test('a number beyond what a double holds reaches the prompt as it was sent, or is refused', async () => {
    const hired = await seeker.hire(account, { capability: 'logo' });
    const payment = await seeker.pay(hired.id, { brief: 'x' }, account);
    const answer = await seeker.execute(hired.id, '{"brief": 9007199254740993}', payment);
    if (answer.status === 400) return books(hired, NOTHING);
    const { system } = stack.claude.requests[0].body;
    assert.match(typeof system === 'string' ? system : system[0].text, /brief: 9007199254740993\n/);
    await books(hired, PAID);
  });

  test("the contract's input_schema: INVALID_INPUT names the field, with and without a payment", async () => {
    const input_schema = {
      type: 'object',
      required: ['brief', 'colors'],
      properties: { brief: { type: 'string' }, colors: { type: 'array', items: { type: 'string', pattern: '^#[0-9A-F]{6}$' } } },
    };
    const hired = await seeker.hire(account, { capability: 'logo', task: { input_schema } });
    const good = { brief: 'a logo', colors: ['#FF5733'] };
    const payment = await seeker.pay(hired.id, good, account);
    for (const [input, field] of [[{ brief: 'a logo', colors: ['red'] }, 'colors[0]'], [{ brief: 'a logo', colors: ['#FF5733', 5] }, 'colors[1]'], [{ brief: 'a logo' }, 'colors']]) {
      for (const headers of [{}, payment]) {
        const answer = await seeker.execute(hired.id, input, headers);
        refused(answer, 400, 'INVALID_INPUT');
        assert.ok([field, 'body'].includes(answer.body.error.details.field), answer.body.error.details.field);
        if (field.includes('[')) assert.equal(answer.body.error.details.field, field);
      }
    }
    await books(hired, NOTHING);
    assert.equal((await seeker.execute(hired.id, good, payment)).body.status, 'completed');
    await books(hired, PAID);
  });
});

describe('a contract that is executed again', () => {
  test('while it runs: the same task, pending; afterwards: the same answer; with a payment, without, and with another: one call, one charge', async () => {
    const more = gated();
    const hired = await seeker.hire(account);
    const payment = await seeker.pay(hired.id, INPUT, account);
    const another = await seeker.pay(hired.id, INPUT, account);
    const first = seeker.execute(hired.id, INPUT, payment);
    await until(asked);
    const tasks = new Set();
    for (const headers of [payment, {}, another]) {
      const answer = await seeker.execute(hired.id, INPUT, { ...headers, prefer: 'respond-async' });
      assert.deepEqual([answer.status, answer.body.status], [202, 'pending']);
      tasks.add(answer.body.task_id);
    }
    await books(hired, { paid: 0n, calls: 1, state: 'EXECUTING' });
    more.open();
    const done = await first;
    assert.equal(done.status, 200);
    tasks.add(done.body.task_id);
    assert.equal(tasks.size, 1);
    await books(hired, PAID);
    for (const headers of [payment, {}, another]) {
      const again = await seeker.execute(hired.id, INPUT, headers);
      assert.equal(again.status, 200);
      assert.deepEqual(again.body, done.body);
      assert.equal(again.headers.get('payment-response'), done.headers.get('payment-response'));
    }
    await books(hired, PAID);
    assert.equal(settles(), 1);
    await until(async () => (await stack.rows('payer = ?', account.address)).length);
    assert.equal((await stack.rows('payer = ?', account.address)).length, 1);
  });

  test('the members of the input in another order or spelling are the same input', async () => {
    const hired = await seeker.hire(account);
    const input = { topic: 'm', mood: 'stern' };
    const done = await seeker.buy(hired, input);
    const again = await seeker.execute(hired.id, ' {"mood":"stern", "topic":"\\u006d"} ');
    assert.deepEqual(again.body, done.body);
    await books(hired, PAID);
  });

  for (const [name, payments] of [
    ['with one payment', async (id) => Array(10).fill(await seeker.pay(id, INPUT, account))],
    ['each with a payment of its own', (id) => Promise.all(Array.from({ length: 10 }, () => seeker.pay(id, INPUT, account)))],
  ]) {
    test(`10 at once, ${name}: one call, one charge, one answer for all`, async () => {
      const more = gated();
      const hired = await seeker.hire(account);
      const all = (await payments(hired.id)).map((payment) => seeker.execute(hired.id, INPUT, payment));
      await until(asked);
      await sleep(200);
      more.open();
      const answers = await Promise.all(all);
      assert.deepEqual(answers.map((a) => a.status), Array(10).fill(200));
      for (const { body } of answers) assert.deepEqual(body, answers[0].body);
      await books(hired, PAID);
      assert.equal(settles(), 1);
    });
  }

  test('with another input: 409, while it runs and afterwards, with a payment and without; no call, no charge', async () => {
    const more = gated();
    const hired = await seeker.hire(account);
    const payment = await seeker.pay(hired.id, INPUT, account);
    const first = seeker.execute(hired.id, INPUT, payment);
    await until(asked);
    for (const moment of ['during', 'after']) {
      for (const headers of [{}, payment]) {
        const answer = await seeker.execute(hired.id, { topic: 'another' }, headers);
        refused(answer, 409, 'CONTRACT_INPUT_DIFFERS');
        assert.ok(!JSON.stringify(answer.body).includes('Coin falls'), moment);
      }
      more.open();
      assert.equal((await first).body.status, 'completed');
    }
    await books(hired, PAID);
  });

  test('two inputs race: one is executed, the other is a 409', async () => {
    const more = gated();
    const hired = await seeker.hire(account);
    const payment = await seeker.pay(hired.id, INPUT, account);
    const all = [INPUT, { topic: 'b' }, { topic: 'c' }].map((input) => seeker.execute(hired.id, input, payment));
    await until(asked);
    await sleep(200);
    more.open();
    const answers = await Promise.all(all);
    assert.deepEqual(answers.map((a) => a.status).sort(), [200, 409, 409]);
    await books(hired, PAID);
  });

  test('after the object was evicted: the same answer, and another input is still a 409', async () => {
    const hired = await seeker.hire(account);
    const done = await seeker.buy(hired, INPUT);
    await books(hired, PAID);
    await stack.evict();
    assert.deepEqual((await seeker.execute(hired.id, INPUT)).body, done.body);
    refused(await seeker.execute(hired.id, { topic: 'another' }), 409, 'CONTRACT_INPUT_DIFFERS');
    await books(hired, PAID);
  });

  test('after a day, when the object has forgotten all: a contract that was completed is not executed and charged again', async () => {
    const hired = await seeker.hire(account);
    assert.equal((await seeker.buy(hired, INPUT)).body.status, 'completed');
    await books(hired, PAID);
    await until(async () => (await stack.rows('payer = ?', account.address)).length);
    await forget(hired.id);
    const payment = { 'payment-signature': encodeHeader(await freshPayment(hired)) };
    for (const headers of [{}, payment]) {
      const answer = await seeker.execute(hired.id, INPUT, headers);
      assert.ok([200, 409].includes(answer.status), `${answer.status}: an x402 client would pay again`);
      assert.ok(!/nothing was charged/i.test(answer.body.error?.message), 'it was charged, a day ago');
    }
    await books(hired, PAID);
  });

  test('after a day: a contract whose attempts are used up is not executed again', async () => {
    stack.claude.script = () => apiError(401);
    const hired = await seeker.hire(account, { sla: { retry_policy: 'none' } });
    const payment = await seeker.pay(hired.id, INPUT, account);
    assert.equal((await seeker.execute(hired.id, INPUT, payment)).body.status, 'failed');
    await books(hired, { paid: 0n, calls: 1, state: 'REJECTED' });
    await forget(hired.id);
    stack.claude.script = hello;
    const answer = await seeker.execute(hired.id, INPUT, payment);
    assert.equal(answer.status, 409, JSON.stringify(answer.body));
    await books(hired, { paid: 0n, calls: 1, state: 'REJECTED' });
  });
});

/** A payment for a contract, signed without asking for its terms. */
async function freshPayment({ contract }) {
  const other = await seeker.hire(account);
  const { terms } = await stack.post('/execute', INPUT, { 'x-contract-id': other.id }).then((r) => ({ terms: decodeTerms(r) }));
  const [offer] = terms.accepts;
  assert.equal(contract.terms.price.amount, other.contract.terms.price.amount);
  return { x402Version: 2, resource: terms.resource, accepted: offer, payload: await stack.authorize(account, offer) };
}

/** Deletes the runs of a contract, as their object does a day after the end. */
async function forget(contract) {
  await stack.evict();
  let found = 0;
  inObjects(stack, (db) => {
    for (const { number } of db.prepare('SELECT number FROM runs WHERE instr(record, ?)').all(contract)) {
      for (const table of ['pieces WHERE run', 'keys WHERE run', 'runs WHERE number']) db.prepare(`DELETE FROM ${table} = ?`).run(number);
      found += 1;
    }
  });
  assert.equal(found, 1, `runs of ${contract}`);
}

describe('failures and retries', () => {
  test('Claude is overloaded: failed, not charged, attempts are left; executed again without a payment it succeeds, charged once', async () => {
    stack.claude.script = () => apiError(529);
    const hired = await seeker.hire(account);
    const failed = await seeker.buy(hired, INPUT);
    refused(failed, 503, 'CLAUDE_OVERLOADED');
    assert.equal(failed.body.contract_id, hired.id);
    assert.equal(failed.body.error.charged, false);
    assert.equal(failed.body.attempts_left, 2);
    assert.equal(failed.body.refund.charged, false);
    assert.ok(failed.headers.get('retry-after') || failed.body.error.retryable);
    await books(hired, { paid: 0n, calls: 3, state: 'SIGNED' });
    // Polling gives the same report.
    assert.deepEqual((await seeker.task(failed.body.task_id, hired.id)).body, failed.body);

    stack.claude.script = hello;
    const done = await seeker.execute(hired.id, INPUT);
    assert.equal(done.status, 200, JSON.stringify(done.body));
    assert.deepEqual([done.body.status, done.body.task_id, done.body.metadata.execution], ['completed', failed.body.task_id, 2]);
    await books(hired, { ...PAID, calls: 4 });
    assert.equal(settles(), 1);
  });

  test('a transient failure has a Retry-After', async () => {
    stack.claude.script = () => apiError(529);
    const failed = await seeker.buy(await seeker.hire(account), INPUT);
    assert.equal(failed.status, 503);
    assert.match(failed.headers.get('retry-after') ?? 'none', /^\d+$/);
  });

  for (const policy of ['none', '1 attempt']) {
    test(`retry_policy "${policy}": one execution, then 409 RETRIES_EXHAUSTED, and the contract is REJECTED`, async () => {
      stack.claude.script = () => apiError(401);
      const hired = await seeker.hire(account, { sla: { retry_policy: policy } });
      const payment = await seeker.pay(hired.id, INPUT, account);
      const failed = await seeker.execute(hired.id, INPUT, payment);
      assert.deepEqual([failed.body.status, failed.body.attempts_left], ['failed', 0]);
      stack.claude.script = hello;
      for (const headers of [{}, payment]) refused(await seeker.execute(hired.id, INPUT, headers), 409, 'RETRIES_EXHAUSTED');
      await books(hired, { paid: 0n, calls: 1, state: 'REJECTED' });
    });
  }

  test('without a retry_policy: three executions, counted down; then no other, also after eviction', async () => {
    stack.claude.script = () => apiError(401);
    const hired = await seeker.hire(account);
    const payment = await seeker.pay(hired.id, INPUT, account);
    for (const left of [2, 1, 0]) {
      await books(hired, { paid: 0n, calls: 2 - left, state: 'SIGNED' });
      const failed = await seeker.execute(hired.id, INPUT, left === 2 ? payment : {});
      assert.deepEqual([failed.body.status, failed.body.attempts_left], ['failed', left]);
    }
    await books(hired, { paid: 0n, calls: 3, state: 'REJECTED' });
    await stack.evict();
    stack.claude.script = hello;
    refused(await seeker.execute(hired.id, INPUT, payment), 409, 'RETRIES_EXHAUSTED');
    await books(hired, { paid: 0n, calls: 3, state: 'REJECTED' });
  });

  test('a retry with another input is a 409, and does not count', async () => {
    stack.claude.script = () => apiError(401);
    const hired = await seeker.hire(account, { sla: { retry_policy: '2 attempts' } });
    const payment = await seeker.pay(hired.id, INPUT, account);
    assert.equal((await seeker.execute(hired.id, INPUT, payment)).body.attempts_left, 1);
    refused(await seeker.execute(hired.id, { topic: 'another' }, payment), 409, 'CONTRACT_INPUT_DIFFERS');
    stack.claude.script = hello;
    assert.equal((await seeker.execute(hired.id, INPUT)).body.status, 'completed');
    await books(hired, { ...PAID, calls: 2 });
  });

  test('executed again by five at once: one execution, one charge', async () => {
    stack.claude.script = () => apiError(401);
    const hired = await seeker.hire(account);
    assert.equal((await seeker.buy(hired, INPUT)).body.status, 'failed');
    const more = gated();
    const all = Array.from({ length: 5 }, () => seeker.execute(hired.id, INPUT));
    await until(() => asked() === 2);
    await sleep(200);
    more.open();
    const answers = await Promise.all(all);
    for (const { status, body } of answers) assert.deepEqual([status, body], [200, answers[0].body]);
    assert.equal(answers[0].body.metadata.execution, 2);
    await books(hired, { ...PAID, calls: 2 });
  });

  test('executed again with another payment: only that one is charged', async () => {
    stack.claude.script = () => apiError(401);
    const hired = await seeker.hire(account);
    assert.equal((await seeker.buy(hired, INPUT)).body.status, 'failed');
    stack.claude.script = hello;
    const payment = await seeker.pay((await seeker.hire(account)).id, INPUT, account);
    assert.equal((await seeker.execute(hired.id, INPUT, payment)).body.status, 'completed');
    assert.equal(stack.facilitator.calls.at(-1).body.paymentPayload.payload.signature, decodeHeader(payment['payment-signature']).payload.signature);
    await books(hired, { ...PAID, calls: 2 });
  });

  test('the payment of the first execution has expired: 402, and another one executes the contract', async () => {
    stack.claude.script = () => apiError(401);
    const hired = await seeker.hire(account);
    const short = await seeker.pay(hired.id, INPUT, account, { authorization: { validBefore: String(Math.floor(Date.now() / 1000) + 39) } });
    assert.equal((await seeker.execute(hired.id, INPUT, short)).body.status, 'failed');
    stack.claude.script = hello;
    await sleep(4000); // less is left than beginning and settling may need
    refused(await seeker.execute(hired.id, INPUT), 402, 'PAYMENT_REQUIRED');
    assert.equal((await seeker.buy(hired, INPUT)).body.status, 'completed');
    await books(hired, { ...PAID, calls: 2 });
  });

  test('Claude declines: failed, with one call, not charged', async () => {
    stack.claude.script = () => say('No.', { stop_reason: 'refusal' });
    const hired = await seeker.hire(account);
    const failed = await seeker.buy(hired, INPUT);
    refused(failed, 422, 'CLAUDE_REFUSED');
    assert.ok(!JSON.stringify(failed.body).includes('No.'));
    await books(hired, { paid: 0n, calls: 1, state: 'SIGNED' });
  });

  test('Claude writes nothing: an empty text is no deliverable, and is not charged', async () => {
    stack.claude.script = () => say();
    const hired = await seeker.hire(account);
    assert.equal((await seeker.buy(hired, INPUT)).body.status, 'failed');
    await books(hired, { paid: 0n, state: 'SIGNED' });
  });

  test('the facilitator is down while verifying: 503, nothing charged, the contract is as it was, and the same payment executes it', async () => {
    stack.facilitator.onVerify = () => reply(500, { error: 'down' });
    const hired = await seeker.hire(account);
    const payment = await seeker.pay(hired.id, INPUT, account);
    const answer = await seeker.execute(hired.id, INPUT, payment);
    refused(answer, 503, 'FACILITATOR_UNAVAILABLE');
    assert.match(answer.headers.get('retry-after') ?? 'none', /^\d+$/);
    await books(hired, NOTHING);
    stack.facilitator.onVerify = undefined;
    assert.equal((await seeker.execute(hired.id, INPUT, payment)).body.status, 'completed');
    await books(hired, PAID);
  });

  test('the facilitator does not accept the payment: 402, and the contract is as it was', async () => {
    stack.facilitator.onVerify = () => ({ isValid: false, invalidReason: 'insufficient_funds', payer: account.address });
    const hired = await seeker.hire(account);
    refused(await seeker.buy(hired, INPUT), 402, 'PAYMENT_INVALID');
    await books(hired, NOTHING);
  });

  test('the settlement is rejected: 402, delivered to nobody, not charged; another payment executes the contract', async () => {
    stack.facilitator.onSettle = () => ({ success: false, errorReason: 'insufficient_funds', transaction: '', network: NETWORK, payer: account.address });
    const hired = await seeker.hire(account);
    const answer = await seeker.buy(hired, INPUT);
    refused(answer, 402, 'SETTLEMENT_REJECTED');
    assert.equal(decodeReceipt({ headers: answer.headers }).success, false);
    assert.ok(!JSON.stringify(answer.body).includes('Coin falls'));
    await books(hired, { paid: 0n, calls: 1, state: 'SIGNED' });
    const [{ task_id }] = (await stack.DB.prepare('SELECT task_id FROM contracts WHERE id = ?').bind(hired.id).all()).results;
    const report = await seeker.task(task_id, hired.id);
    assert.deepEqual([report.status, report.body.status, report.body.error.code, report.body.error.charged], [200, 'failed', 'SETTLEMENT_REJECTED', false]);
    assert.equal(report.body.output, undefined);
    assert.equal(report.body.deliverables, undefined);
    const stream = await fetch(`${stack.url}/stream/${task_id}`);
    assert.ok(!(await stream.text()).includes('Coin falls'));
    stack.facilitator.onSettle = undefined;
    assert.equal((await seeker.buy(hired, INPUT)).body.status, 'completed');
    await books(hired, { ...PAID, calls: 2 });
  });

  test('the settlement is not answered: pending, never a 402; found on the chain, it is delivered, charged once', async () => {
    stack.facilitator.onSettle = async (call, next) => (await next(), drop);
    const hired = await seeker.hire(account);
    const answer = await seeker.buy(hired, INPUT);
    assert.ok([200, 202].includes(answer.status), JSON.stringify(answer.body));
    const done = await until(async () => { const report = await seeker.task(answer.body.task_id, hired.id); return report.body.status !== 'pending' && report; }, { timeout: 15_000 });
    assert.deepEqual([done.body.status, done.body.output.content], ['completed', TEXT]);
    await books(hired, PAID);
  });
});

describe('the ledger', () => {
  test('one row for each execution, under the run ids of its reports; earnings are what was settled', async () => {
    stack.claude.script = () => apiError(401);
    const hired = await seeker.hire(account);
    const failed = await seeker.buy(hired, INPUT);
    stack.claude.script = hello;
    const done = await seeker.execute(hired.id, INPUT);
    await seeker.execute(hired.id, INPUT);
    const runs = [failed.headers.get('x-run-id'), done.headers.get('x-run-id')];
    assert.equal(new Set(runs).size, 2);
    assert.equal(done.body.metadata.run, runs[1]);
    await stack.row(runs[1]);
    const rows = await stack.rows('payer = ?', account.address);
    assert.deepEqual(rows.map((r) => [r.id, r.status, r.code, r.amount, r.tx, r.template_id]), [
      [ledgerId(runs[0]), 'failed', 'CLAUDE_KEY_INVALID', '0', null, 'template_ada_haiku'],
      [ledgerId(runs[1]), 'delivered', null, '10000', done.body.metadata.transaction, 'template_ada_haiku'],
    ]);
    await books(hired, { ...PAID, calls: 2 });
  });

  test('at the end: chain, ledger and earnings hold the same sum', async () => {
    const booked = (await stack.rows('tx IS NOT NULL')).reduce((all, { amount }) => all + BigInt(amount), 0n);
    const all = (await stack.DB.prepare('SELECT CAST(SUM(amount) AS TEXT) AS amount FROM earnings').first()).amount;
    assert.deepEqual([booked, BigInt(all)], [await stack.balance(ada), await stack.balance(ada)]);
    assert.ok(booked > 0n);
  });
});
