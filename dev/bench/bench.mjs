// `make bench`: ours beside hand-written Workers, on workerd, in alternating rounds. CPU is that of the workerd process.
//   make bench                        about 10 minutes on two cores; writes .dev/bench.json and prints tables
//   make bench ARGS="--quick"         about 2 minutes, rougher
//   make bench ARGS="--full"          the sizes that docs/performance.md reports, about half an hour
//   make bench ARGS="--only cpu,402"  some of: cpu paced 402 throughput latency long rss streams start
//   make bench ARGS="--set cpuRuns=50 --contenders ours,plain --write"
// `--write` also writes the tables of docs/performance.md and docs/performance.svg. TMPDIR=/dev/shm keeps storage off the disk.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, statfsSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { checkAndWarm, measures } from './measures.mjs';
import { newWallets } from './client.mjs';
import { terminal } from './tables.mjs';
import { contenders, start, startStubs } from './stack.mjs';

const root = fileURLToPath(new URL('../../', import.meta.url));
const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean' },
    full: { type: 'boolean' },
    write: { type: 'boolean' },
    only: { type: 'string', default: Object.keys(measures).join(',') },
    contenders: { type: 'string', default: Object.keys(contenders).join(',') },
    set: { type: 'string', multiple: true, default: [] },
    out: { type: 'string', default: `${root}.dev/bench.json` },
  },
});

const DEFAULT = {
  rounds: 3,
  warm: 100, // paid runs before the first measure
  cpuRuns: 150,
  pacedRuns: 20, // 200 ms each, one after the other
  slowRuns: 10, // 4 s each, ten at once
  unpaid: 600,
  throughputRuns: 400,
  latencyRuns: 8,
  longDeltas: 20_000,
  rssRuns: 500,
  idle: 20, // seconds
  streams: 500,
  starts: 3,
};
const QUICK = { rounds: 1, warm: 60, cpuRuns: 100, pacedRuns: 10, unpaid: 300, throughputRuns: 200, rssRuns: 200, idle: 12, streams: 200, starts: 1 };
const FULL = { rounds: 5, warm: 300, cpuRuns: 300, pacedRuns: 40, slowRuns: 20, unpaid: 2000, throughputRuns: 1000, latencyRuns: 16, rssRuns: 2000, idle: 60, starts: 5 };

const sizes = { ...DEFAULT, ...(options.quick && QUICK), ...(options.full && FULL) };
for (const [name, value] of options.set.map((pair) => pair.split('='))) {
  if (!(name in sizes)) throw new Error(`there is no setting ${name}; there are ${Object.keys(sizes).join(', ')}`);
  sizes[name] = Number(value);
}
const only = options.only.split(',');
const names = options.contenders.split(',');
for (const name of only) if (!measures[name]) throw new Error(`there is no measure ${name}`);
for (const name of names) if (!contenders[name]) throw new Error(`there is no contender ${name}`);

function describeMachine() {
  const require = createRequire(import.meta.url);
  const version = (name) => require(`${name}/package.json`).version;
  const git = (...args) => execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim();
  // 0x01021994 is tmpfs's magic number in Linux.
  const storage = statfsSync(os.tmpdir()).type === 0x01021994 ? 'memory (tmpfs)' : 'disk';
  return {
    cpu: os.cpus()[0].model,
    cores: os.cpus().length,
    memoryGiB: Math.round(os.totalmem() / 2 ** 30),
    kernel: `${os.type()} ${os.release()}`,
    node: process.version,
    workerd: version('workerd'),
    wrangler: version('wrangler'),
    x402hono: require('../../package.json').devDependencies['@x402/hono'],
    commit: `${git('rev-parse', '--short', 'HEAD')}${git('status', '--porcelain', 'src') ? ', with changes' : ''}`,
    storage,
  };
}

const begun = Date.now();
const result = { at: new Date().toISOString(), machine: describeMachine(), load: os.loadavg()[0], sizes, names };
const stubs = await startStubs();
const machines = [];
try {
  // They live through all measures but those that start their own; while one is called, the others are idle.
  for (const name of names) machines.push(await start(name, stubs));
  const bench = { names, machines, stubs, sizes, terms: machines[0].terms, wallets: newWallets(100) };
  await checkAndWarm(bench);
  for (const name of only) {
    const measureBegun = Date.now();
    result[name] = await measures[name](bench);
    console.error(`${name}: ${((Date.now() - measureBegun) / 1000).toFixed(0)} s`);
  }
  result.ledger = await (machines.find(({ name }) => name !== 'hono') ?? machines[0]).ledger();
  result.errors = Object.fromEntries(machines.map((m) => [m.name, m.logs.filter((line) => !line.startsWith('config: ')).slice(0, 5)]));
} finally {
  for (const machine of machines) await machine.close();
  stubs.close();
}
result.seconds = Math.round((Date.now() - begun) / 1000);

mkdirSync(`${root}.dev`, { recursive: true });
writeFileSync(options.out, `${JSON.stringify(result, null, 1)}\n`);
console.log(terminal(result));
console.log(`\n${result.seconds} s; everything is in ${options.out}`);
if (options.write) {
  const { write } = await import('./report.mjs');
  write(JSON.parse(readFileSync(options.out, 'utf8')));
}
