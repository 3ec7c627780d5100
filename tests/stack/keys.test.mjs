// The creator's Claude key goes in and never comes out, and no run is sold without one that works.
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { BAD_KEY, GOOD_KEY, say } from '../support/claude.mjs';
import { HAIKU, HAIKU_PRICE, INPUT, ada, grace, readSse, startStack, vaultKey } from '../support/stack.mjs';

const K1 = vaultKey('k1');
const K2 = vaultKey('k2');
const WHOLE = 1_000_000n;
let stack;
before(async () => { stack = await startStack({ vars: { VAULT_KEYS: K1 } }); });
after(() => stack?.close());
beforeEach(async () => {
  stack.reset(() => say('Hello'));
  assert.equal((await stack.storeKey(ada, GOOD_KEY)).status, 200);
});

/** Calls the key's route as `creator`; checks that no answer holds a key. */
async function call(method, { creator = ada, body, query = '', headers } = {}) {
  const response = await fetch(`${stack.url}/integrations/claude/config${query}`, {
    method,
    headers: headers ?? { authorization: `Bearer ${await stack.token(creator)}`, 'content-type': 'application/json' },
    body: body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body),
  });
  const text = await response.text();
  const all = text + JSON.stringify([...response.headers]);
  for (const key of [GOOD_KEY, BAD_KEY, 'ggggggggg', 'bbbbbbbbb']) assert.equal(all.includes(key), false, `a key in ${all}`);
  return { status: response.status, headers: response.headers, body: JSON.parse(text) };
}

async function paid(path = HAIKU, input = INPUT) {
  const payer = await stack.payer();
  const headers = await stack.signPayment(path, input, payer);
  return { payer, headers, present: () => stack.post(path, input, headers) };
}

/** Unpaid, it is a 503 with this code and no terms. */
async function notForSale(code, path = HAIKU, input = INPUT) {
  for (const body of [input, undefined]) {
    const response = await stack.post(path, body);
    assert.equal(response.status, 503);
    assert.equal(response.headers.get('payment-required'), null);
    assert.equal((await response.json()).error.code, code);
  }
}

describe('the key route', () => {
  test('PUT stores, GET tells that there is one, DELETE forgets it; the key itself is never told', async () => {
    const put = await call('PUT', { body: { apiKey: GOOD_KEY } });
    assert.equal(put.status, 200);
    assert.deepEqual(Object.keys(put.body).sort(), ['fingerprint', 'hasApiKey', 'isEnabled', 'updatedAt']);
    assert.deepEqual([put.body.hasApiKey, put.body.isEnabled], [true, true]);
    assert.ok(Math.abs(put.body.updatedAt - Date.now()) < 10_000);
    assert.match(put.body.fingerprint, /^[0-9a-f]{8,16}$/);
    assert.match(put.headers.get('cache-control'), /no-store/);
    assert.deepEqual((await call('GET')).body, put.body);

    const other = await call('PUT', { body: { apiKey: BAD_KEY } });
    assert.notEqual(other.body.fingerprint, put.body.fingerprint, 'fingerprints tell keys apart');

    for (let i = 0; i < 2; i++) {
      const gone = await call('DELETE');
      assert.equal(gone.status, 200);
      assert.deepEqual([gone.body.hasApiKey, gone.body.isEnabled], [false, false]);
    }
    assert.equal((await call('GET')).body.hasApiKey, false);
    assert.equal(await stack.KV.get(`claude-key/${ada.id}`), null);
  });

  test('needs a token, and each creator has a key of their own', async () => {
    for (const method of ['GET', 'PUT', 'DELETE']) {
      const body = method === 'PUT' ? { apiKey: BAD_KEY } : undefined;
      assert.equal((await call(method, { headers: {}, body })).status, 401);
      assert.equal((await call(method, { headers: { authorization: 'Bearer x.y.z' }, body })).status, 401);
    }
    const before = (await call('GET', { creator: grace })).body;
    await call('DELETE');
    assert.deepEqual((await call('GET', { creator: grace })).body, before);
  });

  const wrong = {
    'another form': { apiKey: 'password' },
    'another prefix': { apiKey: GOOD_KEY.replace('sk-ant', 'sk-oai') },
    'white space': { apiKey: `${GOOD_KEY} ` },
    'a line break': { apiKey: `${GOOD_KEY}\r\nx-evil: 1` },
    'too short': { apiKey: 'sk-ant-x' },
    'too long': { apiKey: `sk-ant-${'g'.repeat(600)}` },
    'not a string': { apiKey: 7 },
    'an unknown field': { apiKey: GOOD_KEY, api_key: GOOD_KEY },
    nothing: {},
    'not JSON': `{"apiKey":"${BAD_KEY}"`,
    'an array': [GOOD_KEY],
    'isEnabled of another type': { isEnabled: 'yes' },
  };
  for (const [name, body] of Object.entries(wrong)) {
    test(`refuses ${name}, and keeps what is stored`, async () => {
      const before = await stack.KV.get(`claude-key/${ada.id}`);
      const answer = await call('PUT', { body });
      assert.equal(answer.status, 400, JSON.stringify(answer.body));
      assert.ok(answer.body.error.details.field);
      assert.equal(await stack.KV.get(`claude-key/${ada.id}`), before);
    });
  }

  test('?verify=true asks Anthropic: a good key is stored, a bad one is not', async () => {
    const checks = stack.claude.modelChecks();
    assert.equal((await call('PUT', { body: { apiKey: GOOD_KEY }, query: '?verify=true' })).status, 200);
    assert.equal(stack.claude.modelChecks(), checks + 1);
    const before = await stack.KV.get(`claude-key/${ada.id}`);
    const bad = await call('PUT', { body: { apiKey: BAD_KEY }, query: '?verify=true' });
    assert.equal(bad.status, 422);
    assert.equal(bad.body.error.code, 'API_KEY_REJECTED');
    assert.equal(await stack.KV.get(`claude-key/${ada.id}`), before);
    assert.equal(stack.claude.requests.length, 0, 'no message was paid for');
    // Unasked, nobody is asked.
    assert.equal((await call('PUT', { body: { apiKey: GOOD_KEY } })).status, 200);
    assert.equal(stack.claude.modelChecks(), checks + 1);
  });

  test('what KV holds is sealed, and sealed anew each time', async () => {
    const first = await stack.KV.get(`claude-key/${ada.id}`);
    assert.equal(first.includes(GOOD_KEY), false);
    await stack.storeKey(ada, GOOD_KEY);
    const second = await stack.KV.get(`claude-key/${ada.id}`);
    assert.notEqual(JSON.parse(first).envelope, JSON.parse(second).envelope);
  });
});

describe('before any payment is asked for', () => {
  test('a disabled key is a 503, and enabled again it sells', async () => {
    const off = await call('PUT', { body: { isEnabled: false } });
    assert.deepEqual([off.status, off.body.hasApiKey, off.body.isEnabled], [200, true, false]);
    await notForSale('CREATOR_KEY_DISABLED');
    assert.equal((await stack.ownerTest(HAIKU, INPUT)).status, 503);
    await call('PUT', { body: { isEnabled: true } });
    const { present } = await paid();
    assert.equal((await readSse(await present())).text, 'Hello');
    assert.equal(stack.claude.requests.at(-1).key, GOOD_KEY);
  });

  test('switching writes no key: one that was replaced or deleted meanwhile cannot come back', async () => {
    const { KV } = stack;
    const before = await KV.get(`claude-key/${ada.id}`);
    await call('PUT', { body: { isEnabled: false } });
    assert.equal(await KV.get(`claude-key/${ada.id}`), before);
    assert.equal((await call('GET')).body.isEnabled, false);
    await stack.storeKey(ada, GOOD_KEY);
    assert.equal((await call('GET')).body.isEnabled, true, 'a new key is on');
    await call('PUT', { body: { isEnabled: false } });
    await call('DELETE');
    assert.deepEqual((await KV.list()).keys.filter(({ name }) => name.startsWith('claude-') && name.endsWith(ada.id)), []);
    await stack.storeKey(ada, GOOD_KEY);
  });

  test('a missing key is a 503', async () => {
    await call('DELETE');
    await notForSale('CREATOR_KEY_MISSING');
    assert.equal((await call('PUT', { body: { isEnabled: true } })).status, 400, 'there is nothing to enable');
  });

  test('a payment signed before the key went away is not touched', async () => {
    for (const take of [() => call('PUT', { body: { isEnabled: false } }), () => call('DELETE')]) {
      await stack.storeKey(ada, GOOD_KEY);
      stack.reset();
      const { payer, present } = await paid();
      await take();
      const response = await present();
      assert.equal(response.status, 503);
      assert.match((await response.json()).error.code, /^CREATOR_KEY_/);
      assert.equal(stack.facilitator.calls.length, 0);
      assert.equal(stack.claude.requests.length, 0);
      await stack.storeKey(ada, GOOD_KEY);
      assert.equal((await readSse(await present())).text, 'Hello');
      assert.equal(await stack.balance(payer), WHOLE - HAIKU_PRICE);
    }
  });

  test('a run that was paid before the key went away is still replayed', async () => {
    const { present } = await paid();
    const body = await (await present()).text();
    await call('DELETE');
    const again = await present();
    assert.equal(again.status, 200);
    assert.equal(await again.text(), body);
  });
});

/**
 * `spoil` makes the creator's stored key one that cannot be opened. A payment signed before is refused with a
 * 503 and not charged, and Claude is not asked. Whoever asks for terms then may get them or a 503.
 */
async function doesNotOpen(spoil, path = HAIKU, input = INPUT) {
  stack.reset();
  const { payer, present } = await paid(path, input);
  await spoil();
  const response = await present();
  const body = await response.text();
  assert.equal(response.status, 503, body);
  assert.match(JSON.parse(body).error.code, /^(CLAUDE_KEY_INVALID|CREATOR_KEY_MISSING)$/);
  assert.equal(stack.facilitator.count('settle'), 0);
  assert.equal(stack.claude.requests.length, 0);
  assert.equal(await stack.balance(payer), WHOLE);
  return { payer, present };
}

describe('the envelope', () => {
  test("copied to another creator it does not open, and nothing is charged", async () => {
    const theirs = await stack.KV.get(`claude-key/${grace.id}`);
    try {
      const copy = async () => stack.KV.put(`claude-key/${grace.id}`, await stack.KV.get(`claude-key/${ada.id}`));
      await doesNotOpen(copy, '/@grace/explain-error', { error: 'x' });
    } finally {
      await stack.KV.put(`claude-key/${grace.id}`, theirs);
    }
    // The same envelope in its own place does.
    const { present } = await paid();
    assert.equal((await readSse(await present())).text, 'Hello');
  });

  test('tampered with it does not open, and nothing is charged', async () => {
    const good = await stack.KV.get(`claude-key/${ada.id}`);
    const record = JSON.parse(good);
    const parts = record.envelope.split('.');
    const flipped = Buffer.from(parts[3], 'base64url');
    flipped[3] ^= 1;
    for (const envelope of [[...parts.slice(0, 3), flipped.toString('base64url')].join('.'), 'v1.k1.AAAA', '', [parts[0], 'k9', ...parts.slice(2)].join('.')]) {
      await stack.KV.put(`claude-key/${ada.id}`, good);
      await doesNotOpen(() => stack.KV.put(`claude-key/${ada.id}`, JSON.stringify({ ...record, envelope })));
    }
  });

  test('master keys rotate: the new one seals, listed old ones still open', async () => {
    const sealedWith = async () => JSON.parse(await stack.KV.get(`claude-key/${ada.id}`)).envelope.split('.')[1];
    assert.equal(await sealedWith(), 'k1');
    await stack.restart({ VAULT_KEYS: `${K2},${K1}` });
    assert.equal((await readSse(await (await paid()).present())).text, 'Hello');
    assert.equal(stack.claude.requests.at(-1).key, GOOD_KEY);
    await stack.storeKey(ada, GOOD_KEY);
    assert.equal(await sealedWith(), 'k2');
    assert.equal((await readSse(await (await paid()).present())).text, 'Hello');
    await stack.restart();
  });

  test('a master key that was removed: 503, nothing charged, and the payment is good again with the key', async () => {
    const { payer, present } = await doesNotOpen(() => stack.restart({ VAULT_KEYS: K2 }));
    stack.reset(() => say('Hello'));
    await stack.restart();
    assert.equal((await readSse(await present())).text, 'Hello');
    assert.equal(await stack.balance(payer), WHOLE - HAIKU_PRICE);
  });

  for (const [name, VAULT_KEYS] of [['empty', ''], ['not of the form', 'k1=abc'], ['of a short key', 'k1:YWJj']]) {
    test(`VAULT_KEYS ${name}: nothing is sold, nothing is charged, no key is stored`, async () => {
      await stack.restart({ VAULT_KEYS });
      try {
        const payer = await stack.payer();
        // Whether or not terms are still told: what matters is that a payment stays untouched.
        const first = await stack.post(HAIKU, INPUT);
        await first.text();
        if (first.status === 402) {
          const response = await stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, payer));
          assert.ok(response.status >= 500, String(response.status));
        }
        assert.equal(stack.facilitator.count('settle'), 0);
        assert.equal(await stack.balance(payer), WHOLE);
        assert.equal((await stack.storeKey(ada, GOOD_KEY)).status, 500);
      } finally {
        await stack.restart();
      }
    });
  }
});
