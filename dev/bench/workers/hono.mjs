// @x402/hono as its README shows it: the middleware in front of a handler that reads the template and the key, pipes
// Claude's answer and writes a row. The middleware holds the whole answer back until it is settled.
import { HTTPFacilitatorClient } from '@x402/core/server';
import { ExactEvmScheme } from '@x402/evm/exact/server';
import { paymentMiddleware, x402ResourceServer } from '@x402/hono';
import { Hono } from 'hono';
import { LEDGER, askClaude, decodeHeader, ledgerRow, offersOf, openKey, readConfig, readEnvelope, readTemplate, render, runId } from './shared.mjs';

const PATH = '/@ada/haiku';
let app;

async function create(env) {
  const [config, template] = await Promise.all([readConfig(env), readTemplate(env, PATH)]);
  const offers = offersOf(template, config);
  const accepts = offers.map(({ scheme, network, payTo, maxTimeoutSeconds }) => ({ scheme, network, payTo, maxTimeoutSeconds, price: `$${template.price}` }));
  const server = new x402ResourceServer(new HTTPFacilitatorClient({ url: config.facilitators[0].url }));
  for (const { network } of accepts) server.register(network, new ExactEvmScheme());
  const app = new Hono();
  app.use(paymentMiddleware({ [`POST ${PATH}`]: { accepts, description: `${template.name}: ${template.description}`, mimeType: 'text/event-stream' } }, server));
  app.post(PATH, async (c) => {
    const begun = Date.now();
    const template = await readTemplate(c.env, PATH);
    const system = render(template, await c.req.json());
    const key = await openKey(c.env, template.creator_id, readEnvelope);
    const claude = await askClaude(config, template, system, key);
    // It does not read Claude's events, so it knows neither the usage nor the transaction.
    const { from } = decodeHeader(c.req.header('payment-signature')).payload.authorization;
    const answer = { stopReason: null, usage: { input_tokens: 0, output_tokens: 0 } };
    const row = ledgerRow({ id: runId(), template, paid: { payer: from, offer: offers[0] }, receipt: { transaction: null }, answer, begun });
    c.executionCtx.waitUntil(c.env.DB.prepare(LEDGER).bind(...row).run());
    return new Response(claude.body, { headers: { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' } });
  });
  return app;
}

export default {
  async fetch(request, env, context) {
    app ??= await create(env);
    return app.fetch(request, env, context);
  },
};
