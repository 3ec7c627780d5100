// The plain Worker of the benchmark: a paid run with the same I/O as ours, by hand, with no object and nothing durable.
import {
  Answer, LEDGER, askClaude, ledgerRow, openKey, readOrder, refusal, runId, settle, streamHeaders, verify,
} from './shared.mjs';

async function sell(request, env, context) {
  const begun = Date.now();
  const { unpaid, config, template, system, paid } = await readOrder(request, env);
  if (unpaid) return unpaid;
  const [key] = await Promise.all([openKey(env, template.creator_id), verify(config, paid)]);

  const id = runId();
  const answer = new Answer(await askClaude(config, template, system, key), id);
  await answer.begun;
  const receipt = await settle(config, paid);
  const { readable, writable } = new IdentityTransformStream();
  answer.open(writable.getWriter(), receipt);
  const record = async () => {
    await answer.done;
    await env.DB.prepare(LEDGER).bind(...ledgerRow({ id, template, paid, receipt, answer, begun })).run();
  };
  context.waitUntil(record());
  return new Response(readable, { headers: streamHeaders(id, receipt) });
}

export default {
  fetch: (request, env, context) => sell(request, env, context).catch(refusal),
};
