// The plain Worker with our promises, as far as they cost something: an object per wallet, in which a payment buys one
// run; the run's state is saved before its payment is settled, and its transcript at its end; one object gathers the
// ledger's rows for a second and writes them in a batch.
import { DurableObject } from 'cloudflare:workers';
import {
  Answer, LEDGER, Refused, askClaude, findTemplate, ledgerRow, openKey, readConfig, readOrder, refusal, runId, settle, streamHeaders, verify,
} from './shared.mjs';

const DAY = 24 * 3600 * 1000;
const GATHER = 1_000;

async function sell(request, env) {
  const { unpaid, path, system, paid } = await readOrder(request, env);
  if (unpaid) return unpaid;
  const wallet = env.WALLETS.getByName(`${paid.offer.network}/${paid.payer.toLowerCase()}`);
  return wallet.fetch(request.url, { method: 'POST', body: JSON.stringify({ path, system, paid }) });
}

export default {
  fetch: (request, env) => sell(request, env).catch(refusal),
};

export class Wallet extends DurableObject {
  underWay = new Set(); // nonces of payments that have no row yet

  constructor(context, env) {
    super(context, env);
    this.sql = context.storage.sql;
    this.sql.exec(
      'CREATE TABLE IF NOT EXISTS runs (nonce TEXT PRIMARY KEY, id TEXT NOT NULL, state TEXT NOT NULL, request TEXT, receipt TEXT, transcript TEXT, changed_at INTEGER NOT NULL)',
    );
  }

  fetch(request) {
    return this.sell(request).catch(refusal);
  }

  async sell(request) {
    const begun = Date.now();
    const { path, system, paid } = await request.json();
    const isKnown = this.sql.exec('SELECT 1 FROM runs WHERE nonce = ?', paid.nonce).toArray().length > 0;
    if (isKnown || this.underWay.has(paid.nonce)) throw new Refused(409, 'PAYMENT_REUSED');
    this.underWay.add(paid.nonce);
    return this.execute(path, system, paid, begun).finally(() => this.underWay.delete(paid.nonce));
  }

  async execute(path, system, paid, begun) {
    const [config, template] = await Promise.all([readConfig(this.env), findTemplate(this.env, path)]);
    const [key] = await Promise.all([openKey(this.env, template.creator_id), verify(config, paid)]);

    const id = runId();
    const answer = new Answer(await askClaude(config, template, system, key), id);
    await answer.begun;
    await this.save(paid, id);
    const receipt = await settle(config, paid);
    const { readable, writable } = new IdentityTransformStream();
    answer.open(writable.getWriter(), receipt);
    const record = async () => {
      await answer.done;
      this.sql.exec(
        "UPDATE runs SET state = 'delivered', receipt = ?, transcript = ?, changed_at = ? WHERE nonce = ?",
        JSON.stringify(receipt), answer.text, Date.now(), paid.nonce,
      );
      await this.env.LEDGER.getByName('ledger').add(ledgerRow({ id, template, paid, receipt, answer, begun }));
    };
    this.ctx.waitUntil(record());
    return new Response(readable, { headers: streamHeaders(id, receipt) });
  }

  /** Before the money moves: what a restart would have to know. */
  async save(paid, id) {
    this.sql.exec("INSERT INTO runs VALUES (?, ?, 'settling', ?, NULL, NULL, ?)", paid.nonce, id, JSON.stringify(paid), Date.now());
    if (!this.hasAlarm) {
      this.hasAlarm = true;
      this.ctx.storage.setAlarm(Date.now() + DAY);
    }
    await this.ctx.storage.sync();
  }

  alarm() {
    this.sql.exec('DELETE FROM runs WHERE changed_at < ?', Date.now() - DAY);
  }
}

export class Ledger extends DurableObject {
  constructor(context, env) {
    super(context, env);
    this.sql = context.storage.sql;
    this.sql.exec('CREATE TABLE IF NOT EXISTS rows (id TEXT PRIMARY KEY, row TEXT NOT NULL)');
  }

  add(row) {
    this.sql.exec('INSERT OR IGNORE INTO rows VALUES (?, ?)', row[0], JSON.stringify(row));
    if (this.hasAlarm) return;
    this.hasAlarm = true;
    this.ctx.storage.setAlarm(Date.now() + GATHER);
  }

  async alarm() {
    this.hasAlarm = false;
    const rows = this.sql.exec('SELECT row FROM rows').toArray().map(({ row }) => JSON.parse(row));
    if (!rows.length) return;
    const insert = this.env.DB.prepare(LEDGER);
    await this.env.DB.batch(rows.map((row) => insert.bind(...row)));
    this.sql.exec(`DELETE FROM rows WHERE id IN (${rows.map(([id]) => `'${id}'`).join(',')})`);
  }
}
