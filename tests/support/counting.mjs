// A bundle that counts what the Worker asks of the runtime, where wasm calls JavaScript: statements, commits, queries,
// hops, fetches, and all crossings. `await counts(stack)` gives the counts since the last time.
const ENTRY = `
import './count.js';
import Worker from './index.js';
import { WorkerEntrypoint } from 'cloudflare:workers';
export { WalletObject, LedgerObject } from './index.js';
export default class extends WorkerEntrypoint {
  fetch(request) {
    if (new URL(request.url).pathname !== '/__counts') return new Worker(this.ctx, this.env).fetch(request);
    const counts = globalThis.__counts;
    globalThis.__counts = {};
    return Response.json(counts);
  }
}`;

const COUNT = `
globalThis.__counts = {};
const count = (what, n = 1) => { globalThis.__counts[what] = (globalThis.__counts[what] ?? 0) + n; };
const kind = (object) => object?.constructor?.name;

// The runtime commits what was written in one turn of the event loop together.
const turns = new WeakSet();
function wrote(storage) {
  if (turns.has(storage)) return;
  turns.add(storage);
  count('commits');
  setTimeout(() => turns.delete(storage), 0);
}

const seen = {
  exec(sql, _pointer, _length, _array, cursor) {
    count('statements');
    count('rowsRead', cursor.rowsRead);
    if (cursor.rowsWritten > 0) { count('writes'); count('rowsWritten', cursor.rowsWritten); wrote(sql); }
  },
  setAlarm() { count('alarms'); },
  fetch(target) { count(kind(target) === 'DurableObject' || kind(target) === 'Fetcher' ? 'hops' : 'fetches'); },
  first() { count('queries'); },
  all() { count('queries'); },
  run() { count('queries'); },
  batch() { count('queries'); },
  call(method, object) { if (kind(object) === 'KvNamespace' && String(method?.name).startsWith('get')) count('kvReads'); },
  setTimeout() { count('timers'); },
};

const Instance = WebAssembly.Instance;
WebAssembly.Instance = function (module, imports) {
  // Copies, because the functions of a module cannot be replaced.
  imports = Object.fromEntries(Object.entries(imports).map(([name, functions]) => [name, { ...functions }]));
  for (const functions of Object.values(imports)) {
    for (const [name, real] of Object.entries(functions)) {
      if (typeof real !== 'function' || real.prototype instanceof Error) continue;
      const look = seen[/^__wbg_([A-Za-z]+)_[0-9a-f]{16}$/.exec(name)?.[1]];
      functions[name] = function (...args) {
        count('crossings');
        const result = real.apply(this, args);
        look?.(...args, result);
        return result;
      };
    }
  }
  return new Instance(module, imports);
};
`;

/** The modules of a bundle, counting. */
export const counted = (bundle) => [
  { type: 'ESModule', path: 'counted.js', contents: ENTRY },
  { type: 'ESModule', path: 'count.js', contents: COUNT },
  ...bundle,
];

const KINDS = { statements: 0, writes: 0, rowsWritten: 0, rowsRead: 0, commits: 0, alarms: 0, hops: 0, fetches: 0, queries: 0, kvReads: 0, timers: 0, crossings: 0 };

/** The counts since the last call. */
export const counts = async (stack) => ({ ...KINDS, ...(await (await fetch(`${stack.url}/__counts`)).json()) });
