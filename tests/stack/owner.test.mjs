// Owners test their templates for nothing; nobody else does, whatever token they bring.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import http from 'node:http';
import { after, before, beforeEach, describe, test } from 'node:test';
import { SignJWT, exportJWK, exportSPKI, generateKeyPair } from 'jose';
import { say } from '../support/claude.mjs';
import { DRAFT, DRAFT_INPUT, HAIKU, HAIKU_PRICE, INPUT, JWT_SECRET, ada, grace, readSse, startStack } from '../support/stack.mjs';

const AUDIENCE = 'coinslot';
const PUBLIC = 'https://keys.example'; // the issuer with its JWKS in the document
const HOSTED = 'https://hosted.example'; // the one that publishes them
let stack;
let jwksServer;
let jwksCalls = 0;
const keys = {};

before(async () => {
  for (const alg of ['ES256', 'RS256']) {
    for (const place of ['inline', 'hosted', 'stranger']) {
      const pair = await generateKeyPair(alg, { extractable: true });
      keys[`${place} ${alg}`] = { ...pair, jwk: { ...(await exportJWK(pair.publicKey)), kid: `${place}-${alg}`, alg, use: 'sig' } };
    }
  }
  const set = (place) => ({ keys: ['ES256', 'RS256'].map((alg) => keys[`${place} ${alg}`].jwk) });
  jwksServer = http.createServer((req, res) => {
    jwksCalls += 1;
    res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(set('hosted')));
  });
  await new Promise((resolve) => jwksServer.listen(0, '127.0.0.1', resolve));
  stack = await startStack({
    config: {
      jwt: {
        issuers: [
          { issuer: 'coinslot', audience: AUDIENCE, secret: 'JWT_SECRET' },
          { issuer: PUBLIC, audience: AUDIENCE, jwks: set('inline') },
          { issuer: HOSTED, audience: AUDIENCE, jwksUrl: `http://127.0.0.1:${jwksServer.address().port}/jwks.json` },
        ],
      },
    },
  });
});
after(async () => {
  jwksServer?.close();
  jwksServer?.closeAllConnections();
  await stack?.close();
});
beforeEach(() => stack.reset(() => say('Hello', ', ', 'world')));

/** A token signed with one of our key pairs. */
const sign = (key, alg, issuer, { kid = keys[key].jwk.kid, claims = {}, exp = '1h' } = {}) =>
  new SignJWT({ iss: issuer, aud: AUDIENCE, sub: ada.id, ...claims }).setProtectedHeader({ alg, ...(kid && { kid }) }).setIssuedAt().setExpirationTime(exp).sign(keys[key].privateKey);

const encode = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
/** A token whose parts are ours to choose. */
const forge = (header, claims, signer = () => '') => {
  const signed = `${encode(header)}.${encode({ iss: 'coinslot', aud: AUDIENCE, sub: ada.id, exp: Math.floor(Date.now() / 1000) + 3600, ...claims })}`;
  return `${signed}.${signer(signed)}`;
};
const hs256 = (secret) => (signed) => createHmac('sha256', secret).update(signed).digest('base64url');

function nothingHappened() {
  assert.equal(stack.facilitator.calls.length, 0);
  assert.equal(stack.claude.requests.length, 0);
}

describe("an owner's test", () => {
  test('runs a published template for nothing, marked in the ledger and left out of runs and earnings', async () => {
    const before = await stack.template('template_ada_haiku');
    const response = await stack.ownerTest(HAIKU, INPUT);
    assert.equal(response.status, 200);
    assert.equal(response.headers.get('x-owner-test'), 'true');
    assert.equal(response.headers.get('payment-response'), null);
    const { text, done } = await readSse(response);
    assert.equal(text, 'Hello, world');
    assert.equal(done.receipt, null);
    assert.equal(stack.facilitator.calls.length, 0);
    const row = await stack.row(done.run);
    assert.deepEqual(
      [row.owner_test, row.status, row.payer, row.amount, row.tx, row.network, row.creator_id, row.output_tokens],
      [1, 'delivered', null, '0', null, null, ada.id, 3],
    );
    const now = await stack.template('template_ada_haiku');
    assert.equal(now.owner_tests, before.owner_tests + 1);
    assert.equal(now.runs, before.runs);
    assert.equal(now.delivered, before.delivered);
    assert.deepEqual(await stack.earnings('template_ada_haiku'), []);
  });

  test('runs a draft, as a stream and as JSON', async () => {
    assert.equal((await readSse(await stack.ownerTest(DRAFT, DRAFT_INPUT))).text, 'Hello, world');
    const response = await stack.ownerTest(DRAFT, DRAFT_INPUT, undefined, { accept: 'application/json' });
    assert.equal((await response.json()).output, 'Hello, world');
    assert.equal(stack.facilitator.calls.length, 0);
  });

  test('is a run of its own each time', async () => {
    const runs = new Set();
    for (let i = 0; i < 3; i++) runs.add((await readSse(await stack.ownerTest(HAIKU, INPUT))).done.run);
    assert.equal(runs.size, 3);
    assert.equal(stack.claude.requests.length, 3);
  });

  test('has its input checked as any other', async () => {
    const response = await stack.ownerTest(HAIKU, { topic: 7 });
    assert.equal(response.status, 400);
    nothingHappened();
  });

  test('that fails at Claude says so, and is marked in the ledger', async () => {
    stack.claude.script = () => ({ status: 529, headers: {}, error: { type: 'overloaded_error', message: 'x' } });
    const response = await stack.ownerTest(HAIKU, INPUT);
    assert.equal(response.status, 503);
    const { error } = await response.json();
    assert.equal(error.code, 'CLAUDE_OVERLOADED');
    const row = await stack.row(error.run);
    assert.deepEqual([row.owner_test, row.status], [1, 'failed']);
  });
});

describe('without X-Owner-Test', () => {
  for (const [name, extra] of [['no such header', {}], ['X-Owner-Test: false', { 'x-owner-test': 'false' }], ['X-Owner-Test: 1', { 'x-owner-test': '1' }]]) {
    test(`the owner pays like anybody: ${name}`, async () => {
      const authorization = `Bearer ${await stack.token()}`;
      const response = await stack.post(HAIKU, INPUT, { authorization, ...extra });
      assert.equal(response.status, 402);
      nothingHappened();
    });
  }

  test("an owner's token does no harm to a payment", async () => {
    const payer = await stack.payer();
    const response = await stack.payV2(HAIKU, INPUT, { authorization: `Bearer ${await stack.token()}` }, payer);
    assert.equal((await readSse(response)).text, 'Hello, world');
    assert.equal(await stack.balance(payer), 1_000_000n - HAIKU_PRICE);
  });
});

describe("others' tokens", () => {
  test("another creator's token is a 403", async () => {
    const response = await stack.ownerTest(HAIKU, INPUT, await stack.token(grace));
    assert.equal(response.status, 403);
    assert.equal((await response.json()).error.code, 'NOT_OWNER');
    nothingHappened();
  });

  test('no token is a 401', async () => {
    const response = await stack.post(HAIKU, INPUT, { 'x-owner-test': 'true' });
    assert.equal(response.status, 401);
    assert.match(response.headers.get('www-authenticate'), /Bearer/);
    nothingHappened();
  });

  const bad = {
    garbage: () => 'garbage',
    'three dots': () => '...',
    'another scheme': () => ({ raw: `Basic ${Buffer.from('a:b').toString('base64')}` }),
    'a wrong signature': async () => `${(await stack.token()).slice(0, -6)}AAAAAA`,
    'no signature': async () => (await stack.token()).replace(/[^.]*$/, ''),
    'another secret': () => forge({ alg: 'HS256' }, {}, hs256('another secret that is long enough')),
    'an empty secret': () => forge({ alg: 'HS256' }, {}, hs256('')),
    'changed claims': async () => { const [h, , s] = (await stack.token(grace)).split('.'); return `${h}.${encode({ iss: 'coinslot', aud: AUDIENCE, sub: ada.id, exp: 4102444800 })}.${s}`; },
    expired: () => stack.token(ada, {}, new Date(Date.now() - 120_000)),
    'not valid yet': () => stack.token(ada, { nbf: Math.floor(Date.now() / 1000) + 600 }),
    'no expiry': () => new SignJWT({ iss: 'coinslot', aud: AUDIENCE, sub: ada.id }).setProtectedHeader({ alg: 'HS256' }).sign(new TextEncoder().encode(JWT_SECRET)),
    'a wrong issuer': () => stack.token(ada, { iss: 'somebody' }),
    'a wrong audience': () => stack.token(ada, { aud: 'another service' }),
    'no subject': () => stack.token({ id: '' }),
    'alg none': () => forge({ alg: 'none' }, {}),
    'alg None with a signature': () => forge({ alg: 'None' }, {}, hs256(JWT_SECRET)),
    'HS384': () => forge({ alg: 'HS384' }, {}, (signed) => createHmac('sha384', JWT_SECRET).update(signed).digest('base64url')),
    'a critical extension': () => forge({ alg: 'HS256', crit: ['b64'], b64: false }, {}, hs256(JWT_SECRET)),
    'RS256 to the issuer with a secret': () => sign('inline RS256', 'RS256', 'coinslot'),
    'ES256 to the issuer with a secret': () => sign('inline ES256', 'ES256', 'coinslot'),
    'HS256 signed with the text of a public key': async () => forge({ alg: 'HS256', kid: keys['inline RS256'].jwk.kid }, { iss: PUBLIC }, hs256(await exportSPKI(keys['inline RS256'].publicKey))),
    'HS256 signed with the JSON of a public key': () => forge({ alg: 'HS256', kid: keys['inline ES256'].jwk.kid }, { iss: PUBLIC }, hs256(JSON.stringify(keys['inline ES256'].jwk))),
    "HS256 with the secret, in another issuer's name": () => forge({ alg: 'HS256' }, { iss: PUBLIC }, hs256(JWT_SECRET)),
    "ES256 of another issuer's key": () => sign('hosted ES256', 'ES256', PUBLIC, { kid: keys['inline ES256'].jwk.kid }),
    'RS256 of a strange key': () => sign('stranger RS256', 'RS256', PUBLIC, { kid: keys['inline RS256'].jwk.kid }),
    'a key of the set by a name that is not its own': () => sign('inline ES256', 'ES256', PUBLIC, { kid: 'nobody' }),
    'a public key that the token brings itself': async () => {
      const { jwk, privateKey } = keys['stranger ES256'];
      return new SignJWT({ iss: PUBLIC, aud: AUDIENCE, sub: ada.id }).setProtectedHeader({ alg: 'ES256', jwk }).setExpirationTime('1h').sign(privateKey);
    },
    'nine kilobytes': () => `${'a'.repeat(9000)}.b.c`,
  };
  for (const [name, make] of Object.entries(bad)) {
    test(`a bad token is a 401, whatever is wrong with it: ${name}`, async () => {
      const token = await make();
      const authorization = token.raw ?? `Bearer ${token}`;
      const response = await stack.post(HAIKU, INPUT, { 'x-owner-test': 'true', authorization });
      const body = await response.text();
      assert.equal(response.status, 401, body);
      assert.equal(JSON.parse(body).error.code, 'TOKEN_INVALID');
      nothingHappened();
    });
  }
});

describe('public keys', () => {
  for (const alg of ['ES256', 'RS256']) {
    test(`${alg} from the JWKS in the config`, async () => {
      const response = await stack.ownerTest(HAIKU, INPUT, await sign(`inline ${alg}`, alg, PUBLIC));
      assert.equal((await readSse(response)).text, 'Hello, world');
    });
    test(`${alg} from the JWKS in the config, without a kid`, async () => {
      assert.equal((await stack.ownerTest(HAIKU, INPUT, await sign(`inline ${alg}`, alg, PUBLIC, { kid: null }))).status, 200);
    });
    test(`${alg} from a JWKS URL`, async () => {
      const response = await stack.ownerTest(HAIKU, INPUT, await sign(`hosted ${alg}`, alg, HOSTED));
      assert.equal((await readSse(response)).text, 'Hello, world');
      assert.equal(jwksCalls, 1, 'the published keys are kept');
    });
    test(`${alg} of another creator is a 403, not a 401`, async () => {
      assert.equal((await stack.ownerTest(HAIKU, INPUT, await sign(`hosted ${alg}`, alg, HOSTED, { claims: { sub: grace.id } }))).status, 403);
    });
  }

  test('an audience among several is enough', async () => {
    assert.equal((await stack.ownerTest(HAIKU, INPUT, await stack.token(ada, { aud: ['x', AUDIENCE] }))).status, 200);
  });
});

describe('what is not there', () => {
  /** Status, body and headers, as a stranger sees them. */
  const seen = async (response) => {
    const headers = Object.fromEntries([...response.headers].filter(([name]) => !['date', 'content-length'].includes(name)));
    return { status: response.status, headers, body: await response.text() };
  };

  test('a draft is to strangers and other owners, to the byte, what an unknown template is', async () => {
    const unknown = '/@ada/no-such-thing';
    const payer = await stack.payer();
    const payment = await stack.signPayment(HAIKU, INPUT, payer);
    const tries = {
      'no header': {},
      'an owner test without a token': { 'x-owner-test': 'true' },
      'a bad token': { 'x-owner-test': 'true', authorization: 'Bearer garbage' },
      "another owner's token": { 'x-owner-test': 'true', authorization: `Bearer ${await stack.token(grace)}` },
      "the owner's token, not as a test": { authorization: `Bearer ${await stack.token()}` },
      'a payment': payment,
    };
    for (const [name, headers] of Object.entries(tries)) {
      for (const input of [DRAFT_INPUT, undefined, { wrong: 1 }, 'not json']) {
        const [draft, none] = await Promise.all([stack.post(DRAFT, input, headers).then(seen), stack.post(unknown, input, headers).then(seen)]);
        assert.equal(draft.status, 404, name);
        assert.deepEqual(draft, none, name);
      }
    }
    for (const init of [{}, { headers: { authorization: `Bearer ${await stack.token(grace)}` } }]) {
      const [draft, none] = await Promise.all([DRAFT, unknown].map((path) => fetch(`${stack.url}${path}`, init).then(seen)));
      assert.deepEqual(draft, none);
    }
    nothingHappened();
  });

  test('an unknown creator is the same 404', async () => {
    assert.deepEqual(await seen(await stack.post('/@nobody/haiku', INPUT)), await seen(await stack.post('/@ada/no-such-thing', INPUT)));
  });

  test("a deleted creator's templates are the same 404, to their former owner too", async () => {
    const token = await stack.token(grace);
    const path = '/@grace/explain-error';
    assert.equal((await stack.post(path, { error: 'x' })).status, 402);
    await stack.DB.prepare('UPDATE creators SET deleted_at = 1 WHERE id = ?').bind(grace.id).run();
    try {
      const none = await seen(await stack.post('/@grace/no-such-thing', { error: 'x' }));
      assert.equal(none.status, 404);
      assert.deepEqual(await seen(await stack.post(path, { error: 'x' })), none);
      assert.deepEqual(await seen(await stack.ownerTest(path, { error: 'x' }, token)), none);
    } finally {
      await stack.DB.prepare('UPDATE creators SET deleted_at = NULL WHERE id = ?').bind(grace.id).run();
    }
    nothingHappened();
  });

  test("a card never shows the prompt, and a draft's card is its owner's", async () => {
    const card = await fetch(`${stack.url}${HAIKU}`);
    assert.equal(card.status, 200);
    assert.equal((await card.text()).includes('You are a poet'), false);
    const own = await fetch(`${stack.url}${DRAFT}`, { headers: { authorization: `Bearer ${await stack.token()}` } });
    assert.equal(own.status, 200);
    assert.equal((await own.text()).includes('You write release notes'), false);
  });
});
