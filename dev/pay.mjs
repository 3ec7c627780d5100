// `make pay`: pays one resource of the running stack with the official x402 client, and shows what came.
//   node dev/pay.mjs [/@ada/haiku] ['{"topic":"…"}']
//   node dev/pay.mjs --sign [/@ada/haiku]    prints a signed payment for the header PAYMENT-SIGNATURE, and pays nothing
import { existsSync, readFileSync } from 'node:fs';
import { decodePaymentRequiredHeader, decodePaymentResponseHeader, encodePaymentSignatureHeader } from '@x402/core/http';
import { ExactEvmScheme } from '@x402/evm/exact/client';
import { wrapFetchWithPayment, x402Client } from '@x402/fetch';
import { formatUnits } from 'viem';
import { privateKeyToAccount } from 'viem/accounts';
import { connectChain } from './chain.mjs';
import { examples } from './seed.mjs';

const file = new URL('../.dev/stack.json', import.meta.url);
const usdc = (atomic) => `${formatUnits(BigInt(atomic), 6)} USDC`;
const fail = (message) => {
  console.error(`\npay: ${message}`);
  process.exit(1);
};

/** Server-sent events of a body, as parsed JSON. */
async function* events(body) {
  let rest = '';
  for await (const text of body.pipeThrough(new TextDecoderStream())) {
    const blocks = (rest + text).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split(/\r?\n/).filter((line) => line.startsWith('data:')).map((line) => line.slice(5).replace(/^ /, ''));
      if (data.length) yield JSON.parse(data.join('\n'));
    }
  }
}

if (!existsSync(file)) fail('no running stack; start one with `make dev`');
const stack = JSON.parse(readFileSync(file, 'utf8'));
process.stdout.on('error', () => process.exit(0)); // make pay | head
const signOnly = process.argv[2] === '--sign';
const [resource = stack.resource, given] = process.argv.slice(signOnly ? 3 : 2);
const input = given ?? JSON.stringify(examples[resource] ?? stack.example_input);
const url = new URL(resource, stack.worker_url).href;

const account = privateKeyToAccount(stack.payer_private_key);
const chain = connectChain(stack.rpc_url);

const client = new x402Client().register('eip155:*', new ExactEvmScheme(account));

if (signOnly) {
  const { headers } = await fetch(url, { method: 'POST' }).catch((error) => fail(error.cause?.message ?? error.message));
  const required = headers.get('payment-required') ?? fail(`${resource} asks for no payment`);
  console.log(encodePaymentSignatureHeader(await client.createPaymentPayload(decodePaymentRequiredHeader(required))));
  process.exit(0);
}

// The client answers the 402 by itself; we only look on, to tell the price and where it went.
let terms;
const watched = async (...args) => {
  const response = await fetch(...args);
  const header = response.headers.get('payment-required');
  if (response.status === 402 && header) terms ??= decodePaymentRequiredHeader(header).accepts[0];
  return response;
};
const payingFetch = wrapFetchWithPayment(watched, client);

console.log(`POST ${url}\n     ${input}\n`);
await chain.client.getBlockNumber().catch(() => fail('the chain does not answer; is `make dev` running?'));
const began = performance.now();
const response = await payingFetch(url, {
  method: 'POST',
  headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
  body: input,
}).catch((error) => fail(error.cause?.message ?? error.message));
if (!response.ok) {
  const refused = response.headers.get('payment-response');
  fail(`${response.status} ${await response.text()}${refused ? `\n     ${JSON.stringify(decodePaymentResponseHeader(refused))}` : ''}`);
}

let first;
let done;
for await (const event of events(response.body)) {
  if (event.type === 'text') {
    first ??= performance.now();
    process.stdout.write(event.content);
  } else if (event.type === 'error') fail(`${event.code}: ${event.message} (run ${event.run})`);
  else if (event.type === 'done') done = event;
}
if (!done) fail('the answer broke off');
const seconds = (t) => `${((t - began) / 1000).toFixed(1)} s`;

const header = response.headers.get('payment-response');
const receipt = header ? decodePaymentResponseHeader(header) : done.receipt;
if (!receipt?.transaction) fail('the answer came without a receipt');
const mined = await chain.receipt(receipt.transaction);
// Before and after the block that holds the payment, so that nothing else blurs the difference.
const balances = (address) =>
  Promise.all([mined.blockNumber - 1n, mined.blockNumber].map((blockNumber) => chain.balanceOf(address, { blockNumber })));
const [payerBefore, payerAfter] = await balances(account.address);
const [creatorBefore, creatorAfter] = await balances(terms.payTo);
const paid = payerBefore - payerAfter;
const earned = creatorAfter - creatorBefore;

console.log(`

tokens       ${done.usage.input_tokens} in, ${done.usage.output_tokens} out (${done.stop_reason})
time         first text after ${first ? seconds(first) : '-'}, all after ${seconds(performance.now())}
price        ${usdc(terms.amount)} on ${terms.network}
transaction  ${receipt.transaction}
on chain     ${mined.status} in block ${mined.blockNumber}
payer        -${usdc(paid)}, ${usdc(payerAfter)} left
creator      +${usdc(earned)}, ${usdc(creatorAfter)} in all
run          ${done.run}`);
if (mined.status !== 'success' || paid !== BigInt(terms.amount) || earned !== paid) fail('the money did not move as the terms say');
