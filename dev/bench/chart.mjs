// A bar chart of what a run costs beside the plain Worker, which is 1. It has the colours of a light and of a dark page.

/** What is shown: a name, and the value of a contender; a smaller one is better. */
const BARS = [
  ['CPU, one wallet', (r, who) => r.cpu?.one[who]],
  ['CPU, 100 wallets', (r, who) => r.cpu?.hundred[who]],
  ['CPU, a new wallet', (r, who) => r.cpu?.new[who]],
  ['CPU, 1 ms a delta', (r, who) => r.paced?.['1ms'][who]],
  ['CPU of a 402', (r, who) => r[402]?.[who]],
  ['time per run, 32 at once', (r, who) => 1 / (r.throughput?.hundred[who] ?? NaN)],
  ['RSS, a wallet each', (r, who) => r.rss?.many[who]?.idle],
  ['RSS, one wallet', (r, who) => r.rss?.one[who]?.idle],
  ['streams at once, 50 wallets', (r, who) => r.streams?.fifty[who]?.median],
  ['streams at once, one wallet', (r, who) => r.streams?.one[who]?.median],
];
const SHOWN = ['ours', 'objects', 'hono'];
const STYLE = `
text { font: 12px system-ui, sans-serif; fill: #222 } .small { font-size: 11px } line { stroke: #888 }
.ours { fill: #c2410c } .objects { fill: #64748b } .hono { fill: #0e7490 }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .ours { fill: #fb923c } .objects { fill: #94a3b8 } .hono { fill: #22d3ee } }`;

const [WIDTH, LEFT, RIGHT, TOP, BAR, GAP] = [760, 190, 60, 50, 11, 12];

export function chart(result) {
  const contenders = SHOWN.filter((name) => result.names.includes(name));
  const groups = BARS.map(([label, value]) => [label, contenders.map((who) => [who, value(result, who) / value(result, 'plain')])]).filter(([, bars]) =>
    bars.some(([, ratio]) => Number.isFinite(ratio)),
  );
  const most = Math.max(1.5, ...groups.flatMap(([, bars]) => bars.map(([, ratio]) => ratio).filter(Number.isFinite)));
  const scale = (WIDTH - LEFT - RIGHT) / most;
  const groupHeight = contenders.length * BAR + GAP;
  const height = TOP + groups.length * groupHeight + 10;
  const one = LEFT + scale;
  const parts = groups.flatMap(([label, bars], g) => {
    const top = TOP + g * groupHeight;
    const name = `<text x="${LEFT - 10}" y="${top + (contenders.length * BAR) / 2 + 4}" text-anchor="end">${label}</text>`;
    return [name, ...bars.filter(([, ratio]) => Number.isFinite(ratio)).map(([who, ratio], i) => bar(who, ratio, top + i * BAR, scale))];
  });
  const legend = contenders.map((who, i) => `<rect class="${who}" x="${LEFT + i * 100}" y="10" width="10" height="10"/><text x="${LEFT + 15 + i * 100}" y="19">${who}</text>`);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="What a run costs, as a multiple of the plain Worker">
<style>${STYLE}</style>
${legend.join('\n')}
${parts.join('\n')}
<line x1="${one.toFixed(1)}" y1="${TOP - 8}" x2="${one.toFixed(1)}" y2="${height - 8}" stroke-dasharray="3 3"/>
<text class="small" x="${one.toFixed(1)}" y="${TOP - 13}" text-anchor="middle">plain = 1</text>
</svg>
`;
}

function bar(who, ratio, y, scale) {
  const width = ratio * scale;
  return `<rect class="${who}" x="${LEFT}" y="${y}" width="${width.toFixed(1)}" height="${BAR - 2}"/><text class="small" x="${(LEFT + width + 4).toFixed(1)}" y="${y + BAR - 2}">${ratio.toFixed(2)}</text>`;
}
