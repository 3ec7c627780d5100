// The callers: payments signed ahead, and requests that measure when their first and their last byte came.
import { randomBytes } from 'node:crypto';
import http from 'node:http';
import { generatePrivateKey, privateKeyToAccount } from 'viem/accounts';
import { CHAIN_ID, NETWORK, TRANSFER } from '../chain.mjs';

/** All Workers are called by this name, so that all of them send the same terms. */
export const HOST = 'coinslot.bench';
export const PATH = '/@ada/haiku';
const INPUT = JSON.stringify({ topic: 'a coin' });

export const newWallets = (n) => Array.from({ length: n }, () => privateKeyToAccount(generatePrivateKey()));

/** The v2 headers of `n` payments, made by the wallets in turn. `terms` is what a 402 has said. */
export async function signPayments(terms, wallets, n) {
  const offer = terms.accepts.find((accept) => accept.network === NETWORK);
  const payments = [];
  for (let i = 0; i < n; i++) payments.push(await signPayment(terms, offer, wallets[i % wallets.length]));
  return payments;
}

async function signPayment(terms, offer, wallet) {
  const now = Math.floor(Date.now() / 1000);
  const authorization = {
    from: wallet.address,
    to: offer.payTo,
    value: offer.amount,
    validAfter: String(now - 600),
    validBefore: String(now + offer.maxTimeoutSeconds),
    nonce: `0x${randomBytes(32).toString('hex')}`,
  };
  const domain = { name: offer.extra.name, version: offer.extra.version, chainId: CHAIN_ID, verifyingContract: offer.asset };
  const numbers = { value: BigInt(offer.amount), validAfter: BigInt(authorization.validAfter), validBefore: BigInt(authorization.validBefore) };
  const signature = await wallet.signTypedData({ domain, types: TRANSFER, primaryType: 'TransferWithAuthorization', message: { ...authorization, ...numbers } });
  const payment = { x402Version: 2, resource: terms.resource, accepted: offer, payload: { signature, authorization } };
  return Buffer.from(JSON.stringify(payment)).toString('base64');
}

// One connection for each request that is under way; undici's fetch would cost this process more than workerd.
// workerd closes a connection that is idle for five seconds, and a request may be on its way by then.
const agent = new http.Agent({ keepAlive: true, timeout: 4_000, maxSockets: Infinity, maxFreeSockets: 1024 });

/**
 * One call. It resolves with `{ status, headers, first, end, at, body }`: milliseconds until the first and the last byte
 * of the body, and `body` with what `keep` says, the whole text or its end.
 */
export function call(url, { payment, path = PATH, input = INPUT, keep = 'end' } = {}) {
  return new Promise((resolve, reject) => {
    const begun = performance.now();
    const headers = { host: HOST, 'content-type': 'application/json', 'content-length': Buffer.byteLength(input) };
    if (payment) headers['payment-signature'] = payment;
    const request = http.request(`${url}${path}`, { method: 'POST', agent, headers }, (response) => {
      let [first, body] = [undefined, []];
      response.on('data', (chunk) => {
        first ??= performance.now() - begun;
        if (keep === 'end' && body.length > 3) body.shift();
        body.push(chunk);
      });
      response.on('error', reject);
      response.on('end', () => {
        const now = performance.now();
        resolve({ status: response.statusCode, headers: response.headers, first, end: now - begun, at: now, body: Buffer.concat(body).toString() });
      });
    });
    request.on('error', reject);
    request.end(input);
  });
}

/** One paid run, to its good end. */
export async function run(url, payment, options = {}) {
  const answer = await call(url, { ...options, payment });
  const isWhole = answer.body.includes('{"type":"done"') || answer.body.includes('"message_stop"');
  if (answer.status !== 200 || !isWhole) {
    throw new Error(`a paid run has failed: HTTP ${answer.status} ${answer.body.slice(-500)}`);
  }
  return answer;
}

/** Does `work(item)` for all of them, `width` at once, and returns what came of each. */
export async function inParallel(items, width, work) {
  const results = new Array(items.length);
  let next = 0;
  const worker = async () => {
    while (next < items.length) {
      const i = next++;
      results[i] = await work(items[i], i);
    }
  };
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, worker));
  return results;
}

export const readTerms = (response) => JSON.parse(Buffer.from(response.headers['payment-required'], 'base64'));
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export const median = (values) => quantile(values, 0.5);
export function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * q;
  const below = sorted[Math.floor(at)];
  return below + (sorted[Math.ceil(at)] - below) * (at - Math.floor(at));
}
