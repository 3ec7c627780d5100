// package-lock.json is for every system that one may develop on. npm writes it for its own system alone where the
// registry lacks the others' binaries, and only some of its versions then refuse the lock.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

const { packages } = JSON.parse(readFileSync(new URL('../../package-lock.json', import.meta.url), 'utf8'));

/** Where node finds `name` from the package at `place`. */
function resolve(name, place) {
  for (let folder = place; ; folder = folder.replace(/(^|\/)node_modules\/(?:@[^/]+\/)?[^/]+$/, '')) {
    const found = `${folder}${folder && '/'}node_modules/${name}`;
    if (packages[found]) return found;
    if (folder === '') return undefined;
  }
}

test('the lock has every optional binary of every system', () => {
  const missing = Object.entries(packages).flatMap(([place, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies).filter((name) => !resolve(name, place)).map((name) => `${name} of ${place || 'package.json'}`),
  );
  assert.deepEqual(missing, []);
});

test('the lock names no registry', () => {
  assert.deepEqual(Object.entries(packages).filter(([, { resolved }]) => resolved).map(([place]) => place), []);
});
