// What a contract's seeker gets (HIRE, "Execution"): the output types, JSON, files, streams.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { describe, test } from 'node:test';
import { apiError, delta, end, open, say, shut, start, stop } from '../support/claude.mjs';
import { canonical, countersign, draft, sha256 } from '../support/hire.mjs';
import { ASYNC, PAID, TEXT, WHOLE, account, agents, asked, books, ended, gated, hello, hire, newAccount, refused, seeker, seekerStack, settles, stack } from '../support/seeker_stack.mjs';
import { HAIKU_PRICE, INPUT, ada, gate, readSse, sleep, sse, until, vaultKey } from '../support/stack.mjs';

const VAULT_KEYS = vaultKey('k1');
const wrote = (text, options = {}) => () => say(text, options);
// The request of HIRE's page "Execution".
const BRIEF = { brief: 'Create a minimalist logo for TechStartup Inc', colors: ['#FF5733', '#333333'], style_references: ['https://example.com/style1.png'] };
const DATE = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;

seekerStack({
  vars: { VAULT_KEYS },
  async prepare() {
    const parameters = ['brief', 'colors', 'style_references'].map((name) => ({ name, required: true }));
    const prompt = 'Draw {brief}{/brief} in {colors}{/colors} like {style_references}{/style_references}';
    await stack.addTemplate('logo', { price: '5', prompt, parameters });
    await stack.addTemplate('report', { prompt: 'Report on {topic}{/topic}', parameters: [{ name: 'topic', required: true }] });
    await stack.DB.prepare("INSERT INTO capabilities (template_id, output, file_name, mime) VALUES ('template_ada_report', 'file', 'report.md', 'text/markdown; charset=utf-8')").run();
  },
});

/** Size and checksum are those of the bytes: of a file as it is fetched, of JSON as RFC 8785 has it. */
async function intact(item) {
  const bytes = {
    text: () => Buffer.from(item.content),
    json: () => Buffer.from(canonical(item.content)),
    file: async () => Buffer.from(await (await fetch(item.url)).arrayBuffer()),
  };
  const found = await bytes[item.type]();
  assert.equal(item.size, found.length);
  assert.equal(item.checksum, sha256(found));
  return found;
}

describe("the examples of HIRE's page", () => {
  const SVG = (n) => `<svg xmlns="http://www.w3.org/2000/svg"><!-- ${n} é --></svg>`;
  const items = [1, 2, 3].map((n) => ({ name: `logo_v${n}.svg`, type: 'file', mime: 'image/svg+xml', content: SVG(n) }));
  const notes = { name: 'notes.json', type: 'json', mime: 'application/json', content: '{"notes": "Option 1 is recommended"}' };

  test('completed: its contract id, its request, pending, polled', async () => {
    const rich = await stack.payer(10_000_000n);
    const more = gated(wrote(JSON.stringify({ items: [...items, notes] })));
    const hired = await seeker.hire(rich, { capability: 'logo', task: { output_type: 'multiple' }, contract_id: 'ctr_xyz789' });
    assert.equal(hired.id, 'ctr_xyz789');
    const asks = await seeker.execute('ctr_xyz789', BRIEF);
    assert.deepEqual(['address', 'amount', 'currency', 'network'].map((name) => asks.headers.get(`x-payment-${name}`)?.toLowerCase()), [ada.address.toLowerCase(), '5', 'usdc', 'base']);

    const pending = await seeker.buy(hired, BRIEF, ASYNC);
    assert.equal(pending.status, 202);
    assert.deepEqual([pending.body.status, pending.body.poll_url], ['pending', `${stack.url}/tasks/${pending.body.task_id}`]);
    assert.match(pending.body.estimated_completion, DATE);
    assert.ok(Date.parse(pending.body.estimated_completion) >= Date.now() - 1000);
    const polled = await seeker.get(pending.body.poll_url, { 'x-contract-id': 'ctr_xyz789' });
    assert.deepEqual([polled.status, polled.body.status, polled.body.task_id], [200, 'pending', pending.body.task_id]);
    await books(hired, { calls: 1, state: 'EXECUTING', whole: 10_000_000n });

    more.open();
    const { body } = await ended(pending.body.task_id, 'ctr_xyz789');
    assert.deepEqual([body.status, body.contract_id], ['completed', 'ctr_xyz789']);
    assert.deepEqual(body.deliverables.map((d) => d.name), ['logo_v1.svg', 'logo_v2.svg', 'logo_v3.svg', 'notes.json']);
    assert.equal(body.output.type, 'multiple');
    assert.deepEqual(body.output.items, body.deliverables);
    for (const [i, item] of body.deliverables.slice(0, 3).entries()) {
      assert.match(item.checksum, /^sha256:[0-9a-f]{64}$/);
      assert.deepEqual([item.type, item.mime, item.content], ['file', 'image/svg+xml', undefined]);
      assert.equal((await intact(item)).toString(), SVG(i + 1));
    }
    assert.deepEqual([body.deliverables[3].type, body.deliverables[3].content], ['json', { notes: 'Option 1 is recommended' }]);
    await intact(body.deliverables[3]);
    assert.ok(body.metadata.execution_time_ms >= 0 && body.metadata.execution_time_ms < 10_000);
    assert.equal(body.metadata.model_used, stack.claude.requests[0].body.model);
    await books(hired, { paid: 5_000_000n, calls: 1, state: 'COMPLETED', whole: 10_000_000n });
  });

  test('failed: code, message and details of the field', async () => {
    const hired = await hire({}, { capability: 'logo' });
    const answer = await seeker.execute(hired.id, { ...BRIEF, size: 'large' });
    assert.equal(answer.status, 400);
    const { code, message, details } = answer.body.error;
    assert.deepEqual([answer.body.status, answer.body.contract_id, typeof code, typeof message], ['failed', hired.id, 'string', 'string']);
    assert.deepEqual(Object.keys(details).sort(), ['expected', 'field', 'received']);
    assert.equal(details.field, 'size');
    await books(hired, { calls: 0, state: 'SIGNED' });
  });
});

describe('output types', () => {
  test('text: inline, in bytes of UTF-8', async () => {
    stack.claude.script = wrote('Münze fällt, 🎉');
    const hired = await hire({ output_type: 'text' });
    const { body } = await seeker.buy(hired, INPUT);
    assert.deepEqual([body.output.type, body.output.content], ['text', 'Münze fällt, 🎉']);
    assert.deepEqual(body.deliverables, [body.output]);
    await intact(body.output);
    await books(hired, PAID);
  });

  test('json: inline; size and checksum are of its canonical form', async () => {
    const text = '{"b": 1.50e2, "a": [1.0, -0, 1e21, 5e-324, true, null], "\\u20ac": "é\\n", "B": {"z": 1, "y": 2}}';
    stack.claude.script = wrote(text);
    const hired = await hire({ output_type: 'json' });
    const { body } = await seeker.buy(hired, INPUT);
    assert.equal(body.output.type, 'json');
    assert.equal(canonical(body.output.content), canonical(JSON.parse(text)));
    await intact(body.output);
    await books(hired, PAID);
  });

  test('file: by URL, with mime, size and checksum; the name is the capability’s', async () => {
    const text = '# Coins\n\nMünze 🎉\n';
    stack.claude.script = wrote(text);
    const hired = await hire({}, { capability: 'report' });
    const { body } = await seeker.buy(hired, INPUT);
    const { name, type, mime, size, checksum, url, content } = body.output;
    assert.deepEqual([name, type, mime, content], ['report.md', 'file', 'text/markdown; charset=utf-8', undefined]);
    assert.deepEqual([size, checksum], [Buffer.byteLength(text), sha256(text)]);
    assert.deepEqual(body.deliverables.map((d) => [d.name, d.url, d.checksum]), [[name, url, checksum]]);
    assert.equal((await intact(body.output)).toString(), text);
    // The same link, however often the task is asked for: a cached result is the same result.
    assert.equal((await seeker.task(body.task_id, hired.id)).body.output.url, url);
    await books(hired, PAID);
  });

  test('an output type that the capability does not have, or that HIRE does not: refused before anything is signed', async () => {
    for (const [capability, output_type] of [['report', 'text'], ['haiku', 'hologram']]) {
      const answer = await seeker.propose(draft(agents.ada, account, { capability, task: { output_type } }));
      assert.deepEqual([answer.status, answer.body.error.code, answer.body.error.details.field], [422, 'OUTPUT_NOT_OFFERED', 'task.output_type']);
    }
  });

  for (const [name, items] of [
    ['no items', []],
    ['two of one name', [{ name: 'a', type: 'text', mime: '', content: '1' }, { name: 'a', type: 'text', mime: '', content: '2' }]],
    ['a name that leads elsewhere', [{ name: '../a', type: 'file', mime: 'text/plain', content: '1' }]],
    ['a mime that would be a header of its own', [{ name: 'a', type: 'file', mime: 'text/plain\r\nx: y', content: '1' }]],
  ]) {
    test(`multiple, with ${name}: Claude may correct it once, else it failed and is not charged`, async () => {
      stack.claude.script = wrote(JSON.stringify({ items }));
      const hired = await hire({ output_type: 'multiple' });
      refused(await seeker.buy(hired, INPUT), 502, 'OUTPUT_SCHEMA_MISMATCH');
      await books(hired, { calls: 2, state: 'SIGNED' });
    });
  }
});

describe('JSON', () => {
  for (const [name, text] of [['as it is', '{"score": 8}'], ['in a fence', '```json\n{"score": 8}\n```'], ['in a fence without a word', '```\n{"score": 8}\n```\n'], ['between blanks', '\n  {"score": 8}\n\n']]) {
    test(`${name}: accepted, with one call`, async () => {
      stack.claude.script = wrote(text);
      const hired = await hire({ output_type: 'json' });
      const { body } = await seeker.buy(hired, INPUT);
      assert.deepEqual([body.status, body.output.content], ['completed', { score: 8 }]);
      await intact(body.output);
      await books(hired, PAID);
    });
  }

  for (const [name, wrong] of [['no JSON', 'The score is 8.'], ['two values', '{"score": 8} {"score": 9}'], ['a member twice', '{"score": 8, "score": 9}'], ['cut', '{"score": ']]) {
    test(`${name}: Claude is shown its answer and what is wrong, once; the corrected answer is delivered, charged once`, async () => {
      stack.claude.script = (_, n) => say(n === 1 ? wrong : '{"score": 8}');
      const hired = await hire({ output_type: 'json' });
      const { body } = await seeker.buy(hired, INPUT);
      assert.deepEqual([body.status, body.output?.content], ['completed', { score: 8 }]);
      const [first, second] = stack.claude.requests.map((r) => r.body.messages);
      assert.deepEqual(second[0], first[0]);
      assert.deepEqual([second.length, second[1].role, second[1].content, second[2].role], [3, 'assistant', wrong.trimEnd(), 'user']);
      assert.match(second[2].content, /not one JSON value/);
      // Both calls are the creator's cost, and counted.
      assert.equal(body.metadata.usage.input_tokens, 50);
      await books(hired, { ...PAID, calls: 2 });
      assert.equal(settles(), 1);
    });
  }

  test('twice wrong: OUTPUT_SCHEMA_MISMATCH after exactly two calls, not charged, and the contract can be executed again', async () => {
    stack.claude.script = wrote('No.');
    const hired = await hire({ output_type: 'json' }, { sla: { refund_conditions: ['output_schema_invalid'] } });
    const failed = await seeker.buy(hired, INPUT);
    refused(failed, 502, 'OUTPUT_SCHEMA_MISMATCH');
    assert.deepEqual(failed.body.refund, { condition: 'output_schema_invalid', agreed: true, charged: false, reported: false });
    await books(hired, { calls: 2, state: 'SIGNED' });
    stack.claude.script = wrote('{"score": 8}');
    assert.deepEqual((await seeker.execute(hired.id, INPUT)).body.output.content, { score: 8 });
    await books(hired, { ...PAID, calls: 3 });
  });

  const SCORE = { type: 'object', required: ['score'], properties: { score: { type: 'number', minimum: 0, maximum: 10 }, issues: { type: 'array', items: { type: 'string', maxLength: 9 } } } };
  test("Claude's structured output is asked for as far as it can express the schema; the instructions have all of it", async () => {
    stack.claude.script = wrote('{"score": 8}');
    const hired = await hire({ output_schema: SCORE });
    assert.equal((await seeker.buy(hired, INPUT)).body.output.type, 'json');
    const { output_config, messages } = stack.claude.requests[0].body;
    assert.deepEqual(output_config, { format: { type: 'json_schema', schema: {
      type: 'object',
      required: ['score'],
      properties: { score: { type: 'number' }, issues: { type: 'array', items: { type: 'string' } } },
      additionalProperties: false,
    } } });
    assert.ok(messages[0].content.includes('"maximum":10'));
    await books(hired, PAID);
  });

  test('a schema that Anthropic refuses for structured output is left out: the seeker sees nothing of it', async () => {
    const refusal = apiError(400, { message: 'output_config.format.schema: The compiled grammar is too large.' });
    stack.claude.script = (request) => ('output_config' in request.body ? refusal : say(stack.claude.requests.length === 2 ? '{"score": 99}' : '{"score": 8}'));
    const hired = await hire({ output_schema: SCORE });
    const { body } = await seeker.buy(hired, INPUT);
    assert.deepEqual([body.status, body.deliverables[0].content], ['completed', { score: 8 }]);
    const sent = stack.claude.requests.map((request) => 'output_config' in request.body);
    assert.deepEqual(sent, [true, false, false], 'and the repair does not try it again');
    assert.ok(stack.claude.requests[1].body.messages[0].content.includes('"maximum":10'));
    assert.equal(await stack.balance(account), WHOLE - HAIKU_PRICE);
  });

  for (const [name, task, text] of [
    ['text', { output_type: 'text' }, 'x'],
    ['JSON without a schema', { output_type: 'json' }, '{}'],
    ['a schema that is no object’s', { output_schema: { type: 'array', items: { type: 'number' } } }, '[]'],
    ['a schema of other members than it names', { output_schema: { type: 'object', patternProperties: { '^x': { type: 'number' } } } }, '{}'],
  ]) {
    test(`structured output is not asked for with ${name}`, async () => {
      stack.claude.script = wrote(text);
      const hired = await hire(task);
      assert.equal((await seeker.buy(hired, INPUT)).body.status, 'completed');
      assert.equal('output_config' in stack.claude.requests[0].body, false);
      await books(hired, PAID);
    });
  }

  test('an answer that does not satisfy the output_schema is corrected, or fails and is not charged', async () => {
    stack.claude.script = (_, n) => say(n === 1 ? '{"score": 11}' : '{"score": 10}');
    const hired = await hire({ output_schema: SCORE });
    assert.deepEqual((await seeker.buy(hired, INPUT)).body.output.content, { score: 10 });
    const [, , { content }] = stack.claude.requests[1].body.messages;
    assert.match(content, /score.*maximum/);
    await books(hired, { ...PAID, calls: 2 });

    stack.reset(wrote('{"issues": []}'));
    await newAccount();
    const worse = await hire({ output_schema: SCORE });
    refused(await seeker.buy(worse, INPUT), 502, 'OUTPUT_SCHEMA_MISMATCH');
    await books(worse, { calls: 2, state: 'SIGNED' });
  });

  test('a schema with a keyword that cannot be checked is refused before anything is signed', async () => {
    const answer = await seeker.propose(draft(agents.ada, account, { task: { output_schema: { type: 'object', $ref: 'https://example.com/schema' } } }));
    assert.deepEqual([answer.status, answer.body.error.code], [422, 'SCHEMA_UNSUPPORTED']);
  });

  for (const [name, output_type, text] of [['text', 'text', 'Coin falls,'], ['JSON that is whole all the same', 'json', '{"a": 1}']]) {
    test(`cut at Claude's limit, ${name}: OUTPUT_TRUNCATED, not charged; with allow_partial: partial, and charged`, async () => {
      stack.claude.script = wrote(text, { stop_reason: 'max_tokens' });
      const strict = await hire({ output_type });
      const failed = await seeker.buy(strict, INPUT);
      refused(failed, 502, 'OUTPUT_TRUNCATED');
      assert.equal(failed.body.output, undefined);
      await books(strict, { calls: 1, state: 'SIGNED' });
      const lax = await hire({ output_type }, { sla: { allow_partial: true } });
      const { status, body } = await seeker.buy(lax, INPUT);
      assert.deepEqual([status, body.status, body.metadata.stop_reason], [200, 'partial', 'max_tokens']);
      await intact(body.output);
      await books(lax, { ...PAID, calls: 2 });
    });
  }

  test('JSON that is cut is no partial result, even with allow_partial', async () => {
    stack.claude.script = wrote('{"a": [1, 2', { stop_reason: 'max_tokens' });
    const hired = await hire({ output_type: 'json' }, { sla: { allow_partial: true } });
    refused(await seeker.buy(hired, INPUT), 502, 'OUTPUT_TRUNCATED');
    await books(hired, { calls: 1, state: 'SIGNED' });
  });
});

describe('files', () => {
  const CONTENT = '0123456789';
  async function file(text = CONTENT, before = 0n) {
    stack.claude.script = wrote(text);
    const hired = await hire({}, { capability: 'report' });
    const { body } = await seeker.buy(hired, INPUT);
    await books(hired, { paid: (before + 1n) * HAIKU_PRICE, state: 'COMPLETED' });
    return { hired, url: body.output.url, checksum: body.output.checksum };
  }
  const get = async (url, headers = {}, method = 'GET') => {
    const response = await fetch(url, { method, headers });
    return { status: response.status, headers: response.headers, text: await response.text() };
  };

  test('a link needs no other credentials; the file is served as an attachment, never as a page of our origin', async () => {
    const { url, checksum } = await file('<script>alert(1)</script>');
    const got = await get(url);
    assert.deepEqual([got.status, got.text], [200, '<script>alert(1)</script>']);
    const header = (name) => got.headers.get(name);
    assert.equal(header('content-type'), 'text/markdown; charset=utf-8');
    assert.equal(header('content-disposition'), 'attachment; filename="report.md"');
    assert.equal(header('x-content-type-options'), 'nosniff');
    assert.match(header('content-security-policy'), /sandbox/);
    assert.equal(header('content-length'), '25');
    assert.equal(header('accept-ranges'), 'bytes');
    assert.ok(header('etag').includes(checksum.replace('sha256:', '')));
    const head = await get(url, {}, 'HEAD');
    assert.deepEqual([head.status, head.text, head.headers.get('content-length'), head.headers.get('etag')], [200, '', '25', header('etag')]);
  });

  test('ranges', async () => {
    const { url } = await file();
    for (const [range, status, text, contentRange] of [
      ['bytes=2-4', 206, '234', 'bytes 2-4/10'],
      ['bytes=7-', 206, '789', 'bytes 7-9/10'],
      ['bytes=7-400', 206, '789', 'bytes 7-9/10'],
      ['bytes=-3', 206, '789', 'bytes 7-9/10'],
      ['bytes=10-', 416, '', 'bytes */10'],
      ['bytes=-0', 416, '', 'bytes */10'],
      ['lines=1-2', 200, CONTENT, null],
    ]) {
      const got = await get(url, { range });
      assert.deepEqual([got.status, got.text, got.headers.get('content-range')], [status, text, contentRange], range);
    }
    const { headers } = await get(url);
    assert.equal((await get(url, { range: 'bytes=2-4', 'if-range': headers.get('etag') })).status, 206);
    assert.equal((await get(url, { range: 'bytes=2-4', 'if-range': '"another"' })).status, 200);
  });

  test('If-None-Match with its tag, in a list, as a weak one, or with *: 304', async () => {
    const { url } = await file();
    const tag = (await get(url)).headers.get('etag');
    for (const header of [tag, `"another", ${tag}`, `W/${tag}`, '*']) {
      const got = await get(url, { 'if-none-match': header });
      assert.deepEqual([got.status, got.text, got.headers.get('etag')], [304, '', tag], header);
    }
    assert.equal((await get(url, { 'if-none-match': '"another"' })).status, 200);
  });

  test('a link that was changed in any part: 403 LINK_INVALID', async () => {
    const { url } = await file();
    const other = await file('another', 1n);
    const good = new URL(url);
    const changed = {
      expires: (u) => u.searchParams.set('expires', String(Number(u.searchParams.get('expires')) + 1)),
      sha256: (u) => u.searchParams.set('sha256', 'a'.repeat(64)),
      signature: (u) => u.searchParams.set('signature', u.searchParams.get('signature').replace(/^./, (c) => (c === 'A' ? 'B' : 'A'))),
      'no signature': (u) => u.searchParams.delete('signature'),
      'no query': (u) => { u.search = ''; },
      "another's path": (u) => { u.pathname = new URL(other.url).pathname; },
      'another number': (u) => { u.pathname = u.pathname.replace('/0/', '/1/'); },
    };
    for (const [name, change] of Object.entries(changed)) {
      const bad = new URL(good);
      change(bad);
      const got = await get(bad);
      assert.deepEqual([got.status, JSON.parse(got.text).error.code], [403, 'LINK_INVALID'], name);
    }
    assert.equal((await get(good)).text, CONTENT);
  });

  test('an expired link: 403', async () => {
    const { url } = await file();
    const good = new URL(url);
    const key = good.pathname.replace('/files/', '');
    const derived = createHmac('sha256', Buffer.from(VAULT_KEYS.replace('k1:', ''), 'base64')).update('coinslot links').digest();
    const sign = (expires) => createHmac('sha256', derived).update(`file\n${key}\n${expires}\n${good.searchParams.get('sha256')}`).digest('base64url');
    const expires = Number(good.searchParams.get('expires'));
    assert.equal(sign(expires), good.searchParams.get('signature'), 'links are signed in another way by now');
    assert.ok(expires > Date.now() / 1000 + 23 * 3600 && expires < Date.now() / 1000 + 25 * 3600);
    const old = new URL(good);
    old.searchParams.set('expires', String(Math.floor(Date.now() / 1000) - 1));
    old.searchParams.set('signature', sign(old.searchParams.get('expires')));
    assert.deepEqual([(await get(old)).status], [403]);
  });

  test('a stored file that was altered is not served: FILE_DAMAGED', async () => {
    const { url } = await file();
    const key = new URL(url).pathname.replace('/files/', '');
    const bucket = await stack.mf.getR2Bucket('FILES', 'coinslot');
    assert.equal(await (await bucket.get(key)).text(), CONTENT);
    await bucket.put(key, '0123456780', { httpMetadata: { contentType: 'text/html' } });
    for (const headers of [{}, { range: 'bytes=0-3' }, { 'if-none-match': `"${new URL(url).searchParams.get('sha256')}"` }]) {
      const got = await get(url, headers);
      assert.equal(JSON.parse(got.text).error.code, 'FILE_DAMAGED');
      assert.ok(got.status >= 500 && !got.text.includes('012'));
    }
    await bucket.delete(key);
    assert.equal((await get(url)).status, 404);
  });

  test('a file of a run that was not settled is no deliverable', async () => {
    stack.claude.script = wrote(CONTENT);
    stack.facilitator.onSettle = () => ({ success: false, errorReason: 'insufficient_funds', transaction: '', network: 'eip155:84532', payer: account.address });
    const hired = await hire({}, { capability: 'report' });
    const answer = await seeker.buy(hired, INPUT);
    refused(answer, 402, 'SETTLEMENT_REJECTED');
    assert.ok(!JSON.stringify(answer.body).includes('/files/'));
    await books(hired, { calls: 1, state: 'SIGNED' });
  });
});

describe('streams', () => {
  const slowly = (more) => () => [start(), open(), delta('one'), () => more.opened, delta(' two'), shut(), end(), stop];

  test('the URL comes with the 202; events come while Claude still writes, after the settlement; Last-Event-ID goes on', async () => {
    const more = gate();
    stack.claude.script = slowly(more);
    const hired = await hire({ output_type: 'stream' });
    const answer = await seeker.buy(hired, INPUT);
    assert.deepEqual([answer.status, answer.body.status], [202, 'pending']);
    assert.deepEqual(answer.body.output, { type: 'stream', url: `${stack.url}/stream/${answer.body.task_id}`, format: 'sse' });
    const response = await fetch(answer.body.output.url);
    assert.match(response.headers.get('content-type'), /^text\/event-stream/);
    const events = sse(response);
    const first = (await events.next()).value;
    assert.deepEqual([first.type, first.content], ['text', 'one']);
    assert.equal(stack.claude.requests[0].endedAt, undefined);
    assert.equal(WHOLE - (await stack.balance(account)), HAIKU_PRICE, 'text is out, and not paid');
    await books(hired, { ...PAID, state: 'EXECUTING' });
    more.open();
    assert.deepEqual(((e) => [e.type, e.content])((await events.next()).value), ['text', ' two']);
    const done = (await events.next()).value;
    assert.equal(done.type, 'done');
    assert.equal((await events.next()).done, true);

    const resumed = await readSse(await fetch(answer.body.output.url, { headers: { 'last-event-id': first.id } }));
    assert.deepEqual([resumed.text, resumed.done.run], [' two', done.run]);
    assert.equal((await fetch(answer.body.output.url, { headers: { 'last-event-id': done.id } })).status, 204);
    const report = await ended(answer.body.task_id, hired.id);
    assert.deepEqual([report.body.status, report.body.output.type, report.body.output.url], ['completed', 'stream', answer.body.output.url]);
    assert.equal(report.body.output.checksum, sha256('one two'));
    await books(hired, PAID);
    assert.equal((await fetch(`${stack.url}/stream/task_${'0'.repeat(32)}_${'0'.repeat(32)}`)).status, 404);
  });

  test('paid, and given up: the report says that it is marked for refund, and the contract is DISPUTED', async () => {
    await stack.restart({ LIMITS: JSON.stringify({ paidAttempts: 1 }) });
    stack.claude.script = () => [start(), open(), delta('one'), 400];
    const hired = await hire({ output_type: 'stream' });
    const answer = await seeker.buy(hired, INPUT);
    const report = await ended(answer.body.task_id, hired.id);
    assert.deepEqual([report.body.status, report.body.error.code, report.body.refund.charged], ['failed', 'RUN_REFUNDABLE', true]);
    await books(hired, { paid: HAIKU_PRICE, calls: 1, state: 'DISPUTED' });
    refused(await seeker.execute(hired.id, { topic: 'another' }), 409, 'CONTRACT_INPUT_DIFFERS');
    await books(hired, { paid: HAIKU_PRICE, calls: 1, state: 'DISPUTED' });
    await stack.restart();
  });

  test('a text is not shown before it is settled, and is shown in full afterwards', async () => {
    const [more, settled] = [gate(), gate()];
    stack.claude.script = slowly(more);
    stack.facilitator.onSettle = async (call, next) => (await settled.opened, next());
    const hired = await hire();
    const { body: { task_id } } = await seeker.buy(hired, INPUT, ASYNC);
    const following = fetch(`${stack.url}/stream/${task_id}`);
    more.open();
    await until(settles);
    assert.equal(await Promise.race([following, sleep(500)]), undefined, 'there is something to read before it is paid');
    assert.equal((await seeker.task(task_id, hired.id)).body.output, undefined);
    await books(hired, { calls: 1, state: 'EXECUTING' });
    settled.open();
    const { text, done } = await readSse(await following);
    assert.deepEqual([text, Boolean(done)], ['one two', true]);
    await books(hired, PAID);
  });
});

// The last suite, for it restarts the stack without the bucket.
describe('without a bucket', () => {
  test('it is missing when the file is to be stored: failed, not charged; with it again: delivered with the same payment', async () => {
    gated();
    const hired = await hire({}, { capability: 'report' });
    const { body: { task_id } } = await seeker.buy(hired, INPUT, ASYNC);
    await until(asked);
    stack.claude.script = hello;
    await stack.restart({}, { without: ['FILES'] });
    const report = await ended(task_id, hired.id, 40_000);
    assert.deepEqual([report.body.status, report.body.error.code, report.body.error.charged], ['failed', 'FILE_STORE_UNAVAILABLE', false]);
    await books(hired, { state: 'SIGNED' });
    await stack.restart();
    const done = await seeker.execute(hired.id, INPUT);
    assert.equal(done.body.status, 'completed', JSON.stringify(done.body));
    assert.equal((await intact(done.body.output)).toString(), TEXT);
    await books(hired, { paid: HAIKU_PRICE, state: 'COMPLETED' });
  });

  test('contracts that ask for files are refused by name; one that was signed before is not charged; text is delivered', async () => {
    const before = await hire({}, { capability: 'report' });
    const proposal = await seeker.propose(draft(agents.ada, account, { task: { output_type: 'file' } }));
    const signed = await countersign(proposal.body.contract, account);
    const payment = await seeker.pay(before.id, INPUT, account);
    await stack.restart({}, { without: ['FILES'] });
    for (const answer of [await seeker.propose(draft(agents.ada, account, { task: { output_type: 'multiple' } })), await seeker.register(signed)]) {
      refused(answer, 422, 'OUTPUT_NOT_OFFERED');
      assert.equal(answer.body.error.details.field, 'task.output_type');
    }
    for (const headers of [{}, payment]) {
      const answer = await seeker.execute(before.id, INPUT, headers);
      assert.ok(answer.status === 503 && answer.body.status === 'failed', JSON.stringify(answer.body));
    }
    await books(before, { calls: 0, state: 'SIGNED' });
    const text = await hire();
    assert.equal((await seeker.buy(text, INPUT)).body.output.content, TEXT);
    await books(text, PAID);
  });
});
