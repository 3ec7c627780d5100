// What the tests that break things by chance share: chance that can be repeated, callers who come back as
// an honest one does, and the books as the chain and the ledger have them.
import { createHash, randomBytes } from 'node:crypto';
import { parseAbiItem } from 'viem';
import { say } from './claude.mjs';
import { HAIKU, USDC, decodeHeader, ledgerId, readSse, sleep } from './stack.mjs';

const TRANSFER = parseAbiItem('event Transfer(address indexed from, address indexed to, uint256 value)');
const USED = parseAbiItem('event AuthorizationUsed(address indexed authorizer, bytes32 indexed nonce)');

/** The seed of this run of a test: `SEED=` repeats another's. */
export const seed = process.env.SEED ?? randomBytes(4).toString('hex');

/** Chance that is the same for the same words. */
export function chance(...words) {
  let drawn = 0;
  const below = (n) => createHash('sha256').update([...words, drawn++].join('/')).digest().readUIntBE(0, 6) % n;
  return {
    below,
    between: (least, most) => least + below(most - least + 1),
    pick: (list) => list[below(list.length)],
    coin: () => below(2) === 1,
  };
}

/** The kinds that `EXCLUDE=a,b` leaves. */
export function kindsOf(table) {
  const excluded = (process.env.EXCLUDE ?? '').split(',').filter(Boolean);
  return Object.keys(table).filter((kind) => !excluded.includes(kind));
}

/** `work` for each item, `lanes` of them at a time. */
export async function inLanes(lanes, items, work) {
  const queue = [...items];
  const lane = async () => { while (queue.length) await work(queue.shift()); };
  await Promise.all(Array.from({ length: lanes }, lane));
}

// Claude's answers.

/** What Claude writes about `topic` when asked for the `edition`th time: no two are alike. */
export const pieces = (topic, edition, count) => Array.from({ length: count }, (_, i) => `${topic} edition ${edition} piece ${i}. `);

/** Whether `text` is one whole edition of `topic`, and nothing of another. */
export const isWhole = (text, topic, editions, count) =>
  Array.from({ length: editions }, (_, i) => pieces(topic, i + 1, count).join('')).includes(text);

/** The steps of a whole answer. */
export const write = (topic, edition, count, every) => say(...pieces(topic, edition, count), { every });

// Callers.

/**
 * The payments of one intention: `first`, to be presented as often as one likes, and `again`, as a client comes back
 * that has an Idempotency-Key (where `key` is given) and signs another payment at each try, or presents the first one.
 * `sees(nonce)` is called for each payment that is signed.
 */
export async function intention(stack, payer, input, headers, key, sees) {
  const sign = async () => {
    const signed = await stack.signPayment(HAIKU, input, payer);
    sees(decodeHeader(signed['payment-signature']).payload.authorization.nonce);
    return { ...headers, ...(key && { 'idempotency-key': key }), ...signed };
  };
  const first = { path: HAIKU, input, headers: await sign() };
  return { first, again: key ? { path: HAIKU, input, sign } : first };
}

/**
 * Presents a payment and reads to the end: `{ status, text, whole, code, charged, run, body }`. Status 0: the
 * connection broke.
 */
export async function present(stack, { path, input, headers, sign }) {
  try {
    return await read(await stack.post(path, input, sign ? await sign() : headers));
  } catch (error) {
    return { status: 0, text: '', whole: false, code: error.cause?.code ?? error.message };
  }
}

async function read(response) {
  const { status } = response;
  const run = response.headers.get('x-run-id') ?? undefined;
  if (response.headers.get('content-type')?.startsWith('text/event-stream')) {
    const { text, done, error } = await readSse(response);
    return { status, text, whole: Boolean(done), code: error?.code, charged: error?.charged, run };
  }
  const body = await response.text();
  const json = JSON.parse(body);
  if (status === 200) return { status, text: json.output, whole: true, run };
  // A 402 is v1's terms, with the code beside them.
  const { code, charged } = typeof json.error === 'object' ? json.error : json;
  return { status, text: '', whole: false, code, charged, run, body };
}

const mayComeBack = ({ status, whole, code, charged }) =>
  !whole && code !== 'RUN_REFUNDABLE' && (status === 0 || status === 429 || status >= 500 || (status === 200 && charged));

/** Presents a payment (at first: `first`), and again while that may help: what was said each time. */
export async function comeBack(stack, payment, { seconds, first = payment }) {
  const end = Date.now() + seconds * 1000;
  const told = [await present(stack, first)];
  for (let pause = 150; mayComeBack(told.at(-1)) && Date.now() + pause < end; pause = Math.min(2 * pause, 2000)) {
    await sleep(pause);
    told.push(await present(stack, payment));
  }
  return told;
}

/** What was said, for a message: `503 SETTLEMENT_UNKNOWN ×3, 200`. */
export function retold(told) {
  const said = told.map(({ status, code }) => (code ? `${status} ${code}` : String(status)));
  const runs = said.filter((one, i) => one !== said[i - 1]);
  return runs.length === said.length ? said.join(', ') : `${runs.join(', ')} (${said.length} times)`;
}

// The books.

/** Transfers of USDC from payers, as the chain logged them: `{ from, to, value, tx, nonce }`, the nonce where one was signed. */
export async function transfers(stack, args) {
  const logs = (event, of) => stack.chain.client.getLogs({ address: USDC, event, args: of, fromBlock: 0n, toBlock: 'latest' });
  const [moved, used] = await Promise.all([logs(TRANSFER, args), logs(USED, args.from && { authorizer: args.from })]);
  const nonces = new Map(used.map((log) => [log.transactionHash, log.args.nonce]));
  return moved.map((log) => ({ ...log.args, tx: log.transactionHash, nonce: nonces.get(log.transactionHash) }));
}

/** What the books have of a run: its payments' transfers, and the ledger's rows of those and of the ids that it was told. */
export function booksOf({ nonces, told }, allTransfers, allRows) {
  const paid = allTransfers.filter(({ nonce }) => nonces.has(nonce));
  const hashes = new Set(paid.map(({ tx }) => tx));
  const ids = new Set(told.map(({ run }) => run && ledgerId(run)));
  return { paid, rows: allRows.filter(({ id, tx }) => ids.has(id) || hashes.has(tx)) };
}

export const sum = (amounts) => amounts.reduce((all, amount) => all + BigInt(amount), 0n);

/** New wallets with `atomic` USDC each. One after the other: the bank's account numbers its transactions. */
export async function wallets(stack, count, atomic) {
  const all = [];
  while (all.length < count) all.push(await stack.payer(atomic));
  return all;
}

const UNFINISHED = ['running', 'unknown', 'interrupted'];

/**
 * Waits until nothing of these payers' is under way or owed: nobody asks Claude, no row is unfinished, and
 * every transfer to `creator` has its row. Says what is still wanting after `seconds`: nothing is an empty list.
 */
export async function rest(stack, creator, payers, seconds) {
  const theirs = new Set(payers.map(({ address }) => address.toLowerCase()));
  let wanting;
  const look = async () => {
    const rows = (await stack.rows('owner_test = 0')).filter(({ payer }) => theirs.has(payer.toLowerCase()));
    const paid = (await transfers(stack, { to: creator.address })).filter(({ from }) => theirs.has(from.toLowerCase()));
    const booked = new Set(rows.map(({ tx }) => tx));
    wanting = [
      ...stack.claude.requests.filter(({ endedAt }) => !endedAt).map(({ n }) => `Claude is asked, request ${n}`),
      ...rows.filter(({ status }) => UNFINISHED.includes(status)).map(({ payer, status, code }) => `${payer}: ${status} ${code}`),
      ...paid.filter(({ tx }) => !booked.has(tx)).map(({ from, tx }) => `${from}: paid with ${tx}, which no row has`),
    ];
    return wanting.length === 0;
  };
  const end = Date.now() + seconds * 1000;
  while (!(await look()) && Date.now() < end) await sleep(200);
  return wanting;
}
