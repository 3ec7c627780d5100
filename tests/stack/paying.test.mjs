// A stranger pays for a run and gets it: on a real chain, with the official client and an older one.
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { encodeFunctionData, erc20Abi } from 'viem';
import { drop, reply } from '../../dev/facilitator.mjs';
import { apiError, cut, delta, end, open, say, shut, start, stop } from '../support/claude.mjs';
import {
  HAIKU, HAIKU_PRICE, INPUT, NETWORK, USDC, ada, decodeHeader, decodeReceipt, decodeTerms, encodeHeader, gate, grace, readSse, sleep, sse, startStack, until,
} from '../support/stack.mjs';

let stack;
before(async () => { stack = await startStack(); });
after(() => stack?.close());
const hello = () => say('Hello', ', ', 'world');
beforeEach(() => stack.reset(hello));

/** How much `who` has less, and ada more, after `work`. */
async function moved(who, work) {
  const look = async () => [await stack.balance(who), await stack.balance(ada)];
  const [payerBefore, creatorBefore] = await look();
  const result = await work();
  const [payerAfter, creatorAfter] = await look();
  return { spent: payerBefore - payerAfter, earned: creatorAfter - creatorBefore, result };
}

/** Nobody was asked for anything that costs. */
function nothingHappened() {
  assert.equal(stack.facilitator.count('verify'), 0, 'verify was asked');
  assert.equal(stack.facilitator.count('settle'), 0, 'settle was asked');
  assert.equal(stack.claude.requests.length, 0, 'Claude was asked');
}

describe('paying', () => {
  test('the official v2 client pays, gets the text, and the token moves by exactly the price', async () => {
    const payer = await stack.payer();
    const { spent, earned, result } = await moved(payer, async () => {
      const response = await stack.payV2(HAIKU, INPUT, {}, payer);
      assert.equal(response.status, 200, await (response.ok ? '' : response.text()));
      assert.match(response.headers.get('content-type'), /^text\/event-stream/);
      return { response, answer: await readSse(response) };
    });
    assert.equal(result.answer.text, 'Hello, world');
    assert.deepEqual(result.answer.done.usage.output_tokens, 3);
    assert.equal(spent, HAIKU_PRICE);
    assert.equal(earned, HAIKU_PRICE);
    // SSE ids count up from 1 without a gap.
    assert.deepEqual(result.answer.events.map((e) => Number(e.id)), result.answer.events.map((_, i) => i + 1));
  });

  test('an older client pays with X-PAYMENT from the 402 body alone', async () => {
    const payer = await stack.payer();
    const { spent, earned, result } = await moved(payer, async () => {
      const response = await stack.payV1(HAIKU, INPUT, {}, payer);
      return { response, answer: await readSse(response) };
    });
    assert.equal(result.response.status, 200);
    assert.equal(result.answer.text, 'Hello, world');
    assert.deepEqual([spent, earned], [HAIKU_PRICE, HAIKU_PRICE]);
    const receipt = decodeReceipt(result.response, 'x-payment-response');
    assert.equal(receipt.success, true);
    assert.equal(receipt.network, 'base-sepolia');
    assert.equal((await stack.chain.receipt(receipt.transaction)).status, 'success');
    assert.equal(stack.facilitator.calls.every((c) => c.body.x402Version === 1), true, 'the facilitator is told the version that the payer used');
  });

  test('PAYMENT-RESPONSE decodes, names the payer, and its transaction is on the chain', async () => {
    const payer = await stack.payer();
    const response = await stack.payV2(HAIKU, INPUT, {}, payer);
    const { done } = await readSse(response);
    const receipt = decodeReceipt(response);
    assert.equal(receipt.success, true);
    assert.equal(receipt.network, NETWORK);
    assert.equal(receipt.payer.toLowerCase(), payer.address.toLowerCase());
    const mined = await stack.chain.receipt(receipt.transaction);
    assert.equal(mined.status, 'success');
    assert.equal(mined.to.toLowerCase(), USDC.toLowerCase());
    assert.equal(done.receipt.transaction, receipt.transaction);
    assert.match(response.headers.get('cache-control'), /private/);
    assert.match(response.headers.get('access-control-expose-headers'), /PAYMENT-RESPONSE/i);
  });

  test('Claude gets the rendered prompt, the key of the creator, and streaming', async () => {
    const payer = await stack.payer();
    const tricky = { topic: '$& {mood}{/mood} \\1 {topic}{/topic} {language}', mood: '$1 }{' };
    await readSse(await stack.payV2(HAIKU, tricky, {}, payer));
    const [request] = stack.claude.requests;
    assert.equal(request.headers['x-api-key'], request.key);
    assert.match(request.key, /^sk-ant-/);
    assert.equal(request.body.stream, true);
    assert.equal(request.body.max_tokens, 200);
    const system = typeof request.body.system === 'string' ? request.body.system : request.body.system.map((b) => b.text).join('');
    assert.ok(system.includes(`about this topic: ${tricky.topic}\n`), system);
    assert.ok(system.includes('Language: English\n'), 'the default is filled in');
    assert.ok(system.includes(`suits the topic): ${tricky.mood}\n`), system);
    assert.equal(request.body.messages.length, 1);
    assert.ok(request.body.messages[0].content.length > 0, 'a neutral user message');
  });

  test('a template with a user message passes it on as the user turn', async () => {
    const payer = await stack.payer();
    await readSse(await stack.payV2('/@ada/commit-message', { summary: 's', user_message: '{style}{/style} as typed' }, {}, payer));
    assert.equal(stack.claude.requests[0].body.messages[0].content, '{style}{/style} as typed');
  });
});

describe('the 402', () => {
  test('carries v2 terms in the header and v1 terms in the body, for the URL that was called', async () => {
    const { terms, v1, response } = await stack.ask402(HAIKU, INPUT);
    const url = `${stack.url}${HAIKU}`;
    assert.equal(terms.x402Version, 2);
    assert.equal(terms.resource.url, url);
    const offer = terms.accepts.find((a) => a.network === NETWORK);
    assert.deepEqual(
      { ...offer, asset: offer.asset.toLowerCase(), payTo: offer.payTo.toLowerCase() },
      { scheme: 'exact', network: NETWORK, amount: '10000', asset: USDC.toLowerCase(), payTo: ada.address.toLowerCase(), maxTimeoutSeconds: 300, extra: { name: 'USDC', version: '2' } },
    );
    assert.equal(v1.x402Version, 1);
    assert.equal(typeof v1.error, 'string');
    const old = v1.accepts.find((a) => a.network === 'base-sepolia');
    assert.equal(old.resource, url);
    assert.equal(old.maxAmountRequired, '10000');
    assert.equal(old.payTo.toLowerCase(), ada.address.toLowerCase());
    assert.equal(old.extra.name, 'USDC');
    assert.equal(old.mimeType, 'text/event-stream');
    assert.equal(typeof old.description, 'string');
    assert.match(response.headers.get('cache-control'), /no-store/);
    assert.ok(response.headers.get('payment-required').length < 4096, 'the header stays small');
  });

  test('offers one network for each wallet of the creator', async () => {
    const { terms } = await stack.ask402(HAIKU, INPUT);
    assert.deepEqual(terms.accepts.map((a) => a.network), [NETWORK], 'ada has no wallet on Base mainnet');
    const base = 'eip155:8453';
    await stack.DB.prepare('UPDATE creators SET wallets = ? WHERE id = ?').bind(JSON.stringify({ [NETWORK]: ada.address, [base]: grace.address }), ada.id).run();
    try {
      const both = (await stack.ask402(HAIKU, INPUT)).terms.accepts;
      assert.deepEqual(both.map((a) => a.network).sort(), [base, NETWORK].sort());
      const main = both.find((a) => a.network === base);
      assert.deepEqual([main.payTo.toLowerCase(), main.extra.name], [grace.address.toLowerCase(), 'USD Coin']);
    } finally {
      await stack.DB.prepare('UPDATE creators SET wallets = ? WHERE id = ?').bind(JSON.stringify(ada.wallets), ada.id).run();
    }
  });

  test('names the query too in resource.url', async () => {
    const { terms } = await stack.ask402(`${HAIKU}?from=here`, INPUT);
    assert.equal(terms.resource.url, `${stack.url}${HAIKU}?from=here`);
  });

  for (const [name, body] of [['no body', undefined], ['an empty body', ''], ['{}', '{}'], ['white space', ' \n']]) {
    test(`answers ${name} without a payment`, async () => {
      const response = await stack.post(HAIKU, body);
      assert.equal(response.status, 402);
      assert.equal(decodeTerms(response).accepts.length, 1);
      assert.ok((await response.json()).accepts.length);
      nothingHappened();
    });
  }

  test('may be read by any page, and so may a preflight', async () => {
    const { response } = await stack.ask402(HAIKU, INPUT);
    assert.equal(response.headers.get('access-control-allow-origin'), '*');
    for (const name of ['PAYMENT-REQUIRED', 'PAYMENT-RESPONSE', 'X-PAYMENT-RESPONSE', 'Retry-After']) {
      assert.ok(response.headers.get('access-control-expose-headers').toLowerCase().split(/, */).includes(name.toLowerCase()), name);
    }
    const asked = 'content-type,payment-signature,x-payment,access-control-expose-headers';
    const preflight = await fetch(`${stack.url}${HAIKU}`, {
      method: 'OPTIONS',
      headers: { origin: 'https://page.example', 'access-control-request-method': 'POST', 'access-control-request-headers': asked },
    });
    assert.ok([200, 204].includes(preflight.status));
    assert.equal(preflight.headers.get('access-control-allow-origin'), '*');
    assert.match(preflight.headers.get('access-control-allow-methods'), /POST/);
    const allowed = preflight.headers.get('access-control-allow-headers').toLowerCase().split(/, */);
    for (const name of asked.split(',')) assert.ok(allowed.includes(name), name);
  });
});

describe('a wrong input', () => {
  const wrong = [
    ['not JSON', '{"topic":', 'body'],
    ['not an object', '["topic"]', 'body'],
    ['an unknown parameter', { ...INPUT, colour: 'red' }, 'colour'],
    ['not a string', { topic: 7 }, 'topic'],
    ['a missing parameter', { mood: 'glad' }, 'topic'],
    ['null for a required parameter', { topic: null }, 'topic'],
    ['an empty required parameter', { topic: '' }, 'topic'],
    ['a value that is too long', { topic: 'x'.repeat(201) }, 'topic'],
    ['a user message where none is taken', { ...INPUT, user_message: 'hi' }, 'user_message'],
  ];
  for (const [name, body, field] of wrong) {
    test(`is a free 400 with field, expected and received, unpaid and paid: ${name}`, async () => {
      const payer = await stack.payer();
      const paid = await stack.signPayment(HAIKU, INPUT, payer);
      const { spent } = await moved(payer, async () => {
        for (const headers of [{}, paid]) {
          const response = await stack.post(HAIKU, body, headers);
          assert.equal(response.status, 400);
          assert.equal(response.headers.get('payment-required'), null);
          const { error } = await response.json();
          assert.equal(error.details.field, field);
          assert.ok(error.details.expected.length > 0 && error.details.received.length > 0, JSON.stringify(error));
          assert.match(error.code, /^[A-Z_]+$/);
        }
      });
      nothingHappened();
      assert.equal(spent, 0n);
      // And the payment is still good for the right input.
      assert.equal((await readSse(await stack.post(HAIKU, INPUT, paid))).text, 'Hello, world');
    });
  }

  test('is a 400 also where a payment comes with an empty body', async () => {
    const payer = await stack.payer();
    const response = await stack.post(HAIKU, '{}', await stack.signPayment(HAIKU, INPUT, payer));
    assert.equal(response.status, 400);
    assert.equal((await response.json()).error.details.field, 'topic');
    nothingHappened();
  });
});

describe('a payment that does not match', () => {
  const now = () => Math.floor(Date.now() / 1000);
  const wrong = {
    'the recipient': () => ({ authorization: { to: grace.address } }),
    'too small a value': () => ({ authorization: { value: '9999' } }),
    'too large a value': () => ({ authorization: { value: '10001' } }),
    'an echo of other terms: amount': () => ({ accepted: { amount: '1' } }),
    'an echo of other terms: payTo': () => ({ accepted: { payTo: grace.address } }),
    'an echo of other terms: asset': () => ({ accepted: { asset: ada.address } }),
    'an echo of other terms: network': () => ({ accepted: { network: 'eip155:8453' } }),
    'an echo of other terms: extra': () => ({ accepted: { extra: { name: 'USD Coin', version: '2' } } }),
    'an expired one': () => ({ authorization: { validBefore: String(now() - 10) } }),
    'one that ends before it could be settled': () => ({ authorization: { validBefore: String(now() + 2) } }),
    'one that is not valid yet': () => ({ authorization: { validAfter: String(now() + 100) } }),
    'another scheme': () => ({ accepted: { scheme: 'upto' } }),
  };
  for (const [name, how] of Object.entries(wrong)) {
    test(`is refused before the facilitator is asked: ${name}`, async () => {
      const payer = await stack.payer();
      const response = await stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, payer, how()));
      const body = await response.text();
      assert.ok([400, 402].includes(response.status), `${response.status} ${body}`);
      assert.match(JSON.parse(body).code ?? JSON.parse(body).error.code, /^PAYMENT_/);
      nothingHappened();
      assert.equal(await stack.balance(payer), 1_000_000n);
    });
  }

  test('is refused before the facilitator is asked: v1 with another recipient, value or network', async () => {
    const payer = await stack.payer();
    const tries = [{ authorization: { to: grace.address } }, { authorization: { value: '1' } }, { edit: (p) => ({ ...p, network: 'base' }) }];
    for (const how of tries) {
      const response = await stack.post(HAIKU, INPUT, await stack.signPaymentV1(HAIKU, INPUT, payer, how));
      assert.equal(response.status, 402);
      assert.ok((await response.json()).accepts.length, 'a v1 client reads the terms again');
    }
    nothingHappened();
  });

  test('for one template does not buy a dearer one', async () => {
    const payer = await stack.payer();
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const response = await stack.post('/@ada/commit-message', { summary: 's' }, headers);
    assert.equal(response.status, 402);
    nothingHappened();
  });

  test('that cannot be parsed is never a 500', async () => {
    const good = decodeHeader((await stack.signPayment(HAIKU, INPUT, await stack.payer(0n)))['payment-signature']);
    const { payload } = good;
    const text = (value) => Buffer.from(value).toString('base64');
    const broken = [
      'not base64 !!', '=', ' ', text(''), text('not json'), text('null'), text('7'), text('[]'), text('{}'), text('{"x402Version":2}'), 'AAAA', `${'A'.repeat(5000)}`,
      encodeHeader({ ...good, x402Version: 3 }), encodeHeader({ ...good, x402Version: '2' }), encodeHeader({ ...good, accepted: null }), encodeHeader({ ...good, accepted: [] }),
      encodeHeader({ ...good, payload: null }), encodeHeader({ ...good, payload: 'x' }), encodeHeader({ ...good, payload: { ...payload, authorization: {} } }),
      encodeHeader({ ...good, payload: { ...payload, authorization: { ...payload.authorization, value: '-1' } } }),
      encodeHeader({ ...good, payload: { ...payload, authorization: { ...payload.authorization, value: `1${'0'.repeat(100)}` } } }),
      encodeHeader({ ...good, payload: { ...payload, authorization: { ...payload.authorization, nonce: '0x12' } } }),
      encodeHeader({ ...good, payload: { ...payload, authorization: { ...payload.authorization, from: 'me' } } }),
      encodeHeader({ ...good, payload: { ...payload, authorization: { ...payload.authorization, validBefore: 'tomorrow' } } }),
      encodeHeader({ ...good, payload: { ...payload, signature: 7 } }), text('['.repeat(4000)), text('{"a":'.repeat(2000)),
    ];
    for (const header of broken) {
      for (const name of ['payment-signature', 'x-payment']) {
        const response = await stack.post(HAIKU, INPUT, { [name]: header });
        assert.ok([400, 402].includes(response.status), `${response.status} for ${name}: ${header.slice(0, 60)} ${await response.text()}`);
        await response.arrayBuffer().catch(() => {});
      }
    }
    nothingHappened();
    assert.equal(stack.log().includes('uncaught'), false);
  });

  test('for the terms of another route is refused before the facilitator is asked', async () => {
    const payer = await stack.payer();
    const named = (url) => ({ edit: (p) => ({ ...p, resource: { ...p.resource, url } }) });
    for (const path of ['/execute', '/@ada/commit-message', '/']) {
      const response = await stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, payer, named(`${stack.url}${path}`)));
      assert.equal(response.status, 402, path);
      const { code, message } = await response.json();
      assert.equal(code, 'PAYMENT_MISMATCH', path);
      assert.match(message, /resource differs/);
    }
    nothingHappened();
    const response = await stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, payer, named(`${stack.url}${HAIKU}?from=here`)));
    assert.equal((await readSse(response)).text, 'Hello, world');
  });

  test('by signature is refused before the facilitator is asked', async () => {
    const payer = await stack.payer();
    const forged = (p) => ({ ...p, payload: { ...p.payload, signature: `0x${'11'.repeat(64)}1b` } });
    for (const sign of ['signPayment', 'signPaymentV1']) {
      const response = await stack.post(HAIKU, INPUT, await stack[sign](HAIKU, INPUT, payer, { edit: forged }));
      assert.equal(response.status, 402);
      assert.equal(decodeTerms(response).accepts.length, 1);
      assert.equal((await response.json()).code, 'PAYMENT_INVALID');
    }
    nothingHappened();
    assert.equal(await stack.balance(payer), 1_000_000n);
  });

  test('by a good signature of somebody else is refused before the facilitator is asked', async () => {
    const [payer, other] = [await stack.payer(), await stack.payer()];
    // Signed by one, in the name of the other.
    const headers = await stack.signPayment(HAIKU, INPUT, payer, { authorization: { from: other.address } });
    const response = await stack.post(HAIKU, INPUT, headers);
    assert.equal(response.status, 402);
    assert.equal((await response.json()).code, 'PAYMENT_INVALID');
    nothingHappened();
    assert.equal(await stack.balance(other), 1_000_000n);
  });

  test('by a signature of another form (a contract wallet) is refused as the facilitator says, and Claude is not asked', async () => {
    const payer = await stack.payer();
    const forged = (p) => ({ ...p, payload: { ...p.payload, signature: `0x${'11'.repeat(100)}` } });
    const response = await stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, payer, { edit: forged }));
    assert.equal(response.status, 402);
    assert.equal((await response.json()).code, 'PAYMENT_INVALID');
    assert.equal(stack.facilitator.count('verify'), 1);
    assert.equal(stack.claude.requests.length, 0);
    assert.equal(stack.facilitator.count('settle'), 0);
    assert.equal(await stack.balance(payer), 1_000_000n);
  });

  test('by a contract wallet whose signature has 65 bytes buys the run: the chain says that it has code, the facilitator that it has signed', async () => {
    const [owner, wallet] = [await stack.payer(0n), (await stack.payer()).address];
    // Code that answers each call with EIP-1271's magic value.
    await stack.chain.rpc('anvil_setCode', wallet, `0x7f1626ba7e${'00'.repeat(28)}60005260206000f3`);
    const headers = await stack.signPayment(HAIKU, INPUT, owner, { authorization: { from: wallet } });
    // The chain's token takes v, r and s of keys alone, so a facilitator that can settle this is played.
    for (const [method, ...params] of [['anvil_impersonateAccount', wallet], ['anvil_setBalance', wallet, '0xde0b6b3a7640000']]) await stack.chain.rpc(method, ...params);
    stack.facilitator.onVerify = () => ({ isValid: true, payer: wallet });
    stack.facilitator.onSettle = async ({ body }) => {
      const { to, value } = body.paymentPayload.payload.authorization;
      const data = encodeFunctionData({ abi: erc20Abi, functionName: 'transfer', args: [to, BigInt(value)] });
      const transaction = await stack.chain.rpc('eth_sendTransaction', { from: wallet, to: USDC, data });
      await stack.chain.mine();
      return { success: true, transaction, network: NETWORK, payer: wallet };
    };
    const { spent, earned, result } = await moved(wallet, async () => readSse(await stack.post(HAIKU, INPUT, headers)));
    assert.equal(result.text, 'Hello, world');
    assert.deepEqual([spent, earned], [HAIKU_PRICE, HAIKU_PRICE]);
    assert.equal(stack.facilitator.count('verify'), 1);
    const again = await readSse(await stack.post(HAIKU, INPUT, headers));
    assert.deepEqual([again.text, again.done.run], ['Hello, world', result.done.run]);
    assert.equal(stack.claude.requests.length, 1);
  });

  test('of an empty wallet is refused, and Claude is not asked', async () => {
    const response = await stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, await stack.payer(0n)));
    assert.equal(response.status, 402);
    assert.equal(stack.claude.requests.length, 0);
    assert.equal(stack.facilitator.count('settle'), 0);
  });

  test('cannot be verified at the moment: 503, not charged, and the same payment buys the run later', async () => {
    const payer = await stack.payer();
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    for (const trouble of [() => drop, () => reply(500, 'oops'), () => reply(200, '<html>'), () => ({}), () => ({ isValid: true, payer: grace.address })]) {
      stack.facilitator.onVerify = trouble;
      const response = await stack.post(HAIKU, INPUT, headers);
      assert.equal(response.status, 503, String(trouble));
      assert.ok(Number(response.headers.get('retry-after')) > 0);
      assert.equal((await response.json()).error.code, 'FACILITATOR_UNAVAILABLE');
    }
    assert.equal(stack.claude.requests.length, 0);
    assert.equal(stack.facilitator.count('settle'), 0);
    stack.facilitator.onVerify = undefined;
    await sleep(3100); // after five failures in a row the facilitator is left alone for three seconds
    assert.equal((await readSse(await stack.post(HAIKU, INPUT, headers))).text, 'Hello, world');
    assert.equal(await stack.balance(payer), 1_000_000n - HAIKU_PRICE);
  });
});

describe('the order of things', () => {
  test('verify comes before Claude, settle after message_start, text after settle', async () => {
    const payer = await stack.payer();
    const begun = gate();
    let messageStartAt;
    stack.claude.script = () => [
      async () => begun.opened,
      start(),
      () => { messageStartAt = Date.now(); },
      open(), delta('Hel'), delta('lo'), shut(), end({ output_tokens: 2 }), stop,
    ];
    let settledAt;
    stack.facilitator.onSettle = async (call, next) => {
      await sleep(150); // as a chain would
      const answer = await next();
      settledAt = Date.now();
      return answer;
    };
    const response = stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, payer));
    await until(() => stack.claude.requests.length);
    await sleep(100);
    assert.equal(stack.facilitator.count('settle'), 0, 'settled before Claude had begun');
    begun.open();
    const { events, text } = await readSse(await response);
    assert.equal(text, 'Hello');
    const [verify, settle] = ['verify', 'settle'].map((kind) => stack.facilitator.calls.find((c) => c.kind === kind));
    assert.ok(verify.at + verify.ms <= stack.claude.requests[0].at + 1, 'Claude was asked before verify had answered');
    assert.ok(settle.at >= messageStartAt, 'settle was asked before message_start');
    assert.ok(events[0].at >= settledAt, 'text arrived before settle had answered');
    assert.equal(stack.facilitator.count('settle'), 1);
  });

  test('settling overlaps the answer: Claude goes on writing while the chain confirms', async () => {
    const payer = await stack.payer();
    stack.facilitator.onSettle = async (call, next) => { await sleep(900); return next(); };
    stack.claude.script = () => say(...'abcdefghij', { every: 90 });
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    const began = Date.now();
    const { text } = await readSse(await stack.post(HAIKU, INPUT, headers));
    assert.equal(text, 'abcdefghij');
    assert.ok(Date.now() - began < 1500, `took ${Date.now() - began} ms: 900 of settling and 900 of writing are not one after the other`);
  });

  test('text reaches the caller while Claude is still writing', async () => {
    const payer = await stack.payer();
    const more = gate();
    let released;
    stack.claude.script = () => [start(), open(), delta('first'), () => more.opened, delta(' second'), shut(), end(), stop];
    const events = sse(await stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, payer)));
    const first = (await events.next()).value;
    assert.equal(first.content, 'first');
    assert.equal(stack.claude.requests[0].endedAt, undefined, 'Claude had finished by then');
    await sleep(60);
    released = Date.now();
    more.open();
    const second = (await events.next()).value;
    assert.equal(second.content, ' second');
    assert.ok(first.at + 50 <= released && second.at >= released);
    assert.equal((await events.next()).value.type, 'done');
    assert.equal((await events.next()).done, true, 'the body ends after done');
  });

  test('an answer that is slow to speak after message_start is settled, and its text comes as it is written', async () => {
    const payer = await stack.payer();
    const more = gate();
    stack.claude.script = () => [start(), () => more.opened, open(), delta('late'), shut(), end(), stop];
    const response = await stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, payer));
    assert.equal(response.status, 200, 'the head is there before the text');
    assert.equal(stack.facilitator.count('settle'), 1);
    more.open();
    assert.equal((await readSse(response)).text, 'late');
  });

  test('a settlement that is refused: 402 with success false in PAYMENT-RESPONSE, and no text', async () => {
    const payer = await stack.payer();
    stack.claude.script = () => say('SECRET OF THE ANSWER');
    stack.facilitator.onSettle = (call) => ({ success: false, errorReason: 'insufficient_funds', transaction: '', network: NETWORK, payer: payer.address });
    const response = await stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, payer));
    assert.equal(response.status, 402);
    const settlement = decodeReceipt(response);
    assert.equal(settlement.success, false);
    assert.equal(settlement.errorReason, 'insufficient_funds');
    const v1 = JSON.parse(Buffer.from(response.headers.get('x-payment-response'), 'base64'));
    assert.deepEqual([settlement.network, v1.network], [NETWORK, 'base-sepolia']);
    const body = await response.text();
    assert.equal(body.includes('SECRET OF THE ANSWER'), false);
    assert.equal(JSON.parse(body).code, 'SETTLEMENT_REJECTED');
    assert.equal(await stack.balance(payer), 1_000_000n);
    assert.equal(decodeTerms(response).accepts.length, 1, 'a client may sign again');
  });

  test('a settlement without an answer is never a 402: 503, and the same payment finds out and gets its text', async () => {
    const payer = await stack.payer();
    const headers = await stack.signPayment(HAIKU, INPUT, payer);
    stack.facilitator.onSettle = async (call, next) => { await next(); return drop; }; // it was settled
    const response = await stack.post(HAIKU, INPUT, headers);
    assert.equal(response.status, 503);
    assert.ok(Number(response.headers.get('retry-after')) > 0);
    const body = await response.text();
    assert.equal(body.includes('Hello'), false);
    assert.equal(JSON.parse(body).error.code, 'SETTLEMENT_UNKNOWN');
    assert.equal(response.headers.get('payment-required'), null);
    const again = await stack.post(HAIKU, INPUT, headers);
    assert.equal(again.status, 200);
    assert.equal((await readSse(again)).text, 'Hello, world');
    assert.equal((await stack.chain.receipt(decodeReceipt(again).transaction)).status, 'success');
    assert.equal(stack.claude.requests.length, 1);
    assert.equal(stack.facilitator.count('settle'), 1, 'the chain was asked, and not the facilitator again');
    assert.equal(await stack.balance(payer), 1_000_000n - HAIKU_PRICE);
  });
});

describe('JSON', () => {
  for (const [name, headers] of [['Accept: application/json', { accept: 'application/json' }], ['X-No-Stream: true', { 'x-no-stream': 'true' }]]) {
    test(`${name}: settled only when the whole answer is there`, async () => {
      const payer = await stack.payer();
      const more = gate();
      stack.claude.script = () => [start({ input_tokens: 9 }), open(), delta('one'), () => more.opened, delta(' two'), shut(), end({ output_tokens: 4 }), stop];
      const answer = stack.post(HAIKU, INPUT, { ...headers, ...(await stack.signPayment(HAIKU, INPUT, payer)) });
      await until(() => stack.claude.requests[0]?.sent === 3);
      await sleep(400);
      assert.equal(stack.facilitator.count('settle'), 0, 'settled before the answer was whole');
      more.open();
      const response = await answer;
      assert.equal(response.status, 200);
      assert.match(response.headers.get('content-type'), /^application\/json/);
      const body = await response.json();
      assert.equal(body.output, 'one two');
      assert.deepEqual([body.usage.input_tokens, body.usage.output_tokens], [9, 4]);
      assert.equal(body.stop_reason, 'end_turn');
      assert.equal((await stack.chain.receipt(decodeReceipt(response).transaction)).status, 'success');
      assert.equal(stack.facilitator.count('settle'), 1);
      assert.equal(await stack.balance(payer), 1_000_000n - HAIKU_PRICE);
    });
  }

  test('Claude failing midway charges nothing, and the same payment buys the run when Claude is well', async () => {
    const payer = await stack.payer();
    const headers = { accept: 'application/json', ...(await stack.signPayment(HAIKU, INPUT, payer)) };
    stack.claude.script = () => [start(), open(), delta('half of an ans'), 300, cut];
    const response = await stack.post(HAIKU, INPUT, headers);
    assert.equal(response.status, 502);
    const body = await response.text();
    assert.equal(JSON.parse(body).error.code, 'CLAUDE_CUT_OFF');
    assert.equal(body.includes('half of'), false);
    assert.equal(stack.facilitator.count('settle'), 0);
    assert.equal(await stack.balance(payer), 1_000_000n);
    stack.claude.script = hello;
    assert.equal((await (await stack.post(HAIKU, INPUT, headers)).json()).output, 'Hello, world');
    assert.equal(await stack.balance(payer), 1_000_000n - HAIKU_PRICE);
  });

  test('the official client gets JSON too', async () => {
    const payer = await stack.payer();
    const response = await stack.payV2(HAIKU, INPUT, { accept: 'application/json' }, payer);
    assert.equal((await response.json()).output, 'Hello, world');
  });

  test('a refusal of Claude is told as JSON and never as its own 402', async () => {
    stack.claude.script = () => apiError(402);
    const payer = await stack.payer();
    const response = await stack.post(HAIKU, INPUT, { accept: 'application/json', ...(await stack.signPayment(HAIKU, INPUT, payer)) });
    assert.equal(response.status, 503);
    assert.equal((await response.json()).error.code, 'CLAUDE_BILLING');
  });
});
