// The stack of a test file about contracts: ada's agent, and a seeker with a new wallet for each test. See
// file_stack.mjs for how these exports come to their values.
//
//   import { PAID, account, books, seeker, seekerStack, stack } from '../support/seeker_stack.mjs';
//   seekerStack();
import assert from 'node:assert/strict';
import { after, before, beforeEach } from 'node:test';
import { say } from './claude.mjs';
import * as file from './file_stack.mjs';
import { seekerOf } from './hire.mjs';
import { HAIKU_PRICE, ada, gate, grace, until } from './stack.mjs';

export { asked, settles, stack, WHOLE } from './file_stack.mjs';
export { payer as account } from './file_stack.mjs';

/** What a seeker does at this stack. */
export let seeker;
/** The ids of the creators' agents. */
export const agents = {};
/** What the worker held before the test. */
let earned;

/** The answer of Claude's in tests that need no other. */
export const TEXT = 'Coin falls, light rings';
export const hello = () => say('Coin falls,', ' light rings');

/** What `books` says of a contract that was delivered and paid, and of one that was not begun. */
export const PAID = { paid: HAIKU_PRICE, calls: 1, state: 'COMPLETED' };
export const NOTHING = { paid: 0n, calls: 0, state: 'SIGNED' };
/** The header of a seeker who does not wait for the result. */
export const ASYNC = { prefer: 'respond-async' };

export async function openStack(options = {}) {
  await file.openStack({ script: hello, ...options });
  seeker = seekerOf(file.stack, agents);
  for (const { handle } of [ada, grace]) agents[handle] = (await seeker.get(`/@${handle}/.well-known/hire.json`)).body.agent.id;
}
export const closeStack = file.closeStack;

/** Another wallet for the seeker. */
export async function newAccount() {
  await file.newPayer();
  earned = await file.stack.balance(ada);
}

/**
 * A stack for the tests of this file (or of this suite), and before each of them a new wallet for the seeker.
 * `prepare` is called once the stack has started.
 */
export function seekerStack({ prepare, ...options } = {}) {
  before(async () => {
    await openStack(options);
    await prepare?.();
  });
  after(closeStack);
  beforeEach(async () => {
    file.stack.reset(hello);
    await newAccount();
  });
}

/** A contract for the haiku, registered. */
export const hire = (task = {}, options = {}) => seeker.hire(file.payer, { ...options, task });

/** The end of a task, by polling. */
export const ended = (taskId, id, timeout = 10_000) =>
  until(async () => {
    const report = await seeker.task(taskId, id);
    return report.body.status !== 'pending' && report;
  }, { timeout, what: 'the end of the task' });

/** What the worker has earned in this test. */
export const earnings = async () => (await file.stack.balance(ada)) - earned;

export const stateOf = async (id) => (await seeker.get(`/contracts/${id}`)).body.state;

/** What the chain, Claude and the contract say: `paid` by the seeker to the worker, `calls` of Claude, the contract's `state`. */
export async function books({ id, account = file.payer }, { paid = 0n, calls, state, whole = file.WHOLE }) {
  assert.equal(whole - (await file.stack.balance(account)), paid, 'what the seeker has paid');
  assert.equal(await earnings(), paid, 'what the worker was paid');
  if (calls !== undefined) assert.equal(file.asked(), calls, 'calls of Claude');
  // The run's row and the contract's state are written after the response.
  await until(async () => (await stateOf(id)) === state, { timeout: 2500 }).catch(() => {});
  assert.equal(await stateOf(id), state);
}

/** Claude answers once the returned gate is open. */
export function gated(answer = hello) {
  const more = gate();
  file.stack.claude.script = async (...request) => (await more.opened, answer(...request));
  return more;
}

/** A refusal in HIRE's form, with this status and code. */
export function refused(answer, status, code) {
  assert.equal(answer.status, status, JSON.stringify(answer.body));
  assert.equal(answer.body.status, 'failed');
  assert.equal((answer.status === 402 ? answer.body.details : answer.body.error).code, code);
}
