// What is measured. Each measure takes the bench and returns `{ name: value }` of the contenders, or one such object for
// each case. Rounds alternate between the contenders, and a value is the median of its rounds.
import { isDeepStrictEqual } from 'node:util';
import { answerOf } from './stubs.mjs';
import { call, inParallel, median, newWallets, quantile, run, signPayments, sleep } from './client.mjs';
import { EARLY, bundleSize, start } from './stack.mjs';

/** After the last run: the ledger's rows are gathered for a second, and what was stored is committed. */
const TRAIL = 1_500;
/** As TRAIL, where objects are left behind: the runtime closes one ten seconds after its last request. */
const CLOSING = 12_000;

/** `rounds` times `work(machine)` for each of the machines in turn, each time beginning with another one. */
async function alternating(machines, rounds, prepare, work) {
  const values = Object.fromEntries(machines.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    const prepared = await prepare();
    for (let i = 0; i < machines.length; i++) {
      const machine = machines[(i + round) % machines.length];
      values[machine.name].push(await work(machine, prepared));
    }
  }
  return values;
}

const medians = (values) => Object.fromEntries(Object.entries(values).map(([name, list]) => [name, median(list)]));

/**
 * CPU of workerd per item of `items(machine)`, in milliseconds. What a contender does after its last answer counts until
 * `trail` later, while the others have their turn.
 */
async function cpuPer(machines, rounds, trail, prepare, work) {
  const values = Object.fromEntries(machines.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    const items = await prepare();
    const windows = [];
    for (let i = 0; i < machines.length; i++) {
      const machine = machines[(i + round) % machines.length];
      windows.push({ machine, before: machine.cpu() });
      await work(machine, items);
      if (trail === TRAIL) await sleep(trail);
    }
    if (trail !== TRAIL) await sleep(trail);
    for (const { machine, before } of windows) values[machine.name].push((machine.cpu() - before) / items.length);
  }
  return { ...medians(values), values };
}

const inTurn = (machine, payments) => inParallel(payments, 1, (payment) => run(machine.url, payment));

export const measures = {
  /** CPU per paid run, Claude's whole answer at once. */
  async cpu({ machines, stubs, sizes, terms, wallets }) {
    await stubs.plan();
    const payments = (from, n = sizes.cpuRuns) => () => signPayments(terms, from ?? newWallets(n), n);
    return {
      one: await cpuPer(machines, sizes.rounds, TRAIL, payments(wallets.slice(0, 1)), inTurn),
      hundred: await cpuPer(machines, sizes.rounds, TRAIL, payments(wallets), inTurn),
      new: await cpuPer(machines, sizes.rounds, CLOSING, payments(undefined), inTurn),
    };
  },

  /** The same with Claude at a pace. Runs that take four seconds go ten at once. */
  async paced({ machines, stubs, sizes, terms, wallets }) {
    const payments = (n) => () => signPayments(terms, wallets, n);
    await stubs.plan({ every: 1 });
    const fast = await cpuPer(machines, sizes.rounds, TRAIL, payments(sizes.pacedRuns), inTurn);
    await stubs.plan({ every: 20 });
    const staggered = (machine, list) =>
      inParallel(list, 10, async (payment, i) => {
        if (i < 10) await sleep(i * 17);
        await run(machine.url, payment);
      });
    const slow = await cpuPer(machines, Math.min(sizes.rounds, 2), TRAIL, payments(sizes.slowRuns), staggered);
    return { '1ms': fast, '20ms': slow };
  },

  /** CPU per unpaid request. */
  async 402({ machines, sizes }) {
    const requests = async () => Array.from({ length: sizes.unpaid });
    const ask = (machine, list) =>
      inParallel(list, 1, async () => {
        const { status } = await call(machine.url);
        if (status !== 402) throw new Error(`${machine.name} does not answer 402 but ${status}`);
      });
    return cpuPer(machines, sizes.rounds, TRAIL, requests, ask);
  },

  /** Runs a second, 32 at once: of 100 wallets, and of one, which is what one object sustains. */
  async throughput({ machines, stubs, sizes, terms, wallets }) {
    await stubs.plan();
    const result = {};
    for (const [pattern, pool] of [['hundred', wallets], ['one', wallets.slice(0, 1)]]) {
      const sign = () => signPayments(terms, pool, sizes.throughputRuns);
      const values = await alternating(machines, sizes.rounds, sign, async ({ url }, payments) => {
        const begun = performance.now();
        await inParallel(payments, 32, (payment) => run(url, payment));
        return payments.length / ((performance.now() - begun) / 1000);
      });
      result[pattern] = { ...medians(values), values };
    }
    return result;
  },

  /** Milliseconds until the first and the last byte, where verify, settle and Claude take their time. */
  async latency({ machines, stubs, sizes, terms }) {
    const plan = { verify: 100, first: 800, settle: 2000, every: 20, deltas: 200 };
    const claudeEnd = plan.verify + plan.first + (plan.deltas - 1) * plan.every;
    await stubs.plan(plan);
    const result = { plan, expected: { settled: plan.verify + plan.first + plan.settle, verified: plan.verify + plan.first, end: claudeEnd } };
    const time = async ({ url }, path) => {
      const payments = await signPayments(terms, newWallets(sizes.latencyRuns), sizes.latencyRuns);
      const answers = await Promise.all(payments.map((payment) => run(url, payment, { path })));
      return { first: median(answers.map((a) => a.first)), end: median(answers.map((a) => a.end)) };
    };
    for (const machine of machines) {
      result[machine.name] = await time(machine);
      if (machine.name === 'ours') result['ours, verified'] = await time(machine, EARLY);
    }
    return result;
  },

  /** One long stream, as fast as it is read. */
  async long({ machines, stubs, sizes, terms, wallets }) {
    await stubs.plan({ deltas: sizes.longDeltas });
    const values = await alternating(machines, sizes.rounds, () => signPayments(terms, wallets, 1), async (machine, [payment]) => {
      const before = machine.cpu();
      const { end } = await run(machine.url, payment);
      await sleep(TRAIL);
      return { cpu: machine.cpu() - before, duration: end };
    });
    const each = (member) => Object.fromEntries(Object.entries(values).map(([name, list]) => [name, median(list.map((v) => v[member]))]));
    return { cpu: each('cpu'), duration: each('duration') };
  },

  /** Memory after many runs, and after a pause. New processes, for what came before would be counted. */
  async rss({ names, stubs, sizes, terms, wallets }) {
    await stubs.plan();
    const result = {};
    for (const [pattern, pool] of [['many', undefined], ['one', wallets.slice(0, 1)]]) {
      const machines = [];
      for (const name of names) machines.push(await start(name, stubs));
      const payments = await signPayments(terms, pool ?? newWallets(sizes.rssRuns), sizes.rssRuns);
      const values = Object.fromEntries(machines.map((m) => [m.name, { start: m.rss() }]));
      for (const machine of machines) {
        await inParallel(payments, 8, (payment) => run(machine.url, payment));
        values[machine.name].busy = machine.rss();
      }
      await sleep(sizes.idle * 1000);
      for (const machine of machines) {
        values[machine.name].idle = machine.rss();
        await machine.close();
      }
      result[pattern] = values;
    }
    return result;
  },

  /** Many streams at once, all beginning within a second, Claude at 100 deltas a second each: when they end. */
  async streams({ names, stubs, sizes, terms, wallets }) {
    const result = { ideal: 199 * 10 };
    for (const [pattern, count] of [['fifty', 50], ['one', 1]]) {
      result[pattern] = {};
      const payments = await signPayments(terms, wallets.slice(0, count), sizes.streams);
      for (const name of names) {
        const machine = await start(name, stubs);
        await stubs.plan();
        const warm = await signPayments(terms, wallets, 100);
        await inParallel(warm, 4, (payment) => run(machine.url, payment));
        await stubs.plan({ every: 10 });
        const before = machine.cpu();
        const answers = await Promise.all(
          payments.map(async (payment, i) => {
            await sleep((i * 1000) / payments.length);
            return run(machine.url, payment).catch((error) => ({ error: error.message }));
          }),
        );
        const ends = answers.filter((a) => !a.error).map((a) => a.end);
        const failed = answers.filter((a) => a.error).map((a) => a.error);
        const at = (q) => (ends.length ? quantile(ends, q) : null);
        const first = answers.filter((a) => !a.error).map((a) => a.first);
        result[pattern][name] = { median: at(0.5), p99: at(0.99), worst: at(1), firstWorst: first.length ? Math.max(...first) : null, cpu: (machine.cpu() - before) / payments.length, failed: failed.length, failure: failed[0] };
        await machine.close();
      }
    }
    await stubs.plan();
    return result;
  },

  /** Size of the bundle, and what the first request of a new process takes. */
  async start({ names, stubs, sizes }) {
    const result = { size: {}, firstMs: {}, firstCpu: {}, readyMs: {} };
    const values = Object.fromEntries(names.map((name) => [name, []]));
    for (let round = 0; round < sizes.starts; round++) {
      for (const name of names) {
        const machine = await start(name, stubs, { warm: 1 });
        values[name].push({ ...machine.firstCall, ready: machine.readyAfter });
        await machine.close();
      }
    }
    for (const name of names) {
      result.size[name] = await bundleSize(name);
      result.firstMs[name] = median(values[name].map(({ ms }) => ms));
      result.firstCpu[name] = median(values[name].map(({ cpu }) => cpu));
      result.readyMs[name] = median(values[name].map(({ ready }) => ready));
    }
    return result;
  },
};

/** Before anything is measured: every contender sells the same answer, and the runtime has compiled what it will use. */
export async function checkAndWarm({ machines, stubs, sizes, terms, wallets }) {
  await stubs.plan();
  for (const machine of machines) {
    if (!isDeepStrictEqual(machine.terms.accepts, terms.accepts)) {
      throw new Error(`${machine.name} asks for other terms: ${JSON.stringify(machine.terms.accepts)}`);
    }
    const payments = await signPayments(terms, wallets, sizes.warm + 1);
    const { body } = await run(machine.url, payments.pop(), { keep: 'all' });
    if (textOf(body) !== answerOf(200)) throw new Error(`${machine.name} sends another text: ${textOf(body).slice(0, 200)}`);
    await inParallel(payments, 4, (payment) => run(machine.url, payment));
  }
}

/** The text of a stream, in our events or in Anthropic's. */
function textOf(body) {
  const events = body.split('\n').filter((line) => line.startsWith('data: ')).map((line) => JSON.parse(line.slice(6)));
  return events.map((event) => (event.type === 'text' ? event.content : (event.delta?.text ?? ''))).join('');
}
