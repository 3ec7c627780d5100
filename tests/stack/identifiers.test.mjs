// Identifiers of payments: x402's payment-identifier extension, and Idempotency-Key. One identifier of a payer stands
// for one payment of one request, and is no proof of anything.
import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { randomBytes } from 'node:crypto';
import { apiError, say } from '../support/claude.mjs';
import { WHOLE, asked, payer, payerStack, settles, stack } from '../support/file_stack.mjs';
import { HAIKU, HAIKU_PRICE, INPUT, NETWORK, decodeTerms, gate, readSse, until } from '../support/stack.mjs';
import { drop } from '../../dev/facilitator.mjs';

payerStack({ vars: { LIMITS: JSON.stringify({ startAttempts: 1 }) } });

const newId = () => `pay_${randomBytes(12).toString('hex')}`;

// The two ways to send an identifier.
const extension = {
  name: 'payment-identifier',
  sign: (id, { input = INPUT, path = HAIKU, account = payer, ...more } = {}) =>
    stack.signPayment(path, input, account, {
      ...more,
      // As the extension's own client does: the server's declaration is echoed, with the id in its info.
      edit: (p) => ({ ...p, extensions: { 'payment-identifier': { info: { required: false, id }, schema: {} } } }),
    }),
};
const header = {
  name: 'Idempotency-Key',
  sign: async (id, { input = INPUT, path = HAIKU, account = payer, ...more } = {}) => ({ 'idempotency-key': id, ...(await stack.signPayment(path, input, account, more)) }),
};

const post = (headers, input = INPUT, path = HAIKU) => stack.post(path, input, headers);
async function delivered(response) {
  assert.equal(response.status, 200, response.ok ? '' : await response.text());
  const { text, done } = await readSse(response);
  assert.equal(text, 'Hello, world');
  return done.run;
}
/** Refused with 409, and nothing has happened since `before`. */
async function taken(response, [calls, moves]) {
  const text = await response.text();
  assert.equal(response.status, 409, text);
  const { error } = JSON.parse(text);
  assert.equal(error.code, 'IDENTIFIER_REUSED');
  assert.match(error.message, /This request was not run/);
  assert.equal(text.includes('Hello'), false);
  assert.equal(response.headers.get('x-run-id'), null);
  assert.equal(response.headers.get('payment-required'), null, 'signing again is not what to do');
  assert.deepEqual([asked(), settles()], [calls, moves]);
}
const spent = async (account = payer) => WHOLE - (await stack.balance(account));

test('the extension is declared in the 402', async () => {
  const { terms } = await stack.ask402(HAIKU);
  const declared = terms.extensions['payment-identifier'];
  assert.equal(declared.info.required, false);
  assert.equal(declared.schema.$schema, 'https://json-schema.org/draft/2020-12/schema');
  const { id } = declared.schema.properties;
  assert.deepEqual([id.type, id.minLength, id.maxLength, id.pattern], ['string', 16, 128, '^[a-zA-Z0-9_-]+$']);
  assert.deepEqual(declared.schema.required, ['required']);
});

for (const { name, sign } of [extension, header]) {
  describe(name, () => {
    test('the same id with the same payment is the same run, charged once', async () => {
      const headers = await sign(newId());
      const run = await delivered(await post(headers));
      assert.equal(await delivered(await post(headers)), run);
      assert.deepEqual([asked(), settles(), stack.facilitator.count('verify')], [1, 1, 1]);
      assert.equal(await spent(), HAIKU_PRICE);
      assert.equal((await stack.rows('payer = ?', payer.address)).length, 1);
    });

    test('with another payment it is a 409, while the run is under way and afterwards: nothing charged, Claude not asked', async () => {
      const id = newId();
      const more = gate();
      stack.claude.script = async () => { await more.opened; return say('Hello', ', ', 'world'); };
      const running = post(await sign(id));
      await until(asked);
      await taken(await post(await sign(id)), [1, 0]);
      more.open();
      await delivered(await running);
      await taken(await post(await sign(id)), [1, 1]);
      assert.equal(stack.facilitator.count('verify'), 1);
      assert.equal(await spent(), HAIKU_PRICE);
      assert.equal((await stack.rows('payer = ?', payer.address)).length, 1);
    });

    test('with the same payment and another body or query it is a 409', async () => {
      const headers = await sign(newId());
      await delivered(await post(headers));
      for (const response of [await post(headers, { topic: 'another' }), await post(headers, INPUT, `${HAIKU}?n=2`)]) {
        const text = await response.text();
        assert.equal(response.status, 409, text);
        assert.match(JSON.parse(text).error.code, /^(IDENTIFIER|PAYMENT)_REUSED$/);
      }
      assert.deepEqual([asked(), settles()], [1, 1]);
      assert.equal(await spent(), HAIKU_PRICE);
    });

    test('with another payment and another body, query or template it is a 409', async () => {
      const id = newId();
      const twin = `/@ada/twin-${name.length}`;
      await stack.addTemplate(twin.split('/')[2], { prompt: 'x {topic}{/topic}', parameters: [{ name: 'topic', required: true }] });
      await delivered(await post(await sign(id)));
      await taken(await post(await sign(id, { input: { topic: 'b' } }), { topic: 'b' }), [1, 1]);
      await taken(await post(await sign(id, { path: `${HAIKU}?n=2` }), INPUT, `${HAIKU}?n=2`), [1, 1]);
      await taken(await post(await sign(id, { path: twin }), INPUT, twin), [1, 1]);
      assert.equal(await spent(), HAIKU_PRICE);
    });

    const failures = {
      'Claude failed': [() => { stack.claude.script = () => apiError(401); }, 503],
      'the facilitator could not verify': [() => { stack.facilitator.onVerify = () => drop; }, 503],
      'the payment was not valid': [() => { stack.facilitator.onVerify = () => ({ isValid: false, invalidReason: 'insufficient_funds', payer: payer.address }); }, 402],
      'settle was refused': [() => { stack.facilitator.onSettle = () => ({ success: false, errorReason: 'insufficient_funds', transaction: '', network: NETWORK }); }, 402],
    };
    for (const [why, [trouble, status]] of Object.entries(failures)) {
      test(`after a known failure it may stand for another payment: ${why}`, async () => {
        const id = newId();
        trouble();
        const failed = await post(await sign(id));
        assert.equal(failed.status, status);
        await failed.text();
        assert.equal(await spent(), 0n);
        stack.reset(() => say('Hello', ', ', 'world'));
        const headers = await sign(id);
        await delivered(await post(headers));
        assert.equal(await spent(), HAIKU_PRICE);
        // And now it is that one's.
        await taken(await post(await sign(id)), [1, 1]);
        assert.equal(await spent(), HAIKU_PRICE);
      });
    }

    test('while it is not known whether the first was settled, it stands for no other', async () => {
      const id = newId();
      stack.facilitator.onSettle = async (call, next) => { await next(); return drop; };
      const headers = await sign(id);
      assert.equal((await post(headers)).status, 503);
      stack.facilitator.onSettle = undefined;
      await taken(await post(await sign(id)), [1, 1]);
      await delivered(await post(headers));
      assert.equal(await spent(), HAIKU_PRICE);
    });

    test('another payer may use the same', async () => {
      const id = newId();
      const other = await stack.payer();
      const [one, two] = [await sign(id), await sign(id, { account: other })];
      const runs = await Promise.all([post(one).then(delivered), post(two).then(delivered)]);
      assert.equal(new Set(runs).size, 2);
      assert.deepEqual([await spent(), await spent(other), asked(), settles()], [HAIKU_PRICE, HAIKU_PRICE, 2, 2]);
    });

    test('ten payments with one id at once: one run, one charge, 409 for nine', async () => {
      const id = newId();
      stack.claude.script = () => say('Hello', ', ', 'world', { every: 40 });
      const all = await Promise.all(Array.from({ length: 10 }, () => sign(id)));
      const responses = await Promise.all(all.map((headers) => post(headers)));
      assert.deepEqual(responses.map((r) => r.status).sort(), [200, ...Array(9).fill(409)]);
      await Promise.all(responses.map((r) => r.text()));
      assert.deepEqual([asked(), settles(), stack.facilitator.count('verify')], [1, 1, 1]);
      assert.equal(await spent(), HAIKU_PRICE);
      assert.equal((await stack.rows('payer = ?', payer.address)).length, 1);
    });

    test("somebody else's signature cannot take an identifier of the payer's", async () => {
      const id = newId();
      const headers = await sign(id, { account: payer });
      const other = await stack.payer();
      const forged = await sign(id, { account: other, authorization: { from: payer.address } });
      const response = await post(forged);
      assert.equal(response.status, 402);
      await response.text();
      await delivered(await post(headers));
      assert.deepEqual([await spent(), await spent(other)], [HAIKU_PRICE, 0n]);
    });
  });
}

describe('an identifier', () => {
  test('alone, without a payment, gives the 402 and never the result', async () => {
    const id = newId();
    await delivered(await post(await header.sign(id)));
    const run = await delivered(await post(await extension.sign(newId())));
    for (const headers of [{ 'idempotency-key': id }, { 'idempotency-key': id, accept: 'application/json' }]) {
      const response = await post(headers);
      assert.equal(response.status, 402);
      assert.equal(decodeTerms(response).accepts.length, 1);
      const text = await response.text();
      assert.equal(text.includes('Hello') || text.includes(run), false);
    }
    assert.deepEqual([asked(), settles()], [2, 2]);
  });

  const bad = ['', 'short', 'x'.repeat(15), 'x'.repeat(129), 'with space in the id', 'umlaut_ü_0123456789', 'dot.dot.dot.dot.dot', 7, true, {}, ['pay_0123456789abcdef']];
  for (const id of bad) {
    test(`of a wrong form is a 400, before anybody is asked: ${JSON.stringify(id).slice(0, 40)}`, async () => {
      const response = await post(await extension.sign(id));
      assert.equal(response.status, 400);
      assert.equal((await response.json()).error.code, 'IDENTIFIER_INVALID');
      assert.deepEqual([asked(), settles(), stack.facilitator.count('verify')], [0, 0, 0]);
      assert.equal(await spent(), 0n);
    });
  }
  for (const key of ['', 'x'.repeat(256), 'ümlaut']) {
    test(`in the header, of a wrong form, is a 400: ${JSON.stringify(key).slice(0, 20)}`, async () => {
      const response = await post(await header.sign(Buffer.from(key, 'utf8').toString('latin1')));
      assert.equal(response.status, 400);
      assert.equal((await response.json()).error.code, 'IDENTIFIER_INVALID');
      assert.deepEqual([asked(), settles(), stack.facilitator.count('verify')], [0, 0, 0]);
    });
  }

  test('of 16 and of 128 characters is taken; so is an extension without an id, and extensions nobody knows', async () => {
    for (const id of ['x-_4567890123456', 'y'.repeat(128)]) await delivered(await post(await extension.sign(id)));
    const edits = [
      (p) => ({ ...p, extensions: { 'payment-identifier': { info: { required: false }, schema: {} } } }),
      (p) => ({ ...p, extensions: { tomorrow: { info: {} } } }),
      (p) => ({ ...p, extensions: {} }),
    ];
    for (const edit of edits) await delivered(await post(await stack.signPayment(HAIKU, INPUT, payer, { edit })));
    assert.equal(await spent(), 5n * HAIKU_PRICE);
  });

  test('in a header with quotes (a structured field) is the same as without', async () => {
    const id = newId();
    await delivered(await post(await header.sign(id)));
    await taken(await post(await header.sign(`"${id}"`)), [1, 1]);
  });

  test('in the header is another than the same text in the extension', async () => {
    const id = newId();
    await delivered(await post(await header.sign(id)));
    await delivered(await post(await extension.sign(id)));
    assert.equal(await spent(), 2n * HAIKU_PRICE);
  });

  test('of v1: Idempotency-Key goes with X-PAYMENT too', async () => {
    const id = newId();
    const sign = async () => ({ 'idempotency-key': id, ...(await stack.signPaymentV1(HAIKU, INPUT, payer)) });
    await delivered(await post(await sign()));
    await taken(await post(await sign()), [1, 1]);
    assert.equal(await spent(), HAIKU_PRICE);
  });

  test('two at once, of which one is taken: 409, and the other is not lost by it', async () => {
    const [a, b] = [newId(), newId()];
    await delivered(await post(await extension.sign(a)));
    await taken(await post({ 'idempotency-key': b, ...(await extension.sign(a)) }), [1, 1]);
    await delivered(await post(await header.sign(b)));
    assert.equal(await spent(), 2n * HAIKU_PRICE);
  });

  test('survives the end of the objects and of the runtime', async () => {
    const id = newId();
    const headers = await extension.sign(id);
    const run = await delivered(await post(headers));
    await stack.row(run);
    await stack.restart();
    stack.claude.reset();
    stack.facilitator.reset();
    await taken(await post(await extension.sign(id)), [0, 0]);
    assert.equal(await delivered(await post(headers)), run);
    assert.equal(await spent(), HAIKU_PRICE);
  });

  test('changes nothing where a run has been bought already: a payment presented again needs none', async () => {
    const id = newId();
    const headers = await extension.sign(id);
    const run = await delivered(await post(headers));
    assert.equal(await delivered(await post({ ...headers, 'idempotency-key': 'another' })), run);
    assert.deepEqual([asked(), settles()], [1, 1]);
  });

  test('is nothing to an owner who tests', async () => {
    for (let i = 0; i < 2; i++) await delivered(await stack.ownerTest(HAIKU, INPUT, undefined, { 'idempotency-key': 'same' }));
    assert.equal(asked(), 2);
  });
});

describe('where the operator wants one', () => {
  before(async () => {
    await stack.setConfig({ revision: 'required', requirePaymentIdentifier: true });
    await stack.restart();
  });

  test('the 402 says so', async () => {
    const { terms } = await stack.ask402(HAIKU);
    assert.equal(terms.extensions['payment-identifier'].info.required, true);
  });

  test('a payment without is a 400, before anybody is asked; with either it is served', async () => {
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const response = await post(headers);
    assert.equal(response.status, 400);
    assert.equal((await response.json()).error.code, 'IDENTIFIER_MISSING');
    assert.deepEqual([asked(), settles(), stack.facilitator.count('verify')], [0, 0, 0]);
    await delivered(await post({ ...headers, 'idempotency-key': newId() }));
    await delivered(await post(await extension.sign(newId())));
    assert.equal(await spent(), 2n * HAIKU_PRICE);
  });
});
