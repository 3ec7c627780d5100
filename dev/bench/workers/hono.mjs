// @x402/hono as its README shows it: the middleware in front of a handler that reads the template and the key and pipes
// Claude's answer. It keeps no ledger. The middleware holds the whole answer back until it is settled.
import { HTTPFacilitatorClient } from '@x402/core/server';
import { ExactEvmScheme } from '@x402/evm/exact/server';
import { paymentMiddleware, x402ResourceServer } from '@x402/hono';
import { Hono } from 'hono';
import { askClaude, findTemplate, offersOf, openKey, readConfig, render } from './shared.mjs';

const PATH = '/@ada/haiku';
let app;

async function create(env) {
  const [config, template] = await Promise.all([readConfig(env), findTemplate(env, PATH)]);
  const accepts = offersOf(template, config).map(({ scheme, network, payTo, maxTimeoutSeconds }) => ({
    scheme,
    network,
    payTo,
    maxTimeoutSeconds,
    price: `$${template.price}`,
  }));
  const server = new x402ResourceServer(new HTTPFacilitatorClient({ url: config.facilitators[0].url }));
  for (const { network } of accepts) server.register(network, new ExactEvmScheme());
  const app = new Hono();
  app.use(paymentMiddleware({ [`POST ${PATH}`]: { accepts, description: `${template.name}: ${template.description}`, mimeType: 'text/event-stream' } }, server));
  app.post(PATH, async (c) => {
    const [config, template] = await Promise.all([readConfig(c.env), findTemplate(c.env, PATH)]);
    const system = render(template, await c.req.json());
    const claude = await askClaude(config, template, system, await openKey(c.env, template.creator_id));
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
