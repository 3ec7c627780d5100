// Contracts that nobody executes: what one seeker and one creator can make us keep is bounded, and keeps nobody out.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { draft } from '../support/hire.mjs';
import { agents, closeStack, openStack, seeker, stack } from '../support/seeker_stack.mjs';

before(() => openStack());
after(closeStack);
const run = (sql, ...values) => stack.DB.prepare(sql).bind(...values).run();
const count = async (where) => (await stack.DB.prepare(`SELECT count(*) AS n FROM contracts WHERE ${where}`).first()).n;

test('a seeker with 100 open contracts gets no more; another one does, and so does this one after a deadline', async () => {
  const [account, other] = [seeker.account(), seeker.account()];
  await seeker.hire(account);
  await run(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 99)
    INSERT INTO contracts SELECT id || i, template_id, creator_id, document, agreed, state, task_id || i, NULL, deadline, created_at, updated_at FROM contracts, n`);
  await assert.rejects(seeker.hire(account), /TOO_MANY_CONTRACTS/);
  assert.equal(await count('1'), 100);
  await seeker.hire(other);
  await run("UPDATE contracts SET deadline = 1000 * unixepoch() - 1000 WHERE id = (SELECT id FROM contracts WHERE agreed ->> 'seeker' = ?1 LIMIT 1)", account.address);
  await seeker.hire(account);
});

test('a creator with 2,000 contracts that nobody executes: those of whoever has the most make room, those that were executed stay', async () => {
  await run('DELETE FROM contracts');
  const first = await seeker.hire(seeker.account());
  await run("UPDATE contracts SET created_at = created_at - 7200000, updated_at = updated_at - 7200000");
  const second = await seeker.hire(seeker.account());
  const fill = (seekers) => run(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1998)
    INSERT INTO contracts SELECT id || i, template_id, creator_id, document, json_set(agreed, '$.seeker', 'x' || (i % ${seekers})), state, task_id || i, NULL, deadline,
      created_at - 3700000, updated_at - 3700000 FROM contracts, n WHERE id = ?1`, second.id);
  await fill(20);
  const third = await seeker.hire(seeker.account());
  assert.equal(await count("state = 'SIGNED'"), 1981);
  for (const { id } of [first, second, third]) {
    assert.equal((await seeker.get(`/contracts/${id}`)).status, 200, id);
  }
  await run("DELETE FROM contracts WHERE id LIKE ?1", `${second.id}_%`);
  await fill(20);
  await run('UPDATE contracts SET updated_at = created_at + 1');
  await assert.rejects(seeker.hire(seeker.account()), /TOO_MANY_CONTRACTS/);
  await run('DELETE FROM contracts');
});

test('1970, and a webhook on the port of another service', async () => {
  const propose = (edit) => {
    const document = draft(agents.ada, seeker.account());
    edit(document);
    return seeker.propose(document);
  };
  for (const [edit, code] of [
    [(d) => void (d.created_at = '1970-01-01T00:00:00Z'), 'CONTRACT_MALFORMED'],
    [(d) => void (d.parties.seeker.webhook_url = 'https://example.com:22/'), 'WEBHOOK_REFUSED'],
    [(d) => void (d.parties.seeker.webhook_url = 'https://example.com\\@x.example/'), 'WEBHOOK_REFUSED'],
    [(d) => void (d.parties.seeker.webhook_url = ' https://example.com/'), 'WEBHOOK_REFUSED'],
    [(d) => void (d.parties.seeker.webhook_url = 'https://example.com/\r\nx'), 'WEBHOOK_REFUSED'],
  ]) {
    assert.equal((await propose(edit)).body.error?.code, code);
  }
  assert.equal((await propose(() => {})).status, 200);
});
