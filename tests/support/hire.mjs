// A seeker of HIRE/1.0: what an agent that hires ours does, step by step.
import { createHash, randomBytes } from 'node:crypto';
import http from 'node:http';
import { once } from 'node:events';
import { generatePrivateKey, privateKeyToAccount } from 'viem/accounts';
import canonicalize from 'canonicalize';
import { NETWORK, encodeHeader } from './stack.mjs';

export const sha256 = (bytes) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
/** RFC 8785, by another implementation than ours. */
export const canonical = (value) => canonicalize(value);

/** The hash of a contract, by its own text: RFC 8785 without `hash` and `signatures`. */
export function hashOf({ hash, signatures, ...signed }) {
  return sha256(canonical(signed));
}

export const contractId = () => `ctr_${randomBytes(12).toString('hex')}`;

/** What a seeker wants: a draft, with these members in place of the usual ones. */
export function draft(agentId, seeker, { capability = 'haiku', task = {}, terms = {}, sla, party = {}, ...rest } = {}) {
  return {
    parties: { seeker: { agent_id: 'agent_seeker', wallet: seeker.address, ...party }, worker: { agent_id: agentId } },
    task: { capability, description: 'One haiku about a coin', ...task },
    terms: { ...terms },
    ...(sla ? { sla } : {}),
    ...rest,
  };
}

/** Adds the seeker's signature to a proposal's contract. */
export async function countersign(contract, seeker) {
  const signature = await seeker.signMessage({ message: contract.hash });
  return { ...contract, signatures: { ...contract.signatures, seeker: signature } };
}

/** A contract signed by both, of a worker whose key we hold: for whatever the worker itself would not sign. */
export async function signBoth(contract, worker, seeker, { at = new Date().toISOString() } = {}) {
  const { signatures, ...unsigned } = contract;
  const hash = hashOf(unsigned);
  const [byWorker, bySeeker] = await Promise.all([worker, seeker].map((account) => account.signMessage({ message: hash })));
  return { ...unsigned, hash, signatures: { seeker: bySeeker, worker: byWorker, timestamp: at } };
}

/** A server that receives webhooks: `{ url, received: [{ path, headers, body, at }], answer, headers }`. */
export async function startListener() {
  const listener = { received: [], answer: () => 200, headers: {} };
  const server = http.createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    listener.received.push({ path: request.url, headers: request.headers, body, at: Date.now() });
    const status = await listener.answer(listener.received.length, request);
    if (status === undefined) return; // never answered
    response.writeHead(status, listener.headers).end('thank you');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  listener.url = `http://127.0.0.1:${server.address().port}/hook`;
  listener.close = () => (server.closeAllConnections(), new Promise((resolve) => server.close(resolve)));
  return listener;
}

/** What a seeker does at a stack. */
export function seekerOf(stack, agentIds) {
  const json = async (response) => ({ status: response.status, headers: response.headers, body: await response.json().catch(() => undefined) });
  const post = async (path, body, headers = {}) => json(await stack.post(path, body, headers));
  const get = async (path, headers = {}) => json(await fetch(new URL(path, stack.url), { headers }));
  const self = {
    post,
    get,
    propose: (document) => post('/contracts/proposals', document),
    register: (contract) => post('/contracts', contract),
    /** A registered contract: `{ contract, secret }`. */
    async hire(account, options = {}) {
      const proposal = await self.propose(draft(options.agentId ?? agentIds.ada, account, options));
      if (proposal.status !== 200) throw new Error(`no proposal: ${proposal.status} ${JSON.stringify(proposal.body)}`);
      const contract = await countersign(proposal.body.contract, account);
      const registered = await self.register(contract);
      if (registered.status !== 201) throw new Error(`not registered: ${registered.status} ${JSON.stringify(registered.body)}`);
      return { contract, id: contract.contract_id, secret: registered.body.webhook_secret, account };
    },
    execute: (id, input, headers = {}) => post('/execute', input, { 'x-contract-id': id, ...headers }),
    /** The headers of a payment for a contract. `by` pays; `authorization` overrides what is signed; one that is not `named` says no resource. */
    async pay(id, input, by, { authorization, accepted = {}, named = true } = {}) {
      const asked = await stack.post('/execute', input, { 'x-contract-id': id });
      const text = await asked.text();
      if (asked.status !== 402) throw new Error(`no 402: ${asked.status} ${text}`);
      const terms = JSON.parse(Buffer.from(asked.headers.get('payment-required'), 'base64'));
      const offer = terms.accepts.find((a) => a.network === NETWORK);
      const payload = await stack.authorize(by, offer, authorization);
      return { 'payment-signature': encodeHeader({ x402Version: 2, ...(named ? { resource: terms.resource } : {}), accepted: { ...offer, ...accepted }, payload }) };
    },
    /** Pays and executes. */
    async buy({ id, account }, input, headers = {}) {
      return self.execute(id, input, { ...(await self.pay(id, input, account)), ...headers });
    },
    task: (taskId, id) => get(`/tasks/${taskId}`, { 'x-contract-id': id }),
    account: () => privateKeyToAccount(generatePrivateKey()),
  };
  return self;
}
