// Identifiers of payments: x402's payment-identifier extension, and Idempotency-Key. One identifier of a payer stands
// for one run of one request, and is no proof of anything: the same request with another payment gets the run that the
// first one bought, and the other payment stays untouched.
import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { randomBytes } from 'node:crypto';
import { apiError, delta, end, open, say, shut, start, stop } from '../support/claude.mjs';
import { WHOLE, asked, newPayer, payer, payerStack, settles, stack } from '../support/file_stack.mjs';
import { transfers } from '../support/soak.mjs';
import { HAIKU, HAIKU_PRICE, INPUT, NETWORK, decodeHeader, decodeReceipt, decodeTerms, gate, readSse, sleep, sse, until } from '../support/stack.mjs';
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
/** Another request with the identifier of `run`: 409, which says where that run is, and nothing has happened. */
async function taken(response, run, [calls, moves]) {
  const text = await response.text();
  assert.equal(response.status, 409, text);
  const { error } = JSON.parse(text);
  assert.deepEqual([error.code, error.run, error.runUrl], ['IDENTIFIER_REUSED', run, `/runs/${run}`]);
  assert.match(error.message, /This request was not run/);
  assert.equal(text.includes('Hello'), false);
  assert.equal(response.headers.get('x-run-id'), run);
  assert.equal(response.headers.get('payment-required'), null, 'signing again is not what to do');
  assert.deepEqual([asked(), settles()], [calls, moves]);
}
/** The same request with another payment: it gets the text of `run`, and the payment is not touched. */
async function replayed(headers, run, [calls, moves]) {
  const verified = stack.facilitator.count('verify');
  assert.equal(await delivered(await post(headers)), run);
  assert.deepEqual([asked(), settles(), stack.facilitator.count('verify')], [calls, moves, verified]);
  assert.equal(await isUsed(headers), false);
}
/** Whether the chain has seen the payment. */
function isUsed(headers) {
  const header = headers['payment-signature'] ?? headers['x-payment'];
  const { from, nonce } = decodeHeader(header).payload.authorization;
  return stack.chain.nonceUsed(from, nonce);
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
      await stack.row(run);
      assert.equal((await stack.rows('payer = ?', payer.address)).length, 1);
    });

    test('with another payment it is the same run, while it is under way and afterwards: charged once, the other payment untouched', async () => {
      const id = newId();
      const more = gate();
      stack.claude.script = async () => { await more.opened; return say('Hello', ', ', 'world'); };
      const running = post(await sign(id));
      await until(asked);
      const other = await sign(id);
      const following = post(other);
      more.open();
      const run = await delivered(await running);
      const followed = await following;
      assert.equal(decodeReceipt(followed).transaction, (await stack.row(run)).tx, 'the receipt is that of the run');
      assert.equal(await delivered(followed), run);
      assert.equal(await isUsed(other), false);
      await replayed(await sign(id), run, [1, 1]);
      assert.equal(stack.facilitator.count('verify'), 1);
      assert.equal(await spent(), HAIKU_PRICE);
      assert.equal((await stack.rows('payer = ?', payer.address)).length, 1);
      // The other payment is good for another run, under no identifier or under its own.
      const { 'payment-signature': unused } = await stack.signPayment(HAIKU, INPUT, payer);
      assert.notEqual(await delivered(await post({ 'payment-signature': unused })), run);
    });

    test('as a document, a run that was bought as a stream is the same run, and the other way round', async () => {
      const document = async (headers) => {
        const response = await post({ ...headers, accept: 'application/json' });
        assert.equal(response.status, 200);
        const { output, run } = await response.json();
        assert.equal(output, 'Hello, world');
        return run;
      };
      const [a, b] = [newId(), newId()];
      assert.equal(await document(await sign(a)), await delivered(await post(await sign(a))));
      assert.equal(await delivered(await post(await sign(b))), await document(await sign(b)));
      assert.deepEqual([asked(), settles()], [2, 2]);
      assert.equal(await spent(), 2n * HAIKU_PRICE);
    });

    test('after the price has changed, another payment gets the run that was bought at the old one', async () => {
      const id = newId();
      const run = await delivered(await post(await sign(id)));
      await stack.changeTemplate('template_ada_haiku', { price: '0.02' });
      try {
        await replayed(await sign(id), run, [1, 1]);
        assert.equal(await spent(), HAIKU_PRICE);
      } finally {
        await stack.changeTemplate('template_ada_haiku', { price: '0.01' });
      }
    });

    test('with the same payment and another body or query it is a 409', async () => {
      const headers = await sign(newId());
      await delivered(await post(headers));
      for (const response of [await post(headers, { topic: 'another' }), await post(headers, INPUT, `${HAIKU}?n=2`)]) {
        const text = await response.text();
        assert.equal(response.status, 409, text);
        assert.equal(JSON.parse(text).error.code, 'PAYMENT_REUSED');
      }
      assert.deepEqual([asked(), settles()], [1, 1]);
      assert.equal(await spent(), HAIKU_PRICE);
    });

    test('with another payment and another body, query or template it is a 409 that says where the run is', async () => {
      const id = newId();
      const twin = `/@ada/twin-${name.length}`;
      await stack.addTemplate(twin.split('/')[2], { prompt: 'x {topic}{/topic}', parameters: [{ name: 'topic', required: true }] });
      const run = await delivered(await post(await sign(id)));
      await taken(await post(await sign(id, { input: { topic: 'b' } }), { topic: 'b' }), run, [1, 1]);
      await taken(await post(await sign(id, { path: `${HAIKU}?n=2` }), INPUT, `${HAIKU}?n=2`), run, [1, 1]);
      await taken(await post(await sign(id, { path: twin }), INPUT, twin), run, [1, 1]);
      assert.equal(await spent(), HAIKU_PRICE);
    });

    const failures = {
      'Claude failed': [() => { stack.claude.script = () => apiError(401); }, 503],
      'the facilitator could not verify': [() => { stack.facilitator.onVerify = () => drop; }, 503],
      'the payment was not valid': [() => { stack.facilitator.onVerify = () => ({ isValid: false, invalidReason: 'insufficient_funds', payer: payer.address }); }, 402],
      'settle was refused': [() => { stack.facilitator.onSettle = () => ({ success: false, errorReason: 'insufficient_funds', transaction: '', network: NETWORK }); }, 402],
    };
    for (const [why, [trouble, status]] of Object.entries(failures)) {
      test(`after a known failure it is free for another payment, which buys the run: ${why}`, async () => {
        const id = newId();
        trouble();
        const failed = await post(await sign(id));
        assert.equal(failed.status, status);
        await failed.text();
        assert.equal(await spent(), 0n);
        stack.reset(() => say('Hello', ', ', 'world'));
        const run = await delivered(await post(await sign(id)));
        assert.equal(await spent(), HAIKU_PRICE);
        // And now it is that run's.
        await replayed(await sign(id), run, [1, 1]);
        assert.equal(await spent(), HAIKU_PRICE);
      });
    }

    test('while it is not known whether the first was settled, another payment finds that out, and buys nothing', async () => {
      const id = newId();
      stack.facilitator.onSettle = async (call, next) => { await next(); return drop; };
      const headers = await sign(id);
      assert.equal((await post(headers)).status, 503);
      stack.facilitator.onSettle = undefined;
      const other = await sign(id);
      const run = await delivered(await post(other));
      assert.equal(await isUsed(other), false);
      assert.equal(await delivered(await post(headers)), run);
      assert.deepEqual([asked(), settles()], [1, 1]);
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

    test('ten payments with one id at once: one run, one charge, the same text for all', async () => {
      const id = newId();
      stack.claude.script = () => say('Hello', ', ', 'world', { every: 40 });
      const all = await Promise.all(Array.from({ length: 10 }, () => sign(id)));
      const runs = await Promise.all(all.map(async (headers) => delivered(await post(headers))));
      assert.equal(new Set(runs).size, 1);
      assert.deepEqual([asked(), settles(), stack.facilitator.count('verify')], [1, 1, 1]);
      assert.equal((await Promise.all(all.map(isUsed))).filter(Boolean).length, 1);
      assert.equal(await spent(), HAIKU_PRICE);
      await stack.row(runs[0]);
      assert.equal((await stack.rows('payer = ?', payer.address)).length, 1);
    });

    test('of a payment that is not good it is not taken, not even while it is verified', async () => {
      const id = newId();
      const more = gate();
      stack.facilitator.onVerify = async () => { await more.opened; return { isValid: false, invalidReason: 'insufficient_funds', payer: payer.address }; };
      const bad = post(await sign(id));
      await until(() => stack.facilitator.count('verify'));
      // Another request with the same identifier waits, and is not refused for a key that nobody has paid.
      const other = post(await sign(id, { input: { topic: 'b' } }), { topic: 'b' });
      stack.facilitator.onVerify = undefined;
      more.open();
      assert.equal((await bad).status, 402);
      await delivered(await other);
      assert.deepEqual([asked(), settles()], [1, 1]);
      assert.equal(await spent(), HAIKU_PRICE);
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
    const run = await delivered(await post(await header.sign(id)));
    await replayed(await header.sign(`"${id}"`), run, [1, 1]);
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
    const run = await delivered(await post(await sign()));
    await replayed(await sign(), run, [1, 1]);
    assert.equal(await spent(), HAIKU_PRICE);
  });

  test('in both places: the header counts, and the one in the payment is not taken', async () => {
    const [a, b] = [newId(), newId()];
    const first = await delivered(await post(await extension.sign(a)));
    const both = async () => ({ 'idempotency-key': b, ...(await extension.sign(a)) });
    const second = await delivered(await post(await both()));
    assert.notEqual(second, first);
    await replayed(await header.sign(b), second, [2, 2]);
    await replayed(await both(), second, [2, 2]);
    await replayed(await extension.sign(a), first, [2, 2]);
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
    await replayed(await extension.sign(id), run, [0, 0]);
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

describe('the official client, which signs another payment at each call', () => {
  const JSON_ = { accept: 'application/json' };
  const never = () => new Promise(() => {});
  const half = [start(), open(), delta('Hello')];
  const rest = [delta(', '), delta('world'), shut(), end(), stop];
  /** The facilitator does what it is asked to, and its first answer does not come. */
  const settlesSilently = () => { let n = 0; return async (call, next) => { const answer = await next(); if (!n++) await never(); return answer; }; };

  // How far the first call comes before its connection is cut, and how often Claude may be called in the end: whether the
  // runtime tells of the hang-up decides whether the answer that is not paid is stopped, or joined.
  const moments = {
    'a stream, in the middle of its text': [{}, async (first) => assert.equal((await sse(await first).next()).value.content, 'Hello'), { claude: () => [...half, 300, ...rest], calls: [1] }],
    'a stream, while it is settled': [{}, () => until(settles), { settle: async (call, next) => { await sleep(400); return next(); }, calls: [1] }],
    'a stream, before Claude has begun': [{}, () => until(asked), { claude: () => [500, ...half, ...rest], calls: [1, 2] }],
    'a document, while Claude writes': [JSON_, () => until(() => stack.claude.requests[0]?.sent === 3), { claude: () => [...half, 500, ...rest], calls: [1, 2] }],
    'a document, while it is settled': [JSON_, () => until(settles), { settle: async (call, next) => { await sleep(400); return next(); }, calls: [1] }],
  };
  for (const [name, [headers, moment, { claude, settle, calls }]] of Object.entries(moments)) {
    test(`is cut off and simply called again: ${name}: the whole text, one settlement on the chain, one charge`, async () => {
      const key = { 'idempotency-key': newId(), ...headers };
      if (claude) stack.claude.script = claude;
      stack.facilitator.onSettle = settle;
      const cut = new AbortController();
      const first = stack.payV2(HAIKU, INPUT, key, payer, { signal: cut.signal });
      first.catch(() => {});
      await moment(first);
      cut.abort();
      const again = await stack.payV2(HAIKU, INPUT, key, payer);
      assert.equal(again.status, 200);
      const text = headers === JSON_ ? (await again.json()).output : (await readSse(again)).text;
      assert.equal(text, 'Hello, world');
      const moved = await transfers(stack, { from: payer.address });
      assert.deepEqual(moved.map(({ tx }) => tx), [decodeReceipt(again).transaction]);
      assert.deepEqual([await spent(), settles()], [HAIKU_PRICE, 1]);
      assert.ok(calls.includes(asked()), `${asked()} calls of Claude`);
      // And once more, when all is over.
      const late = await stack.payV2(HAIKU, INPUT, key, payer);
      assert.equal(late.headers.get('x-run-id'), again.headers.get('x-run-id'));
      await late.text();
      assert.deepEqual([await spent(), settles()], [HAIKU_PRICE, 1]);
      assert.ok(calls.includes(asked()), `${asked()} calls of Claude`);
    });
  }

  test('calls again at the moment at which the hang-up of its first call is told: one of the two payments buys the text (10 rounds)', async () => {
    for (let round = 0; round < 10; round++) {
      await newPayer();
      stack.reset(() => [...half, 300, ...rest]);
      const key = { 'idempotency-key': newId(), ...JSON_ };
      const first = stack.caller(HAIKU, INPUT, { ...key, ...(await stack.signPayment(HAIKU, INPUT, payer)) });
      await until(() => stack.claude.requests[0]?.sent === 3);
      const gone = first.hangUp();
      await sleep(2 * round);
      const again = await stack.payV2(HAIKU, INPUT, key, payer);
      assert.equal((await again.json()).output, 'Hello, world');
      await gone;
      const moved = await transfers(stack, { from: payer.address });
      assert.deepEqual(moved.map(({ tx }) => tx), [decodeReceipt(again).transaction]);
      assert.equal(settles(), 1);
      assert.ok(asked() <= 2, `${asked()} calls of Claude`);
    }
  });

  test('has lost its answer together with the runtime, before it was paid, or when nobody knows: called again it has the whole text, for one charge', async () => {
    const stopsOnce = (request, n) => (n === 1 ? [...half, never] : [...half, ...rest]);
    for (const [claude, settle, calls] of [[stopsOnce, undefined, 2], [undefined, settlesSilently(), 1]]) {
      await newPayer();
      stack.reset(claude ?? (() => say('Hello', ', ', 'world')));
      stack.facilitator.onSettle = settle;
      const key = { 'idempotency-key': newId(), ...JSON_ };
      const first = stack.payV2(HAIKU, INPUT, key, payer).catch(() => {});
      await until(async () => (claude ? stack.claude.requests[0]?.sent === 3 : (await spent()) > 0n));
      await stack.kill();
      await stack.revive();
      await first;
      const again = await stack.payV2(HAIKU, INPUT, key, payer);
      assert.equal((await again.json()).output, 'Hello, world');
      assert.equal((await transfers(stack, { from: payer.address })).length, 1);
      assert.deepEqual([await spent(), asked(), settles()], [HAIKU_PRICE, calls, 1]);
    }
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
