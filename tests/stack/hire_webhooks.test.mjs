// Webhooks to seekers: what is sent, when it is sent again, and where nothing is ever sent.
import assert from 'node:assert/strict';
import http from 'node:http';
import { once } from 'node:events';
import { after, before, beforeEach, describe, test } from 'node:test';
import { Webhook } from 'standardwebhooks';
import { apiError, say } from '../support/claude.mjs';
import { draft, seekerOf, startListener } from '../support/hire.mjs';
import { INPUT, NETWORK, sleep, startStack, until } from '../support/stack.mjs';

const TEXT = 'Coin falls, light rings';
let stack;
let seeker;
let listener;
const agents = {};

async function open(options = {}) {
  stack = await startStack({ script: () => say(TEXT), ...options });
  seeker = seekerOf(stack, agents);
  agents.ada = (await seeker.get('/@ada/.well-known/hire.json')).body.agent.id;
}
/** A contract with a webhook, executed. */
async function executed(options = {}, headers = {}) {
  const account = await stack.payer();
  const contract = await seeker.hire(account, { party: { webhook_url: listener.url }, ...options });
  return { ...contract, answer: await seeker.buy(contract, INPUT, headers) };
}
const heard = (n = 1) => until(() => listener.heard.length >= n, { timeout: 20_000, what: `webhook ${n}` });
/** The message as Standard Webhooks' own library reads it: it throws where the signature is not right. */
const verify = (message, secret) => new Webhook(secret).verify(message.body, message.headers);

describe('a seeker who listens', () => {
  before(async () => {
    await open();
    listener = await startListener();
  });
  beforeEach(() => {
    stack.reset(() => say(TEXT));
    listener.heard.length = 0;
    listener.answer = () => 200;
    listener.headers = {};
  });
  after(async () => {
    await listener?.close();
    await stack?.close();
  });

  test('hears that a task is completed, signed, with its deliverables', async () => {
    const { id, secret, answer } = await executed();
    assert.equal(answer.status, 200);
    await heard();
    const [message] = listener.heard;
    const told = verify(message, secret);
    assert.equal(told.event, 'task_completed');
    assert.equal(told.contract_id, id);
    assert.equal(told.task_id, answer.body.task_id);
    assert.deepEqual(told.deliverables, answer.body.deliverables);
    assert.equal(message.headers['content-type'], 'application/json');
    assert.match(message.headers['webhook-id'], /^msg_/);
    // Another secret, another text: not signed so.
    const other = `whsec_${Buffer.from('x'.repeat(32)).toString('base64')}`;
    assert.throws(() => verify(message, other));
    assert.throws(() => verify({ ...message, body: message.body.replace('completed', 'complete') }, secret));
    const shown = await until(async () => (await seeker.task(answer.body.task_id, id)).body.webhook, { what: 'the webhook in the task' });
    const delivered = await until(async () => {
      const { webhook } = (await seeker.task(answer.body.task_id, id)).body;
      return webhook.state === 'delivered' && webhook;
    });
    assert.equal(shown.url, listener.url);
    assert.deepEqual([delivered.attempts, delivered.last, delivered.next_attempt_at], [1, 'HTTP 200', null]);
    await sleep(300);
    assert.equal(listener.heard.length, 1, 'taken once, it is not sent again');
  });

  test('hears that a task has failed, and that it cost nothing', async () => {
    stack.claude.script = () => apiError(400);
    const { secret, answer } = await executed();
    assert.equal(answer.body.status, 'failed');
    await heard();
    const told = verify(listener.heard[0], secret);
    assert.equal(told.event, 'task_failed');
    assert.equal(told.error.code, answer.body.error.code);
    assert.equal(told.refund.charged, false);
    assert.equal(told.deliverables, undefined);
  });

  test('hears of each execution: of the one that failed, and of the one that did not', async () => {
    stack.claude.script = (_, n) => (n === 1 ? apiError(400) : say(TEXT));
    const contract = await executed();
    await heard();
    const again = await seeker.execute(contract.id, INPUT);
    assert.equal(again.status, 200, JSON.stringify(again.body));
    await heard(2);
    const events = listener.heard.map((message) => verify(message, contract.secret).event);
    assert.deepEqual(events, ['task_failed', 'task_completed']);
    assert.notEqual(listener.heard[0].headers['webhook-id'], listener.heard[1].headers['webhook-id']);
  });

  test('is told again, under the same id, when it did not take the message', async () => {
    listener.answer = (n) => (n === 1 ? 503 : 204);
    const { id, secret, answer } = await executed();
    await heard();
    const waiting = await until(async () => {
      const { webhook } = (await seeker.task(answer.body.task_id, id)).body;
      return webhook.attempts === 1 && webhook;
    });
    assert.deepEqual([waiting.state, waiting.last], ['pending', 'HTTP 503']);
    assert.ok(Date.parse(waiting.next_attempt_at) > Date.now());
    await heard(2);
    const [first, second] = listener.heard;
    assert.equal(first.headers['webhook-id'], second.headers['webhook-id']);
    assert.equal(first.body, second.body);
    assert.deepEqual(verify(second, secret), verify(first, secret));
    assert.ok(second.at - first.at >= 4_500, `${second.at - first.at} ms later`);
  });

  test('a redirect is not followed, and is no answer', async () => {
    const elsewhere = await startListener();
    try {
      listener.headers = { location: elsewhere.url };
      listener.answer = () => 307;
      const { id, answer } = await executed();
      await heard();
      const told = await until(async () => {
        const { webhook } = (await seeker.task(answer.body.task_id, id)).body;
        return webhook.attempts === 1 && webhook;
      });
      assert.deepEqual([told.state, told.last], ['pending', 'HTTP 307']);
      assert.equal(elsewhere.heard.length, 0);
    } finally {
      await elsewhere.close();
    }
  });

  test('who does not answer is waited for ten seconds, and nobody else waits with them', async () => {
    listener.answer = () => undefined;
    const began = Date.now();
    const { id, answer } = await executed();
    assert.equal(answer.status, 200);
    assert.ok(Date.now() - began < 5_000, 'the result does not wait for the webhook');
    const told = await until(
      async () => {
        const { webhook } = (await seeker.task(answer.body.task_id, id)).body;
        return webhook.attempts === 1 && webhook;
      },
      { timeout: 20_000 },
    );
    assert.deepEqual([told.state, told.last], ['pending', 'no answer in 10 s']);
    assert.ok(Date.now() - listener.heard[0].at >= 9_500);
  });

  test('410 is the wish to hear no more', async () => {
    listener.answer = () => 410;
    const { id, answer } = await executed();
    const told = await until(async () => {
      const { webhook } = (await seeker.task(answer.body.task_id, id)).body;
      return webhook?.attempts === 1 && webhook;
    });
    assert.deepEqual([told.state, told.last], ['dead', 'HTTP 410']);
  });

  test('nothing of what the seeker answers, and no secret, is in the log', async () => {
    const { secret } = await executed();
    await heard();
    await sleep(200);
    const log = stack.log();
    assert.match(log, /webhook: task_completed/);
    assert.ok(!log.includes('thank you'));
    assert.ok(!log.includes(secret) && !log.includes(secret.slice(6)));
    for (const { path, bytes } of stack.files()) assert.ok(!bytes.includes(secret.slice(6)), path);
  });

  test('a message that was under way when the runtime died is sent by the next', async () => {
    listener.answer = () => undefined;
    const contract = await executed();
    const ours = () => listener.heard.filter(({ body }) => body.includes(contract.id));
    await until(() => ours().length === 1, { what: 'the first attempt' });
    await stack.kill();
    listener.answer = () => 200;
    await stack.revive();
    await until(() => ours().length === 2, { timeout: 30_000, what: 'the second attempt' });
    const [first, second] = ours();
    assert.equal(verify(second, contract.secret).event, 'task_completed');
    assert.equal(first.headers['webhook-id'], second.headers['webhook-id']);
  });
});

describe('where nothing is sent', () => {
  const refused = async (webhook_url) => {
    const account = seeker.account();
    const { status, body } = await seeker.propose(draft(agents.ada, account, { party: { webhook_url } }));
    assert.deepEqual([status, body.error?.code], [422, 'WEBHOOK_REFUSED'], `${webhook_url}: ${JSON.stringify(body)}`);
    assert.equal(body.error.details.field, 'parties.seeker.webhook_url');
  };

  test('a contract with such a webhook is not signed', async () => {
    await open({ vars: { HIRE: JSON.stringify({ network: NETWORK, resolverUrl: '' }) } });
    try {
      for (const url of [
        'http://example.com/hook',
        'https://127.0.0.1/hook',
        'https://127.1/hook',
        'https://2130706433/hook',
        'https://0x7f.0.0.1/hook',
        'https://0177.0.0.1/hook',
        'https://localhost/hook',
        'https://LOCALHOST./hook',
        'https://[::1]/hook',
        'https://[::ffff:127.0.0.1]/hook',
        'https://[0:0:0:0:0:ffff:7f00:1]/hook',
        'https://10.0.0.1/hook',
        'https://192.168.1.1:8443/hook',
        'https://169.254.169.254/latest/meta-data',
        'https://[fe80::1]/hook',
        'https://[fd00::1]/hook',
        'https://metadata.google.internal/computeMetadata',
        'https://printer.local/hook',
        'https://intranet/hook',
        'https://user:secret@example.com/hook',
        'ftp://example.com/hook',
        'file:///etc/passwd',
        'not a url',
        '//example.com/hook',
        '',
      ]) {
        await refused(url);
      }
      const allowed = await seeker.propose(draft(agents.ada, seeker.account(), { party: { webhook_url: 'https://example.com/hook?x=1' } }));
      assert.equal(allowed.status, 200, JSON.stringify(allowed.body));
    } finally {
      await stack.close();
    }
  });

  test('a name that leads to an address of one’s own is found out before anything is sent', async () => {
    const asked = [];
    let addresses = ['10.0.0.1'];
    const resolver = http.createServer((request, response) => {
      asked.push(request.url);
      response.writeHead(200, { 'content-type': 'application/dns-json' });
      const type = request.url.includes('type=AAAA') ? 28 : 1;
      const data = addresses.filter((address) => address.includes(':') === (type === 28));
      response.end(JSON.stringify({ Status: 0, Answer: data.map((address) => ({ name: 'x', type, data: address })) }));
    });
    resolver.listen(0, '127.0.0.1');
    await once(resolver, 'listening');
    await open({ vars: { HIRE: JSON.stringify({ network: NETWORK, resolverUrl: `http://127.0.0.1:${resolver.address().port}/dns-query` }) } });
    try {
      const webhookOf = async (addressesNow, attempts = 1) => {
        addresses = addressesNow;
        const account = await stack.payer();
        const contract = await seeker.hire(account, { party: { webhook_url: 'https://rebound.example/hook' } });
        const { body } = await seeker.buy(contract, INPUT);
        assert.equal(body.status, 'completed');
        return until(
          async () => {
            const { webhook } = (await seeker.task(body.task_id, contract.id)).body;
            return webhook?.attempts === attempts && webhook;
          },
          { timeout: 20_000 },
        );
      };
      for (const own of [['10.0.0.1'], ['1.1.1.1', '127.0.0.1'], ['::1'], ['1.1.1.1', 'fd00::1']]) {
        const { state, last } = await webhookOf(own);
        assert.deepEqual([state, last], ['dead', 'the name leads to an address that is not public'], own.join());
      }
      const nowhere = await webhookOf([]);
      assert.deepEqual([nowhere.state, nowhere.last], ['pending', 'the name has no address']);
      assert.ok(asked.every((url) => url.includes('name=rebound.example')));
    } finally {
      resolver.closeAllConnections();
      resolver.close();
      await stack.close();
    }
  });

  test('a contract from before the switch was turned off is executed, and its webhook is dead', async () => {
    await open();
    listener = await startListener();
    try {
      const account = await stack.payer();
      const contract = await seeker.hire(account, { party: { webhook_url: listener.url } });
      await stack.restart({ HIRE: JSON.stringify({ network: NETWORK, resolverUrl: '' }) });
      const { body } = await seeker.buy(contract, INPUT);
      assert.equal(body.status, 'completed');
      const { state, last } = await until(async () => {
        const { webhook } = (await seeker.task(body.task_id, contract.id)).body;
        return webhook?.attempts === 1 && webhook;
      });
      assert.deepEqual([state, last], ['dead', 'the URL is not allowed']);
      assert.equal(listener.heard.length, 0);
    } finally {
      await listener.close();
      await stack.close();
    }
  });
});
