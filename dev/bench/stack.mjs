// The contenders, each in a workerd of its own: how a bundle is made, started, seeded and read.
import { subscribe } from 'node:diagnostics_channel';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { randomBytes, webcrypto } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { networksVar } from '../chain.mjs';
import { creators, fakeClaudeKey, hireVar, migrationsSql, ownerToken, seedSql, storeClaudeKey } from '../seed.mjs';
import { HOST, PATH, call, readTerms, sleep } from './client.mjs';

const require = createRequire(import.meta.url);
process.env.WRANGLER_LOG ??= 'error';
const wrangler = require('wrangler');
const { Miniflare, Log, LogLevel, convertV4MiniflareOptions } = createRequire(require.resolve('wrangler/package.json'))('miniflare');

const root = fileURLToPath(new URL('../../', import.meta.url));
const JWT_SECRET = 'a secret of the benchmark, known to nobody else';
const ada = creators.find(({ handle }) => handle === 'ada');
/** The template whose text is shown before it is settled. Only ours knows the difference. */
export const EARLY = '/@ada/early';

// Payments are signed ahead of a whole section, so they must stay valid for it.
const LIMITS = { maxTimeoutSeconds: 3600, outstandingPerPayer: 10_000 };
// What keeps one wallet from having very many unpaid runs. The benchmark's wallets are honest, and many runs at once.
const CAPS = { unpaidPerWallet: 1000, unpaidPerWalletDay: 100_000 };
const configDocument = (stubs, limits) => ({
  revision: 'bench',
  facilitators: [{ url: stubs.url }],
  networks: JSON.parse(networksVar(undefined)),
  anthropic: { baseUrl: stubs.url },
  limits,
});

/** Starts Claude and the facilitator. `plan(…)` says how they answer from now on. */
export async function startStubs() {
  const child = fork(fileURLToPath(new URL('stubs.mjs', import.meta.url)), { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const [{ url }] = await once(child, 'message');
  let last = 0;
  return {
    url,
    async plan(next = {}) {
      const id = ++last;
      child.send({ id, ...next });
      await once(child, 'message');
    },
    close: () => child.disconnect(),
  };
}

// Miniflare does not say which process its runtime is; node says which processes it starts.
const started = [];
subscribe('child_process', ({ process: child }) => void started.push(child));
const runtimes = () => started.filter(({ spawnfile }) => spawnfile && basename(spawnfile) === 'workerd');

const wasm = (path) => ({ type: 'CompiledWasm', path, contents: readFileSync(`${root}build/bench/${path}`) });
const script = (path, contents) => ({ type: 'ESModule', path, contents });

async function bundle(name) {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL(`workers/${name}.mjs`, import.meta.url))],
    bundle: true,
    minify: true,
    write: false,
    format: 'esm',
    target: 'es2024',
    conditions: ['workerd', 'worker', 'browser'],
    mainFields: ['browser', 'module', 'main'],
    external: ['cloudflare:*', 'node:*'],
    alias: { url: 'node:url' },
    logLevel: 'error',
  });
  return [script('index.js', outputFiles[0].text)];
}

const objects = { WALLETS: { className: 'Wallet', useSQLite: true }, LEDGER: { className: 'Ledger', useSQLite: true } };

/** The contenders by name: what they are made of. Ours is what dev/build.sh has put into build/bench. */
export const contenders = {
  ours: { modules: async () => [script('index.js', readFileSync(`${root}build/bench/index.js`, 'utf8')), wasm('index_bg.wasm')] },
  plain: { modules: () => bundle('plain'), options: () => ({ durableObjects: {} }) },
  objects: { modules: () => bundle('objects'), options: () => ({ durableObjects: objects }) },
  hono: {
    modules: () => bundle('hono'),
    options: ({ compatibilityFlags }) => ({ durableObjects: {}, compatibilityFlags: [...compatibilityFlags, 'nodejs_compat'] }),
  },
};

/** Bytes of a contender's modules, gzipped as Cloudflare counts them. */
export async function bundleSize(name) {
  const modules = await contenders[name].modules();
  return modules.reduce((sum, { contents }) => sum + gzipSync(contents, { level: 9 }).length, 0);
}

/** Starts one contender in a workerd of its own, seeded, and warm by `warm` (a number of unpaid calls). */
export async function start(name, stubs, { warm = 20 } = {}) {
  const folder = mkdtempSync(join(tmpdir(), `coinslot-bench-${name}-`));
  const logs = [];
  const vault = randomBytes(32);
  const { workerOptions } = wrangler.unstable_getMiniflareWorkerOptions(`${root}wrangler.toml`);
  const modules = await contenders[name].modules();
  const vars = {
    VAULT_KEYS: `k1:${vault.toString('base64')}`,
    JWT_SECRET,
    HIRE: hireVar,
    // Before the config document is there.
    FACILITATOR_URL: stubs.url,
    ANTHROPIC_BASE_URL: stubs.url,
  };
  const before = runtimes().length;
  const begun = performance.now();
  const mf = new Miniflare(
    convertV4MiniflareOptions({
      log: new Log(LogLevel.NONE),
      host: '127.0.0.1',
      port: 0,
      cf: false,
      handleStructuredLogs: (line) => void (line.level === 'error' && logs.push(line.message)),
      handleUncaughtError: (error) => void logs.push(String(error?.stack ?? error)),
      resourcePersistencePath: join(folder, 'state'),
      resourceTmpPath: join(folder, 'tmp'),
      workers: [
        {
          ...workerOptions,
          name: 'coinslot',
          modulesRoot: '/',
          modules: modules.map((m) => ({ ...m, path: `/${m.path}` })),
          modulesRules: undefined,
          // All calls come from one address.
          ratelimits: Object.fromEntries(Object.entries(workerOptions.ratelimits ?? {}).map(([k, r]) => [k, { ...r, simple: { ...r.simple, limit: 1e9 } }])),
          bindings: { ...workerOptions.bindings, ...vars },
          ...contenders[name].options?.(workerOptions),
          // Straight to the Worker, and not through Miniflare's own.
          unsafeDirectSockets: [{ host: '127.0.0.1', port: 0 }],
        },
      ],
    }),
  );
  const close = async () => {
    await mf.dispose();
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await mf.ready;
    const url = String(await mf.unsafeGetDirectURL('coinslot')).replace(/\/$/, '').replace('localhost', '127.0.0.1');
    const readyAfter = performance.now() - begun;
    const { pid } = runtimes()[before];
    const machine = { name, url, pid, logs, close, readyAfter, cpu: () => cpuOf(pid), rss: () => rssOf(pid) };
    await seed(machine, await mf.getBindings('coinslot'), stubs, vault);
    machine.ledger = async () => measureLedger((await mf.getBindings('coinslot')).DB);
    machine.beforeFirst = machine.cpu();
    const first = await call(url);
    machine.firstCall = { ms: first.end, cpu: machine.cpu() - machine.beforeFirst };
    if (first.status !== 402) throw new Error(`${name} does not answer 402 but ${first.status} ${first.body}`);
    machine.terms = readTerms(first);
    for (let i = 1; i < warm; i++) await call(url);
    return machine;
  } catch (error) {
    await close();
    throw new Error(`${name}: ${error.message}\n${logs.slice(-5).join('\n')}`);
  }
}

async function seed({ name, url }, { DB, KV }, stubs, vault) {
  const early = `INSERT INTO templates (id, creator_id, slug, name, description, model, prompt, parameters, price, published, max_tokens, release)
    SELECT 'template_ada_early', creator_id, 'early', name, description, model, prompt, parameters, price, 1, max_tokens, 'verified' FROM templates WHERE id = 'template_ada_haiku'`;
  const statements = wrangler.unstable_splitSqlQuery(`${migrationsSql()}\n${seedSql()}\n${early};`);
  await DB.batch(statements.map((statement) => DB.prepare(statement)));
  const key = fakeClaudeKey('ada');
  if (name !== 'ours') {
    await KV.put('config', JSON.stringify(configDocument(stubs, LIMITS)));
    return void (await KV.put(`claude-key/${ada.id}`, JSON.stringify({ envelope: await envelope(vault, ada.id, key), isEnabled: true })));
  }
  await configureOurs(url, KV, stubs);
  await storeClaudeKey(url, await ownerToken(ada.id, JWT_SECRET), key);
}

const COPIES = 500;

/** What one more row of the ledger is for D1: rows that it counts, bytes, and milliseconds in a batch. */
async function measureLedger(DB) {
  const rows = (await DB.prepare('SELECT count(*) AS n FROM runs').first()).n;
  const copy = DB.prepare(`INSERT INTO runs SELECT 'run_' || hex(randomblob(16)), template_id, creator_id, owner_test, payer, network, asset, amount, tx, status,
    code, model, stop_reason, input_tokens, output_tokens, started_at + (random() % 1000000), duration_ms FROM runs WHERE tx IS NOT NULL LIMIT 1`);
  const [{ meta: before }] = await DB.batch([copy]);
  const answers = await DB.batch(Array.from({ length: COPIES }, () => copy));
  const { size_after: size } = answers.at(-1).meta;
  const ms = answers.reduce((sum, { meta }) => sum + meta.duration, 0);
  return { rows, rowsWritten: before.rows_written, bytes: (size - before.size_after) / COPIES, ms: ms / COPIES };
}

let capsAreKnown = true;

/** Not every version of ours knows the wallet's caps, and none takes a document with names that it does not know. */
async function configureOurs(url, KV, stubs) {
  const revision = async () => (await (await fetch(`${url}/healthz`)).json()).config.revision;
  if (capsAreKnown) {
    await KV.put('config', JSON.stringify(configDocument(stubs, { ...LIMITS, ...CAPS })));
    if ((await revision()) === 'bench') return;
    capsAreKnown = false;
  }
  await KV.put('config', JSON.stringify(configDocument(stubs, LIMITS)));
  for (let waited = 0; (await revision()) !== 'bench'; waited += 500) {
    if (waited > 15_000) throw new Error('its config document is invalid');
    await sleep(500);
  }
}

async function envelope(vault, owner, plain) {
  const iv = randomBytes(12);
  const key = await webcrypto.subtle.importKey('raw', vault, 'AES-GCM', false, ['encrypt']);
  const sealed = await webcrypto.subtle.encrypt({ name: 'AES-GCM', iv, additionalData: Buffer.from(owner) }, key, Buffer.from(plain));
  return `v1.k1.${iv.toString('base64url')}.${Buffer.from(sealed).toString('base64url')}`;
}

const TICK = 10; // milliseconds, of USER_HZ

/** Milliseconds of CPU that a process has used. */
function cpuOf(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * TICK;
}

/** Bytes of memory that a process holds. */
const rssOf = (pid) => Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) * 1024;
