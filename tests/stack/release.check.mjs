// `make release`: what `wrangler deploy` would upload, built by it, and tried. Not one of `make test`'s files: those run
// the development build, and a release takes a minute or more.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { HAIKU, HAIKU_PRICE, INPUT, readSse, root, startStack } from '../support/stack.mjs';

const LIMIT = 1024 * 1024; // bytes, gzipped. Cloudflare takes 3 MiB on its free plan; a size that grows unnoticed slows the first call
const folder = mkdtempSync(join(tmpdir(), 'coinslot-release-'));
after(() => rmSync(folder, { recursive: true, force: true }));

// Before the tests: it takes longer than they may. Without the profile that make sets: a deploy has to choose by itself.
const { COINSLOT_PROFILE: _, ...env } = process.env;
const wrangler = `${root}node_modules/wrangler/bin/wrangler.js`;
await promisify(execFile)(process.execPath, [wrangler, 'deploy', '--dry-run', '--outdir', folder], { cwd: root, env }).catch((error) => {
  throw new Error(`wrangler deploy --dry-run:\n${error.stdout}${error.stderr}`);
});
// index.js, the entry, comes first: it is the only script.
const modules = readdirSync(folder)
  .filter((path) => /\.(js|wasm)$/.test(path))
  .sort((a, b) => b.endsWith('.js') - a.endsWith('.js'))
  .map((path) =>
    path.endsWith('.js')
      ? { type: 'ESModule', path, contents: readFileSync(join(folder, path), 'utf8') }
      : { type: 'CompiledWasm', path, contents: readFileSync(join(folder, path)) },
  );

let stack;
after(() => stack?.close());

test('wrangler deploy uploads the release build, and it is small enough', () => {
  assert.equal(readFileSync(`${root}build/.stamp`, 'utf8').split(' ')[0], 'release');
  assert.deepEqual(modules.map(({ type }) => type), ['ESModule', 'CompiledWasm']);
  const size = modules.reduce((sum, { contents }) => sum + gzipSync(contents, { level: 9 }).length, 0);
  console.log(`${Math.round(size / 1024)} KiB gzipped`);
  assert.ok(size < LIMIT);
});

test('the release sells a run', { timeout: 120_000 }, async () => {
  stack = await startStack({ modules });
  const health = await fetch(`${stack.url}/healthz`);
  assert.equal(health.status, 200);
  const { terms } = await stack.ask402(HAIKU);
  assert.equal(terms.x402Version, 2);

  const payer = await stack.payer();
  const before = await stack.balance(payer);
  const response = await stack.payV2(HAIKU, INPUT, {}, payer);
  assert.equal(response.status, 200);
  const { text, done } = await readSse(response);
  assert.ok(text && done.receipt.transaction);
  assert.equal(before - (await stack.balance(payer)), HAIKU_PRICE);
});
