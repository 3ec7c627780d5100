// What the wallets' objects have stored, read and changed behind the runtime's back. Evict an object before changing it.
import { DatabaseSync } from 'node:sqlite';

/** The files in which the objects store. (The runtime has one for the namespace too.) */
export const objectFiles = (stack) => stack.files().filter(({ path }) => path.includes('WalletObject') && !path.includes('metadata.sqlite'));

/** What `work(db)` gives for the database of each object that has stored anything. Of the others, the runtime keeps an empty page. */
export function inObjects(stack, work) {
  return objectFiles(stack).filter(({ path }) => path.endsWith('.sqlite')).flatMap(({ path }) => {
    const db = new DatabaseSync(path);
    try {
      const { tables } = db.prepare("SELECT count(*) AS tables FROM sqlite_master WHERE name = 'runs'").get();
      return tables ? [work(db)] : [];
    } finally {
      db.close();
    }
  });
}
