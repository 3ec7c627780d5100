// Runs both sides' tests, streams their output and ends with one line that adds them up.
// Fails if any test fails and if any part ran no test at all: a suite that has silently
// stopped being found must not look green.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const begun = Date.now();
const tmp = mkdtempSync(join(tmpdir(), 'coinslot-test-'));
process.on('exit', () => rmSync(tmp, { recursive: true, force: true }));
const problems = [];

// stdout and stderr go through one pipe, in order: cargo writes "Running tests/x.rs" to the one and results to the other.
function stream(command, env = {}) {
  console.log(`\n$ ${command}`);
  return new Promise((done) => {
    let out = '';
    const child = spawn('sh', ['-c', `exec 2>&1; ${command}`], { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, ...env } });
    child.stdout.on('data', (data) => { process.stdout.write(data); out += data; });
    child.on('close', (code) => done({ code, out: out.replace(/\x1b\[[\d;]*m/g, '') }));
  });
}

async function cargo() {
  const { code, out } = await stream('cargo test --no-fail-fast', process.stdout.isTTY ? { CARGO_TERM_COLOR: 'always' } : {});
  const sum = { passed: 0, failed: 0 };
  let part = 'cargo test';
  for (const line of out.split('\n')) {
    part = /^\s*Running (tests\/\S+)/.exec(line)?.[1] ?? (/^\s*(Running|Doc-tests) /.test(line) ? null : part);
    const result = /^test result: \S+ (\d+) passed; (\d+) failed;/.exec(line);
    if (!result) continue;
    const [passed, failed] = result.slice(1).map(Number);
    // Unit tests and doc tests of a target may well be none; a file in tests/ without any is a mistake.
    if (part && passed + failed === 0) problems.push(`${part} ran no test`);
    sum.passed += passed;
    sum.failed += failed;
  }
  if (sum.passed + sum.failed === 0) problems.push('cargo test ran no test');
  else if (code !== 0 && sum.failed === 0) problems.push(`cargo test ended with ${code}`);
  return sum;
}

async function node() {
  const files = readdirSync('tests', { recursive: true }).filter((f) => f.endsWith('.test.mjs')).map((f) => `tests/${f}`).sort();
  if (files.length === 0) {
    problems.push('there is no *.test.mjs in tests/');
    return { passed: 0, failed: 0 };
  }
  // Each file starts workers of its own, which keep more than one core busy: two files at a time, whatever the machine.
  const { code } = await stream(`node --test --test-concurrency=2 \
    --test-reporter=spec --test-reporter-destination=stdout \
    --test-reporter=tap --test-reporter-destination='${join(tmp, 'tap')}' ${files.join(' ')}`,
    process.stdout.isTTY ? { FORCE_COLOR: '1' } : {});
  const tap = readFileSync(join(tmp, 'tap'), 'utf8');
  const count = (name) => Number(new RegExp(`^# ${name} (\\d+)$`, 'm').exec(tap)?.[1] ?? 0);
  // node counts a file without tests as one test that passed, named after the file.
  const empty = [...tap.matchAll(/^ok \d+ - (\S*\.test\.mjs)$/gm)].map((m) => m[1]);
  for (const file of empty) problems.push(`${file} ran no test`);
  const sum = { passed: count('pass') - empty.length, failed: count('fail') + count('cancelled') };
  if (code !== 0 && sum.failed === 0) problems.push(`node --test ended with ${code}`);
  else if (sum.passed + sum.failed === 0 && empty.length === 0) problems.push('node --test ran no test');
  return sum;
}

const sums = [await cargo(), await node()];
const passed = sums.reduce((n, s) => n + s.passed, 0);
// What went wrong outside a test counts as a failure, so that the closing line never looks green when it is not.
const failed = sums.reduce((n, s) => n + s.failed, 0) + problems.length;
console.log(`\ncargo: ${sums[0].passed} passed, ${sums[0].failed} failed. node: ${sums[1].passed} passed, ${sums[1].failed} failed. ${Math.round((Date.now() - begun) / 1000)} s.`);
for (const problem of problems) console.log(`problem: ${problem}`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
