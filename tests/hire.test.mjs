// HIRE/1.0, from the seeker's side: a contract is proposed, signed, executed, delivered and paid.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { say } from './support/claude.mjs';
import { seekerOf, countersign, draft, hashOf, sha256 } from './support/hire.mjs';
import { HAIKU_PRICE, INPUT, ada, startStack } from './support/stack.mjs';

let stack;
let seeker;
const agents = {};

before(async () => {
  stack = await startStack({ script: () => say('Coin falls,', ' light rings') });
  seeker = seekerOf(stack, agents);
  agents.ada = (await seeker.get('/@ada/.well-known/hire.json')).body.agent.id;
});
after(() => stack?.close());

test('propose, sign, execute', async () => {
  const account = await stack.payer();
  const proposal = await seeker.propose(draft(agents.ada, account));
  assert.equal(proposal.status, 200, JSON.stringify(proposal.body));
  assert.equal(proposal.body.hash, hashOf(proposal.body.contract));
  const contract = await countersign(proposal.body.contract, account);
  const registered = await seeker.register(contract);
  assert.equal(registered.status, 201, JSON.stringify(registered.body));
  const id = contract.contract_id;
  const before = await stack.balance(ada);
  const done = await seeker.buy({ id, account }, INPUT);
  assert.equal(done.status, 200, JSON.stringify(done.body));
  console.log(JSON.stringify(done.body, null, 2));
  assert.equal(done.body.status, 'completed');
  assert.equal(done.body.output.content, 'Coin falls, light rings');
  assert.equal(done.body.output.checksum, sha256('Coin falls, light rings'));
  assert.equal((await stack.balance(ada)) - before, HAIKU_PRICE);
  const polled = await seeker.task(done.body.task_id, id);
  assert.equal(polled.status, 200);
  assert.equal((await seeker.get(`/contracts/${id}`)).body.state, 'COMPLETED');
  console.log(stack.log());
});
