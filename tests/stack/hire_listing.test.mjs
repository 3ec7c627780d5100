// Listings: whoever asks what is on offer makes us read a page, and no prompt; and nobody crowds anybody out.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { draft } from '../support/hire.mjs';
import { agents, closeStack, openStack, seeker, stack } from '../support/seeker_stack.mjs';

const MIB = 2 ** 20;
const run = (sql, ...values) => stack.DB.prepare(sql).bind(...values).run();
const FLOOD = 900;
const OTHERS = 100;

before(async () => {
  await openStack();
  // One creator with 900 templates, and a hundred with one each, before and behind; each prompt has 30 KB.
  const address = (n) => `0x${n.toString(16).padStart(40, '0')}`;
  const creators = [['flood', FLOOD], ...Array.from({ length: OTHERS }, (_, i) => [`${i % 2 ? 'aa' : 'zz'}${String(i).padStart(3, '0')}`, 1])];
  for (const [i, [handle, count]] of creators.entries()) {
    await run("INSERT INTO creators (id, handle, name, wallets) VALUES (?1, ?2, ?2, '{}')", `creator_${handle}`, handle);
    await run('INSERT INTO agents (creator_id, agent_id, wallet) VALUES (?1, ?2, ?3)', `creator_${handle}`, `agent_${handle}`, address(i + 1));
    await run(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?3)
      INSERT INTO templates (id, creator_id, slug, name, model, prompt, price, published)
      SELECT ?1 || '_' || i, ?2, 't' || printf('%04d', i), 'T', 'claude-haiku-4-5', 'THE SECRET PROMPT' || hex(zeroblob(15000)), '0.01', 1 FROM n`,
      `template_${handle}`, `creator_${handle}`, count);
  }
});
after(closeStack);

const get = async (url) => {
  const response = await fetch(url);
  const text = await response.text();
  assert.equal(response.status, 200, text);
  assert.equal(text.includes('THE SECRET PROMPT'), false);
  return { body: JSON.parse(text), link: response.headers.get('link') };
};

async function pages(url) {
  const names = [];
  let count = 0;
  for (let next = url; next; count++) {
    const { body, link } = await get(next);
    assert.ok(body.capabilities.length >= 1 && body.capabilities.length <= 100);
    names.push(...body.capabilities.map(({ name }) => name));
    next = body.next;
    assert.equal(link, next ? `<${next}>; rel="next"` : null);
  }
  return { names, count };
}

test('1,000 templates with prompts of 30 KB: the pages hold every creator once, and cost under 20 MiB', async () => {
  await get(`${stack.url}/@ada/.well-known/hire.json`); // what is only allocated once
  const before = stack.memory();
  const first = await get(`${stack.url}/.well-known/hire.json`);
  const one = stack.memory() - before;
  assert.ok(one < 20 * MIB, `one page: ${(one / MIB).toFixed(1)} MiB`);
  assert.equal(first.body.agent.owner.wallet, '');
  const { names, count } = await pages(`${stack.url}/.well-known/hire.json`);
  const grown = stack.memory() - before;
  assert.ok(grown < 20 * MIB, `all pages: ${(grown / MIB).toFixed(1)} MiB`);
  assert.equal(new Set(names).size, names.length);
  assert.equal(count, Math.ceil((FLOOD + OTHERS + 3) / 100));
  for (let i = 0; i < OTHERS; i++) assert.ok(names.includes(`${i % 2 ? 'aa' : 'zz'}${String(i).padStart(3, '0')}-t0001`), `${i}`);
  assert.equal(names.filter((name) => name.startsWith('flood-')).length, FLOOD);
  for (const name of ['ada-haiku', 'ada-commit-message', 'grace-explain-error']) assert.ok(names.includes(name), name);
});

test("a creator's own manifest has pages too, and all of them say whom to pay", async () => {
  const { names, count } = await pages(`${stack.url}/@flood/.well-known/hire.json`);
  assert.deepEqual([names.length, new Set(names).size, count], [FLOOD, FLOOD, 9]);
  const { body } = await get(`${stack.url}/@flood/.well-known/hire.json`);
  assert.match(body.agent.owner.wallet, /^0x/);
});

test('a name that stands for two capabilities, on different pages, is offered for all by neither', async () => {
  await run("INSERT INTO creators (id, handle, name, wallets) VALUES ('c1', 'aa001-t0001', 'x', '{}')");
  await run("INSERT INTO agents (creator_id, agent_id, wallet) VALUES ('c1', 'agent_c1', '0x00000000000000000000000000000000000000ff')");
  const add = (id, creator, slug) => run("INSERT INTO templates (id, creator_id, slug, name, model, prompt, price, published) VALUES (?1, ?2, ?3, 'x', 'm', 'x', '1', 1)", id, creator, slug);
  await add('one', 'creator_flood', 'b-c');
  await run("INSERT INTO creators (id, handle, name, wallets) VALUES ('c2', 'flood-b', 'x', '{}')");
  await run("INSERT INTO agents (creator_id, agent_id, wallet) VALUES ('c2', 'agent_c2', '0x00000000000000000000000000000000000000fe')");
  await add('two', 'c2', 'c');
  const { names } = await pages(`${stack.url}/.well-known/hire.json`);
  assert.equal(names.includes('flood-b-c'), false);
  assert.equal((await pages(`${stack.url}/@flood-b/.well-known/hire.json`)).names.join(), 'c');
});

test('what cannot be offered takes no page from others, and no other cursor is one', async () => {
  await run("UPDATE templates SET price = '0' WHERE creator_id = 'creator_flood'");
  const { names, count } = await pages(`${stack.url}/.well-known/hire.json`);
  assert.equal(names.some((name) => name.startsWith('flood-t')), false);
  assert.ok(count <= 2, `${count} pages`);
  for (const cursor of ['x', '!!', 'YWRh', 'z'.repeat(5000)]) {
    assert.equal((await fetch(`${stack.url}/.well-known/hire.json?cursor=${cursor}`)).status, 404);
  }
});

test('a proposal without a capability loads two at most, and names none of many', async () => {
  await run("UPDATE templates SET price = '0.01' WHERE creator_id = 'creator_flood'");
  const document = draft('agent_flood', seeker.account());
  delete document.task.capability;
  const before = stack.memory();
  for (let i = 0; i < 20; i++) assert.equal((await seeker.propose(document)).status, 404);
  document.parties.worker.agent_id = 'agent_coinslot';
  for (let i = 0; i < 20; i++) assert.equal((await seeker.propose(document)).status, 404);
  const grown = stack.memory() - before;
  assert.ok(grown < 20 * MIB, `${(grown / MIB).toFixed(1)} MiB`);
  assert.ok(agents.ada);
});
