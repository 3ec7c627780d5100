// The prompt and the keys stay secret: after runs of every kind, nothing that left the Worker or was
// stored by it holds them, in whatever spelling. And the search would find them.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { BAD_KEY, apiError, cut, delta, end, errorEvent, open, say, shut, start, stop } from '../support/claude.mjs';
import { DRAFT, DRAFT_INPUT, HAIKU, INPUT, JWT_SECRET, NETWORK, ada, gate, grace, readSse, sse, startStack, until, vaultKey } from '../support/stack.mjs';

const word = () => randomBytes(9).toString('hex');
const VAULT = vaultKey('k1');
// Characters that change in one spelling or another: quotes, a backslash, a line break, é.
const MARK = `mark ${word()} "kept" \\ quiet é\nand ${word()}`;
const VALUE = `value ${word()}`;
const keys = Object.fromEntries([ada, grace].map(({ handle }) => [handle, `sk-ant-api03-${randomBytes(60).toString('base64url')}`]));
const secrets = {
  'the prompt': MARK,
  'a piece of the prompt': MARK.split('\n')[1],
  'the filled-in prompt': `before ${VALUE} after`,
  'a seeded prompt': 'You are a poet who writes haiku and nothing else.',
  "ada's key": keys.ada,
  "grace's key": keys.grace,
  'a key that was refused': BAD_KEY,
  'the end of a key': keys.ada.slice(-40),
  'the master key': VAULT.split(':')[1],
  'the JWT secret': JWT_SECRET,
};

/** The ways in which a text may be written down. */
function spellings(text) {
  const bytes = Buffer.from(text);
  const all = [bytes, Buffer.from(text, 'utf16le'), Buffer.from(bytes.toString('hex')), Buffer.from(bytes.toString('hex').toUpperCase())];
  const json = JSON.stringify(text).slice(1, -1);
  const ascii = json.replace(/[^\x20-\x7e]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
  const twice = JSON.stringify(json).slice(1, -1);
  all.push(...[json, ascii, twice, encodeURIComponent(text), JSON.stringify([...bytes]).slice(1, -1)].map((t) => Buffer.from(t)));
  for (const inner of [bytes, Buffer.from(json)]) {
    for (const shift of [0, 1, 2]) {
      // Inside a longer text, base64 starts at any of three places; what the neighbours decide is left out.
      const padded = Buffer.concat([Buffer.alloc(shift), inner]);
      const sure = padded.toString('base64').replace(/=+$/, '').slice(shift ? shift + 1 : 0, Math.floor((padded.length * 8) / 6));
      const url = sure.replaceAll('+', '-').replaceAll('/', '_');
      all.push(Buffer.from(sure), Buffer.from(url));
    }
  }
  return all;
}
const needles = Object.entries(secrets).flatMap(([name, text]) => spellings(text).map((bytes) => ({ name, bytes })));

/** Names of the secrets in `what`: bytes or text. */
function find(what) {
  const haystack = Buffer.isBuffer(what) ? what : Buffer.from(typeof what === 'string' ? what : JSON.stringify(what));
  return [...new Set(needles.filter(({ bytes }) => haystack.includes(bytes)).map(({ name }) => name))];
}
const clean = (what, where) => assert.deepEqual(find(what), [], `found in ${where}`);

let stack;
const responses = [];
const nativeFetch = globalThis.fetch;
before(async () => {
  stack = await startStack({ vars: { VAULT_KEYS: VAULT }, config: { limits: { claudeBeginSeconds: 1, claudeIdleSeconds: 1 } } });
  // Every response of the Worker from here on is kept.
  globalThis.fetch = async (...args) => {
    const response = await nativeFetch(...args);
    if (String(args[0].url ?? args[0]).startsWith(stack.url)) {
      const copy = response.clone();
      responses.push({ url: String(args[0].url ?? args[0]), status: copy.status, headers: JSON.stringify([...copy.headers]), body: copy.arrayBuffer().then(Buffer.from, () => Buffer.alloc(0)) });
    }
    return response;
  };
});
after(() => {
  globalThis.fetch = nativeFetch;
  return stack?.close();
});

/** All tables but `templates`, which holds the prompts. */
async function dumpD1() {
  const { results } = await stack.DB.prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_cf%' ESCAPE '\\' AND name NOT LIKE 'sqlite%'").all();
  const dump = {};
  for (const { name } of results) if (name !== 'templates') dump[name] = (await stack.DB.prepare(`SELECT * FROM "${name}"`).all()).results;
  return dump;
}
async function dumpKv() {
  const { keys: names } = await stack.KV.list();
  return Promise.all(names.map(async ({ name, metadata }) => ({ name, metadata, value: await stack.KV.get(name) })));
}
/** The runtime's files, write-ahead logs and all, but for the database that holds the prompts. */
const files = () => stack.files().filter(({ path }) => !path.includes('/state/d1/'));
const objectFiles = () => files().filter(({ path }) => path.includes('/do/') && path.includes('WalletObject'));

describe('after runs of every kind', () => {
  let path;
  let draft;
  let payer;

  test('the runs are made, and Claude does get prompt and key', async () => {
    payer = await stack.payer();
    for (const creator of [ada, grace]) assert.equal((await stack.storeKey(creator, keys[creator.handle])).status, 200);
    const parameters = [{ name: 'thing', required: true }];
    const prompt = `${MARK}\nbefore {thing}{/thing} after`;
    path = await stack.addTemplate('kept', { prompt, parameters });
    draft = await stack.addTemplate('kept-draft', { prompt, parameters, published: 0 });
    const input = { thing: VALUE };
    const pay = async (script, headers = {}) => {
      stack.claude.script = typeof script === 'function' ? script : () => script;
      const signed = { ...headers, ...(await stack.signPayment(path, input, payer)) };
      const response = await stack.post(path, input, signed);
      return { status: response.status, text: await response.text(), signed };
    };
    const good = say('Hello', ', world');

    const first = await pay(good);
    assert.equal(first.status, 200);
    const [request] = stack.claude.requests;
    assert.equal(request.key, keys.ada);
    assert.ok(JSON.stringify(request.body).includes(JSON.stringify(MARK).slice(1, -1)));
    assert.deepEqual(find(request.raw).includes('the filled-in prompt'), true);

    assert.equal((await pay(good, { accept: 'application/json' })).status, 200);
    stack.claude.script = () => good;
    assert.equal((await stack.payV1(path, input, {}, payer)).status, 200);
    assert.equal((await stack.payV2(path, input, {}, payer)).status, 200);
    for (const p of [path, draft]) assert.equal((await readSse(await stack.ownerTest(p, input))).text, 'Hello, world');
    await readSse(await stack.ownerTest(DRAFT, DRAFT_INPUT));
    await readSse(await stack.payV2(HAIKU, INPUT, {}, payer));
    await readSse(await stack.payV2('/@grace/explain-error', { error: 'x' }, {}, payer));

    // Claude, telling on us in every error.
    const tale = `bad key ${keys.ada}: system: ${MARK} before ${VALUE} after`;
    for (const status of [400, 401, 402, 403, 404, 413, 429, 500, 529]) assert.ok((await pay(() => apiError(status, { message: tale, headers: { 'x-told': keys.ada, 'anthropic-organization-id': keys.ada } }))).status >= 400);
    await pay(() => ({ status: 500, steps: [Buffer.from(`<html>${tale}</html>`)] }));
    await pay(() => ({ status: 302, headers: { location: `http://127.0.0.1:9/?${encodeURIComponent(tale)}` }, steps: [Buffer.from('')] }));
    await pay([errorEvent('api_error', tale)]);
    await pay([Buffer.from(`event: ${tale.replaceAll('\n', ' ')}\ndata: {not json ${tale.replaceAll('\n', ' ')}\n\n`)]);
    await pay([start(), open(), delta('half'), 300, errorEvent('overloaded_error', tale)]);
    await pay([start(), open(), delta('half'), 300, cut]);
    await pay([cut]);
    await pay([start(), open(), delta('half'), shut(), end({ stop_reason: 'refusal' }), stop]);
    const unknown = await pay([start(), open(), delta('x'), shut(), end({ stop_reason: 'unheard_of' }), stop]);
    assert.match(unknown.text, /done|error/);

    // The facilitator in trouble.
    for (const answer of [{ success: false, errorReason: 'insufficient_funds', transaction: '', network: NETWORK }, { success: true, transaction: 'x' }]) {
      stack.facilitator.onSettle = () => answer;
      await pay(good);
    }
    stack.facilitator.onSettle = undefined;
    stack.facilitator.onVerify = () => ({ isValid: false, invalidReason: 'nope' });
    await pay(good);
    stack.facilitator.onVerify = undefined;

    // Wrong requests, and the key's route.
    for (const body of [undefined, '{', { thing: 7 }, { other: 'x' }, { thing: '' }]) await (await stack.post(path, body)).text();
    await (await stack.post(path, { thing: 'another' }, first.signed)).text();
    await (await stack.post(path, input, { 'payment-signature': '!!' })).text();
    for (const p of [path, draft, '/@ada/none', '/healthz', '/@ada', '/']) await (await fetch(`${stack.url}${p}`)).text();
    await (await fetch(`${stack.url}${draft}`, { headers: { authorization: `Bearer ${await stack.token()}` } })).text();
    const route = async (body, query = '') => {
      const headers = { authorization: `Bearer ${await stack.token()}` };
      const response = await fetch(`${stack.url}/integrations/claude/config${query}`, { method: body === undefined ? 'GET' : 'PUT', headers, body });
      await response.text();
      return response.status;
    };
    assert.equal(await route(), 200);
    assert.equal(await route(`{"apiKey":"${keys.ada}"`), 400);
    assert.equal(await route(JSON.stringify({ apiKey: `${keys.ada} ` })), 400);
    assert.equal(await route(JSON.stringify({ [keys.ada]: 1 })), 400);
    assert.equal(await route(JSON.stringify({ apiKey: BAD_KEY }), '?verify=true'), 422);

    // Our own faults: rows that cannot be read, an envelope that does not open.
    const fault = async (columns) => {
      await stack.changeTemplate('template_ada_kept', columns);
      assert.equal((await pay(good).catch(async () => { const r = await stack.post(path, input); await r.text(); return r; })).status, 500);
    };
    await fault({ parameters: `[${MARK}` });
    await stack.changeTemplate('template_ada_kept', { parameters: JSON.stringify(parameters) });
    await fault({ price: MARK });
    await stack.changeTemplate('template_ada_kept', { price: '0.01' });
    const record = JSON.parse(await stack.KV.get(`claude-key/${ada.id}`));
    const theirs = JSON.parse(await stack.KV.get(`claude-key/${grace.id}`));
    await stack.KV.put(`claude-key/${ada.id}`, JSON.stringify({ ...record, envelope: theirs.envelope }));
    assert.equal((await pay(good)).status, 503);
    await stack.KV.put(`claude-key/${ada.id}`, JSON.stringify(record));

    // And one that is under way: what does its object hold now, and after an eviction?
    const more = gate();
    stack.claude.script = () => [start(), open(), delta('one'), () => more.opened, delta(' two'), shut(), end(), stop];
    const running = sse(await stack.post(path, input, await stack.signPayment(path, input, payer)));
    assert.equal((await running.next()).value.content, 'one');
    for (const { path: file, bytes } of files()) clean(bytes, file);
    more.open();
    for await (const event of running) if (event.type === 'done') await stack.row(event.run);
    assert.equal((await pay(good)).status, 200);
    // What broke off or is in doubt is brought to its end by the alarms; an object at work cannot be evicted.
    await until(async () => !(await stack.rows("status IN ('unknown', 'interrupted')")).length, { timeout: 30_000, every: 200, what: 'every run at its end' });
    await stack.evict();
    assert.equal((await stack.post(path, input, first.signed).then((r) => r.text())), first.text);
  });

  test('no response holds a secret, in body or headers', async () => {
    assert.ok(responses.length > 60, `only ${responses.length} responses were seen`);
    assert.ok(responses.some(({ status }) => status === 200) && responses.some(({ status }) => status === 500));
    for (const { url, status, headers, body } of responses) {
      clean(headers, `headers of ${status} ${url}`);
      clean(await body, `body of ${status} ${url}`);
    }
    // Their bodies were really read.
    assert.ok(Buffer.concat(await Promise.all(responses.map((r) => r.body))).includes('world'));
  });

  test('no line of the log does', () => {
    assert.ok(stack.logs.length > 20, 'the log was captured');
    assert.ok(stack.log().includes('template_ada_kept'));
    clean(stack.log(), 'the log');
    clean(stack.logs, 'the log, as JSON');
  });

  test('D1 does not, but for the templates', async () => {
    const dump = await dumpD1();
    assert.ok(dump.runs.length > 15 && dump.creators.length === 2);
    clean(dump, 'D1');
  });

  test('KV does not', async () => {
    const dump = await dumpKv();
    assert.ok(dump.some(({ name }) => name === `claude-key/${ada.id}`));
    clean(dump, 'KV');
  });

  test('the files of objects and KV do not', async () => {
    assert.ok(objectFiles().filter(({ path: file }) => file.endsWith('.sqlite')).length >= 3, 'one of the wallet, one of each owner who tested');
    // The text of an answer is there: the files are those of our runs, and readable.
    assert.ok(objectFiles().some(({ bytes }) => bytes.includes('Hello')));
    for (const { path: file, bytes } of files()) clean(bytes, file);
  });

  test('the facilitator was told none', () => {
    assert.ok(stack.facilitator.calls.length > 10);
    clean(stack.facilitator.calls, 'calls of the facilitator');
  });
});

describe('the search would find', () => {
  const inside = (bytes) => Buffer.concat([Buffer.from('{"x":"'), bytes, Buffer.from('"}')]);
  for (const [name, text] of Object.entries(secrets)) {
    test(`${name}, in every spelling`, () => {
      const json = JSON.stringify({ before: 'é', text });
      const written = {
        plain: text,
        JSON: json,
        'JSON in JSON': JSON.stringify({ json }),
        hex: Buffer.from(`--${text}--`).toString('hex'),
        'UTF-16': Buffer.from(`--${text}--`, 'utf16le'),
        'URL encoding': encodeURIComponent(`--${text}--`),
        ...Object.fromEntries([0, 1, 2].flatMap((n) => ['base64', 'base64url'].map((form) => [`${form} at ${n}`, Buffer.from(`${'-'.repeat(n)}${text}--`).toString(form)]))),
        'base64 of JSON': Buffer.from(json).toString('base64'),
      };
      for (const [spelling, what] of Object.entries(written)) {
        assert.ok(find(inside(Buffer.from(what))).includes(name), spelling);
      }
      assert.deepEqual(find('nothing of the kind'), []);
    });
  }

  test('a secret planted in KV, in D1, in an object and in the log', async () => {
    await stack.KV.put('planted', Buffer.from(`x${keys.grace}`).toString('base64'));
    assert.deepEqual(find(await dumpKv()), ["grace's key"]);
    assert.ok(files().some(({ bytes }) => find(bytes).includes("grace's key")), 'in the files');

    await stack.DB.prepare('UPDATE creators SET name = ? WHERE id = ?').bind(MARK, ada.id).run();
    assert.ok(find(await dumpD1()).includes('the prompt'));

    // An answer is kept in clear: one that recites the prompt puts it into the object, and the response.
    stack.claude.script = () => say(MARK);
    const response = await stack.post(HAIKU, INPUT, await stack.signPayment(HAIKU, INPUT, await stack.payer()));
    const body = await response.text();
    assert.ok(find(body).includes('the prompt'));
    assert.ok(find(await responses.at(-1).body).includes('the prompt'));
    await until(() => objectFiles().some(({ bytes }) => find(bytes).includes('the prompt')), { what: 'the recited prompt in a file' });

    assert.deepEqual(find([{ message: `key ${keys.ada}` }]).sort(), ["ada's key", 'the end of a key'].sort());
  });
});
