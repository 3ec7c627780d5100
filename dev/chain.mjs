// A real chain on this machine: anvil posing as Base Sepolia, with USDC at the address where default
// x402 clients look for it.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { once } from 'node:events';
import { createPublicClient, createWalletClient, defineChain, http, parseAbi } from 'viem';

const require = createRequire(import.meta.url);
const root = new URL('../', import.meta.url);

export const CHAIN_ID = 84532;
export const NETWORK = `eip155:${CHAIN_ID}`;
export const USDC = '0x036CbD53842c5426634e7929541eC2318f3dCF7e';

/** What a payer signs (EIP-712, EIP-3009). */
export const TRANSFER = {
  TransferWithAuthorization: [
    { name: 'from', type: 'address' },
    { name: 'to', type: 'address' },
    { name: 'value', type: 'uint256' },
    { name: 'validAfter', type: 'uint256' },
    { name: 'validBefore', type: 'uint256' },
    { name: 'nonce', type: 'bytes32' },
  ],
};

/** The Worker's `NETWORKS` for a chain at `rpcUrl`, in the form they have in the config document. */
export const networksVar = (rpcUrl) =>
  JSON.stringify([
    { id: 'eip155:8453', v1: 'base', asset: '0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913', decimals: 6, eip712: { name: 'USD Coin', version: '2' } },
    { id: NETWORK, v1: 'base-sepolia', asset: USDC, decimals: 6, eip712: { name: 'USDC', version: '2' }, rpcUrl },
  ]);
const MULTICALL3 = '0xcA11bde05977b3631167028862bE2a173976CA11';

const abi = parseAbi([
  'function mint(address to, uint256 amount)',
  'function balanceOf(address account) view returns (uint256)',
  'function authorizationState(address authorizer, bytes32 nonce) view returns (bool)',
]);

/** viem's description of the chain; only what our clients need, so that `viem/chains` stays unloaded. */
export const describe = (url) =>
  defineChain({
    id: CHAIN_ID,
    name: 'Base Sepolia (local)',
    nativeCurrency: { name: 'Ether', symbol: 'ETH', decimals: 18 },
    rpcUrls: { default: { http: [url] } },
  });

/** Reads a chain that is already running: `{ client, balanceOf, receipt, nonceUsed }`. */
export function connectChain(url) {
  const client = createPublicClient({ chain: describe(url), transport: http(url), pollingInterval: 50, cacheTime: 0 });
  const read = (functionName, args, block) => client.readContract({ address: USDC, abi, functionName, args, ...block });
  return {
    url,
    client,
    /** USDC in atomic units (bigint), now or at `{ blockNumber }`. */
    balanceOf: (address, block) => read('balanceOf', [address], block),
    /** Whether an EIP-3009 nonce of `payer` is spent. */
    nonceUsed: (payer, nonce) => read('authorizationState', [payer, nonce]),
    /** The receipt of a transaction; waits for it to be mined. */
    receipt: (hash, { timeout = 15_000 } = {}) => client.waitForTransactionReceipt({ hash, timeout }),
  };
}

/**
 * Starts anvil and places the token.
 * `blockTime`: seconds between blocks, or `'auto'`: a block for each transaction at once (and one every
 * five seconds, because an idle chain's clock stands still and v1 payments look "not yet valid").
 */
export async function startChain({ port = 0, blockTime = 2 } = {}) {
  const [usdc, multicall] = await creationCode();
  const mining = blockTime === 'auto' ? ['--mixed-mining', '--block-time', '5'] : ['--block-time', String(blockTime)];
  const child = spawn(
    anvilBinary(),
    ['--host', '127.0.0.1', '--port', String(port), '--chain-id', String(CHAIN_ID), '--accounts', '1', '--no-console-log', ...mining],
    // Its own process group: Ctrl-C in the terminal reaches us, and we decide the order of stopping.
    { stdio: ['ignore', 'pipe', 'pipe'], detached: true },
  );
  const exited = once(child, 'exit').then(([code, signal]) => signal ?? code, (error) => error.message);
  tie(child);

  let closing;
  const close = () => (closing ??= (child.kill('SIGTERM'), later(2000, () => child.kill('SIGKILL')), exited));

  try {
    const url = `http://${await listening(child, exited)}`;
    const chain = connectChain(url);
    const rpc = (method, ...params) => chain.client.request({ method, params });
    // A call without a recipient runs a constructor and returns the code it would leave: immutables
    // filled in, no transaction, no block.
    const place = async (address, data) => rpc('anvil_setCode', address, await rpc('eth_call', { data }, 'latest'));
    await Promise.all([place(USDC, usdc), place(MULTICALL3, multicall)]);
    await rpc('evm_mine');

    const [banker] = await rpc('eth_accounts');
    const wallet = createWalletClient({ account: banker, chain: describe(url), transport: http(url) });
    const mine = () => rpc('evm_mine');
    return {
      ...chain,
      rpc,
      chainId: CHAIN_ID,
      network: NETWORK,
      asset: USDC,
      pid: child.pid,
      /** Resolves, with the code or signal, when anvil is gone for whatever reason. */
      exited,
      /** Mines one block now. */
      mine,
      /** Gives `address` USDC by a real, immediately mined transaction. */
      async mint(address, atomic) {
        const hash = await wallet.writeContract({ address: USDC, abi, functionName: 'mint', args: [address, BigInt(atomic)] });
        await mine();
        return chain.receipt(hash);
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/**
 * Ends `child`'s process group when we are gone, even by SIGKILL: a shell waits for the end of a pipe
 * that only we hold open. `child` must have been started `detached`.
 */
export function tie(child) {
  if (!child.pid) return; // it did not start; its 'error' event tells
  const guard = spawn('/bin/sh', ['-c', 'read _; kill -9 "-$0" 2>/dev/null', String(child.pid)], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  guard.unref();
  guard.stdin.unref();
  guard.stdin.on('error', () => {});
  // Its number may be another's by the time we end.
  child.once('exit', () => guard.kill('SIGKILL'));
}

function later(ms, f) {
  setTimeout(f, ms).unref();
}

async function listening(child, exited) {
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8');
  return new Promise((resolve, reject) => {
    const read = (text) => {
      if (output === null) return; // keep draining, or anvil stops on a full pipe
      output += text;
      const match = output.match(/Listening on (127\.0\.0\.1:\d+)/);
      if (match) {
        output = null;
        resolve(match[1]);
      }
    };
    child.stdout.on('data', read);
    child.stderr.on('data', read);
    exited.then((why) => reject(new Error(`anvil did not start (${why}): ${(output ?? '').trim().slice(-500)}`)));
  });
}

// The package's own launcher adds a process that does not pass SIGKILL on; run the binary itself.
function anvilBinary() {
  const arch = { x64: 'amd64' }[process.arch] ?? process.arch;
  const launcher = require.resolve('@foundry-rs/anvil/package.json');
  return createRequire(launcher).resolve(`@foundry-rs/anvil-${process.platform}-${arch}/bin/anvil`);
}

/** Creation code of Usdc.sol's contracts, compiled once for each version of source and tools. */
async function creationCode() {
  const source = readFileSync(new URL('Usdc.sol', import.meta.url), 'utf8');
  const version = (name) => require(`${name}/package.json`).version;
  const key = createHash('sha256')
    .update([source, version('solc'), version('@openzeppelin/contracts')].join('\0'))
    .digest('hex')
    .slice(0, 16);
  const cached = new URL(`.tools/usdc-${key}.json`, root);
  if (existsSync(cached)) return JSON.parse(readFileSync(cached, 'utf8'));

  const { default: solc } = await import('solc');
  const input = {
    language: 'Solidity',
    sources: { 'Usdc.sol': { content: source } },
    settings: { optimizer: { enabled: true }, evmVersion: 'cancun', outputSelection: { 'Usdc.sol': { '*': ['evm.bytecode.object'] } } },
  };
  const open = (path) => ({ contents: readFileSync(require.resolve(path), 'utf8') });
  const output = JSON.parse(solc.compile(JSON.stringify(input), { import: open }));
  const errors = (output.errors ?? []).filter((e) => e.severity === 'error');
  if (errors.length) throw new Error(errors.map((e) => e.formattedMessage).join('\n'));
  const contracts = output.contracts['Usdc.sol'];
  const code = ['Usdc', 'Multicall'].map((name) => `0x${contracts[name].evm.bytecode.object}`);
  mkdirSync(new URL('.tools/', root), { recursive: true });
  // Renamed into place, because tests start chains in several processes at once.
  const draft = new URL(`.tools/usdc-${key}.${process.pid}`, root);
  writeFileSync(draft, JSON.stringify(code));
  renameSync(draft, cached);
  return code;
}
