// What an isolate keeps for `limits.cacheSeconds`: templates and the records of creators' keys. A change in D1 or KV is
// noticed within those seconds, and one that is made through this isolate at once.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { asked, payer, payerStack, stack } from '../support/file_stack.mjs';
import { ada, HAIKU, INPUT, readSse, sleep, until } from '../support/stack.mjs';

const SECONDS = 3;
const TEMPLATE = 'template_ada_haiku';
payerStack({ vars: { LIMITS: JSON.stringify({ cacheSeconds: SECONDS }) } });

const status = async () => {
  const response = await stack.post(HAIKU, INPUT);
  const { code, error } = await response.json();
  return code ?? error.code;
};
/** Waits until what an earlier test has changed is forgotten. */
const onSale = () => until(async () => (await status()) === 'PAYMENT_REQUIRED', { timeout: 2 * SECONDS * 1000, what: 'a template on sale' });
/** Waits until the terms are refused with `code`: not at once, and not later than they may be kept. */
async function noticed(code, change) {
  await onSale();
  await change();
  const changedAt = Date.now();
  assert.equal(await status(), 'PAYMENT_REQUIRED', 'it was read a moment ago');
  await until(async () => (await status()) === code, { timeout: 2 * SECONDS * 1000, every: 100, what: code });
  const took = Date.now() - changedAt;
  assert.ok(took < SECONDS * 1000 + 500, `noticed after ${took} ms`);
}
/** A change through the API. */
const configure = async (method, body) => {
  const headers = { authorization: `Bearer ${await stack.token(ada)}`, 'content-type': 'application/json' };
  return fetch(`${stack.url}/integrations/claude/config`, { method, headers, body: body && JSON.stringify(body) });
};
const pay = async () => stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, payer));

test('a template that is withdrawn in D1 is noticed within the seconds that it is kept', async () => {
  await noticed('NOT_FOUND', () => stack.changeTemplate(TEMPLATE, { published: 0 }));
  await stack.changeTemplate(TEMPLATE, { published: 1 });
});

test('a key that is switched off in KV is noticed within the seconds that it is kept', async () => {
  const name = `claude-switch/${ada.id}`;
  await noticed('CREATOR_KEY_DISABLED', () => stack.KV.put(name, JSON.stringify({ isEnabled: false, updatedAt: Date.now() + 1000 })));
  await stack.KV.delete(name);
});

test('a template that does not exist is not kept: it is there as soon as it is created', async () => {
  await onSale();
  const post = () => stack.post('/@ada/later', {});
  assert.equal((await post()).status, 404);
  await stack.addTemplate('later', { prompt: 'Anything.' });
  assert.equal((await post()).status, 402);
});

test('a key that is replaced, switched or deleted through the API counts at once', async () => {
  await onSale();
  assert.equal((await readSse(await pay())).text, 'Hello, world');
  const key = `sk-ant-api03-${'n'.repeat(40)}`;
  assert.equal((await configure('PUT', { apiKey: key })).status, 200);
  assert.equal((await readSse(await pay())).text, 'Hello, world');
  assert.equal(stack.claude.requests.at(-1).headers['x-api-key'], key);
  assert.equal((await configure('PUT', { isEnabled: false })).status, 200);
  assert.equal(await status(), 'CREATOR_KEY_DISABLED');
  assert.equal((await configure('PUT', { isEnabled: true })).status, 200);
  assert.equal(await status(), 'PAYMENT_REQUIRED');
  assert.equal((await configure('DELETE')).status, 200);
  assert.equal(await status(), 'CREATOR_KEY_MISSING');
  assert.equal((await configure('PUT', { apiKey: key })).status, 200);
  assert.equal(await status(), 'PAYMENT_REQUIRED');
});

test('a run right after another one reads neither the template nor the key', async () => {
  await sleep(SECONDS * 1000);
  const signed = await stack.signPayment(HAIKU, INPUT, payer);
  // Whoever reads them now finds nothing, or an error.
  await stack.DB.exec('ALTER TABLE templates RENAME TO renamed_templates');
  const keys = [`claude-key/${ada.id}`, `claude-switch/${ada.id}`];
  const stored = await Promise.all(keys.map((name) => stack.KV.get(name)));
  await Promise.all(keys.map((name) => stack.KV.delete(name)));
  try {
    const answer = await readSse(await stack.post(HAIKU, INPUT, signed));
    assert.deepEqual([answer.text, asked()], ['Hello, world', 1]);
  } finally {
    await stack.DB.exec('ALTER TABLE renamed_templates RENAME TO templates');
    await Promise.all(keys.map((name, i) => stored[i] && stack.KV.put(name, stored[i])));
  }
});
