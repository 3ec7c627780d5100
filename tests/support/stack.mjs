// The whole system for one test file: a chain, a facilitator that settles on it, a scripted Claude, and
// the Worker in the real runtime. Everything on loopback, on free ports, in a folder of its own.
//
// The Worker is the bundle of dev/build.sh with the options of wrangler.toml, run by the Miniflare that
// wrangler brings. Not by wrangler's createTestHarness: that one sends every outgoing call through this
// process's `fetch`, where a refused connection becomes an answer and an abort is lost. Here the calls
// leave from workerd itself, as in production.
import { execFile } from 'node:child_process';
import { subscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import http from 'node:http';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { createHash, randomBytes } from 'node:crypto';
import { decodePaymentRequiredHeader, decodePaymentResponseHeader } from '@x402/core/http';
import { ExactEvmScheme } from '@x402/evm/exact/client';
import { wrapFetchWithPayment, x402Client } from '@x402/fetch';
import { generatePrivateKey, privateKeyToAccount } from 'viem/accounts';
import { CHAIN_ID, NETWORK, TRANSFER, USDC, networksVar, startChain } from '../../dev/chain.mjs';
import { startFacilitator } from '../../dev/facilitator.mjs';
import { creators, fakeClaudeKey, hireVar, migrationsSql, ownerToken, resourceOf, seedSql, storeSigningKey, templates } from '../../dev/seed.mjs';
import { startClaude } from './claude.mjs';
import { counted } from './counting.mjs';

const require = createRequire(import.meta.url);
/** The id that a run has in the ledger. */
export const ledgerId = (run) => createHash('sha256').update(run).digest('hex');

process.env.WRANGLER_LOG ??= 'error'; // it would say that it has read .dev.vars
const wrangler = require('wrangler');
const { Miniflare, Log, LogLevel, convertV4MiniflareOptions } = createRequire(require.resolve('wrangler/package.json'))('miniflare');

export const root = fileURLToPath(new URL('../../', import.meta.url));
export { CHAIN_ID, NETWORK, USDC };

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export const JWT_SECRET = 'a secret of the tests, known to nobody else';
/** `id:base64` of a fresh master key. */
export const vaultKey = (id) => `${id}:${randomBytes(32).toString('base64')}`;

export const ada = creators.find(({ handle }) => handle === 'ada');
export const grace = creators.find(({ handle }) => handle === 'grace');
export const HAIKU = '/@ada/haiku';
export const HAIKU_PRICE = 10_000n;
export const INPUT = { topic: 'a coin' };
export const DRAFT = resourceOf(templates.find((t) => !t.published));
export const DRAFT_INPUT = { commits: 'fix the slot', product: 'coinslot' };

/** A promise that the test settles: `gate.open()`; as a step of Claude's script: `() => gate.opened`. */
export function gate() {
  let open;
  const opened = new Promise((resolve) => (open = resolve));
  return { open, opened };
}

/** Waits until `look` gives something truthy, and gives that. */
export async function until(look, { timeout = 5000, every = 25, what = String(look) } = {}) {
  const end = Date.now() + timeout;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) throw new Error(`not within ${timeout} ms: ${what}`);
    await sleep(every);
  }
}

/** The events of an SSE body, each with `id` and `at`, the moment its last byte was here. */
export async function* sse(response) {
  let rest = '';
  for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
    const at = Date.now();
    const blocks = (rest + text).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      const field = (name) => block.split('\n').filter((l) => l.startsWith(`${name}:`)).map((l) => l.slice(name.length + 1).replace(/^ /, ''));
      if (field('data').length) yield { id: field('id')[0], at, ...JSON.parse(field('data').join('\n')) };
    }
  }
  if (rest) throw new Error(`the body ends inside an event: ${rest}`);
}

/** A whole SSE body: `{ events, text, done, error }`. */
export async function readSse(response) {
  const events = [];
  for await (const event of sse(response)) events.push(event);
  return {
    events,
    text: events.filter((e) => e.type === 'text').map((e) => e.content).join(''),
    done: events.find((e) => e.type === 'done'),
    error: events.find((e) => e.type === 'error'),
  };
}

export const decodeTerms = (response) => decodePaymentRequiredHeader(response.headers.get('payment-required'));
export const decodeReceipt = (response, name = 'payment-response') => {
  const header = response.headers.get(name);
  return header === null ? undefined : decodePaymentResponseHeader(header);
};
export const encodeHeader = (value) => Buffer.from(JSON.stringify(value)).toString('base64');
export const decodeHeader = (text) => JSON.parse(Buffer.from(text, 'base64'));

/** The vars' NETWORKS, with a node of the local chain to ask for evidence; without an argument, with none. */
export const networks = networksVar;

/** An EIP-3009 authorization for an offer (v1's or v2's), signed. `overrides` are of its own fields. */
async function authorize(account, offer, overrides = {}) {
  const now = Math.floor(Date.now() / 1000);
  const authorization = {
    from: account.address,
    to: offer.payTo,
    value: offer.amount ?? offer.maxAmountRequired,
    validAfter: String(now - 600),
    validBefore: String(now + offer.maxTimeoutSeconds),
    nonce: `0x${randomBytes(32).toString('hex')}`,
    ...overrides,
  };
  const domain = { name: offer.extra.name, version: offer.extra.version, chainId: CHAIN_ID, verifyingContract: offer.asset };
  const message = { ...authorization, value: BigInt(authorization.value), validAfter: BigInt(authorization.validAfter), validBefore: BigInt(authorization.validBefore) };
  const signature = await account.signTypedData({ domain, types: TRANSFER, primaryType: 'TransferWithAuthorization', message });
  return { signature, authorization };
}

// Tests change D1 and KV directly, and expect to see that at once.
const withLimits = (bindings) => ({ ...bindings, LIMITS: JSON.stringify({ cacheSeconds: 0, ...JSON.parse(bindings.LIMITS ?? '{}') }) });
const uncached = (document) => (document.limits ? { ...document, limits: { cacheSeconds: 0, ...document.limits } } : document);

async function build() {
  try {
    await promisify(execFile)('sh', ['dev/build.sh'], { cwd: root, env: { COINSLOT_PROFILE: 'development', ...process.env } });
  } catch (error) {
    throw new Error(`the worker does not build:\n${error.stdout}${error.stderr}`);
  }
  return [
    { type: 'ESModule', path: 'index.js', contents: readFileSync(`${root}build/index.js`, 'utf8') },
    { type: 'CompiledWasm', path: 'index_bg.wasm', contents: readFileSync(`${root}build/index_bg.wasm`) },
  ];
}

// Miniflare does not say which process its runtime is; node says which processes it starts.
const started = [];
subscribe('child_process', ({ process: child }) => void started.push(child));
const isRunning = (child) => child.pid !== undefined && child.exitCode === null && child.signalCode === null;
const runtimes = () => started.filter((child) => isRunning(child) && basename(child.spawnfile) === 'workerd');

/**
 * Starts everything.
 *  `script`     what Claude answers (tests/support/claude.mjs)
 *  `config`     the document in KV; left out, there is none
 *  `vars`       of the Worker, over those of wrangler.toml and of this stack. Unless `LIMITS` says otherwise, nothing is
 *               cached: tests change templates and keys directly
 *  `blockTime`  seconds, or `'auto'`: a block for each transaction
 *  `modules`    another bundle than build/
 *  `rateLimit`  `{ limit, period }` of requests without a valid payment; left out, there is no limit
 *  `counting`   true: tests/support/counting.mjs counts what the Worker asks of the runtime
 *  `elsewhere`  true: another front Worker with the same storage and the same objects, at `stack.elsewhere`
 */
export async function startStack({ script, config, vars = {}, blockTime = 'auto', modules, rateLimit, elsewhere = false, counting = false } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'coinslot-stack-'));
  const closers = [() => rmSync(folder, { recursive: true, force: true })];
  const close = async () => {
    // Whatever fails to close must not keep the rest open.
    const failures = [];
    for (const end of closers.splice(0).reverse()) await Promise.resolve().then(end).catch((e) => failures.push(e));
    if (failures.length) throw failures[0];
  };
  try {
    const built = modules ?? (await build());
    const bundle = counting ? counted(built) : built;
    const [chain, claude] = await Promise.all([startChain({ blockTime }), startClaude(script)]);
    closers.push(() => chain.close(), () => claude.close());
    const facilitator = await startFacilitator({ rpcUrl: chain.url });
    closers.push(() => facilitator.close());

    const logs = [];
    let [killed, revived] = [0, 0];
    const base = { VAULT_KEYS: vaultKey('k1'), JWT_SECRET, FACILITATOR_URL: facilitator.url, ANTHROPIC_BASE_URL: claude.url, NETWORKS: networks(chain.url), HIRE: hireVar };
    const { workerOptions } = wrangler.unstable_getMiniflareWorkerOptions(`${root}wrangler.toml`);
    const worker = (more, without) => ({
      ...workerOptions,
      ratelimits: rateLimit ? { RATE_LIMIT: { namespace_id: '1', simple: rateLimit } } : {},
      kvNamespaces: without.includes('KV') ? {} : workerOptions.kvNamespaces,
      r2Buckets: without.includes('FILES') ? {} : workerOptions.r2Buckets,
      name: 'coinslot',
      modulesRoot: '/',
      modules: bundle.map((m) => ({ ...m, path: `/${m.path}` })),
      modulesRules: undefined,
      bindings: withLimits({ ...workerOptions.bindings, ...base, ...vars, ...more }),
    });
    // As in another place of the edge: its own isolate, whose objects live in the first one's namespaces.
    const another = (first) => ({
      ...first,
      name: 'elsewhere',
      durableObjects: Object.fromEntries(Object.entries(first.durableObjects).map(([name, object]) => [name, { ...object, scriptName: first.name }])),
      unsafeDirectSockets: [{ host: '127.0.0.1', port: 0 }],
    });
    const options = (more, without = []) =>
      convertV4MiniflareOptions({
        log: new Log(LogLevel.NONE),
        host: '127.0.0.1',
        port: 0,
        cf: false,
        unsafeHandleRuntimeRestart: () => void (revived += 1),
        handleStructuredLogs: (line) => void logs.push(line),
        handleUncaughtError: (error) => void logs.push({ level: 'uncaught', message: String(error?.stack ?? error), timestamp: Date.now() }),
        resourcePersistencePath: join(folder, 'state'),
        resourceTmpPath: join(folder, 'tmp'),
        workers: elsewhere ? [worker(more, without), another(worker(more, without))] : [worker(more, without)],
      });
    const mf = new Miniflare(options({}));
    closers.push(() => mf.dispose());
    const stack = {
      chain,
      claude,
      facilitator,
      mf,
      logs,
      folder,
      state: join(folder, 'state'),
      close,
    };
    const plain = (url) => String(url).replace(/\/$/, '').replace('localhost', '127.0.0.1');
    const bind = async () => Object.assign(stack, await mf.getBindings('coinslot')); // DB, KV, FILES
    const locate = async () => {
      stack.url = plain(await mf.ready);
      if (elsewhere) stack.elsewhere = plain(await mf.unsafeGetDirectURL('elsewhere'));
      await bind();
    };
    await locate();

    const statements = wrangler.unstable_splitSqlQuery(`${migrationsSql()}\n${seedSql()}`);
    await stack.DB.batch(statements.map((s) => stack.DB.prepare(s)));

    Object.assign(stack, {
      /**
       * Another runtime, with other vars, over the same storage. Everything in memory is gone. `without: ['KV', 'FILES']`:
       * those bindings are missing.
       */
      async restart(more = {}, { without } = {}) {
        await mf.setOptions(options(more, without));
        await locate();
      },
      /**
       * kill -9, at this very moment. Miniflare starts another runtime at once, over the same storage and at
       * the same address; `revive` waits for it. For test files with one stack.
       */
      async kill() {
        const [runtime, ...others] = runtimes();
        if (!runtime || others.length) throw new Error(`one runtime is to be killed, and there are ${runtimes().length}`);
        killed += 1;
        runtime.kill('SIGKILL');
        await once(runtime, 'exit');
      },
      async revive() {
        await until(() => revived === killed, { timeout: 20_000, what: 'another runtime' });
        await locate();
      },
      /** The resident memory of the runtime, in bytes. For test files with one stack, on Linux. */
      memory() {
        const [runtime] = runtimes();
        return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${runtime.pid}/status`, 'utf8'))[1]) * 1024;
      },
      /** What the Worker has logged, as one text. */
      log: () => logs.map(({ level, message }) => `${level}: ${message}`).join('\n'),

      // Owners.
      token: (creator = ada, claims = {}, exp) => ownerToken(creator.id, JWT_SECRET, { claims, exp }),
      async storeKey(creator, apiKey = fakeClaudeKey(creator.handle), query = '') {
        return fetch(`${stack.url}/integrations/claude/config${query}`, {
          method: 'PUT',
          headers: { authorization: `Bearer ${await stack.token(creator)}`, 'content-type': 'application/json' },
          body: JSON.stringify({ apiKey }),
        });
      },
      /** Adds or replaces templates' columns. `changeTemplate('template_ada_haiku', { price: '0.02' })` */
      async changeTemplate(id, columns) {
        const set = Object.keys(columns).map((name, i) => `${name} = ?${i + 2}`).join(', ');
        await stack.DB.prepare(`UPDATE templates SET ${set} WHERE id = ?1`).bind(id, ...Object.values(columns)).run();
      },
      /** A published template of ada's: its path. */
      async addTemplate(slug, { prompt, parameters = [], price = '0.01', published = 1, creator = ada, allow_user_message = 0, model = templates[0].model, release = 'settled' }) {
        await stack.DB.prepare(
          'INSERT INTO templates (id, creator_id, slug, name, model, prompt, parameters, price, published, allow_user_message, release) VALUES (?1, ?2, ?3, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)',
        )
          .bind(`template_${creator.handle}_${slug}`, creator.id, slug, model, prompt, JSON.stringify(parameters), price, published, allow_user_message, release)
          .run();
        return `/@${creator.handle}/${slug}`;
      },
      /** Puts a document into KV. Seen at once only with `restart()`. */
      setConfig: (document) => stack.KV.put('config', typeof document === 'string' ? document : JSON.stringify(uncached(document))),

      // Payers.
      /** A new wallet with 1 USDC. */
      async payer(atomic = 1_000_000n) {
        const account = privateKeyToAccount(generatePrivateKey());
        if (atomic) await chain.mint(account.address, atomic);
        return account;
      },
      authorize,
      balance: (who) => chain.balanceOf(who.address ?? who),
      post: (path, input, headers = {}, init = {}) =>
        fetch(`${stack.url}${path}`, {
          method: 'POST',
          headers: { 'content-type': 'application/json', ...headers },
          body: typeof input === 'string' || input === undefined ? input : JSON.stringify(input),
          ...init,
        }),
      /**
       * A POST whose caller is to vanish before there is an answer: `await caller.hangUp()`. By a reset: the end of
       * its half of the connection (what `destroy` sends) is no hanging up to workerd, for an answer could still be read.
       */
      caller(path, input, headers = {}) {
        const request = http.request(new URL(path, stack.url), { method: 'POST', agent: false, headers: { 'content-type': 'application/json', ...headers } });
        const closed = new Promise((resolve) => request.once('close', resolve));
        request.on('error', () => {});
        request.end(JSON.stringify(input));
        return { hangUp: () => (request.socket.resetAndDestroy(), closed) };
      },
      async ask402(path, input = INPUT) {
        const response = await stack.post(path, input);
        const text = await response.text();
        if (response.status !== 402) throw new Error(`no 402 from ${path}: ${response.status} ${text}`);
        return { terms: decodeTerms(response), v1: JSON.parse(text), response };
      },
      /** Pays as the official client does. */
      payV2(path, input, headers = {}, account, init = {}) {
        const pay = wrapFetchWithPayment(fetch, new x402Client().register('eip155:*', new ExactEvmScheme(account)));
        return pay(`${stack.url}${path}`, {
          method: 'POST',
          headers: { 'content-type': 'application/json', ...headers },
          body: JSON.stringify(input),
          ...init,
        });
      },
      /**
       * The headers of a v2 payment, to be presented as often as one likes. `authorization` overrides
       * fields before signing; `accepted` fields of the echoed terms; `edit` the finished payload.
       */
      async signPayment(path, input, account, { authorization, accepted = {}, edit = (p) => p } = {}) {
        const { terms } = await stack.ask402(path, input);
        const offer = terms.accepts.find((a) => a.network === NETWORK);
        const payload = await authorize(account, offer, authorization);
        return { 'payment-signature': encodeHeader(edit({ x402Version: 2, resource: terms.resource, accepted: { ...offer, ...accepted }, payload })) };
      },
      /** The header of a v1 payment, made from the 402's body alone. */
      async signPaymentV1(path, input, account, { authorization, edit = (p) => p } = {}) {
        const { v1 } = await stack.ask402(path, input);
        const offer = v1.accepts.find((a) => a.network === 'base-sepolia');
        const payload = await authorize(account, offer, authorization);
        return { 'x-payment': encodeHeader(edit({ x402Version: 1, scheme: 'exact', network: offer.network, payload })) };
      },
      async payV1(path, input, headers, account) {
        return stack.post(path, input, { ...headers, ...(await stack.signPaymentV1(path, input, account)) });
      },
      /** Runs a template as its owner. */
      async ownerTest(path, input, token, headers = {}) {
        return stack.post(path, input, { 'x-owner-test': 'true', authorization: `Bearer ${token ?? (await stack.token())}`, ...headers });
      },

      // What is stored.
      rows: async (where = '1', ...values) =>
        (await stack.DB.prepare(`SELECT * FROM runs WHERE ${where} ORDER BY started_at`).bind(...values).all()).results,
      /** The ledger's row of a run, once it is there. */
      row: (run, ready = () => true) =>
        until(async () => (await stack.rows('id = ?', ledgerId(run))).find(ready), { what: `a ledger row of ${run}` }),
      template: async (id) => (await stack.DB.prepare('SELECT * FROM templates WHERE id = ?').bind(id).first()),
      earnings: async (id) => (await stack.DB.prepare('SELECT * FROM earnings WHERE template_id = ?').bind(id).all()).results,
      objects: () => mf.listDurableObjectIds('WalletObject', 'coinslot'),
      /** Ends objects as the runtime does when it needs the room: storage stays, memory goes. */
      async evict(ids) {
        for (const id of ids ?? (await stack.objects())) {
          await mf.unsafeEvictDurableObject('coinslot', 'WalletObject', { id }).catch((error) => {
            if (!error.message.includes('not currently running')) throw error;
          });
        }
      },
      /** Every file of the runtime's storage: `[{ path, bytes }]`. */
      files: () =>
        existsSync(stack.state)
          ? readdirSync(stack.state, { recursive: true, withFileTypes: true })
              .filter((f) => f.isFile())
              .map((f) => ({ path: join(f.parentPath, f.name), bytes: readFileSync(join(f.parentPath, f.name)) }))
          : [],
      /** Claude and facilitator as on the first day. */
      reset(nextScript) {
        claude.reset();
        facilitator.reset();
        facilitator.onVerify = undefined;
        facilitator.onSettle = undefined;
        if (nextScript) claude.script = nextScript;
      },
    });
    if (config) await stack.setConfig(config);
    for (const creator of creators) {
      const stored = await stack.storeKey(creator);
      if (!stored.ok) throw new Error(`storing a key: ${stored.status} ${await stored.text()}`);
      await storeSigningKey(stack.url, await stack.token(creator), creator.privateKey);
    }
    return stack;
  } catch (error) {
    await close().catch(() => {});
    throw error;
  }
}
