// What the hand-written Workers share: the same reads, checks and calls as a paid run of ours makes.
// Values are kept in the isolate for five seconds; promises are not, because a request may not wait for another's I/O.
const FRESH = 5_000;

function kept(load) {
  const entries = new Map();
  return async (env, key) => {
    const entry = entries.get(key);
    if (entry && Date.now() - entry.at < FRESH) return entry.value;
    const value = await load(env, key);
    entries.set(key, { at: Date.now(), value });
    return value;
  };
}

/** The config document in KV. */
export const readConfig = kept((env) => env.KV.get('config', 'json'));

/** The template at `/@handle/slug`, read anew. */
export async function readTemplate(env, path) {
  const [, handle, slug] = /^\/@([^/]+)\/([^/]+)$/.exec(path) ?? [];
  const row = await env.DB.prepare(
    `SELECT t.id, t.creator_id, c.wallets, t.name, t.description, t.model, t.prompt, t.parameters, t.max_tokens, t.price
     FROM templates t JOIN creators c ON c.id = t.creator_id WHERE c.handle = ?1 AND t.slug = ?2 AND t.published = 1 AND c.deleted_at IS NULL`,
  )
    .bind(handle, slug)
    .first();
  return row && { ...row, wallets: JSON.parse(row.wallets), parameters: JSON.parse(row.parameters) };
}

export const findTemplate = kept(readTemplate);

/** The creator's key as KV holds it, read anew. */
export const readEnvelope = (env, creator) => env.KV.get(`claude-key/${creator}`, 'json');
const findEnvelope = kept(readEnvelope);

const fromBase64 = (text) => Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));
let master;

/** The creator's Claude key, opened for this run alone. */
export async function openKey(env, creator, find = findEnvelope) {
  const { envelope } = await find(env, creator);
  master ??= await crypto.subtle.importKey('raw', fromBase64(env.VAULT_KEYS.split(':')[1]), 'AES-GCM', false, ['decrypt']);
  const [, , iv, sealed] = envelope.split('.');
  const additionalData = new TextEncoder().encode(creator);
  return new TextDecoder().decode(await crypto.subtle.decrypt({ name: 'AES-GCM', iv: fromBase64(iv), additionalData }, master, fromBase64(sealed)));
}

export class Refused extends Error {
  constructor(status, code) {
    super(code);
    this.status = status;
  }
}

/** The system prompt with the input's values. Throws where the input does not fit the template. */
export function render(template, input) {
  const known = new Set(template.parameters.map(({ name }) => name));
  if (Object.keys(input).some((name) => !known.has(name))) throw new Refused(400, 'UNKNOWN_PARAMETER');
  const values = {};
  for (const { name, required, default: preset, maxLength } of template.parameters) {
    const value = input[name] ?? preset ?? '';
    if (required && value === '') throw new Refused(400, 'MISSING_PARAMETER');
    if (typeof value !== 'string' || value.length > (maxLength ?? 20_000)) throw new Refused(400, 'INVALID_PARAMETER');
    values[name] = value;
  }
  return template.prompt.replace(/\{([A-Za-z_][\w-]*)\}\{\/\1\}/g, (tag, name) => values[name] ?? tag);
}

const MIME = 'text/event-stream';

/** What is asked for a run of the template, in x402's version 2. */
export function offersOf(template, config) {
  const amount = String(Math.round(Number(template.price) * 1e6));
  return config.networks
    .filter(({ id }) => template.wallets[id])
    .map(({ id, asset, eip712 }) => ({
      scheme: 'exact',
      network: id,
      amount,
      asset,
      payTo: template.wallets[id],
      maxTimeoutSeconds: config.limits.maxTimeoutSeconds,
      extra: { name: eip712.name, version: eip712.version },
    }));
}

const IDENTIFIER = {
  info: { required: false },
  schema: {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    type: 'object',
    properties: { required: { type: 'boolean' }, id: { type: 'string', minLength: 16, maxLength: 128, pattern: '^[a-zA-Z0-9_-]+$' } },
    required: ['required'],
  },
};

/** The 402, with the terms for both versions of x402. */
export function challenge(url, template, offers, config) {
  const error = 'Payment required';
  const description = `${template.name}: ${template.description}`.slice(0, 200);
  const resource = { url, description, mimeType: MIME };
  const terms = { x402Version: 2, error, resource, accepts: offers, extensions: { 'payment-identifier': IDENTIFIER } };
  const fields = template.parameters.map(({ name, required, default: preset, description }) => [
    name,
    { type: 'string', required: Boolean(required && preset === undefined), description },
  ]);
  const outputSchema = { input: { type: 'http', method: 'POST', bodyType: 'json', bodyFields: Object.fromEntries(fields) }, output: { type: 'string' } };
  const accepts = offers.map(({ scheme, network, amount, asset, payTo, maxTimeoutSeconds, extra }) => ({
    scheme,
    network: config.networks.find(({ id }) => id === network).v1,
    maxAmountRequired: amount,
    resource: url,
    description,
    mimeType: MIME,
    payTo,
    maxTimeoutSeconds,
    asset,
    outputSchema,
    extra,
  }));
  return Response.json({ x402Version: 1, error, accepts, code: 'PAYMENT_REQUIRED', message: 'Pay with x402.' }, { status: 402, headers: { 'payment-required': encodeHeader(terms), 'cache-control': 'no-store' } });
}

const encodeHeader = (value) => btoa(String.fromCharCode(...new TextEncoder().encode(JSON.stringify(value))));
export const decodeHeader = (text) => JSON.parse(new TextDecoder().decode(fromBase64(text)));

/** Reads the payment and compares it with the terms. The signature is left to the facilitator. */
export function readPayment(header, offers) {
  const payment = decodeHeader(header);
  const { accepted, payload } = payment;
  const offer = offers.find(({ network }) => network === accepted.network);
  const { authorization } = payload;
  const now = Date.now() / 1000;
  const same = (a, b) => a.toLowerCase() === b.toLowerCase();
  const fits =
    offer &&
    payment.x402Version === 2 &&
    accepted.scheme === 'exact' &&
    accepted.amount === offer.amount &&
    accepted.maxTimeoutSeconds === offer.maxTimeoutSeconds &&
    same(accepted.asset, offer.asset) &&
    same(accepted.payTo, offer.payTo) &&
    accepted.extra.name === offer.extra.name &&
    accepted.extra.version === offer.extra.version &&
    same(authorization.to, offer.payTo) &&
    authorization.value === offer.amount &&
    Number(authorization.validAfter) <= now &&
    Number(authorization.validBefore) > now + 36;
  if (!fits) throw new Refused(402, 'PAYMENT_MISMATCH');
  return { payment, offer, payer: authorization.from, nonce: authorization.nonce };
}

async function post(url, body, headers = {}) {
  return fetch(url, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) });
}

async function facilitator(config, method, { payment, offer }) {
  const response = await post(`${config.facilitators[0].url}/${method}`, { x402Version: 2, paymentPayload: payment, paymentRequirements: offer });
  if (!response.ok) throw new Refused(503, 'FACILITATOR_UNAVAILABLE');
  return response.json();
}

export async function verify(config, paid) {
  const answer = await facilitator(config, 'verify', paid);
  if (!answer.isValid || answer.payer.toLowerCase() !== paid.payer.toLowerCase()) throw new Refused(402, 'PAYMENT_INVALID');
}

export async function settle(config, paid) {
  const answer = await facilitator(config, 'settle', paid);
  if (!answer.success) throw new Refused(402, 'SETTLEMENT_REJECTED');
  return answer;
}

export async function askClaude(config, template, system, key) {
  const body = { model: template.model, max_tokens: template.max_tokens, system, messages: [{ role: 'user', content: 'Please proceed.' }], stream: true };
  const response = await post(`${config.anthropic.baseUrl}/v1/messages`, body, { 'anthropic-version': '2023-06-01', 'x-api-key': key });
  if (response.status !== 200) throw new Refused(503, 'CLAUDE_UNAVAILABLE');
  return response;
}

/** The statement and the values of a run's row in the ledger. */
export const LEDGER = `INSERT INTO runs (id, template_id, creator_id, owner_test, payer, network, asset, amount, tx, status, code, model, stop_reason,
  input_tokens, output_tokens, started_at, duration_ms) VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7, ?8, 'delivered', NULL, ?9, ?10, ?11, ?12, ?13, ?14)
  ON CONFLICT (id) DO NOTHING`;
export const ledgerRow = ({ id, template, paid, receipt, answer, begun }) => [
  id,
  template.id,
  template.creator_id,
  paid.payer,
  paid.offer.network,
  paid.offer.asset,
  paid.offer.amount,
  receipt.transaction,
  template.model,
  answer.stopReason,
  answer.usage.input_tokens,
  answer.usage.output_tokens,
  begun,
  Date.now() - begun,
];

export const runId = () => `run_${Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('')}`;

export const streamHeaders = (id, receipt) => ({
  'content-type': MIME,
  'cache-control': 'private, no-cache',
  'x-run-id': id,
  'payment-response': encodeHeader(receipt),
});

export function refusal(error) {
  if (!(error instanceof Refused)) throw error;
  return Response.json({ error: { code: error.message, message: error.message } }, { status: error.status });
}

/**
 * Turns Claude's events into ours while they come. `begun` resolves with Claude's first text; until `open(writer,
 * receipt)` the events are kept. `done` resolves with the answer once everything is written.
 */
export class Answer {
  usage = { input_tokens: 0, output_tokens: 0, cache_creation_input_tokens: 0, cache_read_input_tokens: 0 };
  stopReason = null;
  text = '';
  #kept = '';
  #lastId = 0;
  #rest = '';
  #encoder = new TextEncoder();
  #decoder = new TextDecoder();

  constructor(response, run) {
    this.run = run;
    this.begun = new Promise((resolve, reject) => Object.assign(this, { begin: resolve, fail: reject }));
    this.opened = new Promise((resolve) => (this.open = (writer, receipt) => (this.#flush(writer), resolve({ writer, receipt }))));
    this.done = this.#pump(response.body.getReader({ mode: 'byob' }));
  }

  #flush(writer) {
    this.writer = writer;
    if (!this.#kept) return undefined;
    const bytes = this.#encoder.encode(this.#kept);
    this.#kept = '';
    return writer.write(bytes);
  }

  #send(data) {
    this.#kept += `id: ${++this.#lastId}\ndata: ${JSON.stringify(data)}\n\n`;
  }

  async #pump(reader) {
    let buffer = new ArrayBuffer(32 * 1024);
    for (;;) {
      const { value, done } = await reader.read(new Uint8Array(buffer));
      if (done) break;
      this.#take(this.#decoder.decode(value, { stream: true }));
      buffer = value.buffer;
      if (this.writer) await this.#flush(this.writer);
    }
    if (!this.ended) this.fail(new Refused(503, 'CLAUDE_UNAVAILABLE'));
    const { writer, receipt } = await this.opened;
    this.#send({ type: 'done', usage: this.usage, stop_reason: this.stopReason, run: this.run, receipt });
    await this.#flush(writer);
    await writer.close();
    return this;
  }

  #take(text) {
    const events = (this.#rest + text).split('\n\n');
    this.#rest = events.pop();
    for (const event of events) {
      const at = event.indexOf('data: ');
      if (at >= 0) this.#read(JSON.parse(event.slice(at + 6)));
    }
  }

  #read(event) {
    switch (event.type) {
      case 'content_block_delta':
        if (event.delta.type !== 'text_delta') return;
        this.begin();
        this.text += event.delta.text;
        return this.#send({ type: 'text', content: event.delta.text });
      case 'message_start':
        return void this.#count(event.message.usage);
      case 'message_delta':
        this.stopReason = event.delta.stop_reason ?? this.stopReason;
        return void this.#count(event.usage);
      case 'message_stop':
        this.ended = true;
    }
  }

  #count(usage) {
    for (const name of Object.keys(this.usage)) this.usage[name] = usage[name] ?? this.usage[name];
  }
}

/** What a request asks for and pays with, or as `unpaid` the answer to one without a payment. */
export async function readOrder(request, env) {
  const path = new URL(request.url).pathname;
  const [config, template] = await Promise.all([readConfig(env), findTemplate(env, path)]);
  if (!template) return { unpaid: new Response('not found', { status: 404 }) };
  const system = render(template, await request.json());
  const offers = offersOf(template, config);
  const header = request.headers.get('payment-signature');
  if (!header) return { unpaid: challenge(request.url, template, offers, config) };
  return { path, config, template, system, paid: readPayment(header, offers) };
}
