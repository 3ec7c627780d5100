// `make dev`: the whole system on this machine. A chain, a facilitator that settles on it, Claude (or
// a stand-in), and the Worker under `wrangler dev`, seeded and ready to be paid.
//   node dev/stack.mjs [--port 8787] [--block-time 2] [--config wrangler.toml] [--persist-to .wrangler/state]
// What the Worker logs goes to .dev/worker.log, with LOG=1 to the screen.
// With ANTHROPIC_API_KEY in the environment the seeded creators use that key and the real Claude.
import { spawn } from 'node:child_process';
import { createWriteStream, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { generatePrivateKey, privateKeyToAddress } from 'viem/accounts';
import { networksVar, startChain, tie } from './chain.mjs';
import { startClaude } from './claude.mjs';
import { startFacilitator } from './facilitator.mjs';
import { hireVar, applySeeds, creators, examples, fakeClaudeKey, ownerToken, readDevVars, resourceOf, storeClaudeKey, storeSigningKey, templates } from './seed.mjs';

const root = fileURLToPath(new URL('../', import.meta.url));
const stackFile = `${root}.dev/stack.json`;
const lockFile = `${root}.dev/stack.pid`;
const logFile = '.dev/worker.log';
const logOnScreen = Boolean(process.env.LOG);
let ours = false; // the lock, and with it stack.json
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const { values: options } = parseArgs({
  options: {
    port: { type: 'string', default: '8787' },
    'block-time': { type: 'string', default: '2' },
    config: { type: 'string', default: 'wrangler.toml' },
    'persist-to': { type: 'string', default: '.wrangler/state' },
  },
});

const parts = []; // what runs, in order of starting: { name, close }
let stopping;

/** Stops everything, the last started first, and ends the process. */
function stop(why, code) {
  stopping ??= (async () => {
    console.log(`\n${why}; stopping`);
    if (ours) rmSync(stackFile, { force: true });
    for (const { name, close } of parts.reverse()) {
      await Promise.resolve(close()).catch((error) => console.error(`${name}: ${error.message}`));
    }
    if (ours) rmSync(lockFile, { force: true });
    process.exit(code);
  })();
  return stopping;
}

/** Says what happens, does it, and keeps what came of it for stopping. */
async function step(name, work) {
  const began = performance.now();
  console.log(`· ${name} …`);
  const part = await work();
  if (stopping) {
    await part?.close?.();
    return new Promise(() => {}); // stop() ends the process
  }
  if (part?.close) parts.push({ name, close: part.close });
  part?.exited?.then((how) => stop(`the ${name} has ended by itself (${how})${part.lastWords?.() ?? ''}`, 1));
  console.log(`· ${name}: ${part?.url ?? 'done'} (${((performance.now() - began) / 1000).toFixed(1)} s)`);
  return part;
}

async function freePort(preferred) {
  for (const port of [preferred, 0]) {
    const server = net.createServer().listen(port, '127.0.0.1');
    const free = await once(server, 'listening').then(() => server.address().port, () => undefined);
    server.close();
    if (free) return free;
  }
}

/** `wrangler dev`. Its process group is its own, so that workerd and a build in progress go with it. */
async function startWorker(vars) {
  const port = await freePort(Number(options.port));
  if (port !== Number(options.port)) console.log(`· port ${options.port} is taken, ${port} it is`);
  const args = ['dev', '--config', options.config, '--ip', '127.0.0.1', '--port', String(port), '--inspector-port', String(await freePort(0))];
  args.push('--persist-to', options['persist-to'], '--show-interactive-dev-session=false');
  for (const [name, value] of Object.entries(vars)) args.push('--var', `${name}:${value}`);
  const child = spawn(process.execPath, [`${root}node_modules/wrangler/bin/wrangler.js`, ...args], {
    cwd: root,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { COINSLOT_PROFILE: 'development', ...process.env, WRANGLER_SEND_METRICS: 'false', CLOUDFLARE_CF_FETCH_ENABLED: 'false', NO_COLOR: '1' },
  });
  tie(child);
  const log = logOnScreen ? undefined : createWriteStream(`${root}${logFile}`);
  let end = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => {
      end = (end + text).slice(-4000);
      if (log) log.write(text);
      else process.stdout.write(text.replace(/^(?=.)/gm, '  worker | '));
    });
  }
  const lastLines = () => end.split('\n').filter((line) => !/^(\[custom build\])?\s*$/.test(line)).slice(-30);
  const lastWords = () => (log ? `; the end of ${logFile}:\n${lastLines().join('\n')}` : '');
  const exited = once(child, 'exit').then(([code, signal]) => signal ?? code);
  const signalGroup = (signal) => {
    try {
      process.kill(-child.pid, signal);
      return true;
    } catch {
      return false; // nobody is left
    }
  };
  const close = async () => {
    signalGroup('SIGTERM');
    // The group, not only wrangler: it may die before workerd does.
    for (let waited = 0; signalGroup(0) && waited < 5000; waited += 50) await sleep(50);
    signalGroup('SIGKILL');
  };
  // Known to stop() at once: a first build takes minutes, and Ctrl-C must not wait for it.
  parts.push({ name: 'worker', close });

  const url = `http://127.0.0.1:${port}`;
  let ended;
  exited.then((how) => (ended = how));
  for (;;) {
    if (ended !== undefined && !stopping) throw new Error(`wrangler dev has ended (${ended})${lastWords()}`);
    const healthy = await fetch(`${url}/healthz`, { signal: AbortSignal.timeout(2000) }).then((r) => r.ok, () => false);
    if (healthy) return { url, exited, lastWords };
    await sleep(100);
  }
}

/** Says what came of each edit's build: wrangler lets every request wait until one succeeds. */
function watchBuilds(ready, lastWords) {
  const read = () => {
    try {
      return readFileSync(`${root}build/.stamp`, 'utf8').trim();
    } catch {
      return ''; // being built
    }
  };
  let last = read();
  setInterval(() => {
    const stamp = read();
    if (stamp === '' || stamp === last) return;
    last = stamp;
    const time = new Date().toTimeString().slice(0, 8);
    if (stamp === 'failed') console.log(`· ${time} the build has failed, and requests wait for the next${lastWords()}`);
    else {
      console.log(`· ${time} built`);
      ready();
    }
  }, 300).unref();
}

// Ctrl-C in a terminal reaches make and us alike, and make passes SIGTERM on. A lone SIGINT to make
// does not reach us: make then waits for us for ever, having put SIGINT back to its default, which
// shows in /proc. And when whoever started us is killed, we get another parent.
function watchParent() {
  const parent = process.ppid;
  const status = () => {
    try {
      return readFileSync(`/proc/${parent}/status`, 'utf8');
    } catch {
      return ''; // not Linux
    }
  };
  const catchesInterrupt = () => (parseInt(status().match(/^SigCgt:\s*[0-9a-f]*([0-9a-f])$/m)?.[1] ?? '0', 16) & 2) !== 0;
  const isMake = /^Name:\s*g?make$/m.test(status()) && catchesInterrupt();
  setInterval(() => {
    if (process.ppid !== parent) stop('whoever started this is gone', 1);
    else if (isMake && !catchesInterrupt()) stop('make was interrupted', 130);
  }, 300).unref();
}

/** One stack in a checkout: a second would take the first one's state, ports and stack.json. */
function lock() {
  mkdirSync(`${root}.dev`, { recursive: true });
  for (let tries = 0; tries < 2; tries++) {
    try {
      writeFileSync(lockFile, String(process.pid), { flag: 'wx' });
      return (ours = true);
    } catch {
      const pid = Number(readFileSync(lockFile, 'utf8'));
      let alive = pid > 0;
      try {
        process.kill(pid, 0);
      } catch (error) {
        alive = error.code === 'EPERM';
      }
      if (alive) throw new Error(`a stack is running already in this checkout (process ${pid})`);
      rmSync(lockFile, { force: true }); // its owner was killed
    }
  }
  throw new Error(`cannot take ${lockFile}`);
}

async function main() {
  lock();
  const { JWT_SECRET: secret } = readDevVars(options.config.replace(/[^/]*$/, '.dev.vars').replace(/^(?!\/)/, `${root}`));
  if (!secret) throw new Error('no JWT_SECRET in .dev.vars; run `make setup`');
  const realKey = process.env.ANTHROPIC_API_KEY;
  const blockTime = options['block-time'] === 'auto' ? 'auto' : Number(options['block-time']);

  const payer = generatePrivateKey();
  const [chain, claude] = await Promise.all([
    step('chain', () => startChain({ blockTime })),
    step('Claude', async () => (realKey ? { url: 'https://api.anthropic.com' } : startClaude())),
    step('database', () => applySeeds({ persistTo: options['persist-to'], config: options.config })),
  ]);
  const facilitator = await step('facilitator', () => startFacilitator({ rpcUrl: chain.url }));
  await step('payer with 100 USDC', () => chain.mint(privateKeyToAddress(payer), 100_000_000n).then(() => undefined));
  const worker = await step('worker', () => startWorker({ FACILITATOR_URL: facilitator.url, ANTHROPIC_BASE_URL: claude.url, NETWORKS: networksVar(chain.url), HIRE: hireVar, LIMITS: JSON.stringify({ unpaidPerWallet: 100, unpaidPerWalletDay: 1000, ownerTestsPerDay: 1000 }) }));

  const tokens = await Promise.all(creators.map(({ id }) => ownerToken(id, secret)));
  await step('Claude keys of the creators', async () => {
    for (const [i, { handle }] of creators.entries()) await storeClaudeKey(worker.url, tokens[i], realKey ?? fakeClaudeKey(handle));
  });

  await step('signing keys of the creators', async () => {
    for (const [i, { privateKey }] of creators.entries()) await storeSigningKey(worker.url, tokens[i], privateKey);
  });

  const draft = templates.find((template) => !template.published);
  const [resource, example] = Object.entries(examples)[0];
  mkdirSync(`${root}.dev`, { recursive: true });
  writeFileSync(
    stackFile,
    JSON.stringify(
      {
        worker_url: worker.url,
        facilitator_url: facilitator.url,
        claude_url: claude.url,
        rpc_url: chain.url,
        chain_id: chain.chainId,
        network: chain.network,
        asset: chain.asset,
        payer_private_key: payer,
        creator_address: creators[0].address,
        owner_token: tokens[0],
        other_owner_token: tokens[1],
        resource,
        example_input: example,
        draft_resource: resourceOf(draft),
      },
      null,
      2,
    ),
    { mode: 0o600 },
  );
  if (!logOnScreen) console.log(`· the Worker's log: ${logFile}`);
  const ready = () => console.log(`\nready ${worker.url}\ntry it: make pay`);
  watchBuilds(ready, worker.lastWords);
  ready();
}

process.on('SIGINT', () => stop('interrupted', 130));
process.on('SIGTERM', () => stop('terminated', 143));
process.on('SIGHUP', () => stop('the terminal is gone', 129));
process.on('uncaughtException', (error) => (console.error(error), stop('unexpected error', 1)));
process.stdout.on('error', () => stop('nobody reads any more', 1)); // make dev | head
watchParent();
main().catch((error) => stop(error.message, 1));
