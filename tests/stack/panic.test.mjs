// A panic in one run is that run's trouble alone. The Worker here is built with the cargo feature
// `panic-probe`: a run whose rendered prompt holds PROBE panics where it would ask Claude. All runs of
// a runtime share one wasm instance; without --panic-unwind these tests fail.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { say } from '../support/claude.mjs';
import { HAIKU, HAIKU_PRICE, INPUT, gate, readSse, root, sse, startStack, until } from '../support/stack.mjs';

const PROBE = { topic: '[panic-probe]' };
const SOON = 5000; // milliseconds; a caller of a dead instance would wait for ever

/** Builds the Worker a second time, beside build/ and never into it. */
async function probeBuild() {
  const folder = 'build/probe';
  const env = { COINSLOT_PROFILE: 'development', ...process.env, COINSLOT_FEATURES: 'panic-probe', COINSLOT_BUILD_DIR: folder };
  await promisify(execFile)('sh', ['dev/build.sh'], { cwd: root, env }).catch((error) => {
    throw new Error(`the probe does not build:\n${error.stdout}${error.stderr}`);
  });
  return [
    { type: 'ESModule', path: 'index.js', contents: readFileSync(`${root}${folder}/index.js`, 'utf8') },
    { type: 'CompiledWasm', path: 'index_bg.wasm', contents: readFileSync(`${root}${folder}/index_bg.wasm`) },
  ];
}

// Not in `before`: that counts towards the first test's time, and a first build takes minutes.
const modules = await probeBuild();

let stack;
before(async () => {
  stack = await startStack({ modules });
});
after(() => stack?.close());

/** Claude says one word, then waits for the test, then says the rest. */
function slowly() {
  const { open, opened } = gate();
  const [begin, block, ping, first, ...rest] = say('one', ' two', ' three');
  stack.reset(() => [begin, block, ping, first, () => opened, ...rest]);
  return open;
}

/** A paid run of which the first text is here. */
async function streaming(payer) {
  const response = await stack.payV2(HAIKU, INPUT, {}, payer);
  assert.equal(response.status, 200);
  const events = sse(response);
  const { value } = await events.next();
  assert.equal(value.content, 'one');
  return {
    response,
    async rest() {
      const all = [value];
      for await (const event of events) all.push(event);
      return all;
    },
  };
}

const presentProbe = (headers, payment) =>
  stack.post(HAIKU, PROBE, { ...payment, ...headers }, { signal: AbortSignal.timeout(SOON) });

async function assertFault(response) {
  assert.ok([500, 502].includes(response.status), `status ${response.status}`);
  assert.match(response.headers.get('content-type'), /^application\/json/);
  assert.equal(response.headers.get('payment-response'), null);
  const text = await response.text();
  const { error } = JSON.parse(text);
  assert.match(error.code, /^[A-Z_]+$/);
  assert.ok(error.message);
  assert.doesNotMatch(text, /panic|asked to|\.rs|wasm|RuntimeError/i, 'what went wrong inside stays inside');
}

for (const [name, headers] of [['streamed', {}], ['JSON', { accept: 'application/json' }]]) {
  test(`a run that panics (${name}) costs its caller nothing, and another's stream goes on`, { timeout: 60_000 }, async () => {
    const release = slowly();
    const ann = await stack.payer();
    const bob = await stack.payer();
    const a = await streaming(ann);

    const payment = await stack.signPayment(HAIKU, PROBE, bob);
    await assertFault(await presentProbe(headers, payment));
    assert.match(stack.log(), /panicked at|asked to/, 'the probe has panicked');
    // Presented again it is the same run, in an object that has seen a panic.
    await assertFault(await presentProbe(headers, payment));

    release();
    const events = await a.rest();
    assert.equal(events.filter((e) => e.type === 'text').map((e) => e.content).join(''), 'one two three');
    assert.equal(events.at(-1).type, 'done');
    assert.equal(events.at(-1).receipt.success, true);

    assert.equal(stack.claude.requests.length, 1, 'Claude was asked by A alone');
    assert.equal(stack.facilitator.count('settle'), 1, 'and A alone was charged');
    assert.equal(await stack.balance(bob), 1_000_000n);
    assert.equal(await stack.balance(ann), 1_000_000n - HAIKU_PRICE);
    const rows = await until(async () => {
      const found = await stack.rows('payer IN (?, ?)', ann.address, bob.address);
      return found.length === 3 && found;
    }, { what: 'a row of each run' });
    assert.deepEqual(rows.map((row) => [row.payer, row.amount, row.status]).sort(), [
      [ann.address, String(HAIKU_PRICE), 'delivered'],
      [bob.address, '0', 'failed'],
      [bob.address, '0', 'failed'], // presented again
    ].sort());

    // The instance that panicked still sells.
    stack.reset(() => say('still', ' here'));
    const next = await stack.payV2(HAIKU, INPUT, {}, bob);
    assert.equal(next.status, 200);
    assert.equal((await readSse(next)).text, 'still here');
    assert.equal(await stack.balance(bob), 1_000_000n - HAIKU_PRICE);
  });
}

test('a run that panics leaves the other runs of the same wallet alone, those under way and those that come', { timeout: 60_000 }, async () => {
  const release = slowly();
  const ann = await stack.payer();
  const [a, b] = [await streaming(ann), await streaming(ann)];
  const document = stack.post(HAIKU, INPUT, { accept: 'application/json', ...(await stack.signPayment(HAIKU, INPUT, ann)) });
  await until(() => stack.claude.requests.length === 3);
  const probes = await Promise.all(
    [{}, {}, { accept: 'application/json' }].map(async (headers) => presentProbe(headers, await stack.signPayment(HAIKU, PROBE, ann))),
  );
  for (const probe of probes) await assertFault(probe);

  // One that begins afterwards, in the object that has seen the panics.
  const c = await streaming(ann);
  release();
  for (const run of [a, b, c]) {
    const events = await run.rest();
    assert.equal(events.filter((e) => e.type === 'text').map((e) => e.content).join(''), 'one two three');
    assert.equal(events.at(-1).type, 'done');
  }
  assert.equal((await (await document).json()).output, 'one two three');
  assert.deepEqual([stack.claude.requests.length, stack.facilitator.count('settle')], [4, 4]);
  assert.equal(await stack.balance(ann), 1_000_000n - 4n * HAIKU_PRICE);
  const rows = await until(async () => {
    const found = await stack.rows('payer = ?', ann.address);
    return found.length === 7 && found;
  }, { what: 'a row of each run' });
  assert.deepEqual(rows.map(({ status }) => status).sort(), [...Array(4).fill('delivered'), ...Array(3).fill('failed')]);
});

test('twenty panics at once leave a stream and the runtime alone', { timeout: 60_000 }, async () => {
  const release = slowly();
  const a = await streaming(await stack.payer());
  const token = await stack.token();
  const owner = { 'x-owner-test': 'true', authorization: `Bearer ${token}` };
  const answers = await Promise.all(Array.from({ length: 20 }, () => presentProbe(owner)));
  for (const answer of answers) await assertFault(answer);
  release();
  const events = await a.rest();
  assert.equal(events.at(-1).type, 'done');
  assert.equal(stack.claude.requests.length, 1);
  assert.equal((await fetch(`${stack.url}/healthz`)).status, 200);
});
