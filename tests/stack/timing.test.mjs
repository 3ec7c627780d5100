// When things happen, in proportion to what Claude, the facilitator and the chain take themselves. The bounds are wide,
// and medians of several runs, so that a busy machine does not fail them; docs/performance.md has the figures.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { delta, end, open, say, shut, start, stop } from '../support/claude.mjs';
import { asked, payer, payerStack, settles, stack } from '../support/file_stack.mjs';
import { HAIKU, INPUT, gate, readSse, sleep, sse, until } from '../support/stack.mjs';

payerStack({
  vars: { LIMITS: JSON.stringify({ cacheSeconds: 60, outstandingPerPayer: 10 }) },
  prepare: () => stack.addTemplate('early', { prompt: 'early {topic}{/topic}', parameters: [{ name: 'topic', required: true }], release: 'verified' }),
});

const ROUNDS = 5;
const median = (numbers) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];
/** The median of what `measure` gives, in milliseconds. */
async function medianOf(measure) {
  const all = [];
  while (all.length < ROUNDS) all.push(await measure(all.length + 1));
  return median(all);
}
const buy = async (path = HAIKU) => {
  const headers = await stack.signPayment(path, INPUT, payer);
  const at = Date.now();
  return { at, response: await stack.post(path, INPUT, headers) };
};
const slowly = (ms) => async (call, next) => { await sleep(ms); return next(); };

describe('the first text', () => {
  const [VERIFY, SETTLE, CLAUDE] = [200, 600, 400];
  const speaks = () => [CLAUDE, ...say('Hello', ', ', 'world')];
  const firstText = async (path) => {
    const { at, response } = await buy(path);
    const events = sse(response);
    const { value } = await events.next();
    await events.return();
    return value.at - at;
  };

  test('comes after verify, Claude and settle, and after nothing else', async () => {
    Object.assign(stack.facilitator, { onVerify: slowly(VERIFY), onSettle: slowly(SETTLE) });
    stack.claude.script = speaks;
    const took = await medianOf(() => firstText());
    const least = VERIFY + CLAUDE + SETTLE;
    assert.ok(took >= least - 20 && took < 1.4 * least, `${took} ms, of which ${least} are theirs`);
  });

  test('of a template that shows it early does not wait for settle', async () => {
    Object.assign(stack.facilitator, { onVerify: slowly(VERIFY), onSettle: slowly(3000) });
    stack.claude.script = speaks;
    const took = await medianOf(() => firstText('/@ada/early'));
    const least = VERIFY + CLAUDE;
    assert.ok(took >= least - 20 && took < 2 * least, `${took} ms, of which ${least} are theirs`);
  });

  test('need not be there for settle to begin: that text will come is enough', async () => {
    const waited = await medianOf(async () => {
      const asked_ = settles();
      let begunAt;
      stack.claude.script = () => [start(), open(), async () => { begunAt = Date.now(); await until(() => settles() > asked_, { every: 2 }); }, delta('Hello'), shut(), end(), stop];
      assert.equal((await readSse((await buy()).response)).text, 'Hello');
      return stack.facilitator.calls.findLast(({ kind }) => kind === 'settle').at - begunAt;
    });
    // Where Claude thinks first, the wait is 250 ms.
    assert.ok(waited < 150, `settle was asked ${waited} ms after the text's block had begun`);
  });
});

test('a stream ends when Claude ends', async () => {
  const pieces = Array.from({ length: 100 }, (_, i) => `word ${i} `);
  stack.claude.script = () => say(...pieces, { every: 10 });
  const late = await medianOf(async (n) => {
    const { response } = await buy();
    const { events, done } = await readSse(response);
    assert.ok(done);
    assert.equal(events.length, pieces.length + 1);
    const { at, endedAt } = stack.claude.requests[n - 1];
    return (events.at(-1).at - endedAt) / (endedAt - at);
  });
  assert.ok(late < 0.25, `the end came later than Claude's by ${Math.round(100 * late)}% of what Claude took`);
});

test('of 40 streams of one wallet at once none is starved', async () => {
  const STREAMS = 40;
  const more = gate();
  const pieces = Array.from({ length: 50 }, (_, i) => ` ${i}`);
  stack.claude.script = () => [start(), open(), delta('first'), () => more.opened, ...pieces.flatMap((piece) => [20, delta(piece)]), shut(), end(), stop];
  const streams = [];
  // Eight of a wallet's runs may be unpaid at once: each of these is paid before the next begins.
  while (streams.length < STREAMS) {
    const events = sse((await buy()).response);
    assert.equal((await events.next()).value.content, 'first');
    streams.push(events);
  }
  assert.deepEqual([asked(), settles()], [STREAMS, STREAMS]);
  const begun = Date.now();
  more.open();
  const ends = await Promise.all(streams.map(async (events) => {
    let [text, last] = ['first', undefined];
    for await (const event of events) { text += event.content ?? ''; last = event; }
    assert.deepEqual([text, last.type], [`first${pieces.join('')}`, 'done']);
    return last.at - begun;
  }));
  assert.ok(Math.max(...ends) < 2 * median(ends), `median ${median(ends)} ms, the last ${Math.max(...ends)} ms`);
});
