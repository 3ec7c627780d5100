// What a million runs cost at Cloudflare's published prices, beyond what a plan includes.
import { markdown } from './tables.mjs';

/** US dollars for a million of each, Workers Paid. docs/performance.md names the pages and the day. */
const PRICES = {
  requests: 0.3, // requests of callers
  cpuMs: 0.02, // milliseconds of CPU in the Worker
  objectRequests: 0.15, // requests to objects, calls by RPC, and alarms
  gbSeconds: 12.5, // how long an object is busy, with 128 MB
  objectRowsWritten: 1, // an alarm that is set is a row, and so is each index entry
  objectRowsRead: 0.001,
  kvReads: 0.5,
  d1RowsWritten: 1,
  d1RowsRead: 0.001,
};

/** How long a run keeps its object busy, in seconds: verify, Claude and settle. An answer of 300 tokens takes about that. */
const SECONDS = 5;
const GIB_OF_OBJECT = 0.128;

/**
 * Counts per good run of a known wallet, caches warm. The ledger's own are measured. Those of objects cannot be seen from
 * outside: they are what the code does. `undefined` is not known yet, and is left out of the sum.
 */
const COUNTS = {
  // A call of the wallet, one of the ledger (tests/stack/costs.test.mjs). Rows: the run and its two index entries, its text
  // twice, two updates, an index entry for its expiry, an alarm for each 20 seconds; and what is deleted a day later.
  ours: { requests: 1, objectRequests: 2, objectRowsWritten: 14, objectRowsRead: 6, kvReads: 0, d1RowsRead: 0 },
  plain: { requests: 1, objectRequests: 0, objectRowsWritten: 0, objectRowsRead: 0, kvReads: 0, d1RowsRead: 0, noObject: true },
  // A call of the wallet, one of the ledger. Rows: the run and its index, its update; in the ledger's object the row and its
  // index, and both deleted.
  objects: { requests: 1, objectRequests: 2, objectRowsWritten: 7, objectRowsRead: 2, kvReads: 0, d1RowsRead: 0 },
  hono: { requests: 1, objectRequests: 0, objectRowsWritten: 0, objectRowsRead: 0, kvReads: 1, d1RowsRead: 2, noObject: true },
};

const NAMES = {
  requests: 'requests',
  cpuMs: 'CPU, ms',
  objectRequests: 'requests to objects',
  gbSeconds: `duration of objects, GB-s (${SECONDS} s a run, none at the same time)`,
  objectRowsWritten: 'rows written by objects',
  objectRowsRead: 'rows read by objects',
  kvReads: 'KV reads',
  d1RowsWritten: 'rows written in D1',
  d1RowsRead: 'rows read in D1',
};

function countsOf(name, result) {
  const { noObject, ...counts } = COUNTS[name];
  return {
    ...counts,
    cpuMs: result.cpu?.hundred[name],
    gbSeconds: noObject ? 0 : SECONDS * GIB_OF_OBJECT,
    d1RowsWritten: result.ledger?.rowsWritten,
  };
}

/** What the ledger is for D1, as sentences: they are part of docs/performance.md. */
export function ledgerText({ ledger, throughput }) {
  if (!ledger) return 'Not measured yet.';
  const { bytes, rowsWritten, ms } = ledger;
  const days = (10e9 / bytes / 1e9) * 30;
  const parts = [
    `A row of the ledger takes ${bytes.toFixed(0)} bytes with its indexes, counts as ${rowsWritten} rows written, and takes ${ms.toFixed(2)} ms in a batch, in the simulator:`,
    `10 GB are full after ${(10e9 / bytes / 1e6).toFixed(0)} million runs, which is ${(days * 24).toFixed(0)} hours at 10⁹ a month, and 1,500 runs a second keep a database busy for ${(150 * ms).toFixed(0)}% of the time.`,
  ];
  if (throughput?.one.ours) parts.push(`One wallet's object has sustained ${throughput.one.ours.toFixed(0)} runs a second here, with everything else on the same two cores.`);
  return parts.join(' ');
}

/** The table of counts and dollars, in Markdown. */
export function costs(result) {
  const names = result.names.filter((name) => COUNTS[name]);
  const counts = Object.fromEntries(names.map((name) => [name, countsOf(name, result)]));
  const dollars = (name, item) => counts[name][item] * PRICES[item];
  const digits = (n) => (n >= 100 ? n.toFixed(0) : String(Number(n.toFixed(2))));
  const cell = (name, item) => (counts[name][item] === undefined ? 'not counted' : `${digits(counts[name][item])} · $${dollars(name, item).toFixed(2)}`);
  const rows = Object.keys(NAMES).map((item) => [NAMES[item], `$${PRICES[item]}`, ...names.map((name) => cell(name, item))]);
  const sum = (name) => Object.keys(NAMES).reduce((total, item) => total + (Number.isFinite(dollars(name, item)) ? dollars(name, item) : 0), 0);
  const incomplete = (name) => Object.keys(NAMES).some((item) => counts[name][item] === undefined);
  const total = names.map((name) => `**${incomplete(name) ? 'at least ' : ''}$${sum(name).toFixed(2)}**`);
  return markdown({ head: ['a run has', 'a million', ...names], rows: [...rows, ['a million runs cost', '', ...total]] });
}
