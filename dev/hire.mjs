// `make hire`: hires a template of the running stack as a HIRE/1.0 seeker does, and checks every step itself.
//   propose -> sign -> register -> execute (asynchronously) -> webhook -> poll -> verify checksums and the chain
//   node dev/hire.mjs [haiku] ['{"topic":"…"}']
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import http from 'node:http';
import { ExactEvmScheme } from '@x402/evm/exact/client';
import { wrapFetchWithPayment, x402Client } from '@x402/fetch';
import canonicalize from 'canonicalize';
import { formatUnits, verifyMessage } from 'viem';
import { privateKeyToAccount } from 'viem/accounts';
import { connectChain } from './chain.mjs';

const file = new URL('../.dev/stack.json', import.meta.url);
const usdc = (atomic) => `${formatUnits(BigInt(atomic), 6)} USDC`;
const fail = (message) => {
  console.error(`\nhire: ${message}`);
  process.exit(1);
};
const check = (ok, what) => (ok ? console.log(`  ✓ ${what}`) : fail(`not so: ${what}`));
const step = (title) => console.log(`\n${title}`);
const sha256 = (bytes) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

if (!existsSync(file)) fail('no running stack; start one with `make dev`');
const stack = JSON.parse(readFileSync(file, 'utf8'));
const capability = process.argv[2] ?? 'haiku';
const input = JSON.parse(process.argv[3] ?? JSON.stringify(stack.example_input));
const seeker = privateKeyToAccount(stack.payer_private_key);
const chain = connectChain(stack.rpc_url);
await chain.client.getBlockNumber().catch(() => fail('the chain does not answer; is `make dev` running?'));

async function call(method, path, body, headers = {}, via = fetch) {
  const response = await via(new URL(path, stack.worker_url).href, {
    method,
    headers: { 'content-type': 'application/json', ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const json = await response.json().catch(() => ({}));
  if (!response.ok) fail(`${method} ${path}: ${response.status} ${JSON.stringify(json)}`);
  return { status: response.status, headers: response.headers, body: json };
}

// The seeker hears of the end here.
const heard = [];
const listener = http.createServer(async (request, response) => {
  let body = '';
  for await (const chunk of request) body += chunk;
  heard.push({ headers: request.headers, body });
  response.writeHead(204).end();
});
listener.listen(0, '127.0.0.1');
await once(listener, 'listening');
const webhookUrl = `http://127.0.0.1:${listener.address().port}/hired`;

step('1. The manifest: who can be hired');
const { body: manifest } = await call('GET', '/@ada/.well-known/hire.json');
const offered = manifest.capabilities.find(({ name }) => name === capability) ?? fail(`no capability ${capability}`);
console.log(`  ${manifest.agent.id} (${manifest.agent.name}) offers ${offered.name} for ${offered.pricing.amount} ${offered.pricing.currency}`);

step('2. The proposal: the worker completes the draft, hashes and signs it');
const draft = {
  parties: {
    seeker: { agent_id: 'agent_walkthrough', wallet: seeker.address, webhook_url: webhookUrl },
    worker: { agent_id: manifest.agent.id },
  },
  task: { capability, description: `One run of ${capability}`, input_schema: offered.input_schema },
  sla: { max_latency_ms: 60_000, retry_policy: '3 attempts', refund_conditions: ['deadline_missed', 'no_response'] },
};
const { body: proposal } = await call('POST', '/contracts/proposals', draft);
const { hash, signatures, ...signed } = proposal.contract;
check(hash === sha256(canonicalize(signed)), `the hash is that of the text: ${hash.slice(0, 23)}…`);
check(await verifyMessage({ address: offered.wallet, message: hash, signature: signatures.worker }), `signed by the worker's wallet ${offered.wallet}`);

step('3. The contract: signed by the seeker too, and registered');
const contract = { ...proposal.contract, signatures: { ...signatures, seeker: await seeker.signMessage({ message: hash }) } };
const { body: registered } = await call('POST', '/contracts', contract);
const id = contract.contract_id;
console.log(`  ${id}: ${registered.state}`);
const { body: verified } = await call('POST', `/contracts/${id}/verify`);
check(verified.valid, 'it verifies');

step('4. Execution, paid through x402 by the official client, answered at once');
const [seekerBefore, workerBefore] = await Promise.all([seeker.address, offered.wallet].map((address) => chain.balanceOf(address)));
const paying = wrapFetchWithPayment(fetch, new x402Client().register('eip155:*', new ExactEvmScheme(seeker)));
const { status, body: pending } = await call('POST', '/execute', input, { 'x-contract-id': id, prefer: 'respond-async' }, paying);
console.log(`  ${status} ${pending.status}: ${pending.task_id}, expected ${pending.estimated_completion}`);

step('5. Polling, and the webhook');
let task;
for (let polls = 1; ; polls++) {
  ({ body: task } = await call('GET', pending.poll_url, undefined, { 'x-contract-id': id }));
  if (task.status !== 'pending') {
    console.log(`  ${task.status} after ${polls} polls`);
    break;
  }
  if (polls > 120) fail('it does not end');
  await new Promise((resolve) => setTimeout(resolve, 500));
}
if (task.status !== 'completed') fail(JSON.stringify(task));
for (let waited = 0; heard.length === 0 && waited < 10_000; waited += 100) await new Promise((resolve) => setTimeout(resolve, 100));
listener.close();
const [message] = heard;
if (!message) fail('no webhook came');
const key = Buffer.from(registered.webhook_secret.replace('whsec_', ''), 'base64');
const { 'webhook-id': messageId, 'webhook-timestamp': timestamp, 'webhook-signature': signature } = message.headers;
const expected = `v1,${createHmac('sha256', key).update(`${messageId}.${timestamp}.${message.body}`).digest('base64')}`;
check(timingSafeEqual(Buffer.from(expected), Buffer.from(signature)), 'the webhook is signed (Standard Webhooks)');
check(JSON.parse(message.body).event === 'task_completed', `it says ${JSON.parse(message.body).event}`);

step('6. The deliverables, and their checksums');
for (const { name, type, url, content, size, checksum } of task.deliverables) {
  const bytes = url ? Buffer.from(await (await fetch(url)).arrayBuffer()) : Buffer.from(type === 'json' ? canonicalize(content) : content);
  check(bytes.length === size && sha256(bytes) === checksum, `${name}: ${size} bytes, ${checksum.slice(0, 23)}…`);
  console.log(`\n${bytes}`.replace(/\n/g, '\n    '));
}

step('7. The money');
const [seekerAfter, workerAfter] = await Promise.all([seeker.address, offered.wallet].map((address) => chain.balanceOf(address)));
const receipt = await chain.receipt(task.metadata.transaction);
check(receipt.status === 'success', `transaction ${task.metadata.transaction} succeeded in block ${receipt.blockNumber}`);
check(seekerBefore - seekerAfter === workerAfter - workerBefore, `seeker -${usdc(seekerBefore - seekerAfter)}, worker +${usdc(workerAfter - workerBefore)}`);
const { body: ended } = await call('GET', `/contracts/${id}`);
check(ended.state === 'COMPLETED', `the contract is ${ended.state}`);
process.exit(0);
