// The reference x402 facilitator (@x402/core, @x402/evm) behind HTTP, settling on a local chain for
// real. Tests may step in front of each call.
import http from 'node:http';
import { x402Facilitator } from '@x402/core/facilitator';
import { toFacilitatorEvmSigner } from '@x402/evm';
import { ExactEvmScheme } from '@x402/evm/exact/facilitator';
import { ExactEvmSchemeV1 } from '@x402/evm/exact/v1/facilitator';
import { createWalletClient, http as transport, publicActions, toHex } from 'viem';
import { generatePrivateKey, privateKeyToAccount } from 'viem/accounts';
import { NETWORK, describe } from './chain.mjs';

/** An interceptor returns this to break the connection without an answer. */
export const drop = Symbol('drop');

class Reply {
  constructor(status, body, headers) {
    Object.assign(this, { status, body, headers });
  }
}
/** An interceptor returns this to answer with a status of its own; a string body is sent as it is. */
export const reply = (status, body, headers = {}) => new Reply(status, body, headers);

/**
 * Interceptors are `async (call, next) => answer`. `next()` asks the real facilitator. The answer is
 * nothing (do the real thing), an object (sent as 200 JSON), `reply(status, body)` or `drop`; a
 * `drop` after `await next()` is a settlement whose answer was lost. They may be replaced at any time
 * on the returned object.
 */
export async function startFacilitator({ rpcUrl, port = 0, onVerify, onSettle, confirmationTimeoutMs = 60_000 }) {
  const account = privateKeyToAccount(generatePrivateKey());
  const client = createWalletClient({ account, chain: describe(rpcUrl), transport: transport(rpcUrl), pollingInterval: 50, cacheTime: 0 })
    .extend(publicActions);
  await client.request({ method: 'anvil_setBalance', params: [account.address, toHex(10n ** 21n)] });

  // One transaction is sent at a time, each with the chain's own next nonce. viem's nonceManager also
  // keeps overlapping settlements apart, but it burns a nonce when gas estimation reverts, and every
  // later transaction then waits for ever.
  let turn = Promise.resolve();
  const inTurn = (work) => (turn = turn.then(work, work));
  const send = (method) => (args) =>
    inTurn(async () => client[method]({ ...args, nonce: await client.getTransactionCount({ address: account.address, blockTag: 'pending' }) }));
  const signer = {
    ...toFacilitatorEvmSigner({ ...client, address: account.address }, { confirmationTimeoutMs }),
    writeContract: send('writeContract'),
    sendTransaction: send('sendTransaction'),
  };
  const reference = new x402Facilitator()
    .register(NETWORK, new ExactEvmScheme(signer))
    .registerV1('base-sepolia', new ExactEvmSchemeV1(signer));

  const facilitator = {
    address: account.address,
    onVerify,
    onSettle,
    /** `{ kind, at, ms, headers, body, status, answer, clientGone }`, oldest first. */
    calls: [],
    count: (kind) => facilitator.calls.filter((call) => call.kind === kind).length,
    reset: () => void (facilitator.calls.length = 0),
  };

  async function serve(req, res) {
    const path = req.url.split('?')[0];
    if (req.method === 'GET' && path === '/supported') return send200(res, reference.getSupported());
    const kind = { '/verify': 'verify', '/settle': 'settle' }[path];
    if (!kind || req.method !== 'POST') return answer(res, reply(404, { error: 'not found' }));

    const call = { kind, at: Date.now(), headers: req.headers };
    facilitator.calls.push(call);
    res.on('close', () => {
      call.ms = Date.now() - call.at;
      call.clientGone = !res.writableFinished && call.answer !== drop;
    });
    try {
      call.body = JSON.parse(await text(req));
    } catch {
      return answer(res, reply(400, { error: 'the body is not JSON' }), call);
    }
    const next = async () => {
      const { paymentPayload, paymentRequirements } = call.body;
      if (!paymentPayload || !paymentRequirements) return reply(400, { error: 'paymentPayload and paymentRequirements are required' });
      try {
        return await reference[kind](paymentPayload, paymentRequirements);
      } catch (error) {
        return reply(500, { error: error.message });
      }
    };
    const intercept = kind === 'verify' ? facilitator.onVerify : facilitator.onSettle;
    answer(res, (await intercept?.(call, next)) ?? (await next()), call);
  }

  const server = http.createServer((req, res) => {
    serve(req, res).catch((error) => answer(res, reply(500, { error: error.message })));
  });
  await new Promise((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve));
  facilitator.url = `http://127.0.0.1:${server.address().port}`;
  facilitator.close = () =>
    new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    });
  return facilitator;
}

function send200(res, body) {
  answer(res, reply(200, body));
}

function answer(res, what, call) {
  if (call) call.answer = what instanceof Reply ? what.body : what;
  if (what === drop) return res.destroy();
  const { status, body, headers } = what instanceof Reply ? what : reply(200, what);
  if (call) call.status = status;
  res.writeHead(status, { 'content-type': 'application/json', ...headers });
  res.end(typeof body === 'string' ? body : JSON.stringify(body));
}

async function text(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}
