// HIRE/1.0: what is offered, proposed and registered, on the real stack. The tables of contracts that are refused are
// in tests/rules/hire/; here is one case of each kind, for its route, its status, and what is stored.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import Ajv from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { verifyMessage } from 'viem';
import { generatePrivateKey, privateKeyToAccount } from 'viem/accounts';
import { storeSigningKey, templates } from '../../dev/seed.mjs';
import { contractId, countersign, draft, hashOf, signBoth } from '../support/hire.mjs';
import { agents, closeStack, openStack, seeker, stack } from '../support/seeker_stack.mjs';
import { INPUT, ada, grace, root, sleep, until } from '../support/stack.mjs';

const json = (path) => JSON.parse(readFileSync(`${root}${path}`, 'utf8'));
const ajv = addFormats(new Ajv({ strict: false, allErrors: true }));
const isManifest = ajv.compile(json('tests/hire/agent-manifest.schema.json'));
const isContract = ajv.compile(json('src/wire/hire/contract.schema.json'));
const valid = (check, document) => assert.ok(check(document), JSON.stringify(check.errors));

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
const ahead = (ms) => new Date(Date.now() + ms).toISOString();
const without = ({ hash, signatures, ...rest }) => rest;
const HAIKU_ID = 'template_ada_haiku';

let account; // the seeker's
const worker = privateKeyToAccount(ada.privateKey);
const responses = []; // of the Worker, all of them
const nativeFetch = globalThis.fetch;

before(async () => {
  await openStack();
  globalThis.fetch = async (...args) => {
    const response = await nativeFetch(...args);
    const url = String(args[0].url ?? args[0]);
    if (url.startsWith(stack.url)) {
      const copy = response.clone();
      responses.push({ url, status: copy.status, text: copy.text().then((text) => JSON.stringify([...copy.headers]) + text, () => '') });
    }
    return response;
  };
  account = seeker.account();
});
after(() => {
  globalThis.fetch = nativeFetch;
  return closeStack();
});

const manifest = (handle) => seeker.get(`${handle ? `/@${handle}` : ''}/.well-known/hire.json`);
const names = ({ body }) => body.capabilities.map(({ name }) => name);
const run = (sql, ...values) => stack.DB.prepare(sql).bind(...values).run();
const stored = async () => (await stack.DB.prepare('SELECT count(*) AS n FROM contracts').first()).n;
const show = (id) => seeker.get(`/contracts/${id}`);
const verify = (id, body) => seeker.post(`/contracts/${id}/verify`, body);
const signatureOf = (text, by) => by.signMessage({ message: text });

/** Runs the statements of `change`, then `work`, then the statements of `undo`. */
async function meanwhile(change, undo, work) {
  for (const [sql, ...values] of change) await run(sql, ...values);
  try {
    return await work();
  } finally {
    for (const [sql, ...values] of undo) await run(sql, ...values);
  }
}

/** Adds a creator who can be hired, with one template, for the time of `work`. */
async function withCreator({ handle, name = 'Somebody', slug = 'task', privateKey = generatePrivateKey() }, work) {
  const creator = { id: `creator_${handle}`, handle, privateKey };
  await run('INSERT INTO creators (id, handle, name) VALUES (?1, ?2, ?3)', creator.id, handle, name);
  try {
    await storeSigningKey(stack.url, await stack.token(creator), privateKey);
    await stack.addTemplate(slug, { prompt: 'x', creator });
    return await work(creator);
  } finally {
    for (const table of ['agents', 'templates']) await run(`DELETE FROM ${table} WHERE creator_id = ?1`, creator.id);
    await run('DELETE FROM creators WHERE id = ?1', creator.id);
  }
}

/** A proposal's contract, signed by the seeker. */
async function agreed(document = draft(agents.ada, account)) {
  const proposal = await seeker.propose(document);
  assert.equal(proposal.status, 200, JSON.stringify(proposal.body));
  return countersign(proposal.body.contract, account);
}
async function registered(document) {
  const contract = await agreed(document);
  const answer = await seeker.register(contract);
  assert.equal(answer.status, 201, JSON.stringify(answer.body));
  return { contract, id: contract.contract_id, answer };
}

/** A contract of ada's that `edit` has changed before both have signed it. The worker itself would not sign most of these. */
let proposed;
async function signed(edit = () => {}, { by = worker, at } = {}) {
  proposed ??= without(await agreed());
  const contract = { ...structuredClone(proposed), contract_id: contractId() };
  return signBoth(edit(contract) ?? contract, by, account, { at });
}

const STATUS = {
  CONTRACT_MALFORMED: 400, CONTRACT_HASH_MISMATCH: 400, WORKER_SIGNATURE_INVALID: 400, SEEKER_SIGNATURE_INVALID: 400,
  WORKER_UNKNOWN: 404, CAPABILITY_UNKNOWN: 404, PAYMENT_TRIGGER_UNSUPPORTED: 422, PRICE_NOT_ACCEPTED: 422,
  DEADLINE_NOT_ACCEPTED: 422, OUTPUT_NOT_OFFERED: 422, SCHEMA_UNSUPPORTED: 422, SLA_NOT_OFFERED: 422, WEBHOOK_REFUSED: 422,
  CONTRACT_EXISTS: 409, BODY_TOO_LARGE: 413,
};

/** A refusal in HIRE's form, with this code, its status and this field. */
function isRefusal({ status, body }, code, field) {
  const { error = {} } = body ?? {};
  assert.deepEqual({ code: error.code, field: error.details?.field, status }, { code, field, status: STATUS[code] }, JSON.stringify(body));
  assert.equal(body.status, 'failed');
  assert.equal(error.retryable, false);
  assert.ok(error.message.length > 10);
  if (field) assert.ok(error.details.expected && error.details.received, JSON.stringify(error));
}

/** Registering this (a contract, or a body's text) is refused with this code and field, and nothing is stored. */
async function refused(contract, code, field) {
  const before = await stored();
  const answer = await seeker.register(contract);
  isRefusal(answer, code, field);
  assert.equal(await stored(), before, 'a contract was stored');
  if (typeof contract.contract_id === 'string') {
    const found = await show(contract.contract_id);
    assert.equal(found.status, 404, JSON.stringify(found.body));
    // Where there was an id to read, the refusal names it.
    if (field && /^ctr_[a-z0-9]{1,64}$/.test(contract.contract_id)) assert.equal(answer.body.contract_id, contract.contract_id);
  }
  return answer;
}

/** A test for each row of `name: [edit, code, field]`: it is refused although both have signed it. */
function refusals(table, { each = refused } = {}) {
  for (const [name, [edit, code, field]] of Object.entries(table)) {
    test(`${name}: ${code}`, async () => {
      await each(await signed(edit), code, field);
    });
  }
}

describe('manifests', () => {
  test("a creator's: valid, with everything that a seeker needs", async () => {
    const { status, body } = await manifest('ada');
    assert.equal(status, 200);
    valid(isManifest, body);
    assert.match(body.agent.id, /^agent_[0-9a-f]{24}$/);
    assert.deepEqual([body.agent.publisher, body.agent.name, body.agent.owner.wallet], ['@ada', 'Ada Lovelace', ada.address]);
    assert.deepEqual(body.endpoint, { url: stack.url, protocol: 'HIRE/1.0', auth: 'x402' });
    assert.deepEqual(names({ body }), ['commit-message', 'haiku']);
    const [commit, haiku] = body.capabilities;
    assert.deepEqual(haiku.pricing, { type: 'per-task', amount: '0.01', currency: 'USDC' });
    assert.equal(commit.pricing.amount, '0.02');
    assert.equal(haiku.description, templates[0].description);
    assert.ok(haiku.sla.max_latency_ms >= 60_000);
    assert.equal('output_schema' in haiku, false);
    assert.deepEqual([haiku.agent_id, haiku.wallet, haiku.resource], [agents.ada, ada.address, `${stack.url}/@ada/haiku`]);
    assert.equal((await fetch(haiku.resource, { method: 'POST', body: JSON.stringify(INPUT) })).status, 402);
    assert.deepEqual((await seeker.get('/%40ada/.well-known/hire.json')).body, body);
  });

  test('the platform offers the capabilities of all, under full names, each with its own agent and wallet', async () => {
    const { status, body } = await manifest();
    assert.equal(status, 200);
    valid(isManifest, body);
    assert.equal(body.agent.id, 'agent_coinslot');
    assert.deepEqual(names({ body }), ['ada-commit-message', 'ada-haiku', 'grace-explain-error']);
    assert.deepEqual(body.capabilities.map(({ agent_id, wallet }) => [agent_id, wallet]), [
      [agents.ada, ada.address], [agents.ada, ada.address], [agents.grace, grace.address],
    ]);
    // No creator's wallet is named as the owner of all.
    assert.ok(![ada.address, grace.address].includes(body.agent.owner.wallet));
  });

  test('input_schema is what the template takes', async () => {
    const [commit, haiku] = (await manifest('ada')).body.capabilities;
    assert.deepEqual(haiku.input_schema.required, ['topic']);
    assert.equal(haiku.input_schema.properties.language.default, 'English');
    assert.equal(haiku.input_schema.properties.topic.description, 'What the haiku is about.');
    const takes = ajv.compile(haiku.input_schema);
    for (const good of [INPUT, { topic: '💰'.repeat(200), mood: 'stern' }]) assert.ok(takes(good));
    for (const bad of [{}, { mood: 'stern' }, { topic: 7 }, { topic: 'x'.repeat(201) }, { ...INPUT, other: 'x' }, { ...INPUT, user_message: 'x' }]) {
      assert.equal(takes(bad), false, JSON.stringify(bad));
    }
    assert.ok(ajv.compile(commit.input_schema)({ summary: 'x', user_message: 'a diff' }));
  });

  test('input_schema refuses what the worker refuses: an empty value of a required parameter', async () => {
    const [, haiku] = (await manifest('ada')).body.capabilities;
    const { id } = await registered();
    const answer = await seeker.execute(id, { topic: '' });
    assert.deepEqual([answer.status, answer.body.error.code], [400, 'MISSING_PARAMETER']);
    assert.equal(ajv.compile(haiku.input_schema)({ topic: '' }), false);
  });

  test('no manifest has a line of a prompt', async () => {
    for (const handle of [undefined, 'ada', 'grace']) {
      const text = JSON.stringify((await manifest(handle)).body);
      for (const { prompt } of templates) {
        for (const line of prompt.split('\n').filter((l) => l.length > 12)) assert.equal(text.includes(JSON.stringify(line).slice(1, -1)), false, line);
      }
    }
  });

  test('without drafts, without deleted creators, and without names that are no capability names', async () => {
    await meanwhile([['UPDATE templates SET published = 0 WHERE id = ?1', HAIKU_ID]], [['UPDATE templates SET published = 1 WHERE id = ?1', HAIKU_ID]], async () => {
      assert.deepEqual(names(await manifest('ada')), ['commit-message']);
      assert.deepEqual(names(await manifest()), ['ada-commit-message', 'grace-explain-error']);
    });
    await meanwhile([['UPDATE creators SET deleted_at = 1 WHERE id = ?1', grace.id]], [['UPDATE creators SET deleted_at = NULL WHERE id = ?1', grace.id]], async () => {
      assert.equal((await manifest('grace')).status, 404);
      assert.deepEqual(names(await manifest()), ['ada-commit-message', 'ada-haiku']);
    });
    for (const slug of ['Shouted', '2nd', 'under_score']) {
      await stack.addTemplate(slug, { prompt: 'x' });
      const all = [await manifest('ada'), await manifest()];
      await run('DELETE FROM templates WHERE slug = ?1', slug);
      for (const { body } of all) {
        valid(isManifest, body);
        assert.ok(!names({ body }).some((name) => name.includes(slug)), slug);
      }
    }
  });

  test('whatever a creator is called, the manifest of all stays valid, and theirs is valid or there is none', async () => {
    for (const [handle, name] of [['2fast', 'Too Fast'], ['éva', 'é'.repeat(600)]]) {
      await withCreator({ handle, name }, async () => {
        const platform = await manifest();
        valid(isManifest, platform.body);
        assert.ok(names(platform).includes('ada-haiku'));
        const own = await manifest(encodeURIComponent(handle));
        if (own.status !== 404) valid(isManifest, own.body);
      });
    }
  });

  test("one creator's unreadable row does not hide the others' capabilities", async () => {
    const id = 'template_grace_explain-error';
    await meanwhile([["UPDATE templates SET parameters = '[' WHERE id = ?1", id]], [["UPDATE templates SET parameters = ?2 WHERE id = ?1", id, JSON.stringify(templates.find((t) => t.id === id).parameters)]], async () => {
      assert.equal((await manifest('ada')).status, 200);
      const platform = await manifest();
      assert.equal(platform.status, 200, JSON.stringify(platform.body));
      assert.deepEqual(names(platform), ['ada-commit-message', 'ada-haiku']);
    });
  });

  test('without a signing key there is no agent; without a capability there is no manifest', async () => {
    const [off, on] = [0, 1].map((published) => [`UPDATE templates SET published = ${published} WHERE id != 'template_ada_release-notes'`]);
    await meanwhile([off], [on], async () => {
      for (const handle of [undefined, 'ada', 'grace']) {
        const { status, body } = await manifest(handle);
        assert.deepEqual([status, body.error.code], [404, 'NOT_FOUND']);
      }
    });
    assert.equal((await manifest('nobody')).status, 404);
    const nobody = { id: 'creator_plain', handle: 'plain' };
    await run("INSERT INTO creators (id, handle, name) VALUES ('creator_plain', 'plain', 'Plain')");
    await stack.addTemplate('task', { prompt: 'x', creator: nobody });
    try {
      assert.equal((await manifest('plain')).status, 404);
      assert.ok(!names(await manifest()).includes('plain-task'));
    } finally {
      await run("DELETE FROM templates WHERE creator_id = 'creator_plain'");
      await run("DELETE FROM creators WHERE id = 'creator_plain'");
    }
  });

  test("what a capability's row promises is in the manifest, and is what a contract is held to", async () => {
    const output_schema = { type: 'object', required: ['lines'], properties: { lines: { type: 'array' } } };
    const insert = ['INSERT INTO capabilities (template_id, output, output_schema, max_latency_ms) VALUES (?1, ?2, ?3, ?4)', HAIKU_ID, 'json', JSON.stringify(output_schema), 30_000];
    await meanwhile([insert], [['DELETE FROM capabilities']], async () => {
      for (const [handle, name] of [['ada', 'haiku'], [undefined, 'ada-haiku']]) {
        const { body } = await manifest(handle);
        valid(isManifest, body);
        const haiku = body.capabilities.find((c) => c.name === name);
        assert.deepEqual([haiku.output_schema, haiku.sla.max_latency_ms, haiku.output_type], [output_schema, 30_000, 'json']);
      }
      const { contract } = await registered(draft(agents.ada, account, { task: { output_schema }, sla: { max_latency_ms: 30_000 } }));
      assert.deepEqual(contract.task.output_schema, output_schema);
      await refused(await signed((c) => void (c.sla = { max_latency_ms: 29_999 })), 'SLA_NOT_OFFERED', 'sla.max_latency_ms');
      await refused(await signed((c) => void (c.task.output_schema = { type: 'object' })), 'OUTPUT_NOT_OFFERED', 'task.output_schema');
      await refused(await signed((c) => void (c.task.output_type = 'text')), 'OUTPUT_NOT_OFFERED', 'task.output_type');
      await refused(await signed((c) => void (c.terms.deadline = ahead(20_000))), 'DEADLINE_NOT_ACCEPTED', 'terms.deadline');
    });
  });

  test('the price is the template\'s', async () => {
    await stack.changeTemplate(HAIKU_ID, { price: '12.345678' });
    try {
      assert.equal((await manifest('ada')).body.capabilities[1].pricing.amount, '12.345678');
      assert.equal((await agreed()).terms.price.amount, '12.345678');
    } finally {
      await stack.changeTemplate(HAIKU_ID, { price: '0.01' });
    }
  });
});

describe('what is offered can be hired as it is offered', () => {
  /** Proposes every capability of the manifest of all, to the platform and to its own agent, at its price. */
  async function all() {
    const { body } = await manifest();
    for (const { name, agent_id, wallet, pricing } of body.capabilities) {
      for (const agent of ['agent_coinslot', agent_id]) {
        const proposal = await seeker.propose(draft(agent, account, { capability: name }));
        assert.equal(proposal.status, 200, `${name} of ${agent}: ${JSON.stringify(proposal.body)}`);
        const { parties, terms } = proposal.body.contract;
        assert.deepEqual([parties.worker, terms.price.amount], [{ agent_id, wallet }, pricing.amount]);
      }
    }
    return body.capabilities.map(({ name }) => name);
  }
  test('every capability of the seed', async () => {
    assert.equal((await all()).length, 3);
  });
  test('a template that is free is not offered: nobody could pay for it', async () => {
    await stack.changeTemplate(HAIKU_ID, { price: '0' });
    try {
      assert.notEqual((await seeker.propose(draft(agents.ada, account))).status, 200);
      assert.deepEqual(await all(), ['ada-commit-message', 'grace-explain-error']);
    } finally {
      await stack.changeTemplate(HAIKU_ID, { price: '0.01' });
    }
  });
  test('two creators whose templates have the same full name: it is not offered twice, and each can be hired', async () => {
    await stack.addTemplate('x-haiku', { prompt: 'x' });
    try {
      await withCreator({ handle: 'ada-x', slug: 'haiku' }, async () => {
        const { id } = (await manifest('ada-x')).body.agent;
        assert.equal((await agreed(draft(id, account))).parties.worker.agent_id, id);
        assert.equal((await agreed(draft(agents.ada, account, { capability: 'x-haiku' }))).parties.worker.agent_id, agents.ada);
        const offered = await all();
        assert.equal(new Set(offered).size, offered.length);
      });
    } finally {
      await run("DELETE FROM templates WHERE slug = 'x-haiku'");
    }
  });
});

describe('proposals', () => {
  test('a short draft is completed, hashed, and signed by the worker; nothing is stored', async () => {
    const before = await stored();
    const task = { capability: 'ada-haiku', description: 'One haiku about a coin' };
    const parties = { seeker: { agent_id: 'agent_seeker', wallet: account.address } };
    const { status, body } = await seeker.propose({ parties, task });
    assert.equal(status, 200, JSON.stringify(body));
    const { contract, hash } = body;
    const { contract_id, created_at, ...rest } = without(contract);
    const { deadline } = rest.terms;
    assert.deepEqual(rest, {
      version: 'HIRE/1.0',
      parties: { ...parties, worker: { agent_id: agents.ada, wallet: ada.address } },
      task: { ...task, capability: 'haiku' },
      terms: {
        price: { amount: '0.01', currency: 'USDC', network: 'base' }, deadline,
        payment_trigger: 'on_delivery', platform_fee: { percentage: 0, wallet: ada.address },
      },
    });
    assert.match(contract_id, /^ctr_[a-z0-9]{16,}$/);
    assert.ok(Math.abs(Date.parse(created_at) - Date.now()) < MINUTE);
    assert.equal(Date.parse(deadline) - Date.parse(created_at), DAY);
    assert.deepEqual(Object.keys(contract.signatures).sort(), ['timestamp', 'worker']);
    assert.equal(hash, hashOf(contract));
    assert.equal(contract.hash, hash);
    assert.ok(await verifyMessage({ address: ada.address, message: hash, signature: contract.signatures.worker }));
    assert.equal(await stored(), before);
    assert.equal((await show(contract_id)).status, 404);

    const finished = await countersign(contract, account);
    valid(isContract, finished);
    assert.equal((await seeker.register(finished)).status, 201);
    const again = await seeker.propose({ parties, task });
    assert.notEqual(again.body.contract.contract_id, contract_id);
  });

  test("the draft's own members stay, known to the schema or not, and are part of the hash", async () => {
    const own = rich();
    const { status, body } = await seeker.propose({ ...own, hash: `sha256:${'0'.repeat(64)}`, signatures: { seeker: 'mine', worker: 'yours', more: 1 } });
    assert.equal(status, 200, JSON.stringify(body));
    assert.deepEqual(without(body.contract), own);
    assert.equal(body.hash, hashOf(own));
    assert.deepEqual(Object.keys(body.contract.signatures).sort(), ['timestamp', 'worker']);
    assert.ok(await verifyMessage({ address: ada.address, message: body.hash, signature: body.contract.signatures.worker }));
    const finished = await countersign(body.contract, account);
    valid(isContract, finished);
    assert.equal((await seeker.register(finished)).status, 201);
    assert.deepEqual((await show(own.contract_id)).body.contract, finished);
  });

  test('the hash is RFC 8785, also of what implementations differ in', async () => {
    const odd = { '\u{1f600}': 1, '\ufb33': 2, '': 3, '\r': '\u2028\u0000\u001f"\\/é', numbers: [1e21, 1e-7, 5e-324, -0.5, 2 ** 53 - 1, 1.7976931348623157e308, 0], 10: { 9: null } };
    const contract = await agreed({ ...draft(agents.ada, account), odd });
    assert.equal(contract.hash, hashOf(contract));
    assert.deepEqual(contract.odd, odd);
    assert.equal((await seeker.register(contract)).status, 201);
  });

  const asked = {
    'the platform, by full name': () => ['agent_coinslot', 'ada-haiku'],
    "the creator's own agent, by its own name": () => [agents.ada, 'haiku'],
    "the creator's own agent, by full name": () => [agents.ada, 'ada-haiku'],
  };
  for (const [name, ask] of Object.entries(asked)) {
    test(`the agent that is asked: ${name}`, async () => {
      const [agent, capability] = ask();
      const { contract, id } = await registered(draft(agent, account, { capability }));
      assert.equal(contract.parties.worker.agent_id, agents.ada);
      // The contract is with the creator's agent, so the platform puts the agent's own name for it.
      assert.ok([capability, agent === 'agent_coinslot' ? 'haiku' : capability].includes(contract.task.capability));
      const { template_id } = await stack.DB.prepare('SELECT template_id FROM contracts WHERE id = ?').bind(id).first();
      assert.equal(template_id, HAIKU_ID);
    });
  }

  test('an agent with one capability: the draft need not name it', async () => {
    const document = draft(agents.grace, account);
    delete document.task.capability;
    assert.equal((await agreed(document)).task.capability, 'explain-error');
  });

  test('a slug that is the full name of another: each of both can still be hired', async () => {
    await stack.addTemplate('ada-haiku', { prompt: 'x', price: '0.5' });
    try {
      const templateOf = async ({ id }) => (await stack.DB.prepare('SELECT template_id FROM contracts WHERE id = ?').bind(id).first()).template_id;
      assert.equal(await templateOf(await registered(draft(agents.ada, account, { capability: 'haiku' }))), HAIKU_ID);
      assert.equal(await templateOf(await registered(draft('agent_coinslot', account, { capability: 'ada-ada-haiku' }))), 'template_ada_ada-haiku');
      assert.equal(await templateOf(await registered(draft('agent_coinslot', account, { capability: 'ada-haiku' }))), HAIKU_ID);
      assert.equal(await templateOf(await registered(draft(agents.ada, account, { capability: 'ada-haiku' }))), 'template_ada_ada-haiku');
    } finally {
      await run("DELETE FROM templates WHERE slug = 'ada-haiku'");
    }
  });

  const no = (edit) => {
    const document = draft(agents.ada, account);
    return edit(document) ?? document;
  };
  const bad = {
    'an unknown agent': [(d) => void (d.parties.worker.agent_id = 'agent_nobody'), 'WORKER_UNKNOWN', 'parties.worker.agent_id'],
    'an unknown capability': [(d) => void (d.task.capability = 'sonnet'), 'CAPABILITY_UNKNOWN', 'task.capability'],
    'an unknown capability of the platform': [(d) => void ((d.parties.worker.agent_id = 'agent_coinslot'), (d.task.capability = 'haiku')), 'CAPABILITY_UNKNOWN', 'task.capability'],
    'no capability, of several': [(d) => void delete d.task.capability, 'CAPABILITY_UNKNOWN', 'task.capability'],
    'a draft of a template': [(d) => void (d.task.capability = 'release-notes'), 'CAPABILITY_UNKNOWN', 'task.capability'],
    "another's capability": [(d) => void (d.task.capability = 'grace-explain-error'), 'CAPABILITY_UNKNOWN', 'task.capability'],
    'too little': [(d) => void (d.terms.price = { amount: '0.0099', currency: 'USDC', network: 'base' }), 'PRICE_NOT_ACCEPTED', 'terms.price.amount'],
    'a webhook in a private network': [(d) => void (d.parties.seeker.webhook_url = 'https://10.0.0.1/'), 'WEBHOOK_REFUSED', 'parties.seeker.webhook_url'],
    'no parties': [(d) => void (delete d.parties, (d.task.capability = 'ada-haiku')), 'CONTRACT_MALFORMED', 'parties'],
    "a seeker's wallet that is no address": [(d) => void (d.parties.seeker.wallet = '0x12'), 'CONTRACT_MALFORMED', 'parties.seeker.wallet'],
    'an array': [(d) => [d], 'CONTRACT_MALFORMED', 'body'],
    'half of a document': [(d) => JSON.stringify(d).slice(0, -1), 'CONTRACT_MALFORMED', 'body'],
    'too much': [(d) => void (d.more = 'x'.repeat(32_768)), 'BODY_TOO_LARGE', undefined],
  };
  for (const [name, [edit, code, field]] of Object.entries(bad)) {
    test(`refused and not signed: ${name}`, async () => {
      const answer = await seeker.propose(no(edit));
      isRefusal(answer, code, field);
      assert.doesNotMatch(JSON.stringify(answer.body), /0x[0-9a-f]{130}/);
    });
  }
});

describe('registration', () => {
  test('a contract is registered once: 201 with a secret, then 200 without', async () => {
    const contract = await agreed();
    const id = contract.contract_id;
    const first = await seeker.register(contract);
    assert.equal(first.status, 201, JSON.stringify(first.body));
    const { webhook_secret, ...rest } = first.body;
    assert.deepEqual(rest, { contract_id: id, state: 'SIGNED', hash: contract.hash, contract });
    const [, secret] = webhook_secret.match(/^whsec_([A-Za-z0-9+/]+={0,2})$/);
    const length = Buffer.from(secret, 'base64').length;
    assert.ok(length >= 24 && length <= 64, 'as Standard Webhooks has it');
    const again = await seeker.register(contract);
    assert.deepEqual([again.status, again.body], [200, rest]);
    const found = await show(id);
    assert.deepEqual([found.status, found.body], [200, rest]);
    valid(isContract, found.body.contract);
    assert.match(found.headers.get('cache-control'), /private|no-store/);
    // The secret is stored encrypted.
    const row = JSON.stringify(await stack.DB.prepare('SELECT * FROM contracts WHERE id = ?').bind(id).first());
    assert.ok(row.includes(contract.hash) && !row.includes(secret) && !row.includes(Buffer.from(secret, 'base64').toString()));
    assert.notEqual((await registered()).answer.body.webhook_secret, webhook_secret);
  });

  test('its members in another order, with white space, are the same contract', async () => {
    const { contract } = await registered();
    const turned = (value) => (Array.isArray(value) ? value.map(turned) : value && typeof value === 'object' ? Object.fromEntries(Object.entries(value).reverse().map(([k, v]) => [k, turned(v)])) : value);
    assert.equal((await seeker.register(JSON.stringify(turned(contract), null, 3))).status, 200);
  });

  // RFC 8785 has one spelling for a number, and the signatures are over that one. Python writes 1.0.
  test('a number in another spelling is the same contract', async () => {
    const contract = await signed((c) => void (c.terms.platform_fee.percentage = 1));
    const text = JSON.stringify(contract).replace('"percentage":1', '"percentage":1.0');
    assert.ok(text.includes(':1.0'));
    assert.equal((await seeker.register(text)).status, 201);
    const check = await verify(contract.contract_id, text);
    assert.deepEqual([check.body.valid, check.body.registered], [true, true], JSON.stringify(check.body));
    const again = await seeker.register(text);
    assert.equal(again.status, 200, JSON.stringify(again.body));
  });

  test('registered four times at the same moment: one response has the secret', async () => {
    const contract = await agreed();
    const all = await Promise.all([1, 2, 3, 4].map(() => seeker.register(contract)));
    assert.deepEqual(all.map(({ status }) => status).sort(), [200, 200, 200, 201]);
    assert.equal(all.filter(({ body }) => body.webhook_secret).length, 1);
  });

  test('another contract of the same id is a 409, and the first one stays', async () => {
    const { contract, id } = await registered();
    const other = await signed((c) => ({ ...c, contract_id: id, task: { ...c.task, description: 'Something else' } }));
    isRefusal(await seeker.register(other), 'CONTRACT_EXISTS', 'contract_id');
    assert.deepEqual((await show(id)).body.contract, contract);
    // The signatures' time is not signed, but the document is another one all the same.
    isRefusal(await seeker.register({ ...contract, signatures: { ...contract.signatures, timestamp: ahead(-1000) } }), 'CONTRACT_EXISTS', 'contract_id');
    const twins = await Promise.all(['a', 'b'].map((description) => signed((c) => ({ ...c, contract_id: `${id}0`, task: { ...c.task, description } }))));
    const answers = await Promise.all(twins.map((twin) => seeker.register(twin)));
    assert.deepEqual(answers.map(({ status }) => status).sort(), [201, 409]);
  });

  test('a registered contract stays valid when the template is withdrawn or costs more; one that is not registered yet does not', async () => {
    const { contract, id } = await registered();
    const late = await agreed();
    for (const [columns, back, code, field] of [
      [{ published: 0 }, { published: 1 }, 'CAPABILITY_UNKNOWN', 'task.capability'],
      [{ price: '0.03' }, { price: '0.01' }, 'PRICE_NOT_ACCEPTED', 'terms.price.amount'],
    ]) {
      await stack.changeTemplate(HAIKU_ID, columns);
      try {
        assert.equal((await seeker.register(contract)).status, 200);
        assert.equal((await show(id)).body.state, 'SIGNED');
        await refused(late, code, field);
      } finally {
        await stack.changeTemplate(HAIKU_ID, back);
      }
    }
    assert.equal((await seeker.register(late)).status, 201);
  });

  test('/verify checks the registered contract, or the one in the body', async () => {
    const { contract, id } = await registered();
    const hash = { claimed: contract.hash, computed: contract.hash };
    for (const body of [contract, undefined, ' \n']) {
      const { status, body: result } = await verify(id, body);
      assert.equal(status, 200);
      assert.deepEqual(result, { contract_id: id, valid: true, registered: true, hash, error: null, state: 'SIGNED' });
    }
    const changed = structuredClone(contract);
    changed.task.description += '!';
    let result = (await verify(id, changed)).body;
    assert.deepEqual([result.valid, result.registered, result.error.code, result.error.details.field], [false, false, 'CONTRACT_HASH_MISMATCH', 'hash']);
    assert.deepEqual(result.hash, { claimed: contract.hash, computed: hashOf(changed) });
    result = (await verify(id, { ...contract, signatures: { ...contract.signatures, worker: contract.signatures.seeker } })).body;
    assert.deepEqual([result.valid, result.registered, result.error.code], [false, false, 'WORKER_SIGNATURE_INVALID']);
    result = (await verify(id, { ...contract, parties: { ...contract.parties, seeker: { agent_id: 'x', wallet: 'y' } } })).body;
    assert.deepEqual([result.valid, result.error.code, result.error.details.field], [false, 'CONTRACT_MALFORMED', 'parties.seeker.wallet']);
    // Signed by both, and still not the one that is registered.
    result = (await verify(id, await signed())).body;
    assert.deepEqual([result.contract_id, result.valid, result.registered, result.error], [id, false, false, null]);
    for (const body of ['{', '[]', `${JSON.stringify(contract)}x`]) isRefusal(await verify(id, body), 'CONTRACT_MALFORMED', 'body');
    isRefusal(await verify(id, ' '.repeat(32_769)), 'BODY_TOO_LARGE');
    assert.deepEqual((await show(id)).body.contract, contract, 'verifying changes nothing');
  });

  test('an unknown id: 404', async () => {
    const contract = await agreed();
    for (const id of [contract.contract_id, 'ctr_0', 'CTR_X', '%27%20OR%201=1', 'x'.repeat(3000)]) {
      for (const answer of [await show(id), await verify(id), await verify(id, contract)]) {
        assert.deepEqual([answer.status, answer.body.status, answer.body.error.code], [404, 'failed', 'NOT_FOUND']);
      }
    }
  });

  test('a contract that nobody executed in time is REJECTED', async () => {
    const { contract, id } = await registered(draft(agents.ada, account, { terms: { deadline: ahead(4000) } }));
    const states = async () => [(await show(id)).body.state, (await verify(id)).body.state, (await seeker.register(contract)).body.state];
    assert.deepEqual(await states(), ['SIGNED', 'SIGNED', 'SIGNED']);
    await sleep(Date.parse(contract.terms.deadline) - Date.now() + 50);
    assert.deepEqual(await states(), ['REJECTED', 'REJECTED', 'REJECTED']);
    assert.deepEqual((await show(id)).body.contract, contract);
  });

  test('without a network for contracts: no manifest, and NOT_FOR_SALE', async () => {
    const contract = await agreed();
    await stack.restart({ HIRE: JSON.stringify({ network: 'eip155:1' }) });
    try {
      assert.equal((await manifest('ada')).status, 404);
      assert.equal((await manifest()).status, 404);
      for (const answer of [await seeker.register(contract), await seeker.propose(draft(agents.ada, account))]) {
        assert.deepEqual([answer.status, answer.body.status, answer.body.error.code], [503, 'failed', 'NOT_FOR_SALE']);
      }
      assert.equal((await show(contract.contract_id)).status, 404);
    } finally {
      await stack.restart();
    }
    assert.equal((await seeker.register(contract)).status, 201);
  });
});

/** A draft that has every member of the schema, and some that no schema knows. */
function rich() {
  return {
    version: 'HIRE/1.0',
    contract_id: contractId(),
    created_at: ahead(-MINUTE),
    parties: {
      seeker: { agent_id: 'agent_seeker', wallet: account.address, webhook_url: 'https://hooks.example.com/heard?by=me', x_department: 'poetry' },
      worker: { agent_id: agents.ada, wallet: ada.address, x_nickname: 'the poet' },
    },
    task: {
      description: 'Un haïku, s’il vous plaît 💰', requirements: ['three lines', 'no rhyme'], capability: 'haiku', output_type: 'json',
      input_schema: { type: 'object', properties: { topic: { type: 'string', maxLength: 40 } }, required: ['topic'] },
      output_schema: { type: 'object', properties: { lines: { type: 'array', minItems: 3 } }, required: ['lines'], additionalProperties: false },
      x_priority: 3,
    },
    terms: {
      price: { amount: '0.25', currency: 'USDC', network: 'base', x_tax: '0.02' },
      deadline: ahead(DAY),
      payment_trigger: 'on_delivery',
      platform_fee: { percentage: 1.5, wallet: grace.address, x_reason: 'because' },
      x_penalty: { steps: [1, -2.5, true, null, 'é'] },
    },
    sla: { max_latency_ms: 60_000, retry_policy: '2 attempts', refund_conditions: ['deadline_missed', 'no_response'], allow_partial: true, x_uptime: 0.99 },
    x_invoice: { number: 'A-1', paid: false, lines: [] },
  };
}

describe('whatever is changed after signing', () => {
  let contract;
  before(async () => {
    contract = await agreed(rich());
    valid(isContract, contract);
  });

  test('a byte of a member that no schema knows: the hash is not that of the text', async () => {
    const changed = structuredClone(contract);
    changed.x_invoice.number = 'A-2';
    valid(isContract, changed);
    const { body } = await refused(changed, 'CONTRACT_HASH_MISMATCH', 'hash');
    assert.equal(body.error.details.expected, hashOf(changed));
  });

  test('hash and text together: the signatures are of another hash', async () => {
    const changed = { ...contract, task: { ...contract.task, description: 'Ten haiku' } };
    changed.hash = hashOf(changed);
    await refused(changed, 'WORKER_SIGNATURE_INVALID', 'signatures.worker');
    const [bySeeker, byWorker] = await Promise.all([account, worker].map((by) => signatureOf(changed.hash, by)));
    // One signature of the new hash is not enough: neither the seeker's alone, nor the worker's.
    await refused({ ...changed, signatures: { ...changed.signatures, seeker: bySeeker } }, 'WORKER_SIGNATURE_INVALID', 'signatures.worker');
    await refused({ ...changed, signatures: { ...changed.signatures, worker: byWorker } }, 'SEEKER_SIGNATURE_INVALID', 'signatures.seeker');
  });

  test('unchanged, it is registered', async () => {
    assert.equal((await seeker.register(contract)).status, 201);
  });
});

describe('documents that are no contracts', () => {
  const text = (edit) => async () => edit(JSON.stringify(await signed()));
  const bodies = {
    'not JSON': async () => 'contract',
    'an array of one': text((t) => `[${t}]`),
    'a name twice': text((t) => t.replace('"version":', '"version":"HIRE/1.0","version":')),
  };
  for (const [name, body] of Object.entries(bodies)) {
    test(`${name}: CONTRACT_MALFORMED`, async () => {
      await refused(await body(), 'CONTRACT_MALFORMED', 'body');
    });
  }

  test('bytes that are not UTF-8: CONTRACT_MALFORMED', async () => {
    const contract = await signed((c) => void (c.task.description = 'caf\u00e9'));
    const before = await stored();
    const response = await fetch(`${stack.url}/contracts`, { method: 'POST', body: Buffer.from(JSON.stringify(contract), 'latin1') });
    isRefusal({ status: response.status, body: await response.json() }, 'CONTRACT_MALFORMED', 'body');
    assert.equal(await stored(), before);
  });

  test('the deepest documents that are accepted can be shown again', async () => {
    const seen = [];
    for (let depth = 90; depth < 100; depth++) {
      const contract = await signed((c) => void (c.x = JSON.parse('['.repeat(depth) + ']'.repeat(depth))));
      const { status } = await seeker.register(contract);
      const found = await show(contract.contract_id);
      assert.deepEqual([status, found.status], status === 201 ? [201, 200] : [400, 404]);
      if (status === 201) {
        assert.deepEqual(found.body.contract, contract);
        assert.equal((await verify(contract.contract_id)).body.valid, true);
      }
      seen.push(status);
    }
    assert.deepEqual([...new Set(seen)], [201, 400]);
  });

  test('more than 32 KiB: BODY_TOO_LARGE, and 32 KiB are not', async () => {
    const fill = async (bytes) => {
      const contract = await signed((c) => void (c.x = ''));
      const size = Buffer.byteLength(JSON.stringify(contract));
      return signed((c) => void Object.assign(c, { x: 'x'.repeat(bytes - size), contract_id: contract.contract_id }), { at: contract.signatures.timestamp });
    };
    const whole = await fill(32_768);
    assert.equal(Buffer.byteLength(JSON.stringify(whole)), 32_768);
    await refused(await fill(32_769), 'BODY_TOO_LARGE');
    assert.equal((await seeker.register(whole)).status, 201);
  });

  refusals({
    'a date that is no date': [(c) => void (c.created_at = 'yesterday'), 'CONTRACT_MALFORMED', 'created_at'],
    'created in ten minutes': [(c) => void (c.created_at = ahead(10 * MINUTE)), 'CONTRACT_MALFORMED', 'created_at'],
    'a member of ours, of another type': [(c) => void (c.task.output_type = ['text']), 'CONTRACT_MALFORMED', 'task.output_type'],
  });

  test('the table of malformed contracts: another implementation of HIRE\'s schema refuses each of them too', async () => {
    const contract = await signed();
    valid(isContract, contract);
    const table = json('tests/hire/malformed_contracts.json');
    assert.ok(table.length > 100);
    for (const { path, value } of table) {
      const changed = structuredClone(contract);
      changed.sla = {};
      const keys = path.split('.');
      const parent = keys.slice(0, -1).reduce((object, key) => object[key], changed);
      if (value === undefined) delete parent[keys.at(-1)];
      else parent[keys.at(-1)] = value;
      assert.equal(isContract(changed), false, `the schema takes ${path}: ${JSON.stringify(value)}`);
    }
  });
});

describe('terms that we do not accept, signed by both', () => {
  refusals({
    'too little': [(c) => void (c.terms.price.amount = '0.009999'), 'PRICE_NOT_ACCEPTED', 'terms.price.amount'],
    escrow: [(c) => void (c.terms.payment_trigger = 'escrow'), 'PAYMENT_TRIGGER_UNSUPPORTED', 'terms.payment_trigger'],
    'retries as often as you like': [(c) => void (c.sla = { retry_policy: 'as often as you like' }), 'SLA_NOT_OFFERED', 'sla.retry_policy'],
    'a deadline that is over': [(c) => void (c.terms.deadline = ahead(-DAY)), 'DEADLINE_NOT_ACCEPTED', 'terms.deadline'],
    'a deadline in a century': [(c) => void (c.terms.deadline = ahead(36_500 * DAY)), 'DEADLINE_NOT_ACCEPTED', 'terms.deadline'],
    'a video': [(c) => void (c.task.output_type = 'video'), 'OUTPUT_NOT_OFFERED', 'task.output_type'],
    'a schema that cannot be checked': [(c) => void (c.task.input_schema = { properties: { x: { $ref: 'other.json' } } }), 'SCHEMA_UNSUPPORTED', 'task.input_schema.properties.x.$ref'],
    'an agent that does not exist': [(c) => void (c.parties.worker.agent_id = 'agent_nobody'), 'WORKER_UNKNOWN', 'parties.worker.agent_id'],
    'the platform as a party': [(c) => void ((c.parties.worker.agent_id = 'agent_coinslot'), (c.task.capability = 'ada-haiku')), 'WORKER_UNKNOWN', 'parties.worker.agent_id'],
    "another creator's agent": [(c) => void (c.parties.worker.agent_id = agents.grace), 'CAPABILITY_UNKNOWN', 'task.capability'],
    "another creator's agent and capability": [(c) => void ((c.parties.worker.agent_id = agents.grace), (c.task.capability = 'explain-error')), 'WORKER_UNKNOWN', 'parties.worker.wallet'],
    "another creator's capability": [(c) => void (c.task.capability = 'explain-error'), 'CAPABILITY_UNKNOWN', 'task.capability'],
    'a capability that is a draft': [(c) => void (c.task.capability = 'release-notes'), 'CAPABILITY_UNKNOWN', 'task.capability'],
    'no capability': [(c) => void delete c.task.capability, 'CAPABILITY_UNKNOWN', 'task.capability'],
    // On this machine they may be sent without TLS; elsewhere not.
    'a webhook over http': [(c) => void (c.parties.seeker.webhook_url = 'http://example.com/'), 'WEBHOOK_REFUSED', 'parties.seeker.webhook_url'],
  });

  test("a worker's wallet that is not the agent's, with that wallet's signature", async () => {
    const other = privateKeyToAccount(generatePrivateKey());
    await refused(await signed((c) => void (c.parties.worker.wallet = other.address), { by: other }), 'WORKER_UNKNOWN', 'parties.worker.wallet');
  });

  const accepted = {
    'more than it costs': (c) => void (c.terms.price.amount = '3'),
    'a deadline in another time zone': (c) => void (c.terms.deadline = ahead(DAY).replace('Z', '+02:00')),
    'an output type': (c) => void (c.task.output_type = 'stream'),
    'an output_schema': (c) => void (c.task.output_schema = { type: 'object' }),
    'a webhook on this machine': (c) => void (c.parties.seeker.webhook_url = 'http://127.0.0.1:9/hook'),
    'a fee for somebody': (c) => void (c.terms.platform_fee = { percentage: 100, wallet: grace.address }),
  };
  for (const [name, edit] of Object.entries(accepted)) {
    test(`accepted: ${name}`, async () => {
      const contract = await signed(edit);
      valid(isContract, contract);
      const answer = await seeker.register(contract);
      assert.equal(answer.status, 201, JSON.stringify(answer.body));
    });
  }

  test("a capability whose own schema cannot be checked cannot be hired", async () => {
    await meanwhile([['INSERT INTO capabilities (template_id, output_schema) VALUES (?1, ?2)', HAIKU_ID, JSON.stringify({ unevaluatedProperties: false })]], [['DELETE FROM capabilities']], async () => {
      isRefusal(await seeker.propose(draft(agents.ada, account)), 'SCHEMA_UNSUPPORTED', 'task.output_schema.unevaluatedProperties');
    });
  });
});

describe('the signing key', () => {
  const K1 = generatePrivateKey();
  const K2 = generatePrivateKey();
  const NEVER = generatePrivateKey(); // only ever sent in what is refused
  const [one, two] = [K1, K2].map(privateKeyToAccount);
  const keys = { K1, K2, NEVER, "ada's": ada.privateKey, "grace's": grace.privateKey };
  const secrets = [];
  const record = () => stack.KV.get(`signing-key/${ada.id}`);
  const agent = () => stack.DB.prepare('SELECT * FROM agents WHERE creator_id = ?').bind(ada.id).first();

  async function call(method, { creator = ada, body, headers } = {}) {
    const response = await fetch(`${stack.url}/integrations/hire/config`, {
      method,
      headers: headers ?? { authorization: `Bearer ${await stack.token(creator)}`, 'content-type': 'application/json' },
      body: body === undefined || typeof body === 'string' ? body : JSON.stringify(body),
    });
    const text = await response.text();
    const all = (text + JSON.stringify([...response.headers])).toLowerCase();
    for (const [name, key] of Object.entries(keys)) assert.equal(all.includes(key.slice(2, 34)), false, `${name} key in ${all}`);
    return { status: response.status, headers: response.headers, body: JSON.parse(text) };
  }
  const put = (signingKey) => call('PUT', { body: { signingKey } });
  const state = (wallet) => ({ hasSigningKey: !!wallet, agentId: wallet ? agents.ada : null, wallet: wallet ?? null });
  after(() => put(ada.privateKey));

  test('needs a token, and belongs to one creator', async () => {
    const [before, theirs] = [await record(), (await call('GET', { creator: grace })).body];
    for (const method of ['GET', 'PUT', 'DELETE']) {
      for (const [headers, code] of [[{}, 'TOKEN_MISSING'], [{ authorization: 'Bearer x.y.z' }, 'TOKEN_INVALID'], [{ authorization: `Bearer ${await stack.token(ada, { aud: 'others' })}` }, 'TOKEN_INVALID']]) {
        const answer = await call(method, { headers, body: method === 'PUT' ? { signingKey: NEVER } : undefined });
        assert.deepEqual([answer.status, answer.body.error.code], [401, code]);
        assert.match(answer.headers.get('www-authenticate'), /^Bearer/);
      }
    }
    assert.equal(await record(), before);
    assert.deepEqual((await call('GET')).body, state(ada.address));
    assert.equal((await put(K1)).status, 200);
    assert.deepEqual((await call('GET', { creator: grace })).body, theirs);
    assert.deepEqual(theirs, { hasSigningKey: true, agentId: agents.grace, wallet: grace.address });
    assert.equal((await call('POST', { body: { signingKey: K1 } })).status, 405);
  });

  const hex = NEVER.slice(2);
  const bad = {
    'too short': [{ signingKey: `0x${hex.slice(1)}` }, 'signingKey'],
    'not a string': [{ signingKey: 7 }, 'body'],
    nothing: [{}, 'body'],
    'an unknown field': [{ signingKey: NEVER, signing_key: NEVER }, 'body'],
    'the key as a name': [{ [NEVER]: 1 }, 'body'],
    'an array': [[NEVER], 'body'],
    'a string': [JSON.stringify(NEVER), 'body'],
    'not JSON': [`{"signingKey":"${NEVER}"`, 'body'],
    'a name twice': [`{"signingKey":"${NEVER}","signingKey":"${NEVER}"}`, 'body'],
  };
  for (const [name, [body, field]] of Object.entries(bad)) {
    test(`refused by name, and what is stored stays: ${name}`, async () => {
      const before = [await record(), await agent()];
      const answer = await call('PUT', { body });
      assert.equal(answer.status, 400, JSON.stringify(answer.body));
      assert.deepEqual([answer.body.error.code, answer.body.error.details.field], ['INVALID_INPUT', field]);
      assert.deepEqual([await record(), await agent()], before);
    });
  }
  test('too large a body is a 413', async () => {
    assert.equal((await call('PUT', { body: { signingKey: NEVER.repeat(20) } })).status, 413);
  });

  test('of a creator who does not exist: refused, and not stored', async () => {
    const answer = await call('PUT', { creator: { id: 'creator_nobody' }, body: { signingKey: NEVER } });
    const kept = await stack.KV.get('signing-key/creator_nobody');
    await stack.KV.delete('signing-key/creator_nobody');
    assert.ok(answer.status >= 400 && answer.status < 500, JSON.stringify(answer.body));
    assert.equal(kept, null, 'the key is stored');
  });

  test('with or without 0x, in capitals: the same wallet, which is all that GET shows', async () => {
    for (const spelling of [K1, K1.slice(2), `0x${K1.slice(2).toUpperCase()}`]) {
      const answer = await put(spelling);
      assert.equal(answer.status, 200);
      assert.deepEqual(answer.body, state(one.address));
      assert.match(answer.headers.get('cache-control'), /no-store/);
    }
    assert.deepEqual((await call('GET')).body, state(one.address));
    const first = await record();
    await put(K1);
    assert.notEqual(JSON.parse(first).envelope, JSON.parse(await record()).envelope, 'sealed anew');
  });

  test('another key: another wallet in manifests and new contracts; registered contracts of the old one stay valid', async () => {
    await put(K1);
    const old = await registered();
    const late = await agreed();
    assert.equal(old.contract.parties.worker.wallet, one.address);
    secrets.push(old.answer.body.webhook_secret);
    assert.equal((await put(K2)).body.wallet, two.address);
    for (const handle of ['ada', undefined]) {
      const { body } = await manifest(handle);
      valid(isManifest, body);
      for (const c of body.capabilities.filter(({ agent_id }) => agent_id === agents.ada)) assert.equal(c.wallet, two.address);
    }
    const { body } = await manifest('ada');
    assert.deepEqual([body.agent.id, body.agent.owner.wallet], [agents.ada, two.address]);
    const { contract } = await registered();
    assert.equal(contract.parties.worker.wallet, two.address);
    assert.ok(await verifyMessage({ address: two.address, message: contract.hash, signature: contract.signatures.worker }));
    await refused(late, 'WORKER_UNKNOWN', 'parties.worker.wallet');
    assert.equal((await seeker.register(old.contract)).status, 200);
    assert.equal((await verify(old.id)).body.valid, true);
  });

  test('nothing is signed while KV is behind D1', async () => {
    await put(K1);
    const behind = await record();
    await put(K2);
    const now = await record();
    const unsigned = async (codes) => {
      const answer = await seeker.propose(draft(agents.ada, account));
      assert.ok(codes.includes(answer.body.error?.code), JSON.stringify(answer.body));
      assert.doesNotMatch(JSON.stringify(answer.body), /0x[0-9a-f]{130}/);
      return answer;
    };
    try {
      await stack.KV.put(`signing-key/${ada.id}`, behind);
      const answer = await unsigned(['SIGNING_KEY_MISSING']);
      assert.deepEqual([answer.status, answer.body.status, answer.body.error.retryable], [503, 'failed', true]);
      assert.ok(Number(answer.headers.get('retry-after')) > 0);
      await stack.KV.delete(`signing-key/${ada.id}`);
      await unsigned(['SIGNING_KEY_MISSING']);
      // The envelope of another creator's key, or of a Claude key, cannot be opened under this name.
      for (const name of [`signing-key/${grace.id}`, `claude-key/${ada.id}`]) {
        const { envelope } = JSON.parse(await stack.KV.get(name));
        await stack.KV.put(`signing-key/${ada.id}`, JSON.stringify({ ...JSON.parse(now), envelope }));
        await unsigned(['SIGNING_KEY_MISSING', 'INTERNAL']);
      }
    } finally {
      await stack.KV.put(`signing-key/${ada.id}`, now);
    }
    assert.equal((await agreed()).parties.worker.wallet, two.address);
  });

  test('a key that does not belong to the stored wallet signs nothing', async () => {
    await put(K1);
    const { envelope } = JSON.parse(await record());
    await put(K2);
    const now = await record();
    try {
      await stack.KV.put(`signing-key/${ada.id}`, JSON.stringify({ ...JSON.parse(now), envelope }));
      const answer = await seeker.propose(draft(agents.ada, account));
      assert.ok(answer.status >= 500 && answer.body.status === 'failed', JSON.stringify(answer.body));
    } finally {
      await stack.KV.put(`signing-key/${ada.id}`, now);
    }
  });

  test('deleted: no manifest, no proposal, no new contract; registered ones stay valid. Stored again: new contracts are possible', async () => {
    await put(K1);
    const { contract, id } = await registered();
    const late = await agreed();
    for (let i = 0; i < 2; i++) {
      const gone = await call('DELETE');
      assert.deepEqual([gone.status, gone.body], [200, state()]);
    }
    assert.deepEqual((await call('GET')).body, state());
    assert.equal(await record(), null);
    assert.equal((await manifest('ada')).status, 404);
    assert.deepEqual(names(await manifest()), ['grace-explain-error']);
    isRefusal(await seeker.propose(draft(agents.ada, account)), 'WORKER_UNKNOWN', 'parties.worker.agent_id');
    isRefusal(await seeker.propose(draft('agent_coinslot', account, { capability: 'ada-haiku' })), 'CAPABILITY_UNKNOWN', 'task.capability');
    await refused(late, 'WORKER_UNKNOWN', 'parties.worker.agent_id');
    assert.deepEqual((await show(id)).body, { contract_id: id, state: 'SIGNED', hash: contract.hash, contract });
    assert.equal((await verify(id)).body.valid, true);
    assert.equal((await seeker.register(contract)).status, 200);
    assert.deepEqual((await put(K1)).body, state(one.address));
    assert.equal((await seeker.register(late)).status, 201);
  });

  // The spellings in which a key might be stored or sent: raw, hex, decimal, base64 at any offset.
  function spellings(key) {
    const [text, bytes] = [key.slice(2), Buffer.from(key.slice(2), 'hex')];
    const all = [bytes, Buffer.from(text), Buffer.from(text.toUpperCase()), Buffer.from(text, 'utf16le'), Buffer.from(Buffer.from(text).toString('hex')), Buffer.from([...bytes].join()), Buffer.from(BigInt(key).toString())];
    for (const inner of [bytes, Buffer.from(text)]) {
      for (const shift of [0, 1, 2]) {
        const padded = Buffer.concat([Buffer.alloc(shift), inner]);
        const sure = padded.toString('base64').replace(/=+$/, '').slice(shift ? shift + 1 : 0, Math.floor((padded.length * 8) / 6));
        all.push(Buffer.from(sure), Buffer.from(sure.replaceAll('+', '-').replaceAll('/', '_')));
      }
    }
    return all;
  }
  const needles = Object.entries(keys).flatMap(([name, key]) => spellings(key).map((bytes) => ({ name, bytes })));
  const find = (what) => {
    const haystack = Buffer.isBuffer(what) ? what : Buffer.from(typeof what === 'string' ? what : JSON.stringify(what));
    return [...new Set(needles.filter(({ bytes }) => haystack.includes(bytes)).map(({ name }) => name))];
  };
  const clean = (what, where) => assert.deepEqual(find(what), [], `a key in ${where}`);
  async function dumpD1() {
    const { results } = await stack.DB.prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_cf%' ESCAPE '\\' AND name NOT LIKE 'sqlite%'").all();
    return Object.fromEntries(await Promise.all(results.map(async ({ name }) => [name, (await stack.DB.prepare(`SELECT * FROM "${name}"`).all()).results])));
  }
  const dumpKv = async () => Promise.all((await stack.KV.list()).keys.map(async ({ name }) => ({ name, value: await stack.KV.get(name) })));

  test('is in no response, log, table, KV entry or file; a webhook secret is in one response, and is stored encrypted', async () => {
    await put(K2);
    const [d1, kv] = [await dumpD1(), await dumpKv()];
    assert.ok(d1.agents.length >= 2 && d1.contracts.length > 20 && kv.some(({ name }) => name === `signing-key/${ada.id}`));
    assert.ok(responses.length > 300 && stack.logs.length > 0);
    clean(d1, 'D1');
    clean(kv, 'KV');
    clean(stack.log(), 'the log');
    clean(stack.logs, 'the log, as JSON');
    clean(stack.facilitator.calls, "the facilitator's calls");
    const files = stack.files();
    assert.ok(files.some(({ bytes }) => bytes.includes(two.address)), 'the files are those of this stack');
    for (const { path, bytes } of files) clean(bytes, path);
    for (const { url, status, text } of responses) clean(await text, `${status} ${url}`);
    assert.ok(secrets.length);
    const texts = await Promise.all(responses.map(({ text }) => text));
    for (const secret of secrets) {
      assert.equal(texts.filter((text) => text.includes(secret)).length, 1);
      for (const stored of [JSON.stringify(d1), JSON.stringify(kv), stack.log()]) {
        for (const form of [secret.slice(6), Buffer.from(secret.slice(6), 'base64').toString()]) assert.equal(stored.includes(form), false);
      }
    }
  });

  test('a planted key would be found in each of them', async () => {
    const bytes = Buffer.from(K1.slice(2), 'hex');
    for (const text of [K1, K1.slice(2).toUpperCase(), JSON.stringify({ k: K1 }), bytes.toString('base64'), `-${bytes.toString('base64url')}`, Buffer.from(`{"k":"${K1}"}`).toString('base64'), JSON.stringify([...bytes])]) {
      assert.deepEqual(find(`{"x":"${text}"}`), ['K1'], text);
    }
    await stack.KV.put('planted', Buffer.concat([randomBytes(5), bytes]).toString('base64'));
    assert.deepEqual(find(await dumpKv()), ['K1']);
    assert.ok(await until(() => stack.files().some(({ bytes: file }) => find(file).includes('K1'))));
    await stack.KV.delete('planted');
  });
});
