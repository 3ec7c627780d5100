// Look-ups of others that strangers can cause: health probes and issuers' published keys. Each is made once, however
// many ask; a rotated key is accepted at once; old keys stay good while the issuer is down.
import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, beforeEach, test } from 'node:test';
import { SignJWT, exportJWK, generateKeyPair } from 'jose';
import { say } from '../support/claude.mjs';
import { HAIKU, ada, sleep, startStack } from '../support/stack.mjs';

const [ISSUER, AUDIENCE] = ['https://login.example', 'coinslot'];
let stack;
let issuer;
let published;
let down = false;
let fetches = 0;
let probes = 0;
let probed;
before(async () => {
  issuer = http.createServer((req, res) => {
    if (req.url === '/keys') {
      fetches += 1;
      if (down) return res.writeHead(503).end();
      setTimeout(() => res.end(JSON.stringify({ keys: published })), 100);
    } else {
      probes += 1;
      setTimeout(() => res.end(JSON.stringify({ kinds: [] })), 200);
    }
  });
  await new Promise((resolve) => issuer.listen(0, '127.0.0.1', resolve));
  probed = `http://127.0.0.1:${issuer.address().port}`;
  stack = await startStack({ config: { jwt: { issuers: [{ issuer: 'coinslot', audience: AUDIENCE, secret: 'JWT_SECRET' }, { issuer: ISSUER, audience: AUDIENCE, jwksUrl: `${probed}/keys` }] } } });
});
after(async () => {
  issuer?.close();
  issuer?.closeAllConnections();
  await stack?.close();
});
beforeEach(async () => {
  stack.reset(() => say('Hello'));
  await stack.restart({ FACILITATOR_URL: `${probed}/f`, ANTHROPIC_BASE_URL: `${probed}/c` });
  [down, fetches, probes] = [false, 0, 0];
});

let count = 0;
async function newKey(kid = `key-${(count += 1)}`) {
  const pair = await generateKeyPair('ES256', { extractable: true });
  return { kid, privateKey: pair.privateKey, jwk: { ...(await exportJWK(pair.publicKey)), ...(kid && { kid }) } };
}
const sign = ({ kid, privateKey }) =>
  new SignJWT({ iss: ISSUER, aud: AUDIENCE, sub: ada.id }).setProtectedHeader({ alg: 'ES256', ...(kid && { kid }) }).setIssuedAt().setExpirationTime('1h').sign(privateKey);
/** The status of an owner's request that needs a valid token and nothing else. */
const status = async (token) => {
  const response = await fetch(`${stack.url}${HAIKU}/runs`, { headers: { authorization: `Bearer ${token}` } });
  await response.text();
  return response.status;
};
const forged = async (n, kid = () => `forged-${Math.random()}`) => Promise.all(Array.from({ length: n }, async () => sign(await newKey(kid()))));

test('200 health checks at once: two calls at most, of the facilitator and of Claude together', async () => {
  const answers = await Promise.all(Array.from({ length: 200 }, async () => (await fetch(`${stack.url}/healthz`)).json()));
  assert.equal(new Set(answers.map((a) => JSON.stringify(a))).size, 1);
  assert.equal(answers[0].reachable.claude, true);
  assert.ok(probes <= 2, `${probes} calls`);
});

test('50 tokens at once on a cold start: one fetch, and all of them are accepted', async () => {
  const key = await newKey();
  published = [key.jwk];
  const token = await sign(key);
  assert.deepEqual(await Promise.all(Array.from({ length: 50 }, () => status(token))), Array(50).fill(200));
  assert.equal(fetches, 1);
});

test('50 forged tokens while the key set is down: one fetch; and once it is up again, its tokens are accepted', async () => {
  const key = await newKey();
  published = [key.jwk];
  down = true;
  for (const answer of await Promise.all((await forged(50)).map(status))) assert.ok(answer >= 400);
  for (const token of await forged(10)) assert.ok((await status(token)) >= 400);
  assert.equal(fetches, 1);
  down = false;
  await sleep(5100);
  assert.equal(await status(await sign(key)), 200);
});

test('a rotated key is accepted at once, also after forged ones; 50 forged ones at once make two fetches at most', async () => {
  const [old, next, last] = [await newKey(), await newKey(), await newKey()];
  published = [old.jwk];
  assert.equal(await status(await sign(old)), 200);
  published = [next.jwk, null, { kty: 7 }];
  assert.equal(await status(await sign(next)), 200, 'at once');
  assert.equal(fetches, 2);
  assert.equal(await status(await sign(old)), 401, 'and the old one is not good any more');
  await sleep(1100);
  fetches = 0;
  for (const answer of await Promise.all((await forged(50)).map(status))) assert.equal(answer, 401);
  assert.ok(fetches <= 2, `${fetches} fetches`);
  published = [last.jwk];
  const began = Date.now();
  assert.equal(await status(await sign(last)), 200);
  assert.ok(Date.now() - began < 2500);
});

test('a wrong signature under a key that is known makes no fetch', async () => {
  const key = await newKey();
  published = [key.jwk];
  assert.equal(await status(await sign(key)), 200);
  for (const token of await forged(20, () => key.kid)) assert.equal(await status(token), 401);
  assert.equal(fetches, 1);
});

test('a rotation in a set whose keys have no ids', async () => {
  const [old, next] = [await newKey(null), await newKey(null)];
  published = [old.jwk];
  assert.equal(await status(await sign(old)), 200);
  published = [next.jwk];
  assert.equal(await status(await sign(next)), 200);
});

test('old keys stay good while the key set is down', async () => {
  const [key, next] = [await newKey(), await newKey()];
  published = [key.jwk];
  assert.equal(await status(await sign(key)), 200);
  down = true;
  assert.equal(await status(await sign(next)), 401);
  assert.equal(await status(await sign(key)), 200);
  assert.equal(fetches, 2);
});
