// Writes what .dev/bench.json says into docs/performance.md, between its markers, and draws docs/performance.svg.
//   node dev/bench/report.mjs [.dev/bench.json]
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { chart } from './chart.mjs';
import { costs, ledgerText } from './prices.mjs';
import { comparisons, mainTable, markdown } from './tables.mjs';

const root = fileURLToPath(new URL('../../', import.meta.url));
const PAGE = `${root}docs/performance.md`;

function machineOf({ at, machine, load, sizes, seconds }) {
  const { cpu, cores, memoryGiB, kernel, node, workerd, wrangler, x402hono, commit, storage } = machine;
  const facts = [
    `${cpu}, ${cores} cores, ${memoryGiB} GiB, ${kernel}; storage on ${storage}`,
    `node ${node}, workerd ${workerd}, wrangler ${wrangler}, @x402/hono ${x402hono}`,
    `commit ${commit}, ${at.slice(0, 10)}, ${Math.round(seconds / 60)} minutes; load before it began: ${load.toFixed(1)}`,
    `sizes: ${Object.entries(sizes).map(([name, value]) => `${name} ${value}`).join(', ')}`,
  ];
  return facts.map((fact) => `- ${fact}`).join('\n');
}

/** Replaces what stands between `<!-- bench: name -->` and `<!-- end -->`. */
function fill(page, name, text) {
  const begin = `<!-- bench: ${name} -->`;
  const [before, rest] = page.split(begin);
  if (rest === undefined) throw new Error(`docs/performance.md has no ${begin}`);
  return `${before}${begin}\n${text}\n<!-- end -->${rest.slice(rest.indexOf('<!-- end -->') + '<!-- end -->'.length)}`;
}

export function write(result) {
  let page = readFileSync(PAGE, 'utf8');
  page = fill(page, 'machine', machineOf(result));
  page = fill(page, 'table', markdown(mainTable(result)));
  page = fill(page, 'asked', markdown(comparisons(result)));
  page = fill(page, 'cost', costs(result));
  page = fill(page, 'ledger', ledgerText(result));
  writeFileSync(PAGE, page);
  writeFileSync(`${root}docs/performance.svg`, chart(result));
  console.log('docs/performance.md and docs/performance.svg are written');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  write(JSON.parse(readFileSync(process.argv[2] ?? `${root}.dev/bench.json`, 'utf8')));
}
