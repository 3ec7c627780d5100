// migrations/ is what makes a database, schema.sql is what one reads: both give the same.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, test } from 'node:test';
import { promisify } from 'node:util';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'coinslot-d1-'));
after(() => rmSync(folder, { recursive: true, force: true }));

/** `wrangler d1 migrations apply`, as set-up and a deploy do it. */
const migrate = () =>
  promisify(execFile)(
    process.execPath,
    [`${root}node_modules/wrangler/bin/wrangler.js`, 'd1', 'migrations', 'apply', 'coinslot', '--local', '--persist-to', folder],
    { cwd: root, env: { ...process.env, CI: 'true', WRANGLER_SEND_METRICS: 'false' } },
  );

function open() {
  const files = readdirSync(folder, { recursive: true }).filter((name) => /d1.*\.sqlite$/.test(name) && !name.includes('metadata'));
  assert.equal(files.length, 1, `one database: ${files}`);
  return new DatabaseSync(join(folder, files[0]), { readOnly: true });
}

/** The parts of a list that no parenthesis encloses. */
function parts(list) {
  const found = [''];
  let depth = 0;
  for (const char of list) {
    depth += { '(': 1, ')': -1 }[char] ?? 0;
    if (char === ',' && depth === 0) found.push('');
    else found[found.length - 1] += char;
  }
  return found.map((part) => part.trim());
}

/**
 * What the database is, in one form: without comments, layout and the order of a table's columns, for ALTER TABLE puts
 * a column last. Without what D1 and wrangler keep for themselves.
 */
function schemaOf(database) {
  const rows = database.prepare(`SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE '\\_cf\\_%' ESCAPE '\\' AND name NOT IN ('d1_migrations', 'sqlite_sequence')`).all();
  return Object.fromEntries(
    rows
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .map(({ type, name, sql }) => {
        const text = sql.replace(/--.*$/gm, '').replace(/\s+/g, ' ').trim();
        const table = type === 'table' && /^(CREATE TABLE \S+) ?\((.*)\)([^)]*)$/i.exec(text);
        return [`${type} ${name}`, table ? [table[1], ...parts(table[2]).sort(), table[3].trim()] : text];
      }),
  );
}

test('the migrations make the database of schema.sql, are recorded, and can be applied again', { timeout: 300_000 }, async () => {
  await migrate();
  const first = open();
  const made = schemaOf(first);
  const recorded = first.prepare('SELECT name FROM d1_migrations ORDER BY id').all().map(({ name }) => name);
  first.close();

  const read = new DatabaseSync(':memory:');
  read.exec(readFileSync(`${root}schema.sql`, 'utf8'));
  assert.ok(Object.keys(made).length > 5);
  assert.deepEqual(made, schemaOf(read));
  assert.deepEqual(recorded, readdirSync(`${root}migrations`).sort());

  await migrate();
  const again = open();
  assert.deepEqual(again.prepare('SELECT name FROM d1_migrations ORDER BY id').all().map(({ name }) => name), recorded);
  assert.deepEqual(schemaOf(again), made);
  again.close();
});
