// What .dev/bench.json says, as tables and as comparisons with what issue 10 asks for. The terminal and the page show the same.

const number = (value, digits = 2) => {
  if (value === null || value === undefined) return '–';
  return Number.isInteger(value) ? String(value) : value.toFixed(value >= 100 ? 0 : value >= 20 ? 1 : digits);
};
const MIB = 2 ** 20;

/** A line for each thing measured: `[what, unit, { contender: value }]`. */
function lines(result) {
  const { cpu, paced, throughput, latency, long, rss, streams, start } = result;
  const member = (values, name) => Object.fromEntries(Object.entries(values).map(([who, value]) => [who, value?.[name]]));
  const { idle, rssRuns, longDeltas } = result.sizes;
  const mib = (values) => Object.fromEntries(Object.entries(values).map(([who, bytes]) => [who, bytes / MIB]));
  const all = [];
  const add = (what, unit, values) => all.push({ what, unit, values });
  if (cpu) {
    add('CPU per paid run, at once, one wallet', 'ms', cpu.one);
    add('the same, 100 wallets in turn', 'ms', cpu.hundred);
    add('the same, a new wallet each time', 'ms', cpu.new);
  }
  if (paced) {
    add('CPU per paid run, 1 ms a delta', 'ms', paced['1ms']);
    add('the same, 20 ms a delta', 'ms', paced['20ms']);
  }
  if (result[402]) add('CPU per unpaid request (402)', 'ms', result[402]);
  if (throughput) {
    add('runs a second, 32 at once, 100 wallets', '1/s', throughput.hundred);
    add('the same, one wallet', '1/s', throughput.one);
  }
  if (latency) {
    add('first byte', 'ms', member(latency, 'first'));
    add('end', 'ms', member(latency, 'end'));
    const early = latency['ours, verified'];
    if (early) add('first byte, `verified`', 'ms', { ours: early.first });
    if (early) add('end, `verified`', 'ms', { ours: early.end });
  }
  if (long) {
    add(`CPU of one stream of ${longDeltas} deltas`, 'ms', long.cpu);
    add('its duration', 'ms', long.duration);
  }
  if (rss) {
    add('RSS after the start', 'MiB', mib(member(rss.many, 'start')));
    for (const [pattern, what] of [['many', `${rssRuns} runs of ${rssRuns} wallets`], ['one', `${rssRuns} runs of one wallet`]]) {
      add(`RSS after ${what}`, 'MiB', mib(member(rss[pattern], 'busy')));
      add(`the same, idle for ${idle} s`, 'MiB', mib(member(rss[pattern], 'idle')));
    }
  }
  if (streams) {
    for (const [pattern, what] of [['fifty', '50 wallets'], ['one', 'one wallet']]) {
      add(`${result.sizes.streams} streams at once, ${what}: end, median`, 'ms', member(streams[pattern], 'median'));
      add('the same, the worst', 'ms', member(streams[pattern], 'worst'));
      add('the same, refused or broken', '', member(streams[pattern], 'failed'));
      add('the same, CPU per stream', 'ms', member(streams[pattern], 'cpu'));
    }
  }
  if (start) {
    add('bundle, gzipped', 'KiB', Object.fromEntries(Object.entries(start.size).map(([who, bytes]) => [who, bytes / 1024])));
    add('first request of a new process', 'ms', start.firstMs);
    add('its CPU', 'ms', start.firstCpu);
  }
  return all;
}

/** Rows of the main table: what, unit, a column for each contender, and ours as a ratio to plain and to hono. */
export function mainTable(result) {
  const { names } = result;
  const ratio = (values, to) => (values.ours && values[to] ? `${(values.ours / values[to]).toFixed(2)}` : '–');
  const rows = lines(result).map(({ what, unit, values }) => [
    what,
    unit,
    ...names.map((name) => number(values[name])),
    ratio(values, 'plain'),
    ratio(values, 'hono'),
  ]);
  return { head: ['', 'unit', ...names, 'ours/plain', 'ours/hono'], rows };
}

/**
 * What issue 10 asks for, with what was measured: `[what, measured, limit, verdict]`. A comparison whose measure has not
 * been made is left out.
 */
export function comparisons(result) {
  const rows = [];
  const { cpu, paced, throughput, latency, rss, streams } = result;
  const has = (values) => values?.ours !== undefined && values?.ours !== null;
  const atMost = (what, value, limit, digits = 2) => {
    if (!Number.isFinite(value) || !Number.isFinite(limit)) return;
    rows.push([what, number(value, digits), `≤ ${number(limit, digits)}`, value <= limit ? 'within' : 'above']);
  };
  const atLeast = (what, value, limit) => {
    if (!Number.isFinite(value) || !Number.isFinite(limit)) return;
    rows.push([what, number(value), `> ${number(limit)}`, value > limit ? 'within' : 'below']);
  };
  const ratioTo = (what, values, other, limit) => has(values) && atMost(`${what}, of ${other}`, values.ours / values[other], limit);
  for (const [pattern, what] of [['one', 'one wallet'], ['hundred', '100 wallets']]) {
    ratioTo(`CPU per run at once, ${what}`, cpu?.[pattern], 'plain', 1.75);
    ratioTo(`CPU per run at once, ${what}`, cpu?.[pattern], 'hono', 1);
  }
  ratioTo('CPU per run at once, a new wallet each time', cpu?.new, 'hono', 1.5);
  ratioTo('CPU per run, 1 ms a delta', paced?.['1ms'], 'plain', 1.3);
  ratioTo('CPU per 402', result[402], 'plain', 1);
  if (has(throughput?.hundred)) atLeast('runs a second, 32 at once, of hono', throughput.hundred.ours / throughput.hundred.hono, 1);
  if (latency?.ours) {
    const { expected } = latency;
    const over = (what, value, limit) => atMost(`${what}: ms beyond ${limit}`, value - limit, 15, 1);
    over('first byte, settled', latency.ours.first, expected.settled);
    over('first byte, verified', latency['ours, verified'].first, expected.verified);
    over('end, settled', latency.ours.end, expected.end);
    over('end, verified', latency['ours, verified'].end, expected.end);
  }
  for (const [pattern, what] of [['many', 'a wallet each'], ['one', 'one wallet']]) {
    if (rss?.[pattern].ours) atMost(`RSS idle after the runs, ${what}, of plain`, rss[pattern].ours.idle / rss[pattern].plain?.idle, 1.3);
  }
  for (const [pattern, what] of [['fifty', '50 wallets'], ['one', 'one wallet']]) {
    const [ours, plain] = [streams?.[pattern].ours, streams?.[pattern].plain];
    if (!ours || !plain) continue;
    atMost(`streams at once, ${what}: median end, of plain`, ours.median / plain.median, 1);
    atMost(`streams at once, ${what}: worst end, of plain`, ours.worst / plain.worst, 1);
    atMost(`streams at once, ${what}: refused or broken`, ours.failed, 0, 0);
  }
  return { head: ['', 'measured', 'asked for', ''], rows };
}

const widths = ({ head, rows }) => head.map((_, i) => Math.max(...[head, ...rows].map((row) => row[i].length)));

/** A table in plain text. The first column and the last one of words stand left, numbers right. */
function text(table) {
  const wide = widths(table);
  const line = (row) => row.map((cell, i) => (i === 0 ? cell.padEnd(wide[i]) : cell.padStart(wide[i]))).join('  ').trimEnd();
  return [line(table.head), line(wide.map((n) => '-'.repeat(n))), ...table.rows.map(line)].join('\n');
}

export const markdown = ({ head, rows }) =>
  [head, head.map((_, i) => (i === 0 ? '---' : '---:')), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');

export function terminal(result) {
  const { machine, load } = result;
  const parts = [`${machine.cpu}, ${machine.cores} cores, ${machine.kernel}, node ${machine.node}, workerd ${machine.workerd}, storage on ${machine.storage}, commit ${machine.commit}`];
  if (load > 0.7) parts.push(`the machine was busy with other work when this began (load ${load.toFixed(1)}): CPU figures are then up to three times as high`);
  parts.push('', text(mainTable(result)));
  const asked = comparisons(result);
  if (asked.rows.length) parts.push('', text(asked));
  const failed = Object.entries(result.errors ?? {}).filter(([, lines]) => lines.length);
  for (const [name, [line]] of failed) parts.push(`${name} has logged an error: ${line.slice(0, 300)}`);
  const { ideal, ...patterns } = result.streams ?? {};
  for (const values of Object.values(patterns)) {
    for (const [name, { failed, failure }] of Object.entries(values)) if (failed) parts.push(`${failed} streams of ${name} have failed: ${failure.slice(0, 300)}`);
  }
  return parts.join('\n');
}
