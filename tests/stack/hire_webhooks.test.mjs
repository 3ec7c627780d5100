// Webhooks to seekers: what is sent, when it is sent again, and where nothing is ever sent.
import assert from 'node:assert/strict';
import http from 'node:http';
import { once } from 'node:events';
import { after, before, beforeEach, describe, test } from 'node:test';
import { Webhook } from 'standardwebhooks';
import { apiError, say } from '../support/claude.mjs';
import { draft, startListener } from '../support/hire.mjs';
import { TEXT, agents, closeStack, openStack, seeker, stack } from '../support/seeker_stack.mjs';
import { INPUT, NETWORK, sleep, until } from '../support/stack.mjs';

let listener;

/** A contract with a webhook, executed. */
async function executed(options = {}, headers = {}) {
  const account = await stack.payer();
  const contract = await seeker.hire(account, { party: { webhook_url: listener.url }, ...options });
  return { ...contract, answer: await seeker.buy(contract, INPUT, headers) };
}
const received = (n = 1) => until(() => listener.received.length >= n, { timeout: 20_000, what: `webhook ${n}` });
/** The message, read by Standard Webhooks' own library. It throws where the signature is not valid. */
const verify = (message, secret) => new Webhook(secret).verify(message.body, message.headers);

describe('a seeker with a webhook', () => {
  before(async () => {
    await openStack();
    listener = await startListener();
  });
  beforeEach(() => {
    stack.reset(() => say(TEXT));
    listener.received.length = 0;
    listener.answer = () => 200;
    listener.headers = {};
  });
  after(async () => {
    await listener?.close();
    await closeStack();
  });

  test('receives that a task is completed, signed, with its deliverables', async () => {
    const { id, secret, answer } = await executed();
    assert.equal(answer.status, 200);
    await received();
    const [message] = listener.received;
    const report = verify(message, secret);
    assert.equal(report.event, 'task_completed');
    assert.equal(report.contract_id, id);
    assert.equal(report.task_id, answer.body.task_id);
    assert.deepEqual(report.deliverables, answer.body.deliverables);
    assert.equal(message.headers['content-type'], 'application/json');
    assert.match(message.headers['webhook-id'], /^msg_/);
    // With another secret, or another text, the signature is not valid.
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
    assert.equal(listener.received.length, 1, 'taken once, it is not sent again');
  });

  test('receives that a task has failed, and that nothing was charged', async () => {
    stack.claude.script = () => apiError(400);
    const { secret, answer } = await executed();
    assert.equal(answer.body.status, 'failed');
    await received();
    const report = verify(listener.received[0], secret);
    assert.equal(report.event, 'task_failed');
    assert.equal(report.error.code, answer.body.error.code);
    assert.equal(report.refund.charged, false);
    assert.equal(report.deliverables, undefined);
  });

  test('receives a message for each execution: the one that failed, and the one that did not', async () => {
    stack.claude.script = (_, n) => (n === 1 ? apiError(400) : say(TEXT));
    const contract = await executed();
    await received();
    const again = await seeker.execute(contract.id, INPUT);
    assert.equal(again.status, 200, JSON.stringify(again.body));
    await received(2);
    const events = listener.received.map((message) => verify(message, contract.secret).event);
    assert.deepEqual(events, ['task_failed', 'task_completed']);
    assert.notEqual(listener.received[0].headers['webhook-id'], listener.received[1].headers['webhook-id']);
  });

  test('receives the message again, under the same id, where it did not answer with 2xx', async () => {
    listener.answer = (n) => (n === 1 ? 503 : 204);
    const { id, secret, answer } = await executed();
    await received();
    const waiting = await until(async () => {
      const { webhook } = (await seeker.task(answer.body.task_id, id)).body;
      return webhook.attempts === 1 && webhook;
    });
    assert.deepEqual([waiting.state, waiting.last], ['pending', 'HTTP 503']);
    assert.ok(Date.parse(waiting.next_attempt_at) > Date.now());
    await received(2);
    const [first, second] = listener.received;
    assert.equal(first.headers['webhook-id'], second.headers['webhook-id']);
    assert.equal(first.body, second.body);
    assert.deepEqual(verify(second, secret), verify(first, secret));
    assert.ok(second.at - first.at >= 4_500, `${second.at - first.at} ms later`);
  });

  test('a redirect is not followed, and counts as not delivered', async () => {
    const elsewhere = await startListener();
    try {
      listener.headers = { location: elsewhere.url };
      listener.answer = () => 307;
      const { id, answer } = await executed();
      await received();
      const delivery = await until(async () => {
        const { webhook } = (await seeker.task(answer.body.task_id, id)).body;
        return webhook.attempts === 1 && webhook;
      });
      assert.deepEqual([delivery.state, delivery.last], ['pending', 'HTTP 307']);
      assert.equal(elsewhere.received.length, 0);
    } finally {
      await elsewhere.close();
    }
  });

  test('a seeker that does not answer is waited for ten seconds, and nobody else waits meanwhile', async () => {
    listener.answer = () => undefined;
    const began = Date.now();
    const { id, answer } = await executed();
    assert.equal(answer.status, 200);
    assert.ok(Date.now() - began < 5_000, 'the result does not wait for the webhook');
    const delivery = await until(
      async () => {
        const { webhook } = (await seeker.task(answer.body.task_id, id)).body;
        return webhook?.attempts === 1 && webhook;
      },
      { timeout: 20_000 },
    );
    assert.deepEqual([delivery.state, delivery.last], ['pending', 'no answer in 10 s']);
    assert.ok(Date.now() - listener.received[0].at >= 9_500);
  });

  test('410 ends the attempts', async () => {
    listener.answer = () => 410;
    const { id, answer } = await executed();
    const delivery = await until(async () => {
      const { webhook } = (await seeker.task(answer.body.task_id, id)).body;
      return webhook?.attempts === 1 && webhook;
    });
    assert.deepEqual([delivery.state, delivery.last], ['dead', 'HTTP 410']);
  });

  test('the log has nothing of the answer, and no secret', async () => {
    const { secret } = await executed();
    await received();
    await sleep(200);
    const log = stack.log();
    assert.match(log, /webhook: task_completed/);
    assert.ok(!log.includes('thank you'));
    assert.ok(!log.includes(secret) && !log.includes(secret.slice(6)));
    for (const { path, bytes } of stack.files()) assert.ok(!bytes.includes(secret.slice(6)), path);
  });

  test('a message that was being sent when the runtime was killed is sent by the next one', async () => {
    listener.answer = () => undefined;
    const contract = await executed();
    const ours = () => listener.received.filter(({ body }) => body.includes(contract.id));
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

describe('URLs to which nothing is sent', () => {
  const refused = async (webhook_url) => {
    const account = seeker.account();
    const { status, body } = await seeker.propose(draft(agents.ada, account, { party: { webhook_url } }));
    assert.deepEqual([status, body.error?.code], [422, 'WEBHOOK_REFUSED'], `${webhook_url}: ${JSON.stringify(body)}`);
    assert.equal(body.error.details.field, 'parties.seeker.webhook_url');
  };

  test('a contract with such a webhook is not signed', async () => {
    await openStack({ vars: { HIRE: JSON.stringify({ network: NETWORK, resolverUrl: '' }) } });
    try {
      for (const url of [
        'http://example.com/hook', 'https://127.0.0.1/hook', 'https://127.1/hook', 'https://2130706433/hook', 'https://0x7f.0.0.1/hook',
        'https://0177.0.0.1/hook', 'https://localhost/hook', 'https://LOCALHOST./hook', 'https://[::1]/hook', 'https://[::ffff:127.0.0.1]/hook',
        'https://[0:0:0:0:0:ffff:7f00:1]/hook', 'https://10.0.0.1/hook', 'https://192.168.1.1:8443/hook', 'https://169.254.169.254/latest/meta-data',
        'https://[fe80::1]/hook', 'https://[fd00::1]/hook', 'https://metadata.google.internal/computeMetadata', 'https://printer.local/hook',
        'https://intranet/hook', 'https://user:secret@example.com/hook', 'ftp://example.com/hook', 'file:///etc/passwd', 'not a url',
        '//example.com/hook', '', 'ws://example.com/', 'javascript:alert(1)', 'data:text/plain,x', 'https://', 'https://user:password@example.com/',
        'https://user@example.com/', 'http://127.0.0.1:9/hook', 'https://127.0.0.1./', 'https://0x7f.1/', 'https://0/', 'https://%31%32%37.0.0.1/',
        'https://１２７.0.0.1/', 'https://127。0。0。1/', 'https://10.255.255.255:8443/x', 'https://172.16.0.1/', 'https://172.31.255.255/',
        'https://192.168.1.1/', 'https://100.64.0.1/', 'https://192.0.2.1/', 'https://198.18.0.1/', 'https://198.51.100.1/', 'https://203.0.113.1/',
        'https://224.0.0.1/', 'https://240.0.0.1/', 'https://255.255.255.255/', 'https://[::]/', 'https://[::ffff:a00:1]/', 'https://[::127.0.0.1]/',
        'https://[64:ff9b::7f00:1]/', 'https://[64:ff9b:1::a00:1]/', 'https://[2002:7f00:1::]/', 'https://[2001::1]/', 'https://[2001:db8::1]/',
        'https://[fc00::1]/', 'https://[fd12:3456::1]/', 'https://[ff02::1]/', 'https://[fec0::1]/', 'https://localhost./',
        'https://LOCALHOST:8787/', 'https://localhost%2e/', 'https://ｌocalhost/', 'https://x.localhost/', 'https://a.b.localhost./',
        'https://redis/', 'https://router.lan/', 'https://box.home.arpa/', 'https://1.0.0.127.in-addr.arpa/', 'https://x.corp/', 'https://x.onion/',
        'http://192.168.0.1/', 'ftp://127.0.0.1/', 'example.com',
      ]) {
        await refused(url);
      }
      for (const webhook_url of [
        'https://example.com/hook?x=1', 'https://hooks.example.com/coinslot?x=1', 'https://1.1.1.1/', 'https://[2606:4700:4700::1111]:8443/', 'https://localhost.example.com/',
        'https://172.32.0.1/', 'https://bücher.example/',
      ]) {
        const allowed = await seeker.propose(draft(agents.ada, seeker.account(), { party: { webhook_url } }));
        assert.equal(allowed.status, 200, `${webhook_url}: ${JSON.stringify(allowed.body)}`);
      }
    } finally {
      await closeStack();
    }
  });

  test('a name that resolves to a private address is refused before anything is sent', async () => {
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
    await openStack({ vars: { HIRE: JSON.stringify({ network: NETWORK, resolverUrl: `http://127.0.0.1:${resolver.address().port}/dns-query` }) } });
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
      await closeStack();
    }
  });

  test('a contract from before loopback was forbidden is executed, and its webhook is dead', async () => {
    await openStack();
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
      assert.equal(listener.received.length, 0);
    } finally {
      await listener.close();
      await closeStack();
    }
  });
});
