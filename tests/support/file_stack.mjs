// The stack of a test file, and a new wallet for each of its tests. node:test runs each file in a process of its own,
// so these exports are that file's; they are set before its tests begin.
//
//   import { asked, payer, payerStack, stack } from '../support/file_stack.mjs';
//   payerStack({ vars: { LIMITS: JSON.stringify({ startAttempts: 1 }) } });
import { after, before, beforeEach } from 'node:test';
import { say } from './claude.mjs';
import { startStack } from './stack.mjs';

/** What `startStack` gives. */
export let stack;
/** A wallet with 1 USDC, new for each test. */
export let payer;

/** What a new payer holds. */
export const WHOLE = 1_000_000n;
/** The answer of Claude's in tests that need no other. */
export const hello = () => say('Hello', ', ', 'world');
/** How often Claude has been called. */
export const asked = () => stack.claude.requests.length;
/** How often the facilitator was asked to settle. */
export const settles = () => stack.facilitator.count('settle');

export async function openStack(options) {
  stack = await startStack(options);
}
export const closeStack = () => stack?.close();
export async function newPayer() {
  payer = await stack.payer();
}

/**
 * A stack for the tests of this file (or of this suite), and before each of them a new payer, with `script` for Claude.
 * `prepare` is called once the stack has started. (A second `before` of the file would not wait for the first one.)
 */
export function payerStack({ script = hello, prepare, ...options } = {}) {
  before(async () => {
    await openStack({ script, ...options });
    await prepare?.();
  });
  after(closeStack);
  beforeEach(async () => {
    stack.reset(script);
    await newPayer();
  });
}
